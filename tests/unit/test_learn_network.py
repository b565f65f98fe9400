"""From a scan to its fODFs by a network: grids, turns, tiles, gradients, and that it learns."""

from __future__ import annotations

import itertools

import pytest
import torch
from acquisitions import scheme
from networks import (
    OWN,
    TABLE,
    PerDegree,
    TooSmall,
    affine,
    network,
    settings,
    signal,
    small_turn,
    stored_otherwise,
)
from signals import fibre_signal

from difftract_bids.core.end_to_end import DWIToConnectome
from difftract_bids.core.sh import sh_basis
from difftract_bids.core.sh_rotation import sh_rotation
from difftract_bids.errors import ConfigError, FodfError, InputError
from difftract_bids.io.gradients import GradientTable
from difftract_bids.learn.network import FODFNetwork
from difftract_bids.learn.residual_cnn import ResidualCNN
from difftract_bids.learn.rotations import GridRotation, predict_rotated, rotations_of
from difftract_bids.learn.tiles import box_of, tiles_of


def ball(shape=(7, 6, 5)) -> torch.Tensor:
    """Give a mask that leaves the corners out."""
    where = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), dim=-1)
    middle = (torch.tensor(shape) - 1) / 2
    return ((where - middle) / middle).norm(dim=-1) < 1.1


# -- where the scan is, and how it is stored


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_scan_stored_otherwise_gives_the_same_fodfs(order):
    dwi, mask, vox2ras, model = signal(), ball(), affine(turn=small_turn()), network()
    expected = model.predict(dwi, TABLE, vox2ras, mask)
    reverse = (True, False, True)
    moved, other = stored_otherwise(dwi, vox2ras, order, reverse)
    found = model.predict(moved, TABLE, other, stored_otherwise(mask, vox2ras, order, reverse)[0])
    torch.testing.assert_close(
        found, stored_otherwise(expected, vox2ras, order, reverse)[0], atol=1e-5, rtol=1e-4
    )
    assert expected[mask].abs().max() > 0.1


def test_turning_the_head_with_its_box_turns_the_fodfs():
    dwi, mask, turn, model = signal(), ball(), small_turn(35), network()
    turned = GradientTable(TABLE.bvals_s_mm2, TABLE.bvecs @ turn.numpy().T)
    found = model.predict(dwi, turned, affine(turn=turn), mask)
    straight = model.predict(dwi, TABLE, affine(), mask)
    expected = straight @ sh_rotation(turn, 4).float().T
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (found - straight).abs().max() > 0.05  # it did turn


def test_air_about_the_head_changes_nothing():
    dwi, mask, model = signal((9, 9, 9)), torch.zeros(9, 9, 9, dtype=torch.bool), network()
    mask[3:6, 3:6, 3:6] = True
    expected = model.predict(dwi, TABLE, affine(), mask)
    pad = (0, 0, 3, 1, 0, 4, 2, 2)
    wide = torch.nn.functional.pad(dwi, pad, value=50.0)
    found = model.predict(wide, TABLE, affine(), torch.nn.functional.pad(mask, pad[2:]))
    assert torch.equal(found, torch.nn.functional.pad(expected, pad))
    assert not found[~torch.nn.functional.pad(mask, pad[2:])].any()


def test_a_scan_without_a_brain_gives_nothing():
    mask = torch.zeros(7, 6, 5, dtype=torch.bool)
    found = network().predict(signal(), TABLE, affine(), mask)
    assert found.shape == (7, 6, 5, 15)
    assert not found.any()


def test_grids_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="the mask"):
        network().predict(signal(), TABLE, affine(), ball((7, 6, 6)))
    with pytest.raises(InputError, match=r"\(7, 6, 5\)"):
        network().for_run(TABLE, affine())(torch.zeros(7, 6, 5))


# -- tiles


