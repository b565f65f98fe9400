"""Figures of the fODF stage: response functions, tissues."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, File, isdefined, traits

from difftract_bids.config import TrackingConfig
from difftract_bids.interfaces.fodf import TISSUE_FIELDS
from difftract_bids.interfaces.reportlets.base import (
    Reportlet,
    image_and_gradients,
    load_for_figure,
)


class PlotResponseInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotResponse`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image that they belong to.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")
    response_wm = File(exists=True, mandatory=True, desc="White matter, MRtrix's text format.")
    response_gm = File(exists=True, desc="Grey matter, if the model has it.")
    response_csf = File(exists=True, desc="Cerebrospinal fluid, if the model has it.")


class PlotResponse(Reportlet):
    """Draw the response functions of the tissues.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.fodf import PlotResponse
    >>> series = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    >>> plot = PlotResponse(**series, response_wm="wm.txt", response_csf="csf.txt")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotResponseInputSpec

    def _draw(self, path):
        from difftract_bids.interfaces.response import read_responses
        from difftract_bids.reports.fodf.response import plot_response
        from difftract_bids.reports.images.gradients import shell_members

        given = [
            t for t in TISSUE_FIELDS if isdefined(getattr(self.inputs, f"response_{t.lower()}"))
        ]
        _, gradients = image_and_gradients(self.inputs)
        responses = read_responses(self.inputs, tuple(given), gradients)
        rows = {t: (r.bvals_s_mm2, r.coefficients) for t, r in responses.items()}
        shells = [mean for mean, _ in shell_members(gradients)]  # all: colours are as above
        return plot_response(rows, path, shells_s_mm2=shells)


class PlotTissuesInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotTissues`."""

    fodf = File(exists=True, mandatory=True, desc="White matter, SH coefficients.")
    fodf_gm = File(exists=True, desc="Grey matter, if the model has it.")
    fodf_csf = File(exists=True, mandatory=True, desc="Cerebrospinal fluid.")
    field = File(exists=True, desc="What the tissues were divided by, if they were.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")


class PlotTissues(Reportlet):
    """Draw the share of each tissue, and the normalisation field.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.fodf import PlotTissues
    >>> plot = PlotTissues(fodf="wmfod.nii.gz", fodf_csf="csffod.nii.gz", mask="mask.nii.gz")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotTissuesInputSpec

    def _draw(self, path):
        from difftract_bids.reports.fodf.tissues import plot_tissues

        paths = {tissue: getattr(self.inputs, name) for tissue, name in TISSUE_FIELDS.items()}
        tissues = {
            tissue: load_for_figure(path, ndim=4).data[..., 0]
            for tissue, path in paths.items()
            if isdefined(path)
        }
        mask, vox2ras = load_for_figure(self.inputs.mask)
        field = load_for_figure(self.inputs.field).data if isdefined(self.inputs.field) else None
        return plot_tissues(tissues, mask > 0, vox2ras, path, field=field)


class PlotFODFInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotFODF`."""

    fodf = File(exists=True, mandatory=True, desc="SH coefficients, MRtrix's basis.")
    fa = File(exists=True, mandatory=True, desc="Fractional anisotropy, the background.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")
    cutoff = traits.Float(
        TrackingConfig().resolve(1.0).cutoff, usedefault=True, desc="Peaks below it are left out."
    )


class PlotFODF(Reportlet):
    """Draw fODF peaks.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.fodf import PlotFODF
    >>> plot = PlotFODF(fodf="fodf.nii.gz", fa="fa.nii.gz", mask="mask.nii.gz", cutoff=0.2)
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotFODFInputSpec

    def _draw(self, path):
        from difftract_bids.reports.fodf.peaks import plot_fodf_peaks

        fodf, vox2ras = load_for_figure(self.inputs.fodf, ndim=4)
        fa = load_for_figure(self.inputs.fa).data
        mask = load_for_figure(self.inputs.mask).data > 0
        return plot_fodf_peaks(fodf, fa, mask, vox2ras, path, cutoff=self.inputs.cutoff)
