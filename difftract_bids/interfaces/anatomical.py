"""Bringing the T1w and parcellations into the space of the diffusion data."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads
from difftract_bids.interfaces.tissue import template_transforms


class AlignT1wInputSpec(ThreadedSpec):
    """Inputs of :class:`AlignT1w`."""

    t1w = File(exists=True, mandatory=True, desc="T1w image, with or without skull.")
    dwiref = File(exists=True, mandatory=True, desc="Mean b=0 image.")
    mask = File(exists=True, mandatory=True, desc="Brain mask on the b=0 image's grid.")


class AlignT1wOutputSpec(TraitedSpec):
    """Outputs of :class:`AlignT1w`."""

    t1w_dwi = File(desc="The T1w's own voxels, placed in the space of the diffusion data.")
    t1w_to_dwi = File(desc="ITK text: resamples the T1w onto the diffusion grid.")
    dwi_to_t1w = File(desc="ITK text: its inverse.")


class AlignT1w(SimpleInterface):
    """Find the rigid motion between T1w and b=0 image, whatever their headers say.

    The T1w is not interpolated: its affine is replaced, so that it keeps its resolution.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.anatomical import AlignT1w
    >>> align = AlignT1w(t1w="T1w.nii.gz", dwiref="dwiref.nii.gz", mask="mask.nii.gz")
    >>> found = align.run().outputs
    >>> found.t1w_to_dwi
    '/.../t1w_to_dwi.txt'
    >>> nibabel.load(found.t1w_dwi).shape == nibabel.load("T1w.nii.gz").shape
    True
    """

    input_spec, output_spec = AlignT1wInputSpec, AlignT1wOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.io.transforms import save_linear
        from difftract_bids.preprocessing.registration import dilate_mm, register_rigid

        dwiref = load_volume(self.inputs.dwiref, ndim=3)
        mask = load_volume(self.inputs.mask, ndim=3).data > 0
        t1w = load_volume(self.inputs.t1w, ndim=3)
        with limited_threads(self.inputs.num_threads):
            dwi_points_to_t1w = register_rigid(
                dwiref,
                t1w,
                fixed_mask=dilate_mm(mask, dwiref.vox2ras, 8.0),
            )
        folder = Path(runtime.cwd)
        vox2ras = np.linalg.inv(dwi_points_to_t1w.matrix) @ t1w.vox2ras
        self._results.update(
            t1w_dwi=str(save_volume(t1w.data, vox2ras, folder / "t1w_dwi.nii.gz")),
            t1w_to_dwi=str(save_linear(dwi_points_to_t1w, folder / "t1w_to_dwi.txt")),
            dwi_to_t1w=str(save_linear(dwi_points_to_t1w.inverse(), folder / "dwi_to_t1w.txt")),
        )
        return runtime


class MakePseudoT1wInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`MakePseudoT1w`."""

    fa = File(exists=True, mandatory=True, desc="Fractional anisotropy.")
    md = File(exists=True, mandatory=True, desc="Mean diffusivity, mm²/s.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")


class MakePseudoT1wOutputSpec(TraitedSpec):
    """Outputs of :class:`MakePseudoT1w`."""

    pseudo_t1w = File(desc="Image with the contrast of a T1w, without skull.")


class MakePseudoT1w(SimpleInterface):
    """Make an image with a T1w's contrast from tensor maps, for want of a T1w.

    Examples
    --------
    >>> from difftract_bids.interfaces.anatomical import MakePseudoT1w
    >>> make = MakePseudoT1w(fa="fa.nii.gz", md="md.nii.gz", mask="mask.nii.gz")
    >>> make.run().outputs.pseudo_t1w
    '/.../pseudo_t1w.nii.gz'
    """

    input_spec, output_spec = MakePseudoT1wInputSpec, MakePseudoT1wOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.registration import pseudo_t1w

        fa, vox2ras = load_volume(self.inputs.fa, ndim=3)
        md_mm2_s = load_volume(self.inputs.md, ndim=3).data
        mask = load_volume(self.inputs.mask, ndim=3).data.astype(bool)
        image = pseudo_t1w(fa, md_mm2_s, mask)
        path = save_volume(image, vox2ras, Path(runtime.cwd) / "pseudo_t1w.nii.gz")
        self._results["pseudo_t1w"] = str(path)
        return runtime


class RegisterTemplateInputSpec(ThreadedSpec):
    """Inputs of :class:`RegisterTemplate`."""

    anatomy = File(exists=True, mandatory=True, desc="T1w contrast in the diffusion data's space.")
    mask = File(exists=True, mandatory=True, desc="Brain mask in that space, on any grid.")
    template = File(exists=True, mandatory=True, desc="T1w of the template, without skull.")


