"""Parcellations in the space of a diffusion run, through T1w and template where needed."""

from __future__ import annotations

from typing import Literal

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.interfaces.anatomical import (
    AlignT1w,
    MakePseudoT1w,
    RegisterTemplate,
    ResampleParcellation,
)
from difftract_bids.interfaces.tissue import (
    ExtractT1wBrain,
    PlaceInDwi,
    TissuesFromLabels,
    TissuesFromProbabilities,
    TissuesFromT1w,
    UseGivenTransform,
)

#: What tissues are made from, best first.
TissueSource = Literal["labels", "probabilities", "t1w"]
_TISSUE_METHODS: dict[TissueSource, str] = {
    "labels": "taken from FreeSurfer's labels [@fischl2002]",
    "probabilities": "taken from given probabilities of fluid, grey and white matter; a prior "
    "made from the ICBM 152 templates [@fonov2011] told deep grey matter from cortex",
    "t1w": "segmented in the T1-weighted image: after correction of the bias field "
    "[N4, @tustison2010], a hidden Markov random field [@zhang2001] found fluid, grey and white "
    "matter, and a prior made from the ICBM 152 templates [@fonov2011] told deep grey matter from "
    "cortex",
}

#: What to cite when the name of an atlas or template contains this.
_CITATIONS = {
    "schaefer": "schaefer2018",
    "tian": "tian2020",
    "icbm": "fonov2011",
    "mni152nlin2009": "fonov2011",
}


def init_align_t1w_wf(*, omp_nthreads: int = 1, name: str = "align_t1w_wf") -> LiterateWorkflow:
    """Bring a T1w image into the space of a diffusion run.

    Parameters
    ----------
    omp_nthreads
        CPUs that one step may use.
    name
        Name of the workflow.

    Inputs
    ------
    t1w, dwiref, mask
        T1w with or without skull, b=0 reference and brain mask of the diffusion run.

    Outputs
    -------
    t1w_dwi
        The T1w's own voxels, placed in the space of the diffusion data.
    t1w_to_dwi, dwi_to_t1w
        Rigid transforms, ITK text.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.workflows.anatomical import init_align_t1w_wf
    >>> workflow = init_align_t1w_wf(omp_nthreads=4)
    >>> workflow.inputs.inputnode.t1w = Path("T1w.nii.gz").absolute()
    >>> workflow.get_node("align").n_procs
    4
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Anatomy\n\nThe T1-weighted image was registered rigidly to the b=0 reference by "
        "mutual information [@mattes2003].\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(["t1w", "dwiref", "mask"]), name="inputnode")
    outputs = pe.Node(
        niu.IdentityInterface(["t1w_dwi", "t1w_to_dwi", "dwi_to_t1w"]), name="outputnode"
    )
    align = pe.Node(AlignT1w(), name="align", n_procs=omp_nthreads, mem_gb=1.5)
    workflow.connect([
        (inputs, align, [("t1w", "t1w"), ("dwiref", "dwiref"), ("mask", "mask")]),
        (align, outputs, [(name, name) for name in ("t1w_dwi", "t1w_to_dwi", "dwi_to_t1w")]),
    ])  # fmt: skip
    return workflow


def init_pseudo_t1w_wf(*, name: str = "pseudo_t1w_wf") -> LiterateWorkflow:
    """Make what stands in for a T1w where there is none.

    Parameters
    ----------
    name
        Name of the workflow.

    Inputs
    ------
    fa, md, mask
        Tensor maps and brain mask of the diffusion run.

    Outputs
    -------
    t1w_dwi
        Image with a T1w's contrast, on the grid of the diffusion data.

    Examples
    --------
    >>> from difftract_bids.workflows.anatomical import init_pseudo_t1w_wf
    >>> workflow = init_pseudo_t1w_wf()
    >>> sorted(workflow.inputs.inputnode.get())
    ['fa', 'mask', 'md']
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Anatomy\n\nFor want of a T1-weighted image, one of like contrast was made from "
        "fractional anisotropy and mean diffusivity.\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(["fa", "md", "mask"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["t1w_dwi"]), name="outputnode")
    make = pe.Node(MakePseudoT1w(), name="make", mem_gb=0.5)
    workflow.connect([
        (inputs, make, [(name, name) for name in ("fa", "md", "mask")]),
        (make, outputs, [("pseudo_t1w", "t1w_dwi")]),
    ])  # fmt: skip
    return workflow


