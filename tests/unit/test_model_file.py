"""Model files: what goes in comes out, and what is not a model is refused without running it."""

from __future__ import annotations

import hashlib
import json
import sys

import pytest
import torch
from networks import OWN, TABLE, PerDegree, affine, network, settings, signal
from safetensors.torch import load_file, save_file

from difftract_bids.errors import DifftractError, InputError, UsageError
from difftract_bids.learn.architectures import DEFAULT_ARCHITECTURE, architecture_of, import_class
from difftract_bids.learn.model_file import load_model, save_model
from difftract_bids.learn.network import FODFNetwork

TRAINING = {"participants": ["01", "02"], "loss": 0.25, "atlas": None, "µ": "²"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, network(), TRAINING)
    return path


def rewrite(path, change):
    """Change the record or the weights of a file."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata, weights = header["__metadata__"], load_file(path)
    record = json.loads(metadata["difftract_bids"])
    change(record, weights)
    save_file(weights, path, metadata={"difftract_bids": json.dumps(record)})


def test_a_model_comes_back_as_it_was_written(tmp_path):
    model, path = network(), tmp_path / "new" / "model.safetensors"
    digest = save_model(path, model, TRAINING)
    found = load_model(path)
    assert found.training == TRAINING
    assert found.network.settings == model.settings
    assert found.sha256 == digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.path == path
    assert not found.network.training
    for name, weight in model.state_dict().items():
        assert torch.equal(found.network.state_dict()[name], weight)
    given = (signal(), TABLE, affine(), torch.ones(7, 6, 5, dtype=torch.bool))
    assert torch.equal(found.network.predict(*given), model.predict(*given))


def test_the_same_model_is_the_same_file_and_none_is_left_beside_it(tmp_path):
    model = network()
    digests = {save_model(tmp_path / "model.safetensors", model, TRAINING) for _ in range(5)}
    assert len(digests) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert save_model(tmp_path / "other", network(seed=2), TRAINING) not in digests
    assert save_model(tmp_path / "other", model, TRAINING | {"loss": 0.5}) not in digests


def test_reading_leaves_the_random_numbers_alone(file):
    state = torch.get_rng_state()
    load_model(file)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.2, 0.5, 0.99])
def test_a_truncated_file_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cannot be read") as found:
        load_model(file)
    assert "copied completely" in found.value.remedy


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="cannot be read"):
        load_model(tmp_path)
    pickled = tmp_path / "model.pt"
    torch.save(network().state_dict(), pickled)
    with pytest.raises(InputError, match="cannot be read") as found:
        load_model(pickled)
    assert "can run code" in found.value.remedy
    foreign = tmp_path / "foreign.safetensors"
    for metadata in (None, {"format": "pt"}, {"difftract_bids": "{"}, {"difftract_bids": "[1]"}):
        save_file({"weight": torch.zeros(3)}, foreign, metadata=metadata)
        with pytest.raises(InputError, match="not of a model of this package"):
            load_model(foreign)


def test_a_file_with_any_one_byte_of_its_header_damaged_is_refused_or_still_means_the_same(file):
    content = bytearray(file.read_bytes())
    expected = load_model(file)
    refused = 0
    for place in range(0, 8 + int.from_bytes(content[:8], "little"), 19):
        damaged = content.copy()
        damaged[place] ^= 0x15
        file.write_bytes(damaged)
        try:
            found = load_model(file)
        except DifftractError:
            refused += 1
        else:  # a digit of a note or of the acquisition: its digest tells
            assert found.sha256 != expected.sha256
            assert found.network.settings.lmax == 4
    assert refused > 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record, _: record.update(version=2), "format version 2"),
        (lambda record, _: record.update(settings=3), "damaged"),
        (lambda record, _: record["settings"].update(lmax=6), "do not fit its settings .lmax 6"),
        (lambda record, _: record["settings"].update(lmax=5), "lmax is 5"),
        (lambda record, _: record["settings"].update(lmax="4"), "lmax is '4'"),
        (lambda record, _: record["settings"].update(signal_lmax=2), "do not fit"),
        (lambda record, _: record["settings"]["options"].update(width=7), "do not fit"),
        (lambda record, _: record["settings"]["options"].update(width=10**9), "width is 10000"),
        (lambda record, _: record["settings"]["options"].update(in_channels=1), "cannot be made"),
        (lambda record, _: record["settings"].pop("acquisition"), "acquisition is None"),
        (lambda record, _: record["settings"]["acquisition"].pop("n_b0"), "n_b0"),
        (lambda _, weights: weights.pop("architecture.skip.bias"), "skip.bias is missing"),
        (lambda _, weights: weights.update(more=torch.ones(1)), "more is .*not missing"),
        (lambda _, weights: weights["architecture.skip.bias"].fill_(torch.nan), "not finite"),
        (
            lambda _, weights: weights.update({"architecture.skip.bias": torch.zeros(15).half()}),
            "float16",
        ),
    ],
)
def test_files_whose_parts_do_not_go_together_are_refused(file, change, said):
    rewrite(file, change)
    with pytest.raises(InputError, match=said) as found:
        load_model(file)
    assert found.value.remedy


# -- whose code runs


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Put a module on the path that leaves a trace when it is imported."""
    folder = tmp_path / "path"
    folder.mkdir()
    trace = tmp_path / "was-imported"
    (folder / "a_trap.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Net: pass\n")
    monkeypatch.syspath_prepend(folder)
    yield trace
    sys.modules.pop("a_trap", None)


