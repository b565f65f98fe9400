"""The diffusion series of a run: preprocessed here, or taken as others have preprocessed it."""

from __future__ import annotations

from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.fsl import find_eddy
from difftract_bids.bids.phase_encoding import slice_direction
from difftract_bids.bids.runs import DWIRun
from difftract_bids.config import Config
from difftract_bids.workflows.displacements import Displacements
from difftract_bids.workflows.preprocessing import init_given_series_wf, init_preprocessing_wf


def init_series_wf(
    run: DWIRun, config: Config, *, omp_nthreads: int = 1, mem_gb: float = 1.0
) -> LiterateWorkflow:
    """Preprocess a run, or take it as another program has preprocessed it.

    Parameters
    ----------
    run
        The run, planned.
    config
        Settings.
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the series in memory (float32), GB.

    Outputs
    -------
    dwi, bval, bvec, dwiref, mask, notes
        See :func:`difftract_bids.workflows.preprocessing.init_preprocessing_wf`, which gives more.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.series import init_series_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_series_wf(plan.runs[0], plan.config)
    >>> workflow.inputs.inputnode.dwi
    '/.../bids/sub-01/dwi/sub-01_dwi.nii.gz'
    """
    if run.preprocessed is not None:
        given = run.preprocessed
        workflow = init_given_series_wf(
            config.preprocessing, has_mask=given.mask is not None, mem_gb=mem_gb
        )
        files = {key: str(getattr(given, key)) for key in ("dwi", "bval", "bvec")}
        files |= {"mask": str(given.mask)} if given.mask else {}
        workflow.inputs.inputnode.trait_set(**files)
        return workflow
    workflow = init_preprocessing_wf(
        config.preprocessing,
        parts=[part.metadata for part in run.parts],
        displacements=Displacements(
            motion=config.preprocessing.motion_correction,
            distortion=run.distortion.method,
            encoding=run.phase_encoding,
            opposed=run.fieldmaps.opposed,
            eddy=find_eddy() or "eddy",
            slice_direction=slice_direction(run.parts[0].metadata),
        ),
        estimate_noise=config.sensitivity.edge_standard_errors,
        omp_nthreads=omp_nthreads,
        mem_gb=mem_gb,
    )
    for key in ("dwi", "bval", "bvec"):
        paths = [str(getattr(part, key)) for part in run.parts]
        setattr(workflow.inputs.inputnode, key, paths if len(paths) > 1 else paths[0])
    if run.t1w is not None:
        workflow.inputs.inputnode.t1w = str(run.t1w)
    return workflow
