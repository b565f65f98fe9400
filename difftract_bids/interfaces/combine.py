"""Making one diffusion series of several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.settings import settings_spec

_Settings: Any = settings_spec(PreprocessingConfig)


class ConcatenateRunsInputSpec(_Settings):
    """Inputs of :class:`ConcatenateRuns`."""

    dwi = InputMultiObject(File(exists=True), mandatory=True, desc="Images, on one grid.")
    bval = InputMultiObject(File(exists=True), mandatory=True, desc="b-values of each, s/mm².")
    bvec = InputMultiObject(
        File(exists=True), mandatory=True, desc="b-vectors of each, FSL's convention."
    )
    names = traits.List(traits.Str, desc="What notes call them; the names of the images.")


class ConcatenateRunsOutputSpec(TraitedSpec):
    """Outputs of :class:`ConcatenateRuns`."""

    dwi = File(desc="All volumes, float32, as bright as the first part at b=0.")
    bval = File(desc="b-values of all, s/mm².")
    bvec = File(desc="b-vectors of all, FSL's convention.")
    n_volumes = traits.List(traits.Int, desc="Number of volumes of each part.")
    scales = traits.List(traits.Float, desc="What the intensities of each were multiplied by.")
    notes = traits.List(traits.Str, desc="What the user should know.")


class ConcatenateRuns(SimpleInterface):
    """Put diffusion series of one grid one after the other.

    Examples
    --------
    >>> from difftract_bids.interfaces.combine import ConcatenateRuns
    >>> join = ConcatenateRuns(
    ...     dwi=["raw.nii.gz", "raw_2.nii.gz"],
    ...     bval=["raw.bval", "raw_2.bval"],
    ...     bvec=["raw.bvec", "raw_2.bvec"],
    ... )
    >>> joined = join.run().outputs
    >>> joined.n_volumes
    [32, 32]
    >>> [round(scale, 1) for scale in joined.scales]
    [1.0, 1.0]
    """

    input_spec, output_spec = ConcatenateRunsInputSpec, ConcatenateRunsOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.gradients import read_gradients, write_gradients
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.combine import concatenate_parts

        given = self.inputs
        parts = []
        for dwi, bval, bvec in zip(given.dwi, given.bval, given.bvec, strict=True):
            image = load_volume(dwi, ndim=4)
            table = read_gradients(
                bval,
                bvec,
                image.vox2ras,
                n_volumes=image.data.shape[3],
                b0_threshold_s_mm2=given.b0_threshold_s_mm2,
                whole=False,
            )
            parts.append((image, table))
        names = given.names if isdefined(given.names) else [Path(dwi).name for dwi in given.dwi]
        combined = concatenate_parts(parts, names)
        folder, vox2ras = Path(runtime.cwd), combined.dwi.vox2ras
        bval, bvec = write_gradients(combined.gradients, vox2ras, folder / "gradients")
        self._results.update(
            dwi=str(save_volume(combined.dwi.data, vox2ras, folder / "dwi.nii.gz")),
            bval=str(bval),
            bvec=str(bvec),
            n_volumes=[image.data.shape[3] for image, _ in parts],
            scales=[float(scale) for scale in combined.scales],
            notes=list(combined.notes),
        )
        return runtime
