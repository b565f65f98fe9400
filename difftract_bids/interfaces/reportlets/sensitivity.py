"""Figures of derivatives: where an edge is sensitive, and how uncertain edges are."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import BaseInterfaceInputSpec, File, traits

from difftract_bids.interfaces.reportlets.base import Reportlet


class PlotSensitivityInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotSensitivity`."""

    sensitivity = File(exists=True, mandatory=True, desc="One value a voxel.")
    metadata = traits.Dict(mandatory=True, desc="Its sidecar.")
    dwiref = File(exists=True, mandatory=True, desc="Reference image, same grid.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")
    parcellation = File(exists=True, mandatory=True, desc="Label image, same grid.")
    table = File(exists=True, mandatory=True, desc="Node table (TSV).")
    edge = traits.Str(mandatory=True, desc="A-B, the name of a node, or total.")


class PlotSensitivity(Reportlet):
    """Draw what in the image makes an edge.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.sensitivity import PlotSensitivity
    >>> plot = PlotSensitivity(
    ...     sensitivity="sensitivity.nii.gz",
    ...     metadata={"Units": "streamlines"},
    ...     dwiref="dwiref.nii.gz",
    ...     mask="mask.nii.gz",
    ...     parcellation="labels.nii.gz",
    ...     table="labels.tsv",
    ...     edge="total",
    ... )
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotSensitivityInputSpec

    def _draw(self, path):
        import numpy as np

        from difftract_bids.bids.edge_targets import find_target
        from difftract_bids.bids.nodes import read_nodes
        from difftract_bids.io.images import load_volume
        from difftract_bids.reports.connectome.matrix import short_name
        from difftract_bids.reports.connectome.sensitivity import plot_sensitivity

        nodes = read_nodes(Path(self.inputs.table))
        target = find_target(self.inputs.edge, nodes)
        ends = [] if target is None else [target.first, target.second]
        places = list(dict.fromkeys(place for place in ends if place is not None))
        named = {nodes.index[place]: nodes.name[place] for place in places}
        what = " to ".join(short_name(name) for name in named.values()) or "all edges"
        magnitude = load_volume(self.inputs.sensitivity, ndim=3)
        by_signal = self.inputs.metadata.get("Units") == "streamlines"
        return plot_sensitivity(
            magnitude.data,
            load_volume(self.inputs.dwiref, ndim=3).data,
            magnitude.vox2ras,
            load_volume(self.inputs.parcellation, ndim=3, dtype=np.int32).data,
            named,
            path,
            what=what,
            units="streamlines per 1% of b=0" if by_signal else "streamlines per fODF unit",
            mask=load_volume(self.inputs.mask, ndim=3).data > 0,
        )


class PlotEdgeErrorsInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotEdgeErrors`."""

    count = File(exists=True, mandatory=True, desc="Streamline counts (TSV).")
    sd = File(exists=True, mandatory=True, desc="Their standard deviations (TSV).")


class PlotEdgeErrors(Reportlet):
    """Draw the uncertainty of edges beside their counts.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.sensitivity import PlotEdgeErrors
    >>> plot = PlotEdgeErrors(count="count.dense.tsv", sd="sd.dense.tsv")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotEdgeErrorsInputSpec

    def _draw(self, path):
        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.reports.connectome.edge_errors import plot_edge_errors

        count, names = read_matrix(self.inputs.count)
        sd, _ = read_matrix(self.inputs.sd)
        return plot_edge_errors(count, sd, names, path)
