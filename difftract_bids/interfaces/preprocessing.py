"""Preprocessing of one diffusion run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined

from difftract_bids.config import PreprocessingConfig
from difftract_bids.interfaces.diffusion import load_series
from difftract_bids.interfaces.settings import settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(PreprocessingConfig)


class ExtractReferenceInputSpec(_Settings):
    """Inputs of :class:`ExtractReference`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    affines = File(exists=True, desc="Motion of each volume, if it is still in the images.")


class ExtractReferenceOutputSpec(TraitedSpec):
    """Outputs of :class:`ExtractReference`."""

    dwiref = File(desc="Mean b=0 image.")
    meandwi = File(desc="Mean of the diffusion-weighted volumes.")


class ExtractReference(SimpleInterface):
    """Average the b=0 volumes into the reference image of a run, and the others apart.

    Examples
    --------
    >>> from difftract_bids.interfaces.preprocessing import ExtractReference
    >>> extract = ExtractReference(dwi="dwi.nii.gz", bval="dwi.bval", bvec="dwi.bvec")
    >>> means = extract.run().outputs
    >>> means.dwiref, means.meandwi
    ('/.../dwiref.nii.gz', '/.../meandwi.nii.gz')
    """

    input_spec, output_spec = ExtractReferenceInputSpec, ExtractReferenceOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import save_volume
        from difftract_bids.preprocessing.reference import b0_reference

        (dwi, vox2ras), gradients = load_series(self.inputs)
        if isdefined(self.inputs.affines):
            dwi = _aligned(dwi, vox2ras, self.inputs.affines)
        means = {
            "dwiref": b0_reference(dwi, gradients),
            "meandwi": dwi[..., ~gradients.b0_mask].mean(axis=-1),
        }
        for name, data in means.items():
            path = save_volume(data, vox2ras, Path(runtime.cwd) / f"{name}.nii.gz")
            self._results[name] = str(path)
        return runtime


def _aligned(dwi, vox2ras, affines):
    """Bring volumes that moved to the position of the reference, for a sharper average."""
    from difftract_bids.preprocessing.confounds import read_affines
    from difftract_bids.preprocessing.resampling import Grid, resample_series

    return resample_series(dwi, vox2ras, read_affines(affines), Grid(dwi.shape[:3], vox2ras))


class ComputeBrainMaskInputSpec(ThreadedSpec):
    """Inputs of :class:`ComputeBrainMask`."""

    dwiref = File(exists=True, mandatory=True, desc="Mean b=0 image.")
    meandwi = File(exists=True, desc="Mean of the diffusion-weighted volumes, same grid.")


class ComputeBrainMaskOutputSpec(TraitedSpec):
    """Outputs of :class:`ComputeBrainMask`."""

    mask = File(desc="Brain mask, uint8.")


class ComputeBrainMask(SimpleInterface):
    """Find the brain in a b=0 image, better so with the diffusion-weighted mean beside it.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.preprocessing import ComputeBrainMask
    >>> find = ComputeBrainMask(dwiref="dwiref.nii.gz", meandwi="meandwi.nii.gz")
    >>> mask = nibabel.load(find.run().outputs.mask)
    >>> f"{mask.get_fdata().sum() * 0.06**3:.0f} litres"  # in voxels of 6 mm
    '2 litres'
    """

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
