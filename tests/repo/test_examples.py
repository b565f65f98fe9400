"""Every interface, and everything that makes a workflow, has an example that does what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import io
import pkgutil
import re
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from apps import validator_errors
from example_files import link_named, simulate, write_example_files
from nipype.interfaces.base import BaseInterface

from difftract_bids import interfaces, workflows
from difftract_bids.io.matrices import read_matrix

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "library.md").read_text(encoding="utf-8")
_SECTION = "Examples\n--------\n"


def is_interface(member):
    return inspect.isclass(member) and issubclass(member, BaseInterface)


def makes_workflow(member):
    return inspect.isfunction(member) and member.__name__.startswith("init_")


def members(package, wanted):
    """List what the modules of a package define for others."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(found.name)
        for name, member in vars(module).items():
            own = getattr(member, "__module__", None) == module.__name__
            if own and not name.startswith("_") and wanted(member):
                yield member


PUBLIC = [*members(interfaces, is_interface), *members(workflows, makes_workflow)]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return write_example_files(tmp_path_factory.mktemp("files"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(files):
    return {path: path.stat().st_mtime_ns for path in files.iterdir()}


def example_of(one):
    """Give the example of a docstring, and its code."""
    text = inspect.getdoc(one)
    assert _SECTION in text, "it has no example"
    example = doctest.DocTestParser().get_doctest(text, {}, one.__name__, None, 0)
    return example, "".join(line.source for line in example.examples)


@pytest.mark.parametrize("one", PUBLIC, ids=lambda one: f"{one.__module__}.{one.__name__}")
def test_its_example_does_what_it_says(one, files, folder):
    example, code = example_of(one)
    assert re.search(rf"\b{one.__name__}\b", code.replace(f"import {one.__name__}", ""))
    assert any(line.want for line in example.examples), "it shows nothing"
    link_named(files, code, folder)
    before, told = state(files), io.StringIO()
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=told.write)
    assert not failed, told.getvalue()
    assert state(files) == before, "it overwrites what it reads"


def test_readers_are_told_where_each_file_comes_from(files, folder):
    for one in PUBLIC:
        link_named(files, example_of(one)[1], folder)
    patterns = re.findall(r"``([\w.*-]+)``", interfaces.__doc__)
    for path in folder.iterdir():
        assert any(fnmatch(path.name, pattern) for pattern in patterns), path.name


@pytest.mark.integration
def test_the_page_on_the_library_does_what_it_says(folder):
    simulate(PAGE)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "library.md", "exec"), names)  # noqa: S102
    assert validator_errors(folder / "out") == []
    of_app, nodes = read_matrix(names["file"].path)
    of_graph, same = read_matrix(folder / "mine" / "count" / "count.dense.tsv")
    assert of_app.sum() > 100
    assert nodes == same
    np.testing.assert_array_equal(of_graph, of_app)
    assert names["tracked"].metadata["Counts"]["Streamlines"] == 500
