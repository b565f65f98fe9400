"""What is learnt: the fODFs of a simulated head, from all that was measured of it."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from difftract_bids.bids.nodes import read_nodes
from difftract_bids.io.gradients import GradientTable, read_gradients, write_gradients
from difftract_bids.io.images import load_volume
from difftract_bids.learn.scan import MARGIN_VOXELS, Scan
from difftract_bids.modelling.deconvolution import build_deconvolution
from difftract_bids.modelling.response import estimate_response
from difftract_bids.phantom.dataset import write_phantom
from difftract_bids.phantom.settings import PhantomConfig

_LMAX = 8
#: Nobody looks at the T1w image.
_COARSEST_MM = 6.0
_IMAGES = ("dwi", "vox2ras", "mask", "fodf", "parcellation", "node_labels")


def prepare(folder: Path, voxel_size_mm: float) -> dict[str, Any]:
    """Write a scan's arrays, cut to its brain, and describe them.

    Parameters
    ----------
    folder
        Where to; what is there already is kept.
    voxel_size_mm
        Of the phantom.
    """
    folder = folder / f"voxels_{voxel_size_mm:g}mm"
    described = folder / "scene.json"
    if described.exists():
        return json.loads(described.read_text())
    with tempfile.TemporaryDirectory() as aside:
        scan = _simulated(Path(aside) / "bids", voxel_size_mm)
    write(scan, folder)
    scene = {
        "name": f"phantom: voxels of {voxel_size_mm:g} mm",
        "folder": str(folder),
        "shape": list(scan.mask.shape),
        "voxels_in_mask": int(scan.mask.sum()),
        "volumes": scan.dwi.shape[-1],
        "nodes": len(scan.node_labels),
    }
    described.write_text(json.dumps(scene))
    return scene


def load(folder: Path) -> Scan:
    """Read a scan that `prepare` wrote."""
    arrays = {name: torch.from_numpy(np.load(folder / f"{name}.npy")) for name in _IMAGES}
    table = read_gradients(folder / "dwi.bval", folder / "dwi.bvec", arrays["vox2ras"].numpy())
    return Scan(label="sub-01", participant="01", gradients=table, **arrays)


def write(scan: Scan, folder: Path) -> None:
    """Write the arrays of a scan."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _IMAGES:
        np.save(folder / f"{name}.npy", getattr(scan, name).numpy())
    write_gradients(scan.gradients, scan.vox2ras.numpy(), folder / "dwi")


def _simulated(folder: Path, voxel_size_mm: float) -> Scan:
    """Simulate a head, and fit the fODFs that are learnt."""
    config = PhantomConfig(voxel_size_mm=voxel_size_mm, t1w_voxel_size_mm=_COARSEST_MM)
    write_phantom(folder, config)
    stem = folder / "sub-01" / "dwi" / "sub-01_dwi"
    truth = folder / "derivatives" / "truth" / "sub-01" / "dwi"
    image = load_volume(f"{stem}.nii.gz", ndim=4)
    gradients = read_gradients(f"{stem}.bval", f"{stem}.bvec", image.vox2ras)
    labels = load_volume(truth / "sub-01_atlas-Phantom_dseg.nii.gz", dtype=np.int32).data
    tissue = load_volume(truth / "sub-01_desc-tissue_dseg.nii.gz", dtype=np.int32).data
    mask = np.isin(tissue, (1, 2, 3))
    voxels = np.argwhere(mask)
    first, beyond = voxels.min(0) - MARGIN_VOXELS, voxels.max(0) + 1 + MARGIN_VOXELS
    first = np.maximum(first, 0)
    box = tuple(slice(a, b) for a, b in zip(first, beyond, strict=True))
    vox2ras = image.vox2ras.copy()
    vox2ras[:3, 3] += vox2ras[:3, :3] @ first
    dwi, inside = torch.from_numpy(image.data[box].astype(np.float32)), torch.from_numpy(mask[box])
    return Scan(
        label="sub-01",
        participant="01",
        dwi=dwi,
        gradients=gradients,
        vox2ras=torch.from_numpy(vox2ras),
        mask=inside,
        fodf=_fitted(dwi, gradients, inside),
        parcellation=torch.from_numpy(labels[box].astype(np.int64)),
        node_labels=torch.tensor(read_nodes(truth / "sub-01_atlas-Phantom_dseg.tsv").index),
    )


@torch.no_grad()
def _fitted(dwi: torch.Tensor, gradients: GradientTable, mask: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        # Of a coarse phantom few voxels are left: a doubtful response is as good for timing.
        warnings.simplefilter("ignore", UserWarning)
        response = estimate_response(dwi.numpy(), gradients, mask.numpy(), algorithm="fa")
    model = build_deconvolution(gradients, {"WM": response}, "csd", _LMAX)
    return model(dwi.double(), mask)[0].float()
