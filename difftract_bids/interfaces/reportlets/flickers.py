"""What steps changed: two pictures in turn, where the reader points at them."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, File, traits

from difftract_bids.interfaces.reportlets.anatomy import (
    PlotRegistrationInputSpec,
    load_registered,
)
from difftract_bids.interfaces.reportlets.base import Reportlet, load_for_figure
from difftract_bids.interfaces.reportlets.images import (
    PlotCoregistrationInputSpec,
    load_coregistered,
)
from difftract_bids.interfaces.reportlets.preprocessing import DenoisedInputSpec, load_denoised


class FlickDenoising(Reportlet):
    """Show volumes before and after denoising in turn.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.flickers import FlickDenoising
    >>> flick = FlickDenoising(raw="raw.nii.gz", denoised="dwi.nii.gz", raw_bval="raw.bval")
    >>> flick.run().outputs.out_report
    '/.../report.html'
    """

    input_spec, _extension = DenoisedInputSpec, "html"

    def _draw(self, path):
        from difftract_bids.reports.flickers.denoising import flick_denoising

        denoised, (b0, strongest), mask, b_s_mm2 = load_denoised(self.inputs)
        after = denoised.data[..., b0].copy(), denoised.data[..., strongest].copy()
        vox2ras = denoised.vox2ras
        del denoised  # a series is enough in memory
        raw = load_for_figure(self.inputs.raw, ndim=4).data
        before = raw[..., b0], raw[..., strongest]
        return flick_denoising(before, after, mask, vox2ras, path, b_s_mm2=b_s_mm2)


class FlickMotionInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`FlickMotion`."""

    raw = File(exists=True, mandatory=True, desc="Series before any correction of displacements.")
    raw_bval = File(exists=True, mandatory=True, desc="Its b-values, s/mm².")
    dwi = File(exists=True, mandatory=True, desc="Corrected series, on any grid.")
    bval = File(exists=True, mandatory=True, desc="Its b-values, s/mm².")
    mask = File(exists=True, mandatory=True, desc="Brain mask on the corrected grid.")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")


class FlickMotion(Reportlet):
    """Show a shell before and after correction of motion and distortion in turn.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.flickers import FlickMotion
    >>> flick = FlickMotion(
    ...     raw="raw.nii.gz",
    ...     raw_bval="raw.bval",
    ...     dwi="dwi.nii.gz",
    ...     bval="dwi.bval",
    ...     mask="mask.nii.gz",
    ... )
    >>> flick.run().outputs.out_report
    '/.../report.html'
    """

    input_spec, _extension = FlickMotionInputSpec, "html"

    def _draw(self, path):
        from difftract_bids.io.gradients import read_bvals
        from difftract_bids.reports.flickers.motion import flick_motion
        from difftract_bids.reports.flickers.shell import fullest_shell, of_range

        bvals, raw_bvals = read_bvals(self.inputs.bval), read_bvals(self.inputs.raw_bval)
        shell, chosen = fullest_shell(bvals, self.inputs.b0_threshold_s_mm2)
        raw_chosen = of_range(raw_bvals, bvals[chosen], self.inputs.raw_bval)
        return flick_motion(
            self._maps(self.inputs.raw, raw_chosen),
            self._maps(self.inputs.dwi, chosen),
            load_for_figure(self.inputs.mask).data > 0,
            path,
            b_s_mm2=shell,
        )

    def _maps(self, series, volumes):
        """Load a series for as long as its maps take: two of them may not fit."""
        from difftract_bids.reports.flickers.motion import shell_maps

        data, vox2ras = load_for_figure(series, ndim=4)
        return shell_maps(data, volumes, vox2ras)


class FlickCoregistration(Reportlet):
    """Show the T1w and the reference image in turn.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.flickers import FlickCoregistration
    >>> flick = FlickCoregistration(
    ...     dwiref="dwiref.nii.gz", mask="mask.nii.gz", t1w="t1w_dwi.nii.gz"
    ... )
    >>> flick.run().outputs.out_report
    '/.../report.html'
    """

    input_spec, _extension = PlotCoregistrationInputSpec, "html"

    def _draw(self, path):
        from difftract_bids.reports.flickers.registration import flick_coregistration

        return flick_coregistration(*load_coregistered(self.inputs), path)


class FlickTemplate(Reportlet):
    """Show the template and the T1w in turn.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.flickers import FlickTemplate
    >>> flick = FlickTemplate(
    ...     t1w="t1w_dwi.nii.gz",
    ...     mask="mask.nii.gz",
    ...     template="template.nii.gz",
    ...     warp="template_to_dwi.h5",
    ... )
    >>> flick.run().outputs.out_report
    '/.../report.html'
    """

    input_spec, _extension = PlotRegistrationInputSpec, "html"

    def _draw(self, path):
        from difftract_bids.reports.flickers.registration import flick_template

        return flick_template(*load_registered(self.inputs), path)
