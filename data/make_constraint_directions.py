"""Make ``constraint_directions_300.txt``: where an fODF's amplitude is kept from being negative.

300 axes spread by electrostatic repulsion, the best of a few random starts; azimuth and polar
angle in radians in each row, the form that MRtrix3's ``dwi2fod -directions`` reads.

    python -m difftract_bids.data.make_constraint_directions
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from difftract_bids.phantom.schemes import even_directions

_N_DIRECTIONS, _N_STARTS = 300, 20


def main() -> None:
    """Write the file beside this script."""
    starts = (
        even_directions(_N_DIRECTIONS, np.random.default_rng(seed)) for seed in range(_N_STARTS)
    )
    best = max(starts, key=_nearest_neighbours)
    upper = np.where(best[:, 2:] < 0, -best, best)
    x, y, z = upper[np.argsort(-upper[:, 2])].T
    angles = np.stack([np.arctan2(y, x), np.arccos(np.clip(z, -1, 1))], axis=1)
    path = Path(__file__).with_name(f"constraint_directions_{_N_DIRECTIONS}.txt")
    np.savetxt(path, angles, fmt="%.9f")
    print(f"smallest angle between axes {np.degrees(_nearest_neighbours(best)):.2f} degrees")


def _nearest_neighbours(vectors: np.ndarray) -> float:
    """Smallest angle between two axes, radians."""
    cosine = np.abs(vectors @ vectors.T) - 2 * np.eye(len(vectors))
    return float(np.arccos(cosine.max()))


if __name__ == "__main__":
    main()
