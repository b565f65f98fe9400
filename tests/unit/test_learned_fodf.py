"""fODFs that a trained network predicts: what is found before anything starts, and the step."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from acquisitions import scheme
from datasets import TWO_SHELLS, write_dataset, write_run
from safetensors.torch import save_file
from torch import nn

from difftract_bids.bids.fodf_model_file import TrainedModel, _read
from difftract_bids.bids.plan import make_plan
from difftract_bids.cli.learned import network_check
from difftract_bids.cli.notices import of_models
from difftract_bids.config import Config, FodfConfig
from difftract_bids.errors import ConfigError, InputError
from difftract_bids.interfaces.learned_fodf import PredictFODF
from difftract_bids.io.gradients import read_gradients, write_gradients
from difftract_bids.io.images import load_volume, save_volume
from difftract_bids.io.model_metadata import read_model_metadata
from difftract_bids.learn.acquisition import Acquisition
from difftract_bids.learn.architectures import DEFAULT_ARCHITECTURE
from difftract_bids.learn.model_file import save_model
from difftract_bids.learn.network import FODFNetwork, NetworkSettings
from difftract_bids.reports.page.summary import fodf_facts
from difftract_bids.workflows.fodf import fodf_methods

TRAINING = {"participants": ["03", "04", "05"], "dataset": "Some group"}
AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])

#: Of one fibre, relative to b=0.
RESPONSE = (0.9, -0.5, 0.2)


class Linear(nn.Module):
    """An architecture that is not built in."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.only = nn.Conv3d(in_channels, out_channels, 1)

    def forward(self, signal):
        return self.only(signal)


def network_for(
    acquisition, *, architecture=DEFAULT_ARCHITECTURE, lmax=4, response=None, **options
):
    """Make a network whose weights are random."""
    if architecture == DEFAULT_ARCHITECTURE:
        options = {"width": 4, "n_blocks": 1}
    settings = NetworkSettings(architecture, acquisition, 2, lmax, options, response)
    kind = None if architecture == DEFAULT_ARCHITECTURE else Linear
    return FODFNetwork(settings, architecture_class=kind)


def acquisition_of(dataset, label="01"):
    stem = dataset / f"sub-{label}" / "dwi" / f"sub-{label}_dwi"
    dwi = load_volume(f"{stem}.nii.gz", ndim=4)
    return Acquisition.of(read_gradients(f"{stem}.bval", f"{stem}.bvec", dwi.vox2ras), dwi.vox2ras)


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "bids")


@pytest.fixture
def model(dataset):
    """A model file for the runs of the dataset."""
    path = dataset.parent / "model.safetensors"
    save_model(path, network_for(acquisition_of(dataset)), TRAINING)
    return path


def plan(dataset, *, participants=None, **settings):
    config = Config(fodf=FodfConfig(**{key: str(value) for key, value in settings.items()}))
    folders = (dataset, dataset.parent / "out", dataset.parent / "work")
    check = network_check(config.fodf)
    return make_plan(*folders, config, participants=participants, check_network=check)


def test_the_plan_knows_the_network_and_what_it_was_trained_on(dataset, model):
    chosen = plan(dataset, fodf_model_file=model).runs[0].fodf_model
    assert (chosen.name, chosen.is_fitted, chosen.is_given) == ("learned", False, False)
    assert chosen.network == TrainedModel.of(model)
    assert chosen.notes == ()
    assert chosen.network.file == "model.safetensors"
    text = fodf_methods(FodfConfig(fodf_model_file=str(model)), "learned", chosen.network)
    assert "from 3 participants (Some group)" in text
    assert "8 directions at b = 1000 s/mm²" in text
    assert "It is given the signal" in text  # and nothing that was deconvolved
    assert str(model.parent) not in text


def test_each_participant_may_have_a_model_of_its_own(tmp_path):
    dataset = write_dataset(tmp_path / "bids", ["01", "02"])
    for label, lmax in (("01", 2), ("02", 4)):
        network = network_for(acquisition_of(dataset), lmax=lmax)
        save_model(tmp_path / f"without-{label}.safetensors", network, TRAINING)
    found = plan(dataset, fodf_model_file=tmp_path / "without-{subject}.safetensors")
    degrees = [run.fodf_model.network.settings["lmax"] for run in found.runs]
    assert degrees == [2, 4]


def with_header(path, header, rest=b""):
    content = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + rest)


