"""Streamline weights against MRtrix3's tcksift2 on real data."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from human import DATASET, streamlines_of
from mrtrix import human_scene, run_mrtrix

from difftract_bids.core import assign_ends, connectome
from difftract_bids.core.sift2 import fit_streamline_weights, map_streamlines, segment_fodf
from difftract_bids.io.thinning import thin
from difftract_bids.io.tractograms import read_tractogram
from difftract_bids.io.weights import read_weights

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(shutil.which("tcksift2") is None, reason="MRtrix3 is not installed"),
]
#: tcksift2 3.0.3 takes the number of its threads that map streamlines for the number of
#: streamlines of every fixel: with one thread it leaves out all fixels, and every weight is 1.
THREADS = ("-nthreads", 2)
N_NODES = 100


class Compared:
    """Our weights and tcksift2's of one tractogram."""

    def __init__(self, dataset, n_streamlines, folder):
        self.scene = human_scene(dataset, folder)
        tck, weights, mu = (folder / name for name in ("t.tck", "weights.txt", "mu.txt"))
        # The shortest are in no fixel: theirs weigh 1, ours nothing.
        run_mrtrix(
            *("tckedit", streamlines_of(self.scene, n_streamlines), tck, "-minlength", 15),
            *("-nthreads", 0, "-quiet"),
        )
        run_mrtrix(
            *("tcksift2", tck, self.scene.fod_file, weights, "-out_mu", mu, "-quiet", *THREADS)
        )
        self.mu = float(mu.read_text())
        self.streamlines = read_tractogram(tck)
        self.weights = read_weights(weights, len(self.streamlines.offsets) - 1)
        assert len(self.weights) > 0.6 * n_streamlines
        self.fixels = segment_fodf(self.scene.fodf)

    def fit(self, streamlines=None):
        streamlines = streamlines or self.streamlines
        arrays = torch.from_numpy(streamlines.points), torch.from_numpy(streamlines.offsets)
        visits = map_streamlines(*arrays, self.fixels, self.scene.vox2ras)
        return fit_streamline_weights(visits, self.fixels)

    def edges(self, weights):
        """Sums of weights between patches of the brain, those that have a streamline."""
        ends = torch.from_numpy(self.streamlines.ends()).double()
        labels = assign_ends(ends, torch.from_numpy(self.patches()), self.scene.vox2ras)
        nodes = torch.arange(1, N_NODES + 1)
        count = connectome(labels, nodes)
        mean = connectome(labels, nodes, torch.from_numpy(weights))
        upper = torch.triu(count, 1) > 0
        return (count * mean)[upper].numpy()

    def patches(self):
        """Label every voxel of the mask by the nearest of so many, drawn at random."""
        voxels = np.argwhere(self.scene.mask.numpy())
        seats = voxels[np.random.default_rng(0).choice(len(voxels), N_NODES, replace=False)]
        labels = np.zeros(self.scene.mask.shape, np.int32)
        apart = [np.linalg.norm(voxels - seat, axis=1) for seat in seats]
        labels[tuple(voxels.T)] = np.argmin(apart, axis=0) + 1
        return labels


@pytest.fixture(
    scope="module",
    params=[
        (DATASET, 25_000),
        pytest.param(("ds-human", 60_000), marks=pytest.mark.slow),
    ],
    ids=lambda asked: asked[0],
)
def compared(request, tmp_path_factory):
    return Compared(*request.param, tmp_path_factory.mktemp("sift2"))


def correlation(one, other):
    return np.corrcoef(one, other)[0, 1]


def test_weights_are_tcksift2s(compared):
    fit = compared.fit()
    ours = fit.weights.numpy()
    assert fit.mu == pytest.approx(compared.mu, rel=1e-3)
    assert (ours > 0).all()
    assert correlation(np.log(ours), np.log(compared.weights)) > 0.99
    assert ours.sum() == pytest.approx(compared.weights.sum(), rel=0.01)


def test_thinned_streamlines_get_the_same_weights(compared):
    ours = compared.fit(thin(compared.streamlines, 0.1)).weights.numpy()
    assert correlation(np.log(ours), np.log(compared.weights)) > 0.99


def test_edges_are_tcksift2s_and_counts_are_not(compared):
    ours = compared.edges(compared.fit().weights.numpy())
    theirs = compared.edges(compared.weights)
    counts = compared.edges(np.ones(len(compared.weights)))
    assert correlation(ours, theirs) > 0.999 > correlation(counts, theirs) + 0.005
    logs = [np.log(edges) for edges in (ours, theirs, counts)]
    assert correlation(logs[0], logs[1]) > 0.997 > correlation(logs[2], logs[1]) + 0.01
    # What the weights change, without what the counts say already.
    assert correlation(logs[0] - logs[2], logs[1] - logs[2]) > 0.98
