"""The traffic lights of the diffusion images."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.interfaces.checked import safely
from difftract_bids.interfaces.diffusion import DiffusionSpec, load_diffusion
from difftract_bids.interfaces.threads import limited_threads

#: So many directions are enough to test the axes of a table with.
_DIRECTIONS = 64


class CheckImagesInputSpec(DiffusionSpec):
    """Inputs of :class:`CheckImages`."""

    dwiref = File(exists=True, mandatory=True, desc="Mean b=0 image.")
    fa = File(exists=True, mandatory=True, desc="Fractional anisotropy.")
    confounds = File(exists=True, desc="Table of motion, a row a volume.")
    outliers = File(exists=True, desc="Table of slices that fell out.")
    outliers_replaced = traits.Bool(
        default_value=False,
        usedefault=True,
        desc="Whether something took the place of these slices.",
    )
    sigma = File(exists=True, desc="Noise standard deviation.")


class CheckImagesOutputSpec(TraitedSpec):
    """Outputs of :class:`CheckImages`."""

    checks = traits.List(
        traits.Dict, desc="A dictionary for each check: see `difftract_bids.checks.verdict.Check`."
    )


class CheckImages(SimpleInterface):
    """Judge acquisition, gradient axes, noise, motion, brain mask and anisotropy of a run.

    Examples
    --------
    >>> from difftract_bids.interfaces.checks import CheckImages
    >>> series = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    >>> check = CheckImages(**series, mask="mask.nii.gz", dwiref="dwiref.nii.gz", fa="fa.nii.gz")
    >>> lights = {one["name"]: one["light"] for one in check.run().outputs.checks}
    >>> lights["mask"], lights["motion"]  # there is no table of motion
    ('good', 'unknown')
    """

    input_spec, output_spec = CheckImagesInputSpec, CheckImagesOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.checks import (
            acquisition,
            anisotropy,
            gradient_axes,
            mask,
            motion,
            noise,
        )

        load = cache(partial(load_diffusion, self.inputs))  # once, unless it fails each time
        ways = (
            (acquisition, _acquisition),
            (motion, _motion),
            (noise, _noise),
            (mask, _mask),
            (gradient_axes, _axes),
            (anisotropy, _anisotropy),
        )
        with limited_threads(self.inputs.num_threads):
            self._results["checks"] = [
                safely(check.NAME, check.TITLE, partial(_made, way, self.inputs, load)).to_dict()
                for check, way in ways
            ]
        return runtime


def _made(way: Any, inputs: Any, load: Any) -> Any:
    return way(inputs, *load())


def _acquisition(_inputs: Any, dwi: Any, gradients: Any, mask: Any) -> Any:
    from difftract_bids.checks.acquisition import check_acquisition, damaged_volumes

    return check_acquisition(gradients, damaged_volumes(dwi.data, mask, gradients))


def _motion(inputs: Any, dwi: Any, _gradients: Any, _mask: Any) -> Any:
    from difftract_bids.checks.motion import check_motion
    from difftract_bids.preprocessing.confounds import read_confounds, read_outliers

    moved, outliers = None, None
    if isdefined(inputs.confounds):
        moved = read_confounds(inputs.confounds)["framewise_displacement"]
    if isdefined(inputs.outliers):
        outliers = read_outliers(inputs.outliers)
    return check_motion(
        moved,
        outliers,
        float(dwi.voxel_sizes_mm.max()),
        outliers_replaced=inputs.outliers_replaced,
    )


def _noise(inputs: Any, dwi: Any, gradients: Any, mask: Any) -> Any:
    from difftract_bids.checks.noise import check_noise
    from difftract_bids.io.images import load_volume

    sigma = load_volume(inputs.sigma, ndim=3).data if isdefined(inputs.sigma) else None
    return check_noise(dwi.data, gradients, mask, sigma)


def _mask(inputs: Any, dwi: Any, gradients: Any, mask: Any) -> Any:
    from difftract_bids.checks.brain_tissue import powder_average
    from difftract_bids.checks.mask import check_mask
    from difftract_bids.io.images import load_volume

    b0 = load_volume(inputs.dwiref, ndim=3).data
    return check_mask(mask, b0, powder_average(dwi.data, gradients), dwi.vox2ras)


def _axes(_inputs: Any, dwi: Any, gradients: Any, _mask: Any) -> Any:
    from difftract_bids.checks.gradient_axes import check_axes
    from difftract_bids.preprocessing.gradient_check import check_gradients

    data, gradients = _thinned(dwi.data, gradients)
    found = check_gradients(data, gradients, dwi.vox2ras)
    return check_axes(
        str(found.best),
        is_identity=found.best.is_identity,
        is_sure=found.is_sure,
        margin=found.margin,
        z=found.z,
    )


def _anisotropy(inputs: Any, _dwi: Any, _gradients: Any, mask: Any) -> Any:
    from difftract_bids.checks.anisotropy import check_anisotropy
    from difftract_bids.io.images import load_volume

    return check_anisotropy(load_volume(inputs.fa, ndim=3).data, mask)


def _thinned(data: Any, gradients: Any) -> tuple[Any, Any]:
    """Leave out directions of series that have very many: it takes time, and is no surer."""
    from dataclasses import replace

    import numpy as np

    weighted = np.flatnonzero(~gradients.b0_mask)
    step = -(-len(weighted) // _DIRECTIONS)
    if step < 2:
        return data, gradients
    kept = np.sort(np.concatenate([np.flatnonzero(gradients.b0_mask), weighted[::step]]))
    thinned = replace(
        gradients, bvals_s_mm2=gradients.bvals_s_mm2[kept], bvecs=gradients.bvecs[kept]
    )
    return data[..., kept], thinned
