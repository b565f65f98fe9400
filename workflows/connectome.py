"""From streamlines and a parcellation to connectome matrices."""

from __future__ import annotations

from dataclasses import asdict

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.config import ConnectomeConfig
from difftract_bids.interfaces.connectome import BuildConnectome

_INPUTS = ["summary", "parcellation", "table"]
_OUTPUTS = ["count", "count_metadata", "meanlength", "meanlength_metadata", "nodeindices", "notes"]


def init_connectome_wf(
    config: ConnectomeConfig, *, name: str = "connectome_wf"
) -> LiterateWorkflow:
    """Count the streamlines between parcels.

    Parameters
    ----------
    config
        Settings of this stage.
    name
        Name of the workflow.

    Inputs
    ------
    summary
        Ends (RAS+ millimetres) and length of each streamline.
    parcellation
        Label image on any grid in the same space.
    table
        Node table (TSV) with ``index`` and ``name``; every node keeps its row and column.

    Outputs
    -------
    count, meanlength
        Dense symmetric matrices (TSV); ``..._metadata`` is the content of their sidecars.
    nodeindices
        Node table of the matrices, with the streamlines of each node.
    notes
        What a user should know about the matrices.
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Connectome\n\nEach end of a streamline was assigned to the nearest labelled voxel "
        f"within {config.assignment_radius_mm:g} mm [@smith2015]; an edge is the number of "
        "streamlines between two parcels. Streamlines with an unassigned end count for none.\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(_INPUTS), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(_OUTPUTS), name="outputnode")
    build = pe.Node(BuildConnectome(**asdict(config)), name="build", mem_gb=2.0)
    workflow.connect([
        (inputs, build, [(name, name) for name in _INPUTS]),
        (build, outputs, [(name, name) for name in _OUTPUTS]),
    ])  # fmt: skip
    return workflow
