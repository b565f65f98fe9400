"""Checks of where the anatomy lies: T1w, template, parcellation."""

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

from difftract_bids.interfaces.checked import safely
from difftract_bids.interfaces.tissue import template_transforms


class AlignmentCheckOutputSpec(TraitedSpec):
    """What every check of an alignment gives."""

    checks = traits.List(traits.Dict, desc="The check, as plain values.")


class CheckCoregistrationInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`CheckCoregistration`."""

    dwiref = File(exists=True, mandatory=True, desc="Mean b=0 image.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")
    t1w = File(exists=True, mandatory=True, desc="T1w in that space, on any grid.")
    fa = File(exists=True, desc="Fractional anisotropy, same grid as the mask.")
    five_tissue_types = File(exists=True, desc="5TT image in that space, on any grid.")


class CheckCoregistration(SimpleInterface):
    """Check whether the T1w is where the brain of the diffusion images is.

    Examples
    --------
    >>> from difftract_bids.interfaces.alignment_checks import CheckCoregistration
    >>> check = CheckCoregistration(
    ...     dwiref="dwiref.nii.gz", mask="mask.nii.gz", t1w="t1w_dwi.nii.gz", fa="fa.nii.gz"
    ... )
    >>> (found,) = check.run().outputs.checks
    >>> found["name"], found["light"], found["value"] < 2, found["unit"]
    ('coreg', 'good', True, 'mm')
    """

    input_spec, output_spec = CheckCoregistrationInputSpec, AlignmentCheckOutputSpec

    def _run_interface(self, runtime):
        check = safely("coreg", "T1w to diffusion", self._check)
        self._results["checks"] = [check.to_dict()]
        return runtime

    def _check(self):
        from difftract_bids.checks.registration import check_coregistration
        from difftract_bids.io.images import load_volume

        inputs, tissues = self.inputs, self.inputs.five_tissue_types
        return check_coregistration(
            load_volume(inputs.t1w, ndim=3),
            load_volume(inputs.dwiref, ndim=3),
            load_volume(inputs.mask, ndim=3),
            fa=load_volume(inputs.fa, ndim=3) if isdefined(inputs.fa) else None,
            five_tissue_types=load_volume(tissues, ndim=4) if isdefined(tissues) else None,
        )


class CheckTemplateInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`CheckTemplate`."""

    t1w = File(exists=True, mandatory=True, desc="T1w in the diffusion data's space.")
    mask = File(exists=True, mandatory=True, desc="Brain mask in that space, on any grid.")
    template = File(exists=True, mandatory=True, desc="T1w of the template, without skull.")
    warp = File(exists=True, desc="Template to diffusion space: field, or all of it (``.h5``).")
    affine = File(exists=True, desc="Affine that goes with the field.")
    name = traits.Str(mandatory=True, desc="Name of the template.")
    t1w_name = traits.Str("T1w", usedefault=True, desc="What `t1w` is, in words.")


class CheckTemplate(SimpleInterface):
    """Check whether a template lies on the brain that it was registered to.

    Examples
    --------
    >>> from difftract_bids.interfaces.alignment_checks import CheckTemplate
    >>> check = CheckTemplate(
    ...     t1w="t1w_dwi.nii.gz",
    ...     mask="mask.nii.gz",
    ...     template="template.nii.gz",
    ...     warp="template_to_dwi.h5",
    ...     name="MNI152NLin2009aSym",
    ... )
    >>> (found,) = check.run().outputs.checks
    >>> found["name"], found["of"]
    ('template', 'MNI152NLin2009aSym')
    """

    input_spec, output_spec = CheckTemplateInputSpec, AlignmentCheckOutputSpec

    def _run_interface(self, runtime):
        from dataclasses import replace

        check = safely("template", f"Template {self.inputs.name}", self._check)
        self._results["checks"] = [replace(check, of=self.inputs.name).to_dict()]
        return runtime

    def _check(self):
        from difftract_bids.checks.registration import check_template
        from difftract_bids.io.images import load_volume
        from difftract_bids.preprocessing.registration import resample

        mask = load_volume(self.inputs.mask, ndim=3)
        warped = resample(
            load_volume(self.inputs.template, ndim=3),
            mask.data.shape,
            mask.vox2ras,
            template_transforms(self.inputs),
        )
        t1w = load_volume(self.inputs.t1w, ndim=3)
        return check_template(t1w, mask, warped, name=self.inputs.name, image=self.inputs.t1w_name)


class CheckParcellationInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`CheckParcellation`."""

    parcellation = File(exists=True, mandatory=True, desc="Labels on the diffusion data's grid.")
    table = File(exists=True, mandatory=True, desc="Node table (TSV) with index and name.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")
    fa = File(exists=True, desc="Fractional anisotropy, same grid.")
    atlas = traits.Str(mandatory=True, desc="Name of the atlas.")


class CheckParcellation(SimpleInterface):
    """Check whether parcels lie in the brain, on the side of their names, on grey matter.

    Examples
    --------
    >>> from difftract_bids.interfaces.alignment_checks import CheckParcellation
    >>> check = CheckParcellation(
    ...     parcellation="labels.nii.gz",
    ...     table="labels.tsv",
    ...     mask="mask.nii.gz",
    ...     fa="fa.nii.gz",
    ...     atlas="Phantom",
    ... )
    >>> (found,) = check.run().outputs.checks
    >>> found["name"], found["of"], found["light"]
    ('parcellation', 'Phantom', 'good')
    """

    input_spec, output_spec = CheckParcellationInputSpec, AlignmentCheckOutputSpec

    def _run_interface(self, runtime):
        from dataclasses import replace

        check = safely("parcellation", f"Parcellation {self.inputs.atlas}", self._check)
        self._results["checks"] = [replace(check, of=self.inputs.atlas).to_dict()]
        return runtime

    def _check(self):
        from difftract_bids.bids.nodes import load_labels, read_nodes
        from difftract_bids.checks.parcellation import check_parcellation
        from difftract_bids.io.images import load_volume

        nodes = read_nodes(Path(self.inputs.table))
        fa = load_volume(self.inputs.fa, ndim=3) if isdefined(self.inputs.fa) else None
        return check_parcellation(
            load_labels(Path(self.inputs.parcellation)),
            load_volume(self.inputs.mask, ndim=3),
            atlas=self.inputs.atlas,
            index=nodes.index,
            names=nodes.name,
            sides=nodes.hemisphere,
            fa=fa,
        )