class RegisterTemplateOutputSpec(TraitedSpec):
    """Outputs of :class:`RegisterTemplate`."""

    warp = File(desc="ITK displacement field: second part of template to diffusion space.")
    affine = File(desc="ITK text: its first part.")
    template_to_dwi = File(desc="Both in one file: brings template images here, ITK HDF5.")
    dwi_to_template = File(desc="Its inverse: brings images to the template.")


class RegisterTemplate(SimpleInterface):
    """Map a brain to a template: affine, then SyN.

    Examples
    --------
    >>> from difftract_bids.interfaces.anatomical import RegisterTemplate
    >>> register = RegisterTemplate(
    ...     anatomy="t1w_dwi.nii.gz", mask="mask.nii.gz", template="template.nii.gz", num_threads=4
    ... )
    >>> sorted(register.output_spec().get())
    ['affine', 'dwi_to_template', 'template_to_dwi', 'warp']
    >>> found = register.run().outputs  # minutes  # doctest: +SKIP
    """

    input_spec, output_spec = RegisterTemplateInputSpec, RegisterTemplateOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.io.composite_transforms import save_composite_h5
        from difftract_bids.io.images import load_volume
        from difftract_bids.io.transforms import LinearTransform, save_nonlinear
        from difftract_bids.preprocessing.registration import brain_mask_in_t1w, register_template

        anatomy = load_volume(self.inputs.anatomy, ndim=3)
        mask = load_volume(self.inputs.mask, ndim=3)
        on_grid = brain_mask_in_t1w(mask, anatomy, LinearTransform(np.eye(4)))
        with limited_threads(self.inputs.num_threads):
            found = register_template(
                anatomy,
                load_volume(self.inputs.template, ndim=3),
                fixed_mask=on_grid,
            )
        folder = Path(runtime.cwd)
        field, matrix = folder / "warp.nii.gz", folder / "affine.txt"
        warp, affine = save_nonlinear(found.to_template, field, matrix)
        there = save_composite_h5([found.to_template], folder / "template_to_dwi.h5")
        back = save_composite_h5([found.to_subject], folder / "dwi_to_template.h5")
        self._results.update(warp=str(warp), affine=str(affine))
        self._results.update(template_to_dwi=str(there), dwi_to_template=str(back))
        return runtime


class ResampleParcellationInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`ResampleParcellation`."""

    parcellation = File(exists=True, mandatory=True, desc="Label image in its own space.")
    table = File(exists=True, mandatory=True, desc="Node table (TSV) with index and name.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, the grid to bring it to.")
    warp = File(
        exists=True,
        desc="From a template: displacement field of RegisterTemplate, or all of it (``.h5``).",
    )
    affine = File(exists=True, desc="Affine of RegisterTemplate, or T1w to diffusion space.")


class ResampleParcellationOutputSpec(TraitedSpec):
    """Outputs of :class:`ResampleParcellation`."""

    parcellation = File(desc="Label image on the grid of the diffusion data.")
    notes = traits.List(traits.Str, desc="Which nodes were lost.")


class ResampleParcellation(SimpleInterface):
    """Bring a parcellation onto the diffusion grid in one nearest-neighbour interpolation.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.anatomical import ResampleParcellation
    >>> resample = ResampleParcellation(
    ...     parcellation="labels.nii.gz",
    ...     table="labels.tsv",
    ...     mask="mask.nii.gz",
    ...     affine="t1w_to_dwi.txt",
    ... )
    >>> placed = resample.run().outputs
    >>> nibabel.load(placed.parcellation).shape == nibabel.load("mask.nii.gz").shape
    True
    >>> placed.notes
    []
    """

    input_spec, output_spec = ResampleParcellationInputSpec, ResampleParcellationOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.bids.nodes import read_nodes
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.parcellation import parcellation_in_dwi

        mask = load_volume(self.inputs.mask, ndim=3)
        labels, lost = parcellation_in_dwi(
            load_volume(self.inputs.parcellation, ndim=3, dtype=np.int32),
            read_nodes(Path(self.inputs.table)),
            mask,
            template_transforms(self.inputs),
        )
        path = save_volume(labels, mask.vox2ras, Path(runtime.cwd) / "parcellation.nii.gz")
        self._results["parcellation"] = str(path)
        self._results["notes"] = _lost_note(lost)
        return runtime


def _lost_note(lost: tuple[str, ...]) -> list[str]:
    if not lost:
        return []
    shown = ", ".join(lost[:8]) + (", ..." if len(lost) > 8 else "")
    return [f"{len(lost)} node(s) have no voxel in the brain of this run: {shown}."]
