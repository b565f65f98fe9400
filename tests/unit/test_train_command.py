"""``difftract-train``: from files to a model, and what it says where it cannot."""

import json
import subprocess
import sys
import tomllib

import pandas as pd
import pytest
from training_scans import QUICK, simulated_scan

from difftract_bids.cli import run
from difftract_bids.cli.train import build_parser, commented, main
from difftract_bids.cli.training_progress import Lines
from difftract_bids.config import TrainingConfig
from difftract_bids.io.fodf_images import save_fodf, sidecar_name
from difftract_bids.io.gradients import write_gradients
from difftract_bids.io.images import save_volume
from difftract_bids.learn.model_file import load_model
from difftract_bids.validation import toml_value


def write_scan(root, label):
    """Write a scan as the app does."""
    scan = simulated_scan(label)
    folder = root / f"sub-{label}" / "dwi"
    folder.mkdir(parents=True)
    stem = folder / f"sub-{label}"
    affine = scan.vox2ras.numpy()
    save_volume(scan.dwi.numpy(), affine, f"{stem}_desc-preproc_dwi.nii.gz")
    write_gradients(scan.gradients, affine, f"{stem}_desc-preproc_dwi")
    save_volume(scan.mask.numpy(), affine, f"{stem}_desc-brain_mask.nii.gz")
    fodf = f"{stem}_model-csd_param-fod_dwimap"
    save_fodf(scan.fodf.numpy(), affine, f"{fodf}.nii.gz", "mrtrix3")
    encoding = {"SphericalHarmonicBasis": sidecar_name("mrtrix3"), "Reference": "xyz"}
    with open(f"{fodf}.json", "w") as stream:  # noqa: PTH123 - a stem, not a path
        json.dump({"OrientationEncoding": encoding}, stream)


def describe(folder, kind):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"Name": "Small heads", "BIDSVersion": "1.10.0", "DatasetType": kind}
    (folder / "dataset_description.json").write_text(json.dumps(content))


def write_derivatives(folder):
    describe(folder, "derivative")
    for label in ("01", "02", "03"):
        write_scan(folder, label)
    return folder


@pytest.fixture(scope="module")
def derivatives(tmp_path_factory):
    return write_derivatives(tmp_path_factory.mktemp("derivatives"))


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "given.toml"
    lines = []
    for table, values in QUICK.items():
        lines.append(f"[{table}]")
        lines += [f"{name} = {toml_value(value)}" for name, value in values.items()]
    path.write_text("\n".join(lines))
    return path


def command(dataset, out, settings, *more):
    return main([str(dataset), str(out), "--config", str(settings), "--nprocs", "1", *more])


def test_derivatives_become_a_model_and_a_second_run_has_nothing_to_do(
    derivatives, settings, tmp_path, capsys
):
    out = tmp_path / "out"
    assert command(derivatives, out, settings) == 0
    said = capsys.readouterr().out
    assert "step 6 of 6" in said
    assert "--fodf-model-file" in said
    loaded = load_model(out / "model.safetensors")
    assert loaded.training["dataset"] == "Small heads"
    assert str(tmp_path) not in json.dumps(loaded.training)
    assert {"history.tsv", "logs", "checkpoints", "train.toml"} <= {
        path.name for path in out.iterdir()
    }
    written = tomllib.loads((out / "train.toml").read_text())
    assert written["optimisation"]["n_steps"] == 6
    assert command(derivatives, out, settings) == 0
    assert "Goes on after step 6 of 6" in capsys.readouterr().out
    assert load_model(out / "model.safetensors").sha256 == loaded.sha256


