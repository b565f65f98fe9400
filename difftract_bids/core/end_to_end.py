"""From the scanner's signal to the connectome, as one differentiable function."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from difftract_bids.config import TrackingConfig
from difftract_bids.core.anatomy import Anatomy
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.field import FodfField
from difftract_bids.core.propagate import track_field
from difftract_bids.core.regions import RegionImage, Regions
from difftract_bids.core.rules import mean_voxel_size_mm
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.core.survival import surplus_in, survival_of
from difftract_bids.errors import ConfigError, InputError

#: Seeds tracked at a time: their vertices are what takes memory.
SEEDS_PER_CHUNK = 16_384


class FODFToConnectome(nn.Module):
    """Streamlines from given seeds, and their soft connectome.

    Seeds are tracked some at a time. A backward pass tracks them again, chunk by chunk, so that
    memory does not grow with their number: it holds the vertices of one chunk.

    Parameters
    ----------
    connectome
        From streamline ends to the matrix.
    vox2ras
        Affine of the fODF image, voxels to RAS+ millimetres.
    config
        How to track; MRtrix's defaults if left out. Gradients are those of converged peaks: for
        checks by finite differences set ``peak_tolerance=1e-12`` and use float64.
    regions
        Where streamlines may, must and must not go.
    survival_softness
        Weigh each streamline by `soft_survival` with the tracking's cutoff and this softness; 1
        each if left out. Its margin is the radius of the connectome: one that ended nearer to its
        end than that would connect the same nodes.
    seeds_per_chunk
        How many seeds are tracked at a time.
    anatomy
        Tissue that streamlines obey, if any.

    Raises
    ------
    ConfigError
        If the softness or the number of seeds is not above 0.
    """

    def __init__(
        self,
        connectome: SoftConnectome,
        vox2ras: Float[Tensor, "4 4"],
        config: TrackingConfig | None = None,
        regions: Regions | None = None,
        *,
        survival_softness: float | None = None,
        seeds_per_chunk: int = SEEDS_PER_CHUNK,
        anatomy: Anatomy | None = None,
    ) -> None:
        super().__init__()
        _require_positive("survival_softness", survival_softness)
        _require_positive("seeds_per_chunk", seeds_per_chunk)
        self.connectome = connectome
        self.register_buffer("vox2ras", vox2ras.detach().double())
        size_mm = mean_voxel_size_mm(vox2ras)
        self.anatomy = anatomy
        self.config = (config or TrackingConfig()).resolve(size_mm, act=anatomy is not None)
        self.regions = regions or Regions()
        self.survival_softness = survival_softness
        self.seeds_per_chunk = seeds_per_chunk

    def forward(
        self,
        fodf: Float[Tensor, "x y z coeff"],
        seeds_mm: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        mask: Bool[Tensor, "x y z"] | None = None,
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "node node"]:
        """Track, and sum up the soft connectome.

        Parameters
        ----------
        fodf
            SH coefficients, MRtrix's basis; differentiable.
        seeds_mm, directions
            Where and in which direction to start, see `track`; positions are differentiable.
        mask
            Where streamlines may go, on the fODF's grid.
        weights
            Weight of the streamline of each seed; 1 if left out. Differentiable.

        Returns
        -------
        Tensor
            Symmetric matrix in float64, see `SoftConnectome`.

        Raises
        ------
        InputError
            If there is not a weight for each seed.
        FodfError, SeedError
            See `track`.
        """
        if weights is not None and weights.shape != seeds_mm.shape[:1]:
            raise InputError(
                f"There are {tuple(weights.shape)} weights for {len(seeds_mm)} seeds.",
                where="weights",
                remedy="Give one number for each seed.",
            )
        field, regions = self.field_of(fodf), self.regions_with(mask)
        n_nodes = len(self.connectome.node_labels)
        total = torch.zeros(n_nodes, n_nodes, dtype=torch.float64, device=fodf.device)
        for first in range(0, len(seeds_mm), self.seeds_per_chunk):
            some = slice(first, first + self.seeds_per_chunk)
            total = total + self._chunk(
                field,
                seeds_mm[some].to(fodf),
                directions[some].to(fodf),
                regions,
                None if weights is None else weights[some],
            )
        return total

    def _chunk(
        self,
        field: FodfField,
        seeds_mm: Tensor,
        directions: Tensor,
        regions: Regions,
        weights: Tensor | None,
    ) -> Tensor:
        """Sum up the streamlines of some seeds, and forget them until the backward pass."""

        def matrix(table: Tensor, seeds_mm: Tensor, weights: Tensor | None) -> Tensor:
            own = replace(field, table=table)
            streamlines = track_field(
                own, seeds_mm, directions, self.config, regions, self.anatomy
            )
            return self.sum_up(own, streamlines, weights)

        given = [x for x in (field.table, seeds_mm, weights) if x is not None]
        if not torch.is_grad_enabled() or not any(x.requires_grad for x in given):
            return matrix(field.table, seeds_mm, weights)
        kept: Tensor = checkpoint(
            matrix, field.table, seeds_mm, weights, use_reentrant=False, preserve_rng_state=False
        )
        return kept

    def sum_up(
        self,
        field: FodfField,
        streamlines: Streamlines,
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "node node"]:
        """Give the soft connectome of streamlines tracked in a field.

        Parameters
        ----------
        field, streamlines
            What was tracked in, and what was found.
        weights
            Weight of each seed.
        """
        weight = None if weights is None else weights[streamlines.seed_index]
        if self.survival_softness is not None:
            survival = survival_of(self.surplus(field, streamlines), streamlines)
            weight = survival if weight is None else weight * survival
        result: Tensor = self.connectome(streamlines.ends(), weight)
        return result

    def surplus(self, field: FodfField, streamlines: Streamlines) -> Float[Tensor, " p"]:
        """Say at each vertex how far above the cutoff it is, in units of the softness."""
        return surplus_in(
            field,
            streamlines,
            cutoff=self.config.cutoff or 0.0,
            softness=self.survival_softness or 0.0,
            margin_mm=self.connectome.radius_mm,
        )

    def field_of(self, fodf: Float[Tensor, "x y z coeff"]) -> FodfField:
        """Prepare an fODF image for tracking."""
        return FodfField.for_tracking(fodf, self.get_buffer("vox2ras"), self.config)

    def regions_with(self, mask: Bool[Tensor, "x y z"] | None) -> Regions:
        """Give the regions, with a mask on the fODF's grid added."""
        if mask is None:
            return self.regions
        own = RegionImage(mask, self.get_buffer("vox2ras"))
        return replace(self.regions, mask=(own, *self.regions.mask))


