"""What every test runs under."""

import os

# Before torch first calls MKL, whose last bits depend on where in memory numbers lie otherwise:
# identical trainings in two processes must give identical bits.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Hold torch to one thread: the tensors of tests are small, and threads only wait for them."""
    torch.set_num_threads(1)