@pytest.mark.parametrize("tile", [3, 5])
def test_tiles_give_what_the_whole_gives(tile):
    dwi, mask, model = signal((9, 8, 7)), ball((9, 8, 7)), network()
    vox2ras = affine(turn=small_turn(10))
    dwi_moved, other = stored_otherwise(dwi, vox2ras, (1, 2, 0), (False, True, False))
    mask_moved = stored_otherwise(mask, vox2ras, (1, 2, 0), (False, True, False))[0]
    for scan in ((dwi, affine(), mask), (dwi_moved, other, mask_moved)):
        whole = model.predict(scan[0], TABLE, scan[1], scan[2], tile=99)
        tiled = model.predict(scan[0], TABLE, scan[1], scan[2], tile=tile)
        torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)


def test_tiles_cover_every_voxel_once_and_read_what_is_about_them():
    count = torch.zeros(10, 7, 3, dtype=torch.int)
    for tile in tiles_of((10, 7, 3), 4, 2):
        count[tile.kept] += 1
        index = torch.arange(210).view(10, 7, 3)
        assert torch.equal(index[tile.read][tile.within], index[tile.kept])
        for kept, read, size in zip(tile.kept, tile.read, (10, 7, 3), strict=True):
            assert kept.stop - kept.start <= 4
            assert read.start == max(kept.start - 2, 0)
            assert read.stop == min(kept.stop + 2, size)
    assert (count == 1).all()


def test_the_box_of_a_mask_ends_at_the_grid():
    mask = torch.zeros(10, 7, 3, dtype=torch.bool)
    mask[4:6, 1, 2] = True
    assert box_of(mask, 2) == (slice(2, 8), slice(0, 4), slice(0, 3))
    assert box_of(torch.zeros_like(mask)) is None


@pytest.mark.parametrize("n_blocks", [0, 1, 3])
def test_the_receptive_field_is_what_a_prediction_depends_on(n_blocks):
    # The derivatives of many random networks: one alone may miss a voxel (ReLU).
    reach = torch.zeros(19)
    for seed in range(3):
        model = network(n_blocks=n_blocks, seed=seed)
        given = torch.rand(1, 15, 19, 5, 5, generator=torch.Generator().manual_seed(seed))
        given.requires_grad_()
        (slope,) = torch.autograd.grad(model(given)[0, :, 9, 2, 2].square().sum(), given)
        reach += slope[0].abs().sum(dim=(0, 2, 3))
    assert int((reach > 0).sum()) == model.receptive_field == 4 * n_blocks + 3


# -- turns of the grid


def test_cubic_voxels_have_the_48_turns_of_the_octahedral_group():
    found = rotations_of((2.0, 2.0, 2.001))
    assert len({turn.matrix for turn in found}) == 48
    assert found[0] == GridRotation((0, 1, 2), (False, False, False))
    products = {
        tuple(map(tuple, (torch.tensor(a.matrix) @ torch.tensor(b.matrix)).tolist()))
        for a in found
        for b in found[::5]
    }
    assert products == {turn.matrix for turn in found}


def test_turns_leave_voxel_sizes_what_they_are():
    sizes = torch.tensor([2.0, 2.0, 3.0])
    found = rotations_of(sizes.tolist())
    assert len(found) == 16
    assert all(torch.equal(torch.tensor(turn.matrix).abs() @ sizes, sizes) for turn in found)
    assert len(rotations_of((1.0, 2.0, 3.0))) == 8


def test_a_turned_image_holds_the_turned_function_in_the_turned_voxel():
    image = torch.randn(21, 4, 5, 6, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64), dim=1)
    for turn in rotations_of((1.0, 1.0, 1.0)):
        matrix = torch.tensor(turn.matrix, dtype=torch.float64)
        found = turn.apply(image, (2, 4))
        size = torch.tensor(image.shape[1:], dtype=torch.float64)
        voxel = torch.tensor([3.0, 1.0, 4.0], dtype=torch.float64)
        middle = (size - 1) / 2
        to = matrix @ (voxel - middle) + (matrix.abs() @ size - 1) / 2
        i, j, k = (int(x) for x in to.round())
        for part, lmax in ((slice(0, 6), 2), (slice(6, 21), 4)):
            values = sh_basis(directions @ matrix.T, lmax) @ found[part, i, j, k]
            expected = sh_basis(directions, lmax) @ image[part, 3, 1, 4]
            torch.testing.assert_close(values, expected)


