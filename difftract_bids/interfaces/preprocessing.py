"""Preprocessing of one diffusion run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(PreprocessingConfig)


class ConformGradientsInputSpec(_Settings):
    """Inputs of :class:`ConformGradients`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image that the table belongs to.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")


class ConformGradientsOutputSpec(TraitedSpec):
    """Outputs of :class:`ConformGradients`."""

    bval = File(desc="b-values, one row.")
    bvec = File(desc="b-vectors of unit length (zero where b=0), three rows, FSL's convention.")


class ConformGradients(SimpleInterface):
    """Check a gradient table and write it in one form: rows, unit vectors."""

    input_spec, output_spec = ConformGradientsInputSpec, ConformGradientsOutputSpec

    def _run_interface(self, runtime):
        import nibabel as nib

        from difftract_bids.io.gradients import read_gradients, write_gradients

        image = nib.load(self.inputs.dwi)
        gradients = read_gradients(
            self.inputs.bval,
            self.inputs.bvec,
            image.affine,
            n_volumes=image.shape[3],
            b0_threshold_s_mm2=settings_of(self.inputs, PreprocessingConfig).b0_threshold_s_mm2,
        )
        stem = Path(runtime.cwd) / "gradients"
        bval, bvec = write_gradients(gradients, image.affine, stem)
        self._results.update(bval=str(bval), bvec=str(bvec))
        return runtime


class DenoiseDWIInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`DenoiseDWI`."""

    dwi = File(exists=True, mandatory=True, desc="Raw diffusion image.")
    estimate_noise = traits.Bool(
        default_value=False, usedefault=True, desc="Estimate the noise also if it is left in."
    )


class DenoiseDWIOutputSpec(TraitedSpec):
    """Outputs of :class:`DenoiseDWI`."""

    dwi = File(desc="Denoised image, float32.")
    noise_sd = traits.Float(desc="Median noise standard deviation; 0 where nothing was done.")
    sigma = File(desc="Noise standard deviation before denoising, (x, y, z).")


class DenoiseDWI(SimpleInterface):
    """Denoise by Marchenko-Pastur PCA, or only convert to float32 (``denoise_method="none"``)."""

    input_spec, output_spec = DenoiseDWIInputSpec, DenoiseDWIOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.denoise import denoise_mppca

        dwi, vox2ras = load_volume(self.inputs.dwi, ndim=4)
        noise_sd, folder = 0.0, Path(runtime.cwd)
        denoise = self.inputs.denoise_method == "mppca"
        if denoise or self.inputs.estimate_noise:
            with limited_threads(self.inputs.num_threads):
                denoised, sigma = denoise_mppca(dwi)
            dwi = denoised if denoise else dwi
            noise_sd = float(np.median(sigma[sigma > 0])) if (sigma > 0).any() else 0.0
            self._results["sigma"] = str(save_volume(sigma, vox2ras, folder / "sigma.nii.gz"))
        self._results["dwi"] = str(save_volume(dwi, vox2ras, folder / "dwi.nii.gz"))
        self._results["noise_sd"] = noise_sd
        return runtime


class ExtractReferenceInputSpec(_Settings):
    """Inputs of :class:`ExtractReference`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")


class ExtractReferenceOutputSpec(TraitedSpec):
    """Outputs of :class:`ExtractReference`."""

    dwiref = File(desc="Mean b=0 image.")
    meandwi = File(desc="Mean of the diffusion-weighted volumes.")


class ExtractReference(SimpleInterface):
    """Average the b=0 volumes into the reference image of a run, and the others apart."""

    input_spec, output_spec = ExtractReferenceInputSpec, ExtractReferenceOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.gradients import read_gradients
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.reference import b0_reference

        dwi, vox2ras = load_volume(self.inputs.dwi, ndim=4)
        gradients = read_gradients(
            self.inputs.bval,
            self.inputs.bvec,
            vox2ras,
            b0_threshold_s_mm2=self.inputs.b0_threshold_s_mm2,
        )
        means = {
            "dwiref": b0_reference(dwi, gradients),
            "meandwi": dwi[..., ~gradients.b0_mask].mean(axis=-1),
        }
        for name, data in means.items():
            path = save_volume(data, vox2ras, Path(runtime.cwd) / f"{name}.nii.gz")
            self._results[name] = str(path)
        return runtime


class ComputeBrainMaskInputSpec(ThreadedSpec):
    """Inputs of :class:`ComputeBrainMask`."""

    dwiref = File(exists=True, mandatory=True, desc="Mean b=0 image.")
    meandwi = File(exists=True, desc="Mean of the diffusion-weighted volumes, same grid.")


class ComputeBrainMaskOutputSpec(TraitedSpec):
    """Outputs of :class:`ComputeBrainMask`."""

    mask = File(desc="Brain mask, uint8.")


class ComputeBrainMask(SimpleInterface):
    """Find the brain in a b=0 image, better so with the diffusion-weighted mean beside it."""

    input_spec, output_spec = ComputeBrainMaskInputSpec, ComputeBrainMaskOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.mask import brain_mask

        reference = load_volume(self.inputs.dwiref, ndim=3)
        meandwi = self.inputs.meandwi
        mean = load_volume(meandwi, ndim=3).data if isdefined(meandwi) else None
        with limited_threads(self.inputs.num_threads):
            mask = brain_mask(reference.data, reference.voxel_sizes_mm, mean)
        path = save_volume(mask, reference.vox2ras, Path(runtime.cwd) / "mask.nii.gz")
        self._results["mask"] = str(path)
        return runtime