def init_template_wf(
    template: str, template_t1w: str, *, omp_nthreads: int = 1, name: str = "template_wf"
) -> LiterateWorkflow:
    """Register a template to a diffusion run.

    Parameters
    ----------
    template, template_t1w
        Name of the template, and its T1w without skull.
    omp_nthreads
        CPUs that one step may use.
    name
        Name of the workflow.

    Inputs
    ------
    anatomy
        T1w in the space of the diffusion data, or what stands in for it.
    mask
        Brain mask of the diffusion run.

    Outputs
    -------
    warp, affine
        The two parts of template to diffusion space, ITK formats.
    template_to_dwi, dwi_to_template
        Both parts in one file, and its inverse; ITK HDF5, to be saved.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.workflows.anatomical import init_template_wf
    >>> template = str(Path("template.nii.gz").absolute())
    >>> workflow = init_template_wf("MNI152NLin2009aSym", template, omp_nthreads=4)
    >>> workflow.inputs.inputnode.anatomy = Path("t1w_dwi.nii.gz").absolute()
    >>> workflow.inputs.inputnode.mask = Path("mask.nii.gz").absolute()
    >>> workflow.list_node_names()
    ['inputnode', 'outputnode', 'register']
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Parcellation\n\n"
        f"The template {template}{_cited(template)} was registered to the participant's brain by "
        "an affine and a symmetric diffeomorphic transform [@avants2008].\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(["anatomy", "mask"]), name="inputnode")
    found = ["warp", "affine", "template_to_dwi", "dwi_to_template"]
    outputs = pe.Node(niu.IdentityInterface(found), name="outputnode")
    register = pe.Node(
        RegisterTemplate(template=template_t1w), name="register", n_procs=omp_nthreads, mem_gb=3.0
    )
    workflow.connect([
        (inputs, register, [("anatomy", "anatomy"), ("mask", "mask")]),
        (register, outputs, [(name, name) for name in found]),
    ])  # fmt: skip
    return workflow


def init_given_template_wf(
    template: str, from_template: str, *, name: str = "template_wf"
) -> LiterateWorkflow:
    """Use the registration of a template to the T1w that others made.

    Parameters
    ----------
    template
        Name of the template.
    from_template
        Their ``from-<template>_to-T1w`` file.
    name
        Name of the workflow.

    Inputs
    ------
    t1w_to_dwi
        Rigid transform, ITK text; none where the T1w is in the diffusion data's space already.

    Outputs
    -------
    warp
        All of template to diffusion space, ITK HDF5: fits wherever ``warp`` and ``affine`` of
        :func:`init_template_wf` do. ``affine`` is there, too, and stays undefined.
    template_to_dwi
        The same file, to be saved.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.workflows.anatomical import init_given_template_wf
    >>> given = str(Path("from-template_to-T1w.txt").absolute())
    >>> workflow = init_given_template_wf("MNI152NLin2009aSym", given)
    >>> workflow.inputs.inputnode.t1w_to_dwi = Path("t1w_to_dwi.txt").absolute()
    >>> workflow.list_node_names()
    ['inputnode', 'join', 'outputnode']
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Parcellation\n\n"
        f"The given registration of the template {template}{_cited(template)} to the T1-weighted "
        "image was joined to that image's alignment with the diffusion data.\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(["t1w_to_dwi"]), name="inputnode")
    outputs = pe.Node(
        niu.IdentityInterface(["warp", "affine", "template_to_dwi"]), name="outputnode"
    )
    join = pe.Node(UseGivenTransform(from_template=from_template), name="join", mem_gb=1.0)
    workflow.connect([
        (inputs, join, [("t1w_to_dwi", "t1w_to_dwi")]),
        (join, outputs, [("warp", "warp"), ("warp", "template_to_dwi")]),
    ])  # fmt: skip
    return workflow


