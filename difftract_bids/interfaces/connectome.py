"""Building connectome matrices from streamlines and a parcellation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from difftract_bids.config import MEASURES, ConnectomeConfig
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

_Settings: Any = settings_spec(ConnectomeConfig)
#: Nodes that a note names; of more, it tells the number.
_NAMED = 10


class BuildConnectomeInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`BuildConnectome`."""

    summary = File(exists=True, desc="Ends (RAS+ mm), length and images of each streamline.")
    tractogram = File(
        exists=True,
        desc="TRX, TCK or TRK file of the streamlines: instead of the summary, or besides for "
        "assignments along the way.",
    )
    images = InputMultiObject(
        File(exists=True), desc="Images to average along streamlines, if the summary lacks them."
    )
    image_names = traits.List(traits.Str, desc="Their names: fa makes the measure meanfa.")
    sift2_weights = File(exists=True, desc="Weight of each streamline, for the measure sift2.")
    parcellation = File(
        exists=True, mandatory=True, desc="Label image on any grid in the same space."
    )
    table = File(exists=True, mandatory=True, desc="Node table (TSV) with index and name.")


def _matrix_traits() -> dict[str, Any]:
    members: dict[str, Any] = {"__doc__": "A file and the content of its sidecar, a measure each."}
    for measure in MEASURES:
        members[measure] = File(desc=f"Matrix of the measure {measure}, dense TSV.")
        members[f"{measure}_metadata"] = traits.Dict(desc="Content of its sidecar.")
    return members


_Matrices: Any = type("_Matrices", (TraitedSpec,), _matrix_traits())


class BuildConnectomeOutputSpec(_Matrices):
    """Outputs of :class:`BuildConnectome`: files and sidecars of the measures asked for."""

    matrices = traits.Dict(desc="Files of all matrices by measure, also of images of any name.")
    sidecars = traits.Dict(desc="Content of their sidecars by measure.")
    streamlines = File(desc="Streamlines between nodes, whatever their weights; dense TSV.")
    assigned = traits.Int(desc="Streamlines that connect two nodes, or one with itself.")
    nodeindices = File(desc="Nodes of the rows: volume, centroid (RAS+ mm) and streamlines.")
    assignments = File(desc="Nodes of each streamline, TSV; if asked for.")
    assignments_metadata = traits.Dict(desc="Content of its sidecar.")
    hdf5 = File(desc="All matrices and the node table in one file; if asked for.")
    notes = traits.List(traits.Str, desc="What a user should know about the matrices.")


class BuildConnectome(SimpleInterface):
    r"""Assign streamlines to parcels and sum them up, every node of the table kept.

    Streamlines are assigned in millimetres, so that the parcellation may be on any grid.

    Examples
    --------
    >>> import pandas
    >>> from difftract_bids.interfaces.connectome import BuildConnectome
    >>> build = BuildConnectome(
    ...     tractogram="tractogram.trx",
    ...     parcellation="labels.nii.gz",
    ...     table="labels.tsv",
    ...     connectome_measures=["count", "meanlength"],
    ... )
    >>> built = build.run().outputs
    >>> count = pandas.read_csv(built.count, sep="\t")
    >>> count.shape
    (39, 39)
    >>> list(count.columns[:2])
    ['LH-FrontalPole', 'LH-SuperiorFrontal']
    """

    input_spec, output_spec = BuildConnectomeInputSpec, BuildConnectomeOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.bids.nodes import check_image, read_nodes

        config = settings_of(self.inputs, ConnectomeConfig)
        table, image = Path(self.inputs.table), Path(self.inputs.parcellation)
        nodes = read_nodes(table)
        parcellation = check_image(image, nodes)
        folder = Path(runtime.cwd)
        with limited_threads(self.inputs.num_threads):
            built, notes = self._build(config, nodes, parcellation, folder)
            columns, empty = _node_columns(nodes, parcellation, built.streamlines)
        self._save(config, nodes, built, columns, folder)
        self._results["notes"] = _notes(built, empty) + notes
        return runtime

    def _build(self, config, nodes, parcellation, folder):
        from difftract_bids.interfaces.tracking import samplers_of
        from difftract_bids.io.connectomes import build_connectomes
        from difftract_bids.io.streamline_batches import StreamlineFiles

        summary, tractogram = (
            Path(given) if isdefined(given) else None
            for given in (self.inputs.summary, self.inputs.tractogram)
        )
        # A thinned tractogram has few vertices: what is looked up in voxels needs one in each.
        step_mm = 0.5 * float(parcellation.voxel_sizes_mm.min())
        files = StreamlineFiles(summary, tractogram, max_step_mm=step_mm)
        samplers = samplers_of(self.inputs)
        config, notes = _possible(config, {*samplers, *files.sampled})
        assignments = None
        if config.streamline_assignments:
            assignments = folder / "assignments.tsv"
            self._results["assignments"] = str(assignments)
        built = build_connectomes(
            files,
            parcellation,
            list(nodes.index),
            config,
            samplers=samplers,
            weights=_weights(config.streamline_weights, files.n_streamlines),
            sift2_weights=_weights(self.inputs.sift2_weights, files.n_streamlines),
            assignments=assignments,
        )
        return built, notes

    def _save(self, config, nodes, built, columns, folder):
        from difftract_bids.bids.sidecars import assignments_metadata, relmat_metadata
        from difftract_bids.io.matrices import write_matrix, write_table
        from difftract_bids.io.matrix_hdf5 import write_hdf5

        names = list(nodes.name)
        files, sidecars = {}, {}
        for measure, matrix in built.matrices.items():
            files[measure] = str(write_matrix(matrix, names, folder / f"{measure}.dense.tsv"))
            sidecars[measure] = relmat_metadata(measure, config, n_nodes=len(nodes))
        if "count" in sidecars:
            sidecars["count"]["StreamlinesAssigned"] = built.assigned
        for measure in set(files) & set(MEASURES):
            self._results[measure] = files[measure]
            self._results[f"{measure}_metadata"] = sidecars[measure]
        counts = files.get("count")
        changed = config.zero_diagonal or config.upper_triangle
        if counts is None or changed or config.streamline_weights is not None:
            path = write_matrix(built.streamlines, names, folder / "streamlines.dense.tsv")
            counts = str(path)
        self._results |= {
            "matrices": files,
            "sidecars": sidecars,
            "streamlines": counts,
            "assigned": built.assigned,
            "nodeindices": str(write_table(columns, folder / "nodeindices.tsv")),
            "assignments_metadata": assignments_metadata(config),
        }
        if config.connectome_hdf5:
            path = write_hdf5(built.matrices, sidecars, columns, folder / "connectome.h5")
            self._results["hdf5"] = str(path)


