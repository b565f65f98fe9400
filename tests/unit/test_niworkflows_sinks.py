"""niworkflows' sinks are loaded fast, and are what they are without us."""

import subprocess
import sys

#: In a process of its own: another may have begun while TemplateFlow made its folder.
CHECK = """
from templateflow import api
from difftract_bids.interfaces.niworkflows_sinks import load_sinks, templates_on_disk

sinks = load_sinks()
assert "templates" not in vars(api), "something stands before TemplateFlow's own"
expected = api.templates()
assert expected
assert templates_on_disk() == expected
assert sinks.STANDARD_SPACES == expected
assert sinks.DerivativesDataSink._standard_spaces == expected
"""


def test_they_know_the_templates_that_templateflow_does():
    done = subprocess.run(
        [sys.executable, "-c", CHECK], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
