"""How well a measured connectome agrees with the true one.

``python -m difftract_bids.phantom.agreement MEASURED.tsv TRUTH.tsv`` prints a small table.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from difftract_bids.errors import DifftractError, InputError
from difftract_bids.io.matrices import read_matrix

#: An edge counts as detected from this share of the strongest measured edge on.
DETECTION_SHARE = 1e-3


@dataclass(frozen=True)
class Connectome:
    """Edge weights between named nodes: symmetric, one row and column per name."""

    names: tuple[str, ...]
    weights: Float[np.ndarray, "node node"]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Connectome:
        """Read a dense matrix with its node names in the header.

        Raises
        ------
        InputError
            If it cannot be read, is not square, finite and symmetric, or repeats a name.
        """
        weights, names = read_matrix(path)
        if len(set(names)) != len(names):
            raise InputError(
                f"There are {len(names)} node names, {len(set(names))} of them different.",
                where=path,
                remedy="Nodes are matched by name; each must be there once.",
            )
        if not np.isfinite(weights).all() or not np.allclose(weights, weights.T):
            raise InputError(
                "The connectome is not symmetric, or not finite.",
                where=path,
                remedy="Write both triangles of the matrix.",
            )
        return cls(tuple(names), weights)


@dataclass(frozen=True)
class Agreement:
    """Agreement of a measured connectome with the truth (see :func:`agreement`).

    Attributes
    ----------
    r_log_counts
        Pearson correlation of log(1 + count) over the true edges; NaN if either side is constant.
    sensitivity
        Share of the true edges that were detected.
    specificity
        Share of the pairs without a true edge that were not detected.
    n_true_edges
        Number of true edges.
    n_false_edges
        Number of pairs without a true edge that were detected.
    """

    r_log_counts: float
    sensitivity: float
    specificity: float
    n_true_edges: int
    n_false_edges: int


def agreement(
    measured: Connectome, truth: Connectome, *, detection_share: float = DETECTION_SHARE
) -> Agreement:
    """Compare a measured connectome with the true one, edge by edge.

    Edges are the pairs of different nodes; the diagonal is left out. A pair is a true edge if its
    true weight is positive. It is detected if its measured weight is positive and at least
    ``detection_share`` times the largest measured off-diagonal weight. The correlation is taken
    over all true edges, so that a missed one enters as log(1 + 0); false edges do not enter it.

    Parameters
    ----------
    measured
        Measured streamline counts.
    truth
        True streamline counts. Its nodes are matched with the measured ones by name.
    detection_share
        Share of the strongest measured edge from which an edge counts as detected.

    Raises
    ------
    InputError
        If the two do not have the same nodes, or the truth has fewer than 3 edges.
    """
    found = _in_order_of(measured, truth.names)
    upper = np.triu_indices(len(truth.names), k=1)
    true_counts, counts = truth.weights[upper], found[upper]
    is_true = true_counts > 0
    if is_true.sum() < 3:
        raise InputError(
            f"The true connectome has {is_true.sum()} edges; a correlation needs 3.",
            where="truth",
            remedy="Check that the second file is the true connectome.",
        )
    detected = (counts > 0) & (counts >= detection_share * counts.max())
    logs = np.log1p(np.stack([counts[is_true], true_counts[is_true]]))
    constant = bool((logs.std(axis=1) == 0).any())
    n_pairs_without = int((~is_true).sum())
    n_false = int(detected[~is_true].sum())
    return Agreement(
        r_log_counts=float("nan") if constant else float(np.corrcoef(logs)[0, 1]),
        sensitivity=float(detected[is_true].mean()),
        specificity=1.0 - n_false / n_pairs_without if n_pairs_without else float("nan"),
        n_true_edges=int(is_true.sum()),
        n_false_edges=n_false,
    )


def _in_order_of(connectome: Connectome, names: tuple[str, ...]) -> Float[np.ndarray, "node node"]:
    missing = sorted(set(names) - set(connectome.names))
    extra = sorted(set(connectome.names) - set(names))
    if missing or extra:
        raise InputError(
            f"The nodes differ: {len(missing)} of {len(names)} true nodes are not measured "
            f"{missing[:5]}, {len(extra)} measured ones are unknown {extra[:5]}.",
            where="measured connectome",
            remedy="Measure with the parcellation that belongs to the truth.",
        )
    order = [connectome.names.index(name) for name in names]
    return connectome.weights[np.ix_(order, order)]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the agreement of two connectome files; 0, or 2 for files that cannot be compared."""
    parser = argparse.ArgumentParser(
        prog="python -m difftract_bids.phantom.agreement",
        description="Compare a measured connectome with the true one.",
    )
    parser.add_argument("measured", metavar="MEASURED.tsv")
    parser.add_argument("truth", metavar="TRUTH.tsv")
    parser.add_argument(
        "--detection-share",
        type=float,
        default=DETECTION_SHARE,
        help="share of the strongest edge from which an edge is detected (default %(default)g)",
    )
    options = parser.parse_args(argv)
    try:
        found = agreement(
            Connectome.read(options.measured),
            Connectome.read(options.truth),
            detection_share=options.detection_share,
        )
    except DifftractError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(
        f"true edges                   {found.n_true_edges:6d}\n"
        f"r of log counts, true edges  {found.r_log_counts:6.3f}\n"
        f"sensitivity                  {found.sensitivity:6.3f}\n"
        f"specificity                  {found.specificity:6.3f}  "
        f"({found.n_false_edges} false edges)\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
