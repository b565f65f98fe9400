"""Weights of streamlines that make their density that of the fODFs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import File, SimpleInterface, TraitedSpec, isdefined, traits

from difftract_bids.config.weights import SIFT2Config
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.threads import ThreadedSpec, limited_threads

#: Vertices in memory at a time: 12 MB.
_MAX_POINTS = 1_000_000
_Settings: Any = settings_spec(SIFT2Config)


class WeighStreamlinesInputSpec(ThreadedSpec, _Settings):
    """Inputs of :class:`WeighStreamlines`."""

    tractogram = File(exists=True, mandatory=True, desc="Streamlines: TRX, TCK or TRK.")
    fodf = File(exists=True, mandatory=True, desc="SH coefficients, MRtrix's basis, scanner axes.")
    brain_mask = File(exists=True, desc="Where the density is compared; else where fODFs are.")


class WeighStreamlinesOutputSpec(TraitedSpec):
    """Outputs of :class:`WeighStreamlines`."""

    weights = File(desc="Weight of each streamline, in the tractogram's order, TSV.")
    metadata = traits.Dict(desc="Content of its sidecar.")
    notes = traits.List(traits.Str, desc="What a user should know about the fit.")


class WeighStreamlines(SimpleInterface):
    r"""Fit a weight to every streamline so that their density is that of the fODFs (SIFT2).

    Examples
    --------
    >>> import pandas
    >>> from difftract_bids.interfaces.weighting import WeighStreamlines
    >>> weigh = WeighStreamlines(
    ...     tractogram="tractogram.trx", fodf="fodf.nii.gz", brain_mask="mask.nii.gz"
    ... )
    >>> len(pandas.read_csv(weigh.run().outputs.weights, sep="\t"))
    2000
    """

    input_spec, output_spec = WeighStreamlinesInputSpec, WeighStreamlinesOutputSpec

    def _run_interface(self, runtime):
        import numpy as np

        from difftract_bids.bids.weights_sidecar import weights_metadata
        from difftract_bids.io.weights import write_weights

        config = settings_of(self.inputs, SIFT2Config)
        target = Path(runtime.cwd) / "weights.tsv"
        with limited_threads(self.inputs.num_threads):
            fit = self._fit(config)
        if fit is None:
            self._results["weights"] = str(write_weights(target, np.zeros(0)))
            self._results["metadata"] = {"Counts": {"Streamlines": 0}}
            self._results["notes"] = ["The tractogram is empty, and so are its weights."]
            return runtime
        self._results["weights"] = str(write_weights(target, fit.weights.numpy()))
        first, last = fit.cost[0], fit.cost[-1]
        tracked = fit.density_before > 0
        self._results["metadata"] = weights_metadata(
            config,
            mu=fit.mu,
            misfit=(first.data, last.data),
            regularisation=last.tikhonov + last.total_variation,
            n_iterations=fit.n_iterations,
            converged=fit.converged,
            streamlines=(len(fit.weights), fit.n_outside),
            fixels=(len(tracked), int(tracked.sum()), int(fit.takes_part.sum())),
        )
        self._results["notes"] = _notes(fit)
        return runtime

    def _fit(self, config):
        """Fit the weights, reading the tractogram a block at a time; nothing if it is empty."""
        import torch

        from difftract_bids.core.sift2 import (
            Visits,
            fit_streamline_weights,
            map_streamlines,
            segment_fodf,
        )
        from difftract_bids.io.fodf_checks import check_affine
        from difftract_bids.io.grids import onto_grid
        from difftract_bids.io.images import load_volume
        from difftract_bids.io.tractogram_reader import count_streamlines, iter_tractogram

        tractogram = self.inputs.tractogram
        if not count_streamlines(tractogram):
            return None
        fodf, vox2ras = load_volume(self.inputs.fodf, ndim=4)
        check_affine(vox2ras, self.inputs.fodf)
        mask = None
        if isdefined(self.inputs.brain_mask):
            path = self.inputs.brain_mask
            image = onto_grid(load_volume(path, ndim=3), fodf.shape[:3], vox2ras, where=path)
            mask = torch.from_numpy(image.data)
        fixels = segment_fodf(torch.from_numpy(fodf), mask)
        affine = torch.from_numpy(vox2ras)
        blocks = iter_tractogram(tractogram, max_points=_MAX_POINTS)
        parts = [
            map_streamlines(torch.from_numpy(points), torch.from_numpy(offsets), fixels, affine)
            for points, offsets in blocks
        ]
        return fit_streamline_weights(Visits.joined(parts), fixels, config)


def _notes(fit: Any) -> list[str]:
    notes = []
    n, outside = len(fit.weights), fit.n_outside
    if outside > n / 100:
        notes.append(
            f"{outside:,} of {n:,} streamlines run through no fODF lobe; their weight is 0."
        )
    if not fit.converged:
        notes.append(f"The fit of weights was ended after {fit.n_iterations} iterations.")
    share = float(fit.takes_part.sum()) / max(int((fit.density_before > 0).sum()), 1)
    if share < 0.5:
        notes.append(
            f"Streamlines make up enough of the density of {share:.0%} of the fODF lobes that "
            "they run through: more seeds make better weights."
        )
    return notes
