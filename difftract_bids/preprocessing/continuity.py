"""Where the head is at b=0 volumes, judged by the weighted volumes acquired around them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from difftract_bids.preprocessing.rigid_fit import compose

#: Neighbours further away in the order of acquisition say nothing.
_NEAR_VOLUMES = 2
#: So many b=0 volumes must agree, to a standard error of this, millimetres: in real images mutual
#: information is off by half a millimetre, judged by edges and by the b=0 volumes.
_ENOUGH, _AGREED_MM = 3, 0.3
#: Radius of the head, which turns an angle into a distance.
_RADIUS_MM = 60.0


def link_by_continuity(
    rigid: Sequence[Float[np.ndarray, "3 4"]],
    b0: Int[np.ndarray, " n"],
    weighted: Int[np.ndarray, " m"],
    centre_mm: Float[np.ndarray, " 3"],
) -> Float[np.ndarray, "3 4"] | None:
    """Find what brings weighted volumes to the frame of b=0 where b=0 volumes lie between them.

    A head that moves little from volume to volume is, at each b=0 volume, between where it was
    before and after. That does not depend on contrast, by which mutual information is misled in
    real images. Where b=0 volumes disagree, as they do when the head jumps, there is no answer.

    Parameters
    ----------
    rigid
        Movement of every volume: each of the two kinds in a frame of its own.
    b0, weighted
        Which volumes are which.
    centre_mm
        Centre of the brain, RAS+ millimetres.

    Returns
    -------
    numpy.ndarray or None
        Rigid: frame of b=0 to that of the weighted volumes, (3, 4).
    """
    found = []
    for volume in b0:
        before, after = weighted[weighted < volume], weighted[weighted > volume]
        if not len(before) or not len(after):
            continue
        last, following = before.max(), after.min()
        if volume - last > _NEAR_VOLUMES or following - volume > _NEAR_VOLUMES:
            continue
        share = (volume - last) / (following - last)
        between = _between(rigid[last], rigid[following], float(share))
        inverse = np.column_stack([between[:, :3].T, -between[:, :3].T @ between[:, 3]])
        found.append(_parameters(compose(inverse, rigid[volume]), centre_mm))
    if len(found) < _ENOUGH:
        return None
    scaled = np.stack(found) * ([1.0] * 3 + [_RADIUS_MM] * 3)
    error_mm = np.sqrt(scaled.var(axis=0, ddof=1).sum() / len(scaled))
    if error_mm > _AGREED_MM:
        return None
    mean = np.mean(found, axis=0)
    turn = Rotation.from_rotvec(mean[3:]).as_matrix()
    return np.column_stack([turn, centre_mm + mean[:3] - turn @ centre_mm])


def _between(
    one: Float[np.ndarray, "3 4"], other: Float[np.ndarray, "3 4"], share: float
) -> Float[np.ndarray, "3 4"]:
    mean = (1 - share) * one + share * other
    left, _, right = np.linalg.svd(mean[:, :3])
    return np.column_stack([left @ right, mean[:, 3]])


def _parameters(
    rigid: Float[np.ndarray, "3 4"], centre_mm: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, " 6"]:
    shift = rigid[:, :3] @ centre_mm + rigid[:, 3] - centre_mm
    return np.concatenate([shift, Rotation.from_matrix(rigid[:, :3]).as_rotvec()])
