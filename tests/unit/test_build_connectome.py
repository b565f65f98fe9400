"""The interface from streamlines and a parcellation to matrices."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest

from difftract_bids.errors import AtlasError, InputError, UsageError
from difftract_bids.interfaces.connectome import BuildConnectome, MergeConnectomes
from difftract_bids.io.images import save_volume
from difftract_bids.io.matrices import read_matrix
from difftract_bids.io.matrix_hdf5 import read_hdf5
from difftract_bids.io.streamline_arrays import StreamlineArrays
from difftract_bids.io.summaries import write_summary
from difftract_bids.io.tractograms import write_tractogram

#: Voxels of 2 mm, the first one's centre at (-20, -10, 0) mm.
VOX2RAS = np.diag([2.0, 2.0, 2.0, 1.0])
VOX2RAS[:3, 3] = (-20, -10, 0)
SHAPE = (20, 10, 4)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Three blocks along x: 30 of voxels 0 and 1, 10 of voxels 9 and 10, 20 of 18 and 19."""
    monkeypatch.chdir(tmp_path)
    labels = np.zeros(SHAPE, np.int16)
    labels[:2], labels[9:11], labels[18:] = 30, 10, 20
    write_atlas(labels)
    save_volume(np.full(SHAPE, 0.4, np.float32), VOX2RAS, tmp_path / "fa.nii.gz")
    return tmp_path


def write_atlas(labels, rows=((10, "middle"), (30, "L_first"), (20, "R_last"), (40, "lost"))):
    save_volume(labels, VOX2RAS, "labels.nii.gz")
    lines = ["index\tname", *(f"{index}\t{name}" for index, name in rows)]
    with open("nodes.tsv", "w") as table:  # noqa: PTH123
        table.write("\n".join(lines) + "\n")


def along_x(*spans, step_mm=1.0):
    """Streamlines along x at y = 0, z = 2 mm, from one place to another."""
    lines = []
    for start, stop in spans:
        x = np.linspace(start, stop, max(1, round(abs(stop - start) / step_mm)) + 1)
        lines.append(np.stack([x, 0 * x, 0 * x + 2], axis=1))
    points = np.concatenate([np.zeros((0, 3)), *lines]).astype(np.float32)
    return StreamlineArrays(points, np.cumsum([0, *map(len, lines)]))


#: Two from first to last, one from first to the middle, one within last, one that ends nowhere.
SPANS = ((-20, 18), (18, -20), (-19, -1), (15, 18), (-20, -9))


def tractogram(spans=SPANS, name="a.tck", **options):
    return str(write_tractogram(along_x(*spans, **options), name, vox2ras=VOX2RAS, shape=SHAPE))


def summary(spans=SPANS):
    lines = along_x(*spans)
    numbers = np.arange(lines.n_streamlines)
    return str(write_summary("a.parquet", numbers, lines.ends(), lines.lengths_mm()))


def build(**inputs):
    inputs = {"parcellation": "labels.nii.gz", "table": "nodes.tsv", **inputs}
    return BuildConnectome(**inputs).run().outputs


def matrix_of(path):
    return read_matrix(path)[0]


