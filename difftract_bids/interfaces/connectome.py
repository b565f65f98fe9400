"""Building connectome matrices from streamlines and a parcellation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, traits

from difftract_bids.config import ConnectomeConfig
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(ConnectomeConfig)


class BuildConnectomeInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`BuildConnectome`."""

    summary = File(
        exists=True, mandatory=True, desc="Ends (RAS+ millimetres) and length of each streamline."
    )
    parcellation = File(exists=True, mandatory=True, desc="Label image in the same space.")
    table = File(exists=True, mandatory=True, desc="Node table (TSV) with index and name.")


class BuildConnectomeOutputSpec(TraitedSpec):
    """Outputs of :class:`BuildConnectome`."""

    count = File(desc="Number of streamlines between each pair of nodes, dense TSV.")
    count_metadata = traits.Dict(desc="Content of its sidecar.")
    meanlength = File(desc="Mean length (mm) of those streamlines, 0 where there is none.")
    meanlength_metadata = traits.Dict(desc="Content of its sidecar.")
    nodeindices = File(desc="Nodes of the matrices' rows, with volume and streamlines.")
    notes = traits.List(traits.Str, desc="What a user should know about the matrices.")


class BuildConnectome(SimpleInterface):
    """Assign streamline ends to parcels and count, every node of the table kept."""

    input_spec, output_spec = BuildConnectomeInputSpec, BuildConnectomeOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.bids.nodes import read_nodes
        from difftract_bids.bids.sidecars import relmat_metadata
        from difftract_bids.io.images import load_volume
        from difftract_bids.io.matrices import write_matrix, write_table

        radius_mm = settings_of(self.inputs, ConnectomeConfig).assignment_radius_mm
        nodes = read_nodes(Path(self.inputs.table))
        labels, vox2ras = load_volume(self.inputs.parcellation, ndim=3, dtype=np.int32)
        with limited_threads(self.inputs.num_threads):
            count, length, assigned, total = _sum_up(
                self.inputs.summary, labels, vox2ras, list(nodes.index), radius_mm
            )
        folder = Path(runtime.cwd)
        for measure, matrix in (("count", count), ("meanlength", length)):
            path = write_matrix(matrix, list(nodes.name), folder / f"{measure}.dense.tsv")
            self._results[measure] = str(path)
            self._results[f"{measure}_metadata"] = relmat_metadata(
                measure, n_nodes=len(nodes), radius_mm=radius_mm
            )
        voxels = np.bincount(labels[labels > 0].ravel(), minlength=max(nodes.index) + 1)
        voxel_mm3 = abs(np.linalg.det(vox2ras[:3, :3]))
        # A streamline from a node to itself counts once in the node's total.
        columns = {
            "index": list(nodes.index),
            "name": list(nodes.name),
            "hemisphere": [side or "n/a" for side in nodes.hemisphere],
            "volume_mm3": [round(voxels[label] * voxel_mm3, 3) for label in nodes.index],
            "streamlines": count.sum(axis=1).astype(int).tolist(),
        }
        self._results["nodeindices"] = str(write_table(columns, folder / "nodeindices.tsv"))
        self._results["notes"] = _notes(assigned, total)
        return runtime


def _sum_up(summary, labels, vox2ras, index, radius_mm):
    """Sum counts and lengths a batch of streamlines at a time, in float64.

    Returns
    -------
    tuple
        Counts, mean lengths (mm), and how many streamlines have both ends assigned, of how many.
    """
    import numpy as np
    import torch

    from difftract_bids.core import assign_ends, connectome
    from difftract_bids.io.summaries import iter_summary

    count, length = np.zeros((2, len(index), len(index)))
    assigned = total = 0
    places = torch.from_numpy(labels), torch.from_numpy(vox2ras), radius_mm
    for batch in iter_summary(summary):
        ends = assign_ends(torch.from_numpy(batch.ends_mm).double(), *places)
        nodes = torch.tensor(index)
        counted = connectome(ends, nodes).numpy()
        count += counted
        length += counted * connectome(ends, nodes, torch.tensor(batch.lengths_mm)).numpy()
        assigned += int((ends > 0).all(dim=1).sum())
        total += len(ends)
    return count, length / np.maximum(count, 1), assigned, total


def _notes(assigned: int, total: int) -> list[str]:
    if not total:
        return ["The tractogram is empty, and so is the connectome."]
    if assigned < total / 10:
        return [f"Only {assigned:,} of {total:,} streamlines have both ends near a parcel."]
    return []
