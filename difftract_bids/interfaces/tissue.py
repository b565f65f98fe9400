"""Brain and tissues of the T1w, in the space of the diffusion data."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)


class _TemplateInputSpec(BaseInterfaceInputSpec):
    warp = File(exists=True, desc="Template to diffusion space: field, or all of it (``.h5``).")
    affine = File(exists=True, desc="Affine that goes with the field.")


class ExtractT1wBrainInputSpec(_TemplateInputSpec):
    """Inputs of :class:`ExtractT1wBrain`."""

    t1w_dwi = File(exists=True, mandatory=True, desc="T1w placed in the diffusion data's space.")
    mask = File(exists=True, mandatory=True, desc="Brain mask of the diffusion run.")
    template = File(exists=True, mandatory=True, desc="T1w of the template, without skull.")


class ExtractT1wBrainOutputSpec(TraitedSpec):
    """Outputs of :class:`ExtractT1wBrain`."""

    t1w_mask = File(desc="Brain mask on the T1w's grid, in the diffusion data's space.")


class ExtractT1wBrain(SimpleInterface):
    """Find the brain in a T1w by the template that was registered to it.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.tissue import ExtractT1wBrain
    >>> extract = ExtractT1wBrain(
    ...     t1w_dwi="t1w_dwi.nii.gz",
    ...     mask="mask.nii.gz",
    ...     template="template.nii.gz",
    ...     warp="template_to_dwi.h5",
    ... )
    >>> brain = nibabel.load(extract.run().outputs.t1w_mask)
    >>> brain.shape == nibabel.load("t1w_dwi.nii.gz").shape
    True
    """

    input_spec, output_spec = ExtractT1wBrainInputSpec, ExtractT1wBrainOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import load_volume, save_volume
        from difftract_bids.preprocessing.t1w_brain import t1w_brain_mask

        t1w = load_volume(self.inputs.t1w_dwi, ndim=3)
        mask = t1w_brain_mask(
            t1w,
            load_volume(self.inputs.template, ndim=3),
            template_transforms(self.inputs),
            load_volume(self.inputs.mask, ndim=3),
        )
        path = save_volume(mask, t1w.vox2ras, Path(runtime.cwd) / "t1w_mask.nii.gz")
        self._results["t1w_mask"] = str(path)
        return runtime


class PlaceInDwiInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlaceInDwi`."""

    image = File(exists=True, mandatory=True, desc="Image in the space of the T1w.")
    t1w_to_dwi = File(
        exists=True, desc="ITK text: resamples the T1w onto the diffusion grid; identity if none."
    )


class PlaceInDwiOutputSpec(TraitedSpec):
    """Outputs of :class:`PlaceInDwi`."""

    image = File(desc="Its own voxels, placed in the diffusion data's space.")


class PlaceInDwi(SimpleInterface):
    """Move an image rigidly by its affine: nothing is interpolated.

    Examples
    --------
    >>> from difftract_bids.interfaces.tissue import PlaceInDwi
    >>> place = PlaceInDwi(image="T1w.nii.gz", t1w_to_dwi="t1w_to_dwi.txt")
    >>> place.run().outputs.image
    '/.../placed.nii.gz'
    """

    input_spec, output_spec = PlaceInDwiInputSpec, PlaceInDwiOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import load_volume, save_volume

        data, vox2ras = placed_in_dwi(
            load_volume(self.inputs.image, ndim=3), self.inputs.t1w_to_dwi
        )
        path = save_volume(data, vox2ras, Path(runtime.cwd) / "placed.nii.gz")
        self._results["image"] = str(path)
        return runtime


class TissuesOutputSpec(TraitedSpec):
    """Outputs of all that make tissues."""

    five_tissue_types = File(desc="5TT image in the diffusion data's space, MRtrix's order.")
    notes = traits.List(traits.Str, desc="What the user should know.")


class _MakesTissues(SimpleInterface):
    output_spec = TissuesOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.images import save_volume

        image, notes = self._tissues()
        path = Path(runtime.cwd) / "five_tissue_types.nii.gz"
        save_volume(image.data, image.vox2ras, path)
        self._results["five_tissue_types"] = str(path)
        self._results["notes"] = list(notes)
        return runtime

    def _tissues(self):
        raise NotImplementedError


class TissuesFromT1wInputSpec(_TemplateInputSpec):
    """Inputs of :class:`TissuesFromT1w`."""

    t1w_dwi = File(exists=True, mandatory=True, desc="T1w placed in the diffusion data's space.")
    t1w_mask = File(exists=True, mandatory=True, desc="Its brain mask, on any grid of that space.")


class TissuesFromT1w(_MakesTissues):
    """Segment a T1w.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.tissue import TissuesFromT1w
    >>> segment = TissuesFromT1w(
    ...     t1w_dwi="t1w_dwi.nii.gz", t1w_mask="mask.nii.gz", warp="template_to_dwi.h5"
    ... )
    >>> nibabel.load(segment.run().outputs.five_tissue_types).shape[3]
    5
    """

    input_spec = TissuesFromT1wInputSpec

    def _tissues(self):
        import numpy as np

        from difftract_bids.io.images import load_volume
        from difftract_bids.io.transforms import LinearTransform
        from difftract_bids.preprocessing.five_tissue_types import five_tissues_from_t1w
        from difftract_bids.preprocessing.registration import brain_mask_in_t1w

        t1w = load_volume(self.inputs.t1w_dwi, ndim=3)
        mask, vox2ras = load_volume(self.inputs.t1w_mask, ndim=3)
        brain = type(t1w)(mask > 0, vox2ras)
        inside = brain_mask_in_t1w(brain, t1w, LinearTransform(np.eye(4)))
        return five_tissues_from_t1w(t1w, inside, template_transforms(self.inputs))


