"""The group level: what participants have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Directory,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from difftract_bids.config import GroupConfig
from difftract_bids.interfaces.settings import settings_spec

_Outliers: Any = settings_spec(GroupConfig, without=("consistency_threshold",))


class SelectionSpec(BaseInterfaceInputSpec):
    """Whose derivatives are used."""

    derivatives_dir = Directory(
        exists=True, mandatory=True, desc="Output folder of the participant level."
    )
    participants = traits.List(traits.Str, desc="Labels of participants; all if not given.")
    sessions = traits.List(traits.Str, desc="Labels of sessions; all if not given.")


class AverageResponsesInputSpec(SelectionSpec):
    """Inputs of :class:`AverageResponses`."""

    must_fit = traits.Bool(
        default_value=True,
        usedefault=True,
        desc="Whether responses that cannot be averaged are an error, rather than a note.",
    )


class AverageResponsesOutputSpec(TraitedSpec):
    """Outputs of :class:`AverageResponses`."""

    responses = traits.List(
        File(), desc="Average of each model and tissue, MRtrix's format; none without responses."
    )
    sidecars = traits.List(File(), desc="Their sidecars.")
    notes = traits.List(traits.Str, desc="Why there are none, though there are responses.")


class AverageResponses(SimpleInterface):
    """Average the response functions of participants, by model and tissue.

    Examples
    --------
    >>> import shutil
    >>> from pathlib import Path
    >>> from difftract_bids.interfaces.group import AverageResponses
    >>> for label in ("01", "02"):
    ...     folder = Path(f"out/sub-{label}/dwi")
    ...     folder.mkdir(parents=True)
    ...     name = f"sub-{label}_model-csd_label-WM_response.txt"
    ...     _ = shutil.copy("response.txt", folder / name)
    >>> AverageResponses(derivatives_dir="out").run().outputs.responses
    ['/.../model-csd_label-WM_response.txt']
    """

    input_spec, output_spec = AverageResponsesInputSpec, AverageResponsesOutputSpec
    _always_run = True  # what is in the folder is no part of the inputs' hash

    def _run_interface(self, runtime):
        from difftract_bids.group.responses import average_group_responses, averages_and_note

        given, note = _from(self.inputs, Path(runtime.cwd)), ""
        if self.inputs.must_fit:
            done = average_group_responses(*given)
        else:
            done, note = averages_and_note(*given)
        self._results["notes"] = [note] if note else []
        self._results["responses"] = [str(path) for path in done]
        self._results["sidecars"] = [str(path.with_suffix(".json")) for path in done]
        return runtime


class SummariseGroupOutputSpec(TraitedSpec):
    """Outputs of :class:`SummariseGroup`."""

    matrices = traits.List(
        File(), desc="Mean, standard deviation, variation and consistency: a matrix each, TSV."
    )
    sidecars = traits.List(File(), desc="Their sidecars, beside them.")
    edges = File(desc="Table of all edges of all runs, Parquet.")
    edges_dictionary = File(desc="Its data dictionary, JSON.")
    runs = File(desc="Quality measures of all runs, not yet compared, TSV.")
    notes = traits.List(traits.Str, desc="What a user should know about the group.")


class SummariseGroup(SimpleInterface):
    """Go through all participants once: statistics of edges, the table of them, and quality.

    Examples
    --------
    >>> import shutil
    >>> from pathlib import Path
    >>> for label in ("01", "02"):
    ...     folder = Path(f"out/sub-{label}/dwi")
    ...     folder.mkdir(parents=True)
    ...     name = f"sub-{label}_atlas-Phantom_meas-count_relmat.dense.tsv"
    ...     _ = shutil.copy("count.dense.tsv", folder / name)
    >>> from difftract_bids.interfaces.group import SummariseGroup
    >>> summary = SummariseGroup(derivatives_dir="out", participants=["01"]).run().outputs
    >>> len(summary.matrices)
    4
    >>> summary.edges, summary.runs
    ('/.../edges.parquet', '/.../runs.tsv')
    """

    input_spec, output_spec = SelectionSpec, SummariseGroupOutputSpec
    _always_run = True  # what is in the folder is no part of the inputs' hash

    def _run_interface(self, runtime):
        from difftract_bids.group.summarise import summarise

        done = summarise(*_from(self.inputs, Path(runtime.cwd)))
        self._results |= {
            "matrices": [str(path) for path in done.matrices],
            "sidecars": _sidecars(done.matrices),
            "edges": str(done.edges),
            "edges_dictionary": str(done.edges_dictionary),
            "runs": str(done.runs),
            "notes": done.notes,
        }
        return runtime


class AssessQualityInputSpec(_Outliers):
    """Inputs of :class:`AssessQuality`."""

    runs = File(exists=True, mandatory=True, desc="Quality measures of all runs, TSV.")
    edges = File(exists=True, mandatory=True, desc="Table of all edges of all runs, Parquet.")


class AssessQualityOutputSpec(TraitedSpec):
    """Outputs of :class:`AssessQuality`."""

    quality = File(desc="The table, with similarity and what stands apart, TSV.")
    dictionary = File(desc="Its data dictionary, with medians and limits, JSON.")


class AssessQuality(SimpleInterface):
    """Compare runs with each other, and flag those that stand apart.

    Examples
    --------
    >>> import shutil
    >>> from pathlib import Path
    >>> for label in ("01", "02"):
    ...     folder = Path(f"out/sub-{label}/dwi")
    ...     folder.mkdir(parents=True)
    ...     name = f"sub-{label}_atlas-Phantom_meas-count_relmat.dense.tsv"
    ...     _ = shutil.copy("count.dense.tsv", folder / name)
    >>> from difftract_bids.interfaces.group import AssessQuality, SummariseGroup
    >>> summary = SummariseGroup(derivatives_dir="out").run().outputs
    >>> assess = AssessQuality(runs=summary.runs, edges=summary.edges, outlier_threshold=5.0)
    >>> assess.run().outputs.quality
    '/.../quality.tsv'
    """

    input_spec, output_spec = AssessQualityInputSpec, AssessQualityOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.group.quality_table import assess_quality

        table, dictionary = assess_quality(
            Path(self.inputs.runs),
            Path(self.inputs.edges),
            self.inputs.outlier_threshold,
            Path(runtime.cwd),
        )
        self._results |= {"quality": str(table), "dictionary": str(dictionary)}
        return runtime


class CompareRunsInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`CompareRuns`."""

    edges = File(exists=True, mandatory=True, desc="Table of all edges of all runs, Parquet.")


