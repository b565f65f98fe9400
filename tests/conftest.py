"""What every test runs under."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Hold torch to one thread: the tensors of tests are small, and threads only wait for them."""
    torch.set_num_threads(1)
