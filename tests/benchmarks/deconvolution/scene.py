"""What is deconvolved: brain voxels of a real subject where there is one, and of phantoms.

Voxels are in random order, without the background between them, so that the first so many of them
are like all of them.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data import real_acquisition
from difftract_bids.io.gradients import (
    GradientTable,
    deconvolution_shell,
    read_gradients,
    write_gradients,
)
from difftract_bids.io.images import load_volume
from difftract_bids.modelling.response import (
    Response,
    estimate_response,
    estimate_tissue_responses,
)
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.preprocessing.mask import brain_mask
from difftract_bids.preprocessing.reference import b0_reference

SHELLS_S_MM2 = (700.0, 1200.0, 2800.0)
#: Nobody looks at the T1w image.
_COARSEST_MM = 6.0
Estimate = Callable[[np.ndarray, GradientTable, np.ndarray], dict[str, Response]]


def prepare_single_shell(
    folder: Path, data: Path | None, *, phantom: bool, voxel_size_mm: float
) -> dict[str, Any]:
    """Write the voxels of `csd`, and describe them; what is there already is kept.

    Parameters
    ----------
    folder
        Where to.
    data
        Folder of the real data, if another than the usual one.
    phantom
        Leave real data aside.
    voxel_size_mm
        Of a phantom.
    """
    raw = None if phantom else real_acquisition(data)
    if raw is None:
        config = PhantomConfig(voxel_size_mm=voxel_size_mm, t1w_voxel_size_mm=_COARSEST_MM)
        return _prepare_phantom(folder, config, _one_response)
    return _prepare(
        folder, lambda: raw, f"human: {raw.name} of {raw.parents[2].name}", _one_response
    )


def prepare_shells(folder: Path, *, voxel_size_mm: float) -> dict[str, Any]:
    """Write the voxels of `msmt_csd`, a phantom's, and describe them."""
    config = PhantomConfig(
        shells_s_mm2=SHELLS_S_MM2,
        n_directions=48,
        voxel_size_mm=voxel_size_mm,
        t1w_voxel_size_mm=_COARSEST_MM,
    )
    return _prepare_phantom(folder, config, estimate_tissue_responses)


def _one_response(
    dwi: np.ndarray, gradients: GradientTable, mask: np.ndarray
) -> dict[str, Response]:
    return {"WM": estimate_response(dwi, gradients, mask, algorithm="fa")}


def _prepare_phantom(folder: Path, config: PhantomConfig, estimate: Estimate) -> dict[str, Any]:
    name = f"phantom: voxels of {config.voxel_size_mm:g} mm, SNR {config.snr:g}"
    with tempfile.TemporaryDirectory() as aside:

        def simulate() -> Path:
            bids = write_phantom(Path(aside) / "bids", config)
            return bids / "sub-01" / "dwi" / "sub-01_dwi"

        return _prepare(folder, simulate, name, estimate)


def _prepare(
    folder: Path, acquire: Callable[[], Path], name: str, estimate: Estimate
) -> dict[str, Any]:
    described = folder / "scene.json"
    if described.exists():
        return json.loads(described.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    stem = acquire()
    image = load_volume(f"{stem}.nii.gz", ndim=4)
    gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
    mask = brain_mask(
        b0_reference(image.data, gradients),
        image.voxel_sizes_mm,
        image.data[..., ~gradients.b0_mask].mean(axis=-1),
    )
    with warnings.catch_warnings():
        # Of a coarse phantom few voxels are left: a doubtful response is as good for timing.
        warnings.simplefilter("ignore", UserWarning)
        responses = estimate(image.data, gradients, mask)
    brain = image.data[mask].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(brain))
    np.save(folder / "dwi.npy", brain[order])
    _write_model(folder, gradients, responses)
    scene = {
        "name": name,
        "voxels_in_mask": len(brain),
        "shells": [[round(bval), n] for bval, n in gradients.shells()],
        "tissues": list(responses),
    }
    described.write_text(json.dumps(scene))
    return scene


def _write_model(folder: Path, gradients: GradientTable, responses: dict[str, Response]) -> None:
    """Write gradients and responses, as arrays and as the files that MRtrix reads."""
    shells = [volumes for _, volumes in gradients.shell_volumes()]
    np.save(folder / "bvecs.npy", gradients.bvecs)
    np.save(folder / "shell.npy", np.argmax(shells, axis=0))
    np.save(folder / "deconvolved.npy", deconvolution_shell(gradients)[1])
    write_gradients(gradients, np.eye(4), folder / "dwi")
    for tissue, response in responses.items():
        np.save(folder / f"{tissue}.npy", response.coefficients)
        several = len(responses) > 1
        (folder / f"{tissue}.txt").write_text(response.to_text(with_b0=several))
