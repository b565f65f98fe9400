"""The CUDA kernels without a GPU: under numba's simulator, and compiled to PTX.

The simulator runs each thread of a GPU as Python, slowly, on tiny problems. What it cannot show,
that the kernels compile for a GPU, is shown where numba-cuda and NVIDIA's compiler are installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

SIMULATED = """
    import json, sys, threading, warnings
    from dataclasses import replace

    import torch
    from numba import config as numba_config
    from problems import circles, fodf_of, scaling
    from tracking_cases import (
        Case, agreement, anatomy_of, relative_error, weights_of, with_gradients,
    )

    from difftract_bids.core import TrackingConfig, adjoint, survival
    from difftract_bids.core.kernels import lookup
    from difftract_bids.core.kernels.cuda import CudaBackend
    from difftract_bids.core.regions import RegionImage, Regions, Sphere

    torch.set_num_threads(1)
    assert numba_config.ENABLE_CUDASIM and numba_config.DISABLE_JIT
    launches = []

    class Counted(CudaBackend):
        def trace(self, *given):
            launches.append("trace")
            return super().trace(*given)

        def pull_back(self, *given):
            launches.append("pull_back")
            return super().pull_back(*given)

        def amplitudes(self, *given):
            launches.append("amplitudes")
            return super().amplitudes(*given)

        def pull_back_amplitudes(self, *given):
            launches.append("pull_back_amplitudes")
            return super().pull_back_amplitudes(*given)

    # A simulated thread is one of Python's, and x += y is not one operation there.
    lock = threading.Lock()

    def add_to(array, i, j, value):
        with lock:
            array[i, j] += value

    lookup.add_to = add_to
    adjoint.backend_for = survival.backend_for = lambda table: Counted()

    affine = scaling(2.0)
    fodf = fodf_of(circles((-6.0, 8.0, 6.0)), (8, 8, 6), affine, lmax=4)
    seeds = torch.tensor([[6.013, 8.117, 5.321], [4.171, 6.233, 6.412], [99.0, 0.0, 0.0]]).double()
    starts = torch.tensor([[0.0, 1.0, 0.0], [0.1, -1.0, 0.0], [0.0, 1.0, 0.0]]).double()
    case = Case(fodf, affine, seeds, starts)
    slab = torch.zeros(8, 8, 6, dtype=torch.bool)
    slab[:, :6] = True
    regions = Regions(
        mask=(RegionImage(slab, affine),),
        include=(Sphere((6.0, 8.0, 5.0), 3.0),),
        exclude=(Sphere((4.0, 5.0, 6.4), 0.6),),
    )
    settings = dict(max_length_mm=8.0, min_length_mm=1.0, step_size_mm=1.0, peak_tolerance=1e-10)
    found = {}

    def compare(name, integrator, where, dtype=torch.float64, case=case, anatomy=None):
        config = TrackingConfig(integrator=integrator, **settings)
        given = case.to(dtype)
        slow = replace(config, backend="reference")
        ours, *gradients = with_gradients(given, config, where, anatomy)
        theirs, *expected = with_gradients(given, slow, where, anatomy)
        alike = agreement(ours, theirs)
        found[name] = dict(
            streamlines=len(ours),
            seeds=alike.seeds,
            alike=alike.streamlines,
            distance=float(alike.distances_mm.max()),
            gradients=[relative_error(a, b) for a, b in zip(gradients, expected)],
            stops=sorted(why.name for why in ours.count_stops()),
        )

    for integrator in ("euler", "midpoint", "rk4", "rk4_classic"):
        compare(integrator, integrator, None)
    compare("regions", "euler", regions)
    compare("single", "euler", None, torch.float32)

    from tracking_cases import crossing_case

    many = crossing_case(400, (20, 18, 14), lmax=4)
    settings["max_length_mm"] = 60.0
    tissue = anatomy_of(many, crop_at_gmwmi=True)
    from difftract_bids.core import StopReason
    slow = TrackingConfig(backend="reference", integrator="euler", **settings)
    known = many.track(slow, None, tissue)
    cut = (known.stop_reason == StopReason.LEFT_DEEP_GREY).any(1)
    some = torch.cat([known.seed_index[cut][:3], torch.arange(20)])
    few = replace(many, seeds=many.seeds[some], starts=many.starts[some])
    compare("tissue", "euler", None, case=few, anatomy=tissue)
    settings["max_length_mm"] = 8.0

    def weigh(backend):
        leaf = fodf.clone().requires_grad_()
        survival.backend_for = backend
        config = TrackingConfig(backend="reference", **settings)
        lines = replace(case, fodf=leaf).track(config)
        weights = survival.soft_survival(
            leaf, affine, lines, cutoff=0.2, softness=0.3, peak_tolerance=1e-10
        )
        weights.sum().backward()
        return weights.detach(), leaf.grad

    from difftract_bids.core.kernels.cpu import CpuBackend

    ours, theirs = weigh(lambda table: Counted()), weigh(lambda table: CpuBackend())
    found["survival"] = [relative_error(a, b) for a, b in zip(ours, theirs)]
    found["launches"] = sorted(set(launches))
    print(json.dumps(found))
