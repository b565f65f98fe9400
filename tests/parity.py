"""How much two sets of streamlines from the same seeds agree: one small function a measure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from mrtrix import Tckgen
from scipy.spatial import cKDTree

from difftract_bids.core import Streamlines

TOLERANCE_MM = 0.01


@dataclass(frozen=True)
class Pair:
    """One of their streamlines, and ours from the same seed, if there is one."""

    theirs: np.ndarray
    their_seed: int
    ours: np.ndarray | None
    our_seed: int

    def halves(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ours and theirs, each from the seed outwards: first one way, then the other."""
        if self.ours is None:
            return []
        i, j = self.our_seed, self.their_seed
        return [
            (self.ours[i::-1], self.theirs[j::-1]),
            (self.ours[i:], self.theirs[j:]),
        ]


def pair_up(theirs: Tckgen, ours: Streamlines) -> list[Pair]:
    """Pair streamlines whose seeds have the same number."""
    place = {seed: i for i, seed in enumerate(ours.seed_index.tolist())}
    points, offsets = ours.points.numpy(), ours.offsets.tolist()
    result = []
    for number, (line, seed) in enumerate(
        zip(theirs.streamlines, theirs.seed_vertex, strict=True)
    ):
        i = place.get(number)
        our_line = None if i is None else points[offsets[i] : offsets[i + 1]]
        our_seed = 0 if i is None else int(ours.seed_vertex[i])
        result.append(Pair(line, int(seed), our_line, our_seed))
    return result


def common_part_agrees(pair: Pair, tolerance_mm: float = TOLERANCE_MM) -> bool:
    """Whether each vertex, counted from the seed, agrees wherever both have one."""
    return pair.ours is not None and all(
        _distances(a, b).max() < tolerance_mm for a, b in pair.halves()
    )


def whole_agrees(pair: Pair, tolerance_mm: float = TOLERANCE_MM) -> bool:
    """Whether each vertex of either is that close to one of the other (Hausdorff)."""
    if pair.ours is None:
        return False
    # Vertex by vertex is the larger distance, and soon done for nearly all.
    alike = len(pair.ours) == len(pair.theirs) and pair.our_seed == pair.their_seed
    if alike and _distances(pair.ours, pair.theirs).max() < tolerance_mm:
        return True
    there = cKDTree(pair.theirs).query(pair.ours)[0].max()
    back = cKDTree(pair.ours).query(pair.theirs)[0].max()
    return bool(max(there, back) < tolerance_mm)


def vertices_agree(pair: Pair, tolerance_mm: float) -> bool:
    """Whether both have as many vertices, one of them the seed, and each is as close as that."""
    if pair.ours is None or pair.ours.shape != pair.theirs.shape:
        return False
    alike = pair.our_seed == pair.their_seed
    return bool(alike and _distances(pair.ours, pair.theirs).max() < tolerance_mm)


def share(results: list[bool]) -> float:
    return sum(results) / len(results)


def share_in_common_part(pairs: list[Pair]) -> float:
    return share([common_part_agrees(pair) for pair in pairs])


def share_of_whole(pairs: list[Pair], tolerance_mm: float = TOLERANCE_MM) -> float:
    return share([whole_agrees(pair, tolerance_mm) for pair in pairs])


def shared_seeds(
    theirs_mm: torch.Tensor, ours_mm: torch.Tensor, tolerance_mm: float = 1e-3
) -> tuple[float, float]:
    """Share of their accepted seeds that ours accepts too, and the other way round."""
    one, other = theirs_mm.numpy(), ours_mm.numpy()
    there = cKDTree(other).query(one)[0] < tolerance_mm
    back = cKDTree(one).query(other)[0] < tolerance_mm
    return float(there.mean()), float(back.mean())


def angular_errors_deg(pairs: list[Pair]) -> np.ndarray:
    """Angles between segments with the same number from the seed, of all pairs, degrees."""
    angles = [
        _angles_deg(np.diff(a[:n], axis=0), np.diff(b[:n], axis=0))
        for pair in pairs
        for a, b in pair.halves()
        for n in [min(len(a), len(b))]
    ]
    return np.concatenate(angles)


def dice_of_voxels(pairs: list[Pair], vox2ras: torch.Tensor) -> float:
    """Overlap of the voxels that their streamlines visit with those of ours (Dice)."""
    ours = [pair.ours for pair in pairs if pair.ours is not None]
    a, b = _visited(ours, vox2ras), _visited([pair.theirs for pair in pairs], vox2ras)
    return _dice(a, b)


def dice_of_each(pairs: list[Pair], vox2ras: torch.Tensor) -> np.ndarray:
    """Overlap of visited voxels for each pair by itself; 0 where ours is lost."""
    return np.array(
        [
            0.0
            if pair.ours is None
            else _dice(_visited([pair.ours], vox2ras), _visited([pair.theirs], vox2ras))
            for pair in pairs
        ]
    )


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    n = min(len(a), len(b))
    return np.linalg.norm(a[:n] - b[:n], axis=1)


def _angles_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # The arc tangent is exact at small angles, where the arc cosine is not.
    a, b = a.astype(float), b.astype(float)
    across, along = np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1)
    return np.degrees(np.arctan2(across, along))


def _visited(lines: list[np.ndarray], vox2ras: torch.Tensor) -> np.ndarray:
    """Flat numbers of the voxels that hold a vertex."""
    inverse = np.linalg.inv(vox2ras.numpy().astype(float))
    points = np.concatenate(lines)
    voxel = np.floor(points @ inverse[:3, :3].T + inverse[:3, 3] + 0.5).astype(np.int64) + 1
    return np.unique((voxel[:, 0] << 40) + (voxel[:, 1] << 20) + voxel[:, 2])


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * len(np.intersect1d(a, b, assume_unique=True)) / (len(a) + len(b))
