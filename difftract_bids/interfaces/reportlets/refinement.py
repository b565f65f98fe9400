"""The figure of fODFs that were adjusted to a target."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, File

from difftract_bids.interfaces.reportlets.base import Reportlet


class PlotRefinementInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotRefinement`."""

    facts = File(exists=True, mandatory=True, desc="What RefineFODF tells of its steps, .npz.")


class PlotRefinement(Reportlet):
    """Draw loss and misfit over the steps, and matrices beside the target.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.refinement import PlotRefinement
    >>> PlotRefinement(facts="facts.npz").run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotRefinementInputSpec

    def _draw(self, path):
        import numpy as np

        from difftract_bids.reports.fodf.refinement import plot_refinement

        with np.load(self.inputs.facts) as facts:
            kinds = [key for key in ("target", "before", "after") if key in facts]
            return plot_refinement(
                facts["loss"],
                facts["misfit"],
                path,
                target=str(facts["name"]),
                judged=facts["judged"],
                best_step=int(facts["best_step"]),
                matrices={key: facts[key] for key in kinds},
                names=[str(name) for name in facts["names"]],
            )
