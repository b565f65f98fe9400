"""The door to tracking: checks what is given, and chooses who does it."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from difftract_bids.config import TrackingConfig
from difftract_bids.core.adjoint import track_by_kernels
from difftract_bids.core.anatomy import Anatomy
from difftract_bids.core.field import DirectionField, FodfField
from difftract_bids.core.reference import track_by_reference
from difftract_bids.core.regions import RegionImage, Regions, compile_regions
from difftract_bids.core.rules import TrackingRules, mean_voxel_size_mm
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.core.tissue_interface import crop_ends
from difftract_bids.core.uncompiled import uncompiled
from difftract_bids.errors import ConfigError, FodfError, SeedError


@uncompiled
def track(
    fodf: Float[Tensor, "x y z coeff"],
    seeds_mm: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    vox2ras: Float[Tensor, "4 4"],
    config: TrackingConfig,
    mask: Bool[Tensor, "x y z"] | None = None,
    regions: Regions | None = None,
    anatomy: Anatomy | None = None,
) -> Streamlines:
    """Follow fODF peaks from each seed, both ways, by ``config.integrator``.

    Differentiable in ``fodf`` and ``seeds_mm`` wherever these require it: each vertex depends on
    the peaks before it, and peaks by the implicit function theorem on the fODF and on their
    position. What ends a streamline is a decision, and has no derivative. The gradient is that of
    converged peaks; at the default ``peak_tolerance``, where a search stops as early as MRtrix's,
    it differs by some per cent from that of the unconverged search.

    Parameters
    ----------
    fodf
        Even SH coefficients in MRtrix's basis, float32 or float64. Voxels of zeros are outside.
    seeds_mm
        Where to start, RAS+ millimetres.
    directions
        Where the first peak search starts, scanner axes; not necessarily of unit length.
    vox2ras
        Affine from voxels to RAS+ millimetres.
    config
        Settings; ``None`` in them means MRtrix's default. (Its ``device`` is the application's:
        here the fODF says where to track.)
    mask
        Where streamlines may go (nearest voxel), on the fODF's grid; short for
        ``Regions(mask=...)``.
    regions
        Where streamlines may, must and must not go, on any grid.
    anatomy
        Tissue that streamlines obey (anatomically constrained tracking); on any grid.

    Returns
    -------
    Streamlines
        The streamlines kept, in the dtype and on the device of ``fodf``; possibly none.

    Raises
    ------
    FodfError
        If the fODF, its affine or the mask cannot be used.
    SeedError
        If seeds or directions have another shape, dtype or device, or are not finite; the message
        counts them.
    InputError
        If a region cannot be used.

    References
    ----------
    Tournier et al. 2012, doi:10.1002/ima.22005, section 2.3.
    """
    _check_mask(mask, fodf)
    settings = config.resolve(mean_voxel_size_mm(vox2ras), act=anatomy is not None)
    with torch.autocast(fodf.device.type, enabled=False):
        field = FodfField.for_tracking(fodf, vox2ras, settings)
        regions = regions or Regions()
        if mask is not None:
            own = RegionImage(mask, vox2ras)
            regions = replace(regions, mask=(own, *regions.mask))
        return track_field(field, seeds_mm, directions, settings, regions, anatomy)


@uncompiled
def track_field(
    field: DirectionField,
    seeds_mm: Float[Tensor, "n 3"],
    directions: Float[Tensor, "n 3"],
    config: TrackingConfig,
    regions: Regions | None = None,
    anatomy: Anatomy | None = None,
) -> Streamlines:
    """Follow any direction field from each seed, both ways; see `track`.

    Parameters
    ----------
    field
        Where to go from a position. A `FodfField` is followed by the kernels, unless
        ``config.backend`` is ``"reference"``; any other one by the reference in PyTorch.
    seeds_mm, directions
        See `track`.
    config
        Settings. The cutoff and the peak tolerance are the field's own. For a field without
        voxels all lengths must be given.
    regions
        Where streamlines may, must and must not go.
    anatomy
        Tissue that streamlines obey. A field without ``strength``, such as a `CallableField`, does
        not say where it is weakest: streamlines end where they leave deep grey matter then.

    Raises
    ------
    SeedError, InputError
        See `track`.
    ConfigError
        If a length is left open that would follow from the voxel size, or the backend does not
        fit the field or where it is.
    """
    _check_seeds(seeds_mm, directions, field)
    regions = regions or Regions()
    grid = getattr(field, "grid", None)
    rules = TrackingRules.from_config(
        config,
        None if grid is None else grid.voxel_size_mm,
        stop_at_includes=regions.stop_at_includes,
        act=anatomy is not None,
    )
    bits = compile_regions(regions, field.device)
    starts = unit_starts(directions)
    if _kernels_wanted(field, config) and isinstance(field, FodfField):
        result = track_by_kernels(field, seeds_mm, starts, rules, bits, anatomy)
        return _cropped(result, anatomy)
    result = _cropped(track_by_reference(field, seeds_mm, starts, rules, bits, anatomy), anatomy)
    inputs = (seeds_mm, *field.parameters())
    differentiable = torch.is_grad_enabled() and any(given.requires_grad for given in inputs)
    if differentiable and not result.points.requires_grad:
        # Every seed was rejected: still a part of the graph, so that a training loop goes on.
        nothing = sum(0 * given.sum() for given in inputs)
        return replace(result, points=result.points + nothing)
    return result


def _cropped(streamlines: Streamlines, anatomy: Anatomy | None) -> Streamlines:
    if anatomy is None or not anatomy.crop_at_gmwmi:
        return streamlines
    return crop_ends(streamlines, anatomy)


def unit_starts(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Give directions unit length; what they hang together with is cut off."""
    given = directions.detach()
    given = given / given.abs().amax(1, keepdim=True)  # no square is too large or too small
    return given / torch.linalg.vector_norm(given, dim=1, keepdim=True)


