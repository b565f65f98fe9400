"""The intensity bias of the receive coils."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.diffusion import load_series
from difftract_bids.interfaces.settings import settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(PreprocessingConfig)


class CorrectBiasInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`CorrectBias`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, a rough one will do.")


class CorrectBiasOutputSpec(TraitedSpec):
    """Outputs of :class:`CorrectBias`."""

    dwi = File(desc="All volumes divided by the field, float32.")
    field = File(desc="The field, 1 on average in the mask.")


class CorrectBias(SimpleInterface):
    """Estimate the bias field of the mean b=0 image by N4 and divide all volumes by it.

    Examples
    --------
    >>> from difftract_bids.interfaces.bias import CorrectBias
    >>> series = {"dwi": "raw.nii.gz", "bval": "raw.bval", "bvec": "raw.bvec"}
    >>> correct = CorrectBias(**series, mask="mask.nii.gz", num_threads=4)
    >>> sorted(correct.output_spec().get())
    ['dwi', 'field']
    >>> corrected = correct.run().outputs  # seconds  # doctest: +SKIP
    """

    input_spec, output_spec = CorrectBiasInputSpec, CorrectBiasOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import Volume, load_volume, save_volume
        from difftract_bids.preprocessing.bias import estimate_bias
        from difftract_bids.preprocessing.reference import b0_reference

        (dwi, vox2ras), gradients = load_series(self.inputs)
        mask = load_volume(self.inputs.mask, ndim=3).data > 0
        with limited_threads(self.inputs.num_threads):
            field = estimate_bias(Volume(b0_reference(dwi, gradients), vox2ras), mask)
        folder = Path(runtime.cwd)
        self._results.update(
            dwi=str(save_volume(dwi / field[..., None], vox2ras, folder / "unbiased.nii.gz")),
            field=str(save_volume(field, vox2ras, folder / "biasfield.nii.gz")),
        )
        return runtime
