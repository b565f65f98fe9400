"""What training bought: participants that were held out, by deconvolution and by the network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from difftract_bids.config import TrainingConfig
    from difftract_bids.learn.evaluation import Row, Tractogram
    from difftract_bids.learn.network import FODFNetwork
    from difftract_bids.learn.scan import Scan

#: Gives the fODFs of a scan, in scanner axes.
Method = Callable[["Scan"], "Tensor"]
#: Where tracking stops: a network may change the amplitudes of fODFs, which a cutoff turns into
#: fewer or more streamlines. What is better at one of them only is not better.
CUTOFFS = (0.1, 0.2)
#: Seeds that connectomes are compared from.
N_SEEDS = 50_000


def deconvolved(scan: Scan) -> Tensor:
    """Fit fODFs to what the network is given of a scan, as the app would fit such a scan."""
    import torch

    from difftract_bids.modelling.deconvolution import build_deconvolution
    from difftract_bids.modelling.response import estimate_response

    response = estimate_response(scan.dwi.numpy(), scan.gradients, scan.mask.numpy())
    lmax = 8 if scan.lmax is None else scan.lmax
    with torch.no_grad(), warnings.catch_warnings():
        # Fewer directions than coefficients is what is compared with.
        warnings.filterwarnings("ignore", message=".*super-resolved", category=UserWarning)
        model = build_deconvolution(scan.gradients, {"WM": response}, "csd", lmax)
        return model(scan.dwi, scan.mask)[0].float()


def predicted_by(network: FODFNetwork) -> Method:
    """Give what predicts the fODFs of a scan with a network."""
    return lambda scan: network.predict(scan.dwi, scan.gradients, scan.vox2ras, scan.mask)


def compare_methods(
    scans: Iterable[Scan],
    methods: Mapping[str, Method],
    *,
    n_seeds: int = N_SEEDS,
    cutoffs: Sequence[float] = CUTOFFS,
    truths: Mapping[str, Tractogram] | None = None,
) -> Iterator[Row]:
    """Compare fODFs of each method with the target of each scan, where it counts.

    Parameters
    ----------
    scans
        With their targets and parcellations.
    methods
        By the names that they have in the table.
    n_seeds
        Seeds of each tractogram. Those of the target are others, as those of another session
        would be.
    cutoffs
        fODF amplitudes below which tracking stops, each compared by itself.
    truths
        True streamlines by the label of the scan, where they are known.
    """
    from difftract_bids.config import TrackingConfig
    from difftract_bids.learn.evaluation import Nodes, evaluate, track_whole

    for scan in scans:
        if scan.fodf is None or scan.parcellation is None or scan.node_labels is None:
            continue
        nodes = Nodes(scan.parcellation, scan.vox2ras, scan.node_labels)
        fodfs = {name: method(scan) for name, method in methods.items()}
        known = {"truth": truths[scan.label]} if truths and scan.label in truths else {}
        for cutoff in cutoffs:
            track = partial(
                track_whole,
                mask=scan.mask,
                nodes=nodes,
                n_seeds=n_seeds,
                tracking=TrackingConfig(cutoff=cutoff),
            )
            references = {"full": track(scan.fodf, random_seed=1), **known}
            for name, fodf in fodfs.items():
                found = track(fodf, random_seed=0)
                for against, reference in references.items():
                    yield evaluate(scan.label, name, against, cutoff, fodf, found, reference)


def compare_held_out(
    scans: Sequence[Scan], config: TrainingConfig, model: Path, model_class: str | None = None
) -> list[Row]:
    """Compare what a model, and deconvolution, give of the participants that checked.

    Parameters
    ----------
    scans, config
        As they were trained with.
    model
        What came of it.
    model_class
        Class of a user's architecture.

    Returns
    -------
    list of Row
        None where blocks of the same brains checked, or there is no parcellation.

    Raises
    ------
    InputError
        If a scan cannot be deconvolved.
    """
    from difftract_bids.learn.materials import split_scans
    from difftract_bids.learn.model_file import load_model

    parts = split_scans(scans, config)
    if parts.by_blocks:
        return []
    network = load_model(model, model_class).network
    methods = {"deconvolution": deconvolved, "network": predicted_by(network)}
    return list(compare_methods(parts.validation, methods))


def said_of(rows: Sequence[Row]) -> list[str]:
    """Say in words what was compared, a line for each scan and method."""
    return [
        f"{row.scan}, {row.method}, cutoff {row.cutoff:g}: connectome r "
        f"{row.r_connectome:.3f}, bundles overlap {row.bundle_overlap:.3f}, peaks "
        f"{row.angular_error_deg:.1f} degrees off."
        for row in rows
    ]


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write a table of comparisons, tab-separated."""
    from dataclasses import asdict

    from difftract_bids.io.atomic import write_text_atomic

    table = [asdict(row) for row in rows]
    heads = list(table[0]) if table else []
    lines = ["\t".join(heads), *("\t".join(_text(row[head]) for head in heads) for row in table)]
    write_text_atomic(path, "\n".join(lines) + "\n")


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
