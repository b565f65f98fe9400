"""From derivatives of participants to what they have in common."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import GroupConfig
from difftract_bids.config.toml import write_tables
from difftract_bids.group.files import Selection
from difftract_bids.interfaces.group import (
    AssessQuality,
    AverageResponses,
    CompareRuns,
    PlotGroup,
    SaveGroup,
    SummariseGroup,
    ThresholdConnectomes,
)


def init_group_wf(
    derivatives_dir: Path,
    config: GroupConfig | None = None,
    *,
    participants: list[str] | None = None,
    sessions: list[str] | None = None,
    responses: bool = True,
    name: str = "group_wf",
) -> LiterateWorkflow:
    """Make statistics, tables and report of connectomes, and average responses.

    The command line calls the same functions without a graph; this is for those who put them into
    one of their own.

    Parameters
    ----------
    derivatives_dir
        Output folder of the participant level, with connectomes. ``group/`` and ``group.html``
        are written there.
    config
        Settings of this stage.
    participants, sessions
        Labels; all when ``None``.
    responses
        Whether response functions are averaged, if there are any.
    name
        Name of the workflow.

    Outputs
    -------
    saved
        All files that were written, where they belong.
    notes
        What a user should know about the group.

    Examples
    --------
    >>> import shutil
    >>> from pathlib import Path
    >>> for label in ("01", "02"):
    ...     folder = Path(f"out/sub-{label}/dwi")
    ...     folder.mkdir(parents=True)
    ...     name = f"sub-{label}_atlas-Phantom_meas-count_relmat.dense.tsv"
    ...     _ = shutil.copy("count.dense.tsv", folder / name)
    >>> from difftract_bids.config import GroupConfig
    >>> from difftract_bids.workflows.group import init_group_wf
    >>> workflow = init_group_wf(Path("out").absolute(), GroupConfig(consistency_threshold=0.6))
    >>> workflow.base_dir = Path("work").absolute()
    >>> _ = workflow.run()
    >>> Path("out/group.html").exists(), len(list(Path("out/group").glob("*.dense.tsv")))
    (True, 6)
    """
    config = config or GroupConfig()
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Group\n\nConnectomes were averaged over participants, of each the mean of sessions "
        "and runs. Counts include participants without an edge as zeros; lengths and "
        "microstructure are averaged over those that have it.\n\n"
    )
    given = {"derivatives_dir": str(derivatives_dir)}
    of_whom = {
        **given,
        **({"participants": participants} if participants else {}),
        **({"sessions": sessions} if sessions else {}),
    }
    summarise = pe.Node(SummariseGroup(**of_whom), name="summarise", n_procs=2, mem_gb=1.0)
    assess = pe.Node(
        AssessQuality(outlier_threshold=config.outlier_threshold), name="assess", mem_gb=0.5
    )
    compare = pe.Node(CompareRuns(), name="compare", mem_gb=0.5)
    shown = {
        "settings": write_tables(config),
        "selection": Selection.of(participants, sessions).in_words(),
    }
    plot = pe.Node(PlotGroup(**shown, **given), name="plot", mem_gb=0.5)
    matrices = pe.Node(niu.Merge(2), name="matrices")
    files = pe.Node(niu.Merge(9, no_flatten=False), name="files")
    told = pe.Node(niu.Merge(2), name="told")
    save = pe.Node(SaveGroup(**given), name="save")
    notes = pe.Node(niu.Merge(2), name="notes")
    outputs = pe.Node(niu.IdentityInterface(["saved", "notes"]), name="outputnode")
    workflow.connect([
        (summarise, assess, [("runs", "runs"), ("edges", "edges")]),
        (summarise, matrices, [("matrices", "in1")]),
        (summarise, compare, [("edges", "edges")]),
        (summarise, told, [("notes", "in1")]),
        (compare, told, [("notes", "in2")]),
        (told, plot, [("out", "notes")]),
        (compare, plot, [("similarities", "similarities")]),
        (compare, files, [("similarities", "in8"), ("sidecars", "in9")]),
        (matrices, plot, [("out", "matrices")]),
        (assess, plot, [("quality", "quality"), ("dictionary", "dictionary")]),
        (matrices, files, [("out", "in1")]),
        (summarise, files, [("sidecars", "in2"), ("edges", "in3"), ("edges_dictionary", "in4")]),
        (assess, files, [("quality", "in5"), ("dictionary", "in6")]),
        (files, save, [("out", "files")]),
        (plot, save, [("page", "page"), ("figures", "figures")]),
        (save, outputs, [("saved", "saved")]),
        (told, notes, [("out", "in1")]),
        (notes, outputs, [("out", "notes")]),
    ])  # fmt: skip
    more = pe.Node(niu.Merge(3), name="more")
    workflow.connect([(more, files, [("out", "in7")])])
    if config.consistency_threshold is not None:
        threshold = pe.Node(
            ThresholdConnectomes(consistency_threshold=config.consistency_threshold),
            name="threshold",
        )
        workflow.connect([
            (summarise, threshold, [("matrices", "matrices")]),
            (threshold, matrices, [("matrices", "in2")]),
            (threshold, more, [("sidecars", "in1")]),
        ])  # fmt: skip
    if responses:
        average = pe.Node(AverageResponses(must_fit=False, **of_whom), name="average", mem_gb=1.0)
        workflow.connect([
            (average, more, [("responses", "in2"), ("sidecars", "in3")]),
            (average, notes, [("notes", "in2")]),
        ])  # fmt: skip
    return workflow
