"""Figures of the diffusion images: gradients, mask, registration to the T1w, anisotropy."""

from __future__ import annotations

from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    traits,
)

from difftract_bids.interfaces.reportlets.base import (
    OnReferenceInputSpec,
    Reportlet,
    image_and_gradients,
    load_for_figure,
)


class PlotGradientsInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotGradients`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image that the table belongs to.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")


class PlotGradients(Reportlet):
    """Draw shells and directions, and the mean signal of each volume.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.images import PlotGradients
    >>> plot = PlotGradients(dwi="dwi.nii.gz", bval="dwi.bval", bvec="dwi.bvec")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotGradientsInputSpec

    def _draw(self, path):
        import numpy as np

        from difftract_bids.reports.images.gradients import plot_gradients

        image, gradients = image_and_gradients(self.inputs)
        series = np.asanyarray(image.dataobj)
        # Volume by volume: of a large series, no second copy is made.
        means = [np.nanmean(series[..., volume]) for volume in range(series.shape[3])]
        return plot_gradients(gradients, path, signal=np.array(means))


class PlotMask(Reportlet):
    """Draw the brain mask over the reference image.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.images import PlotMask
    >>> PlotMask(dwiref="dwiref.nii.gz", mask="mask.nii.gz").run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = OnReferenceInputSpec

    def _draw(self, path):
        from difftract_bids.reports.images.outlines import plot_mask

        b0, vox2ras = load_for_figure(self.inputs.dwiref)
        return plot_mask(b0, load_for_figure(self.inputs.mask).data > 0, vox2ras, path)


class PlotCoregistrationInputSpec(OnReferenceInputSpec):
    """Inputs of :class:`PlotCoregistration`."""

    t1w = File(exists=True, mandatory=True, desc="T1w brought into the diffusion data's space.")


class PlotCoregistration(Reportlet):
    """Draw the edges of the T1w over the reference image.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.images import PlotCoregistration
    >>> plot = PlotCoregistration(dwiref="dwiref.nii.gz", mask="mask.nii.gz", t1w="t1w_dwi.nii.gz")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotCoregistrationInputSpec

    def _draw(self, path):
        from difftract_bids.reports.images.outlines import plot_registration

        return plot_registration(*load_coregistered(self.inputs), path)


def load_coregistered(inputs: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Load b=0 image, mask, their voxels to RAS+ millimetres; the T1w, and its own."""
    b0, vox2ras = load_for_figure(inputs.dwiref)
    mask = load_for_figure(inputs.mask).data > 0
    t1w, t1w_vox2ras = load_for_figure(inputs.t1w)
    return b0, mask, vox2ras, t1w, t1w_vox2ras


class PlotFAInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotFA`."""

    fa = File(exists=True, mandatory=True, desc="Fractional anisotropy.")
    v1 = File(exists=True, mandatory=True, desc="Principal eigenvector, scanner axes.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")


class PlotFA(Reportlet):
    """Draw fractional anisotropy coloured by direction.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.images import PlotFA
    >>> plot = PlotFA(fa="fa.nii.gz", v1="v1.nii.gz", mask="mask.nii.gz")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotFAInputSpec

    def _draw(self, path):
        from difftract_bids.reports.images.fa import plot_fa

        fa, vox2ras = load_for_figure(self.inputs.fa)
        v1 = load_for_figure(self.inputs.v1, ndim=4).data
        return plot_fa(fa, v1, load_for_figure(self.inputs.mask).data > 0, vox2ras, path)
