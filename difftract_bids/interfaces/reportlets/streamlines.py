"""Figures of the streamlines."""

from __future__ import annotations

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    isdefined,
    traits,
)

from difftract_bids.interfaces.reportlets.base import (
    Reportlet,
    load_for_figure,
)


class PlotTractogramInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotTractogram`."""

    preview = File(exists=True, mandatory=True, desc="Some streamlines, scanner millimetres.")
    tractogram_metadata = traits.Dict(desc="Sidecar of the tractogram, with counts.")
    mask = File(exists=True, mandatory=True, desc="Brain mask.")


class PlotTractogram(Reportlet):
    """Draw streamlines in three projections, coloured by direction.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.streamlines import PlotTractogram
    >>> plot = PlotTractogram(preview="preview.trx", mask="mask.nii.gz")
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotTractogramInputSpec

    def _draw(self, path):
        from difftract_bids.io.tractograms import read_tractogram
        from difftract_bids.reports.streamlines.tractogram import plot_tractogram

        points_mm, offsets = read_tractogram(self.inputs.preview)
        mask, vox2ras = load_for_figure(self.inputs.mask)
        sidecar = self.inputs.tractogram_metadata
        n_total = sidecar["Counts"]["Streamlines"] if isdefined(sidecar) else None
        return plot_tractogram(points_mm, offsets, mask > 0, vox2ras, path, n_total=n_total)


class PlotStreamlineStatisticsInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`PlotStreamlineStatistics`."""

    summary = File(exists=True, mandatory=True, desc="Ends and length of each streamline.")
    tractogram_metadata = traits.Dict(mandatory=True, desc="Its sidecar, with counts.")


class PlotStreamlineStatistics(Reportlet):
    """Draw lengths of streamlines, why they ended, and what became of the seeds.

    Examples
    --------
    >>> from difftract_bids.interfaces.reportlets.streamlines import PlotStreamlineStatistics
    >>> plot = PlotStreamlineStatistics(
    ...     summary="summary.parquet",
    ...     tractogram_metadata={"Counts": {"SeedStatus": {"kept": 2000, "too_short": 500}}},
    ... )
    >>> plot.run().outputs.out_report
    '/.../report.svg'
    """

    input_spec = PlotStreamlineStatisticsInputSpec

    def _draw(self, path):
        from difftract_bids.io.summaries import lengths_of
        from difftract_bids.reports.streamlines.statistics import plot_streamline_statistics

        counts = self.inputs.tractogram_metadata.get("Counts", {})
        criteria = self.inputs.tractogram_metadata.get("StreamlineAcceptanceCriteria", {})
        return plot_streamline_statistics(
            lengths_of(self.inputs.summary),
            counts.get("StopReasons", {}),
            counts.get("SeedStatus", {}),
            path,
            limits_mm=(criteria.get("MinimumLength"), criteria.get("MaximumLength")),
        )
