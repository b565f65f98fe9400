"""What is timed of tracking: one function for each job of `JOBS`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import Result, timed

from difftract_bids.core import Streamlines, TrackingConfig, random_seeds, track

#: Seeds of the call that compiles.
_FEW = 64


@dataclass(frozen=True)
class Job:
    """What is asked for, and the image it is asked of."""

    fodf: torch.Tensor
    mask: torch.Tensor
    vox2ras: torch.Tensor
    n_seeds: int
    threads: int
    options: dict[str, Any]

    @classmethod
    def load(cls, given: dict[str, Any]) -> Job:
        folder = Path(given["scene"])
        return cls(
            fodf=torch.from_numpy(np.load(folder / "fod.npy")),
            mask=torch.from_numpy(np.load(folder / "mask.npy")),
            vox2ras=torch.from_numpy(np.load(folder / "affine.npy")),
            n_seeds=given.get("n_seeds", 1000),
            threads=given["threads"],
            options=given,
        )

    def seeds(self, n: int, random_seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        return random_seeds(
            self.mask, self.vox2ras, n, random_seed=random_seed, dtype=torch.float32
        )


def counts(result: Streamlines, n_seeds: int) -> Result:
    return {
        "n_seeds": n_seeds,
        "streamlines": len(result),
        "vertices": len(result.points),
        "points_mib": result.points.nbytes / 2**20,
    }


def forward(job: Job) -> Result:
    """Seeds drawn, fODF transformed, streamlines tracked: all that a call of `track` does."""
    config = TrackingConfig()

    def run(n: int) -> Streamlines:
        with torch.no_grad():
            return track(job.fodf, *job.seeds(n), job.vox2ras, config)

    _, first = timed(lambda: run(_FEW))
    _, again = timed(lambda: run(_FEW))
    result, measured = timed(lambda: run(job.n_seeds))
    own = {"first_call_seconds": first["seconds"], "few_seeds_seconds": again["seconds"]}
    return measured | counts(result, job.n_seeds) | own


def reference(job: Job) -> Result:
    """The same by the readable propagator in PyTorch."""
    config = TrackingConfig(backend="reference")
    with torch.no_grad():
        result, measured = timed(
            lambda: track(job.fodf, *job.seeds(job.n_seeds), job.vox2ras, config)
        )
    return measured | counts(result, job.n_seeds)


def gradient(job: Job) -> Result:
    """Forward, and the gradient by every fODF coefficient and every seed, random cotangents."""
    fodf = job.fodf.requires_grad_()
    spent = [0.0]

    def run(n: int) -> Streamlines:
        seeds, directions = job.seeds(n)
        start = time.perf_counter()
        result = track(fodf, seeds.requires_grad_(), directions, job.vox2ras, TrackingConfig())
        cotangent = torch.randn(result.points.shape, generator=torch.Generator().manual_seed(0))
        spent[0] = time.perf_counter() - start
        result.points.backward(cotangent)
        return result

    _, first = timed(lambda: run(_FEW))
    fodf.grad = None
    result, measured = timed(lambda: run(job.n_seeds))
    measured |= counts(result, job.n_seeds)
    # The cotangents are the caller's: inputs, in the words of the bar.
    peak = measured["peak_mib"] - measured["points_mib"]
    fodf_mib = fodf.nbytes / 2**20
    return measured | {
        "first_call_seconds": first["seconds"],
        "backward_seconds": measured["seconds"] - spent[0],
        "peak_less_cotangents_mib": peak,
        "memory_bar_mib": fodf_mib * (job.threads + 2) + 4 * measured["points_mib"],
    }


def to_file(job: Job) -> Result:
    """Streamlines in chunks, thinned to 0.1 mm and written to a TRX file: tckgen's whole job."""
    from difftract_bids.io.streamline_arrays import StreamlineArrays
    from difftract_bids.io.tractogram_writer import TractogramWriter

    spent = {"writing": 0.0, "vertices": 0, "streamlines": 0}

    def run(n: int, path: Path) -> None:
        shape = tuple(job.mask.shape)
        writer = TractogramWriter(path, vox2ras=job.vox2ras.numpy(), shape=shape, tolerance_mm=0.1)
        with writer:
            for part in _generated(job, n_seeds=n):
                start = time.perf_counter()
                writer.append(StreamlineArrays(part.points.numpy(), part.offsets.numpy()))
                spent["writing"] += time.perf_counter() - start
                spent["vertices"] += len(part.points)
                spent["streamlines"] += len(part)
            start = time.perf_counter()
        spent["writing"] += time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        run(_FEW, Path(folder) / "few.trx")
        spent.update(dict.fromkeys(spent, 0))
        path = Path(folder) / "all.trx"
        _, measured = timed(lambda: run(job.n_seeds, path))
        size = path.stat().st_size / 2**20
    return measured | {
        "n_seeds": job.n_seeds,
        "streamlines": spent["streamlines"],
        "vertices": spent["vertices"],
        "writing_share": spent["writing"] / measured["seconds"],
        "file_mib": size,
    }