def test_every_turn_can_be_undone():
    image = torch.randn(21, 4, 5, 6, dtype=torch.float64)
    for turn in rotations_of((1.0, 1.0, 1.0)):
        torch.testing.assert_close(turn.undo(turn.apply(image, (2, 4)), (2, 4)), image)


def test_a_network_that_knows_how_to_turn_gives_the_same_whatever_the_turn():
    model = FODFNetwork(settings(OWN), architecture_class=PerDegree)
    encoded = model.encode(signal(), TABLE, affine(), ball())
    expected = model(encoded[None])[0]
    for turn in rotations_of((2.0, 2.0, 2.0)):
        found = predict_rotated(model, encoded, turn)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_turns_stay_exact_under_mixed_precision():
    image, turn = torch.randn(15, 4, 5, 6), GridRotation((1, 0, 2), (False, True, False))
    expected = turn.apply(image, (4,))
    model = network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(turn.apply(image, (4,)), expected)
        assert model(image[None]).dtype == torch.bfloat16
        assert predict_rotated(model, image, turn).dtype == torch.float32


def test_a_network_that_does_not_gives_something_else_where_it_was():
    model = network()
    encoded = model.encode(signal(), TABLE, affine(), ball())
    expected = model(encoded[None])[0]
    turn = GridRotation((1, 0, 2), (False, True, False))
    found = predict_rotated(model, encoded, turn)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() > 0.01


# -- as a function


def test_the_function_of_a_run_gives_what_predict_gives_and_fits_the_chain():
    dwi, mask, vox2ras, model = signal(), ball(), affine(turn=small_turn()), network()
    expected = model.predict(dwi, TABLE, vox2ras, mask)
    run = model.for_run(TABLE, vox2ras)
    assert torch.equal(run(dwi, mask).detach(), expected)
    chain = DWIToConnectome(run, torch.nn.Identity())
    assert torch.equal(chain.fodf(dwi, mask).detach(), expected)
    everywhere = run(dwi)
    assert everywhere.shape == (7, 6, 5, 15)
    assert everywhere[~mask].any()


def test_the_function_of_a_run_is_differentiable_in_the_signal_and_the_weights():
    dwi = signal((3, 3, 2), dtype=torch.float64).requires_grad_()
    model = network(width=3).double()
    run = model.for_run(TABLE, affine(turn=small_turn()))
    mask = torch.ones(3, 3, 2, dtype=torch.bool)
    mask[0, 0] = False
    weigh = torch.randn(3, 3, 2, 15, dtype=torch.float64)
    total = (run(dwi, mask) * weigh).sum()
    by_signal, by_weight = torch.autograd.grad(total, [dwi, model.architecture.last.weight])
    along = torch.randn(dwi.shape, dtype=torch.float64)
    step = 1e-3
    with torch.no_grad():
        ends = [(run(dwi + s * along, mask) * weigh).sum() for s in (step, -step)]
    torch.testing.assert_close((by_signal * along).sum(), (ends[0] - ends[1]) / (2 * step))
    assert by_weight.abs().max() > 0


def test_predicting_leaves_the_mode_as_it_was_and_keeps_no_graph():
    model = network().train()
    assert not model.predict(signal(), TABLE, affine(), ball()).requires_grad
    assert model.training


def test_targets_are_brought_into_the_frame_and_predictions_out_of_it():
    model, vox2ras = network(), affine(turn=small_turn())
    fodf = torch.randn(7, 6, 5, 28)
    encoded = model.encode_fodf(fodf, vox2ras)
    assert encoded.shape == (15, 7, 6, 5)
    mask = ball()
    decoded = model.decode(encoded, vox2ras, mask)
    torch.testing.assert_close(decoded[mask], fodf[mask][:, :15], atol=1e-5, rtol=1e-4)
    assert not decoded[~mask].any()
    with pytest.raises(InputError, match="have lmax 2, the network gives lmax 4"):
        model.encode_fodf(fodf[..., :6], vox2ras)
    with pytest.raises(FodfError, match="7 coefficients"):
        model.encode_fodf(fodf[..., :7], vox2ras)


