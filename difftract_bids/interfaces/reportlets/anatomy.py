"""Figures of the anatomy: tissues, and a template's registration."""

from __future__ import annotations

from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File

from difftract_bids.interfaces.reportlets.base import Reportlet, load_for_figure
from difftract_bids.interfaces.tissue import template_transforms


class PlotFiveTissueTypesInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotFiveTissueTypes`."""

    five_tissue_types = File(exists=True, mandatory=True, desc="5TT image.")
    t1w = File(exists=True, mandatory=True, desc="T1w in the same space, on any grid.")


class PlotFiveTissueTypes(Reportlet):
    """Draw the tissues over the T1w.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.anatomy import PlotFiveTissueTypes
    >>> plot = PlotFiveTissueTypes(
    ...     five_tissue_types="five_tissue_types.nii.gz", t1w="t1w_dwi.nii.gz"
    ... )
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotFiveTissueTypesInputSpec

    def _draw(self, path):
        from difftract_bids.reports.images.five_tissue_types import plot_five_tissue_types

        tissues, vox2ras = load_for_figure(self.inputs.five_tissue_types, ndim=4)
        t1w, t1w_vox2ras = load_for_figure(self.inputs.t1w)
        return plot_five_tissue_types(tissues, vox2ras, t1w, t1w_vox2ras, path)


class PlotRegistrationInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotRegistration`."""

    t1w = File(exists=True, mandatory=True, desc="T1w in the diffusion data's space.")
    mask = File(exists=True, mandatory=True, desc="Brain mask in that space, on any grid.")
    template = File(exists=True, mandatory=True, desc="T1w of the template, without skull.")
    warp = File(exists=True, desc="Template to diffusion space: field, or all of it (``.h5``).")
    affine = File(exists=True, desc="Affine that goes with the field.")


class PlotRegistration(Reportlet):
    """Draw the edges of the template over the T1w.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.anatomy import PlotRegistration
    >>> plot = PlotRegistration(
    ...     t1w="t1w_dwi.nii.gz",
    ...     mask="mask.nii.gz",
    ...     template="template.nii.gz",
    ...     warp="template_to_dwi.h5",
    ... )
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotRegistrationInputSpec

    def _draw(self, path):
        from difftract_bids.reports.images.five_tissue_types import plot_template

        return plot_template(*load_registered(self.inputs), path)


def load_registered(inputs: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Load template and brain on one grid, their voxels to RAS+ millimetres; T1w, and its own."""
    from difftract_bids.preprocessing.t1w_brain import around_brain

    template, brain = around_brain(
        load_for_figure(inputs.template),
        load_for_figure(inputs.mask),
        template_transforms(inputs),
    )
    t1w, t1w_vox2ras = load_for_figure(inputs.t1w)
    return template.data, brain.data > 0, brain.vox2ras, t1w, t1w_vox2ras
