"""fODF images with known streamlines: what the tests of the propagator are made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from difftract_bids.core.sh import sh_basis, sh_degrees_and_orders


def sharp_sh(directions: torch.Tensor, lmax: int = 8) -> torch.Tensor:
    """SH coefficients of one lobe along each unit vector, of amplitude 1 at its peak."""
    degree = torch.tensor([l_m[0] for l_m in sh_degrees_and_orders(lmax)]).to(directions)
    apodisation = torch.exp(-degree * (degree + 1) / 60)
    series = sh_basis(directions.reshape(-1, 3), lmax) * apodisation
    m0 = torch.tensor([m == 0 for _, m in sh_degrees_and_orders(lmax)])
    at_peak = (apodisation * (2 * degree + 1) / (4 * np.pi))[m0].sum()
    return (series / at_peak).reshape(*directions.shape[:-1], -1)


def voxel_centres_mm(shape: tuple[int, int, int], vox2ras: torch.Tensor) -> torch.Tensor:
    """RAS+ millimetres of every voxel centre, (x, y, z, 3)."""
    axes = [torch.arange(size, dtype=torch.float64) for size in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return index @ vox2ras[:3, :3].T + vox2ras[:3, 3]


def fodf_of(
    tangent: Callable[[torch.Tensor], torch.Tensor],
    shape: tuple[int, int, int],
    vox2ras: torch.Tensor,
    lmax: int = 8,
) -> torch.Tensor:
    """One lobe in each voxel, along ``tangent(position_mm)``."""
    direction = tangent(voxel_centres_mm(shape, vox2ras))
    return sharp_sh(direction / direction.norm(dim=-1, keepdim=True), lmax)


def scaling(voxel_mm: float, origin_mm: tuple[float, float, float] = (0, 0, 0)) -> torch.Tensor:
    """Affine of isotropic voxels along the scanner axes."""
    affine = torch.diag(torch.tensor([voxel_mm, voxel_mm, voxel_mm, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor(origin_mm, dtype=torch.float64)
    return affine


def oblique(voxel_mm: tuple[float, float, float] = (1.8, 2.0, 2.4)) -> torch.Tensor:
    """Affine of anisotropic voxels, rotated about two axes, the first axis reversed."""
    a, b = np.deg2rad([17.0, -11.0])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(np.array(voxel_mm) * [-1, 1, 1])
    affine[:3, 3] = [31.0, -27.5, 12.25]
    return torch.from_numpy(affine)


def circles(centre_mm: tuple[float, float, float]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Tangents of the circles about an axis along z."""
    centre = torch.tensor(centre_mm, dtype=torch.float64)

    def tangent(position_mm: torch.Tensor) -> torch.Tensor:
        x, y, _ = (position_mm - centre).unbind(-1)
        return torch.stack([-y, x, torch.full_like(x, 1e-9)], dim=-1)

    return tangent


def helices(
    centre_mm: tuple[float, float, float], rise: float
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Tangents of helices about an axis along z that rise by ``rise`` mm per radian."""
    around = circles(centre_mm)

    def tangent(position_mm: torch.Tensor) -> torch.Tensor:
        return around(position_mm) + torch.tensor([0, 0, rise], dtype=torch.float64)

    return tangent


def crossing_bundles(
    vox2ras: torch.Tensor,
    shape: tuple[int, int, int] = (28, 26, 20),
    lmax: int = 8,
    noise: float = 0.01,
) -> torch.Tensor:
    """Two families of curves that cross, of varying strength, with noise, in an ellipsoid."""
    position = voxel_centres_mm(shape, vox2ras)
    middle = position.reshape(-1, 3).mean(0)
    extent = (position - middle).reshape(-1, 3).abs().amax(0)
    circle = circles(tuple((middle + torch.tensor([-35.0, 8.0, 0.0])).tolist()))(position)
    across = torch.stack(
        [
            torch.ones_like(position[..., 0]),
            0.03 * (position[..., 0] - middle[0]),
            0.4 + 0.02 * (position[..., 2] - middle[2]),
        ],
        dim=-1,
    )
    total = torch.zeros(())
    for tangent, strength in ((circle, 0.8), (across, 0.6)):
        total = total + strength * sharp_sh(tangent / tangent.norm(dim=-1, keepdim=True), lmax)
    generator = torch.Generator().manual_seed(1)
    total = total + noise * torch.randn(total.shape, generator=generator, dtype=total.dtype)
    inside = (((position - middle) / extent) ** 2).sum(-1) < 0.9
    return total * inside[..., None]
