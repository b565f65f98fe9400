"""The table of confounds: where the head was at each volume, and how well the volume came out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from difftract_bids.io.gradients import GradientTable

#: Rotations count as arcs on a sphere of this radius (Power et al. 2012).
_SPHERE_MM = 50.0
#: Columns, in order.
COLUMNS = (
    *("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "framewise_displacement"),
    *("bval", "grad_x", "grad_y", "grad_z", "outlier_slices"),
)


def motion_parameters(
    rigid: Float[np.ndarray, "volume 3 4"], centre_mm: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, "volume 6"]:
    """Give the translations of the brain's centre (mm) and rotations about x, y and z (radians).

    Parameters
    ----------
    rigid
        Reference position to each volume, RAS+ millimetres; a part that is not rigid is left out.
    centre_mm
        Centre of the brain in the reference position, RAS+ millimetres.
    """
    left, _, right = np.linalg.svd(rigid[:, :, :3])
    angles = Rotation.from_matrix(left @ right).as_euler("xyz")
    shift = rigid[:, :, :3] @ centre_mm + rigid[:, :, 3] - centre_mm
    return np.concatenate([shift, angles], axis=1) + 0.0


def framewise_displacement(
    parameters: Float[np.ndarray, "volume 6"],
) -> Float[np.ndarray, " volume"]:
    """Sum the absolute changes from the volume before, millimetres; the first has none (NaN).

    References
    ----------
    Power et al. 2012, doi:10.1016/j.neuroimage.2011.10.018.
    """
    changes = np.abs(np.diff(parameters, axis=0)) * ([1.0] * 3 + [_SPHERE_MM] * 3)
    return np.concatenate([[np.nan], changes.sum(axis=1)])


def write_confounds(
    path: str | os.PathLike[str],
    parameters: Float[np.ndarray, "volume 6"],
    gradients: GradientTable,
    outliers: Bool[np.ndarray, "slice volume"] | None = None,
) -> Path:
    """Write the table, a row a volume, "n/a" for what is missing.

    Parameters
    ----------
    path
        TSV to write.
    parameters
        From :func:`motion_parameters`.
    gradients
        Table that goes with the corrected series.
    outliers
        Flagged slices, if they were looked for.

    Returns
    -------
    Path
        The absolute path written.
    """
    n_outliers = np.full(len(parameters), np.nan) if outliers is None else outliers.sum(axis=0)
    table = np.column_stack([
        parameters,
        framewise_displacement(parameters),
        gradients.bvals_s_mm2,
        gradients.bvecs + 0.0,
        n_outliers,
    ])  # fmt: skip
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(_cell(value) for value in row) for row in table]
    target = Path(path).absolute()
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def read_confounds(path: str | os.PathLike[str]) -> dict[str, Float[np.ndarray, " volume"]]:
    """Read what :func:`write_confounds` wrote, by column; what is missing is not a number."""
    header, *rows = Path(path).read_text(encoding="utf-8").splitlines()
    cells = [[np.nan if cell == "n/a" else float(cell) for cell in r.split("\t")] for r in rows]
    return dict(zip(header.split("\t"), np.array(cells).T, strict=True))


def write_outliers(
    path: str | os.PathLike[str], outliers: Bool[np.ndarray, "slice volume"]
) -> Path:
    """Write flags as a table: a row a slice, from the first; a column a volume; 1 for an outlier.

    Returns
    -------
    Path
        The absolute path written.
    """
    target = Path(path).absolute()
    header = "\t".join(f"volume_{index}" for index in range(outliers.shape[1]))
    np.savetxt(target, outliers.astype(int), fmt="%d", delimiter="\t", header=header, comments="")
    return target


def read_outliers(path: str | os.PathLike[str]) -> Bool[np.ndarray, "slice volume"]:
    """Read what :func:`write_outliers` wrote."""
    return np.loadtxt(path, skiprows=1, ndmin=2, delimiter="\t") > 0


def write_affines(path: str | os.PathLike[str], affines: Float[np.ndarray, "volume 3 4"]) -> Path:
    """Write affines as text, a row of 12 numbers (3 x 4, row by row) a volume."""
    target = Path(path).absolute()
    np.savetxt(target, affines.reshape(len(affines), 12), fmt="%.10g")
    return target


def read_affines(path: str | os.PathLike[str]) -> Float[np.ndarray, "volume 3 4"]:
    """Read what :func:`write_affines` wrote."""
    return np.loadtxt(path, ndmin=2).reshape(-1, 3, 4)


def _cell(value: float) -> str:
    return "n/a" if np.isnan(value) else f"{value + 0.0:.6g}"
