"""What is timed of deconvolution: one function for each job of `JOBS`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import Result, timed

from deconvolution import LMAX
from deconvolution.voxels import first_voxels
from difftract_bids.core import csd, msmt_csd

#: Voxels of the call that compiles.
_FEW = 64


@dataclass(frozen=True)
class Job:
    """What is asked for, and the voxels it is asked of."""

    dwi: torch.Tensor
    bvecs: torch.Tensor
    shell: torch.Tensor
    deconvolved: torch.Tensor
    responses: list[torch.Tensor]
    lmax: int
    options: dict[str, Any]

    @classmethod
    def load(cls, given: dict[str, Any]) -> Job:
        folder = Path(given["scene"])
        bvecs, shell, deconvolved, *responses = (
            torch.from_numpy(np.load(folder / f"{name}.npy"))
            for name in ("bvecs", "shell", "deconvolved", *given["tissues"])
        )
        dwi = torch.from_numpy(first_voxels(folder, given["n_voxels"]))
        return cls(dwi, bvecs, shell, deconvolved, responses, LMAX, given)

    @property
    def degrees(self) -> list[int]:
        """Largest degree of each tissue."""
        return [self.lmax if response.shape[1] > 1 else 0 for response in self.responses]

    def deconvolve(
        self, dwi: torch.Tensor, *, reference: bool = False
    ) -> tuple[torch.Tensor, ...]:
        """One tissue of one shell, or several of all shells."""
        if len(self.responses) == 1:
            response = self.responses[0][-1]
            options = {"lmax": self.lmax, "volumes": self.deconvolved, "reference": reference}
            return (csd(dwi, self.bvecs, response, **options),)
        return msmt_csd(
            dwi,
            self.bvecs,
            self.shell,
            self.responses,
            lmax=self.degrees,
            reference=reference,
        )


def forward(job: Job) -> Result:
    """From signals to the coefficients of every tissue."""
    return _forward(job, reference=False)


def reference(job: Job) -> Result:
    """The same in PyTorch, as on a GPU."""
    return _forward(job, reference=True)


def _forward(job: Job, *, reference: bool) -> Result:
    with torch.no_grad():
        _, first = timed(lambda: job.deconvolve(job.dwi[:_FEW], reference=reference))
        found, measured = timed(lambda: job.deconvolve(job.dwi, reference=reference))
    return _told(job, measured, first, list(found))


def gradient(job: Job) -> Result:
    """Forward, and the gradient by every signal and the responses, random cotangents."""
    for response in job.responses:
        response.requires_grad_()
    generator = torch.Generator().manual_seed(0)
    sizes = [(degree + 1) * (degree + 2) // 2 for degree in job.degrees]
    cotangents = [torch.randn(len(job.dwi), n, generator=generator) for n in sizes]
    spent = [0.0]

    def run(dwi: torch.Tensor) -> list[torch.Tensor]:
        start = time.perf_counter()
        found = job.deconvolve(dwi.requires_grad_())
        spent[0] = time.perf_counter() - start
        given = [cotangent[: len(dwi)] for cotangent in cotangents]
        torch.autograd.backward(found, given)
        return [*found, dwi.grad]

    _, first = timed(lambda: run(job.dwi[:_FEW].clone()))
    made, measured = timed(lambda: run(job.dwi))
    back = {"backward_seconds": measured["seconds"] - spent[0]}
    return _told(job, measured, first, made) | back


def _told(job: Job, measured: Result, first: Result, made: list[torch.Tensor]) -> Result:
    """Add what was done, and what memory remains when results are taken off."""
    made_mib = sum(part.nbytes for part in made) / 2**20
    return measured | {
        "voxels": len(job.dwi),
        "image_mib": job.dwi.nbytes / 2**20,
        "result_mib": made_mib,
        "peak_above_mib": measured["peak_mib"] - made_mib,
        "first_call_seconds": first["seconds"],
    }


def lmax(job: Job) -> Result:
    """Time per voxel at one degree after another."""
    return {"rows": [_at_degree(job, degree) for degree in job.options["degrees"]]}


def _at_degree(job: Job, degree: int) -> Result:
    # A clone: it has no gradient yet that another would be added to.
    found = gradient(replace(job, dwi=job.dwi.detach().clone(), lmax=degree))
    ahead = found["seconds"] - found["backward_seconds"]
    return {
        "lmax": degree,
        "voxels": found["voxels"],
        "forward_us_per_voxel": 1e6 * ahead / found["voxels"],
        "backward_us_per_voxel": 1e6 * found["backward_seconds"] / found["voxels"],
    }


def coefficients(job: Job) -> Result:
    """Write the coefficients of all tissues side by side, for comparison."""
    with torch.no_grad():
        found, measured = timed(lambda: torch.cat(job.deconvolve(job.dwi), dim=1))
    np.save(job.options["to"], found.numpy())
    return measured


JOBS = {job.__name__: job for job in (forward, gradient, reference, lmax, coefficients)}
