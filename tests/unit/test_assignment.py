"""Which labels streamlines come to, by every rule, against plain loops and known answers."""

from __future__ import annotations

import heapq
import itertools

import numpy as np
import pytest
import torch
from problems import oblique, scaling

from difftract_bids.core.connectome.assignment import (
    assign_ends,
    assign_streamlines,
    search_in_torch,
    visited_labels,
)
from difftract_bids.errors import ConfigError, InputError

SHAPE = (14, 12, 11)
MODES = ["radial_search", "end_voxels", "reverse_search", "forward_search"]


def some_parcellation(share: float = 0.1, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 9, SHAPE, generator=generator, dtype=dtype)
    return labels * (torch.rand(SHAPE, generator=generator) < share)


def wandering(n: int, n_vertices: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """Streamlines of up to so many vertices that turn slowly, within the image and outside."""
    rng = np.random.default_rng(1)
    heading = rng.normal(size=(n, 1, 3)) + 0.3 * rng.normal(size=(n, n_vertices, 3)).cumsum(1)
    steps = 0.4 * heading / np.linalg.norm(heading, axis=2, keepdims=True)
    voxel = rng.uniform(0, SHAPE, size=(n, 1, 3)) + steps.cumsum(1)
    affine = oblique().numpy()
    counts = rng.integers(1, n_vertices + 1, size=n)
    parts = [voxel[i, :count] @ affine[:3, :3].T + affine[:3, 3] for i, count in enumerate(counts)]
    points = torch.from_numpy(np.concatenate(parts)).float()
    return points, torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]))


