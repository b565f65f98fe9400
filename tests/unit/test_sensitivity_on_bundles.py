"""The sensitivity of an edge lies on the bundle that makes it."""

from __future__ import annotations

import csv
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from chain import Chain
from scipy.ndimage import binary_dilation

from difftract_bids.core import sensitivity

#: Share of the absolute gradient within the true bundle, dilated by a voxel.
LEAST_SHARE = 0.9
N_SEEDS = 30_000


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return Chain.simulated(tmp_path_factory.mktemp("head") / "raw")


@pytest.fixture(scope="module")
def scene(chain):
    """The chain's tracking and fit in float32, and its seeds."""
    model = chain.model(softness=0.05)
    fit = chain.fit(model)
    fit = replace(fit, dwi=fit.dwi.float(), fodf=fit.fodf.float())
    seeds_mm, directions = chain.seeds(N_SEEDS)
    return model.tracking, fit, seeds_mm.float(), directions.float()


def bundles(chain):
    """Yield each true bundle: its row of the table, and the voxels it passes through."""
    truth = chain.folder / "derivatives" / "truth" / "sub-01" / "dwi"
    with (truth / "sub-01_atlas-Phantom_bundles.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    lines = nib.streamlines.load(truth / "sub-01_model-truth_tractogram.tck").streamlines
    ras2vox, first = np.linalg.inv(chain.vox2ras.numpy()), 0
    for row in rows:
        n = int(row["count"])
        points = np.concatenate(list(lines[first : first + n]))
        first += n
        voxel = np.rint(nib.affines.apply_affine(ras2vox, points)).astype(int)
        inside = np.zeros(chain.mask.shape, bool)
        inside[tuple(voxel.T)] = True
        yield row, inside


def share_on_bundle(chain, scene, row, inside):
    """Give the streamlines of an edge, and how much of its gradient lies on the bundle."""
    names = chain.nodes.name
    i, j = names.index(row["from"]), names.index(row["to"])
    target = torch.zeros(len(names), len(names))
    target[i, j] = target[j, i] = 1
    tracking, fit, seeds_mm, directions = scene
    found = sensitivity(tracking, fit.fodf, seeds_mm, directions, target, chain.mask)
    size = fit.to_signal(found.fodf).abs().sum(dim=3).numpy()
    near = binary_dilation(inside, np.ones((3, 3, 3)))
    return found.value, float(size[near].sum() / max(size.sum(), 1e-30))


@pytest.mark.parametrize("name", ["LH-Corticospinal", "RH-AnteriorThalamic", "LH-OpticRadiation"])
def test_the_sensitivity_of_an_edge_lies_on_its_bundle(chain, scene, name):
    row, inside = next(pair for pair in bundles(chain) if pair[0]["name"] == name)
    streamlines, share = share_on_bundle(chain, scene, row, inside)
    assert streamlines > 1
    assert share >= LEAST_SHARE


@pytest.mark.slow
def test_the_sensitivity_of_nearly_all_edges_lies_on_their_bundles(chain, scene):
    shares = {}
    for row, inside in bundles(chain):
        streamlines, share = share_on_bundle(chain, scene, row, inside)
        if streamlines > 1:
            shares[row["name"]] = share
    low = {name: f"{share:.3f}" for name, share in shares.items() if share < LEAST_SHARE}
    values = list(shares.values())
    print(f"{len(values)} bundles: median {np.median(values):.3f}, least {min(values):.3f}, {low}")  # noqa: T201
    assert np.median(values) >= LEAST_SHARE
