"""How well fODFs do where it counts: in the connectome, in bundles, in the direction of fibres."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.config import TrackingConfig
from difftract_bids.core import (
    FodfField,
    RandomSeeds,
    assign_ends,
    connectome,
    track,
)
from difftract_bids.core.connectome.node_places import find_places
from difftract_bids.core.interpolation import Grid
from difftract_bids.errors import InputError

#: Streamlines that an edge of the reference needs to count as a bundle.
BUNDLE_STREAMLINES = 10


@dataclass(frozen=True)
class Nodes:
    """A parcellation on the grid of the fODFs.

    Attributes
    ----------
    parcellation
        Labels of the voxels, 0 in no node.
    vox2ras
        Affine from voxels to RAS+ millimetres.
    labels
        The label of each row and column of a connectome.
    """

    parcellation: Int[Tensor, "x y z"]
    vox2ras: Float[Tensor, "4 4"]
    labels: Int[Tensor, " node"]


@dataclass(frozen=True)
class Tractogram:
    """Streamlines with their nodes, and where they went.

    Attributes
    ----------
    connectome
        Number of streamlines of each edge.
    points_mm, offsets
        Their vertices, one streamline after another.
    bundle_voxels
        Distinct numbers ``edge * voxels + voxel`` of the voxels that the streamlines of each
        edge visit, ascending.
    nodes
        What their ends were assigned to.
    """

    connectome: Float[Tensor, "node node"]
    points_mm: Float[Tensor, "p 3"]
    offsets: Int[Tensor, " n+1"]
    bundle_voxels: Int[Tensor, " m"]
    nodes: Nodes

    @classmethod
    def of(
        cls, points_mm: Float[Tensor, "p 3"], offsets: Int[Tensor, " n+1"], nodes: Nodes
    ) -> Tractogram:
        """Assign the ends of streamlines, and note which voxels each bundle visits.

        Parameters
        ----------
        points_mm, offsets
            Vertices, RAS+ millimetres, no further apart than a voxel.
        nodes
            The parcellation.
        """
        ends = torch.stack([points_mm[offsets[:-1]], points_mm[offsets[1:] - 1]], 1)
        labels = assign_ends(ends, nodes.parcellation, nodes.vox2ras)
        return cls(
            connectome(labels, nodes.labels),
            points_mm,
            offsets,
            _bundle_voxels(points_mm, offsets, labels, nodes),
            nodes,
        )


@dataclass(frozen=True)
class Agreement:
    """How alike two tractograms of a subject are.

    Attributes
    ----------
    r_connectome
        Pearson correlation of log(1 + count) over the edges that either has; NaN if one side is
        constant.
    bundle_overlap
        Dice coefficient of the voxels that a bundle visits, mean over the bundles of the
        reference (edges between different nodes, `BUNDLE_STREAMLINES` or more).
    n_bundles
        How many these are.
    """

    r_connectome: float
    bundle_overlap: float
    n_bundles: int


@dataclass(frozen=True)
class Row:
    """How well the fODFs of one method do in one scan.

    Attributes
    ----------
    scan, method, reference
        What was compared, and with what.
    cutoff
        fODF amplitude below which tracking stopped; that of a tracked reference is the same.
    r_connectome, bundle_overlap, n_bundles
        See `Agreement`.
    angular_error_deg
        See `angular_error_deg`.
    n_streamlines
        Streamlines that were found.
    """

    scan: str
    method: str
    reference: str
    cutoff: float
    r_connectome: float
    bundle_overlap: float
    n_bundles: int
    angular_error_deg: float
    n_streamlines: int


def evaluate(
    scan: str,
    method: str,
    against: str,
    cutoff: float,
    fodf: Float[Tensor, "x y z coeff"],
    found: Tractogram,
    reference: Tractogram,
) -> Row:
    """Compare the fODFs of a scan, and what was tracked in them, with a reference.

    Parameters
    ----------
    scan, method, against, cutoff
        For the table.
    fodf
        SH coefficients, MRtrix's basis, scanner axes.
    found
        Tracked in them.
    reference
        Taken as right.
    """
    agreement = compare(found, reference)
    return Row(
        scan,
        method,
        against,
        cutoff,
        agreement.r_connectome,
        agreement.bundle_overlap,
        agreement.n_bundles,
        angular_error_deg(fodf, reference),
        len(found.offsets) - 1,
    )


def track_whole(
    fodf: Float[Tensor, "x y z coeff"],
    mask: Bool[Tensor, "x y z"],
    nodes: Nodes,
    *,
    n_seeds: int = 50_000,
    random_seed: int = 0,
    tracking: TrackingConfig | None = None,
) -> Tractogram:
    """Track from random seeds in the mask, as the app does, and find the connectome.

    Parameters
    ----------
    fodf
        SH coefficients, MRtrix's basis, scanner axes.
    mask
        Where to seed, and where streamlines may go.
    nodes
        The parcellation.
    n_seeds, random_seed
        How many seeds, and which.
    tracking
        How to track; MRtrix's defaults if left out.
    """
    seeds_mm, directions = RandomSeeds(mask, nodes.vox2ras, random_seed).draw(0, n_seeds)
    with torch.no_grad():
        found = track(
            fodf,
            seeds_mm.to(fodf),
            directions.to(fodf),
            nodes.vox2ras,
            tracking or TrackingConfig(),
            mask,
        )
    return Tractogram.of(found.points, found.offsets, nodes)


def compare(found: Tractogram, reference: Tractogram) -> Agreement:
    """Compare the connectome and the bundles of a tractogram with those of a reference.

    Raises
    ------
    InputError
        If the two do not have the same nodes.
    """
    if found.connectome.shape != reference.connectome.shape:
        raise InputError(
            f"One tractogram has {len(found.connectome)} nodes, the other "
            f"{len(reference.connectome)}.",
            where="reference",
            remedy="Assign both to the same parcellation.",
        )
    overlap = _overlaps(found, reference)
    return Agreement(
        r_connectome(found.connectome, reference.connectome),
        float(overlap.mean()) if len(overlap) else float("nan"),
        len(overlap),
    )


def r_connectome(
    found: Float[Tensor, "node node"], reference: Float[Tensor, "node node"]
) -> float:
    """Correlate log(1 + count) over the edges, of different nodes, that either matrix has."""
    row, column = torch.triu_indices(len(found), len(found), offset=1)
    both = torch.stack([found[row, column], reference[row, column]]).double()
    logs = both[:, (both > 0).any(0)].log1p()
    if logs.shape[1] < 2 or bool((logs.std(1) == 0).any()):
        return float("nan")
    return float(torch.corrcoef(logs)[0, 1])


def angular_error_deg(
    fodf: Float[Tensor, "x y z coeff"],
    reference: Tractogram,
    *,
    n_segments: int = 20_000,
    random_seed: int = 0,
) -> float:
    """Find how far the fODF's peaks are from the segments of reference streamlines.

    A search goes from the segment's direction to the fODF's peak, at the segment's middle.

    Parameters
    ----------
    fodf
        SH coefficients, MRtrix's basis, scanner axes.
    reference
        Streamlines that are taken as right.
    n_segments, random_seed
        How many segments are drawn, and which.

    Returns
    -------
    float
        Mean angle over the segments inside the image, degrees.
    """
    middles, along = _draw_segments(reference, n_segments, random_seed)
    field = FodfField.from_fodf(fodf, reference.nodes.vox2ras, cutoff=0.0, peak_tolerance=1e-4)
    with torch.no_grad():
        heading = field.heading(middles.to(fodf).T, along.to(fodf).T)
    found = heading.reason == 0
    cosine = (heading.direction * along.to(fodf).T).sum(0)[found].abs().clamp(max=1.0)
    return float(cosine.double().arccos().rad2deg().mean())


def _draw_segments(
    reference: Tractogram, n_segments: int, random_seed: int
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Draw segments; their middles and unit directions."""
    points, offsets = reference.points_mm.double(), reference.offsets
    starts = torch.ones(max(len(points) - 1, 0), dtype=torch.bool)
    starts[offsets[1:-1] - 1] = False  # from the end of one streamline to the next one
    starts = torch.nonzero(starts).squeeze(1)
    generator = torch.Generator().manual_seed(random_seed)
    drawn = starts[torch.randint(len(starts), (n_segments,), generator=generator)]
    segment = points[drawn + 1] - points[drawn]
    length = torch.linalg.vector_norm(segment, dim=1, keepdim=True)
    moved = length[:, 0] > 0
    middles = (points[drawn + 1] + points[drawn]) / 2
    return middles[moved], (segment / length)[moved]


