"""From streamlines and a parcellation to connectome matrices."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePath

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import ConnectomeConfig
from difftract_bids.interfaces.connectome import BuildConnectome

_INPUTS = ["summary", "tractogram", "sift2_weights", "parcellation", "table"]
_OTHERS = ["streamlines", "assigned", "nodeindices", "notes"]


def connectome_outputs(config: ConnectomeConfig) -> list[str]:
    """Name what is made to be saved, with the sidecars that are known only at run time."""
    measures = config.connectome_measures
    names = [*measures, *(f"{measure}_metadata" for measure in measures), "nodeindices"]
    names += ["assignments", "assignments_metadata"] if config.streamline_assignments else []
    return names


def init_connectome_wf(
    config: ConnectomeConfig, *, n_nodes: int = 100, name: str = "connectome_wf"
) -> LiterateWorkflow:
    """Sum up the streamlines between parcels.

    Parameters
    ----------
    config
        Settings of this stage; paths in them are this run's own.
    n_nodes
        Rows of the matrices, for the memory that they take.
    name
        Name of the workflow.

    Inputs
    ------
    summary
        Ends (RAS+ millimetres), length and images of each streamline.
    tractogram
        The streamlines; only for assignments that need their way.
    sift2_weights
        Weight of each streamline; only for the measure ``sift2``.
    parcellation
        Label image on any grid in the same space.
    table
        Node table (TSV) with ``index`` and ``name``; every node keeps its row and column.

    Outputs
    -------
    count, meanlength, ...
        Dense symmetric matrices (TSV) of the measures asked for; ``..._metadata`` is the content
        of their sidecars.
    streamlines
        The matrix of streamline counts, whatever their weights.
    assigned
        How many streamlines connect nodes.
    nodeindices
        Node table of the matrices, with volume, centroid and streamlines of each node.
    assignments, hdf5
        Nodes of each streamline, and all matrices in one file; if they are asked for.
    notes
        What a user should know about the matrices.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.config import ConnectomeConfig
    >>> from difftract_bids.workflows.connectome import init_connectome_wf
    >>> workflow = init_connectome_wf(
    ...     ConnectomeConfig(connectome_measures=("count", "meanlength"))
    ... )
    >>> workflow.base_dir = "work"
    >>> workflow.config["execution"]["remove_unnecessary_outputs"] = "false"
    >>> workflow.inputs.inputnode.summary = Path("summary.parquet").absolute()
    >>> workflow.inputs.inputnode.parcellation = Path("labels.nii.gz").absolute()
    >>> workflow.inputs.inputnode.table = Path("labels.tsv").absolute()
    >>> graph = workflow.run()
    >>> sorted(path.name for path in Path("work/connectome_wf/build").glob("*.dense.tsv"))
    ['count.dense.tsv', 'meanlength.dense.tsv']
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = connectome_methods(config)
    saved = connectome_outputs(config) + (["hdf5"] if config.connectome_hdf5 else [])
    fields = list(dict.fromkeys([*saved, *_OTHERS]))
    inputs = pe.Node(niu.IdentityInterface(_INPUTS), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(fields), name="outputnode")
    settings = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    matrices_gb = 16e-9 * n_nodes**2 * (1 + len(config.connectome_measures))
    build = pe.Node(BuildConnectome(**settings), name="build", mem_gb=2.0 + matrices_gb)
    needed = ["summary", "parcellation", "table"]
    needed += ["tractogram"] if config.follows_paths else []
    needed += ["sift2_weights"] if "sift2" in config.connectome_measures else []
    workflow.connect([
        (inputs, build, [(name, name) for name in needed]),
        (build, outputs, [(name, name) for name in fields]),
    ])  # fmt: skip
    return workflow


def connectome_methods(config: ConnectomeConfig) -> str:
    """Write the methods paragraph of this stage.

    Parameters
    ----------
    config
        Settings; with the labels of runs not yet filled in, so that all runs share a text.
    """
    said = [_assignment(config), _edges(config)]
    if config.streamline_weights is not None:
        name = PurePath(config.streamline_weights).name
        said.append(f"Streamlines were weighted by what the file {name} gives for each.")
    if config.zero_diagonal:
        said.append("Streamlines from a parcel to itself were left out.")
    return f"### Connectome\n\n{' '.join(said)}\n\n"


def _assignment(config: ConnectomeConfig) -> str:
    """Say in words which parcels a streamline connects."""
    distance = config.assignment_distance_mm
    to_middle = "of the way to the middle of the streamline"
    inwards = to_middle if distance is None else f"of {distance:g} mm along the streamline"
    how = {
        "radial_search": "Each end of a streamline was assigned to the nearest labelled voxel "
        f"within {config.assignment_radius_mm:g} mm",
        "end_voxels": "Each end of a streamline was assigned to the parcel of its voxel",
        "reverse_search": "Each end of a streamline was assigned to the last parcel on the way "
        f"to it, {inwards}",
        "forward_search": "Each end of a streamline was assigned to the first parcel straight "
        f"ahead, within {distance or 3:g} mm",
        "all_voxels": "A streamline was assigned to every parcel that it visits, and connects "
        "every two of them",
    }[config.assignment]
    left = (
        "Streamlines that visit fewer than two parcels"
        if config.assignment == "all_voxels"
        else "Streamlines with an unassigned end"
    )
    return f"{how} [@smith2015]. {left} count for none."


def _edges(config: ConnectomeConfig) -> str:
    """Say in words what the matrices hold."""
    statistic = config.streamline_statistic
    along = "" if statistic == "mean" else f"the {statistic} along each of "
    texts = {
        "count": "the number of streamlines between two parcels",
        "meanlength": "their mean length",
        "meanfa": f"the mean over {along}them of fractional anisotropy",
        "meanmd": f"the mean over {along}them of mean diffusivity",
        "invlength": "the sum of their inverse lengths",
        "invnodevol": "their number over the mean volume of the two parcels",
        "density": "the sum of their inverse lengths over the mean surface of the two parcels "
        "[@hagmann2008]",
        "sift2": "the sum of their SIFT2 weights",
    }
    if config.streamline_weights is not None:
        texts["count"] = "the sum of weights of the streamlines between two parcels"
    named = [texts[measure] for measure in config.connectome_measures]
    if "count" not in config.connectome_measures:
        named[0] = f"{named[0]}, of the streamlines between two parcels"
    said = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"{'An edge is' if len(named) == 1 else 'Edges are'} {said}."