def line(*voxels: tuple[float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """One streamline on a grid of 1 mm, vertices given in voxels."""
    return torch.tensor(voxels), torch.tensor([0, len(voxels)])


def labelled(**voxels: int) -> torch.Tensor:
    """Ten voxels in a row along x, five by five across; ``x3=7`` labels one on the axis."""
    image = torch.zeros(10, 5, 5, dtype=torch.int64)
    for name, label in voxels.items():
        image[int(name[1:]), 2, 2] = label
    return image


def along(first: float, last: float, step: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a straight line on the axis of `labelled`."""
    n = round(abs(last - first) / step) + 1
    return line(*((x, 2.0, 2.0) for x in np.linspace(first, last, n).tolist()))


def nearest_voxel(point: np.ndarray, affine: np.ndarray) -> tuple[int, ...]:
    voxel = np.linalg.inv(affine) @ [*point, 1]
    return tuple((np.sign(v) * np.floor(abs(v) + 0.5)).astype(int) for v in voxel[:3])


def looked_up(voxel: tuple[int, ...], image: np.ndarray) -> int:
    inside = all(0 <= v < n for v, n in zip(voxel, image.shape, strict=True))
    return int(image[voxel]) if inside else 0


def plain_reverse(
    path: np.ndarray, image: np.ndarray, affine: np.ndarray, limit: float, n_vertices: int
) -> int:
    """Search from the last vertex inwards, through so many vertices."""
    travelled = 0.0
    for at in range(len(path) - 1, len(path) - 1 - n_vertices, -1):
        if label := looked_up(nearest_voxel(path[at], affine), image):
            return label
        travelled += float(np.linalg.norm(path[at] - path[at - 1])) if at else 0.0
        if limit and travelled > limit:
            return 0
    return 0


def plain_forward(path: np.ndarray, image: np.ndarray, affine: np.ndarray, limit: float) -> int:
    """Search from the last vertex outwards, cheapest voxel first."""
    last = path[-1] - path[-2]
    if len(path) > 2:
        before = path[-2] - path[-3]
        last = 2 * last - before * np.linalg.norm(last) / np.linalg.norm(before)
    tangent = last / np.linalg.norm(last)
    start = nearest_voxel(path[-1], affine)
    if not all(0 <= v < n for v, n in zip(start, image.shape, strict=True)):
        return 0
    queue, seen = [(0.0, start)], {start}
    while queue:
        _, voxel = heapq.heappop(queue)
        if label := looked_up(voxel, image):
            return label
        for step in itertools.product((-1, 0, 1), repeat=3):
            beside = tuple(int(v) + s for v, s in zip(voxel, step, strict=True))
            inside = all(0 <= v < n for v, n in zip(beside, image.shape, strict=True))
            if beside in seen or not inside:
                continue
            seen.add(beside)
            ahead = (affine @ [*beside, 1])[:3] - path[-1]
            distance = np.linalg.norm(ahead)
            angle = np.degrees(np.arccos(np.clip(ahead @ tangent / distance, -1, 1)))
            if angle <= 45 and distance * (1 + angle / 45) <= limit:
                heapq.heappush(queue, (distance * (1 + angle / 45), beside))
    return 0


@pytest.mark.parametrize("radius_mm", [0.5, 2.0, 4.0, 7.0])
def test_the_compiled_radial_search_finds_what_its_reference_finds(radius_mm):
    points, offsets = wandering(3000, 2)
    ends = torch.stack([points[offsets[:-1]], points[offsets[1:] - 1]], dim=1)
    image = some_parcellation()
    found = assign_ends(ends, image, oblique(), radius_mm)
    assert (found != 0).any()
    assert torch.equal(found, search_in_torch(ends, image, oblique(), radius_mm))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turn", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_labels_do_not_depend_on_how_the_image_is_stored(mode, turn):
    # Whole and half voxels: many centres are equally near, many ends between two voxels.
    rng = np.random.default_rng(2)
    points = torch.from_numpy(rng.integers(-1, 24, size=(600, 3)) * 0.5)
    offsets = torch.arange(0, 601, 3)
    image, affine = some_parcellation(0.2), scaling(1.0)
    turned = image.permute(turn).flip(0, 2)
    stored = affine[:, [*turn, 3]].clone()
    for axis in (0, 2):
        stored[:3, 3] += stored[:3, axis] * (turned.shape[axis] - 1)
        stored[:3, axis] *= -1
    expected = assign_streamlines(points, offsets, image, affine, mode)
    assert (expected != 0).any()
    found = assign_streamlines(points, offsets, turned, stored, mode)
    assert torch.equal(found, expected)


def test_of_skewed_voxels_the_nearest_centre_wins_too():
    affine = scaling(2.0)
    affine[0, 1] = 1.2
    image = some_parcellation()
    rng = np.random.default_rng(5)
    voxel = torch.from_numpy(rng.uniform(0, SHAPE, size=(400, 3)))
    ends = (voxel @ affine[:3, :3].T + affine[:3, 3]).reshape(200, 2, 3)
    index = torch.nonzero(image)
    centres = index.double() @ affine[:3, :3].T + affine[:3, 3]
    distance, at = torch.cdist(ends.reshape(-1, 3), centres).min(1)
    expected = torch.where(distance < 5, image[tuple(index[at].T)], 0)
    assert torch.equal(assign_ends(ends, image, affine, 5.0).ravel(), expected)


def test_an_end_belongs_to_its_own_voxel_and_halves_go_away_from_zero():
    image = labelled(x0=1, x1=2, x9=9)
    points = torch.tensor([[0.49, 2, 2], [0.5, 2, 2], [-0.49, 2, 2], [-0.5, 2, 2]])
    labels = assign_streamlines(
        points, torch.arange(0, 5, 2), image, scaling(1.0), mode="end_voxels"
    )
    assert labels.tolist() == [[1, 2], [1, 0]]
    beyond = line((9.49, 2, 2), (9.5, 2, 2))
    assert assign_streamlines(*beyond, image, scaling(1.0), "end_voxels").tolist() == [[9, 0]]


def test_a_reverse_search_stops_at_the_first_label_on_the_way_in():
    image = labelled(x1=5, x2=6, x7=7)
    labels = assign_streamlines(*along(0, 9), image, scaling(1.0), "reverse_search")
    assert labels.tolist() == [[5, 7]]


def test_a_reverse_search_goes_no_further_than_it_may_and_never_past_the_middle():
    image = labelled(x6=7)
    path = along(0, 9)
    search = {"parcellation": image, "vox2ras": scaling(1.0), "mode": "reverse_search"}
    # Its first vertex is 3 mm from the end; at exactly the limit the search goes on.
    assert assign_streamlines(*path, **search, distance_mm=2.9).tolist() == [[0, 0]]
    assert assign_streamlines(*path, **search, distance_mm=3.0).tolist() == [[0, 7]]
    assert assign_streamlines(*path, **search).tolist() == [[0, 7]]
    search["parcellation"] = labelled(x3=7)
    assert assign_streamlines(*path, **search).tolist() == [[7, 0]]


def test_of_one_or_two_vertices_a_reverse_search_looks_at_the_first():
    image = labelled(x3=3, x4=4)
    for path in (along(3, 3), along(3, 4, 1.0)):
        for limit_mm in (0.0, 5.0):
            labels = assign_streamlines(
                *path, image, scaling(1.0), "reverse_search", distance_mm=limit_mm
            )
            assert labels.tolist() == [[3, 0]]


@pytest.mark.parametrize("limit_mm", [0.0, 3.0])
def test_reverse_searches_find_what_a_plain_loop_finds(limit_mm):
    points, offsets = wandering(300)
    image, affine = some_parcellation(0.15), oblique().numpy()
    found = assign_streamlines(
        points, offsets, image, oblique(), "reverse_search", distance_mm=limit_mm
    )
    paths = np.split(points.double().numpy(), offsets[1:-1].numpy())
    given = image.numpy(), affine, limit_mm
    # Of an odd number of vertices the one in the middle is the first half's; of an even number
    # that half has one more, too.
    last = [plain_reverse(path, *given, (len(path) - 1) // 2) for path in paths]
    first = [plain_reverse(path[::-1], *given, (len(path) + 1) // 2) for path in paths]
    assert sum(label > 0 for label in last) > 25
    assert found.tolist() == [list(pair) for pair in zip(first, last, strict=True)]


def test_a_forward_search_looks_ahead_and_not_back_nor_aside():
    search = {"vox2ras": scaling(1.0), "mode": "forward_search", "distance_mm": 3.0}
    path = along(3, 5)
    assert assign_streamlines(*path, labelled(x7=7), **search).tolist() == [[0, 7]]
    assert assign_streamlines(*path, labelled(x1=1), **search).tolist() == [[1, 0]]
    assert assign_streamlines(*path, labelled(x4=4), **search).tolist() == [[0, 0]]
    assert assign_streamlines(*path, labelled(x9=9), **search).tolist() == [[0, 0]]
    aside = labelled()
    aside[5, 4, 2] = 8
    assert assign_streamlines(*path, aside, **search).tolist() == [[0, 0]]


def test_a_forward_search_goes_half_as_far_at_the_edge_of_its_cone():
    image = labelled()
    image[6, 3, 2] = 8  # 45 degrees aside of 5, √2 mm away: twice that counts
    search = {"vox2ras": scaling(1.0), "mode": "forward_search"}
    path = line((3.0, 1.999, 2.0), (4.0, 2.0, 2.0), (5.0, 2.001, 2.0))
    for limit_mm, label in ((2.80, 0), (2.84, 8)):
        found = assign_streamlines(*path, image, **search, distance_mm=limit_mm)
        assert found.tolist() == [[0, label]]


def test_a_forward_search_goes_on_turning_as_the_last_step_did():
    image = labelled()
    image[7, 4, 2] = 8
    # The step before went along x, the last one at 30 degrees: the next would go at 54.
    bent = line((4.0, 2.0, 2.0), (5.0, 2.0, 2.0), (5.866, 2.5, 2.0))
    straight = line((5.0, 2.0, 2.0), (5.866, 2.0, 2.0))
    search = {"vox2ras": scaling(1.0), "mode": "forward_search", "distance_mm": 4.0}
    assert assign_streamlines(*bent, image, **search).tolist() == [[0, 8]]
    assert assign_streamlines(*straight, image, **search).tolist() == [[0, 0]]


@pytest.mark.parametrize("limit_mm", [3.0, 9.0])
def test_forward_searches_find_what_a_plain_loop_finds(limit_mm):
    points, offsets = wandering(300)
    image, affine = some_parcellation(0.1), oblique().numpy()
    found = assign_streamlines(
        points, offsets, image, oblique(), "forward_search", distance_mm=limit_mm
    )
    paths = np.split(points.double().numpy(), offsets[1:-1].numpy())
    whole = [len(path) > 1 for path in paths]
    paths = list(itertools.compress(paths, whole))
    last = [plain_forward(path, image.numpy(), affine, limit_mm) for path in paths]
    first = [plain_forward(path[::-1], image.numpy(), affine, limit_mm) for path in paths]
    assert sum(label > 0 for label in last) > 15
    assert found[whole].tolist() == [list(pair) for pair in zip(first, last, strict=True)]


def test_a_single_vertex_has_no_heading_and_its_own_voxel_counts():
    image = labelled(x3=3, x5=5)
    for x, label in ((3.0, 3), (4.0, 0)):
        found = assign_streamlines(*along(x, x), image, scaling(1.0), "forward_search")
        assert found.tolist() == [[label, label]]


def test_a_step_of_no_length_has_no_heading_either():
    stuck = line((4.0, 2.0, 2.0), (4.0, 2.0, 2.0), (4.0, 2.0, 2.0))
    found = assign_streamlines(*stuck, labelled(x5=5), scaling(1.0), "forward_search")
    assert found.tolist() == [[0, 0]]


def test_all_labels_that_a_streamline_visits_are_listed_once_and_ascending():
    image = labelled(x1=9, x3=4, x4=4, x6=9, x8=2)
    points = torch.cat([along(0, 9)[0], along(9, 9)[0], along(3, 4)[0]])
    offsets = torch.tensor([0, 19, 20, 23])
    labels, places = visited_labels(points, offsets, image, scaling(1.0))
    assert labels.tolist() == [2, 4, 9, 4]
    assert places.tolist() == [0, 3, 3, 4]


def test_visits_are_those_of_a_plain_loop():
    points, offsets = wandering(400)
    image, affine = some_parcellation(0.5), oblique().numpy()
    labels, places = visited_labels(points, offsets, image, oblique())
    expected = [
        sorted({looked_up(nearest_voxel(point, affine), image.numpy()) for point in path} - {0})
        for path in np.split(points.double().numpy(), offsets[1:-1].numpy())
    ]
    assert max(map(len, expected)) > 4
    assert [part.tolist() for part in labels.split(places.diff().tolist())] == expected


@pytest.mark.parametrize("mode", MODES)
def test_threads_and_portions_change_nothing(mode):
    points, offsets = wandering(3000, 6)
    image = some_parcellation()
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = assign_streamlines(points, offsets, image, oblique(), mode)
    finally:
        torch.set_num_threads(n_threads)
    parts = [
        assign_streamlines(
            points[offsets[i] : offsets[i + 500]],
            offsets[i : i + 501] - offsets[i],
            image,
            oblique(),
            mode,
        )
        for i in range(0, 3000, 500)
    ]
    assert torch.equal(torch.cat(parts), together)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("mode", MODES)
def test_any_integers_are_labels_and_keep_their_type(mode, dtype):
    points, offsets = wandering(200)
    expected = assign_streamlines(points, offsets, some_parcellation(), oblique(), mode)
    image = some_parcellation().to(dtype)
    found = assign_streamlines(points, offsets, image, oblique(), mode)
    assert found.dtype == dtype
    assert torch.equal(found.int(), expected)
    labels, _ = visited_labels(points, offsets, image, oblique())
    assert labels.dtype == dtype


def test_labels_may_be_larger_than_32_bits():
    image = labelled(x3=3_000_000_011)
    for mode in MODES:
        found = assign_streamlines(*along(3, 3), image, scaling(1.0), mode)
        assert found[0, 0] == 3_000_000_011


@pytest.mark.parametrize("mode", MODES)
def test_streamlines_outside_the_image_have_no_labels(mode):
    points, offsets = along(0, 9)
    for shift in (1000.0, -1e12, 3e30):
        found = assign_streamlines(
            points + shift, offsets, torch.ones(10, 5, 5, dtype=torch.int64), scaling(1.0), mode
        )
        assert found.tolist() == [[0, 0]]


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_tractogram_and_an_empty_streamline_have_no_labels(mode):
    none = assign_streamlines(
        torch.zeros(0, 3), torch.zeros(1).long(), labelled(), scaling(1.0), mode
    )
    assert none.shape == (0, 2)
    points, _ = along(3, 3)
    offsets = torch.tensor([0, 0, 1, 1])
    image = labelled(x3=3)
    found = assign_streamlines(points, offsets, image, scaling(1.0), mode)
    assert found[[0, 2]].tolist() == [[0, 0], [0, 0]]
    assert found[1, 0] == 3
    _, places = visited_labels(points, offsets, image, scaling(1.0))
    assert places.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("mode", MODES)
def test_vertices_that_are_not_finite_are_counted_and_the_first_is_named(mode):
    points, offsets = wandering(5, 1)
    points[3, 1] = torch.inf
    with pytest.raises(InputError, match=r"1 of 5 streamlines.*number 3"):
        assign_streamlines(points, offsets, some_parcellation(), oblique(), mode)
    with pytest.raises(InputError, match=r"1 of 5 streamlines.*number 3"):
        visited_labels(points, offsets, some_parcellation(), oblique())


def test_what_does_not_fit_is_refused():
    points, offsets = along(0, 9)
    image, affine = labelled(), scaling(1.0)
    with pytest.raises(InputError, match="offsets do not rise"):
        assign_streamlines(points, offsets[:1], image, affine)
    with pytest.raises(InputError, match="offsets do not rise"):
        assign_streamlines(points, torch.tensor([0, 12, 5, 19]), image, affine)
    with pytest.raises(InputError, match=r"\(p, 3\)"):
        assign_streamlines(points[:, :2], offsets, image, affine)
    with pytest.raises(InputError, match="integers"):
        visited_labels(points, offsets, image.float(), affine)
    with pytest.raises(InputError, match="invertible"):
        assign_streamlines(points, offsets, image, torch.zeros(4, 4))
    with pytest.raises(ConfigError, match="visited_labels"):
        assign_streamlines(points, offsets, image, affine, "all_voxels")
    with pytest.raises(ConfigError, match="negative"):
        assign_streamlines(points, offsets, image, affine, "radial_search", -1.0)