def init_tissue_wf(
    source: TissueSource,
    *,
    template_t1w: str | None = None,
    name: str = "tissue_wf",
) -> LiterateWorkflow:
    """Make a five-tissue-type image in the space of a diffusion run.

    Parameters
    ----------
    source
        What it is made from: FreeSurfer's ``labels``, tissue ``probabilities``, or the ``t1w``.
    template_t1w
        T1w without skull of the template that ``warp`` comes from: finds the brain in the T1w.
        None where ``t1w_mask`` is given.
    name
        Name of the workflow.

    Inputs
    ------
    t1w_dwi, mask
        T1w placed in the diffusion data's space, and brain mask of the run (source ``t1w``).
    t1w_mask
        Given brain mask in T1w space (source ``t1w``, without ``template_t1w``).
    csf, gm, wm
        Tissue probabilities in T1w space (source ``probabilities``).
    labels
        ``aparc+aseg`` in T1w space (source ``labels``).
    t1w_to_dwi
        Rigid transform, ITK text; none where the T1w is in the diffusion data's space already.
    warp, affine
        From an ICBM 152 2009 template to diffusion space (all sources but ``labels``).

    Outputs
    -------
    five_tissue_types
        5TT image, MRtrix's order of volumes, at the resolution of its source.
    notes
        What the user should know.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.workflows.anatomical import init_tissue_wf
    >>> workflow = init_tissue_wf("labels")
    >>> workflow.inputs.inputnode.labels = Path("aparcaseg.nii.gz").absolute()
    >>> workflow.inputs.inputnode.t1w_to_dwi = Path("t1w_to_dwi.txt").absolute()
    >>> type(workflow.get_node("tissues").interface).__name__
    'TissuesFromLabels'
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Tissues\n\nFor anatomical constraints [@smith2012], tissues were "
        f"{_TISSUE_METHODS[source]}.\n\n"
    )
    given = ["t1w_dwi", "mask", "t1w_mask", "csf", "gm", "wm", "labels", "t1w_to_dwi"]
    inputs = pe.Node(niu.IdentityInterface([*given, "warp", "affine"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["five_tissue_types", "notes"]), name="outputnode")
    interface, used = _TISSUE_MAKERS[source]
    tissues = pe.Node(interface(), name="tissues", mem_gb=2.5)
    workflow.connect([
        (inputs, tissues, [(field, field) for field in used]),
        (tissues, outputs, [("five_tissue_types", "five_tissue_types"), ("notes", "notes")]),
    ])  # fmt: skip
    if source == "t1w":
        _connect_t1w_mask(workflow, template_t1w)
    return workflow


#: Interface of each source, and the inputs that it takes as they are.
_TISSUE_MAKERS = {
    "labels": (TissuesFromLabels, ("labels", "t1w_to_dwi")),
    "probabilities": (
        TissuesFromProbabilities,
        ("csf", "gm", "wm", "t1w_to_dwi", "warp", "affine"),
    ),
    "t1w": (TissuesFromT1w, ("t1w_dwi", "warp", "affine")),
}


def _connect_t1w_mask(workflow: LiterateWorkflow, template_t1w: str | None) -> None:
    """Find the brain in the T1w, or move the mask that is given."""
    inputs, tissues = workflow.get_node("inputnode"), workflow.get_node("tissues")
    if template_t1w is None:
        place = pe.Node(PlaceInDwi(), name="place_mask", mem_gb=0.5)
        workflow.connect([
            (inputs, place, [("t1w_mask", "image"), ("t1w_to_dwi", "t1w_to_dwi")]),
            (place, tissues, [("image", "t1w_mask")]),
        ])  # fmt: skip
        return
    extract = pe.Node(ExtractT1wBrain(template=template_t1w), name="extract_brain", mem_gb=2.0)
    fields = ("t1w_dwi", "mask", "warp", "affine")
    workflow.connect([
        (inputs, extract, [(field, field) for field in fields]),
        (extract, tissues, [("t1w_mask", "t1w_mask")]),
    ])  # fmt: skip


def init_parcellation_wf(
    atlas: str, image: str, table: str, *, name: str = "parcellation_wf"
) -> LiterateWorkflow:
    """Bring one parcellation onto the grid of a diffusion run.

    Parameters
    ----------
    atlas
        Name of the atlas.
    image, table
        Label image in its own space, and its node table.
    name
        Name of the workflow.

    Inputs
    ------
    mask
        Brain mask of the diffusion run; its grid is the target.
    warp, affine
        From the label image's space: both for a template, ``affine`` alone for the T1w, none for
        an image that is in the diffusion data's space already.

    Outputs
    -------
    parcellation
        Label image.
    notes
        Which nodes were lost.

    Examples
    --------
    >>> from pathlib import Path
    >>> from difftract_bids.workflows.anatomical import init_parcellation_wf
    >>> image, table = Path("labels.nii.gz").absolute(), Path("labels.tsv").absolute()
    >>> workflow = init_parcellation_wf("Phantom", str(image), str(table))
    >>> workflow.base_dir = "work"
    >>> workflow.config["execution"]["remove_unnecessary_outputs"] = "false"
    >>> workflow.inputs.inputnode.mask = Path("mask.nii.gz").absolute()
    >>> graph = workflow.run()
    >>> Path("work/parcellation_wf/resample/parcellation.nii.gz").exists()
    True
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Parcellation\n\n"
        f"The parcellation {atlas}{_cited(atlas)} was brought onto the grid of the diffusion data "
        "in one nearest-neighbour interpolation.\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(["mask", "warp", "affine"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["parcellation", "notes"]), name="outputnode")
    resample = pe.Node(
        ResampleParcellation(parcellation=image, table=table), name="resample", mem_gb=1.0
    )
    workflow.connect([
        (inputs, resample, [(name, name) for name in ("mask", "warp", "affine")]),
        (resample, outputs, [("parcellation", "parcellation"), ("notes", "notes")]),
    ])  # fmt: skip
    return workflow


def _cited(name: str) -> str:
    keys = [f"@{key}" for part, key in _CITATIONS.items() if part in name.lower()]
    return f" [{'; '.join(keys)}]" if keys else ""