@pytest.mark.parametrize(
    "model_class", [None, OWN, DEFAULT_ARCHITECTURE, "a_trap:Other", "a_trap.Net"]
)
def test_a_file_does_not_choose_what_is_imported(file, trap, model_class):
    rewrite(file, lambda record, _: record["settings"].update(architecture="a_trap:Net"))
    with pytest.raises(InputError, match="a_trap:Net") as found:
        load_model(file, model_class)
    assert "--fodf-model-class" in found.value.remedy
    assert not trap.exists()
    assert "a_trap" not in sys.modules


def test_a_class_that_the_user_names_is_imported_and_must_be_a_network(file, trap):
    rewrite(file, lambda record, _: record["settings"].update(architecture="a_trap:Net"))
    with pytest.raises(UsageError, match=r"not a torch\.nn\.Module"):
        load_model(file, "a_trap:Net")
    assert trap.exists()


def test_a_users_architecture_is_found_by_its_name(tmp_path):
    model = FODFNetwork(settings(OWN, gain=0.7), architecture_class=PerDegree)
    path = tmp_path / "own.safetensors"
    save_model(path, model, {})
    with pytest.raises(InputError, match="not one of this package's"):
        load_model(path)
    found = load_model(path, OWN)
    assert type(found.network.architecture) is PerDegree
    assert torch.equal(found.network.architecture.gain, model.architecture.gain)
    assert found.network.settings.options == {"gain": 0.7}


def test_naming_another_class_than_the_files_is_refused(file):
    with pytest.raises(InputError, match="not 'networks:PerDegree'"):
        load_model(file, OWN)
    assert load_model(file, DEFAULT_ARCHITECTURE).training == TRAINING
    assert architecture_of(OWN, OWN) is PerDegree


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("networks", "not of the form"),
        ("networks:PerDegree()", "not of the form"),
        ("networks:PerDegree\n", "not of the form"),
        ("no_such_module:Net", "cannot be imported"),
        ("networks:Missing", "has no Missing"),
        ("networks:network", "not a torch.nn.Module"),
    ],
)
def test_names_that_are_no_architecture_are_refused(name, said):
    with pytest.raises(UsageError, match=said) as found:
        import_class(name)
    assert "PYTHONPATH" in found.value.remedy


def test_a_weight_used_twice_is_written_like_any_other(tmp_path):
    model = network()
    model.architecture.blocks[0].second = model.architecture.blocks[0].first
    path = tmp_path / "model.safetensors"
    save_model(path, model, {})
    found = load_model(path).network.architecture.blocks[0]
    assert torch.equal(found.first.weight, found.second.weight)