def _possible(config: ConnectomeConfig, images: set[str]) -> tuple[ConnectomeConfig, list[str]]:
    """Leave out means of images that are not there, unless somebody asked for them."""
    measures = config.connectome_measures
    lacking = [f"mean{name}" for name in config.sampled if name not in images]
    if not lacking or measures != ConnectomeConfig().connectome_measures:
        return config, []
    note = f"Without an image of them, there is no {' and no '.join(lacking)}."
    kept = tuple(measure for measure in measures if measure not in lacking)
    return replace(config, connectome_measures=kept), [note]


def _weights(path: Any, n_streamlines: int) -> Any:
    if not isdefined(path) or path is None:
        return None
    from difftract_bids.io.weights import read_weights

    return read_weights(path, n_streamlines)


def _node_columns(nodes, parcellation, streamlines):
    """Describe the nodes of the rows.

    Returns
    -------
    tuple
        The columns of the table, and the names of nodes without a voxel.
    """
    import numpy as np
    import torch

    from difftract_bids.core.connectome.nodes import node_centroids_mm, node_volumes_mm3

    where = (
        torch.from_numpy(parcellation.data),
        torch.from_numpy(parcellation.vox2ras),
        torch.tensor(nodes.index),
    )
    volumes_mm3 = node_volumes_mm3(*where).tolist()
    centroids_mm = node_centroids_mm(*where).tolist()
    columns = {
        "index": list(nodes.index),
        "name": list(nodes.name),
        "hemisphere": [side or "n/a" for side in nodes.hemisphere],
        "volume_mm3": [round(volume, 3) for volume in volumes_mm3],
    }
    for axis, name in enumerate(("x_mm", "y_mm", "z_mm")):
        places = [centroid[axis] for centroid in centroids_mm]
        columns[name] = ["n/a" if np.isnan(place) else round(place, 3) for place in places]
    # A streamline from a node to itself counts once in the node's total.
    columns["streamlines"] = streamlines.sum(axis=1).astype(int).tolist()
    empty = [name for name, volume in zip(nodes.name, volumes_mm3, strict=True) if not volume]
    return columns, empty


def _notes(built: Any, empty: list[str]) -> list[str]:
    notes = []
    if empty:
        more = f", and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
        notes.append(
            f"{len(empty)} node(s) of the atlas have no voxel in the brain of this run, and empty "
            f"rows in the matrices: {', '.join(empty[:_NAMED])}{more}."
        )
    if not built.total:
        return [*notes, "The tractogram is empty, and so is the connectome."]
    if built.assigned < built.total / 10:
        notes.append(
            f"Only {built.assigned:,} of {built.total:,} streamlines have both ends near a parcel."
        )
    return notes


class MergeConnectomesInputSpec(TraitedSpec):
    """Inputs of :class:`MergeConnectomes`."""

    atlases = traits.List(traits.Str, mandatory=True, desc="Names of the atlases.")
    files = traits.List(
        File(exists=True), mandatory=True, desc="HDF5 file of each, in the same order."
    )


class MergeConnectomesOutputSpec(TraitedSpec):
    """Outputs of :class:`MergeConnectomes`."""

    hdf5 = File(desc="One file: a group for each atlas, a dataset for each measure.")


class MergeConnectomes(SimpleInterface):
    """Put the matrices of all atlases into one HDF5 file.

    Examples
    --------
    >>> import h5py
    >>> from difftract_bids.interfaces.connectome import MergeConnectomes
    >>> merge = MergeConnectomes(atlases=["Phantom"], files=["connectome.h5"])
    >>> sorted(h5py.File(merge.run().outputs.hdf5)["Phantom"])
    ['count', 'meanfa', 'meanlength', 'nodes']
    """

    input_spec, output_spec = MergeConnectomesInputSpec, MergeConnectomesOutputSpec

    def _run_interface(self, runtime):
        from difftract_bids.io.matrix_hdf5 import merge_hdf5

        files = dict(zip(self.inputs.atlases, self.inputs.files, strict=True))
        self._results["hdf5"] = str(merge_hdf5(files, Path(runtime.cwd) / "connectomes.h5"))
        return runtime