class TissuesFromProbabilitiesInputSpec(_TemplateInputSpec):
    """Inputs of :class:`TissuesFromProbabilities`."""

    csf = File(exists=True, mandatory=True, desc="Probability of fluid, in T1w space.")
    gm = File(exists=True, mandatory=True, desc="Of grey matter.")
    wm = File(exists=True, mandatory=True, desc="Of white matter.")
    t1w_to_dwi = File(exists=True, desc="ITK text; without it both share a space.")


class TissuesFromProbabilities(_MakesTissues):
    """Take tissue probabilities that others made, and tell deep grey matter from cortex.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.tissue import TissuesFromProbabilities
    >>> take = TissuesFromProbabilities(
    ...     csf="csf_probseg.nii.gz",
    ...     gm="gm_probseg.nii.gz",
    ...     wm="wm_probseg.nii.gz",
    ...     t1w_to_dwi="t1w_to_dwi.txt",
    ...     warp="template_to_dwi.h5",
    ... )
    >>> nibabel.load(take.run().outputs.five_tissue_types).shape[3]
    5
    """

    input_spec = TissuesFromProbabilitiesInputSpec

    def _tissues(self):
        import numpy as np

        from difftract_bids.io.images import load_volume
        from difftract_bids.preprocessing.five_tissue_types import five_tissues_from_shares

        maps = [load_volume(getattr(self.inputs, name), ndim=3) for name in ("csf", "gm", "wm")]
        shares, vox2ras = placed_in_dwi(
            type(maps[0])(np.stack([volume.data for volume in maps], axis=-1), maps[0].vox2ras),
            self.inputs.t1w_to_dwi,
        )
        everywhere = np.ones(shares.shape[:3], dtype=bool)
        transforms = template_transforms(self.inputs)
        return five_tissues_from_shares(shares, vox2ras, everywhere, transforms)


class TissuesFromLabelsInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`TissuesFromLabels`."""

    labels = File(exists=True, mandatory=True, desc="FreeSurfer's aparc+aseg, in T1w space.")
    t1w_to_dwi = File(exists=True, desc="ITK text; without it both share a space.")


class TissuesFromLabels(_MakesTissues):
    """Turn FreeSurfer's labels into tissues.

    Examples
    --------
    >>> import nibabel
    >>> from difftract_bids.interfaces.tissue import TissuesFromLabels
    >>> convert = TissuesFromLabels(labels="aparcaseg.nii.gz", t1w_to_dwi="t1w_to_dwi.txt")
    >>> nibabel.load(convert.run().outputs.five_tissue_types).shape[3]
    5
    """

    input_spec = TissuesFromLabelsInputSpec

    def _tissues(self):
        import numpy as np

        from difftract_bids.io.images import load_volume
        from difftract_bids.preprocessing.five_tissue_types import five_tissues_from_labels

        labels = load_volume(self.inputs.labels, ndim=3, dtype=np.int32)
        return five_tissues_from_labels(*placed_in_dwi(labels, self.inputs.t1w_to_dwi))


class UseGivenTransformInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`UseGivenTransform`."""

    from_template = File(
        exists=True,
        mandatory=True,
        desc="Of others: from-<template>_to-T1w, ITK text or HDF5 (affine and displacements).",
    )
    t1w_to_dwi = File(exists=True, desc="ITK text; without it both share a space.")


class UseGivenTransformOutputSpec(TraitedSpec):
    """Outputs of :class:`UseGivenTransform`."""

    warp = File(desc="All of template to diffusion space, ITK HDF5.")


class UseGivenTransform(SimpleInterface):
    """Join what others found between template and T1w to the way from T1w to diffusion space.

    Examples
    --------
    >>> from difftract_bids.interfaces.tissue import UseGivenTransform
    >>> join = UseGivenTransform(
    ...     from_template="from-template_to-T1w.txt", t1w_to_dwi="t1w_to_dwi.txt"
    ... )
    >>> join.run().outputs.warp
    '/.../template_to_dwi.h5'
    """

    input_spec, output_spec = UseGivenTransformInputSpec, UseGivenTransformOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.composite_transforms import load_transform, save_composite_h5

        given = [self.inputs.t1w_to_dwi, self.inputs.from_template]
        chain = [load_transform(path) for path in given if isdefined(path)]
        path = save_composite_h5(chain, Path(runtime.cwd) / "template_to_dwi.h5")
        self._results["warp"] = str(path)
        return runtime


def template_transforms(inputs):
    """Load the way from points of the diffusion data's space to a template's, if there is one."""
    from difftract_bids.io.composite_transforms import load_transform
    from difftract_bids.io.transforms import load_nonlinear

    if not isdefined(inputs.warp):
        return [load_transform(inputs.affine)] if isdefined(inputs.affine) else []
    if str(inputs.warp).endswith(".h5"):
        return [load_transform(inputs.warp)]
    return [load_nonlinear(inputs.warp, inputs.affine)]


def placed_in_dwi(volume, t1w_to_dwi):
    """Move a volume by its affine, as the T1w is moved."""
    import numpy as np

    from difftract_bids.io.transforms import load_linear

    if not isdefined(t1w_to_dwi):
        return volume
    vox2ras = np.linalg.inv(load_linear(t1w_to_dwi).matrix) @ volume.vox2ras
    return type(volume)(volume.data, vox2ras)
