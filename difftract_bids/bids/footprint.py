"""How much memory and disk a run is expected to take, from headers and settings alone.

Figures are of a human brain (70 volumes of 2.4 mm, 0.16 GB in float32, 100,000 streamlines), which
left 0.20 GB of outputs and 0.41 GB of intermediate files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from difftract_bids.bids.atlases import nodes_of
from difftract_bids.bids.stages import corrects_motion

if TYPE_CHECKING:
    from difftract_bids.bids.plan import Plan
    from difftract_bids.bids.runs import DWIRun
    from difftract_bids.config import Config

#: Compressed files over the series in float32: the preprocessed series with all maps, and every
#: step's own copy of the series.
_OUTPUTS, _STEPS = 1.1, 2.6
#: What does not grow with the series: figures, templates and transforms.
_OTHER_OUTPUTS_GB, _OTHER_STEPS_GB = 0.02, 0.05
#: Bytes of a saved streamline, thinned to the usual tolerance, and with every vertex; and of its
#: row in the table of ends and lengths.
_THINNED, _WHOLE, _ROW = 250, 3500, 50


def series_gb(run: DWIRun, config: Config) -> float:
    """Size of the series in memory as float32, GB, before or after resampling: the larger.

    Parameters
    ----------
    run, config
        What is done.
    """
    size_mm = config.preprocessing.output_resolution_mm
    if size_mm is None or run.preprocessed is not None:
        return run.size_gb
    affine = np.asarray(nib.load(run.dwi).affine)
    return run.size_gb * max(1.0, abs(float(np.linalg.det(affine[:3, :3]))) / size_mm**3)


def footprint_gb(run: DWIRun, config: Config) -> tuple[float, float]:
    """Estimate the disk that a run takes, GB.

    Parameters
    ----------
    run, config
        What is done.

    Returns
    -------
    tuple of float
        Of its outputs, and of its intermediate files.
    """
    series = series_gb(run, config)
    steps = _STEPS if run.preprocessed is None else 0.0
    n_streamlines = config.seeding.wanted_streamlines or config.seeding.n_seeds or 0
    vertices = _THINNED if config.output.tractogram_tolerance_mm > 0 else _WHOLE
    tractogram = n_streamlines * vertices / 1e9
    saved = tractogram if config.output.tractogram else 0.0
    tracked = max(saved, tractogram if config.connectome.needs_paths else 0.0)
    return (
        _OUTPUTS * series + _OTHER_OUTPUTS_GB + saved,
        steps * series + _OTHER_STEPS_GB + tracked + n_streamlines * _ROW / 1e9,
    )


def largest_step_gb(plan: Plan, run: DWIRun) -> tuple[str, float]:
    """Tell which step of a run is expected to take most memory, GB.

    The estimates are those that the workflows give their nodes, said again so that nobody waits
    for a graph to be built (`tests/unit/test_footprint.py` holds one to the other).

    Parameters
    ----------
    plan, run
        What is done.
    """
    config, size = plan.config, series_gb(run, plan.config)
    n_nodes = max(len(nodes_of(atlas, run)) for atlas in plan.atlases)
    n_matrices = 1 + len(config.connectome.connectome_measures)
    wanted = config.sensitivity
    by_eddy = config.preprocessing.motion_correction == "eddy"
    steps = {
        "tracking": 1.5 + 2 * size,
        "a connectome": 2.0 + 16e-9 * n_nodes**2 * n_matrices,
        "registration to a template": 3.0 if plan.templates_of(run) else 0.0,
        "denoising": 0.5 + 4 * size if run.preprocessed is None else 0.0,
        "head motion": (1.0 if by_eddy else 0.5) + 6 * size if corrects_motion(run, config) else 0,
        "topup": 3.0 if run.distortion.method == "topup" else 0.0,
        "figures and checks": 1.5 + 3 * size,
        "fODFs": (2.5 if run.fodf_model.network else 0.5) + 4 * size,
        "streamline weights": 3.0 + 2 * size
        if "sift2" in config.connectome.connectome_measures
        else 0,
        "refinement": 4.0 + 8 * size if run.refinement else 0.0,
        "sensitivity": 2.0 + 6 * size if run.edge_targets or wanted.edge_standard_errors else 0.0,
    }
    name = max(steps, key=lambda step: steps[step])
    return name, float(steps[name])
