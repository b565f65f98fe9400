"""Settings of training: ranges, what goes together, and TOML."""

import pytest

from difftract_bids.config import LossConfig, PairsConfig, TrackingConfig, TrainingConfig
from difftract_bids.config.toml import merge
from difftract_bids.errors import ConfigError

TABLES = {
    "pairs": {
        "n_directions": 15,
        "shells_s_mm2": [1000, 2000.0],
        "n_b0": 2,
        "target_model": "csd",
        "atlas": "ICBM100",
        "split": "participants",
        "validation_participants": ["02", "sub-03"],
    },
    "network": {"architecture": "lab.networks:UNet", "signal_lmax": 4, "width": 16},
    "losses": {"fodf": 0.5, "connectome_log": 2.0},
    "propagation": {"n_seeds": 100, "from_step": 10, "every": 2},
    "tracking": {"integrator": "rk4", "step_size_mm": 0.5},
    "optimisation": {"n_steps": 50, "rotations": False, "device": "cpu", "random_seed": 7},
}


def with_tables(tables):
    return merge(TrainingConfig(), tables, where="here")


def test_all_settings_survive_toml(tmp_path):
    config = with_tables(TABLES)
    path = tmp_path / "train.toml"
    path.write_text(config.to_toml(), encoding="utf-8")
    assert TrainingConfig.from_toml(path) == config
    assert config.pairs.shells_s_mm2 == (1000.0, 2000.0)
    assert config.optimisation.random_seed == 7


def test_what_a_file_leaves_out_keeps_its_default(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("[losses]\npoints = 0.1\n", encoding="utf-8")
    config = TrainingConfig.from_toml(path)
    assert config.losses == LossConfig(points=0.1)
    assert config.pairs == PairsConfig()
    assert config.tracking == TrackingConfig()


def test_defaults_written_as_toml_are_read_as_defaults(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(TrainingConfig().to_toml(), encoding="utf-8")
    assert TrainingConfig.from_toml(path) == TrainingConfig()


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"pair": {}}, "pair"),
        ({"pairs": {"directions": 15}}, r"pairs\.directions"),
        ({"pairs": {"n_directions": 5}}, "6 or more"),
        ({"pairs": {"shells_s_mm2": [0]}}, "b-values above 0"),
        ({"pairs": {"shells_s_mm2": [1000, 1000.0]}}, "distinct b-values"),
        ({"pairs": {"shells_s_mm2": ["1000"]}}, "a list of type float"),
        ({"pairs": {"shells_s_mm2": 1000}}, "a list of type float"),
        ({"pairs": {"n_b0": 0}}, "n_b0"),
        ({"pairs": {"target_model": "model-csd"}}, "target_model"),
        ({"pairs": {"atlas": ""}}, "atlas"),
        ({"pairs": {"split": "random"}}, "one of auto, participants, blocks"),
        ({"pairs": {"validation_share": 1.0}}, "above 0 and below 1"),
        ({"pairs": {"validation_participants": ["1", "sub-1"]}}, "distinct labels"),
        ({"pairs": {"validation_participants": ["1"], "split": "blocks"}}, "split is by blocks"),
        ({"pairs": {"block_size_mm": 0.0}}, "block_size_mm"),
        ({"network": {"architecture": "lab.networks.UNet"}}, "package.module:Class"),
        ({"network": {"architecture": "os:system('x')"}}, "package.module:Class"),
        ({"network": {"lmax": 7}}, "even number from 2 to 12"),
        ({"network": {"signal_lmax": -2}}, "even number from 0 to 12"),
        ({"network": {"width": 0}}, "width"),
        ({"network": {"n_blocks": -1}}, "n_blocks"),
        ({"losses": {"fodf": 0}}, "No loss weighs more than 0"),
        ({"losses": {"ends": -1.0}}, "ends is -1.0"),
        ({"losses": {"density": float("nan")}}, "density"),
        ({"propagation": {"n_seeds": 0}}, "n_seeds"),
        ({"propagation": {"sigma_mm": 0.0}}, "sigma_mm"),
        ({"propagation": {"every": 0}}, "every"),
        ({"propagation": {"from_step": -1}}, "from_step"),
        ({"optimisation": {"learning_rate": 0.0}}, "learning_rate"),
        ({"optimisation": {"learning_rate": float("inf")}}, "learning_rate"),
        ({"optimisation": {"weight_decay": -0.1}}, "weight_decay"),
        ({"optimisation": {"patience": 0}}, "patience"),
        ({"optimisation": {"patch_size": 1.5}}, "patch_size"),
        ({"optimisation": {"random_seed": -1}}, "random_seed"),
        ({"optimisation": {"device": "gpu"}}, "one of auto, cpu, cuda"),
        ({"losses": {"points": 1.0}, "tracking": {"algorithm": "tensor_det"}}, "tensor_det"),
        ({"losses": {"points": 1.0}, "propagation": {"from_step": 2000}}, "after 2000 steps"),
        (
            {"losses": {"fodf": 0, "points": 1.0}, "propagation": {"every": 2}},
            "Some steps have no loss",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(tables, said):
    with pytest.raises(ConfigError, match=said):
        with_tables(tables)


def test_a_file_that_is_not_toml_is_refused_with_its_name(tmp_path):
    (tmp_path / "train.toml").write_text("losses = [")
    with pytest.raises(ConfigError, match=r"train\.toml") as caught:
        TrainingConfig.from_toml(tmp_path / "train.toml")
    assert "[losses]" in caught.value.remedy


def test_losses_say_what_they_need():
    assert not LossConfig().needs_propagation
    assert LossConfig(density=0.1).needs_propagation
    assert not LossConfig(density=0.1).needs_connectome
    assert LossConfig(connectome_correlation=0.1).needs_propagation
    assert LossConfig(connectome_correlation=0.1).needs_connectome
