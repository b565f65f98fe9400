"""What has kernels of its own is not compiled, and costs nobody the loading of a compiler."""

import subprocess
import sys

import torch

from difftract_bids.core.uncompiled import uncompiled


def test_the_compiler_is_not_loaded_until_something_is_compiled():
    load = "import difftract_bids.core, difftract_bids.interfaces, difftract_bids.workflows"
    check = "import sys; assert 'torch._dynamo' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{load}\n{check}"], check=True)


def test_a_function_is_run_as_it_is_within_what_is_compiled():
    compiling, graphs = [], []

    @uncompiled
    def shifted(values, *, by):
        compiling.append(torch.compiler.is_compiling())
        return values + by

    def whole(values):
        return shifted(values.sin(), by=1.0).cos()

    def record(graph, _example):
        graphs.append(graph)
        return graph.forward

    given = torch.linspace(0, 1, 5)
    expected = whole(given)
    compiled = torch.compile(whole, backend=record)
    for _ in range(2):
        assert torch.equal(compiled(given), expected)
    assert len(graphs) == 2  # what is before, and what is after
    assert compiling == [False] * 3
    assert shifted.__name__ == "shifted"
