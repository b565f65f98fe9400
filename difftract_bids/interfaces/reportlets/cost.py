"""The table of what each stage of a run took."""

from __future__ import annotations

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    InputMultiObject,
    isdefined,
    traits,
)

from difftract_bids.interfaces.reportlets.base import Reportlet


class SummariseCostInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`SummariseCost`."""

    folder = traits.Str(
        mandatory=True,
        desc="Working folder of the run's workflow, absolute or relative to that of this step.",
    )
    steps = traits.List(
        traits.Str,
        desc="Names of its steps (list_node_names of that workflow); all that have left anything "
        "in the folder, steps of earlier settings too, if left out.",
    )
    run_uuid = traits.Str(
        desc="Identifier of the run of the app, which begins with its date and time. Steps that "
        "ended before are shown as reused."
    )
    finished = InputMultiObject(traits.Any, desc="What has to be done before; only waited for.")


class SummariseCost(Reportlet):
    """Write the table of time and memory of each stage of a diffusion run.

    A folder that is not there or cannot be read gives a sentence that says so.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.cost import SummariseCost
    >>> summarise = SummariseCost(folder="../dwi_wf", run_uuid="20260101T120000Z_0a1b2c3d")
    >>> summarise.run().outputs.out_report
    '/.../report.html'
    """

    input_spec = SummariseCostInputSpec
    _extension = "html"
    # Its figures lie outside its folder: that nothing in there has changed says nothing.
    _always_run = True

    def _draw(self, path):
        from difftract_bids.io.step_costs import read_step_costs
        from difftract_bids.reports.page.cost import started_at, write_cost_html

        steps = set(self.inputs.steps) if isdefined(self.inputs.steps) else None
        started = started_at(self.inputs.run_uuid) if isdefined(self.inputs.run_uuid) else None
        found = read_step_costs(path.parent / self.inputs.folder, steps)
        return write_cost_html(found, path, started=started)