"""


def run_python(program: str, **environment: str) -> str:
    known = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": known} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def simulated():
    written = run_python(SIMULATED, NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
    return json.loads(written.splitlines()[-1])


def test_simulated_kernels_obey_tissue_as_the_reference_does(simulated):
    found = simulated["tissue"]
    assert found["streamlines"] > 2
    assert {"ENTERED_CORTEX", "LEFT_DEEP_GREY"} <= set(found["stops"])
    assert (found["seeds"], found["alike"]) == (1, 1)
    assert found["distance"] < 1e-9
    assert max(found["gradients"]) < 1e-9


@pytest.mark.parametrize("case", ["euler", "midpoint", "rk4", "rk4_classic", "regions"])
def test_simulated_kernels_give_the_references_streamlines_and_gradients(simulated, case):
    found = simulated[case]
    assert found["streamlines"] == (1 if case == "regions" else 2)
    assert (found["seeds"], found["alike"]) == (1, 1)
    assert found["distance"] < 1e-9
    assert max(found["gradients"]) < 1e-9


def test_simulated_kernels_in_float32_are_close(simulated):
    found = simulated["single"]
    assert found["streamlines"] == 2
    assert found["distance"] < 1e-3
    assert max(found["gradients"]) < 1e-4


def test_simulated_amplitudes_and_their_gradients_are_those_of_the_processor(simulated):
    assert max(simulated["survival"]) < 1e-9


def test_the_simulator_ran_every_kernel(simulated):
    expected = ["amplitudes", "pull_back", "pull_back_amplitudes", "trace"]
    assert simulated["launches"] == expected


COMPILED = """
    import importlib.metadata, json, sys

    import numpy as np
    import torch
    from numba import types, typeof

    try:
        # numba's own CUDA target, without numba-cuda, is another and older one.
        importlib.metadata.version("numba-cuda")
        from numba import cuda
        import numba.cuda.dispatcher as dispatcher
        from difftract_bids.core.kernels.cuda import device_sources
        from difftract_bids.core.kernels.layout import (
            FieldArrays, RegionArrays, Rules, TissueArrays,
        )
        @cuda.jit
        def nothing(x):
            x[0] = 1
        cuda.compile_ptx(nothing.py_func, (types.float32[::1],), cc=(9, 0))
    except Exception as error:
        print(json.dumps({"skip": f"{type(error).__name__}: {error}".splitlines()[0]}))
        sys.exit(0)

    class Device:
        compute_capability = (9, 0)

    # Compiling asks which GPU is there, only to know for which one to compile.
    dispatcher.get_current_device = Device
    integer, found = types.int64, {}

    def arrays(dtype, n):
        return types.Array(dtype, n, "C")

    for name, dtype, real, scalar in (
        ("single", torch.float32, types.float32, np.float32),
        ("double", torch.float64, types.float64, np.float64),
    ):
        row, image = arrays(types.int32, 3), arrays(real, 2)
        order = types.UniTuple(integer, 8)
        field = types.NamedTuple((order, image, row, arrays(types.float64, 2)), FieldArrays)
        regions = types.NamedTuple(
            (
                arrays(types.float64, 3), arrays(integer, 2), arrays(integer, 1),
                arrays(integer, 1), arrays(types.float64, 2), arrays(integer, 1),
                integer, integer,
            ),
            RegionArrays,
        )
        tissues = types.NamedTuple(
            (
                types.UniTuple(integer, 1), arrays(types.float32, 2), row,
                arrays(types.uint8, 3), arrays(types.float64, 2),
            ),
            TissueArrays,
        )
        rules = typeof(Rules(0, *[scalar(1)] * 5, 3, 4, False, False, *[scalar(1)] * 2))
        number, line = arrays(integer, 1), arrays(real, 1)
        kernels = device_sources(dtype)
        signatures = {
            "trace": (
                field, regions, tissues, rules, image, image, arrays(real, 3), arrays(integer, 2)
            ),
            "pull_back": (
                field, rules, image, number, number, image, image, image, image, number
            ),
            "amplitudes": (field, rules, image, number, line),
            "pull_back_amplitudes": (field, rules, image, number, line, image, image),
        }
        for kernel, signature in signatures.items():
            ptx, _ = cuda.compile_ptx(getattr(kernels, kernel), signature, cc=(9, 0))
            wide = sum(
                word in line
                for line in ptx.splitlines()
                for word in ("fma.rn.f64", "mul.f64", "sqrt.rn.f64")
            )
            found[f"{name} {kernel}"] = dict(
                bytes=len(ptx), atomic="atom" in ptx or "red." in ptx, wide=wide,
                narrow=ptx.count("fma.rn.f32"),
            )
    print(json.dumps(found))
"""


@pytest.mark.slow
def test_kernels_compile_for_a_gpu():
    python = os.environ.get("DIFFTRACT_CUDA_PYTHON", sys.executable)
    known = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [python, "-W", "ignore", "-c", textwrap.dedent(COMPILED)],
        env=os.environ | {"PYTHONPATH": known},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if "skip" in found:
        pytest.skip(
            f"numba-cuda or NVIDIA's compiler is missing ({found['skip']}); install "
            "difftract-bids[cuda], or name a Python that has it in DIFFTRACT_CUDA_PYTHON"
        )
    assert len(found) == 8
    for name, kernel in found.items():
        assert kernel["bytes"] > 10_000, name
        assert kernel["atomic"] == ("pull_back" in name), name
        if name.startswith("single"):
            # Places in the image are found in float64; anything else would be slow in it.
            assert kernel["wide"] < 0.1 * kernel["narrow"], f"{name}: {kernel}"
