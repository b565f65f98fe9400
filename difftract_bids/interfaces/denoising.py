"""Noise and Gibbs ringing, before anything interpolates the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.settings import settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(PreprocessingConfig)


class DenoiseDWIInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`DenoiseDWI`."""

    dwi = File(exists=True, mandatory=True, desc="Raw diffusion image.")
    bval = File(exists=True, desc="b-values, s/mm²; Patch2Self needs them.")
    bvec = File(exists=True, desc="b-vectors, FSL's convention; Patch2Self needs them.")
    estimate_noise = traits.Bool(
        default_value=False, usedefault=True, desc="Estimate the noise whatever becomes of it."
    )


class DenoiseDWIOutputSpec(TraitedSpec):
    """Outputs of :class:`DenoiseDWI`."""

    dwi = File(desc="Denoised image, float32.")
    noise_sd = traits.Float(
        desc="Median noise standard deviation of a channel where there is signal; 0 if not found."
    )
    sigma = File(desc="Noise standard deviation of a channel before denoising, (x, y, z).")


class DenoiseDWI(SimpleInterface):
    """Denoise by MP-PCA or Patch2Self, or only convert to float32 (``denoise_method="none"``).

    Examples
    --------
    >>> from difftract_bids.interfaces.denoising import DenoiseDWI
    >>> denoised = DenoiseDWI(dwi="raw.nii.gz", denoise_method="mppca").run().outputs
    >>> denoised.dwi, denoised.sigma
    ('/.../dwi.nii.gz', '/.../sigma.nii.gz')
    >>> f"{denoised.noise_sd:.0f}"  # where white matter has 1000 at b=0
    '33'
    """

    input_spec, output_spec = DenoiseDWIInputSpec, DenoiseDWIOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.denoise import denoise_mppca, refuse_gaps
        from difftract_bids.preprocessing.rician import channel_noise, typical_noise

        dwi, vox2ras = load_volume(self.inputs.dwi, ndim=4)
        # Whether or not it is denoised: this is the first step that reads the values.
        refuse_gaps(dwi, self.inputs.dwi)
        folder, result = Path(runtime.cwd), dwi
        self._results["noise_sd"] = 0.0
        with limited_threads(self.inputs.num_threads):
            if self.inputs.denoise_method == "mppca" or self.inputs.estimate_noise:
                denoised, magnitude_sd = denoise_mppca(dwi)
                sigma = channel_noise(magnitude_sd, denoised)
                self._results["noise_sd"] = typical_noise(sigma, denoised)
                self._results["sigma"] = str(save_volume(sigma, vox2ras, folder / "sigma.nii.gz"))
                result = denoised if self.inputs.denoise_method == "mppca" else result
            if self.inputs.denoise_method == "patch2self":
                result = self._patch2self(dwi, vox2ras)
        self._results["dwi"] = str(save_volume(result, vox2ras, folder / "dwi.nii.gz"))
        return runtime

    def _patch2self(self, dwi, vox2ras):
        from difftract_bids.errors import UsageError
        from difftract_bids.io.gradients import read_gradients
        from difftract_bids.preprocessing.patch2self import denoise_patch2self

        if not (isdefined(self.inputs.bval) and isdefined(self.inputs.bvec)):
            raise UsageError(
                "Patch2Self needs the gradient table.",
                where=self.inputs.dwi,
                remedy="Give bval and bvec, or denoise by mppca.",
            )
        gradients = read_gradients(
            self.inputs.bval,
            self.inputs.bvec,
            vox2ras,
            n_volumes=dwi.shape[3],
            b0_threshold_s_mm2=self.inputs.b0_threshold_s_mm2,
            whole=False,
        )
        return denoise_patch2self(dwi, gradients)


class RemoveGibbsInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`RemoveGibbs`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image, denoised at most.")
    raw = File(exists=True, desc="The image before denoising: its noise shows interpolation.")
    metadata = traits.Dict(desc="Sidecar of the run: PartialFourier and the like.")


class RemoveGibbsOutputSpec(TraitedSpec):
    """Outputs of :class:`RemoveGibbs`."""

    dwi = File(desc="Image without Gibbs ringing, or the one given.")
    notes = traits.List(traits.Str, desc="Why it was not removed, or what is doubtful.")


class RemoveGibbs(SimpleInterface):
    """Remove Gibbs ringing where that is right.

    Examples
    --------
    >>> from difftract_bids.interfaces.denoising import RemoveGibbs
    >>> unring = RemoveGibbs(dwi="raw.nii.gz", metadata={"PartialFourier": 0.75})
    >>> unring.run().outputs.notes
    ['Gibbs ringing was not removed: only 0.75 of k-space was sampled ...']
    >>> unring.inputs.metadata = {"PartialFourier": 1}
    >>> unrung = unring.run().outputs.dwi  # seconds a volume  # doctest: +SKIP
    """

    input_spec, output_spec = RemoveGibbsInputSpec, RemoveGibbsOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.gibbs import decide_unringing, remove_gibbs, slice_axis

        metadata = self.inputs.metadata if isdefined(self.inputs.metadata) else {}
        raw = self.inputs.raw if isdefined(self.inputs.raw) else self.inputs.dwi
        decision = decide_unringing(
            self.inputs.unringing_method, metadata, load_volume(raw, ndim=4).data
        )
        self._results["notes"] = [decision.note] if decision.note else []
        self._results["dwi"] = self.inputs.dwi
        if decision.wanted:
            dwi, vox2ras = load_volume(self.inputs.dwi, ndim=4)
            with limited_threads(self.inputs.num_threads):
                dwi = remove_gibbs(dwi, slice_axis(metadata))
            path = save_volume(dwi, vox2ras, Path(runtime.cwd) / "unrung.nii.gz")
            self._results["dwi"] = str(path)
        return runtime
