"""Figures of preprocessing: what each step did to the images."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, File, isdefined, traits

from difftract_bids.interfaces.reportlets.base import Reportlet, load_for_figure


class PlotDenoisingInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotDenoising`."""

    raw = File(exists=True, mandatory=True, desc="Series before denoising.")
    denoised = File(exists=True, mandatory=True, desc="Series after denoising, same grid.")
    sigma = File(exists=True, desc="Noise standard deviation; else what was taken away tells it.")
    raw_bval = File(exists=True, mandatory=True, desc="b-values of the series, s/mm².")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")


class PlotDenoising(Reportlet):
    """Draw volumes before and after denoising, and what was taken away.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.preprocessing import PlotDenoising
    >>> plot = PlotDenoising(raw="raw.nii.gz", denoised="dwi.nii.gz", raw_bval="raw.bval")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotDenoisingInputSpec

    def _draw(self, path):
        import numpy as np

        from difftract_bids.io.gradients import read_bvals
        from difftract_bids.io.images import load_volume
        from difftract_bids.preprocessing.mask import brain_mask
        from difftract_bids.reports.images.denoising import plot_denoising

        raw = load_for_figure(self.inputs.raw, ndim=4).data
        denoised = load_volume(self.inputs.denoised, ndim=4)
        bvals = read_bvals(self.inputs.raw_bval)
        b0, strongest = int(np.argmin(bvals)), int(np.argmax(bvals))
        weighted = bvals > self.inputs.b0_threshold_s_mm2
        mask = brain_mask(
            denoised.data[..., ~weighted].mean(axis=-1),
            denoised.voxel_sizes_mm,
            denoised.data[..., weighted].mean(axis=-1),
        )
        removed = np.sqrt(np.mean((raw - denoised.data) ** 2, axis=-1))
        sigma = self.inputs.sigma
        return plot_denoising(
            (raw[..., b0], raw[..., strongest]),
            (denoised.data[..., b0], denoised.data[..., strongest]),
            (load_for_figure(sigma).data if isdefined(sigma) else removed, removed),
            mask,
            denoised.vox2ras,
            path,
            b_s_mm2=float(bvals[strongest]),
        )
