"""Figures that a browser draws: streamlines in space, and a matrix that tells values."""

from __future__ import annotations

from nipype.interfaces.base import BaseInterfaceInputSpec, File, isdefined, traits

from difftract_bids.interfaces.reportlets.base import Reportlet, load_for_figure

#: Measure -> title, unit, what its numbers are multiplied by, and whether colours are logarithmic.
_MEASURES = {
    "sift2": ("SIFT2 weight", "", 1.0, True),
    "meanlength": ("Mean length", "mm", 1.0, False),
    "meanfa": ("Mean FA", "", 1.0, False),
    "meanmd": ("Mean MD", "10⁻³ mm²/s", 1000.0, False),
}


class PlotView3DInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotView3D`."""

    preview = File(exists=True, mandatory=True, desc="Some streamlines, scanner millimetres.")
    tractogram_metadata = traits.Dict(desc="Sidecar of the tractogram, with counts.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, on any grid.")
    background = File(exists=True, mandatory=True, desc="Image that the slices show, any grid.")
    background_name = traits.Str("T1w", usedefault=True, desc="What it is, in words.")


class PlotView3D(Reportlet):
    """Write a view of the streamlines that a browser turns, cuts open and filters.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.interactive import PlotView3D
    >>> plot = PlotView3D(preview="preview.trx", mask="mask.nii.gz", background="t1w_dwi.nii.gz")
    >>> plot.run().outputs.out_report
    '/.../report.html'
    """

    input_spec = PlotView3DInputSpec
    _extension = "html"

    def _draw(self, path):
        from difftract_bids.io.tractograms import read_tractogram
        from difftract_bids.reports.streamlines.view3d import write_view3d

        points_mm, offsets = read_tractogram(self.inputs.preview)
        mask = load_for_figure(self.inputs.mask)
        background = load_for_figure(self.inputs.background)
        sidecar = self.inputs.tractogram_metadata
        return write_view3d(
            points_mm,
            offsets,
            background.data,
            mask.data > 0,
            background.vox2ras,
            path,
            mask_vox2ras=mask.vox2ras,
            n_total=sidecar["Counts"]["Streamlines"] if isdefined(sidecar) else None,
            background_name=self.inputs.background_name,
        )


class PlotMatrixViewInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotMatrixView`."""

    streamlines = File(exists=True, mandatory=True, desc="Dense matrix of counts (TSV).")
    sift2 = File(exists=True, desc="Matrix of SIFT2 weights.")
    meanlength = File(exists=True, desc="Matrix of mean lengths, mm.")
    meanfa = File(exists=True, desc="Matrix of mean fractional anisotropy.")
    meanmd = File(exists=True, desc="Matrix of mean diffusivity, mm²/s.")
    atlas = traits.Str("", usedefault=True, desc="Name of the atlas.")
    unit = traits.Str("streamlines", usedefault=True, desc="What is counted, in words.")


class PlotMatrixView(Reportlet):
    """Write a connectome that tells, in a browser, the values of edges and partners of nodes.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.interactive import PlotMatrixView
    >>> plot = PlotMatrixView(streamlines="count.dense.tsv", meanfa="meanfa.dense.tsv")
    >>> plot.run().outputs.out_report
    '/.../report.html'
    """

    input_spec = PlotMatrixViewInputSpec
    _extension = "html"

    def _draw(self, path):
        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.reports.connectome.matrix_view import EdgeMeasure, write_matrix_view

        counts, names = read_matrix(self.inputs.streamlines)
        measures = {}
        for key, (title, unit, factor, logarithmic) in _MEASURES.items():
            if isdefined(getattr(self.inputs, key)):
                matrix, _ = read_matrix(getattr(self.inputs, key))
                measures[key] = EdgeMeasure(title, factor * matrix, unit, logarithmic)
        return write_matrix_view(
            counts,
            names,
            path,
            measures=measures,
            atlas=self.inputs.atlas,
            unit=self.inputs.unit,
        )
