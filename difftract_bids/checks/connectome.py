"""Whether a connectome looks as one of a whole brain: streamlines assigned, both sides alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from difftract_bids.checks.findings import Findings
from difftract_bids.checks.sides import side_of
from difftract_bids.checks.verdict import Check, judged

NAME = "connectome"
#: Share of streamlines with both ends in a parcel: 0.75 in a person, 0.5 simulated.
_ASSIGNED = {"look": 0.4, "bad": 0.1}
#: Share of nodes without any.
_EMPTY = {"look": 0.05, "bad": 0.3}
#: |left - right| / (left + right) of the nodes' strength: 0.03 in a person, up to 0.07 simulated.
_IMBALANCE = {"look": 0.2, "bad": 0.5}
#: Share of connections between nodes with a side that cross to the other: 0.19 to 0.27.
_CROSSING = {"look": 0.03, "bad": 0.003}
#: Of fewer streamlines, the shares above are chance.
_ENOUGH = 500
_NAMED = 3


def check_connectome(
    atlas: str,
    counts: Float[np.ndarray, "node node"],
    names: Sequence[str],
    *,
    n_streamlines: int,
    n_assigned: int | None = None,
    whole_brain: bool = True,
) -> Check:
    """Judge a matrix of streamline counts.

    Parameters
    ----------
    atlas
        Name of the atlas.
    counts
        Symmetric, with streamlines within a node on the diagonal.
    names
        Node names, in the matrix's order.
    n_streamlines
        Streamlines of the tractogram.
    n_assigned
        Streamlines that connect parcels, where it is not the sum over the pairs.
    whole_brain
        Whether streamlines may start and go anywhere: where a region was given, nodes are empty
        and sides differ as they should.

    Returns
    -------
    Check
        ``connectome`` of the atlas; its value is the share of streamlines that were assigned.

    Raises
    ------
    ValueError
        If the matrix does not have one row and column per name.
    """
    if counts.shape != (len(names), len(names)):
        message = f"a matrix of shape {counts.shape} does not fit {len(names)} node names"
        raise ValueError(message)
    findings = Findings()
    pairs = float(np.triu(counts).sum())
    share = (pairs if n_assigned is None else n_assigned) / max(n_streamlines, 1)
    findings.found.append(
        f"{share:.0%} of {n_streamlines:,} streamlines have both ends in a parcel"
    )
    findings.judge(
        judged(share, **_ASSIGNED),
        "Look at the parcellation over the b=0 image; an atlas without subcortical nodes also "
        "leaves many ends unassigned.",
    )
    if whole_brain:
        _judge_empty(findings, names, (counts.sum(axis=1) == 0).tolist())
        _judge_sides(findings, counts, [side_of(name) for name in names])
    check = findings.check(NAME, f"Connectome {atlas}", NAME, value=round(share, 3))
    return replace(check, of=atlas)


def _judge_empty(findings: Findings, names: Sequence[str], is_empty: Sequence[bool]) -> None:
    empty = [name for name, is_so in zip(names, is_empty, strict=True) if is_so]
    shown = ", ".join(empty[:_NAMED]) + (", ..." if len(empty) > _NAMED else "")
    findings.found.append(
        f"{len(empty)} of {len(names)} nodes have no streamline ({shown})"
        if empty
        else f"each of {len(names)} nodes has streamlines"
    )
    findings.judge(
        judged(len(empty) / max(len(names), 1), **_EMPTY),
        "Look at the parcellation and the mask where the empty nodes lie; if both are good, use "
        "more seeds or a coarser atlas.",
    )


def _judge_sides(
    findings: Findings, counts: Float[np.ndarray, "node node"], sides: Sequence[str]
) -> None:
    """Compare the strength of the hemispheres, and count what connects them."""
    between = counts - np.diag(np.diag(counts))
    left, right = (np.array([one == side for one in sides]) for side in ("left", "right"))
    of_left, of_right = float(between[left].sum()), float(between[right].sum())
    if not (left.any() and right.any()) or of_left + of_right < _ENOUGH:
        return
    share = of_left / (of_left + of_right)
    findings.found.append(f"{share:.0%} of the connections' ends are on the left")
    findings.judge(
        judged(abs(2 * share - 1), **_IMBALANCE),
        "One hemisphere has far fewer connections: look at the mask, the field of view and the "
        "parcellation on that side; a lesion does it, too.",
    )
    crossing = float(between[np.ix_(left, right)].sum())
    same = (between[np.ix_(left, left)].sum() + between[np.ix_(right, right)].sum()) / 2
    if crossing + same < _ENOUGH / 2:
        return
    crossing_share = crossing / (crossing + float(same))
    findings.found.append(f"{crossing_share:.0%} of the connections cross the midline")
    findings.judge(
        judged(crossing_share, **_CROSSING),
        "The hemispheres are all but unconnected: look at the corpus callosum in the fODF peaks; "
        "a flipped gradient axis or a mask with a gap along the midline does it.",
    )
