"""What the report shows of a run: one table, used to name the figures and to promise them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

from difftract_bids.bids import stages
from difftract_bids.bids.layout import derivative_path
from difftract_bids.bids.outputs import Condition
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config


@dataclass(frozen=True)
class Figure:
    """A kind of figure.

    Attributes
    ----------
    when
        Whether a run has it, by its files and the settings.
    each
        What there is one of for each; of edges, for each that is asked for by name.
    is_html
        Whether it is a part of the page itself, and no picture beside it.
    """

    when: Condition = lambda _run, _config: True
    each: Literal["run", "template", "atlas", "edge"] = "run"
    is_html: bool = False


#: Measures that the second figure of a connectome shows, of which it shows those there are.
EDGE_MEASURES = ("sift2", "meanfa", "meanlength")


def edge_measures(config: Config) -> list[str]:
    """List the measures that the second figure of a connectome shows."""
    return [name for name in EDGE_MEASURES if name in config.connectome.connectome_measures]


def told_measures(config: Config) -> list[str]:
    """List the measures whose values the connectome's interactive matrix tells beside counts."""
    known = (*EDGE_MEASURES, "meanmd")
    return [name for name in known if name in config.connectome.connectome_measures]


#: By the ``desc`` of their names.
FIGURES = {
    "summary": Figure(is_html=True),
    "gradients": Figure(),
    "denoising": Figure(stages.is_denoised),
    "denoisingflicker": Figure(stages.is_denoised, is_html=True),
    "motion": Figure(stages.corrects_motion),
    "motionflicker": Figure(stages.corrects_motion, is_html=True),
    "mask": Figure(),
    "coreg": Figure(lambda run, _: stages.has_t1w(run)),
    "coregflicker": Figure(lambda run, _: stages.has_t1w(run), is_html=True),
    "tissue": Figure(stages.makes_tissue),
    "template": Figure(each="template"),
    "templateflicker": Figure(each="template", is_html=True),
    "fa": Figure(),
    "response": Figure(lambda run, _: run.fodf_model.is_fitted),
    "tissues": Figure(lambda run, _: run.fodf_model.is_multi_tissue),
    "fodf": Figure(),
    "refinement": Figure(lambda run, _: run.refinement is not None),
    "tractogram": Figure(),
    "view3d": Figure(is_html=True),
    "lengths": Figure(),
    "parcellation": Figure(each="atlas"),
    "connectome": Figure(each="atlas"),
    "matrix": Figure(each="atlas", is_html=True),
    "nodes": Figure(each="atlas"),
    "edges": Figure(lambda _, config: bool(edge_measures(config)), each="atlas"),
    "errors": Figure(lambda _, config: config.sensitivity.edge_standard_errors, each="atlas"),
    "sensitivity": Figure(each="edge"),
    "cost": Figure(is_html=True),
}


def has_figure(desc: str, run: DWIRun, config: Config) -> bool:
    """Say whether a run has a figure, by its files and the settings."""
    return FIGURES[desc].when(run, config)


def figure_entities(
    desc: str, atlas: str | None = None, label: str | None = None
) -> dict[str, str]:
    """Entities of a figure (or snippet) of the report."""
    extension = ".html" if FIGURES[desc].is_html else ".svg"
    entities = {"datatype": "figures", "desc": desc, "suffix": "dwi", "extension": extension}
    entities |= {"atlas": atlas} if atlas else {}
    return entities | ({"label": label} if label else {})


def promised_figures(
    run: DWIRun, atlases: Sequence[str], config: Config, templates: Sequence[str] = ()
) -> Iterator[str]:
    """List the figures of a run, relative to the derivatives folder."""
    for _, _, entities in _all_figures(run, atlases, config, templates):
        yield derivative_path({**run.entities, **entities})


def figure_anchors(
    run: DWIRun, atlases: Sequence[str], config: Config, templates: Sequence[str] = ()
) -> dict[str, str]:
    """Say where on the page each figure of a run is, by ``desc``, or ``desc of`` what it is of."""
    anchors: dict[str, str] = {}
    for desc, of, entities in _all_figures(run, atlases, config, templates):
        name = PurePath(derivative_path({**run.entities, **entities})).stem
        anchors[f"{desc} {of}" if of else desc] = name
    return anchors


def _all_figures(
    run: DWIRun, atlases: Sequence[str], config: Config, templates: Sequence[str]
) -> Iterator[tuple[str, str, dict[str, str]]]:
    """List the figures of a run: their ``desc``, what they are of, and their entities."""
    for desc, figure in FIGURES.items():
        if not has_figure(desc, run, config):
            continue
        if figure.each == "run":
            yield desc, "", figure_entities(desc)
        elif figure.each == "template":
            yield from ((desc, one, figure_entities(desc, label=one)) for one in templates)
        elif figure.each == "atlas":
            yield from ((desc, one, figure_entities(desc, one)) for one in atlases)
        else:
            for atlas, target in run.edge_targets:
                # The same edge may be in several atlases.
                of = f"{atlas} {target.desc}"
                yield desc, of, figure_entities(desc, atlas, target.desc)