def _bundle_voxels(
    points_mm: Tensor, offsets: Tensor, labels: Int[Tensor, "n 2"], nodes: Nodes
) -> Int[Tensor, " m"]:
    n_nodes, shape = len(nodes.labels), tuple(nodes.parcellation.shape)
    place, is_node = find_places(labels, nodes.labels)
    low, high = place.sort(dim=1).values.unbind(1)
    edge = torch.where(is_node.all(1) & (low != high), low * n_nodes + high, -1)
    of_vertex = torch.repeat_interleave(edge, offsets.diff())
    grid = Grid.from_affine(shape, nodes.vox2ras, points_mm.device)
    voxel = grid.to_voxel(points_mm.T.double())
    kept = (of_vertex >= 0) & grid.contains(voxel)
    visited = of_vertex[kept] * nodes.parcellation.numel() + grid.nearest(voxel[:, kept])
    return torch.unique(visited)


def _overlaps(found: Tractogram, reference: Tractogram) -> Float[Tensor, " bundle"]:
    """Find the Dice coefficient of each bundle of the reference."""
    n_nodes, n_voxels = len(reference.connectome), reference.nodes.parcellation.numel()
    n_edges = n_nodes * n_nodes
    one, other = found.bundle_voxels, reference.bundle_voxels
    both = one[torch.isin(one, other, assume_unique=True)]
    shared, mine, theirs = (
        torch.bincount(x // n_voxels, minlength=n_edges).double() for x in (both, one, other)
    )
    counts = reference.connectome.triu(1).reshape(-1)
    bundles = counts >= BUNDLE_STREAMLINES
    return (2 * shared / (mine + theirs).clamp(min=1))[bundles]
