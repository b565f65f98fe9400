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

    tractogram = File(exists=True, mandatory=True, desc="Streamlines, scanner (RAS+) millimetres.")
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
        import torch

        from difftract_bids.bids.nodes import read_nodes
        from difftract_bids.bids.sidecars import relmat_metadata
        from difftract_bids.core import assign_ends, connectome
        from difftract_bids.io.images import load_volume
        from difftract_bids.io.matrices import write_matrix, write_table
        from difftract_bids.io.tractograms import read_tractogram

        radius_mm = settings_of(self.inputs, ConnectomeConfig).assignment_radius_mm
        nodes = read_nodes(Path(self.inputs.table))
        labels, vox2ras = load_volume(self.inputs.parcellation, ndim=3, dtype=np.int32)
        streamlines = read_tractogram(self.inputs.tractogram)
        index = torch.tensor(nodes.index)
        with limited_threads(self.inputs.num_threads):
            ends = assign_ends(
                torch.from_numpy(streamlines.ends()).double(),
                torch.from_numpy(labels),
                torch.from_numpy(vox2ras),
                radius_mm,
            )
            count = connectome(ends, index).numpy()
            length = connectome(ends, index, torch.from_numpy(streamlines.lengths_mm())).numpy()
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
        self._results["notes"] = _notes(int((ends > 0).all(dim=1).sum()), len(ends))
        return runtime


def _notes(assigned: int, total: int) -> list[str]:
    if not total:
        return ["The tractogram is empty, and so is the connectome."]
    if assigned < total / 10:
        return [f"Only {assigned:,} of {total:,} streamlines have both ends near a parcel."]
    return []