DAMAGE = {
    "missing": (lambda p: p.unlink(), "no such file"),
    "text": (lambda p: p.write_text("weights"), "no safetensors file"),
    "empty": (lambda p: p.write_bytes(b""), "no safetensors file"),
    "a long text": (lambda p: p.write_text("weights " * 99), "does not begin with a header"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-9]), "truncated"),
    "cut in the header": (lambda p: p.write_bytes(p.read_bytes()[:99]), "no safetensors file"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"more"), "truncated or damaged"),
    "a list": (lambda p: with_header(p, [1, 2]), "cannot be read"),
    "no tensors": (lambda p: with_header(p, {"w": {"shape": [1]}}), "names no tensors"),
    "impossible place": (
        lambda p: with_header(p, {"w": {"shape": [1], "data_offsets": [4, 0]}}),
        "make no sense",
    ),
    "numbers for texts": (lambda p: with_header(p, {"__metadata__": {"a": 1}}), "not texts"),
    "someone else's": (lambda p: save_file({"w": torch.ones(2)}, p), "not of a model of this"),
    "other metadata": (
        lambda p: save_file({"w": torch.ones(2)}, p, metadata={"difftract_bids": "{"}),
        "not of a model of this",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_no_model_is_found_before_anything_starts(dataset, model, damage):
    spoil, said = DAMAGE[damage]
    spoil(model)
    with pytest.raises(InputError, match=said) as caught:
        plan(dataset, fodf_model_file=model)
    assert "--fodf-model-file" in caught.value.what
    assert caught.value.where == str(model)
    assert caught.value.remedy


def test_the_header_is_what_was_written(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2, 3), "none": torch.ones(0)}, path, metadata={"said": "this"})
    assert read_model_metadata(path) == {"said": "this"}