class CompareRunsOutputSpec(TraitedSpec):
    """Outputs of :class:`CompareRuns`."""

    similarities = traits.List(
        File(), desc="Correlation of each run with each other, a table an atlas, TSV."
    )
    sidecars = traits.List(File(), desc="Their sidecars, beside them.")
    notes = traits.List(traits.Str, desc="What was left out, since there are too many runs.")


class CompareRuns(SimpleInterface):
    """Correlate the connectome of each run with that of each other.

    Examples
    --------
    >>> import shutil
    >>> from pathlib import Path
    >>> for label in ("01", "02"):
    ...     folder = Path(f"out/sub-{label}/dwi")
    ...     folder.mkdir(parents=True)
    ...     name = f"sub-{label}_atlas-Phantom_meas-count_relmat.dense.tsv"
    ...     _ = shutil.copy("count.dense.tsv", folder / name)
    >>> from difftract_bids.interfaces.group import CompareRuns, SummariseGroup
    >>> summary = SummariseGroup(derivatives_dir="out").run().outputs
    >>> CompareRuns(edges=summary.edges).run().outputs.similarities
    ['/.../atlas-Phantom_meas-count_similarity.tsv']
    """

    input_spec, output_spec = CompareRunsInputSpec, CompareRunsOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.group.between_runs import compare_runs

        files, notes = compare_runs(Path(self.inputs.edges), Path(runtime.cwd))
        self._results |= {
            "similarities": [str(path) for path in files],
            "sidecars": [str(path.with_suffix(".json")) for path in files],
            "notes": notes,
        }
        return runtime


class ThresholdConnectomesInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`ThresholdConnectomes`."""

    matrices = traits.List(
        File(exists=True),
        mandatory=True,
        desc="Statistics of a group, their sidecars beside them.",
    )
    consistency_threshold = traits.Range(
        0.0, 1.0, mandatory=True, exclude_low=True, desc="Share of participants with an edge."
    )


class ThresholdConnectomesOutputSpec(TraitedSpec):
    """Outputs of :class:`ThresholdConnectomes`."""

    matrices = traits.List(File(), desc="Means without other edges, and which are kept.")
    sidecars = traits.List(File(), desc="Their sidecars, beside them.")


class ThresholdConnectomes(SimpleInterface):
    """Keep the edges that enough participants have.

    Examples
    --------
    >>> import shutil
    >>> from pathlib import Path
    >>> for label in ("01", "02"):
    ...     folder = Path(f"out/sub-{label}/dwi")
    ...     folder.mkdir(parents=True)
    ...     name = f"sub-{label}_atlas-Phantom_meas-count_relmat.dense.tsv"
    ...     _ = shutil.copy("count.dense.tsv", folder / name)
    >>> from difftract_bids.interfaces.group import SummariseGroup, ThresholdConnectomes
    >>> summary = SummariseGroup(derivatives_dir="out").run().outputs
    >>> keep = ThresholdConnectomes(matrices=summary.matrices, consistency_threshold=0.6)
    >>> for path in keep.run().outputs.matrices:
    ...     print(Path(path).name)
    atlas-Phantom_meas-count_stat-mask_desc-consistent_relmat.dense.tsv
    atlas-Phantom_meas-count_stat-mean_desc-consistent_relmat.dense.tsv
    """

    input_spec, output_spec = ThresholdConnectomesInputSpec, ThresholdConnectomesOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.group.statistics_files import threshold_by_consistency

        share = self.inputs.consistency_threshold
        given = [Path(path) for path in self.inputs.matrices]
        made = threshold_by_consistency(given, share, Path(runtime.cwd))
        self._results["matrices"] = [str(path) for path in made]
        self._results["sidecars"] = _sidecars(made)
        return runtime


class PlotGroupInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotGroup`."""

    matrices = traits.List(
        File(exists=True),
        mandatory=True,
        desc="Statistics of a group, their sidecars beside them.",
    )
    quality = File(exists=True, mandatory=True, desc="Table of quality measures, TSV.")
    dictionary = File(exists=True, mandatory=True, desc="Its data dictionary, JSON.")
    similarities = traits.List(
        File(exists=True), desc="Correlation of each run with each other, TSV, sidecars beside."
    )
    derivatives_dir = Directory(
        exists=True, mandatory=True, desc="Where reports of participants are, to be linked."
    )
    settings = traits.Str("", usedefault=True, desc="Settings to show, TOML.")
    command_line = traits.Str("", usedefault=True, desc="Command line to show.")
    selection = traits.Str(
        "", usedefault=True, desc="Participants and sessions that were asked for, to show."
    )
    notes = traits.List(traits.Str, desc="What a user should know.")


class PlotGroupOutputSpec(TraitedSpec):
    """Outputs of :class:`PlotGroup`."""

    page = File(desc="The report; it shows what is in group/figures beside it.")
    figures = traits.List(File(), desc="Its figures, SVG.")


