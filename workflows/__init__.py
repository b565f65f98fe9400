"""Nipype graphs: nodes and edges, no computing. Imported as ``difftract_bids.workflows``.

Each ``init_*_wf`` gives a workflow with an ``inputnode`` and, but for those that only save, an
``outputnode``: to be run alone, or connected into a graph of one's own.

A workflow that is run alone needs absolute paths, and a ``base_dir`` for the folders of its nodes.
What no other node takes Nipype deletes from there: connect a sink, or switch that off, as examples
do, by ``workflow.config["execution"]["remove_unnecessary_outputs"] = "false"``.

:mod:`difftract_bids.interfaces` tells which files the examples read. A plan is that of the whole
app (:func:`difftract_bids.bids.plan.make_plan`).
"""