class DWIToConnectome(nn.Module):
    """Deconvolution, propagation and soft connectome: the matrix as a function of the signal.

    Parameters
    ----------
    deconvolution
        From the signal to the fODF, such as `CSD` or `MSMTCSD`, or a network: a module that is
        called with the DWI and a mask, and gives the fODF or several tissues with white matter's
        first. With ``learn_response`` the matrix is differentiable in the response too.
    tracking
        From the fODF to the matrix.

    References
    ----------
    Tournier et al. 2007, doi:10.1016/j.neuroimage.2007.02.016 (deconvolution); Tournier et al.
    2012, doi:10.1002/ima.22005 (propagation); Smith et al. 2015,
    doi:10.1016/j.neuroimage.2014.10.004 (assignment, of which this is a soft form).
    """

    def __init__(self, deconvolution: nn.Module, tracking: FODFToConnectome) -> None:
        super().__init__()
        self.deconvolution, self.tracking = deconvolution, tracking

    def forward(
        self,
        dwi: Float[Tensor, "x y z volume"],
        seeds_mm: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        mask: Bool[Tensor, "x y z"] | None = None,
        weights: Float[Tensor, " n"] | None = None,
    ) -> Float[Tensor, "node node"]:
        """Give the connectome of a signal.

        Parameters
        ----------
        dwi
            Signal; differentiable.
        seeds_mm, directions, weights
            See `FODFToConnectome`.
        mask
            Where fODFs are fitted, and where streamlines may go.

        Returns
        -------
        Tensor
            Symmetric matrix in float64.
        """
        fodf = self.fodf(dwi, mask)
        result: Tensor = self.tracking(fodf, seeds_mm, directions, mask, weights)
        return result

    def fodf(
        self, dwi: Float[Tensor, "x y z volume"], mask: Bool[Tensor, "x y z"] | None = None
    ) -> Float[Tensor, "x y z coeff"]:
        """Give the fODF of white matter."""
        return white_matter(self.deconvolution(dwi, mask))


def white_matter(found: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Take the fODF of white matter from what a deconvolution gives, which is its first part."""
    return found if isinstance(found, Tensor) else found[0]


def _require_positive(name: str, value: float | None) -> None:
    if value is not None and not value > 0:
        raise ConfigError(f"{name} is {value}.", where=name, remedy="Give a number above 0.")
