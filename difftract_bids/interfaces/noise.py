"""The noise map, brought to where the images end up."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)


class CarryNoiseInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`CarryNoise`."""

    sigma = InputMultiObject(
        File(exists=True), mandatory=True, desc="Noise maps of the parts of a series."
    )
    scales = traits.List(
        traits.Float, desc="What the intensities of each part were multiplied by; 1 if left out."
    )
    like = File(exists=True, mandatory=True, desc="Image on the grid of the result.")
    field = File(exists=True, desc="What the images were divided by, on that grid.")


class CarryNoiseOutputSpec(TraitedSpec):
    """Outputs of :class:`CarryNoise`."""

    sigma = File(desc="Noise standard deviation, (x, y, z).")


class CarryNoise(SimpleInterface):
    """Average the noise of several parts, and do to it what was done to the images' brightness.

    It stays the noise of the images as they were acquired: that interpolation averages some of it
    out is not in it.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.noise import CarryNoise
    >>> carry = CarryNoise(sigma=["noise.nii.gz"], scales=[2.0], like="dwiref.nii.gz")
    >>> f"{nibabel.load(carry.run().outputs.sigma).get_fdata().max():.1f}"  # 33.3 before
    '66.7'
    """

    input_spec, output_spec = CarryNoiseInputSpec, CarryNoiseOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.io.images import Volume, load_volume, save_volume
        from difftract_bids.preprocessing.registration import resample

        maps = [load_volume(path, ndim=3) for path in self.inputs.sigma]
        scales = self.inputs.scales if isdefined(self.inputs.scales) else [1.0] * len(maps)
        squares = [
            (scale * volume.data.astype(np.float64)) ** 2
            for volume, scale in zip(maps, scales, strict=True)
        ]
        sigma = Volume(np.sqrt(np.mean(squares, axis=0)).astype(np.float32), maps[0].vox2ras)
        like = load_volume(self.inputs.like, ndim=3)
        moved = resample(sigma, like.data.shape, like.vox2ras, [])
        if isdefined(self.inputs.field):
            moved = moved / load_volume(self.inputs.field, ndim=3).data
        path = save_volume(
            moved.astype(np.float32), like.vox2ras, Path(runtime.cwd) / "sigma.nii.gz"
        )
        self._results["sigma"] = str(path)
        return runtime
