"""Content of the JSON sidecar of streamline weights."""

from __future__ import annotations

from typing import Any

from difftract_bids.config.weights import SIFT2Config

_URL = "https://doi.org/10.1016/j.neuroimage.2015.06.092"


def weights_metadata(
    config: SIFT2Config,
    *,
    mu: float,
    misfit: tuple[float, float],
    regularisation: float,
    n_iterations: int,
    converged: bool,
    streamlines: tuple[int, int],
    fixels: tuple[int, int, int],
) -> dict[str, Any]:
    """Describe a fit of streamline weights.

    Parameters
    ----------
    config
        Its settings.
    mu
        fODF density for a millimetre of streamline of weight 1.
    misfit
        Sum of squared misfits before and after.
    regularisation
        Cost of the regularisation at the end.
    n_iterations, converged
        How long the fit took, and whether it came to an end by itself.
    streamlines
        How many there are, and how many of them run through no fixel.
    fixels
        How many there are, how many of them have streamlines, and how many of these took part.
    """
    return {
        "Description": "Weight of each streamline, in the order of the tractogram",
        "weight": {
            "Description": "Cross-sectional weight: multiplied by Mu and summed over the "
            "streamlines of a connection it is the connection's share of fibre density",
            "Units": "arbitrary",
        },
        "Model": {
            "Description": "Fit of weighted streamline density to the density of fODF lobes "
            "(SIFT2), in an implementation of this program's own",
            "URL": _URL,
            "Parameters": {
                "TotalVariation": config.sift2_total_variation,
                "Tikhonov": config.sift2_tikhonov,
                "MinimumDensityFraction": config.sift2_min_density_fraction,
                "MinimumStreamlines": config.sift2_min_streamlines,
                "MinimumIterations": config.sift2_min_iterations,
                "MaximumIterations": config.sift2_max_iterations,
                "MinimumCostDecrease": config.sift2_min_cost_decrease,
                "MaximumStep": config.sift2_max_step,
                "MaximumWeight": config.sift2_max_weight or "n/a",
            },
        },
        "Mu": mu,
        "MuUnits": "fODF amplitude times steradian per millimetre",
        "Misfit": {"Before": misfit[0], "After": misfit[1]},
        "Regularisation": regularisation,
        "Iterations": n_iterations,
        "Converged": converged,
        "Counts": {
            "Streamlines": streamlines[0],
            "StreamlinesOutside": streamlines[1],
            "Fixels": fixels[0],
            "FixelsWithStreamlines": fixels[1],
            "FixelsFitted": fixels[2],
        },
    }
