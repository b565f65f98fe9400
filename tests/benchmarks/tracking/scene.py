"""What is tracked: the fODF of a real subject where there is one, else a phantom."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np

from data import real_acquisition


def prepare(folder: Path, data: Path | None, *, phantom: bool) -> dict[str, object]:
    """Write ``fod.nii.gz``, ``mask.nii.gz`` and plain arrays of both into a folder.

    What is there already is kept: the fODF of a real subject takes a minute.

    Parameters
    ----------
    folder
        Where to.
    data
        Folder of the real data; ``None``: the environment's or the one beside the checkout.
    phantom
        Leave real data aside.

    Returns
    -------
    dict
        A description, for the report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = folder / "scene.json"
    if described.exists():
        return json.loads(described.read_text())
    raw = None if phantom or shutil.which("dwi2fod") is None else real_acquisition(data)
    if raw is None:
        from mrtrix import phantom_scene

        phantom_scene("oblique", folder)
        name = "phantom: two crossing bundles in noise, anisotropic oblique voxels"
    else:
        from mrtrix import fodf_by_mrtrix

        fodf_by_mrtrix(raw, folder)
        name = f"human: {raw.name} of {raw.parents[2].name}, fODF by MRtrix3 (tournier, csd)"
    fod = nib.load(folder / "fod.nii.gz")
    values = np.nan_to_num(np.asarray(fod.dataobj, dtype=np.float32), posinf=0, neginf=0)
    mask = np.asarray(nib.load(folder / "mask.nii.gz").dataobj) > 0
    np.save(folder / "fod.npy", values)
    np.save(folder / "mask.npy", mask)
    np.save(folder / "affine.npy", fod.affine)
    scene: dict[str, object] = {
        "name": name,
        "shape": list(values.shape[:3]),
        "voxels_mm": [round(float(size), 3) for size in nib.affines.voxel_sizes(fod.affine)],
        "voxels_in_mask": int(mask.sum()),
        "coefficients": values.shape[3],
        "fodf_mib": round(values.nbytes / 2**20, 1),
    }
    described.write_text(json.dumps(scene))
    return scene