COUNTS = [[0, 1, 0, 0], [1, 0, 2, 0], [0, 2, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("source", ["summary", "tractogram", "both"])
def test_ends_and_whole_streamlines_give_the_same_matrices(source):
    given = {"summary": summary, "tractogram": tractogram}
    kinds = given if source == "both" else [source]
    outputs = build(
        **{kind: given[kind]() for kind in kinds}, connectome_measures=["count", "meanlength"]
    )
    matrix, names = read_matrix(outputs.count)
    assert names == ["middle", "L_first", "R_last", "lost"]
    np.testing.assert_array_equal(matrix, COUNTS)
    lengths = matrix_of(outputs.meanlength)
    np.testing.assert_allclose(lengths[[0, 1, 2], [1, 2, 2]], [18, 38, 3], rtol=1e-6)
    assert outputs.count_metadata["NodeCount"] == 4
    assert outputs.meanlength_metadata["Units"] == "mm"


def test_nodes_have_volume_centroid_and_streamlines_and_the_lost_one_is_named():
    outputs = build(summary=summary())
    table = pd.read_csv(outputs.nodeindices, sep="\t")
    assert list(table["index"]) == [10, 30, 20, 40]
    assert list(table["hemisphere"].fillna("n/a")) == ["n/a", "left", "right", "n/a"]
    assert list(table["volume_mm3"]) == [640, 640, 640, 0]
    np.testing.assert_allclose(table["x_mm"][:3], [-1, -19, 17])
    np.testing.assert_allclose(table["y_mm"][:3], -1)
    np.testing.assert_allclose(table["z_mm"][:3], 3)
    assert table["x_mm"].isna()[3]
    assert list(table["streamlines"]) == [1, 3, 3, 0]
    assert any("1 node(s)" in note and "lost" in note for note in outputs.notes)


def test_of_many_lost_nodes_ten_are_named_and_the_rest_counted():
    labels = np.zeros(SHAPE, np.int16)
    labels[:3] = 1
    write_atlas(labels, [(i, f"node{i}") for i in range(1, 15)])
    (note,) = [text for text in build(summary=summary()).notes if "voxel" in text]
    assert "13 node(s)" in note
    assert "node11, and 3 more" in note


def test_every_scaling_is_what_it_says():
    measures = ["invlength", "invnodevol", "density"]
    outputs = build(summary=summary(), connectome_measures=measures)
    inverse = 2 / 38
    np.testing.assert_allclose(matrix_of(outputs.invlength)[1, 2], inverse, rtol=1e-6)
    np.testing.assert_allclose(matrix_of(outputs.invnodevol)[1, 2], 2 * 2 / 1280, rtol=1e-6)
    # 2 by 10 by 4 voxels of 4 mm² a face.
    area_mm2 = 2 * 4 * (2 * 10 + 2 * 4 + 10 * 4)
    expected = inverse / area_mm2
    np.testing.assert_allclose(matrix_of(outputs.density)[1, 2], expected, rtol=1e-6)


@pytest.mark.parametrize("form", ["one", "two"])
def test_images_are_averaged_over_the_streamlines_of_an_edge(form, folder):
    image = np.zeros(SHAPE, np.float32)
    image += np.arange(20, dtype=np.float32)[:, None, None]
    save_volume(image, VOX2RAS, "ramp.nii.gz")
    names = {"one": ["fa"], "two": ["fa", "ramp"]}[form]
    images = [str(folder / f"{name}.nii.gz") for name in names]
    outputs = build(
        tractogram=tractogram(),
        images=images,
        image_names=names,
        connectome_measures=["count", "meanfa"],
    )
    np.testing.assert_allclose(matrix_of(outputs.meanfa)[1, 2], 0.4, rtol=1e-5)
    assert outputs.sidecars["meanfa"]["EdgeStatistic"] == "mean"
    if form == "two":  # any image makes a measure
        # From voxel 0.5 to 9.5, at equal steps.
        np.testing.assert_allclose(matrix_of(outputs.matrices["meanramp"])[0, 1], 5, rtol=1e-4)
    assert matrix_of(outputs.meanfa)[3, 3] == 0


def test_samples_in_the_summary_are_taken_before_those_of_thinned_streamlines():
    lines = along_x(*SPANS)
    values = np.array([1, 2, 3, 4, np.nan], np.float32)
    write_summary("a.parquet", np.arange(5), lines.ends(), lines.lengths_mm(), {"fa": values})
    outputs = build(summary="a.parquet", connectome_measures=["meanfa"])
    matrix = matrix_of(outputs.meanfa)
    np.testing.assert_allclose(matrix[[1, 0, 2], [2, 1, 2]], [1.5, 3, 4])


def test_a_streamline_without_a_number_does_not_spoil_the_mean_of_its_edge():
    image = np.full(SHAPE, 0.4, np.float32)
    image[:1] = np.nan
    save_volume(image, VOX2RAS, "fa.nii.gz")
    outputs = build(
        tractogram=tractogram([(-20, 18), (-17.5, 18)]),
        images=["fa.nii.gz"],
        image_names=["fa"],
        connectome_measures=["count", "meanfa"],
    )
    assert matrix_of(outputs.count)[1, 2] == 2
    np.testing.assert_allclose(matrix_of(outputs.meanfa)[1, 2], 0.4, rtol=1e-5)


def test_without_images_the_default_measures_are_those_that_can_be_made():
    outputs = build(summary=summary())
    assert set(outputs.matrices) == {"count", "meanlength"}
    assert any("no meanfa and no meanmd" in note for note in outputs.notes)
    with pytest.raises(UsageError, match="meanfa"):
        build(summary=summary(), connectome_measures=["meanfa"])
    with pytest.raises(UsageError, match="sift2"):
        build(summary=summary(), connectome_measures=["sift2"])


@pytest.mark.parametrize(
    ("mode", "options", "edges"),
    [
        ("end_voxels", {}, {(1, 2): 2, (0, 1): 1}),
        ("radial_search", {"assignment_radius_mm": 2.5}, {(1, 2): 2, (0, 1): 1, (2, 2): 1}),
        ("reverse_search", {}, {(1, 2): 2, (0, 1): 1}),
        ("all_voxels", {}, {(1, 2): 2, (0, 1): 3, (0, 2): 2}),
    ],
)
@pytest.mark.parametrize("step_mm", [1.0, 100.0])
def test_every_assignment_works_and_with_few_vertices_too(mode, options, edges, step_mm):
    spans = [(-20, 18), (18, -20), (-19, -1), (15, 18)]
    counted = build(
        tractogram=tractogram(spans, step_mm=step_mm),
        assignment=mode,
        connectome_measures=["count"],
        zero_diagonal="radial" not in mode,
        **options,
    )
    matrix = matrix_of(counted.count)
    found = {(i, j): matrix[i, j] for i, j in zip(*np.nonzero(np.triu(matrix)), strict=True)}
    assert found == edges


def test_the_way_of_streamlines_is_not_in_their_summary():
    with pytest.raises(InputError, match="do not say their way"):
        build(summary=summary(), assignment="reverse_search", connectome_measures=["count"])
    with pytest.raises(UsageError, match="neither a summary nor a tractogram"):
        build()


def test_a_tractogram_of_other_streamlines_than_the_summary_is_refused():
    with pytest.raises(InputError, match="has 2 streamlines, and its summary 5"):
        build(summary=summary(), tractogram=tractogram(SPANS[:2]))


def test_weights_change_every_matrix_but_the_streamlines_of_nodes():
    np.savetxt("w.txt", [1, 3, 0.5, 2, 9])
    weighted = build(
        summary=summary(),
        streamline_weights="w.txt",
        connectome_measures=["count", "meanlength", "invlength"],
    )
    assert matrix_of(weighted.count)[1, 2] == 4
    assert matrix_of(weighted.count)[0, 1] == 0.5
    np.testing.assert_allclose(matrix_of(weighted.invlength)[1, 2], 4 / 38, rtol=1e-6)
    np.testing.assert_array_equal(matrix_of(weighted.streamlines), COUNTS)
    assert weighted.count_metadata["StreamlineWeighting"] == "w.txt"
    assert "weights" in weighted.count_metadata["Description"]
    np.savetxt("w.txt", [1, 3])
    with pytest.raises(InputError, match="5"):
        build(summary=summary(), streamline_weights="w.txt")


def test_sift2_weights_are_for_the_measure_sift2_alone():
    np.savetxt("w.txt", [1, 3, 0.5, 2, 9])
    outputs = build(
        summary=summary(), sift2_weights="w.txt", connectome_measures=["count", "sift2"]
    )
    np.testing.assert_array_equal(matrix_of(outputs.count), COUNTS)
    assert matrix_of(outputs.sift2)[1, 2] == 4
    assert outputs.sift2_metadata["StreamlineWeighting"] == "SIFT2"


def test_the_nodes_of_each_streamline_are_listed_in_their_order():
    outputs = build(summary=summary(), streamline_assignments=True)
    table = pd.read_csv(outputs.assignments, sep="\t")
    expected = [[30, 20], [20, 30], [30, 10], [20, 20], [30, 0]]
    assert table[["first", "last"]].to_numpy().tolist() == expected
    visited = build(
        tractogram=tractogram(),
        assignment="all_voxels",
        streamline_assignments=True,
        connectome_measures=["count"],
    )
    table = pd.read_csv(visited.assignments, sep="\t")
    assert list(table["nodes"]) == ["10 20 30", "10 20 30", "10 30", "20", "30"]


def test_all_matrices_of_all_atlases_fit_into_one_hdf5_file():
    outputs = build(summary=summary(), connectome_hdf5=True)
    merged = MergeConnectomes(atlases=["A", "B"], files=[outputs.hdf5] * 2).run().outputs.hdf5
    stored = read_hdf5(merged)
    assert set(stored) == {"A", "B"}
    assert set(stored["A"]) == {"count", "meanlength"}
    np.testing.assert_array_equal(stored["B"]["count"], COUNTS)
    with h5py.File(merged) as file:
        assert file["A/meanlength"].attrs["Units"] == "mm"
        names = [name.decode() for name in file["A/nodes/name"][()]]
        assert names == ["middle", "L_first", "R_last", "lost"]
        assert np.isnan(file["A/nodes/x_mm"][3])


def test_the_diagonal_is_left_out_if_that_is_asked_for():
    outputs = build(summary=summary(), zero_diagonal=True)
    assert not np.diag(matrix_of(outputs.count)).any()
    assert outputs.count_metadata["ValidDiagonal"] is False


def test_a_triangle_is_the_upper_half_of_the_matrix():
    whole = build(summary=summary())
    expected = {name: matrix_of(getattr(whole, name)) for name in ("count", "meanlength")}
    half = build(summary=summary(), upper_triangle=True)
    for name, matrix in expected.items():
        np.testing.assert_array_equal(matrix_of(getattr(half, name)), np.triu(matrix))
    assert half.count_metadata["StorageFormat"] == "UpperTriangle"
    np.testing.assert_array_equal(matrix_of(half.streamlines), expected["count"])


def test_streamlines_outside_the_image_belong_to_no_node():
    outputs = build(summary=summary([(-500, 900), (-20, 18)]))
    assert matrix_of(outputs.count).sum() == 2


def test_an_empty_tractogram_gives_empty_matrices_of_all_nodes_and_a_note():
    for given in ({"summary": summary([])}, {"tractogram": tractogram([])}):
        outputs = build(**given)
        assert matrix_of(outputs.count).shape == (4, 4)
        assert not matrix_of(outputs.meanlength).any()
        assert any("empty" in note for note in outputs.notes)


def test_two_nodes_are_enough():
    labels = np.zeros(SHAPE, np.int16)
    labels[:2], labels[18:] = 1, 2
    write_atlas(labels, [(1, "a"), (2, "b")])
    np.testing.assert_array_equal(matrix_of(build(summary=summary()).count), [[0, 2], [2, 1]])


def test_five_thousand_nodes_are_not_too_many():
    labels = np.zeros(SHAPE, np.int32)
    labels[:2], labels[18:] = 5000, 77
    write_atlas(labels, [(i, f"n{i}") for i in range(1, 5001)])
    outputs = build(summary=summary(), connectome_measures=["count"])
    with open(outputs.count) as lines:  # noqa: PTH123
        rows = lines.read().splitlines()
    assert len(rows) == 5001
    assert rows[5000].split("\t")[76] == "2"
    assert rows[77].split("\t")[76] == "1"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_labels_may_be_stored_as_any_numbers_if_they_are_whole(dtype):
    labels = np.zeros(SHAPE)
    labels[:2], labels[9:11], labels[18:] = 30, 10, 20
    write_atlas(labels.astype(dtype))
    np.testing.assert_array_equal(matrix_of(build(summary=summary()).count), COUNTS)


@pytest.mark.parametrize("value", [0.5, np.nan, 1e12])
def test_an_image_of_other_numbers_than_labels_is_refused(value):
    labels = np.zeros(SHAPE)
    labels[:2], labels[5] = 30, value
    write_atlas(labels)
    with pytest.raises(AtlasError, match=r"200|40 voxels .* hold no label"):
        build(summary=summary())


def test_labels_that_the_table_lacks_are_named():
    labels = np.zeros(SHAPE, np.int16)
    labels[:2], labels[3] = 30, 31
    write_atlas(labels)
    with pytest.raises(AtlasError, match=r"1 of 2 labels .* no row in the table: 31"):
        build(summary=summary())


def test_the_parcellation_may_be_on_any_grid():
    coarse = np.zeros((10, 5, 2), np.int16)
    coarse[0], coarse[9] = 30, 20
    affine = VOX2RAS @ np.diag([2, 2, 2, 1.0])
    affine[:3, 3] += 1
    save_volume(coarse, affine, "labels.nii.gz")
    outputs = build(summary=summary(), connectome_measures=["count"])
    assert matrix_of(outputs.count)[1, 2] == 2
    assert pd.read_csv(outputs.nodeindices, sep="\t")["volume_mm3"][1] == 640
