"""Figures and tables of the report, one interface each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
    isdefined,
    traits,
)

from difftract_bids.config import TrackingConfig


class ReportletOutputSpec(TraitedSpec):
    """What every reportlet gives."""

    out_report = File(desc="SVG figure or HTML snippet.")


class Reportlet(SimpleInterface):
    """Load, draw, and keep the path: a subclass says what to draw.

    Examples
    --------
    >>> from pathlib import Path
    >>> from nipype.interfaces.base import BaseInterfaceInputSpec, File
    >>> from difftract_bids.interfaces.reportlets import Reportlet
    >>> class ShowNodesInputSpec(BaseInterfaceInputSpec):
    ...     table = File(exists=True, mandatory=True, desc="Node table (TSV).")
    >>> class ShowNodes(Reportlet):
    ...     input_spec, _extension = ShowNodesInputSpec, "html"
    ...
    ...     def _draw(self, path):
    ...         path.write_text(f"<pre>{Path(self.inputs.table).read_text()}</pre>")
    ...         return path
    >>> ShowNodes(table="labels.tsv").run().outputs.out_report
    '/.../report.html'
    """

    output_spec = ReportletOutputSpec
    _extension = "svg"

    def _run_interface(self, runtime):
        path = Path(runtime.cwd) / f"report.{self._extension}"
        self._results["out_report"] = str(self._draw(path))
        return runtime

    def _draw(self, path):
        raise NotImplementedError


def load_for_figure(path: str, *, ndim: int = 3) -> Any:
    """Load an image."""
    from difftract_bids.io.images import load_volume

    return load_volume(path, ndim=ndim)


def image_and_gradients(inputs: Any) -> tuple[Any, Any]:
    """Open a diffusion image (its data stay on disk) and read its gradient table."""
    import nibabel as nib

    from difftract_bids.io.gradients import read_gradients

    image = nib.load(inputs.dwi)
    threshold = inputs.b0_threshold_s_mm2
    return image, read_gradients(
        inputs.bval, inputs.bvec, image.affine, b0_threshold_s_mm2=threshold
    )


class PlotGradientsInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotGradients`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image that the table belongs to.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")


class PlotGradients(Reportlet):
    """Draw shells and directions.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import PlotGradients
    >>> plot = PlotGradients(dwi="dwi.nii.gz", bval="dwi.bval", bvec="dwi.bvec")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotGradientsInputSpec

    def _draw(self, path):
        from difftract_bids.reports.gradients import plot_gradients

        return plot_gradients(image_and_gradients(self.inputs)[1], path)


class _OnReferenceInputSpec(BaseInterfaceInputSpec):
    dwiref = File(exists=True, mandatory=True, desc="Mean b=0 image.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")


class PlotMask(Reportlet):
    """Draw the brain mask over the reference image.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import PlotMask
    >>> PlotMask(dwiref="dwiref.nii.gz", mask="mask.nii.gz").run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = _OnReferenceInputSpec

    def _draw(self, path):
        from difftract_bids.reports.outlines import plot_mask

        b0, vox2ras = load_for_figure(self.inputs.dwiref)
        return plot_mask(b0, load_for_figure(self.inputs.mask).data > 0, vox2ras, path)


class PlotCoregistrationInputSpec(_OnReferenceInputSpec):
    """Inputs of :class:`PlotCoregistration`."""

    t1w = File(exists=True, mandatory=True, desc="T1w brought into the diffusion data's space.")


class PlotCoregistration(Reportlet):
    """Draw the edges of the T1w over the reference image.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import PlotCoregistration
    >>> plot = PlotCoregistration(dwiref="dwiref.nii.gz", mask="mask.nii.gz", t1w="t1w_dwi.nii.gz")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotCoregistrationInputSpec

    def _draw(self, path):
        from difftract_bids.reports.outlines import plot_registration

        b0, vox2ras = load_for_figure(self.inputs.dwiref)
        t1w, t1w_vox2ras = load_for_figure(self.inputs.t1w)
        mask = load_for_figure(self.inputs.mask).data > 0
        return plot_registration(b0, mask, vox2ras, t1w, t1w_vox2ras, path)


