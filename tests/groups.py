"""Derivatives folders of made-up participants, for what is done with many of them."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np

from difftract_bids.io.matrices import write_matrix

MEASURES = ("count", "meanlength", "meanfa", "meanmd")
#: Participants of a large group whose files are made; the others are copies of them.
N_DISTINCT = 40


def node_names(n_nodes):
    """Name nodes, half of them on either side."""
    return [f"{'L' if i < n_nodes // 2 else 'R'}_node{i:03d}" for i in range(n_nodes)]


def symmetric(upper):
    """Mirror what is above the diagonal."""
    return np.triu(upper) + np.triu(upper, 1).T


def write_connectome(
    out,
    participant,
    matrix,
    *,
    names=None,
    session=None,
    run=None,
    atlas="A",
    measure="count",
    **sidecar,
):
    """Write one matrix and its sidecar as the participant level does."""
    folder, stem = place(out, participant, session, run)
    names = node_names(len(matrix)) if names is None else names
    name = f"{stem}_atlas-{atlas}_meas-{measure}_relmat"
    write_matrix(np.asarray(matrix, dtype=float), names, folder / f"{name}.dense.tsv")
    content = {
        "Atlas": atlas,
        "Assignment": {"Mode": "radial_search", "RadiusMM": 4.0},
        "MeasureDescription": f"The {measure} of an edge",
        "Units": {"count": "count", "meanlength": "mm"}.get(measure, "arbitrary"),
        "StreamlineWeighting": "none",
        "ValidDiagonal": True,
    }
    (folder / f"{name}.json").write_text(json.dumps(content | sidecar))
    return folder / f"{name}.dense.tsv"


def place(out, participant, session=None, run=None):
    """Make the folder of a run, and give it with what its files' names begin with."""
    folder = out / f"sub-{participant}"
    stem = f"sub-{participant}"
    if session:
        folder, stem = folder / f"ses-{session}", f"{stem}_ses-{session}"
    if run:
        stem += f"_run-{run}"
    folder = folder / "dwi"
    folder.mkdir(parents=True, exist_ok=True)
    return folder, stem


def write_quality(
    out,
    participant,
    *,
    session=None,
    run=None,
    moved_mm=(0.2, 0.4),
    shape=(6, 6, 6),
    voxel_mm=2.0,
    fa=0.4,
    sigma=10.0,
    seeds=1000,
    streamlines=100,
    mask=None,
):
    """Write what quality is measured on: confounds, outliers, images, sidecar of streamlines.

    One of the slices of the last volume fell out. The mask is all but the outermost voxels, if
    none is given.
    """
    folder, stem = place(out, participant, session, run)
    rows = ["framewise_displacement\tbval", "n/a\t0", *(f"{mm}\t1000" for mm in moved_mm)]
    (folder / f"{stem}_desc-confounds_timeseries.tsv").write_text("\n".join(rows) + "\n")
    volumes = "\t".join(f"volume_{i}" for i in range(len(moved_mm) + 1))
    slices = ["\t".join(["0"] * len(moved_mm) + ["1" if k == 0 else "0"]) for k in range(5)]
    outliers = "\n".join([volumes, *slices]) + "\n"
    (folder / f"{stem}_desc-outliers_timeseries.tsv").write_text(outliers)
    if mask is None:
        mask = np.zeros(shape, bool)
        mask[1:-1, 1:-1, 1:-1] = True
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    for ending, data in (
        ("desc-brain_mask", mask.astype(np.uint8)),
        ("model-tensor_param-fa_dwimap", np.where(mask, fa, 0).astype(np.float32)),
        ("param-sigma_desc-noise_dwimap", np.where(mask, sigma, 0).astype(np.float32)),
    ):
        nib.save(nib.Nifti1Image(data, affine), folder / f"{stem}_{ending}.nii.gz")
    counts = {"Counts": {"Seeds": seeds, "Streamlines": streamlines}}
    (folder / f"{stem}_model-sdstream_tractogram.json").write_text(json.dumps(counts))


def write_large_group(out, n_participants, *, n_nodes, shape, sessions=(None,), seed=0):
    """Write many participants with all measures and images; after the first few, they are links.

    Images are noise within a third of their voxels, as hard to decompress as real ones.
    """
    rng = np.random.default_rng(seed)
    usual = rng.lognormal(2.0, 1.5, (n_nodes, n_nodes))
    often = rng.beta(0.5, 0.8, (n_nodes, n_nodes))
    brain = np.zeros(shape, bool)
    brain[tuple(slice(n // 6, n - n // 6) for n in shape)] = True
    made = [f"{i:04d}" for i in range(min(N_DISTINCT, n_participants))]
    for participant in made:
        for session in sessions:
            there = symmetric(rng.random((n_nodes, n_nodes)) < often)
            counts = symmetric(np.ceil(usual * rng.lognormal(0, 0.4, usual.shape)) * there)
            for measure in MEASURES:
                values = counts
                if measure != "count":
                    values = symmetric(rng.normal(0.5, 0.05, usual.shape)) * there
                write_connectome(out, participant, values, session=session, measure=measure)
            write_quality(
                out,
                participant,
                session=session,
                moved_mm=rng.gamma(2.0, 0.1, 64),
                shape=shape,
                mask=brain,
                fa=rng.normal(rng.normal(0.4, 0.01), 0.1, shape),
                sigma=rng.normal(rng.normal(30, 1), 3, shape),
                streamlines=int(counts.sum()),
            )
    for i in range(len(made), n_participants):
        for source in (out / f"sub-{made[i % len(made)]}").rglob("*"):
            if source.is_file():
                relative = str(source.relative_to(out)).replace(made[i % len(made)], f"{i:04d}")
                target = out / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(source)
