"""What one tracking gives for losses to compare."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from difftract_bids.core.streamlines import Streamlines
from difftract_bids.learn.losses.survival import Amplitudes


@dataclass(frozen=True, eq=False)
class Propagated:
    """Streamlines of some seeds, and what is made of them.

    Attributes
    ----------
    streamlines
        Of these seeds.
    connectome
        Soft connectome; ``None`` without a parcellation.
    density
        Millimetres of streamline in each voxel; ``None`` where nobody asked for it.
    amplitudes
        Of a predicted fODF and of the target's, along the streamlines of both; ``None`` where
        nobody asked for them.
    """

    streamlines: Streamlines | None = None
    connectome: Float[Tensor, "node node"] | None = None
    density: Float[Tensor, "x y z"] | None = None
    amplitudes: Amplitudes | None = None