def test_scans_of_other_shells_are_refused():
    other = scheme((3000.0, 30))
    for use in (
        lambda: network().for_run(other, affine()),
        lambda: network().encode(signal(), other, affine()),
        lambda: network().predict(signal(), other, affine(), ball()),
    ):
        with pytest.raises(InputError, match="b=1000"):
            use()


# -- making one


def test_the_seed_alone_decides_the_first_weights():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (FODFNetwork(settings(), random_seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    name = "architecture.first.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


def test_a_new_network_gives_nothing_and_learns_from_the_first_step():
    model = FODFNetwork(settings())
    found = model(torch.rand(1, 15, 4, 4, 4))
    assert not found.any()
    (found - 1).square().sum().backward()
    for layer in (model.architecture.skip, model.architecture.last):
        assert layer.weight.grad.abs().max() > 0


def test_architectures_that_cannot_be_used_are_refused_saying_why():
    with pytest.raises(InputError, match="must be") as found:
        FODFNetwork(settings("networks:TooSmall"), architecture_class=TooSmall).predict(
            signal(), TABLE, affine(), ball()
        )
    assert "out_channels" in found.value.remedy
    with pytest.raises(InputError, match="cannot be made with the options"):
        FODFNetwork(settings(depth=3))
    with pytest.raises(ConfigError, match="width is 0"):
        ResidualCNN(15, 15, width=0)
    with pytest.raises(InputError, match="lmax is 5"):
        settings(lmax=5)


def test_an_architecture_that_does_not_tell_its_reach_is_given_the_whole():
    model = FODFNetwork(settings(OWN), architecture_class=PerDegree)
    assert model.receptive_field is None
    found = model.predict(signal(), TABLE, affine(), ball(), tile=2)
    torch.testing.assert_close(found, model.for_run(TABLE, affine())(signal(), ball()).detach())


def test_thirty_steps_bring_the_network_nearer_to_the_fodfs_of_a_simulated_bundle():
    """Fibres that fan out, with noise: what is to be found is their lobe, cut off at lmax 4."""
    where = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 10)] * 3, indexing="ij"), dim=-1)
    fibres = torch.nn.functional.normalize(where + torch.tensor([2.0, 0.5, 0.0]), dim=-1).double()
    target = 0.1 * sh_basis(fibres.view(-1, 3), 4).view(10, 10, 10, 15).float()
    bvals, bvecs = torch.from_numpy(TABLE.bvals_s_mm2), torch.from_numpy(TABLE.bvecs)
    noise = torch.randn(10, 10, 10, 33, generator=torch.Generator().manual_seed(0))
    dwi = 800 * (fibre_signal(bvals, bvecs, fibres) + 0.03 * noise)
    model = FODFNetwork(settings(width=8, n_blocks=1))
    given = model.encode(dwi.float(), TABLE, affine())
    wanted = model.encode_fodf(target, affine())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    turns = rotations_of((2.0, 2.0, 2.0))
    losses = []
    for step in range(30):
        found = predict_rotated(model, given, turns[7 * step % 48])
        loss = (found - wanted).square().mean() / wanted.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == 1.0  # that of predicting nothing
    assert sum(losses[-5:]) / 5 < 0.7


def test_an_image_alone_is_predicted_as_in_a_batch_bit_by_bit():
    network = ResidualCNN(15, 45, width=8, n_blocks=1)
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=generator)
    images = torch.randn(2, 15, 9, 10, 11, generator=generator)
    both = network(images)
    assert torch.equal(network(images[:1]), both[:1])
    assert torch.equal(network(images[1:]), both[1:])
