"""What one subject's fODF is adjusted to: a connectome, or a tractogram."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.config import TrackingConfig
from difftract_bids.config.training import LossConfig
from difftract_bids.core.connectome.checks import check_finite, check_streamlines
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.interpolation import Grid
from difftract_bids.core.rules import mean_voxel_size_mm
from difftract_bids.core.seeding import RandomSeeds
from difftract_bids.errors import InputError
from difftract_bids.learn.losses.density import tract_density
from difftract_bids.learn.losses.propagated import Propagated
from difftract_bids.learn.resampling import Middles
from difftract_bids.learn.targets import Drawn, Propagation

#: Relative difference of two edges that must be one.
_ASYMMETRY = 1e-4


@dataclass(frozen=True, eq=False)
class Subject:
    """What is adjusted.

    Attributes
    ----------
    fodf, vox2ras
        fODFs, and their affine to RAS+ millimetres.
    mask
        Where streamlines may go.
    tracking
        How.
    """

    fodf: Float[Tensor, "x y z coeff"]
    vox2ras: Float[Tensor, "4 4"]
    mask: Bool[Tensor, "x y z"]
    tracking: TrackingConfig


class Wanted(Protocol):
    """A target, prepared for one subject."""

    @property
    def propagation(self) -> Propagation:
        """How the subject's fODFs are tracked."""

    def draw(self, n_seeds: int, random_seed: int) -> Drawn:
        """Choose seeds, and say what is wanted from them."""

    def found(self, fodf: Float[Tensor, "x y z coeff"], drawn: Drawn) -> Propagated:
        """Track from these seeds; differentiable in the fODFs."""


class Target(Protocol):
    """What an fODF may be adjusted to."""

    @property
    def losses(self) -> LossConfig:
        """How the result is compared with it, unless somebody chooses otherwise."""

    def wanted_of(
        self, subject: Subject, n_seeds: int, random_seed: int, losses: LossConfig
    ) -> Wanted:
        """Prepare it; seeds of that number and random seed are those that judge the result."""


@dataclass(frozen=True, eq=False)
class ConnectomeTarget:
    """A connectome of any scale.

    It is compared after it was brought to the total that the subject's fODFs give at the start,
    edge by edge (`log_count_loss`). A matrix with nothing on its diagonal says nothing about the
    connections within a node; they are not compared then. An upper triangle is completed.

    Attributes
    ----------
    matrix
        Edges, none below 0.
    parcellation, vox2ras
        Label image of the nodes, and its affine to RAS+ millimetres.
    node_labels
        The label of each row.
    sigma_mm
        Width of the soft assignment of ends, millimetres.
    survival_softness
        fODF amplitude within which a vertex near the cutoff makes a streamline unsure, see
        `Propagation.counts`; without, nothing says what makes streamlines end.

    Raises
    ------
    InputError, AtlasError
        If it is not a matrix of these nodes, not finite, negative, not symmetric, or empty.
    """

    matrix: Float[Tensor, "node node"]
    parcellation: Int[Tensor, "x y z"]
    vox2ras: Float[Tensor, "4 4"]
    node_labels: Int[Tensor, " node"]
    sigma_mm: float = 2.0
    survival_softness: float | None = 0.05

    def __post_init__(self) -> None:
        """Check the matrix before anything is tracked."""
        n = len(self.node_labels)
        if self.matrix.shape != (n, n):
            raise _unusable(
                f"is {tuple(self.matrix.shape)}, but the parcellation has {n} nodes",
                "Give a connectome of the same atlas, its nodes in the same order.",
            )
        bad = int((~torch.isfinite(self.matrix) | (self.matrix < 0)).sum())
        if bad:
            raise _unusable(
                f"has {bad} entries that are negative or not finite",
                "Give counts, or weights of 0 or more.",
            )
        if not bool((self.matrix > 0).any()):
            raise _unusable("is empty", "Give one with at least an edge.")
        lower, upper = self.matrix.tril(-1), self.matrix.triu(1)
        apart = float((lower.T - upper).abs().max()) if n > 1 else 0.0
        if bool(lower.any()) and apart > _ASYMMETRY * float(self.matrix.max()):
            raise _unusable(
                f"is not symmetric: edges differ by up to {apart:g} from their opposites",
                "Tractography knows no direction: add it to its transpose.",
            )

    @property
    def losses(self) -> LossConfig:
        """Logarithms of the edges: a few strong ones must not rule what all fODFs become."""
        return LossConfig(fodf=0.0, connectome_log=1.0)

    @cached_property
    def edges(self) -> Float[Tensor, "node node"]:
        """The matrix with both triangles, float64."""
        upper = self.matrix.double().triu(1)
        return upper + upper.T + torch.diag(self.matrix.double().diagonal())

    def wanted_of(
        self,
        subject: Subject,
        n_seeds: int,
        random_seed: int,
        losses: LossConfig,  # noqa: ARG002 - a tractogram needs it
    ) -> Wanted:
        """Scale the matrix to what the fODFs give now.

        Raises
        ------
        InputError
            If they connect no nodes.
        """
        propagation = Propagation(
            subject.vox2ras,
            subject.mask,
            subject.tracking,
            SoftConnectome(
                self.parcellation,
                self.vox2ras,
                sigma_mm=self.sigma_mm,
                node_labels=self.node_labels,
            ),
            self.survival_softness,
            counts=True,
        )
        edges = self.edges.to(subject.fodf.device)
        within = bool(edges.diagonal().any())
        unscaled = _WantedConnectome(propagation, torch.zeros_like(edges), within)
        with torch.no_grad():
            now = unscaled.found(subject.fodf, unscaled.draw(n_seeds, random_seed)).connectome
        total = 0.0 if now is None else float(now.triu().sum())
        if not total > 0:
            raise InputError(
                f"The fODFs connect no nodes from {n_seeds} seeds, so there is no scale to "
                "compare the target at.",
                where="parcellation",
                remedy="Check that the parcellation lies where the brain does; give more seeds.",
            )
        share = total / n_seeds / edges.triu().sum()
        return _WantedConnectome(propagation, edges * share, within)


