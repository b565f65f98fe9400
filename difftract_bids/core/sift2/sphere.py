"""Axes spread over the sphere, their neighbours, and which of them is nearest to a tangent."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from difftract_bids.core.sh import sh_basis

#: How often the icosahedron's triangles are divided in four: 1281 axes, 4 degrees apart.
_DIVISIONS = 4
#: Integrals of series up to this degree are exact.
_EXACT_DEGREE = 16
#: Cells along the edge of a face of the cube in which the search for the nearest axis starts.
_CELLS = 24


class Sphere(NamedTuple):
    """Axes: unit vectors of which the opposite is the same.

    Attributes
    ----------
    axes
        Unit vectors on one hemisphere, float64.
    neighbours
        Numbers of the axes around each; -1 where there are five rather than six.
    solid_angles
        What each stands for, its opposite included, steradian; their sum is 4π.
    nearest
        The axis nearest to the middle of each cell of three faces of a cube: where a search for
        the nearest axis starts.
    """

    axes: Float[Tensor, "axis 3"]
    neighbours: Int[Tensor, "axis 6"]
    solid_angles: Float[Tensor, " axis"]
    nearest: Int[Tensor, "face cell cell"]


@cache
def dense_sphere() -> Sphere:
    """Divide an icosahedron's faces until there are 1281 axes.

    The solid angles are those of the triangles around each vertex, changed as little as makes the
    integrals of all series up to degree 16 exact.
    """
    vertices, triangles = _icosphere(_DIVISIONS)
    half, axis_of = _one_of_each_pair(vertices)
    axes = vertices[half]
    shares = torch.zeros(len(axes), dtype=torch.float64)
    thirds = _solid_angle(vertices[triangles]) / 3
    for corner in range(3):
        shares.index_add_(0, axis_of[triangles[:, corner]], thirds)
    edges = axis_of[torch.cat([triangles[:, [i, (i + 1) % 3]] for i in range(3)])]
    return Sphere(axes, _neighbours(edges, len(axes)), _exact(axes, shares), _starts(axes))


def nearest_axes(directions: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    """Find the axis nearest to each direction, by looking at all: the reference."""
    axes = dense_sphere().axes
    return (directions.to(axes) @ axes.T).abs().argmax(dim=1)


def _icosphere(divisions: int) -> tuple[Float[Tensor, "vertex 3"], Int[Tensor, "triangle 3"]]:
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0.0, one, ratio) for one in (-1.0, 1.0) for ratio in (-golden, golden)]
    points = torch.tensor([(c[i], c[i - 2], c[i - 1]) for i in range(3) for c in corners])
    vertices = torch.nn.functional.normalize(points.double(), dim=1)
    near = torch.cdist(vertices, vertices) < 1.1  # an edge is 1.05 long
    triangles = torch.tensor(
        [
            (i, j, k)
            for i in range(12)
            for j in range(i + 1, 12)
            for k in range(j + 1, 12)
            if near[i, j] and near[j, k] and near[i, k]
        ]
    )
    for _ in range(divisions):
        edges = torch.cat([triangles[:, [i, (i + 1) % 3]] for i in range(3)])
        edges = edges.sort(dim=1).values
        pairs, place = torch.unique(edges, dim=0, return_inverse=True)
        middles = torch.nn.functional.normalize(vertices[pairs].sum(dim=1), dim=1)
        a, b, c = triangles.T
        ab, bc, ca = (len(vertices) + place).reshape(3, -1)
        corners_of = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        triangles = torch.cat([torch.stack(three, dim=1) for three in corners_of])
        vertices = torch.cat([vertices, middles])
    return vertices, triangles


def _one_of_each_pair(
    vertices: Float[Tensor, "vertex 3"],
) -> tuple[Int[Tensor, " axis"], Int[Tensor, " vertex"]]:
    """Choose one vertex of each two that are opposite, and number them."""
    opposite = (vertices @ vertices.T).argmin(dim=1)
    number = torch.arange(len(vertices))
    half = torch.nonzero(number < opposite).squeeze(1)
    axis_of = torch.empty_like(number)
    axis_of[half] = torch.arange(len(half))
    axis_of[opposite[half]] = torch.arange(len(half))
    return half, axis_of


def _solid_angle(corners: Float[Tensor, "triangle 3 3"]) -> Float[Tensor, " triangle"]:
    """Solid angle of triangles on the sphere (van Oosterom and Strackee 1983)."""
    a, b, c = corners.unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum(1).abs()
    around = 1 + (a * b).sum(1) + (b * c).sum(1) + (c * a).sum(1)
    return 2 * torch.atan2(volume, around)


def _neighbours(edges: Int[Tensor, "edge 2"], n_axes: int) -> Int[Tensor, "axis 6"]:
    around: list[list[int]] = [[] for _ in range(n_axes)]
    for one, other in torch.unique(edges.sort(dim=1).values, dim=0).tolist():
        around[one].append(other)
        around[other].append(one)
    return torch.tensor([(list_ + [-1] * 6)[:6] for list_ in around])


def _exact(
    axes: Float[Tensor, "axis 3"], solid_angles: Float[Tensor, " axis"]
) -> Float[Tensor, " axis"]:
    """Change solid angles as little as makes integrals exact."""
    basis = sh_basis(axes, _EXACT_DEGREE)
    integrals = torch.zeros(basis.shape[1], dtype=torch.float64)
    integrals[0] = math.sqrt(4 * math.pi)
    missing = integrals - basis.T @ solid_angles
    return solid_angles + basis @ torch.linalg.solve(basis.T @ basis, missing)


def _starts(axes: Float[Tensor, "axis 3"]) -> Int[Tensor, "face cell cell"]:
    middles = (torch.arange(_CELLS, dtype=torch.float64) + 0.5) * 2 / _CELLS - 1
    one, other = torch.meshgrid(middles, middles, indexing="ij")
    # On face i the component i is 1, and the next two, in turn, are the cell's.
    cells = torch.stack([torch.ones_like(one), one, other], dim=-1).reshape(-1, 3)
    faces = torch.stack([cells.roll(face, dims=1) for face in range(3)])
    nearest = (faces.reshape(-1, 3) @ axes.T).abs().argmax(dim=1)
    return nearest.reshape(3, _CELLS, _CELLS)