def growth(job: Job) -> Result:
    """So many streamlines, chunk after chunk, none of them kept."""

    def run(n: int) -> tuple[int, int]:
        parts = [(len(p), len(p.points)) for p in _generated(job, n_streamlines=n)]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    run(_FEW)
    (streamlines, vertices), measured = timed(lambda: run(job.options["n_streamlines"]))
    return measured | {"streamlines": streamlines, "vertices": vertices}


def _generated(job: Job, **until: int) -> Any:
    from difftract_bids.core.field import FodfField
    from difftract_bids.core.generate import generate
    from difftract_bids.core.propagate import mean_voxel_size_mm
    from difftract_bids.core.seeding import RandomSeeds

    with torch.no_grad():
        field = FodfField.from_fodf(job.fodf, job.vox2ras, cutoff=0.1, peak_tolerance=1e-4)
        config = TrackingConfig().resolve(mean_voxel_size_mm(job.vox2ras))
        yield from generate(field, RandomSeeds(job.mask, job.vox2ras, 1), config, **until)


def lmax(job: Job) -> Result:
    """Time per vertex at another degree: coefficients left out, or zeros added."""
    wanted = job.options["lmax"]
    n = (wanted + 1) * (wanted + 2) // 2
    kept = job.fodf[..., : min(n, job.fodf.shape[3])]
    fodf = torch.nn.functional.pad(kept, (0, n - kept.shape[3])).contiguous()
    found = gradient(Job(fodf, job.mask, job.vox2ras, job.n_seeds, job.threads, job.options))
    ahead = found["seconds"] - found["backward_seconds"]
    return {
        "lmax": wanted,
        "vertices": found["vertices"],
        "forward_ns_per_vertex": 1e9 * ahead / found["vertices"],
        "backward_ns_per_vertex": 1e9 * found["backward_seconds"] / found["vertices"],
    }


def dipy(job: Job) -> Result:
    """DIPY's deterministic tracker on the same fODF, seeds, step, angle, cutoff and lengths.

    Not quite the same job: directions are the 724 of a sphere, no peak is searched between them;
    the fODF's values below the cutoff, relative to its largest one, are dropped.
    """
    from dipy.data import get_sphere
    from dipy.tracking.stopping_criterion import BinaryStoppingCriterion
    from dipy.tracking.tracker import deterministic_tracking

    affine = job.vox2ras.numpy()
    voxel = float(np.prod(np.linalg.norm(affine[:3, :3], axis=0)) ** (1 / 3))
    coefficients = job.fodf.numpy().astype(np.float64)
    stop = BinaryStoppingCriterion(job.mask.numpy())
    seeds, directions = (
        np.ascontiguousarray(drawn.numpy(), np.float64) for drawn in job.seeds(job.n_seeds)
    )

    def run(n: int) -> list[np.ndarray]:
        tractogram = deterministic_tracking(
            *(seeds[:n], stop, affine),
            seed_directions=directions[:n],
            sh=coefficients,
            basis_type="tournier07",
            legacy=False,
            sphere=get_sphere(name="repulsion724"),
            step_size=0.1 * voxel,
            max_angle=60,
            pmf_threshold=0.1,
            min_len=5 * voxel,
            max_len=100 * voxel,
            nbr_threads=job.threads,
            random_seed=1,
        )
        # It is lazy: tracking happens while streamlines are taken.
        return list(getattr(tractogram, "streamlines", tractogram))

    _, idle = timed(lambda: run(1))
    lines, measured = timed(lambda: run(job.n_seeds))
    return measured | {
        # What it prepares for a single seed is left out, as of tckgen.
        "seconds": measured["seconds"] - idle["seconds"],
        "preparing_seconds": idle["seconds"],
        "n_seeds": job.n_seeds,
        "streamlines": len(lines),
        "vertices": sum(map(len, lines)),
    }


JOBS = {job.__name__: job for job in (forward, gradient, to_file, reference, dipy, growth, lmax)}
