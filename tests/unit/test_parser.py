"""The command line: settings as options, and what they become."""

from __future__ import annotations

import pytest

from difftract_bids.cli.parser import build_parser, settings_from
from difftract_bids.config import Config
from difftract_bids.errors import ConfigError, UsageError


def config_of(*options):
    arguments = build_parser().parse_args(["bids", "out", "participant", *options])
    return settings_from(arguments)


def test_without_options_there_are_the_defaults():
    assert config_of() == Config()


@pytest.mark.parametrize(
    ("options", "table", "name", "value"),
    [
        (["--tracking-algorithm", "tensor_det"], "tracking", "algorithm", "tensor_det"),
        (["--step-size", "0.4"], "tracking", "step_size_mm", 0.4),
        (["--max-angle", "45"], "tracking", "max_angle_deg", 45.0),
        (["--cutoff", "0.05"], "tracking", "cutoff", 0.05),
        (["--min-length", "5"], "tracking", "min_length_mm", 5.0),
        (["--max-length", "200"], "tracking", "max_length_mm", 200.0),
        (["--seed-unidirectional"], "tracking", "one_way", True),
        (["--device", "cpu"], "tracking", "device", "cpu"),
        (["--n-streamlines", "9"], "seeding", "n_streamlines", 9),
        (["--n-seeds", "9"], "seeding", "n_seeds", 9),
        (["--seed-image", "a.nii"], "seeding", "seed_image", "a.nii"),
        (["--seed-sphere", "-1,2,3,4"], "seeding", "seed_sphere", "-1,2,3,4"),
        (["--seed-direction", "-1,-.5,0"], "seeding", "seed_direction", "-1,-.5,0"),
        (["--stop", "--include", "a"], "regions", "stop", True),
        (["--fodf-model", "ss2t"], "fodf", "model", "ss2t"),
        (["--response-algorithm", "fa"], "fodf", "response_algorithm", "fa"),
        (["--response", "w", "g", "c"], "fodf", "response", ("w", "g", "c")),
        (["--no-normalise-tissues"], "fodf", "normalise_tissues", False),
        (["--input-fodf", "a.mif.gz"], "fodf", "input_fodf", "a.mif.gz"),
        (["--fodf-model-file", "m.safetensors"], "fodf", "fodf_model_file", "m.safetensors"),
        (["--refine-fodf", "{subject}.tck"], "refinement", "refine_fodf", "{subject}.tck"),
        (["--refine-steps", "9"], "refinement", "refine_steps", 9),
        (["--refine-weight", "0"], "refinement", "refine_weight", 0.0),
        (["--refine-seeds", "9"], "refinement", "refine_seeds", 9),
        (["--assignment", "all_voxels"], "connectome", "assignment", "all_voxels"),
        (["--assignment-radius", "2"], "connectome", "assignment_radius_mm", 2.0),
        (["--assignment-distance", "9"], "connectome", "assignment_distance_mm", 9.0),
        (
            ["--connectome-measures", "count", "sift2"],
            "connectome",
            "connectome_measures",
            ("count", "sift2"),
        ),
        (["--streamline-statistic", "max"], "connectome", "streamline_statistic", "max"),
        (["--streamline-weights", "w"], "connectome", "streamline_weights", "w"),
        (["--zero-diagonal"], "connectome", "zero_diagonal", True),
        (["--streamline-assignments"], "connectome", "streamline_assignments", True),
        (["--connectome-hdf5"], "connectome", "connectome_hdf5", True),
        (["--sh-basis", "descoteaux07"], "output", "sh_basis", "descoteaux07"),
        (["--no-tractogram"], "output", "tractogram", False),
        (["--tractogram-format", "trk"], "output", "tractogram_format", "trk"),
        (["--tractogram-tolerance-mm", "0"], "output", "tractogram_tolerance_mm", 0.0),
    ],
)
def test_each_option_sets_its_setting_and_no_other(options, table, name, value):
    group = getattr(config_of(*options), table)
    assert getattr(group, name) == value
    others = {
        item
        for item in vars(group)
        if getattr(group, item) != vars(Config())[table].__dict__[item]
    }
    assert others - {"include"} == {name}


def test_regions_are_given_together_or_one_by_one_as_in_mrtrix():
    together = config_of("--include", "a.nii", "-10,20,3.5,8", "--exclude", "b.nii")
    one_by_one = config_of("--include", "a.nii", "--include", "-10,20,3.5,8", "--exclude", "b.nii")
    assert together.regions == one_by_one.regions
    assert together.regions.include == ("a.nii", "-10,20,3.5,8")
    assert together.regions.exclude == ("b.nii",)


def test_an_option_overrides_the_file_also_where_it_is_a_switch(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[output]\ntractogram = false\n[regions]\ninclude = ["a", "b"]\n')
    file = ["--config-file", str(path)]
    assert config_of(*file).output.tractogram is False
    assert config_of(*file, "--tractogram").output.tractogram is True
    assert config_of(*file, "--include", "c").regions.include == ("c",)


def test_an_option_that_does_not_exist_is_not_taken_for_a_number():
    with pytest.raises(UsageError, match="--seed-sphere"):
        config_of("--seed-sphere", "-x")


def test_two_places_to_seed_in_are_refused():
    with pytest.raises(ConfigError, match="seed_image and seed_sphere"):
        config_of("--seed-image", "a.nii", "--seed-sphere", "1,2,3,4")


def test_every_option_has_help_that_says_something():
    for action in build_parser()._actions:
        assert action.help, action.dest
    assert "%" not in build_parser().format_help().replace("100%", "")
