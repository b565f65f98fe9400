"""niworkflows' sinks are loaded fast, and are what they are without us."""

from templateflow import api

from difftract_bids.interfaces.niworkflows_sinks import load_sinks, templates_on_disk


def test_they_know_the_templates_that_templateflow_does():
    sinks = load_sinks()
    assert vars(api).get("templates") is None  # nothing stands before TemplateFlow's own
    expected = api.templates()
    assert expected
    assert templates_on_disk() == expected
    assert expected == sinks.STANDARD_SPACES
    assert sinks.DerivativesDataSink._standard_spaces == expected