def test_it_starts_anew_only_when_asked_to(derivatives, settings, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(derivatives, out, settings, "--participant-label", "01", "02") == 0
    assert command(derivatives, out, settings) == 2
    assert "new: sub-03" in capsys.readouterr().err
    assert command(derivatives, out, settings, "--restart") == 0
    assert len(pd.read_csv(out / "history.tsv", sep="\t")) == 7


def test_a_part_of_what_was_denoised_together_is_noted_and_recorded(settings, tmp_path, capsys):
    folder = write_derivatives(tmp_path / "derivatives")
    for label in ("01", "02", "03"):
        sidecar = folder / f"sub-{label}" / "dwi" / f"sub-{label}_desc-preproc_dwi.json"
        sidecar.write_text('{"Denoised": true}')
    settings.write_text(settings.read_text().replace("[pairs]", "[pairs]\nn_directions = 16"))
    assert command(folder, tmp_path / "out", settings) == 0
    said = "took part in denoising"
    assert said in capsys.readouterr().out
    assert said in load_model(tmp_path / "out" / "model.safetensors").training["notes"][0]


def test_losses_on_connectomes_need_a_parcellation_which_is_said_before_anything_is_loaded(
    derivatives, settings, tmp_path, capsys
):
    settings.write_text(settings.read_text() + "\n[losses]\nconnectome_log = 1.0\n")
    assert command(derivatives, tmp_path / "out", settings) == 2
    said = capsys.readouterr()
    assert "_dseg.nii.gz" in said.err
    assert "Loading" not in said.out


def test_a_users_network_is_named_on_the_command_line(derivatives, settings, tmp_path):
    name = "training_scans:Forgetful"
    assert command(derivatives, tmp_path / "out", settings, "--model-class", name) == 0
    loaded = load_model(tmp_path / "out" / "model.safetensors", name)
    assert loaded.network.settings.architecture == name
    assert loaded.network.settings.options == {"width": 4}


def test_a_raw_dataset_is_put_through_the_app_first_and_once(
    settings, tmp_path, monkeypatch, capsys
):
    raw, out, commands = tmp_path / "raw", tmp_path / "out", []
    describe(raw, "raw")

    def app(argv):
        commands.append(argv)
        write_derivatives(out / "derivatives")
        return 0

    monkeypatch.setattr(run, "main", app)
    options = ["--participant-label", "01", "02", "--", "--atlases", "Lab=/atlas"]
    assert command(raw, out, settings, *options) == 0
    assert command(raw, out, settings, *options) == 0
    assert commands == [
        [
            *(str(raw), str(out / "derivatives"), "participant"),
            *("--work-dir", str(out / "work"), "--participant-label", "01", "02"),
            *("--nprocs", "1", "--atlases", "Lab=/atlas"),
        ]
    ]
    record = load_model(out / "model.safetensors").training
    assert sorted(record["participants"] + record["validation_participants"]) == ["01", "02"]
    capsys.readouterr()


@pytest.mark.parametrize(("code", "expected"), [(1, 1), (2, 2)])
def test_where_the_app_fails_training_does_not_begin(
    code, expected, settings, tmp_path, monkeypatch, capsys
):
    describe(tmp_path / "raw", "raw")
    monkeypatch.setattr(run, "main", lambda _: code)
    assert command(tmp_path / "raw", tmp_path / "out", settings) == expected
    assert "above" in capsys.readouterr().err
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_the_atlas_of_the_settings_is_the_apps(tmp_path, monkeypatch):
    describe(tmp_path / "raw", "raw")
    config = tmp_path / "train.toml"
    config.write_text('[pairs]\natlas = "Schaefer2018"\n')
    given = []
    monkeypatch.setattr(run, "main", lambda argv: given.extend(argv) or 1)
    assert main([str(tmp_path / "raw"), str(tmp_path / "out"), "--config", str(config)]) == 1
    assert given[-2:] == ["--atlases", "Schaefer2018"]


def test_a_training_that_fails_is_code_1_and_names_the_step(
    derivatives, settings, tmp_path, capsys
):
    settings.write_text(settings.read_text().replace("0.005", "1e35"))
    assert command(derivatives, tmp_path / "out", settings) == 1
    assert "In step 2" in capsys.readouterr().err
    assert load_model(tmp_path / "out" / "model.safetensors").training["step"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--participant-label", "09"], "not in the derivatives: 09"),
        (["--participant-label", "01"], "one participant"),
        (["--nprocs", "0"], "1 or more"),
        (["--no-such-option"], "cannot be understood"),
        (["--model-class", "no.such:Class"], "no.such"),
        (["--", "--denoise-method", "none"], "derivatives already"),
    ],
)
def test_unusable_arguments_are_code_2_with_a_remedy(
    options, said, derivatives, settings, tmp_path, capsys
):
    assert command(derivatives, tmp_path / "out", settings, *options) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "remedy" in error


def test_folders_that_are_no_dataset_and_files_that_are_no_settings_are_code_2(
    derivatives, tmp_path, capsys
):
    assert main([str(tmp_path / "none"), str(tmp_path / "out")]) == 2
    assert "no BIDS dataset" in capsys.readouterr().err
    describe(tmp_path / "empty", "derivative")
    assert main([str(tmp_path / "empty"), str(tmp_path / "out")]) == 2
    assert "difftract-bids" in capsys.readouterr().err
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[losses]\npoint = 1.0\n")
    assert main([str(derivatives), str(tmp_path / "out"), "--config", str(wrong)]) == 2
    assert "losses.point" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_settings_that_it_prints_are_those_it_has_without_any(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--print-config"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    path = tmp_path / "train.toml"
    path.write_text(text)
    assert TrainingConfig.from_toml(path) == TrainingConfig()
    assert text == commented(TrainingConfig())
    assert "# n_directions =" in text
    assert "# Voxels" not in text
    assert text.count("# ") > 40
    assert "about 2 is advised.\n# gradient_growth_limit =\n" in text


def test_help_has_the_options_in_groups_and_waits_for_no_numerical_library():
    script = (
        "import sys; from difftract_bids.cli.train import build_parser\n"
        "print(build_parser().format_help())\n"
        "assert not {'torch', 'numpy', 'nipype', 'nibabel'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for word in ("training:", "execution:", "examples:", "--model-class", "--print-config"):
        assert word in done.stdout


def test_a_log_has_a_line_for_each_validation_and_the_mean_time_of_a_step(capsys):
    lines = Lines()
    lines.begun(0, 4)
    lines.stepped(1, {"total": 1.0, "seconds": 1.0})
    lines.stepped(2, {"total": 0.5, "seconds": 3.0, "validation_total": 0.7})
    said = capsys.readouterr().out.splitlines()
    assert said == ["4 steps.", "step 2 of 4: loss 0.5, validation 0.7, 2 s a step"]
