"""Saving results under their BIDS names, with sidecars."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.confounds_sidecar import confounds_metadata, outliers_metadata
from difftract_bids.bids.figures import figure_entities
from difftract_bids.bids.fodf_sidecars import (
    estimation_metadata,
    map_metadata,
    model_metadata,
    response_metadata,
)
from difftract_bids.bids.given_fodf import fodf_of
from difftract_bids.bids.outputs import (
    OUTPUTS,
    is_wanted,
    output_entities,
    output_path,
    tracked_in,
)
from difftract_bids.bids.plan import Plan
from difftract_bids.bids.runs import DWIRun
from difftract_bids.bids.sidecars import node_table_metadata, tensor_metadata
from difftract_bids.bids.uris import derivative_uri, input_uri
from difftract_bids.interfaces.fodf import TISSUE_FIELDS
from difftract_bids.interfaces.fodf_maps import ConvertFODF
from difftract_bids.interfaces.outputs import DerivativesSink, FigureSink

#: Images of SH coefficients, with sidecars that are known only at run time.
_FODFS = (*TISSUE_FIELDS.values(), "refined_fodf")


def init_run_derivatives_wf(
    plan: Plan, run: DWIRun, *, name: str = "derivatives_wf"
) -> LiterateWorkflow:
    """Save what there is once per diffusion run.

    Parameters
    ----------
    plan, run
        What was done.
    name
        Name of the workflow.

    Inputs
    ------
    preproc_dwi, preproc_bval, preproc_bvec, mask, dwiref, sigma, confounds, outliers, checks, fa,
    md, colour_fa, fodf, fodf_gm, fodf_csf, refined_fodf, response_wm, response_gm, response_csf,
    afdtotal, nufo, peak, tractogram, weights, hdf5
        Files, by the names of :data:`difftract_bids.bids.outputs.OUTPUTS`, as far as the run has
        them. fODFs are in MRtrix's basis; they are saved in the one asked for.
    t1w_dwi, t1w_to_dwi, dwi_to_t1w, five_tissue_types
        The same, for runs with a T1w.
    checks_metadata, fodf_metadata, fodf_gm_metadata, fodf_csf_metadata, refined_fodf_metadata,
    tractogram_metadata, weights_metadata
        Content of sidecars that is known only at run time.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.derivatives import init_run_derivatives_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_run_derivatives_wf(plan, plan.runs[0])
    >>> workflow.inputs.inputnode.fa = Path("fa.nii.gz").absolute()
    >>> "ds_fa" in workflow.list_node_names()
    True
    """
    config = plan.config
    preprocessed = derivative_uri(output_path(run, "preproc_dwi", config))
    fodf = derivative_uri(output_path(run, "fodf", config))
    sidecars = {
        "preproc_dwi": _series_sidecar(plan, run),
        "preproc_bval": {},
        "preproc_bvec": {},
        "sigma": {
            "Sources": [input_uri(part.dwi, plan.datasets) for part in run.parts],
            "Description": "Standard deviation of the noise before denoising",
            "Units": "arbitrary",
        },
        "confounds": {
            "Sources": [preprocessed],
            **confounds_metadata(config.preprocessing.motion_correction),
        },
        "outliers": {"Sources": [preprocessed], **outliers_metadata()},
        "checks": {"Sources": [preprocessed]},
        "mask": {"Sources": [preprocessed], "Type": "Brain"},
        "dwiref": {"Sources": [preprocessed], "Description": "Mean b=0 image"},
        "fa": {"Sources": [preprocessed], **tensor_metadata("fa")},
        "md": {"Sources": [preprocessed], **tensor_metadata("md")},
        "colour_fa": {"Sources": [preprocessed], **tensor_metadata("colour_fa")},
        **_fodf_sidecars(plan, run, preprocessed, fodf),
    }
    followed = derivative_uri(output_path(run, tracked_in(run, config), config))
    if is_wanted("tractogram", run, config):
        sidecars["tractogram"] = {"Sources": [followed]}
    if is_wanted("weights", run, config):
        tracked = "tractogram" if is_wanted("tractogram", run, config) else "preproc_dwi"
        tracked_uri = derivative_uri(output_path(run, tracked, config))
        compared = derivative_uri(output_path(run, _fodf_of(run), config))
        sidecars["weights"] = {"Sources": [tracked_uri, compared]}
    if is_wanted("hdf5", run, config):
        sidecars["hdf5"] = _hdf5_sidecar(plan, run)
    sidecars |= _anatomy_sidecars(plan, run)
    sidecars = {key: sidecar for key, sidecar in sidecars.items() if is_wanted(key, run, config)}
    images = [key for key in _FODFS if key in sidecars]
    at_run_time = [*(f"{key}_metadata" for key in images), "checks_metadata"]
    at_run_time += ["tractogram_metadata"]
    at_run_time += ["weights_metadata"] if "weights" in sidecars else []
    return _saving_wf(plan, run, sidecars, at_run_time, name=name)


def _series_sidecar(plan, run):
    """Say what was done to the series, here or elsewhere."""
    said = {
        "Sources": [input_uri(part.dwi, plan.datasets) for part in run.parts],
        "SkullStripped": False,
    }
    if run.preprocessed is not None:
        return run.metadata | said | {"PreprocessedBy": run.preprocessed.origin}
    config = plan.config.preprocessing
    size_mm = config.output_resolution_mm
    return (
        run.metadata
        | said
        | {
            "Denoised": config.denoise_method != "none",
            "DenoisingMethod": config.denoise_method,
            "MotionCorrection": config.motion_correction,
            "SusceptibilityCorrection": run.distortion.method,
            "BiasCorrection": config.bias_correction,
        }
        | ({} if size_mm is None else {"Resolution": f"Isotropic voxels of {size_mm:g} mm"})
    )


def _anatomy_sidecars(plan, run):
    """Describe the T1w, its alignment and its tissues."""
    if run.t1w is None:
        return {}
    dwiref = derivative_uri(output_path(run, "dwiref", plan.config))
    t1w = input_uri(run.t1w, plan.datasets)
    both = [t1w, dwiref]
    tissue = [path for path in (run.anatomy.aparcaseg, *run.anatomy.probseg.values()) if path]
    of_tissue = [input_uri(path, plan.datasets) for path in tissue] or [t1w]
    return {
        "t1w_dwi": {"Sources": both, "SpatialReference": dwiref, "SkullStripped": False},
        "t1w_to_dwi": {"Sources": both, "Type": "rigid"},
        "dwi_to_t1w": {"Sources": both, "Type": "rigid"},
        "five_tissue_types": {
            "Sources": [*of_tissue, dwiref],
            "SpatialReference": dwiref,
            "Description": "Fractions of tissue, in the order and format of MRtrix3's 5TT images",
            "LabelMap": ["cortical GM", "subcortical GM", "WM", "CSF", "pathological"],
        },
    }


def init_template_derivatives_wf(plan: Plan, run: DWIRun, template: str) -> LiterateWorkflow:
    """Save what joins a template to a run.

    Parameters
    ----------
    plan, run
        What was done.
    template
        Name of the template.

    Inputs
    ------
    template_to_dwi, dwi_to_template
        Transforms, ITK HDF5; the second one only if it was found here.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.derivatives import init_template_derivatives_wf
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> workflow = init_template_derivatives_wf(plan, plan.runs[0], "MNI152NLin2009aSym")
    >>> workflow.inputs.inputnode.template_to_dwi = Path("template_to_dwi.h5").absolute()
    >>> workflow.list_node_names()
    ['ds_dwi_to_template', 'ds_template_to_dwi', 'inputnode']
    """
    keys = ["template_to_dwi"]
    keys += [] if template in run.anatomy.from_template else ["dwi_to_template"]
    dwiref = derivative_uri(output_path(run, "dwiref", plan.config))
    sidecar = {"Sources": [dwiref], "Type": "nonlinear", "Template": template}
    name = f"{template}_derivatives_wf"
    return _saving_wf(plan, run, dict.fromkeys(keys, sidecar), [], template=template, name=name)


def _fodf_of(run):
    """Name the fODFs that streamlines follow, or are compared with."""
    return "refined_fodf" if run.refinement else "fodf"


def _hdf5_sidecar(plan, run):
    """Say what the file of all matrices holds."""
    config = plan.config
    matrices = [
        derivative_uri(output_path(run, measure, config, atlas.name))
        for atlas in plan.atlases
        for measure in config.connectome.connectome_measures
    ]
    layout = "A group for each atlas: a dataset for each measure, and the node table in nodes"
    return {"Sources": matrices, "Description": "Connectome matrices", "Layout": layout}


def _fodf_sidecars(plan, run, preprocessed, fodf):
    """Say of fODFs, their maps and responses what is known before they are made."""
    config, model = plan.config, run.fodf_model
    said = model_metadata(model.name, model.reason)
    sources = {} if model.is_given else {"Sources": [preprocessed]}
    sidecars = {key: {**sources} for key in TISSUE_FIELDS.values()}
    sidecars["refined_fodf"] = {"Sources": [fodf, preprocessed]}
    sidecars |= {
        key: {"Sources": [fodf], **said, **map_metadata(key)}
        for key in ("afdtotal", "nufo", "peak")
    }
    if model.is_fitted:
        given = fodf_of(config.fodf, run).response
        responses = estimation_metadata(config.fodf.algorithm_of(model.name), given)
        for tissue, key in TISSUE_FIELDS.items():
            sidecars[key] |= responses
            sidecars[f"response_{tissue.lower()}"] = {
                **sources,
                **said,
                **response_metadata(tissue),
                **responses,
            }
    return {key: sidecar for key, sidecar in sidecars.items() if is_wanted(key, run, config)}


def init_atlas_derivatives_wf(
    plan: Plan, run: DWIRun, atlas: str, *, name: str = "derivatives_wf"
) -> LiterateWorkflow:
    """Save what there is once per atlas.

    Parameters
    ----------
    plan, run
        What was done.
    atlas
        Name of the atlas.
    name
        Name of the workflow.

    Inputs
    ------
    dseg, dseg_table, nodeindices, assignments, count, meanlength, ...
        Files, by the names of :data:`difftract_bids.bids.outputs.OUTPUTS`, as far as the settings
        ask for them.
    assignments_metadata, count_metadata, meanlength_metadata, ...
        Content of sidecars that is known only at run time.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.derivatives import init_atlas_derivatives_wf
    >>> config = Config(atlases=("Phantom=bids/derivatives/truth",))
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), config)
    >>> workflow = init_atlas_derivatives_wf(plan, plan.runs[0], "Phantom")
    >>> workflow.inputs.inputnode.count = Path("count.dense.tsv").absolute()
    >>> sorted(workflow.list_node_names())[:3]
    ['ds_count', 'ds_dseg', 'ds_dseg_table']
    """
    # Without a saved tractogram, what it was tracked in.
    saved = is_wanted("tractogram", run, plan.config)
    source = "tractogram" if saved else tracked_in(run, plan.config)
    tractogram = derivative_uri(output_path(run, source, plan.config))
    dseg = derivative_uri(output_path(run, "dseg", plan.config, atlas))
    dwiref = derivative_uri(output_path(run, "dwiref", plan.config))
    sources = [tractogram, dseg]
    sidecars = {
        "dseg": {
            "Sources": [dwiref],
            "Atlas": atlas,
            "Resampling": "Nearest neighbour, where the atlas is on another grid",
        },
        "dseg_table": {},
        "nodeindices": {"Sources": sources, "Atlas": atlas, **node_table_metadata()},
    }
    at_run_time = []
    for key in (*plan.config.connectome.connectome_measures, "assignments"):
        if is_wanted(key, run, plan.config):
            others = _other_sources(plan, run, key)
            sidecars[key] = {"Sources": [*sources, *others], "Atlas": atlas}
            at_run_time.append(f"{key}_metadata")
    return _saving_wf(plan, run, sidecars, at_run_time, atlas=atlas, name=name)


def _other_sources(plan, run, measure):
    """Name what a matrix is made of besides streamlines and parcels."""
    image = {"sift2": "weights", "meanfa": "fa", "meanmd": "md"}.get(measure)
    return [derivative_uri(output_path(run, image, plan.config))] if image else []


def init_report_sink(
    plan: Plan,
    run: DWIRun,
    desc: str,
    *,
    atlas: str | None = None,
    label: str | None = None,
    name: str | None = None,
) -> pe.Node:
    """Make the node that saves one figure or table of the report; connect to its ``in_file``.

    It is called ``ds_`` and what it saves, if it is given no name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.interfaces.reportlets.connectome import PlotConnectome
    >>> from difftract_bids.workflows.derivatives import init_report_sink
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> sink = init_report_sink(plan, plan.runs[0], "connectome", atlas="ICBM100")
    >>> sink.inputs.in_file = PlotConnectome(matrix="count.dense.tsv").run().outputs.out_report
    >>> sink.run().outputs.out_file
    '/.../sub-01/figures/sub-01_atlas-ICBM100_desc-connectome_dwi.svg'
    """
    name = name or "_".join(filter(None, ["ds", desc, label]))
    return _sink(plan, run, name, figure_entities(desc, atlas, label), {}, FigureSink)


def init_checks_sink(plan: Plan, run: DWIRun) -> pe.Node:
    """Make the node that saves the checks of a run; connect to its ``in_file`` and ``meta_dict``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.derivatives import init_checks_sink
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> init_checks_sink(plan, plan.runs[0]).inputs.suffix
    'quality'
    """
    sources = [derivative_uri(output_path(run, "preproc_dwi", plan.config))]
    entities = output_entities("checks", run, plan.config)
    return _sink(plan, run, "ds_checks", entities, {"Sources": sources})


def init_atlas_sink(
    plan: Plan, run: DWIRun, atlas: str, name: str, entities: dict[str, str]
) -> pe.Node:
    """Make the node that saves what comes from streamlines, parcels and the diffusion image.

    Connect to its ``in_file`` and ``meta_dict``.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.bids.plan import make_plan
    >>> from difftract_bids.config import Config
    >>> from difftract_bids.workflows.derivatives import init_atlas_sink
    >>> plan = make_plan(Path("bids"), Path("out"), Path("work"), Config())
    >>> entities = {"param": "sensitivity", "desc": "total", "suffix": "dwimap"}
    >>> sink = init_atlas_sink(plan, plan.runs[0], "ICBM100", "ds_sensitivity", entities)
    >>> sink.inputs.in_file = Path("sensitivity.nii.gz").absolute()
    >>> sink.run().outputs.out_file
    '/.../sub-01/dwi/sub-01_atlas-ICBM100_desc-total_param-sensitivity_dwimap.nii.gz'
    """
    config = plan.config
    made_of = [("dseg", atlas), (_fodf_of(run), None), ("preproc_dwi", None)]
    sources = [derivative_uri(output_path(run, key, config, of)) for key, of in made_of]
    entities = {"datatype": "dwi", **entities, "atlas": atlas}
    return _sink(plan, run, name, entities, {"Sources": sources, "Atlas": atlas})


def _saving_wf(plan, run, sidecars, at_run_time, *, name, atlas=None, template=None):
    workflow = LiterateWorkflow(name=name)
    inputs = pe.Node(niu.IdentityInterface([*sidecars, *at_run_time]), name="inputnode")
    for key, sidecar in sidecars.items():
        entities = output_entities(key, run, plan.config, template)
        entities |= {"atlas": atlas} if atlas else {}
        content = sidecar if OUTPUTS[key].sidecar else {}
        sink = _sink(plan, run, f"ds_{key}", entities, content)
        fields = [(key, "in_file")]
        if f"{key}_metadata" in at_run_time:
            fields.append((f"{key}_metadata", "meta_dict"))
        if key in _FODFS and plan.config.output.sh_basis != "mrtrix3":
            _convert(workflow, inputs, sink, key, plan.config.output.sh_basis)
        else:
            workflow.connect([(inputs, sink, fields)])
    return workflow


def _convert(workflow, inputs, sink, key, basis):
    """Put the conversion to another basis before a sink."""
    convert = pe.Node(ConvertFODF(basis=basis), name=f"convert_{key}", mem_gb=1.0)
    workflow.connect([
        (inputs, convert, [(key, "in_file"), (f"{key}_metadata", "in_metadata")]),
        (convert, sink, [("out_file", "in_file"), ("out_metadata", "meta_dict")]),
    ])  # fmt: skip


def _sink(plan, run, name, entities, sidecar, kind=DerivativesSink):
    sink = kind(
        base_directory=str(plan.output_dir), source_file=run.source_name, **entities, **sidecar
    )
    return pe.Node(sink, name=name, run_without_submitting=True, mem_gb=0.3)
