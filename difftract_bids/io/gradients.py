"""Gradient tables: b-values, and b-vectors in scanner axes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from difftract_bids.errors import GradientError

#: b-vectors shorter than this are "no direction", as scanners write them for b=0 volumes.
_ZERO_LENGTH = 1e-3
#: b-vectors are normalised by whoever wrote them; a larger deviation is damage, not rounding.
_UNIT_TOLERANCE = 0.05
#: A tensor, and an fODF of lmax 2, have six unknowns.
MIN_DIRECTIONS = 6
#: Neighbouring b-values further apart than this are different shells.
SHELL_WIDTH_S_MM2 = 100.0
#: How far the mean b-values of a shell may differ between scans: this share, or this much.
_OTHER_SCAN, _OTHER_SCAN_S_MM2 = 0.05, 80.0
#: Below this the angular contrast is too small to be deconvolved, if there is a choice.
_MIN_BVAL_S_MM2 = 700.0
#: Directions of a shell that is deconvolved, if there is a choice: the unknowns of lmax 4.
_ENOUGH = 15


@dataclass(frozen=True)
class GradientTable:
    """Diffusion weighting of each volume.

    Attributes
    ----------
    bvals_s_mm2
        b-values, s/mm².
    bvecs
        Unit vectors in scanner (RAS+) axes; zero where the volume is not diffusion-weighted.
    b0_threshold_s_mm2
        Volumes up to this b-value count as b=0.
    """

    bvals_s_mm2: Float[np.ndarray, " volume"]
    bvecs: Float[np.ndarray, "volume 3"]
    b0_threshold_s_mm2: float = 50.0

    @property
    def b0_mask(self) -> Bool[np.ndarray, " volume"]:
        """Which volumes are not diffusion-weighted."""
        return self.bvals_s_mm2 <= self.b0_threshold_s_mm2

    @property
    def n_directions(self) -> int:
        """Number of diffusion-weighted volumes."""
        return int((~self.b0_mask).sum())

    def shell_volumes(
        self, width_s_mm2: float = SHELL_WIDTH_S_MM2
    ) -> list[tuple[float, Bool[np.ndarray, " volume"]]]:
        """List (mean b-value, which volumes) of each shell, b=0 first.

        Parameters
        ----------
        width_s_mm2
            Sorted b-values further apart than this belong to different shells: what scanners
            write scatters by a few per cent about the b-value that was asked for.
        """
        shells = [(0.0, self.b0_mask)] if self.b0_mask.any() else []
        weighted = np.flatnonzero(~self.b0_mask)
        order = weighted[np.argsort(self.bvals_s_mm2[weighted], kind="stable")]
        apart = np.flatnonzero(np.diff(self.bvals_s_mm2[order]) > width_s_mm2) + 1
        for volumes in np.split(order, apart):
            if len(volumes):
                chosen = np.isin(np.arange(len(self.bvals_s_mm2)), volumes)
                shells.append((float(self.bvals_s_mm2[volumes].mean()), chosen))
        return shells

    def shells(self, width_s_mm2: float = SHELL_WIDTH_S_MM2) -> list[tuple[float, int]]:
        """List (mean b-value, number of volumes) of each shell, b=0 first."""
        return [(bval, int(volumes.sum())) for bval, volumes in self.shell_volumes(width_s_mm2)]


def is_same_shell(one_s_mm2: float, other_s_mm2: float) -> bool:
    """Say whether mean b-values are of one shell, of two scans: within 80 s/mm², or 5%."""
    apart = abs(one_s_mm2 - other_s_mm2)
    return apart <= max(_OTHER_SCAN * other_s_mm2, _OTHER_SCAN_S_MM2)


def read_gradients(
    bval: str | os.PathLike[str],
    bvec: str | os.PathLike[str],
    vox2ras: Float[np.ndarray, "4 4"],
    *,
    n_volumes: int | None = None,
    b0_threshold_s_mm2: float = 50.0,
    whole: bool = True,
) -> GradientTable:
    """Read and check FSL's bval and bvec files, and turn the vectors into scanner axes.

    FSL's vectors are along the voxel axes of the image, the first one reversed where the affine
    has a positive determinant (https://fsl.fmrib.ox.ac.uk/fsl/docs/#/diffusion/faq).

    Parameters
    ----------
    bval, bvec
        Text files; b-vectors in three rows, or in three columns.
    vox2ras
        Affine of the image they belong to.
    n_volumes
        Number of volumes of that image, to be checked if given.
    b0_threshold_s_mm2
        Volumes up to this b-value count as b=0.
    whole
        Whether the table is that of a series, or that of a part of one, which need not have a
        b=0 volume or six directions.

    Raises
    ------
    GradientError
        If a file cannot be read, shapes or counts differ, there is no b=0 volume, fewer than six
        directions, or a vector is not finite or not of unit length.
    """
    bvals = read_bvals(bval)
    bvecs = _read_numbers(bvec)
    if 3 not in bvecs.shape:
        raise GradientError(
            f"The b-vectors have the shape {bvecs.shape}; three rows or columns are needed.",
            where=bvec,
            remedy="Convert the DICOM files again.",
        )
    if bvecs.shape[0] == 3 and (bvecs.shape[1] != 3 or not _are_columns(bvecs)):
        bvecs = bvecs.T
    if len(bvals) != len(bvecs):
        raise GradientError(
            f"There are {len(bvals)} b-values and {len(bvecs)} b-vectors.",
            where=f"{bval}, {bvec}",
            remedy="They must belong to the same image; convert the DICOM files again.",
        )
    if n_volumes is not None and len(bvals) != n_volumes:
        raise GradientError(
            f"The image has {n_volumes} volumes, the gradient table {len(bvals)}.",
            where=bval,
            remedy="They must belong to the same image; convert the DICOM files again.",
        )
    table = GradientTable(bvals, _to_scanner_axes(bvecs, vox2ras), b0_threshold_s_mm2)
    if whole:
        _check_counts(table, bval)
    _check_numbers(table, bvecs, bvec)
    if whole:
        _check_rank(table.bvecs[~table.b0_mask], bvec)
    return GradientTable(bvals, _normalised(table.bvecs, table.b0_mask), b0_threshold_s_mm2)


def read_bvals(bval: str | os.PathLike[str]) -> Float[np.ndarray, " volume"]:
    """Read b-values, s/mm², in a row or a column.

    Raises
    ------
    GradientError
        If the file cannot be read, or one of them is negative or not finite.
    """
    bvals = _read_numbers(bval).ravel()
    bad = int((~np.isfinite(bvals) | (bvals < 0)).sum())
    if bad:
        raise GradientError(
            f"{bad} b-values are negative or not finite.", where=bval, remedy="Mend the file."
        )
    return bvals


def join_gradients(
    parts: Sequence[tuple[GradientTable, Float[np.ndarray, "4 4"]]], where: object = None
) -> GradientTable:
    """Make one table of those of parts that are put on the grid of the first.

    A part keeps its vectors along its voxel axes, whichever way its own affine turned these: it
    is its voxels that are given the affine of the first.

    Parameters
    ----------
    parts
        Table and affine of each.
    where
        What errors name.

    Raises
    ------
    GradientError
        If there is no b=0 volume, or there are fewer than six directions in all.
    """
    first, vox2ras = parts[0]
    bvecs = [
        _to_scanner_axes(to_fsl_bvecs(table.bvecs, affine).T, vox2ras) for table, affine in parts
    ]
    bvals = np.concatenate([table.bvals_s_mm2 for table, _ in parts])
    joined = GradientTable(bvals, np.concatenate(bvecs), first.b0_threshold_s_mm2)
    _check_counts(joined, where)
    _check_rank(joined.bvecs[~joined.b0_mask], where)
    return joined


def deconvolution_shell(gradients: GradientTable) -> tuple[float, Bool[np.ndarray, " volume"]]:
    """Choose the shell that is deconvolved: its mean b-value (s/mm²) and which volumes it has.

    See `choose_deconvolved`.

    Raises
    ------
    GradientError
        If no shell has six directions.
    """
    shells = [shell for shell in gradients.shell_volumes() if shell[0] > 0]
    return shells[choose_deconvolved([(bval, int(volumes.sum())) for bval, volumes in shells])]


def choose_deconvolved(shells: Sequence[tuple[float, int]]) -> int:
    """Choose the shell that is deconvolved, by its place.

    The largest b-value with at least 15 directions (lmax 4) and b >= 700 s/mm²; failing that, the
    shell with most directions, the larger b-value among equals.

    Parameters
    ----------
    shells
        Mean b-value, s/mm², and number of directions of each shell but b=0.

    Raises
    ------
    GradientError
        If no shell has six directions.
    """
    usable = [place for place, (_, n) in enumerate(shells) if n >= MIN_DIRECTIONS]
    if not usable:
        found = ", ".join(f"b={bval:.0f}: {n}" for bval, n in shells) or "none"
        raise GradientError(
            f"No shell has the {MIN_DIRECTIONS} directions an fODF needs (directions per "
            f"shell: {found}).",
            remedy="Leave this run out, or merge the parts of the acquisition.",
        )
    good = [at for at in usable if shells[at][0] >= _MIN_BVAL_S_MM2 and shells[at][1] >= _ENOUGH]
    if good:
        return max(good, key=lambda at: shells[at][0])
    return max(usable, key=lambda at: (shells[at][1], shells[at][0]))


def write_gradients(
    gradients: GradientTable, vox2ras: Float[np.ndarray, "4 4"], stem: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Write ``<stem>.bval`` and ``<stem>.bvec`` in FSL's convention, vectors in three rows.

    Returns
    -------
    tuple of Path
        Absolute paths of the b-values and the b-vectors.
    """
    base = Path(stem).absolute()
    bval, bvec = base.with_name(f"{base.name}.bval"), base.with_name(f"{base.name}.bvec")
    np.savetxt(bval, gradients.bvals_s_mm2[None], fmt="%.10g")
    # Adding zero turns the -0 that a reversed axis leaves into 0.
    np.savetxt(bvec, to_fsl_bvecs(gradients.bvecs, vox2ras) + 0.0, fmt="%.10f")
    return bval, bvec


def to_fsl_bvecs(
    bvecs: Float[np.ndarray, "volume 3"], vox2ras: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "3 volume"]:
    """Turn vectors in scanner axes into FSL's, in three rows, as a ``.bvec`` file holds them."""
    return np.linalg.solve(_fsl_to_scanner(vox2ras), bvecs.T)


def _to_scanner_axes(
    bvecs: Float[np.ndarray, "volume 3"], vox2ras: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "volume 3"]:
    return bvecs @ _fsl_to_scanner(vox2ras).T


def _fsl_to_scanner(vox2ras: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3 3"]:
    rotation = vox2ras[:3, :3] / np.linalg.norm(vox2ras[:3, :3], axis=0)
    return rotation @ np.diag([-1.0 if np.linalg.det(rotation) > 0 else 1.0, 1.0, 1.0])


def _normalised(
    bvecs: Float[np.ndarray, "volume 3"], b0_mask: Bool[np.ndarray, " volume"]
) -> Float[np.ndarray, "volume 3"]:
    length = np.linalg.norm(bvecs, axis=1, keepdims=True)
    keep = (length > _ZERO_LENGTH) & ~b0_mask[:, None]
    return np.where(keep, bvecs / np.where(keep, length, 1.0), 0.0)


def _read_numbers(path: str | os.PathLike[str]) -> Float[np.ndarray, ...]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file is told of below
            # Some editors begin a file with a byte-order mark.
            numbers = np.loadtxt(path, ndmin=2, dtype=np.float64, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise GradientError(
            f"The gradient file cannot be read: {error}.",
            where=path,
            remedy="It must be text: one row of b-values, or three rows of vector components.",
        ) from error
    if not numbers.size:
        raise GradientError(
            "The gradient file is empty.", where=path, remedy="Convert the DICOM files again."
        )
    return numbers


def _check_rank(directions: Float[np.ndarray, "n 3"], bvec: object) -> None:
    """Repeated or coplanar directions do not determine a tensor, however many they are."""
    x, y, z = directions.T
    design = np.stack([x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    rank = int(np.linalg.matrix_rank(design, tol=1e-3 * np.sqrt(len(design))))
    if rank < MIN_DIRECTIONS:
        raise GradientError(
            f"The {len(directions)} directions are too alike: they determine {rank} of the 6 "
            "numbers of a tensor.",
            where=bvec,
            remedy="Check that the file belongs to this image; leave the participant out if so.",
        )


def _check_numbers(
    table: GradientTable,
    bvecs: Float[np.ndarray, "volume 3"],
    bvec: str | os.PathLike[str],
) -> None:
    """Check the weighted volumes' vectors, as they are in the file."""
    weighted = ~table.b0_mask
    finite = np.isfinite(bvecs[weighted]).all(axis=1)
    length = np.linalg.norm(np.nan_to_num(bvecs[weighted]), axis=1)
    bad_length = finite & (np.abs(length - 1) > _UNIT_TOLERANCE)
    for count, fault in (
        (int((~finite).sum()), "not finite"),
        (int(bad_length.sum()), "not of unit length"),
    ):
        if count:
            raise GradientError(
                f"{count} of {table.n_directions} diffusion-weighted b-vectors are {fault}.",
                where=bvec,
                remedy="Convert the DICOM files again, or mend the file.",
            )


def _check_counts(table: GradientTable, bval: object) -> None:
    """Check that a series has the volumes that any model needs."""
    if not table.b0_mask.any():
        raise GradientError(
            f"There is no b=0 volume; the smallest b-value is {table.bvals_s_mm2.min():g} s/mm².",
            where=bval,
            remedy="Raise --b0-threshold if that volume is meant as b=0; one is needed.",
        )
    if table.n_directions < MIN_DIRECTIONS:
        raise GradientError(
            f"Only {table.n_directions} volumes are diffusion-weighted; a tensor needs 6.",
            where=bval,
            remedy="Merge the parts of the acquisition, lower --b0-threshold if it takes weighted "
            "volumes for b=0, or leave the participant out.",
        )


def _are_columns(bvecs: Float[np.ndarray, "3 3"]) -> bool:
    """Tell of three vectors whether they are in columns, by their lengths; else in rows.

    Three rows of components are the convention: they are taken for columns, x, y and z, only
    where that alone makes unit vectors (or none) of them.
    """

    def fits(vectors: Float[np.ndarray, "3 3"]) -> bool:
        length = np.linalg.norm(vectors, axis=1)
        return bool(np.all((length < _ZERO_LENGTH) | (np.abs(length - 1) < _UNIT_TOLERANCE)))

    return fits(bvecs) and not fits(bvecs.T)
