"""Figures of preprocessing: what each step did to the images."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, File, isdefined, traits

from difftract_bids.interfaces.reportlets.base import Reportlet, load_for_figure


class DenoisedInputSpec(BaseInterfaceInputSpec):
    """A series before and after denoising."""

    raw = File(exists=True, mandatory=True, desc="Series before denoising.")
    denoised = File(exists=True, mandatory=True, desc="Series after denoising, same grid.")
    raw_bval = File(exists=True, mandatory=True, desc="b-values of the series, s/mm².")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")


class PlotDenoisingInputSpec(DenoisedInputSpec):
    """Inputs of :class:`PlotDenoising`."""

    sigma = File(exists=True, desc="Noise standard deviation; else what was taken away tells it.")


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

        from difftract_bids.reports.images.denoising import plot_denoising

        denoised, chosen, mask, b_s_mm2 = load_denoised(self.inputs)
        raw = load_for_figure(self.inputs.raw, ndim=4).data
        squares = np.zeros(mask.shape)
        for volume in range(raw.shape[3]):  # all at once would be two more series
            squares += np.square(raw[..., volume] - denoised.data[..., volume])
        removed, sigma = np.sqrt(squares / raw.shape[3]), self.inputs.sigma
        b0, strongest = chosen
        return plot_denoising(
            (raw[..., b0], raw[..., strongest]),
            (denoised.data[..., b0], denoised.data[..., strongest]),
            (load_for_figure(sigma).data if isdefined(sigma) else removed, removed),
            mask,
            denoised.vox2ras,
            path,
            b_s_mm2=b_s_mm2,
        )


def load_denoised(inputs):
    """Load a denoised series, and choose what is shown of it.

    Returns
    -------
    Volume
        The series.
    tuple of int
        Volumes of the smallest and of the largest b-value.
    ndarray
        Brain mask, boolean.
    float
        Largest b-value, s/mm².
    """
    import numpy as np

    from difftract_bids.io.gradients import read_bvals
    from difftract_bids.preprocessing.mask import brain_mask

    denoised = load_for_figure(inputs.denoised, ndim=4)
    bvals = read_bvals(inputs.raw_bval)
    weighted = bvals > inputs.b0_threshold_s_mm2
    means = [_mean(denoised.data, volumes) for volumes in (~weighted, weighted)]
    mask = brain_mask(means[0], denoised.voxel_sizes_mm, means[1])
    chosen = int(np.argmin(bvals)), int(np.argmax(bvals))
    return denoised, chosen, mask, float(bvals.max())


def _mean(series, volumes):
    """Average some volumes one by one: chosen at once, they would be a second series."""
    import numpy as np

    total = np.zeros(series.shape[:3])
    for volume in np.flatnonzero(volumes):
        total += series[..., volume]
    return (total / max(int(volumes.sum()), 1)).astype(np.float32)
