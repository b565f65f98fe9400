"""Five tissue types (5TT), the image that anatomically constrained tracking asks of a place.

The format is MRtrix's (Smith et al. 2012, doi:10.1016/j.neuroimage.2012.06.005): five volumes
(:data:`difftract_bids.io.five_tissue_types.TISSUES`) whose values sum to 1 in the brain and are 0
outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from scipy import ndimage

from difftract_bids.errors import InputError
from difftract_bids.io.freesurfer_labels import tissue_of_labels
from difftract_bids.io.images import Volume
from difftract_bids.io.transforms import Transform
from difftract_bids.preprocessing.deep_grey import GreyPrior, grey_prior
from difftract_bids.preprocessing.t1w_brain import box_around, cropped
from difftract_bids.preprocessing.tissue import CSF, GREY, WHITE, segment_tissues, unbiased

#: Volumes of a 5TT image.
_CORTICAL, _DEEP, _WHITE, _CSF, _PATHOLOGICAL = range(5)
#: Where the prior of both kinds of grey matter is below this, there is none: what looks so is
#: fluid and white matter in one voxel.
_NO_GREY = 0.08
#: How often deep grey matter looks white (pallidum, thalamus), and other places look otherwise.
_LOOKS_OTHERWISE = 0.5
#: Where the prior is sure of deep grey matter, this share looks grey at least, or the template
#: does not fit. (A human T1w at 1.2 mm: 0.60. The simulated head, without such nuclei: 0.08.)
_LEAST_AGREEMENT = 0.25
#: Tissue probabilities that add up to less than this lie outside the brain.
_LEAST_SUM = 0.5
_MARGIN_MM = 2.0


class FiveTissueTypes(NamedTuple):
    """A 5TT image on its grid, and what the user should know of it."""

    image: Volume
    notes: tuple[str, ...]


def five_tissues_from_t1w(
    t1w: Volume, mask: Bool[np.ndarray, "x y z"], to_template: Sequence[Transform] = ()
) -> FiveTissueTypes:
    """Make 5TT from a T1w alone: bias field, tissues by intensity, deep grey matter by place.

    Parameters
    ----------
    t1w
        The T1w.
    mask
        Its brain.
    to_template
        From points of the T1w to points of an ICBM 152 2009 template, outermost last. Without it
        all grey matter is cortical.

    Raises
    ------
    InputError
        If the mask is empty or shows no tissues.
    """
    if not mask.any():
        raise _empty()
    box = box_around(mask, t1w.vox2ras, _MARGIN_MM)
    image, inside = cropped(t1w, box), mask[box]
    even = unbiased(image.data, inside, t1w.voxel_sizes_mm)
    shares = segment_tissues(even, inside, t1w.voxel_sizes_mm)
    return five_tissues_from_shares(shares, image.vox2ras, inside, to_template)


def five_tissues_from_shares(
    shares: Float[np.ndarray, "x y z 3"],
    vox2ras: Float[np.ndarray, "4 4"],
    mask: Bool[np.ndarray, "x y z"],
    to_template: Sequence[Transform] = (),
) -> FiveTissueTypes:
    """Make 5TT from shares of fluid, grey and white matter; a prior tells grey from grey.

    Parameters
    ----------
    shares
        Fluid, grey and white matter, in this order; they need not sum to 1.
    vox2ras
        Their voxels to RAS+ millimetres.
    mask
        Brain.
    to_template
        From points of that space to points of an ICBM 152 2009 template, outermost last: brings
        the prior of deep grey matter. Without it all grey matter is cortical.

    Raises
    ------
    InputError
        If no voxel of the mask has any tissue.
    """
    total = np.clip(np.nan_to_num(shares, posinf=0.0, neginf=0.0), 0, None).sum(axis=-1)
    brain = mask & (total > _LEAST_SUM)
    if not brain.any():
        raise _empty()
    scale = np.where(brain, total, np.inf)[..., None]
    unit = np.clip(np.nan_to_num(shares, posinf=0.0, neginf=0.0), 0, None) / scale
    notes: list[str] = []
    prior = grey_prior(mask.shape, vox2ras, to_template) if to_template else None
    if prior is not None and _agreement(unit[..., GREY], prior) < _LEAST_AGREEMENT:
        notes.append(
            "There is hardly any grey matter where the template's nuclei lie: deep grey matter "
            "was not told from the cortex. Look at the template's registration in the report."
        )
        prior = None
    image = np.zeros((*mask.shape, 5), dtype=np.float32)
    if prior is None:
        image[..., _CORTICAL], image[..., _WHITE] = unit[..., GREY], unit[..., WHITE]
        image[..., _CSF] = unit[..., CSF]
    else:
        _fill_with_prior(image, _without_impossible_grey(unit, prior), prior)
    return FiveTissueTypes(_cropped(_unit_sum(image, brain), vox2ras), tuple(notes))


def five_tissues_from_labels(
    labels: Int[np.ndarray, "x y z"], vox2ras: Float[np.ndarray, "4 4"]
) -> FiveTissueTypes:
    """Make 5TT from FreeSurfer's ``aparc+aseg`` labels: one tissue a voxel.

    Raises
    ------
    InputError
        If no label has a tissue, or none is cortex.
    """
    tissue, unknown = tissue_of_labels(labels)
    image = np.stack([tissue == kind for kind in range(1, 6)], axis=-1).astype(np.float32)
    if not image[..., _CORTICAL].any() or not image[..., _WHITE].any():
        raise InputError(
            "The label image shows no cortex or no white matter.",
            remedy="Give aparc+aseg.mgz, or fMRIPrep's desc-aparcaseg_dseg, with FreeSurfer's "
            "numbers.",
        )
    notes = []
    if unknown:
        shown = ", ".join(str(label) for label in unknown[:8])
        notes.append(f"Labels without a known tissue count as outside the brain: {shown}.")
    return FiveTissueTypes(_cropped(image, vox2ras), tuple(notes))


def _empty() -> InputError:
    return InputError(
        "No voxel of the brain mask has a tissue.",
        remedy="Look at the tissue probabilities and the mask: they must share a space.",
    )


def _agreement(grey: Float[np.ndarray, "x y z"], prior: GreyPrior) -> float:
    sure = prior.deep > 0.5
    return float(grey[sure].mean()) if sure.any() else 0.0


def _without_impossible_grey(
    unit: Float[np.ndarray, "x y z 3"], prior: GreyPrior
) -> Float[np.ndarray, "x y z 3"]:
    """Give grey matter where there can be none to fluid and white matter, as around it.

    A voxel half fluid, half white matter looks grey: the ventricles would have a grey lining.
    """
    impossible = np.maximum(prior.deep, prior.cortical) < _NO_GREY
    moved = np.where(impossible, unit[..., GREY], 0)
    # The rim itself looks grey: what is around it is asked for two voxels away.
    fluid, white = (
        ndimage.uniform_filter(np.ascontiguousarray(unit[..., kind]), 5) for kind in (CSF, WHITE)
    )
    share = (fluid + 1e-6) / (fluid + white + 2e-6)
    return np.stack(
        [unit[..., CSF] + share * moved, unit[..., GREY] - moved,
         unit[..., WHITE] + (1 - share) * moved],
        axis=-1,
    )  # fmt: skip


def _fill_with_prior(
    image: Float[np.ndarray, "x y z 5"], unit: Float[np.ndarray, "x y z 3"], prior: GreyPrior
) -> None:
    """Tell deep grey matter from all else by Bayes' rule, fluid excepted: intensity shows that."""
    grey, white = unit[..., GREY], unit[..., WHITE]
    if_deep = prior.deep * (grey + _LOOKS_OTHERWISE * white)
    if_not = (1 - prior.deep) * (_LOOKS_OTHERWISE * grey + white)
    deep = if_deep / np.maximum(if_deep + if_not, 1e-6)
    image[..., _CSF] = unit[..., CSF]
    image[..., _DEEP] = deep * (grey + white)
    rest = 1 - deep
    is_cortex = prior.cortical >= prior.deep
    image[..., _CORTICAL] = rest * np.where(is_cortex, grey, 0)
    image[..., _DEEP] += rest * np.where(is_cortex, 0, grey)
    image[..., _WHITE] = rest * white


def _unit_sum(
    image: Float[np.ndarray, "x y z 5"], brain: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z 5"]:
    image[~brain] = 0
    total = image.sum(axis=-1, keepdims=True)
    return np.divide(image, total, out=np.zeros_like(image), where=total > 0)


def _cropped(image: NDArray[np.float32], vox2ras: Float[np.ndarray, "4 4"]) -> Volume:
    """Keep the brain and a margin; the grid is the same, only smaller."""
    return cropped(
        Volume(image, vox2ras), box_around(np.asarray(image.any(axis=-1)), vox2ras, _MARGIN_MM)
    )
