"""How much memory tracking with gradients takes, beyond what it is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROGRAM = """
    import json, sys
    from pathlib import Path

    import torch
    from problems import scaling, sharp_sh
    from difftract_bids.core import TrackingConfig, track

    share, threads, n_seeds = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    affine = scaling(2.0)
    lobe = sharp_sh(torch.tensor([1.0, 0.2, 0.1]).double() / 1.05**0.5).float()
    config = TrackingConfig(backend="cpu", max_length_mm=60.0)

    def problem(size, n_seeds):
        generator = torch.Generator().manual_seed(0)
        inside = torch.rand(size, size, generator=generator) < share
        fodf = lobe.expand(size, size, size, 45).clone()
        fodf[:, ~inside] = 0  # whole rows, so that the others hold streamlines
        seeds = torch.rand(n_seeds, 3, generator=generator) * 2 * (size - 1)
        starts = torch.tensor([[1.0, 0.2, 0.1]]).expand(n_seeds, 3)
        return fodf.requires_grad_(), seeds, starts

    def number(field):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    def run(fodf, seeds, starts):
        result = track(fodf, seeds, starts, affine, config)
        result.points.sum().backward()
        return result

    run(*problem(12, 300))  # compiles, or loads what is compiled
    inputs = problem(84, n_seeds)
    before = number("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    result = run(*inputs)
    peak = number("VmHWM")
    print(json.dumps(dict(
        over=peak - before,
        fodf=inputs[0].nbytes,
        points=result.points.nbytes,
        streamlines=len(result),
    )))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by Linux's /proc")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("share", [0.3, 1.0], ids=["a brain's share", "every voxel"])
def test_gradient_tracking_needs_no_more_than_its_share_of_memory(share, threads, record_property):
    tests = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(share), str(threads), "60000"],
        env=os.environ | {"PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    allowed = found["fodf"] * (threads + 2) + found["points"] * 4
    record_property("memory", found | {"allowed": allowed})
    assert found["fodf"] >= 100e6
    assert found["streamlines"] > 1000
    assert found["over"] <= allowed
