"""Directions along which an fODF is kept from being negative."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@cache
def constraint_directions() -> Float[Tensor, "n 3"]:
    """Give 300 axes spread evenly over the sphere, unit vectors, float64.

    See ``data/make_constraint_directions.py`` for how they were made.
    """
    resource = files("difftract_bids.data") / "constraint_directions_300.txt"
    with resource.open(encoding="utf-8") as lines:
        return directions_from_angles(torch.from_numpy(np.loadtxt(lines)))


def directions_from_angles(angles_rad: Float[Tensor, "n 2"]) -> Float[Tensor, "n 3"]:
    """Turn azimuth and polar angle, radians, into unit vectors.

    These are the pairs that MRtrix3 reads and writes as azimuth and elevation, the latter counted
    from the z axis.
    """
    azimuth, polar = angles_rad.unbind(-1)
    across = torch.sin(polar)
    return torch.stack(
        [across * torch.cos(azimuth), across * torch.sin(azimuth), torch.cos(polar)], dim=-1
    )
