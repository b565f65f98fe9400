"""What every test runs under."""

import os
from collections.abc import Callable
from typing import Any

# Before PyTorch is loaded, and for every program that a test starts: several of them share the
# cores, and threads that wait by spinning, as OpenMP's do, take what the others could compute in.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Hold torch to one thread: the tensors of tests are small, and threads only wait for them."""
    torch.set_num_threads(1)


@pytest.fixture
def record_property(record_property: Callable[[str, object], None]):
    """Record figures as plain ones: those of numpy cannot pass from one process to another."""

    def plain(value: Any) -> object:
        if isinstance(value, dict):
            return {str(name): plain(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(one) for one in value]
        return value.tolist() if hasattr(value, "tolist") else value

    return lambda name, value: record_property(name, plain(value))


@pytest.fixture(autouse=True)
def _no_placeholder(monkeypatch):
    """Let a figure that cannot be drawn fail its test, where a placeholder would pass for one."""

    def fail(_path: object, error: BaseException):
        raise error

    monkeypatch.setattr("difftract_bids.reports.placeholder.write_placeholder", fail)
