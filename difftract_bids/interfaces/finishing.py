"""The end of a run and of a participant: what was promised is there, and is put on record."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)


class RecordFinishedInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`RecordFinished`."""

    output_dir = Directory(mandatory=True, desc="Derivatives folder.")
    outputs = traits.List(
        traits.Str, mandatory=True, desc="Files that must be there, relative to it."
    )
    record = traits.Str(mandatory=True, desc="File to write, relative to it.")
    content = traits.Dict(mandatory=True, desc="What is written, as JSON.")
    saved = InputMultiObject(traits.Any, desc="What has to be done before; only waited for.")


class RecordFinishedOutputSpec(TraitedSpec):
    """Outputs of :class:`RecordFinished`."""

    record = File(desc="The record.")


class RecordFinished(SimpleInterface):
    """Check that everything that a run promised is there, and put on record that it is finished.

    Raises
    ------
    DifftractError
        If something is missing.

    Examples
    --------
    >>> from difftract_bids.interfaces.finishing import RecordFinished
    >>> record = RecordFinished(
    ...     output_dir=".",
    ...     outputs=["fa.nii.gz", "md.nii.gz"],
    ...     record="logs/finished/sub-01.json",
    ...     content={"Run": "sub-01"},
    ... )
    >>> record.run().outputs.record
    'logs/finished/sub-01.json'
    """

    input_spec, output_spec = RecordFinishedInputSpec, RecordFinishedOutputSpec
    # The files lie outside the working folder: that nothing in there has changed says nothing.
    _always_run = True

    def _run_interface(self, runtime):
        from difftract_bids.bids.promises import missing_outputs
        from difftract_bids.errors import DifftractError
        from difftract_bids.io.atomic import write_json

        folder = Path(self.inputs.output_dir)
        missing = missing_outputs(folder, self.inputs.outputs)
        if missing:
            raise DifftractError(
                f"{len(missing)} promised output(s) are missing, first: {missing[0]}.",
                where=folder,
                remedy="Look for a full disk; the same command then continues.",
            )
        record = folder / self.inputs.record
        write_json(record, self.inputs.content)
        self._results["record"] = str(record)
        return runtime


class AssembleReportInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`AssembleReport`."""

    output_dir = Directory(exists=True, mandatory=True, desc="Derivatives folder.")
    participant = traits.Str(mandatory=True, desc="Label.")
    session = traits.Str(desc="Label of the one session that the report is of.")
    run_uuid = traits.Str(mandatory=True, desc="Identifier of the run of the app.")
    figures = traits.List(traits.Str, desc="Names of the figures to show; all if left out.")
    finished = InputMultiObject(traits.Any, desc="What has to be done before; only waited for.")


class AssembleReportOutputSpec(TraitedSpec):
    """Outputs of :class:`AssembleReport`."""

    out_report = File(desc="The page.")


class AssembleReport(SimpleInterface):
    """Put the figures of a participant together into one page.

    Examples
    --------
    >>> from difftract_bids.interfaces.finishing import AssembleReport
    >>> from difftract_bids.interfaces.outputs import DerivativesSink
    >>> from difftract_bids.interfaces.reportlets.images import PlotMask
    >>> plot = PlotMask(dwiref="dwiref.nii.gz", mask="mask.nii.gz")
    >>> saved = DerivativesSink(
    ...     base_directory="out",
    ...     source_file="bids/sub-01/dwi/sub-01_dwi.nii.gz",
    ...     in_file=plot.run().outputs.out_report,
    ...     datatype="figures",
    ...     desc="mask",
    ...     suffix="dwi",
    ... ).run()
    >>> report = AssembleReport(output_dir="out", participant="01", run_uuid="library")
    >>> report.run().outputs.out_report
    '/.../out/sub-01.html'
    """

    input_spec, output_spec = AssembleReportInputSpec, AssembleReportOutputSpec
    _always_run = True  # as above

    def _run_interface(self, runtime):
        from difftract_bids.reports.page.assembly import assemble_report

        page = assemble_report(
            Path(self.inputs.output_dir),
            self.inputs.participant,
            session=self.inputs.session if isdefined(self.inputs.session) else None,
            run_uuid=self.inputs.run_uuid,
            figures=self.inputs.figures if isdefined(self.inputs.figures) else None,
        )
        self._results["out_report"] = str(page)
        return runtime
