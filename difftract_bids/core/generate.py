"""From numbered seeds to streamlines, chunk after chunk, in bounded memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch

from difftract_bids.config import TrackingConfig
from difftract_bids.core.anatomy import Anatomy
from difftract_bids.core.field import DirectionField
from difftract_bids.core.propagate import track_field
from difftract_bids.core.regions import Regions
from difftract_bids.core.seed_source import SeedSource
from difftract_bids.core.streamlines import Streamlines
from difftract_bids.errors import ConfigError

#: Seeds tried for each streamline asked for, before giving up; tckgen's default.
_SEEDS_PER_STREAMLINE = 1000
#: Seeds without a single streamline after which there is no hope.
_HOPELESS = 1_000_000
#: Fewer seeds at a time do not keep processors busy.
_SMALLEST_CHUNK = 256


class NoStreamlinesWarning(UserWarning):
    """So many seeds gave nothing that no more were tried."""


def generate(
    field: DirectionField,
    source: SeedSource,
    config: TrackingConfig,
    regions: Regions | None = None,
    anatomy: Anatomy | None = None,
    *,
    n_seeds: int | None = None,
    n_streamlines: int | None = None,
    seeds_per_chunk: int = 16_384,
) -> Iterator[Streamlines]:
    """Track the seeds of a source in order, until there are enough seeds or streamlines.

    The result does not depend on the chunks: with ``n_streamlines`` it is the streamlines of the
    lowest seed numbers, and no seed after the last of these counts as tried.

    Parameters
    ----------
    field, config, regions, anatomy
        See `track_field`.
    source
        Where seeds come from.
    n_seeds
        Seeds to try at most. If left out, all of a finite source; of an infinite one 1000 for each
        streamline asked for, and no more than a million while they give nothing.
    n_streamlines
        Streamlines to keep at most; all if left out.
    seeds_per_chunk
        Seeds tracked at a time at most: it bounds memory, and speed a little.

    Yields
    ------
    Streamlines
        Those of the next seeds. ``seed_index`` counts from the first seed of the source,
        ``seed_status`` has an entry for each seed of this chunk.

    Raises
    ------
    ConfigError
        If nothing ends it, or a number is less than 1.
    SeedError, InputError
        See `track_field`.

    Warns
    -----
    NoStreamlinesWarning
        If a million seeds of an infinite source gave no streamline.
    """
    total = source.total
    limit = _seed_limit(total, n_seeds, n_streamlines, seeds_per_chunk)
    may_be_hopeless = n_seeds is None and total is None
    first = kept = 0
    while first < limit and (n_streamlines is None or kept < n_streamlines):
        n = min(seeds_per_chunk, limit - first)
        if n_streamlines is not None:
            n = min(n, _seeds_needed(n_streamlines - kept, kept, first))
        if may_be_hopeless and not kept:
            if first >= _HOPELESS:
                break
            n = min(n, _HOPELESS - first)
        seeds_mm, directions = source.draw(first, n)
        found = track_field(
            field,
            seeds_mm.to(field.device, field.dtype),
            directions.to(field.device, field.dtype),
            config,
            regions,
            anatomy,
        )
        if n_streamlines is not None:
            found = _lowest(found, n_streamlines - kept)
        kept += len(found)
        yield replace(found, seed_index=found.seed_index + first)
        first += len(found.seed_status)
    if may_be_hopeless and not kept and first >= _HOPELESS:
        _warn_of_nothing(first)


def _seed_limit(
    total: int | None, n_seeds: int | None, n_streamlines: int | None, seeds_per_chunk: int
) -> int:
    numbers = {
        "n_seeds": n_seeds,
        "n_streamlines": n_streamlines,
        "seeds_per_chunk": seeds_per_chunk,
    }
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ConfigError(
                f"{name} is {number}.", where=name, remedy="Give a whole number of 1 or more."
            )
    tries = n_seeds
    if tries is None and n_streamlines is not None and total is None:
        tries = _SEEDS_PER_STREAMLINE * n_streamlines
    limits = [limit for limit in (total, tries) if limit is not None]
    if not limits:
        raise ConfigError(
            "There is no end to these seeds: neither their number nor that of streamlines is "
            "given.",
            where="n_seeds, n_streamlines",
            remedy="Give one of them, or both.",
        )
    return min(limits)


def _seeds_needed(wanted: int, kept: int, tried: int) -> int:
    """Guess how many seeds the missing streamlines take, a tenth more than on average."""
    acceptance = (kept + 1) / (tried + 2)
    return max(_SMALLEST_CHUNK, round(1.1 * wanted / acceptance))


def _lowest(found: Streamlines, n: int) -> Streamlines:
    """Keep the first ``n`` streamlines, and no seed after the last of them."""
    if len(found) < n:
        return found
    return replace(
        found,
        points=found.points[: int(found.offsets[n])],
        offsets=found.offsets[: n + 1],
        seed_index=found.seed_index[:n],
        seed_vertex=found.seed_vertex[:n],
        stop_reason=found.stop_reason[:n],
        seed_status=found.seed_status[: int(found.seed_index[n - 1]) + 1],
    )


def _warn_of_nothing(tried: int) -> None:
    warnings.warn(
        f"{tried:,} seeds gave no streamline, and no more were tried. Regions that no streamline "
        "visits, a cutoff above every peak or a large least length are the usual reasons.",
        NoStreamlinesWarning,
        stacklevel=3,
    )


def choose_device(config: TrackingConfig) -> torch.device:
    """Choose where to track: on a GPU only where the kernels can be used on it.

    Parameters
    ----------
    config
        Its ``device`` is followed; ``"auto"`` is a GPU if there is one that kernels can use.

    Raises
    ------
    ConfigError
        If a GPU is asked for and there is none, or the backend is for another device.
    """
    wanted = config.device
    by_kernels = config.algorithm == "sd_stream" and config.backend in ("auto", "cuda")
    if wanted == "auto" and config.backend == "cuda":
        wanted = "cuda"
    if wanted == "cpu" and config.backend == "cuda":
        raise _no_device("The backend is cuda, and the device is cpu.")
    if wanted == "cuda" and config.backend == "cpu":
        raise _no_device("The backend is cpu, and the device is cuda.")
    if wanted == "cpu" or (wanted == "auto" and not by_kernels):
        return torch.device("cpu")
    missing = _missing_for_cuda()
    if missing and wanted == "cuda":
        raise _no_device(missing)
    return torch.device("cpu" if missing else "cuda")


def _missing_for_cuda() -> str:
    """Say what keeps the kernels off a GPU; nothing if nothing does."""
    if not torch.cuda.is_available():
        return "PyTorch finds no NVIDIA GPU, or was built without CUDA."
    try:
        from numba import cuda

        usable = bool(cuda.is_available())
    except Exception as error:  # noqa: BLE001 - a driver that does not fit raises many things
        return f"Numba cannot use the NVIDIA GPU: {error}."
    return "" if usable else "Numba cannot use the NVIDIA GPU."


def _no_device(what: str) -> ConfigError:
    return ConfigError(
        what,
        where="TrackingConfig.device",
        remedy="Use the device auto or cpu and the backend auto; for a GPU install a CUDA build "
        "of PyTorch and the extra difftract-bids[cuda].",
    )
