"""What training bought: participants that were held out, by deconvolution and by the network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from difftract_bids.learn.evaluation import Row, Tractogram
    from difftract_bids.learn.network import FODFNetwork
    from difftract_bids.learn.scan import Scan

#: Gives the fODFs of a scan, in scanner axes.
Method = Callable[["Scan"], "Tensor"]
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
    truths
        True streamlines by the label of the scan, where they are known.
    """
    from difftract_bids.learn.evaluation import Nodes, evaluate, track_whole

    for scan in scans:
        if scan.fodf is None or scan.parcellation is None or scan.node_labels is None:
            continue
        nodes = Nodes(scan.parcellation, scan.vox2ras, scan.node_labels)
        target = track_whole(scan.fodf, scan.mask, nodes, n_seeds=n_seeds, random_seed=1)
        references = {"full": target}
        if truths is not None and scan.label in truths:
            references["truth"] = truths[scan.label]
        for name, method in methods.items():
            fodf = method(scan)
            found = track_whole(fodf, scan.mask, nodes, n_seeds=n_seeds, random_seed=0)
            for against, reference in references.items():
                yield evaluate(scan.label, name, against, fodf, found, reference)


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
