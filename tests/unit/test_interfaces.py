"""Interfaces: what Nipype does not check by itself."""

import importlib
import inspect
import pkgutil

import pytest
from nipype.interfaces.base import BaseInterface
from niworkflows.interfaces.bids import DerivativesDataSink

import difftract_bids.interfaces
from difftract_bids.config import SeedingConfig, TrackingConfig
from difftract_bids.interfaces.settings import settings_of, settings_spec
from difftract_bids.interfaces.tracking import TrackStreamlines

METADATA = {"desc", "exists", "mandatory", "usedefault", "nohash"}


def interfaces():
    package = difftract_bids.interfaces
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        loaded = importlib.import_module(module.name)
        for name, item in vars(loaded).items():
            ours = inspect.isclass(item) and item.__module__ == loaded.__name__
            if ours and issubclass(item, BaseInterface) and not name.startswith("_"):
                yield pytest.param(item, id=name)


@pytest.mark.parametrize("interface", list(interfaces()))
def test_every_trait_says_what_it_is(interface):
    for kind in ("input_spec", "output_spec"):
        spec, known = getattr(interface, kind)(), set()
        if issubclass(interface, DerivativesDataSink):  # which are niworkflows' own
            known = set(getattr(DerivativesDataSink, kind)().copyable_trait_names())
        for name in set(spec.copyable_trait_names()) - known:
            assert spec.trait(name).desc, (interface, name)


@pytest.mark.parametrize("interface", list(interfaces()))
def test_an_interface_says_what_it_does(interface):
    assert interface.__doc__
    assert interface.__doc__ != BaseInterface.__doc__


def test_defaults_and_units_come_from_the_dataclass():
    inputs = TrackStreamlines().inputs
    assert settings_of(inputs, TrackingConfig) == TrackingConfig()
    assert settings_of(inputs, SeedingConfig) == SeedingConfig()
    assert "mm" in inputs.trait("step_size_mm").desc


def test_settings_survive_the_way_through_traits():
    wanted = TrackingConfig(integrator="rk4", step_size_mm=0.3, cutoff=0.05, peak_tolerance=1e-6)
    inputs = settings_spec(TrackingConfig)()
    inputs.trait_set(integrator="rk4", step_size_mm=0.3, cutoff=0.05, peak_tolerance=1e-6)
    assert settings_of(inputs, TrackingConfig) == wanted


def test_the_number_of_threads_does_not_change_the_hash():
    one, two = TrackStreamlines(num_threads=1), TrackStreamlines(num_threads=2)
    assert one.inputs.get_hashval()[1] == two.inputs.get_hashval()[1]
