"""Which stages a run goes through: decided once, by its files and the settings.

The graph, the names of outputs and the figures of the report all ask here, so that what is
promised is what is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from difftract_bids.bids.atlases import Atlas, resolve_atlas
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config

#: Deep grey matter is known in the space of these.
_TISSUE_TEMPLATES = ("MNI152NLin2009", "ICBM152")


def is_preprocessed_here(run: DWIRun) -> bool:
    """Whether the run comes raw, and not from another program's derivatives."""
    return run.preprocessed is None


def has_t1w(run: DWIRun) -> bool:
    """Whether there is a T1w to go with the run."""
    return run.t1w is not None


def is_aligned_here(run: DWIRun) -> bool:
    """Whether the T1w is registered to the run; another program may have done it."""
    return has_t1w(run) and not run.anatomy.in_dwi_space


def is_denoised(run: DWIRun, config: Config) -> bool:
    """Whether noise is taken out here."""
    return is_preprocessed_here(run) and config.preprocessing.denoise_method != "none"


def has_noise_map(run: DWIRun, config: Config) -> bool:
    """Whether the noise is mapped: by MP-PCA, or for the standard errors of edges."""
    mapped = config.preprocessing.denoise_method == "mppca"
    return is_preprocessed_here(run) and (mapped or config.sensitivity.edge_standard_errors)


def corrects_motion(run: DWIRun, config: Config) -> bool:
    """Whether volumes are brought to one position here."""
    return is_preprocessed_here(run) and config.preprocessing.motion_correction != "none"


def makes_tissue(run: DWIRun, config: Config) -> bool:
    """Whether tissues are mapped: tracking is constrained by them, and they are not given."""
    return run.is_constrained and config.act.act_5tt is None


def tissue_source(run: DWIRun) -> Literal["labels", "probabilities", "t1w"]:
    """Name what tissues are made from: the best of what there is."""
    if run.anatomy.aparcaseg is not None:
        return "labels"
    return "probabilities" if run.anatomy.probseg else "t1w"


def tissue_template(
    run: DWIRun, config: Config, atlases: Sequence[Atlas]
) -> tuple[str, Path] | None:
    """Name the template that tells deep grey matter from cortex, and its T1w, if one is needed.

    One that is registered anyway where there is one, else that of the built-in atlas.
    """
    if not makes_tissue(run, config) or tissue_source(run) == "labels":
        return None
    for atlas in (*atlases, resolve_atlas("ICBM100")):
        if atlas.template and atlas.template_t1w and atlas.template.startswith(_TISSUE_TEMPLATES):
            return atlas.template, atlas.template_t1w
    return None


def templates(run: DWIRun, config: Config, atlases: Sequence[Atlas]) -> dict[str, Path]:
    """List the templates that the run has to be joined with: their T1w by name."""
    found = {
        atlas.template: atlas.template_t1w
        for atlas in atlases
        if atlas.template is not None and atlas.template_t1w is not None
    }
    tissue = tissue_template(run, config, atlases)
    return found | (dict([tissue]) if tissue else {})
