"""What figures need of a tractogram that was saved before."""

from __future__ import annotations

from pathlib import Path

from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    SimpleInterface,
    TraitedSpec,
)


class RereadTractogramInputSpec(BaseInterfaceInputSpec):
    """Inputs of :class:`RereadTractogram`."""

    tractogram = File(exists=True, mandatory=True, desc="TRX, TCK or TRK file.")


class RereadTractogramOutputSpec(TraitedSpec):
    """Outputs of :class:`RereadTractogram`."""

    preview = File(desc="Some thousand of the streamlines, thinned.")
    summary = File(desc="Parquet table of ends and length (mm) of every streamline.")


class RereadTractogram(SimpleInterface):
    """Make of a saved tractogram what tracking gives besides it: a preview and a summary.

    Lengths are those of the streamlines as they were stored. Seeds are not known any more:
    streamlines are numbered instead.

    Examples
    --------
    >>> from difftract_bids.interfaces.reread import RereadTractogram
    >>> reread = RereadTractogram(tractogram="tractogram.trx").run().outputs
    >>> reread.summary
    '/.../summary.parquet'
    """

    input_spec, output_spec = RereadTractogramInputSpec, RereadTractogramOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.io.preview import Preview
        from difftract_bids.io.summaries import StreamlineSummary, SummaryWriter
        from difftract_bids.io.tractogram_reader import iter_tractogram
        from difftract_bids.io.tractograms import write_tractogram

        folder, preview, before = Path(runtime.cwd), Preview(), 0
        with SummaryWriter(folder / "summary.parquet") as summary:
            for block in iter_tractogram(self.inputs.tractogram):
                preview.append(block)
                seeds = np.arange(before, before + block.n_streamlines)
                summary.append(StreamlineSummary(seeds, block.ends(), block.lengths_mm()))
                before += block.n_streamlines
        path = write_tractogram(
            preview.arrays(), folder / "preview.tck", vox2ras=np.eye(4), shape=(1, 1, 1)
        )
        self._results.update(preview=str(path), summary=str(summary.path))
        return runtime