class PlotParcellationInputSpec(_OnReferenceInputSpec):
    """Inputs of :class:`PlotParcellation`."""

    parcellation = File(exists=True, mandatory=True, desc="Label image on the same grid.")


class PlotParcellation(Reportlet):
    """Draw the outlines of the parcels over the reference image.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import PlotParcellation
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
        from difftract_bids.reports.outlines import plot_parcellation

        b0, vox2ras = load_for_figure(self.inputs.dwiref)
        labels = load_volume(self.inputs.parcellation, ndim=3, dtype=np.int32).data
        return plot_parcellation(
            b0, labels, load_for_figure(self.inputs.mask).data > 0, vox2ras, path
        )


class PlotFAInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotFA`."""

    fa = File(exists=True, mandatory=True, desc="Fractional anisotropy.")
    v1 = File(exists=True, mandatory=True, desc="Principal eigenvector, scanner axes.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")


class PlotFA(Reportlet):
    """Draw fractional anisotropy coloured by direction.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import PlotFA
    >>> plot = PlotFA(fa="fa.nii.gz", v1="v1.nii.gz", mask="mask.nii.gz")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotFAInputSpec

    def _draw(self, path):
        from difftract_bids.reports.fa import plot_fa

        fa, vox2ras = load_for_figure(self.inputs.fa)
        v1 = load_for_figure(self.inputs.v1, ndim=4).data
        return plot_fa(fa, v1, load_for_figure(self.inputs.mask).data > 0, vox2ras, path)


class PlotFODFInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotFODF`."""

    fodf = File(exists=True, mandatory=True, desc="SH coefficients, MRtrix's basis.")
    fa = File(exists=True, mandatory=True, desc="Fractional anisotropy, the background.")
    mask = File(exists=True, mandatory=True, desc="Brain mask, same grid.")
    cutoff = traits.Float(
        TrackingConfig().resolve(1.0).cutoff, usedefault=True, desc="Peaks below it are left out."
    )


class PlotFODF(Reportlet):
    """Draw fODF peaks.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import PlotFODF
    >>> plot = PlotFODF(fodf="fodf.nii.gz", fa="fa.nii.gz", mask="mask.nii.gz", cutoff=0.2)
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotFODFInputSpec

    def _draw(self, path):
        from difftract_bids.reports.peaks import plot_fodf_peaks

        fodf, vox2ras = load_for_figure(self.inputs.fodf, ndim=4)
        fa = load_for_figure(self.inputs.fa).data
        mask = load_for_figure(self.inputs.mask).data > 0
        return plot_fodf_peaks(fodf, fa, mask, vox2ras, path, cutoff=self.inputs.cutoff)


class PlotTractogramInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotTractogram`."""

    preview = File(exists=True, mandatory=True, desc="Some streamlines, scanner millimetres.")
    tractogram_metadata = traits.Dict(desc="Sidecar of the tractogram, with counts.")
    mask = File(exists=True, mandatory=True, desc="Brain mask.")


class PlotTractogram(Reportlet):
    """Draw streamlines in three projections, coloured by direction.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import PlotTractogram
    >>> plot = PlotTractogram(preview="preview.trx", mask="mask.nii.gz")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotTractogramInputSpec

    def _draw(self, path):
        from difftract_bids.io.tractograms import read_tractogram
        from difftract_bids.reports.tractogram import plot_tractogram

        points_mm, offsets = read_tractogram(self.inputs.preview)
        mask, vox2ras = load_for_figure(self.inputs.mask)
        sidecar = self.inputs.tractogram_metadata
        n_total = sidecar["Counts"]["Streamlines"] if isdefined(sidecar) else None
        return plot_tractogram(points_mm, offsets, mask > 0, vox2ras, path, n_total=n_total)


class PlotConnectomeInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotConnectome`."""

    matrix = File(exists=True, mandatory=True, desc="Dense matrix (TSV) with node names.")


