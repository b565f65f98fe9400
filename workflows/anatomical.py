"""Parcellations in the space of a diffusion run, through T1w and template where needed."""

from __future__ import annotations

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from difftract_bids.interfaces.anatomical import (
    AlignT1w,
    MakePseudoT1w,
    RegisterTemplate,
    ResampleParcellation,
)

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
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "### Parcellation\n\n"
        f"The template {template}{_cited(template)} was registered to the participant's brain by "
        "an affine and a symmetric diffeomorphic transform [@avants2008].\n\n"
    )
    inputs = pe.Node(niu.IdentityInterface(["anatomy", "mask"]), name="inputnode")
    outputs = pe.Node(niu.IdentityInterface(["warp", "affine"]), name="outputnode")
    register = pe.Node(
        RegisterTemplate(template=template_t1w), name="register", n_procs=omp_nthreads, mem_gb=3.0
    )
    workflow.connect([
        (inputs, register, [("anatomy", "anatomy"), ("mask", "mask")]),
        (register, outputs, [("warp", "warp"), ("affine", "affine")]),
    ])  # fmt: skip
    return workflow


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
