"""How participants that were held out are compared: rows, words and a table."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pandas as pd
import pytest
import torch
from training_scans import QUICK, quick_config, simulated_scan

from difftract_bids.cli.held_out import (
    CUTOFFS,
    compare_held_out,
    compare_methods,
    said_of,
    write_rows,
)
from difftract_bids.learn.evaluation import Nodes, track_whole
from difftract_bids.learn.scan import Scan
from difftract_bids.learn.training import train


def four_nodes(participant: str) -> Scan:
    """Simulate a scan whose bundles end in four nodes."""
    scan = simulated_scan(participant, n_directions=30)
    labels = torch.zeros_like(scan.parcellation)
    labels[:4], labels[-4:] = 1, 2
    labels[4:-4, :3], labels[4:-4, -3:] = 3, 4
    return replace(scan, parcellation=labels * scan.mask, node_labels=torch.tensor([1, 2, 3, 4]))


def test_the_target_is_better_than_noise_by_every_measure():
    scan = four_nodes("01")
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(scan.fodf.shape, generator=generator) * 0.2

    def noisy(scan: Scan) -> torch.Tensor:
        return scan.fodf + noise * scan.mask[..., None]

    methods = {"target": lambda scan: scan.fodf, "noisy": noisy}
    same, other = compare_methods([scan], methods, n_seeds=2000, cutoffs=[0.1])
    assert (same.scan, same.method, same.reference) == ("sub-01", "target", "full")
    assert same.bundle_overlap > other.bundle_overlap
    assert same.r_connectome > other.r_connectome
    # Searches end at the tracking's tolerance.
    assert same.angular_error_deg < 1 < other.angular_error_deg
    assert len(said_of([same, other])) == 2


def test_a_truth_is_a_reference_of_its_own():
    scan = four_nodes("01")
    nodes = Nodes(scan.parcellation, scan.vox2ras, scan.node_labels)
    truth = track_whole(scan.fodf, scan.mask, nodes, n_seeds=500)
    methods = {"target": lambda scan: scan.fodf}
    truths = {"sub-01": truth}
    rows = list(compare_methods([scan], methods, n_seeds=500, cutoffs=[0.05], truths=truths))
    assert [row.reference for row in rows] == ["full", "truth"]
    assert all(row.n_streamlines == rows[0].n_streamlines > 50 for row in rows)


def test_scans_without_a_parcellation_are_left_out():
    assert not list(compare_methods([replace(four_nodes("01"), parcellation=None)], {}))


@pytest.mark.parametrize("by", ["participants", "blocks"])
def test_only_participants_that_checked_are_compared(by, tmp_path, monkeypatch):
    # So small a head has no single fibres to estimate a response from.
    monkeypatch.setattr("difftract_bids.cli.held_out.deconvolved", lambda scan: scan.fodf)
    scans = [four_nodes(label) for label in ("01", "02", "03")][: 3 if by == "participants" else 1]
    pairs = QUICK["pairs"] | {"split": by, "validation_share": 0.3}
    config = quick_config(pairs=pairs, network={"n_blocks": 0})
    trained = train(scans, config, tmp_path)
    rows = compare_held_out(scans, config, trained.model)
    if by == "blocks":
        assert rows == []
        return
    both = ["deconvolution", "network"]
    assert [(row.cutoff, row.method) for row in rows] == list(product(CUTOFFS, both))
    assert len({row.scan for row in rows}) == 1
    write_rows(rows, tmp_path / "held_out.tsv")
    read = pd.read_csv(tmp_path / "held_out.tsv", sep="\t")
    assert list(read["method"]) == 2 * both
    assert read["n_streamlines"][0] == rows[0].n_streamlines
    assert math.isclose(read["angular_error_deg"][0], rows[0].angular_error_deg, rel_tol=1e-5)
