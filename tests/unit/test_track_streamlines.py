"""The interface from seeds to files: what it writes, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from acquisitions import scheme
from problems import crossing_bundles, scaling

from difftract_bids.core import Streamlines, assign_ends, connectome
from difftract_bids.core.seeding import RandomSeeds
from difftract_bids.errors import InputError, UsageError
from difftract_bids.interfaces.connectome import BuildConnectome
from difftract_bids.interfaces.reportlets.streamlines import PlotTractogram
from difftract_bids.interfaces.tracking import TrackStreamlines
from difftract_bids.io import summaries
from difftract_bids.io.image_samples import image_sampler
from difftract_bids.io.images import save_volume
from difftract_bids.io.matrices import read_matrix
from difftract_bids.io.preview import Preview
from difftract_bids.io.streaming import _one_behind, stream_to_files
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.summaries import iter_summary, read_summary
from difftract_bids.io.tractograms import read_tractogram

AFFINE = scaling(2.0)
SHAPE = (14, 14, 8)
NOWHERE = {"include": ["9999,0,0,1"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    fodf = crossing_bundles(AFFINE, shape=SHAPE, lmax=4).float()
    mask = (fodf[..., 0] != 0).numpy()
    labels = np.zeros(SHAPE, np.int16)
    labels[:6], labels[8:] = 1, 2
    files = {"fodf": fodf.numpy(), "mask": mask, "labels": labels}
    for name, image in files.items():
        save_volume(image, AFFINE.numpy(), folder / f"{name}.nii.gz")
    (folder / "nodes.tsv").write_text("index\tname\n1\tleft\n2\tright\n")
    return folder


@pytest.fixture
def track(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(**settings):
        settings = {"n_seeds": 300, **settings}
        files = {"fodf": data / "fodf.nii.gz", "brain_mask": data / "mask.nii.gz"}
        return TrackStreamlines(**{k: str(v) for k, v in files.items()}, **settings).run().outputs

    return run


def counts_of(outputs):
    return outputs.metadata["Counts"]


def test_the_tractogram_its_summary_and_its_sidecar_agree(track):
    outputs = track(tractogram_tolerance_mm=0.0)
    lines, rows = read_tractogram(outputs.tractogram), read_summary(outputs.summary)
    tally = counts_of(outputs)
    assert lines.n_streamlines == len(rows.seed_index) == tally["Streamlines"] > 50
    assert len(lines.points) == tally["Vertices"] == tally["StoredVertices"]
    np.testing.assert_array_equal(lines.ends(), rows.ends_mm)
    np.testing.assert_allclose(lines.lengths_mm(), rows.lengths_mm, rtol=1e-5)
    assert tally["Seeds"] == sum(tally["SeedStatus"].values()) == 300
    assert sum(tally["StopReasons"].values()) == 2 * tally["Streamlines"]


def test_thinning_leaves_ends_and_summary_alone(track, tmp_path):
    whole = track(tractogram_tolerance_mm=0.0)
    vertices = read_tractogram(whole.tractogram)
    rows = (tmp_path / "summary.parquet").read_bytes()
    thinned = track(tractogram_tolerance_mm=0.1)
    lines = read_tractogram(thinned.tractogram)
    assert (tmp_path / "summary.parquet").read_bytes() == rows
    np.testing.assert_array_equal(lines.ends(), vertices.ends())
    assert len(lines.points) == counts_of(thinned)["StoredVertices"] < len(vertices.points) / 4
    assert counts_of(thinned)["Vertices"] == len(vertices.points)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_images_are_sampled_at_all_vertices_whatever_is_stored(track, data, num_threads):
    rng = np.random.default_rng(0)
    save_volume(rng.random(SHAPE).astype(np.float32), AFFINE.numpy(), data / "noise.nii.gz")
    named = {
        "images": [str(data / "noise.nii.gz"), str(data / "labels.nii.gz")],
        "image_names": ["noise", "labels"],
        "num_threads": num_threads,
    }
    whole = track(tractogram_tolerance_mm=0.0, streamline_statistic="max", **named)
    lines = read_tractogram(whole.tractogram)
    rows = read_summary(whole.summary)
    assert list(rows.samples) == ["noise", "labels"]
    expected = image_sampler(named["images"][0], "max")(lines)
    np.testing.assert_array_equal(rows.samples["noise"], expected)
    assert np.ptp(expected) > 0.01
    thinned = read_summary(track(streamline_statistic="max", **named).summary)
    np.testing.assert_array_equal(thinned.samples["noise"], expected)
    with pytest.raises(UsageError, match="2 images and 1 names"):
        track(**{**named, "image_names": ["noise", "noise"]})


@pytest.mark.parametrize("extension", ["tck", "trk"])
def test_every_format_holds_the_same_streamlines(track, extension):
    trx = read_tractogram(track().tractogram)
    other = read_tractogram(track(tractogram_format=extension).tractogram)
    np.testing.assert_array_equal(other.offsets, trx.offsets)
    np.testing.assert_allclose(other.points, trx.points, atol=1e-4)


def test_without_a_tractogram_there_are_summary_and_preview_all_the_same(track, tmp_path):
    outputs = track(tractogram=False)
    assert {path.name for path in tmp_path.iterdir()} == {"summary.parquet", "preview.trx"}
    n = counts_of(outputs)["Streamlines"]
    assert len(read_summary(outputs.summary).seed_index) == n
    assert read_tractogram(outputs.preview).n_streamlines == n


def test_the_streamlines_asked_for_are_those_of_the_lowest_seeds(track):
    all_seeds = read_summary(track(n_seeds=500).summary).seed_index
    outputs = track(n_seeds=500, n_streamlines=40)
    np.testing.assert_array_equal(read_summary(outputs.summary).seed_index, all_seeds[:40])
    assert counts_of(outputs)["Seeds"] == all_seeds[39] + 1


def test_regions_are_obeyed_and_described(track):
    outputs = track(exclude=["14,14,8,6"], include=["14,20,8,5"])
    for line in lines_of(outputs.preview):
        distance = np.linalg.norm(line - [14, 14, 8], axis=1)
        assert distance.min() > 5.5  # thinned: vertices were, segments may cut a corner
    assert 0 < counts_of(outputs)["Streamlines"] < 200
    assert outputs.metadata["StreamlineAcceptanceCriteria"]["Include"] == ["Sphere 14,20,8,5"]


def lines_of(path):
    points, offsets = read_tractogram(path)
    return np.split(points, offsets[1:-1])


def test_no_streamline_at_all_is_an_empty_tractogram_an_empty_matrix_and_a_note(track, data):
    outputs = track(**NOWHERE)
    assert read_tractogram(outputs.tractogram).n_streamlines == 0
    assert read_tractogram(outputs.preview).n_streamlines == 0
    assert "No streamline was found from 300 seeds" in outputs.notes[0]
    matrices = build(outputs.summary, data)
    matrix, names = read_matrix(matrices.count)
    assert names == ["left", "right"]
    assert not matrix.any()
    assert "empty" in matrices.notes[0]
    figure = PlotTractogram(
        preview=outputs.preview,
        mask=str(data / "mask.nii.gz"),
        tractogram_metadata=outputs.metadata,
    ).run()
    assert "0 of 0 streamlines" in Path(figure.outputs.out_report).read_text()


def test_fewer_streamlines_than_asked_for_are_told(track, tmp_path):
    points = RandomSeeds(torch.ones(SHAPE, dtype=torch.bool), AFFINE, 3).draw(0, 60)[0]
    np.savetxt(tmp_path / "seeds.tsv", points, delimiter="\t")
    seeds = str(tmp_path / "seeds.tsv")
    outputs = track(n_seeds=None, seed_coordinates=seeds, n_streamlines=1000)
    found = counts_of(outputs)["Streamlines"]
    assert 5 < found < 60
    assert outputs.notes == [f"Only {found} of 1,000 streamlines were found, from 60 seeds."]
    assert outputs.metadata["StreamlineSeeding"]["Source"] == "seeds.tsv"


def build(summary, data):
    return (
        BuildConnectome(
            summary=summary,
            parcellation=str(data / "labels.nii.gz"),
            table=str(data / "nodes.tsv"),
        )
        .run()
        .outputs
    )


def test_connectomes_are_sums_over_all_streamlines_whatever_the_batches(track, data, monkeypatch):
    outputs = track()
    rows = read_summary(outputs.summary)
    labels = torch.zeros(SHAPE, dtype=torch.int32)
    labels[:6], labels[8:] = 1, 2
    ends = assign_ends(torch.from_numpy(rows.ends_mm).double(), labels, AFFINE)
    nodes = torch.tensor([1, 2])
    monkeypatch.setattr(summaries, "iter_summary", lambda path: iter_summary(path, 17))
    found = build(outputs.summary, data)
    count, length = read_matrix(found.count)[0], read_matrix(found.meanlength)[0]
    np.testing.assert_array_equal(count, connectome(ends, nodes))
    assert count.sum() > 40
    expected = connectome(ends, nodes, torch.tensor(rows.lengths_mm))
    np.testing.assert_allclose(length, expected, rtol=1e-7)


def test_tensors_are_followed_along_their_principal_direction(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = scheme((1000, 30))
    # Diffusion along x, everywhere.
    signal = np.exp(-table.bvals_s_mm2 * (3e-4 + 1.4e-3 * table.bvecs[:, 0] ** 2))
    dwi = np.broadcast_to(1000 * signal, (*SHAPE, len(signal))).astype(np.float32)
    save_volume(dwi, AFFINE.numpy(), tmp_path / "dwi.nii.gz")
    np.savetxt("dwi.bval", table.bvals_s_mm2[None])
    vectors = table.bvecs * [-1, 1, 1]  # FSL reverses the first axis of a right-handed image
    np.savetxt("dwi.bvec", vectors.T)
    files = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
    outputs = (
        TrackStreamlines(
            **{name: str(tmp_path / file) for name, file in files.items()},
            brain_mask=str(data / "mask.nii.gz"),
            algorithm="tensor_det",
            n_seeds=30,
        )
        .run()
        .outputs
    )
    lines = lines_of(outputs.preview)
    assert len(lines) > 10
    for line in lines:
        along, *across = np.ptp(line, axis=0)
        assert along > 8
        assert max(across) < 0.01
    assert "Tensor_Det" in outputs.metadata["Model"]["Description"]


def test_an_algorithm_without_its_image_says_what_it_needs(track):
    with pytest.raises(UsageError, match="tensor_det needs dwi and bval and bvec"):
        track(algorithm="tensor_det")


def test_a_step_is_run_again_when_a_file_that_it_names_has_changed(tmp_path, data):
    path = tmp_path / "seeds.nii.gz"
    inputs = TrackStreamlines(fodf=str(data / "fodf.nii.gz"), seed_image=str(path)).inputs
    hashes = []
    for value in (1, 2):
        save_volume(np.full((value, 2, 2), value, np.float32), np.eye(4), path)
        hashes.append(inputs.get_hashval(hash_method="content")[1])
    assert hashes[0] != hashes[1]


def test_two_threads_write_what_one_writes(track):
    written = []
    for n in (1, 2):
        outputs = track(n_seeds=None, n_streamlines=700, num_threads=n, tractogram_format="tck")
        files = [Path(file).read_bytes() for file in (outputs.tractogram, outputs.summary)]
        written.append((outputs.metadata, *files))
    assert written[0] == written[1]
    assert written[0][0]["Counts"]["Streamlines"] == 700


def test_what_the_writing_thread_meets_is_raised():
    def fail(_):
        raise InputError("the disk is full")

    with pytest.raises(InputError, match="disk is full"), _one_behind(fail) as do:
        do(None)


def test_a_preview_is_spread_evenly_over_all_and_bounded():
    preview = Preview(limit=100)
    for chunk in np.split(np.arange(12_345), [1, 40, 41, 5000, 9999]):
        points = np.stack([chunk, chunk * 0, chunk * 0], axis=1).astype(np.float32)
        preview.append(
            StreamlineArrays(np.repeat(points, 2, axis=0), 2 * np.arange(len(chunk) + 1))
        )
    kept = preview.arrays()
    numbers = kept.points[kept.offsets[:-1], 0]
    assert 50 < len(numbers) <= 100
    np.testing.assert_array_equal(numbers, np.arange(0, 12_345, numbers[1]))


KILLED = """
import sys
from difftract_bids.interfaces.tracking import TrackStreamlines
TrackStreamlines(fodf=sys.argv[1], brain_mask=sys.argv[2], n_streamlines=50_000_000).run()
"""


def test_a_killed_process_leaves_no_file_under_a_final_name(data, tmp_path):
    progress = tmp_path / "progress"
    progress.mkdir()
    here = tmp_path / "here"
    here.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, data / "fodf.nii.gz", data / "mask.nii.gz"],
        cwd=here,
        env=os.environ | {"DIFFTRACT_PROGRESS_DIR": str(progress)},
    )
    try:
        deadline = time.monotonic() + 300  # kernels may have to be compiled first
        while not done_so_far(progress) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert done_so_far(progress) > 0  # it was in the middle of it
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    names = [path.name for path in here.iterdir()]
    assert names
    assert all(name.startswith(".") for name in names)


def done_so_far(folder):
    states = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return states[0]["done"] if states else 0


@pytest.mark.parametrize("in_background", [False, True])
def test_when_tracking_fails_half_way_no_file_is_left(tmp_path, in_background):
    def chunks():
        yield Streamlines(
            points=torch.zeros(2, 3),
            offsets=torch.tensor([0, 2]),
            seed_index=torch.tensor([0]),
            seed_vertex=torch.tensor([0]),
            stop_reason=torch.ones(1, 2, dtype=torch.int64),
            seed_status=torch.zeros(1, dtype=torch.int64),
        )
        raise InputError("no more")

    seen = []
    with pytest.raises(InputError, match="no more"):
        stream_to_files(
            chunks(),
            tractogram=tmp_path / "a.tck",
            summary=tmp_path / "a.parquet",
            preview=tmp_path / "b.trx",
            vox2ras=np.eye(4),
            shape=(2, 2, 2),
            tolerance_mm=0.1,
            progress=lambda tally: seen.append(tally.streamlines),
            in_background=in_background,
        )
    assert seen == [1]
    assert list(tmp_path.iterdir()) == []
