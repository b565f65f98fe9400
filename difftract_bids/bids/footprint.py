"""How much memory and disk a run is expected to take, from headers and settings alone.

Figures are of a human brain (70 volumes of 2.4 mm, 0.16 GB in float32, 100,000 streamlines), which
left 0.20 GB of outputs and 0.41 GB of intermediate files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
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
