"""Settings: ranges, TOML, and the order in which they override each other."""

import pytest

from difftract_bids.config import Config, FodfConfig, SeedingConfig, TrackingConfig, merge
from difftract_bids.errors import ConfigError


def test_every_setting_survives_toml(tmp_path):
    tables = {
        "tracking": {"integrator": "rk4", "step_size_mm": 0.25, "cutoff": 0.05},
        "seeding": {"n_seeds": 7},
        "fodf": {
            "model": "msmtcsd",
            "response": ["w", "g", "c"],
            "normalise_tissues": False,
            "lmax": 6,
        },
        "regions": {"include": ["a.nii", "1,-2,3,4"], "stop": True},
        "connectome": {"connectome_measures": ["count", "density"], "zero_diagonal": True},
        "output": {"tractogram": False, "tractogram_tolerance_mm": 0.0},
        "atlases": ["A", 'B="quoted"\\path'],
    }
    config = merge(Config(), tables, where="here")
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert Config.from_toml(path) == config


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"tracking": {"stepsize": 1}}, r"tracking\.stepsize"),
        ({"tractography": {}}, "tractography"),
        ({"tracking": {"step_size_mm": -1.0}}, "step_size_mm is -1.0"),
        ({"tracking": {"max_angle_deg": 120.0}}, "max_angle_deg"),
        ({"tracking": {"integrator": "rk45"}}, "rk4_classic"),
        ({"fodf": {"lmax": 7}}, "even number from 2 to 12"),
        ({"fodf": {"model": "msmt"}}, "one of auto, csd, msmtcsd, ss2t"),
        ({"fodf": {"response_algorithm": "msmt_5tt"}}, "tournier, fa, dhollander"),
        ({"fodf": {"model": "csd", "response": ["a", "b", "c"]}}, "3 responses .* has 1: WM"),
        ({"fodf": {"model": "msmtcsd", "response": ["a", "b"]}}, "has 3: WM GM CSF"),
        ({"fodf": {"model": "ss2t", "response": ["a", "b", "c"]}}, "has 2: WM CSF"),
        ({"fodf": {"response": ["a"], "response_algorithm": "fa"}}, "response_algorithm"),
        ({"fodf": {"response": [""]}}, "response"),
        ({"fodf": {"model": "ss2t", "response_algorithm": "fa"}}, "white matter alone"),
        ({"fodf": {"input_fodf": "a.nii", "response": ["b"]}}, "input_fodf and response "),
        ({"fodf": {"input_fodf": "a.nii", "model": "csd"}}, "input_fodf and model"),
        ({"fodf": {"input_fodf": "a.nii", "lmax": 8}}, "input_fodf and lmax"),
        ({"fodf": {"input_fodf": " "}}, "input_fodf"),
        ({"output": {"sh_basis": "dipy"}}, "one of mrtrix3, descoteaux07"),
        ({"seeding": {"n_seeds": 0}}, "n_seeds"),
        ({"connectome": {"assignment_radius_mm": float("nan")}}, "assignment_radius_mm"),
        ({"connectome": {"assignment": "nearest"}}, "one of radial_search, end_voxels"),
        ({"connectome": {"assignment_distance_mm": 0.0}}, "assignment_distance_mm"),
        ({"connectome": {"connectome_measures": ["fa"]}}, "of count, meanlength"),
        ({"connectome": {"connectome_measures": []}}, "connectome_measures"),
        ({"connectome": {"connectome_measures": ["count", "count"]}}, "distinct"),
        ({"connectome": {"streamline_weights": " "}}, "streamline_weights"),
        ({"seeding": 3}, r"\[seeding\] is not a table"),
        ({"seeding": {"n_seeds": 1.5}}, "n_seeds is 1.5, but it must be of type int"),
        ({"tracking": {"step_size_mm": True}}, "step_size_mm is True"),
        ({"tracking": {"cutoff": "high"}}, "of type float or nothing"),
        ({"atlases": "ICBM100"}, "must be a list"),
        ({"atlases": []}, "at least one"),
        ({"seeding": {"n_streamlines": 0}}, "n_streamlines"),
        ({"seeding": {"random_seed": 2**63}}, "random_seed"),
        ({"seeding": {"seed_grid_per_voxel": 0}}, "seed_grid_per_voxel"),
        ({"seeding": {"seed_sphere": "1,2,3"}}, "x,y,z,radius"),
        ({"seeding": {"seed_sphere": "1,2,3,0"}}, "radius above 0"),
        ({"seeding": {"seed_sphere": "1,2,nan,1"}}, "x,y,z,radius"),
        ({"seeding": {"seed_direction": "0,0,0"}}, "not all of them zero"),
        ({"seeding": {"seed_direction": "1,2"}}, "x,y,z"),
        ({"regions": {"include": "a.nii"}}, "must be a list of type str"),
        ({"regions": {"include": ["a.nii", 3]}}, "must be a list of type str"),
        ({"regions": {"exclude": ["1,2,3,-4"]}}, "radius above 0"),
        ({"regions": {"mask": [" "]}}, "mask"),
        ({"regions": {"stop": True}}, "off without include"),
        ({"output": {"tractogram_tolerance_mm": -0.1}}, "tractogram_tolerance_mm"),
        ({"output": {"tractogram": "no"}}, "of type bool"),
        ({"tracking": {"algorithm": "tensor_det", "backend": "cpu"}}, "auto or reference"),
        ({"tracking": {"min_length_mm": 9.0, "max_length_mm": 5.0}}, "at most 5.0"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(tables, said):
    with pytest.raises(ConfigError, match=said):
        merge(Config(), tables, where="here")


def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path):
    (tmp_path / "a.toml").write_text("= 3")
    with pytest.raises(ConfigError, match=r"a\.toml"):
        Config.from_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("integrator", "step_mm"), [("euler", 0.2), ("rk4", 0.5), ("midpoint", 0.5)]
)
def test_defaults_follow_mrtrix_in_the_size_of_a_voxel(integrator, step_mm):
    resolved = TrackingConfig(integrator=integrator).resolve(2.0)
    assert resolved.step_size_mm == pytest.approx(step_mm)
    assert (resolved.min_length_mm, resolved.max_length_mm) == (10.0, 200.0)
    assert (resolved.max_angle_deg, resolved.cutoff) == (60.0, 0.1)


