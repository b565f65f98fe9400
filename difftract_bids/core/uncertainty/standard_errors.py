"""Standard deviations of the edges of a soft connectome, from the noise in the signal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.core.end_to_end import FODFToConnectome
from difftract_bids.core.field import FodfField
from difftract_bids.core.kernels import Job
from difftract_bids.core.kernels.groups import pull_back_groups
from difftract_bids.core.propagate import track_field, unit_starts
from difftract_bids.core.regions import Regions, compile_regions
from difftract_bids.core.rules import TrackingRules
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.core.survival import survival_of
from difftract_bids.core.uncertainty.memberships import Memberships, find_memberships
from difftract_bids.core.uncertainty.variances import EdgeGradients, VarianceSum
from difftract_bids.core.voxelwise import VoxelwiseFit
from difftract_bids.errors import InputError

#: Memberships whose streamlines are in memory together, some 60 MB of vertices.
_MEMBERS_AT_ONCE = 16_384


@dataclass(frozen=True)
class EdgeErrors:
    """Edges and how much noise moves them.

    Attributes
    ----------
    count
        Soft streamline count of each edge (node, node), symmetric, float64.
    sd
        Standard deviation of each, to first order.
    """

    count: Float[Tensor, "node node"]
    sd: Float[Tensor, "node node"]


def edge_standard_deviations(
    tracking: FODFToConnectome,
    fit: VoxelwiseFit,
    seeds_mm: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    sigma: Float[Tensor, "x y z"],
    mask: Bool[Tensor, "x y z"] | None = None,
    *,
    least: float = 1e-4,
    memory_mb: float = 512.0,
) -> EdgeErrors:
    """Propagate the noise of the signal to every edge, by the delta method.

    Each edge is differentiated by the fODFs that its streamlines pass through, and these by the
    signal. Its streamlines are tracked again for it, so that memory stays bounded. Takes as long
    as some ten backward passes.

    Parameters
    ----------
    tracking
        From the fODF to the matrix, on a processor.
    fit
        From the signal to the fODF.
    seeds_mm, directions, mask
        See `FODFToConnectome`.
    sigma
        Standard deviation of the noise in each voxel, in the units of the signal.
    least
        A streamline is left out of edges to which it adds less than this.
    memory_mb
        Gradients to keep before they are summed up, megabytes.

    Returns
    -------
    EdgeErrors
        Edges that no streamline can move have the standard deviation 0.

    Raises
    ------
    InputError
        If ``sigma`` has another shape than the image, is negative or not finite, or the data are
        not on a processor.
    """
    _check(fit.dwi, sigma)
    with torch.no_grad():
        field = tracking.field_of(fit.fodf)
        regions = tracking.regions_with(mask)
        numbers, ends_mm, count = _track_all(tracking, field, regions, seeds_mm, directions)
        members = find_memberships(tracking.connectome, ends_mm, least)
        n_nodes = len(count)
        total = VarianceSum(fit, sigma, field, memory_mb, n_nodes**2)
        tracker = _Tracker(tracking, field, regions, seeds_mm, directions)
        for edges in tracker.gradients(members, numbers):
            total.add(edges)
        upper = total.variances().reshape(n_nodes, n_nodes)
    return EdgeErrors(count, (upper + upper.triu(1).T).sqrt())


def _track_all(
    tracking: FODFToConnectome,
    field: FodfField,
    regions: Regions,
    seeds_mm: Tensor,
    directions: Tensor,
) -> tuple[Int[Tensor, " m"], Float[Tensor, "m 2 3"], Float[Tensor, "node node"]]:
    """Track every seed: the seed and the ends of each streamline, and the soft connectome."""
    n_nodes = len(tracking.connectome.node_labels)
    count = torch.zeros(n_nodes, n_nodes, dtype=torch.float64)
    numbers = [torch.zeros(0, dtype=torch.int64)]
    ends = [torch.zeros(0, 2, 3, dtype=field.dtype)]
    for first in range(0, len(seeds_mm), tracking.seeds_per_chunk):
        some = slice(first, first + tracking.seeds_per_chunk)
        given = seeds_mm[some].to(field.dtype), directions[some].to(field.dtype)
        found = track_field(field, *given, tracking.config, regions, tracking.anatomy)
        numbers.append(found.seed_index + first)
        ends.append(found.ends())
        count += tracking.sum_up(field, found)
    return torch.cat(numbers), torch.cat(ends), count


class _Tracker:
    """Tracks the streamlines of edges again, and differentiates the edges."""

    def __init__(
        self,
        tracking: FODFToConnectome,
        field: FodfField,
        regions: Regions,
        seeds_mm: Tensor,
        directions: Tensor,
    ) -> None:
        self.tracking, self.field, self.regions = tracking, field, regions
        self.seeds_mm, self.directions = seeds_mm.to(field.dtype), directions.to(field.dtype)
        rules = TrackingRules.from_config(
            tracking.config, field.grid.voxel_size_mm, stop_at_includes=regions.stop_at_includes
        )
        bits = compile_regions(regions, field.device)
        self.job = Job(field.lmax, field.row, field.grid.ras2vox, rules, bits)

    def gradients(
        self, members: Memberships, numbers: Int[Tensor, " m"]
    ) -> Iterator[EdgeGradients]:
        """Give the gradients of some edges after others; large edges come in several parts.

        Parameters
        ----------
        members
            Edge by edge.
        numbers
            Seed of each streamline that they refer to.
        """
        for first in range(0, len(members), _MEMBERS_AT_ONCE):
            some = slice(first, first + _MEMBERS_AT_ONCE)
            edge, sizes = torch.unique_consecutive(members.edge[some], return_counts=True)
            streamline, place = torch.unique(members.streamline[some], return_inverse=True)
            found = self._track(numbers[streamline])
            starts = unit_starts(self.directions[numbers[streamline]])
            weight, survival = self._survival(found)
            share = (members.shares[some] * weight[place]).to(self.field.dtype)
            by_ends = members.cotangents[some] * weight[place, None, None]
            sums = pull_back_groups(
                self.job,
                self.field.table,
                found.points,
                found.offsets,
                found.seed_vertex,
                starts,
                place,
                by_ends.to(self.field.dtype),
                share,
                survival,
                torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]),
            )
            yield EdgeGradients(edge, sums)

    def _survival(self, found: Streamlines) -> tuple[Tensor, Tensor]:
        """Give each streamline's weight, and the derivative of its logarithm by amplitudes."""
        if self.tracking.survival_softness is None:
            return found.points.new_ones(len(found)), found.points.new_zeros(len(found.points))
        surplus = self.tracking.surplus(self.field, found)
        slope = torch.sigmoid(-surplus) / self.tracking.survival_softness
        return survival_of(surplus, found), slope

    def _track(self, numbers: Int[Tensor, " n"]) -> Streamlines:
        given = self.seeds_mm[numbers], self.directions[numbers]
        config, anatomy = self.tracking.config, self.tracking.anatomy
        return track_field(self.field, *given, config, self.regions, anatomy)


def _check(dwi: Tensor, sigma: Tensor) -> None:
    bad = int((~(torch.isfinite(sigma) & (sigma >= 0))).sum())
    if sigma.shape != dwi.shape[:3] or bad:
        raise InputError(
            f"The noise level is of shape {tuple(sigma.shape)}, {bad} values of it negative or "
            f"not finite; the image is {tuple(dwi.shape[:3])}.",
            where="sigma",
            remedy="Give one value of 0 or more for each voxel of the image.",
        )
    if dwi.device.type != "cpu" or sigma.device.type != "cpu":
        raise InputError(
            "Standard deviations are worked out on a processor only.",
            where="dwi",
            remedy="Move the model and what it is given: .cpu().",
        )