def _kernels_wanted(field: DirectionField, config: TrackingConfig) -> bool:
    """Say whether the kernels are to be used, and refuse where they cannot."""
    if config.backend in ("auto", "reference"):
        return config.backend == "auto"
    if not isinstance(field, FodfField):
        raise ConfigError(
            f"The kernels follow fODFs only, not a {type(field).__name__}.",
            where="TrackingConfig.backend",
            remedy='Set it to "auto" or "reference".',
        )
    kind = "cuda" if field.device.type == "cuda" else "cpu"
    if config.backend != kind:
        raise ConfigError(
            f"The backend is {config.backend}, but the fODF is on {field.device}.",
            where="TrackingConfig.backend",
            remedy=f'Move the fODF and the seeds, or set it to "{kind}" or "auto".',
        )
    return True


class StreamlinePropagator(nn.Module):
    """`track` as a module, to stand behind a network that predicts fODFs.

    Parameters
    ----------
    config
        Settings; MRtrix's defaults if left out.
    """

    def __init__(self, config: TrackingConfig | None = None) -> None:
        super().__init__()
        self.config = config or TrackingConfig()

    def forward(
        self,
        fodf: Float[Tensor, "x y z coeff"],
        seeds_mm: Float[Tensor, "n 3"],
        directions: Float[Tensor, "n 3"],
        vox2ras: Float[Tensor, "4 4"],
        mask: Bool[Tensor, "x y z"] | None = None,
        regions: Regions | None = None,
        anatomy: Anatomy | None = None,
    ) -> Streamlines:
        """Call `track` with the module's settings."""
        return track(fodf, seeds_mm, directions, vox2ras, self.config, mask, regions, anatomy)

    def extra_repr(self) -> str:
        """Show the settings when the module is printed."""
        return repr(self.config)


def _check_mask(mask: Tensor | None, fodf: Tensor) -> None:
    if mask is None:
        return
    if mask.shape != fodf.shape[:3] or mask.dtype != torch.bool or mask.device != fodf.device:
        raise FodfError(
            f"The mask is {mask.dtype} {tuple(mask.shape)} on {mask.device}; it must be "
            f"torch.bool {tuple(fodf.shape[:3])} on {fodf.device}, like the fODF.",
            where="mask",
            remedy="Resample it to the fODF's grid and compare it with zero.",
        )


def _check_seeds(seeds_mm: Tensor, directions: Tensor, field: DirectionField) -> None:
    for name, given in (("seeds_mm", seeds_mm), ("directions", directions)):
        if given.ndim != 2 or given.shape[1] != 3 or len(given) != len(seeds_mm):
            raise SeedError(
                f"{name} has the shape {tuple(given.shape)}; one row of three numbers for each "
                "seed is needed.",
                where=name,
                remedy="Give as many directions as seeds, each as (x, y, z).",
            )
        if given.dtype != field.dtype or given.device != field.device:
            raise SeedError(
                f"{name} is {given.dtype} on {given.device}, the field {field.dtype} on "
                f"{field.device}.",
                where=name,
                remedy=f"Convert it: {name}.to(device, dtype).",
            )
        bad = int((~torch.isfinite(given.detach())).any(1).sum())
        if bad:
            raise SeedError(
                f"{bad} of {len(given)} rows of {name} are not finite.",
                where=name,
                remedy="Leave them out.",
            )
    zero = int((directions.detach() == 0).all(1).sum())
    if zero:
        raise SeedError(
            f"{zero} of {len(directions)} directions are zero.",
            where="directions",
            remedy="A peak search needs somewhere to start: give any unit vector.",
        )