def test_what_a_model_file_says_is_read_without_torch(dataset, model):
    code = (
        "import sys; from pathlib import Path; from difftract_bids.bids.plan import make_plan\n"
        "from difftract_bids.config import Config, FodfConfig\n"
        "from difftract_bids.errors import InputError\n"
        "bids, model = map(Path, sys.argv[1:])\n"
        "config = Config(fodf=FodfConfig(fodf_model_file=str(model)))\n"
        "given = bids, bids.parent / 'o', bids.parent / 'w', config\n"
        "assert make_plan(*given).runs[0].fodf_model.network.settings['lmax'] == 4\n"
        "from difftract_bids.bids.fodf_model_file import _read; _read.cache_clear()\n"
        "model.write_bytes(model.read_bytes()[:-1])\n"
        "try:\n    make_plan(*given)\n"
        "except InputError as error:\n    print(error.what, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(dataset), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "truncated" in done.stdout
    assert done.stdout.strip().endswith("False")


@pytest.mark.parametrize(
    "other",
    [
        {"model": "csd"},
        {"lmax": 6},
        {"response": ("r.txt",)},
        {"response_algorithm": "fa"},
        {"constraint_directions": "d.txt"},
        {"input_fodf": "f.nii.gz"},
    ],
)
def test_fodfs_are_predicted_or_fitted_or_given(other):
    with pytest.raises(ConfigError, match=f"fodf_model_file and {next(iter(other))}"):
        FodfConfig(fodf_model_file="m.safetensors", **other)


def test_a_class_goes_with_a_file_and_has_the_form_of_one():
    with pytest.raises(ConfigError, match="without fodf_model_file"):
        FodfConfig(fodf_model_class="a.b:C")
    for name in ("a.b.C", "a.b:", ":C", "a b:C", "a..b:C"):
        with pytest.raises(ConfigError, match=r"package.module:Class"):
            FodfConfig(fodf_model_file="m", fodf_model_class=name)
    assert FodfConfig(fodf_model_file="m", fodf_model_class="a.b:C").fodf_model_class == "a.b:C"


def test_a_class_that_is_not_built_in_must_be_named_by_the_user(dataset, tmp_path):
    path, name = tmp_path / "own.safetensors", f"{__name__}:Linear"
    save_model(path, network_for(acquisition_of(dataset), architecture="own.nets:Linear"), {})
    with pytest.raises(InputError, match=r"own.nets:Linear") as caught:
        plan(dataset, fodf_model_file=path)
    assert "--fodf-model-class" in caught.value.remedy
    with pytest.raises(InputError, match=r"own\.nets:Linear"):
        plan(dataset, fodf_model_file=path, fodf_model_class=name.replace("-", "_"))


def test_other_shells_are_refused_before_anything_starts(tmp_path, model):
    two = write_dataset(tmp_path / "two", shells=TWO_SHELLS)
    with pytest.raises(InputError, match=r"shells b=1000 .*b=1000, 2500") as caught:
        plan(two, fodf_model_file=model)
    assert "--fodf-model-file" in caught.value.what
    assert caught.value.where == str(two / "sub-01" / "dwi" / "sub-01_dwi.nii.gz")


def test_a_participant_that_the_model_is_not_for_does_not_stop_the_others(dataset, model):
    write_run(dataset / "sub-02" / "dwi", "sub-02", TWO_SHELLS)
    found = plan(dataset, fodf_model_file=model)
    assert found.participants == ["01"]
    assert "shells" in str(found.unusable["02"])
    with pytest.raises(InputError, match="shells"):
        plan(dataset, fodf_model_file=model, participants=["02"])


def test_weights_that_do_not_fit_the_settings_are_found_before_anything_starts(dataset, model):
    network = network_for(acquisition_of(dataset))
    network.settings = replace(network.settings, lmax=6)
    save_model(model, network, TRAINING)
    with pytest.raises(InputError, match="lmax 6") as caught:
        plan(dataset, fodf_model_file=model)
    assert "--fodf-model-file" in caught.value.what


def test_a_run_with_other_directions_and_voxels_is_warned_of_on_the_terminal(dataset, model):
    met = acquisition_of(dataset)
    trained_for = replace(met, n_directions=(60,), voxel_size_mm=(1.25, 1.25, 1.25))
    save_model(model, network_for(trained_for), TRAINING)
    found = plan(dataset, fodf_model_file=model)
    notes = found.runs[0].fodf_model.notes
    assert len(notes) == 2
    said = of_models(found)
    assert [line for line in said if line.startswith("WARNING: ")] == said[1:]
    assert any("60 directions" in line for line in said)
    assert any("1.25" in line for line in said)


def test_a_participant_that_the_model_knows_is_told_of(dataset, model):
    network = network_for(acquisition_of(dataset))
    for record in ({"participants": ["01"]}, {"validation_participants": ["sub-01"]}):
        save_model(model, network, TRAINING | record)
        _read.cache_clear()
        (note,) = plan(dataset, fodf_model_file=model).runs[0].fodf_model.notes
        assert "participant 01 of Some group" in note
    assert not TrainedModel.of(model).notes_for("1")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Files of a small run, a model file for it, and the network in it."""
    folder = tmp_path_factory.mktemp("run")
    shape, table = (9, 8, 7), scheme((1000, 20))
    rng = np.random.default_rng(0)
    dwi = rng.uniform(100, 900, (*shape, len(table.bvals_s_mm2))).astype(np.float32)
    save_volume(dwi, AFFINE, folder / "dwi.nii.gz")
    mask = np.ones(shape, np.uint8)
    mask[[0, -1]] = 0
    save_volume(mask, AFFINE, folder / "mask.nii.gz")
    bval, bvec = write_gradients(table, AFFINE, folder / "dwi")
    met = Acquisition.of(read_gradients(bval, bvec, AFFINE), AFFINE)
    network = network_for(replace(met, n_directions=(40,)), response=RESPONSE)
    with torch.no_grad():  # the last layer starts at zero
        for weight in network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.manual_seed(1)))
    model = folder / "model.safetensors"
    digest = save_model(model, network, TRAINING)
    inputs = {"dwi": folder / "dwi.nii.gz", "mask": folder / "mask.nii.gz"}
    inputs |= {"bval": bval, "bvec": bvec, "model_file": model}
    found = PredictFODF(**{key: str(path) for key, path in inputs.items()}, participant="04")
    outputs = found.run(cwd=str(folder)).outputs
    return SimpleNamespace(
        outputs=outputs, network=network, digest=digest, dwi=dwi, mask=mask > 0, inputs=inputs
    )


def test_the_step_gives_what_the_network_predicts(run):
    gradients = read_gradients(run.inputs["bval"], run.inputs["bvec"], AFFINE)
    expected = run.network.predict(
        torch.from_numpy(run.dwi), gradients, AFFINE, torch.from_numpy(run.mask)
    )
    image = load_volume(run.outputs.fodf, ndim=4)
    np.testing.assert_allclose(image.data, expected.numpy(), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(image.vox2ras, AFFINE)
    assert image.data.shape[3] == 15
    assert image.data[run.mask].std() > 0
    assert not image.data[~run.mask].any()


def test_the_sidecar_names_the_model_its_digest_its_training_and_what_differs(run):
    sidecar = run.outputs.fodf_metadata
    said = sidecar["Model"]["Parameters"]
    assert said["SHA256"] == run.digest
    assert said["File"] == "model.safetensors"
    assert said["TrainedFor"]["Directions"] == [40]
    assert said["CommonResponse"] == list(RESPONSE)
    told = TrainedModel.of(run.inputs["model_file"]).in_words()
    assert "corrects constrained spherical deconvolution" in told
    assert sidecar["FODFModel"] == "learned"
    assert sidecar["TrainingData"] == {"Participants": 3, "Datasets": ["Some group"]}
    assert sidecar["OrientationEncoding"]["SphericalHarmonicDegree"] == 4
    assert sidecar["Differences"] == run.outputs.notes
    assert "40 directions" in run.outputs.notes[0]
    assert "participant 04 of Some group" in run.outputs.notes[1]
    assert str(run.inputs["model_file"].parent) not in json.dumps(sidecar)
    facts = dict(fodf_facts(sidecar))
    assert facts["Trained model"] == f"SHA-256 {run.digest[:16]}"
    assert facts["Trained on"] == "3 participants of Some group"
