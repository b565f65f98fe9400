"""Figure of the head motion."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, File

from difftract_bids.interfaces.reportlets.base import Reportlet


class PlotMotionInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotMotion`."""

    confounds = File(exists=True, mandatory=True, desc="Table of confounds.")
    outliers = File(exists=True, mandatory=True, desc="Table of flagged slices.")


class PlotMotion(Reportlet):
    """Draw translations, rotations, framewise displacement and flagged slices.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.motion import PlotMotion
    >>> plot = PlotMotion(confounds="confounds.tsv", outliers="outliers.tsv")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotMotionInputSpec

    def _draw(self, path):
        from difftract_bids.preprocessing.confounds import read_confounds, read_outliers
        from difftract_bids.reports.images.motion import plot_motion

        confounds = read_confounds(self.inputs.confounds)
        return plot_motion(confounds, read_outliers(self.inputs.outliers), path)
