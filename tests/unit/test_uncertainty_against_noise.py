"""The delta method beside what noise really does: many draws of it on a simulated head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from chain import Chain

from difftract_bids.core import assign_ends, connectome, edge_standard_deviations
from difftract_bids.core.propagate import track_field

N_DRAWS, N_SEEDS, SNR = 50, 60_000, 30.0
#: Edges of fewer streamlines say little in so few draws.
LEAST_COUNT = 10


def simulated(folder, snr):
    settings = {"voxel_size_mm": 4.0, "t1w_voxel_size_mm": 4.0, "n_directions": 48}
    return Chain.simulated(folder / "raw", snr=snr, **settings)


def drawn_counts(chain, sigma, seeds):
    """Count streamlines in draws of Rician noise; response, mask and seeds stay."""
    tracking, generator = chain.model().tracking, torch.Generator().manual_seed(5)
    fit, counts = chain.model().deconvolution, []
    for _ in range(N_DRAWS):
        noise = [torch.randn(chain.dwi.shape, generator=generator) * sigma for _ in range(2)]
        dwi = torch.hypot(chain.dwi.float() + noise[0], noise[1])
        with torch.no_grad():
            field = tracking.field_of(fit(dwi, chain.mask)[0])
            found = track_field(field, *seeds, tracking.config, tracking.regions_with(chain.mask))
        labels = assign_ends(found.ends(), chain.parcellation, chain.vox2ras)
        counts.append(connectome(labels, torch.tensor(chain.nodes.index)))
    return torch.stack(counts)


@pytest.mark.slow
def test_standard_deviations_follow_those_of_repeated_noise(tmp_path):
    clean, noisy = (simulated(tmp_path / str(snr), snr) for snr in (float("inf"), SNR))
    # White matter at b=0 is 1000.
    sigma, seeds = 1000 / SNR, [part.float() for part in clean.seeds(N_SEEDS)]
    counts = drawn_counts(clean, sigma, seeds)
    model = noisy.model(softness=0.01)
    fit = noisy.fit(model)
    fit = replace(fit, dwi=fit.dwi.float(), fodf=fit.fodf.float())
    errors = edge_standard_deviations(
        model.tracking, fit, *seeds, torch.full(noisy.mask.shape, sigma), noisy.mask
    )
    upper = torch.triu(torch.ones_like(errors.sd, dtype=torch.bool))
    mean, drawn, delta = (x[upper].numpy() for x in (counts.mean(0), counts.std(0), errors.sd))
    kept = (mean >= LEAST_COUNT) & (delta > 0) & (drawn > 0)
    mean, drawn, delta = mean[kept], drawn[kept], delta[kept]
    r, r_log = np.corrcoef(drawn, delta)[0, 1], np.corrcoef(np.log(drawn), np.log(delta))[0, 1]
    null = np.corrcoef(np.log(drawn), np.log(mean))[0, 1]
    ratio = np.percentile(delta / drawn, (10, 50, 90))
    print(f"{kept.sum()} edges: r {r:.2f}, of logarithms {r_log:.2f} (counts alone: {null:.2f})")  # noqa: T201
    print("delta method over draws, 10, 50 and 90%:", *(f"{q:.2f}" for q in ratio))  # noqa: T201
    print(f"draws over the root of counts: {np.median(drawn / np.sqrt(mean)):.2f}")  # noqa: T201
    assert r_log > 0.5