def test_what_the_user_sets_is_not_overridden_by_the_voxel_size():
    assert TrackingConfig(step_size_mm=0.7, cutoff=0.0).resolve(2.0).step_size_mm == 0.7
    assert TrackingConfig(cutoff=0.0).resolve(2.0).cutoff == 0.0


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, 1_000_000),
        ({"n_streamlines": 5}, 5),
        ({"n_seeds": 5}, None),
        ({"n_seeds": 5, "n_streamlines": 3}, 3),
        ({"seed_sphere": "1,2,3,4"}, 1_000_000),
        ({"seed_image": "a"}, 1_000_000),
        ({"seed_grid_per_voxel": 2}, None),
        ({"seed_image": "a", "seed_random_per_voxel": 2}, None),
        ({"seed_coordinates": "a"}, None),
        ({"seed_coordinates": "a", "n_streamlines": 3}, 3),
    ],
)
def test_a_million_streamlines_are_found_unless_something_else_ends_it(settings, wanted):
    assert SeedingConfig(**settings).wanted_streamlines == wanted


@pytest.mark.parametrize(
    "two",
    [
        {"seed_sphere": "1,2,3,4", "seed_coordinates": "a"},
        {"seed_random_per_voxel": 1, "seed_grid_per_voxel": 1},
        {"seed_image": "a", "seed_rejection": "b"},
    ],
)
def test_seeds_come_from_one_place(two):
    with pytest.raises(ConfigError, match=" and ".join(two)):
        SeedingConfig(**two)


@pytest.mark.parametrize(
    ("model", "wanted", "algorithm"),
    [
        ("csd", "auto", "tournier"),
        ("msmtcsd", "auto", "dhollander"),
        ("ss2t", "auto", "dhollander"),
        ("csd", "fa", "fa"),
        ("csd", "dhollander", "dhollander"),
    ],
)
def test_responses_are_estimated_as_the_model_needs_unless_told(model, wanted, algorithm):
    assert FodfConfig(response_algorithm=wanted).algorithm_of(model) == algorithm
