"""What a scan's target fODF gives from some seeds, and a predicted one from the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from difftract_bids.config import TrackingConfig
from difftract_bids.core.connectome.soft import SoftConnectome
from difftract_bids.core.end_to_end import FODFToConnectome
from difftract_bids.core.field import FodfField
from difftract_bids.core.propagate import track_field
from difftract_bids.core.regions import RegionImage, Regions
from difftract_bids.core.rules import mean_voxel_size_mm
from difftract_bids.core.seeding import RandomSeeds
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.errors import InputError
from difftract_bids.learn.losses.density import tract_density
from difftract_bids.learn.losses.propagated import Propagated
from difftract_bids.learn.losses.survival import Amplitudes


@dataclass(frozen=True, eq=False)
class Propagation:
    """From an fODF and seeds to everything that losses compare, in one tracking.

    Attributes
    ----------
    vox2ras
        Affine of the fODFs, voxels to RAS+ millimetres.
    mask
        Where streamlines may go.
    tracking
        How.
    connectome
        From their ends to a matrix; ``None`` makes none.
    survival_softness
        Weigh streamlines of the connectome by their `soft_survival`; all 1 if left out.
    with_density
        Whether densities are worked out.
    counts
        Let every streamline weigh 1, with the derivative of the logarithm of its survival: the
        matrix is one of counts, as others make it, and its derivative (that of the expected
        count, if survival were a probability: Williams 1992, doi:10.1007/BF00992696) still knows
        what makes streamlines end.
    """

    vox2ras: Float[Tensor, "4 4"]
    mask: Bool[Tensor, "x y z"]
    tracking: TrackingConfig
    connectome: SoftConnectome | None = None
    survival_softness: float | None = None
    with_density: bool = False
    counts: bool = False

    def run(
        self,
        fodf: Float[Tensor, "x y z coeff"],
        seeds_mm: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        beside: tuple[FodfField, Streamlines] | None = None,
    ) -> Propagated:
        """Track, differentiably in ``fodf``.

        Memory is that of the vertices and some numbers for each of them.

        Parameters
        ----------
        fodf
            SH coefficients, MRtrix's basis, scanner axes.
        seeds_mm, directions
            Where and in which direction to start.
        beside
            The target and its streamlines, to compare amplitudes with.

        Raises
        ------
        FodfError, SeedError
            See `track`.
        """
        if fodf.shape[:3] != self.mask.shape:
            raise InputError(
                f"The fODFs are an image of {tuple(fodf.shape)}, the mask of "
                f"{tuple(self.mask.shape)} voxels.",
                where="fodf",
                remedy="Give both on one grid.",
            )
        # A network may work at half precision; positions in a head cannot.
        fodf = fodf.float() if fodf.dtype.itemsize < 4 else fodf
        with torch.autocast(fodf.device.type, enabled=False):
            field = self.field_of(fodf)
            starts = seeds_mm.to(fodf), directions.to(fodf)
            streamlines = track_field(field, *starts, self._config, self._regions)
            matrix = self._matrix(field, streamlines)
            density = None
            if self.with_density:
                density = tract_density(streamlines, tuple(self.mask.shape), self.vox2ras)
            amplitudes = None if beside is None else self._amplitudes(field, streamlines, *beside)
        return Propagated(streamlines, matrix, density, amplitudes)

    def field_of(self, fodf: Float[Tensor, "x y z coeff"]) -> FodfField:
        """Prepare an fODF image for tracking."""
        return FodfField.for_tracking(fodf, self.vox2ras, self._config)

    def _amplitudes(
        self, field: FodfField, found: Streamlines, target: FodfField, wanted: Streamlines
    ) -> Amplitudes:
        return Amplitudes.along(
            (wanted, found),
            field,
            target,
            self.mask,
            cutoff=self._config.cutoff or 0.0,
            softness=self.survival_softness or 0.0,
        )

    def _matrix(
        self, field: FodfField, streamlines: Streamlines
    ) -> Float[Tensor, "node node"] | None:
        maker = self._maker
        if maker is None or self.connectome is None:
            return None
        if not self.counts or maker.survival_softness is None:
            return maker.sum_up(field, streamlines)
        counts = streamlines.n_vertices()
        owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        sure = torch.nn.functional.logsigmoid(maker.surplus(field, streamlines))
        logs = sure.new_zeros(len(counts)).index_add(0, owner, sure)
        matrix: Tensor = self.connectome(streamlines.ends(), (logs - logs.detach()).exp())
        return matrix

    @cached_property
    def _config(self) -> TrackingConfig:
        return self.tracking.resolve(mean_voxel_size_mm(self.vox2ras))

    @cached_property
    def _maker(self) -> FODFToConnectome | None:
        if self.connectome is None:
            return None
        return FODFToConnectome(
            self.connectome,
            self.vox2ras,
            self.tracking,
            survival_softness=self.survival_softness,
        )

    @cached_property
    def _regions(self) -> Regions:
        return Regions(mask=(RegionImage(self.mask, self.vox2ras),))


@dataclass(frozen=True, eq=False)
class Drawn:
    """Some seeds, and what is wanted from them.

    Attributes
    ----------
    seeds_mm, directions
        Where and in which direction to start.
    target
        What the target gives from there, without gradients.
    """

    seeds_mm: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    target: Propagated


@dataclass(frozen=True, eq=False)
class PropagationTarget:
    """The propagation of one scan, prepared once.

    Attributes
    ----------
    fodf
        Target: SH coefficients in MRtrix's basis, scanner axes, any lmax.
    vox2ras
        Affine of the scan, voxels to RAS+ millimetres.
    mask
        Where streamlines may go.
    tracking
        How.
    parcellation
        Labels on the scan's grid; without, there are no connectomes.
    node_labels
        The label of each row; those in the parcellation if left out.
    sigma_mm
        Width of the soft assignment of ends, millimetres.
    survival_softness
        Of streamlines at the cutoff, fODF amplitude; ``None`` counts every streamline fully.
    seed_mask
        Where seeds are drawn; ``mask`` if left out.
    with_density
        Whether densities are worked out.
    counts
        Let every streamline of the connectome count 1, see `Propagation`.
    with_amplitudes
        Whether amplitudes along streamlines are compared.

    Raises
    ------
    InputError, AtlasError
        If images are not on one grid, or the parcellation has no node.
    """

    fodf: Float[Tensor, "x y z coeff"]
    vox2ras: Float[Tensor, "4 4"]
    mask: Bool[Tensor, "x y z"]
    tracking: TrackingConfig
    parcellation: Int[Tensor, "x y z"] | None = None
    node_labels: Int[Tensor, " node"] | None = None
    sigma_mm: float = 2.0
    survival_softness: float | None = 0.05
    seed_mask: Bool[Tensor, "x y z"] | None = None
    with_density: bool = False
    counts: bool = False
    with_amplitudes: bool = False

    def __post_init__(self) -> None:
        """Check that everything is on one grid, before anything is tracked."""
        for name in ("fodf", "parcellation", "seed_mask"):
            image = getattr(self, name)
            if image is not None and image.shape[:3] != self.mask.shape:
                raise InputError(
                    f"The image is {tuple(image.shape)}, the mask {tuple(self.mask.shape)}.",
                    where=f"PropagationTarget.{name}",
                    remedy="Resample it to the grid of the mask.",
                )
        _ = self.propagation

    @cached_property
    def propagation(self) -> Propagation:
        """How this scan is tracked."""
        connectome = None
        if self.parcellation is not None:
            connectome = SoftConnectome(
                self.parcellation,
                self.vox2ras,
                sigma_mm=self.sigma_mm,
                node_labels=self.node_labels,
            )
        return Propagation(
            self.vox2ras,
            self.mask,
            self.tracking,
            connectome,
            self.survival_softness,
            self.with_density,
            self.counts,
        )

    @torch.no_grad()
    def draw(self, n_seeds: int, random_seed: int) -> Drawn:
        """Draw seeds in the mask, and track the target from them.

        Parameters
        ----------
        n_seeds
            How many; some of them give no streamline.
        random_seed
            Another one gives unrelated seeds.

        Raises
        ------
        SeedError
            If the mask is empty.
        """
        where = self.mask if self.seed_mask is None else self.seed_mask
        seeds, directions = RandomSeeds(where, self.vox2ras, random_seed).draw(0, n_seeds)
        return Drawn(seeds, directions, self.propagation.run(self.fodf, seeds, directions))

    @cached_property
    def _field(self) -> FodfField:
        return self.propagation.field_of(self.fodf)

    def found(self, fodf: Float[Tensor, "x y z coeff"], drawn: Drawn) -> Propagated:
        """Track a predicted fODF from the same seeds; differentiable in it."""
        beside = None
        if self.with_amplitudes and drawn.target.streamlines is not None:
            beside = self._field, drawn.target.streamlines
        return self.propagation.run(fodf, drawn.seeds_mm, drawn.directions, beside)