class PlotGroup(SimpleInterface):
    """Draw and write the report of a group.

    Examples
    --------
    >>> import shutil
    >>> from pathlib import Path
    >>> for label in ("01", "02"):
    ...     folder = Path(f"out/sub-{label}/dwi")
    ...     folder.mkdir(parents=True)
    ...     name = f"sub-{label}_atlas-Phantom_meas-count_relmat.dense.tsv"
    ...     _ = shutil.copy("count.dense.tsv", folder / name)
    >>> from difftract_bids.interfaces.group import AssessQuality, PlotGroup, SummariseGroup
    >>> summary = SummariseGroup(derivatives_dir="out").run().outputs
    >>> assessed = AssessQuality(runs=summary.runs, edges=summary.edges).run().outputs
    >>> plot = PlotGroup(matrices=summary.matrices, derivatives_dir="out")
    >>> plot.inputs.quality, plot.inputs.dictionary = assessed.quality, assessed.dictionary
    >>> plot.run().outputs.page
    '/.../group.html'
    """

    input_spec, output_spec = PlotGroupInputSpec, PlotGroupOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids import __version__
        from difftract_bids.group.publish import PAGE
        from difftract_bids.reports.group.page import GroupAbout, write_group_page

        page = Path(runtime.cwd) / PAGE
        notes = self.inputs.notes if isdefined(self.inputs.notes) else []
        compared = self.inputs.similarities if isdefined(self.inputs.similarities) else []
        write_group_page(
            page,
            matrices=[Path(path) for path in self.inputs.matrices],
            quality=(Path(self.inputs.quality), Path(self.inputs.dictionary)),
            similarities=[Path(path) for path in compared],
            derivatives_dir=Path(self.inputs.derivatives_dir),
            about=GroupAbout(
                version=__version__,
                command_line=self.inputs.command_line,
                settings=self.inputs.settings,
                selection=self.inputs.selection,
                notes=notes,
            ),
        )
        figures = sorted((page.parent / "group" / "figures").glob("*.svg"))
        self._results |= {"page": str(page), "figures": [str(path) for path in figures]}
        return runtime


class SaveGroupInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`SaveGroup`."""

    derivatives_dir = Directory(exists=True, mandatory=True, desc="Where the group belongs.")
    files = traits.List(File(exists=True), mandatory=True, desc="What goes to group/.")
    figures = traits.List(File(exists=True), desc="What goes to group/figures/.")
    page = File(exists=True, desc="The report.")


class SaveGroupOutputSpec(TraitedSpec):
    """Outputs of :class:`SaveGroup`."""

    saved = traits.List(File(), desc="All files, where they belong.")


class SaveGroup(SimpleInterface):
    """Put a group where it belongs: each file whole, and all of one run.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.interfaces.group import SaveGroup
    >>> Path("out").mkdir()
    >>> SaveGroup(derivatives_dir="out", files=["count.dense.tsv"]).run().outputs.saved
    ['/.../out/group/count.dense.tsv']
    """

    input_spec, output_spec = SaveGroupInputSpec, SaveGroupOutputSpec
    _always_run = True

    def _run_interface(self, runtime):
        import shutil

        from difftract_bids.group.publish import GROUP, PAGE, publish

        scratch = Path(runtime.cwd) / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        figures = self.inputs.figures if isdefined(self.inputs.figures) else []
        pages = [self.inputs.page] if isdefined(self.inputs.page) else []
        for files, folder in (
            (self.inputs.files, scratch / GROUP),
            (figures, scratch / GROUP / "figures"),
            (pages, scratch),
        ):
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                target = folder / (PAGE if folder == scratch else Path(file).name)
                shutil.copyfile(file, target)
        saved = publish(scratch, Path(self.inputs.derivatives_dir).absolute())
        self._results["saved"] = [str(path) for path in saved]
        return runtime


def _from(inputs: Any, folder: Path) -> tuple[Path, Path, Any]:
    """Give what functions of a group begin with: whence, where to, and of whom."""
    from difftract_bids.group.files import Selection

    participants, sessions = (
        list(labels) if isdefined(labels) else None
        for labels in (inputs.participants, inputs.sessions)
    )
    return Path(inputs.derivatives_dir), folder, Selection.of(participants, sessions)


def _sidecars(matrices: list[Path]) -> list[str]:
    return [str(path.with_name(path.name.replace(".dense.tsv", ".json"))) for path in matrices]
