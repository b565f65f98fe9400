"""From a preprocessed diffusion run to tensor maps and fibre orientation distributions."""

from __future__ import annotations

from pathlib import PurePath

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.bids.fodf_model_file import TrainedModel
from difftract_bids.config import TISSUES, FodfConfig
from difftract_bids.errors import ConfigError
from difftract_bids.interfaces.diffusion import FitTensor
from difftract_bids.interfaces.fodf import TISSUE_FIELDS, FitFODF, NormaliseTissues
from difftract_bids.interfaces.fodf_maps import ImportFODF, MapFODF
from difftract_bids.interfaces.learned_fodf import PredictFODF
from difftract_bids.interfaces.response import EstimateResponse

_DIFFUSION = [(name, name) for name in ("dwi", "bval", "bvec", "mask")]
_TENSOR = ["fa", "md", "v1", "colour_fa"]
_MAPS = ["afdtotal", "nufo", "peak"]


def init_fodf_wf(
    config: FodfConfig,
    *,
    model_reason: str = "",
    participant: str = "",
    b0_threshold_s_mm2: float = 50.0,
    omp_nthreads: int = 1,
    mem_gb: float = 1.0,
    name: str = "fodf_wf",
) -> LiterateWorkflow:
    """Fit tensors and fODFs, or predict fODFs by a trained network, or take those given.

    Parameters
    ----------
    config
        Settings of this stage; the model named, as the graph depends on it, and paths this run's
        own: a response for each tissue, a trained network or an fODF image, if they are given.
    model_reason
        Why it is this model, for the sidecar and the report.
    participant
        Label, to tell whether a network was trained on it.
    b0_threshold_s_mm2
        Volumes up to this b-value count as b=0, s/mm².
    omp_nthreads
        CPUs that one step may use.
    mem_gb
        Size of the diffusion image in memory (float32), GB.
    name
        Name of the workflow.

    Inputs
    ------
    dwi, bval, bvec, mask
        The preprocessed run.

    Outputs
    -------
    fa, md, v1, colour_fa
        Tensor maps; ``v1`` is the principal eigenvector in scanner axes.
    response_wm, response_gm, response_csf
        Response functions of the model's tissues, MRtrix's text format; only of fODFs that are
        fitted.
    fodf, fodf_gm, fodf_csf
        SH coefficients of the model's tissues in MRtrix's basis, scanner axes; normalised if that
        is asked for.
    fodf_metadata, fodf_gm_metadata, fodf_csf_metadata
        Content of their sidecars.
    field
        What the tissues were divided by; only if they were normalised.
    afdtotal, nufo, peak
        Maps of the fODFs of white matter.
    notes
        What a user should know about the fits.

    Raises
    ------
    ConfigError
        If the model is ``auto`` and neither a network nor an fODF image is given.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.config import FodfConfig
    >>> from difftract_bids.workflows.fodf import init_fodf_wf
    >>> workflow = init_fodf_wf(FodfConfig(model="csd", response_algorithm="fa"))
    >>> workflow.base_dir = "work"
    >>> workflow.config["execution"]["remove_unnecessary_outputs"] = "false"
    >>> workflow.inputs.inputnode.dwi = Path("dwi.nii.gz").absolute()
    >>> workflow.inputs.inputnode.bval = Path("dwi.bval").absolute()
    >>> workflow.inputs.inputnode.bvec = Path("dwi.bvec").absolute()
    >>> workflow.inputs.inputnode.mask = Path("mask.nii.gz").absolute()
    >>> graph = workflow.run()
    >>> sorted(path.name for path in Path("work/fodf_wf").glob("*/*.nii.gz"))[:4]
    ['afdtotal.nii.gz', 'colour_fa.nii.gz', 'fa.nii.gz', 'fodf.nii.gz']
    """
    workflow = LiterateWorkflow(name=name)
    inputs = pe.Node(niu.IdentityInterface([name for name, _ in _DIFFUSION]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(_output_fields()), name="outputnode")
    resources = {"n_procs": omp_nthreads, "mem_gb": 0.5 + 4 * mem_gb}
    tensor = pe.Node(FitTensor(b0_threshold_s_mm2=b0_threshold_s_mm2), name="tensor", **resources)
    maps = pe.Node(MapFODF(), name="maps", **resources)
    workflow.connect([
        (inputs, tensor, _DIFFUSION),
        (inputs, maps, [("mask", "mask")]),
        (tensor, outputs, _same(_TENSOR)),
        (maps, outputs, _same(_MAPS)),
    ])  # fmt: skip
    if config.input_fodf is not None:
        workflow.__desc__ = fodf_methods(config, "given")
        last = _take(workflow, config.input_fodf)
    elif config.fodf_model_file is not None:
        workflow.__desc__ = fodf_methods(config, "learned")
        threshold = {"b0_threshold_s_mm2": b0_threshold_s_mm2}
        last = _predict(workflow, config, threshold, resources, participant)
    elif config.model == "auto":
        raise ConfigError(
            "A graph cannot be built for the fODF model auto.",
            where="init_fodf_wf",
            remedy=f"Name one of {', '.join(TISSUES)}; bids.fodf_model.choose_model chooses.",
        )
    else:
        workflow.__desc__ = fodf_methods(config, config.model)
        threshold = {"b0_threshold_s_mm2": b0_threshold_s_mm2}
        last = _fit(workflow, config, threshold, resources, model_reason=model_reason)
    workflow.connect([(last, maps, [("fodf", "fodf")])])
    return workflow


def _take(workflow, path):
    """Take the fODFs from an image."""
    inputs, outputs = workflow.get_node("inputnode"), workflow.get_node("outputnode")
    take = pe.Node(ImportFODF(in_file=path), name="take", mem_gb=1.0)
    workflow.connect([
        (inputs, take, [("mask", "like")]),
        (take, outputs, _same(["fodf", "fodf_metadata", "notes"])),
    ])  # fmt: skip
    return take


def _predict(workflow, config, threshold, resources, participant):
    """Predict the fODFs by a trained network."""
    inputs, outputs = workflow.get_node("inputnode"), workflow.get_node("outputnode")
    predict = PredictFODF(model_file=config.fodf_model_file, **threshold)
    if config.fodf_model_class is not None:
        predict.inputs.model_class = config.fodf_model_class
    if participant:
        predict.inputs.participant = participant
    # What a network makes of a tile takes a gigabyte or more, however small the image is.
    more = resources | {"mem_gb": 2.0 + resources["mem_gb"]}
    node = pe.Node(predict, name="predict", **more)
    workflow.connect([
        (inputs, node, _DIFFUSION),
        (node, outputs, _same(["fodf", "fodf_metadata", "notes"])),
    ])  # fmt: skip
    return node


def _fit(workflow, config, threshold, resources, *, model_reason):
    """Fit a model, with responses estimated or given; return the node that has the fODFs."""
    inputs, outputs = workflow.get_node("inputnode"), workflow.get_node("outputnode")
    tissues = TISSUES[config.model]
    responses = [f"response_{tissue.lower()}" for tissue in tissues]
    images = [TISSUE_FIELDS[tissue] for tissue in tissues]
    images += [f"{field}_metadata" for field in images]
    settings = {"model": config.model, "lmax": config.lmax, **threshold}
    directions = {"constraint_directions": config.constraint_directions}
    fit = pe.Node(FitFODF(**settings, **directions), name="fodf", **resources)
    if model_reason:
        fit.inputs.model_reason = model_reason
    notes = pe.Node(niu.Merge(3), name="notes", run_without_submitting=True)
    if config.response:
        response = pe.Node(niu.IdentityInterface(responses), name="response")
        response.inputs.trait_set(**dict(zip(responses, config.response, strict=True)))
    else:
        algorithm = {"response_algorithm": config.response_algorithm}
        response = pe.Node(EstimateResponse(**settings, **algorithm), name="response", **resources)
        workflow.connect([
            (inputs, response, _DIFFUSION),
            (response, notes, [("notes", "in1")]),
        ])  # fmt: skip
    workflow.connect([
        (inputs, fit, _DIFFUSION),
        (response, fit, _same(responses)),
        (response, outputs, _same(responses)),
        (fit, notes, [("notes", "in2")]),
        (notes, outputs, [("out", "notes")]),
    ])  # fmt: skip
    last = fit
    if len(tissues) > 1 and config.normalise_tissues:
        last = pe.Node(NormaliseTissues(), name="normalise", **resources)
        workflow.connect([
            (inputs, last, [("mask", "mask")]),
            (fit, last, _same(images)),
            (last, notes, [("notes", "in3")]),
            (last, outputs, [("field", "field")]),
        ])  # fmt: skip
    workflow.connect([(last, outputs, _same(images))])
    return last


def fodf_methods(config: FodfConfig, model: str, network: TrainedModel | None = None) -> str:
    """Write the methods paragraph of this stage.

    Parameters
    ----------
    config
        Settings; with the labels of runs not yet filled in, so that all runs share a text.
    model
        The model of a run, ``given`` if its fODFs are, ``learned`` if they are predicted.
    network
        What predicts them.
    """
    tensor = (
        "A diffusion tensor was fitted by weighted least squares [@basser1994], with DIPY "
        "[@garyfallidis2014], for maps of fractional anisotropy and mean diffusivity."
    )
    said = [tensor]
    if model == "given":
        said.append(
            "Fibre orientation distributions (fODFs) were taken from the image "
            f"{PurePath(config.input_fodf or '').name}."
        )
    elif model == "learned":
        said.append(_network_text(config, network))
    else:
        said += [_model_text(config, model), _response_text(config, model)]
        if len(TISSUES[model]) > 1:
            said.append(_normalisation_text(config))
    said.append(
        "Total apparent fibre density [@raffelt2012; @calamante2015] and the number of fibre "
        "orientations [@dellacqua2013] were mapped from the fODFs of white matter."
    )
    return f"### Fibre orientations\n\n{' '.join(said)}\n\n"


def _network_text(config: FodfConfig, network: TrainedModel | None) -> str:
    name = PurePath(config.fodf_model_file or "").name
    told = "" if network is None else f" {network.in_words()}"
    return (
        "Fibre orientation distributions (fODFs) were predicted from the diffusion images by a "
        f"trained network ({name}), not fitted to them.{told}"
    )


def _model_text(config: FodfConfig, model: str) -> str:
    degree = f"up to degree {config.lmax or 8}"
    how = {
        "csd": "constrained spherical deconvolution [@tournier2007] of a single shell",
        "msmtcsd": "multi-shell multi-tissue constrained spherical deconvolution "
        "[@jeurissen2014] into white matter, grey matter and cerebrospinal fluid, of all shells",
        "ss2t": "multi-tissue constrained spherical deconvolution [@jeurissen2014] into white "
        "matter and cerebrospinal fluid, of a single shell and the b=0 images",
    }[model]
    return (
        f"Fibre orientation distributions (fODFs) were estimated by {how}, with spherical "
        f"harmonics {degree}, in an implementation of this program's own."
    )


def _response_text(config: FodfConfig, model: str) -> str:
    several = len(TISSUES[model]) > 1
    if config.response:
        names = ", ".join(PurePath(path).name for path in config.response)
        return f"Response functions were given ({names})."
    return {
        "tournier": "The response function came from the voxels that look most like a single "
        "fibre, found in rounds of deconvolution [@tournier2013].",
        "fa": "The response function came from the most anisotropic voxels [@tournier2004].",
        "dhollander": f"Response function{'s' if several else ''} of "
        f"{'each tissue' if several else 'white matter'} came from the images themselves, "
        "without supervision [@dhollander2016; @dhollander2019].",
    }[config.algorithm_of(model)]


def _normalisation_text(config: FodfConfig) -> str:
    if not config.normalise_tissues:
        return "Tissues were not normalised in intensity."
    return (
        "Tissues were brought to a common intensity in the log domain, with residual "
        "inhomogeneity removed [@raffelt2017]."
    )


def _output_fields() -> list[str]:
    images = list(TISSUE_FIELDS.values())
    responses = [f"response_{tissue.lower()}" for tissue in TISSUE_FIELDS]
    sidecars = [f"{image}_metadata" for image in images]
    return [*_TENSOR, *responses, *images, *sidecars, "field", *_MAPS, "notes"]


def _same(names: list[str]) -> list[tuple[str, str]]:
    return [(name, name) for name in names]