@dataclass(frozen=True, eq=False)
class _WantedConnectome:
    """A matrix at the scale of one seed; ``within`` if connections within nodes count."""

    propagation: Propagation
    edges: Float[Tensor, "node node"]
    within: bool

    def draw(self, n_seeds: int, random_seed: int) -> Drawn:
        source = RandomSeeds(self.propagation.mask, self.propagation.vox2ras, random_seed)
        return Drawn(*source.draw(0, n_seeds), Propagated(connectome=n_seeds * self.edges))

    def found(self, fodf: Float[Tensor, "x y z coeff"], drawn: Drawn) -> Propagated:
        found = self.propagation.run(fodf, drawn.seeds_mm, drawn.directions)
        if self.within or found.connectome is None:
            return found
        between = found.connectome - torch.diag(found.connectome.diagonal())
        return replace(found, connectome=between)


@dataclass(frozen=True, eq=False)
class TractogramTarget:
    """Streamlines that shall be found again from their own middles.

    Seeds are the middles of streamlines, in the direction that these have there. Streamlines are
    compared vertex by vertex at the steps of the tracking (`streamline_losses`), and so are their
    densities. Those whose middle is outside the mask, or that are shorter than two steps, are
    left out.

    Attributes
    ----------
    points_mm, offsets
        Vertices, RAS+ millimetres; streamline ``i`` is ``points_mm[offsets[i]:offsets[i + 1]]``.

    Raises
    ------
    InputError
        If they are no streamlines, none at all, or not finite.
    """

    points_mm: Float[Tensor, "p 3"]
    offsets: Int[Tensor, " n+1"]

    def __post_init__(self) -> None:
        """Check the streamlines before anything is tracked."""
        check_streamlines(self.points_mm, self.offsets)
        if len(self.offsets) < 2 or not len(self.points_mm):
            raise InputError(
                "The target tractogram has no streamlines.",
                where="target",
                remedy="Give one that is not empty.",
            )
        check_finite(self.points_mm, self.offsets)

    @property
    def losses(self) -> LossConfig:
        """Distance, direction, ends and density."""
        return LossConfig(fodf=0.0, points=1.0, directions=1.0, ends=0.1, density=1.0)

    def wanted_of(
        self,
        subject: Subject,
        n_seeds: int,  # noqa: ARG002 - a connectome needs them
        random_seed: int,  # noqa: ARG002
        losses: LossConfig,
    ) -> Wanted:
        """Find the streamlines that start in the mask.

        Raises
        ------
        InputError
            If there are none.
        """
        step_mm = subject.tracking.resolve(mean_voxel_size_mm(subject.vox2ras)).step_size_mm or 1.0
        middles = Middles.of(self.points_mm, self.offsets, step_mm)
        grid = Grid.from_affine(tuple(subject.mask.shape), subject.vox2ras, subject.mask.device)
        voxel = grid.to_voxel(middles.centres_mm().to(subject.mask.device).T)
        inside = grid.is_in(subject.mask, voxel)
        long_enough = middles.half_steps.to(inside.device) > 0
        usable = torch.nonzero(inside & long_enough).squeeze(1).to(self.offsets.device)
        if not len(usable):
            raise InputError(
                f"Of {len(inside)} streamlines {int(inside.sum())} have their middle in the mask, "
                f"and {int(long_enough.sum())} are at least two steps of {step_mm:g} mm long.",
                where="target",
                remedy="Give a tractogram in the space of the diffusion data, RAS+ millimetres.",
            )
        propagation = Propagation(
            subject.vox2ras, subject.mask, subject.tracking, with_density=losses.density > 0
        )
        return _WantedTractogram(propagation, middles, usable)


@dataclass(frozen=True, eq=False)
class _WantedTractogram:
    """The streamlines that can be compared, by number."""

    propagation: Propagation
    middles: Middles
    usable: Int[Tensor, " n"]

    def draw(self, n_seeds: int, random_seed: int) -> Drawn:
        rng = torch.Generator().manual_seed(random_seed % 2**63)
        order = torch.randperm(len(self.usable), generator=rng)[:n_seeds].sort().values
        lines = self.middles.streamlines(self.usable[order.to(self.usable.device)])
        vox2ras, mask = self.propagation.vox2ras, self.propagation.mask
        lines = replace(
            lines,
            **{
                item.name: getattr(lines, item.name).to(mask.device)
                for item in fields(lines)
                if isinstance(getattr(lines, item.name), Tensor)
            },
        )
        density = None
        if self.propagation.with_density:
            density = tract_density(lines, tuple(mask.shape), vox2ras)
        seed = lines.offsets[:-1] + lines.seed_vertex
        directions = lines.points[seed + 1] - lines.points[seed - 1]
        return Drawn(lines.points[seed], directions, Propagated(lines, density=density))

    def found(self, fodf: Float[Tensor, "x y z coeff"], drawn: Drawn) -> Propagated:
        return self.propagation.run(fodf, drawn.seeds_mm, drawn.directions)


def _unusable(what: str, remedy: str) -> InputError:
    return InputError(f"The target connectome {what}.", where="target", remedy=remedy)