class PlotConnectome(Reportlet):
    """Draw a connectome matrix.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import PlotConnectome
    >>> PlotConnectome(matrix="count.dense.tsv").run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotConnectomeInputSpec

    def _draw(self, path):
        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.reports.matrix import plot_connectome

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
    >>> from difftract_bids.interfaces.reportlets import PlotEdges
    >>> plot = PlotEdges(meanfa="meanfa.dense.tsv", meanlength="meanlength.dense.tsv")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotEdgesInputSpec

    def _draw(self, path):
        import numpy as np

        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.reports.edges import plot_edges

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


class SummariseRunInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`SummariseRun`."""

    dwi = File(exists=True, mandatory=True, desc="Diffusion image.")
    bval = File(exists=True, mandatory=True, desc="b-values, s/mm².")
    bvec = File(exists=True, mandatory=True, desc="b-vectors, FSL's convention.")
    b0_threshold_s_mm2 = traits.Float(50.0, usedefault=True, desc="Largest b-value of b=0, s/mm².")
    summary = File(exists=True, mandatory=True, desc="Ends and length of each streamline.")
    tractogram_metadata = traits.Dict(mandatory=True, desc="Its sidecar, with counts.")
    fodf_metadata = traits.Dict(desc="Sidecar of the fODFs of white matter.")
    atlases = traits.List(traits.Str, desc="Names of the atlases, in the matrices' order.")
    counts = traits.List(File(exists=True), desc="Streamline count matrix of each atlas.")
    assigned = traits.List(traits.Int, desc="Streamlines that connect nodes of each atlas.")
    notes = traits.List(traits.Str, desc="What the stages want the user to know.")
    decisions = traits.List(traits.Str, desc="What was decided by the data, and why.")


class SummariseRun(Reportlet):
    """Write the table of what came out of a diffusion run, and what to look at.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets import SummariseRun
    >>> summarise = SummariseRun(
    ...     dwi="dwi.nii.gz",
    ...     bval="dwi.bval",
    ...     bvec="dwi.bvec",
    ...     summary="summary.parquet",
    ...     tractogram_metadata={"Counts": {"Seeds": 6000}},
    ...     atlases=["Phantom"],
    ...     counts=["count.dense.tsv"],
    ...     notes=["The T1w is of another day."],
    ... )
    >>> summarise.run().outputs.out_report
    '/.../report.html'
    """

    input_spec = SummariseRunInputSpec
    _extension = "html"

    def _draw(self, path):
        import numpy as np

        from difftract_bids.io.matrices import read_matrix
        from difftract_bids.io.summaries import iter_summary
        from difftract_bids.reports.summary import (
            ConnectomeFacts,
            Notice,
            RunSummary,
            fodf_facts,
            write_summary_html,
        )

        image, table = image_and_gradients(self.inputs)
        x_mm, y_mm, z_mm = image.header.get_zooms()[:3]
        batches = [batch.lengths_mm for batch in iter_summary(self.inputs.summary)]
        lengths_mm = np.concatenate([np.zeros(0), *batches])
        tally = self.inputs.tractogram_metadata.get("Counts", {})
        atlases, files = self.inputs.atlases or [], self.inputs.counts or []
        assigned = self.inputs.assigned or [None] * len(files)
        connectomes = [
            ConnectomeFacts.of(atlas, *read_matrix(file), n_assigned)
            for atlas, file, n_assigned in zip(atlases, files, assigned, strict=True)
        ]
        fodf = self.inputs.fodf_metadata if isdefined(self.inputs.fodf_metadata) else {}
        notes = self.inputs.notes if isdefined(self.inputs.notes) else []
        summary = RunSummary(
            shape=image.shape[:3],
            voxel_sizes_mm=(float(x_mm), float(y_mm), float(z_mm)),
            shells=table.shells(),
            fodf=fodf_facts(fodf),
            n_streamlines=len(lengths_mm),
            n_seeds=tally.get("Seeds", 0),
            median_length_mm=float(np.median(lengths_mm)) if len(lengths_mm) else None,
            stop_reasons=_in_words(tally.get("StopReasons", {})),
            seed_fates=_in_words(tally.get("SeedStatus", {})),
            connectomes=connectomes,
            notices=[Notice(note) for note in notes],
            decisions=list(self.inputs.decisions) if isdefined(self.inputs.decisions) else [],
        )
        return write_summary_html(summary, path)


def _in_words(tally: dict[str, int]) -> dict[str, int]:
    words = {"none": "started there, one way"}
    return {words.get(name, name.replace("_", " ")): number for name, number in tally.items()}
