"""Figures of the connectome: parcellation and matrices."""

from __future__ import annotations

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    isdefined,
)

from difftract_bids.interfaces.reportlets.base import (
    OnReferenceInputSpec,
    Reportlet,
    load_for_figure,
)


class PlotParcellationInputSpec(OnReferenceInputSpec):
    """Inputs of :class:`PlotParcellation`."""

    parcellation = File(exists=True, mandatory=True, desc="Label image on the same grid.")


class PlotParcellation(Reportlet):
    """Draw the outlines of the parcels over the reference image.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.connectome import PlotParcellation
    >>> plot = PlotParcellation(
    ...     dwiref="dwiref.nii.gz", mask="mask.nii.gz", parcellation="labels.nii.gz"
    ... )
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotParcellationInputSpec

    def _draw(self, path):
        import numpy as np

        from difftract_bids.io.images import load_volume
        from difftract_bids.reports.images.outlines import plot_parcellation

        b0, vox2ras = load_for_figure(self.inputs.dwiref)
        labels = load_volume(self.inputs.parcellation, ndim=3, dtype=np.int32).data
        return plot_parcellation(
            b0, labels, load_for_figure(self.inputs.mask).data > 0, vox2ras, path
        )


class PlotConnectomeInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotConnectome`."""

    matrix = File(exists=True, mandatory=True, desc="Dense matrix (TSV) with node names.")


class PlotConnectome(Reportlet):
    """Draw a connectome matrix.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.connectome import PlotConnectome
    >>> PlotConnectome(matrix="count.dense.tsv").run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotConnectomeInputSpec

    def _draw(self, path):
        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.reports.connectome.matrix import plot_connectome

        matrix, names = read_matrix(self.inputs.matrix)
        return plot_connectome(matrix, names, path)


class PlotEdgesInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotEdges`."""

    sift2 = File(exists=True, desc="Matrix of SIFT2 weights (TSV).")
    meanfa = File(exists=True, desc="Matrix of mean fractional anisotropy.")
    meanlength = File(exists=True, desc="Matrix of mean lengths, mm.")


class PlotEdges(Reportlet):
    """Draw the matrices beside that of counts, small.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.connectome import PlotEdges
    >>> plot = PlotEdges(meanfa="meanfa.dense.tsv", meanlength="meanlength.dense.tsv")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotEdgesInputSpec

    def _draw(self, path):
        import numpy as np

        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.reports.connectome.edges import plot_edges

        given = {
            measure: getattr(self.inputs, measure)
            for measure in ("sift2", "meanfa", "meanlength")
            if isdefined(getattr(self.inputs, measure))
        }
        read = {measure: read_matrix(file) for measure, file in given.items()}
        names = next(iter(read.values()))[1]
        # Both halves, also of those that were written as a triangle.
        matrices = {measure: np.maximum(half, half.T) for measure, (half, _) in read.items()}
        return plot_edges(matrices, names, path)


class PlotNodesInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotNodes`."""

    matrix = File(exists=True, mandatory=True, desc="Dense matrix of counts (TSV), symmetric.")
    meanlength = File(exists=True, desc="Matrix of mean lengths, mm.")
    nodeindices = File(exists=True, desc="Nodes with their centroids, RAS+ millimetres (TSV).")
    mask = File(exists=True, desc="Brain mask, which is outlined around the nodes.")


class PlotNodes(Reportlet):
    """Draw strength and degree of the nodes, the distribution of edges, and where they are.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.connectome import PlotNodes
    >>> plot = PlotNodes(
    ...     matrix="count.dense.tsv",
    ...     meanlength="meanlength.dense.tsv",
    ...     nodeindices="nodeindices.tsv",
    ...     mask="mask.nii.gz",
    ... )
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotNodesInputSpec

    def _draw(self, path):
        from difftract_bids.io.centroids import read_centroids
        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.reports.connectome.nodes import plot_nodes

        half, names = read_matrix(self.inputs.matrix)
        lengths, where, brain = None, None, {}
        if isdefined(self.inputs.meanlength):
            lengths, _ = read_matrix(self.inputs.meanlength)
        if isdefined(self.inputs.nodeindices):
            where = read_centroids(self.inputs.nodeindices, names)
        if isdefined(self.inputs.mask):
            mask, vox2ras = load_for_figure(self.inputs.mask)
            brain = {"mask": mask > 0, "vox2ras": vox2ras}
        counts, lengths = _both_halves(half), _both_halves(lengths)
        return plot_nodes(counts, names, lengths, path, centroids_mm=where, **brain)


def _both_halves(matrix):
    """Fill in the half of a matrix that was written as a triangle."""
    import numpy as np

    return None if matrix is None else np.fmax(matrix, matrix.T)
