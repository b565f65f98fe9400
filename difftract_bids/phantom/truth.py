"""The truth of a phantom, as a derivative dataset that is also an atlas dataset."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from difftract_bids.io.images import save_volume
from difftract_bids.io.matrices import write_matrix
from difftract_bids.phantom.bids import (
    BIDS_VERSION,
    GENERATED_BY,
    file_name,
    write_json,
    write_table,
)
from difftract_bids.phantom.head import Head
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.phantom.tissue import Tissue, TissueMap

ATLAS = "Phantom"
_COLUMNS = {
    "hemisphere": {"Description": "Side of the head: left, right or midline"},
    "kind": {"Description": "Part of the cortex, or a nucleus under it"},
}
_IGNORED = (
    "*_relmat.*",
    "*_tractogram.*",
    "*_bundles.tsv",
    "*_simulation.json",
    "*_displacement.*",
    "*_biasfield.*",
)


def truth_dir(out_dir: Path) -> Path:
    """Give the folder of the truth in a phantom dataset."""
    return out_dir / "derivatives" / "truth"


def write_dataset_files(out_dir: Path) -> None:
    """Write what the truth has at its root."""
    root = truth_dir(out_dir)
    root.mkdir(parents=True)
    write_json(
        root / "dataset_description.json",
        {
            "Name": "True connectome of a simulated head",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "License": "CC0",
            "GeneratedBy": [GENERATED_BY],
            "SourceDatasets": [{"URL": "file://../.."}],
        },
    )
    write_json(
        root / f"atlas-{ATLAS}_description.json",
        {"Name": "Parcellation of the simulated head", "License": "CC0"},
    )
    (root / ".bidsignore").write_text("\n".join(_IGNORED) + "\n", encoding="utf-8")
    (root / "README.md").write_text(
        "# Truth of a simulated head\n\nParcellation, tissues, streamlines and their numbers, "
        "as they were put into the images.\n",
        encoding="utf-8",
    )


def write_session(
    out_dir: Path,
    labels: tuple[str, str],
    head: Head,
    tissue: TissueMap,
    vox2ras: Float[np.ndarray, "4 4"],
) -> None:
    """Write parcellation, tissues, connectome and streamlines of one participant and session.

    They hold for every run: the head's movement is relative to where they show it.
    """
    subject, session = labels
    folder = truth_dir(out_dir) / f"sub-{subject}" / (f"ses-{session}" if session else "") / "dwi"
    folder.mkdir(parents=True)

    def path(suffix: str, **entities: str) -> Path:
        return folder / file_name(subject, session, "", suffix, **entities)

    geometry = head.geometry
    save_volume(tissue.labels, vox2ras, path("dseg.nii.gz", atlas=ATLAS))
    write_json(path("dseg.json", atlas=ATLAS), {"Manual": False, "Atlas": ATLAS, **_COLUMNS})
    write_table(
        path("dseg.tsv", atlas=ATLAS),
        ("index", "name", "hemisphere", "kind"),
        [(p.index, p.name, p.hemisphere, p.kind) for p in geometry.parcels],
    )
    classes = tissue.fractions.argmax(axis=-1).astype(np.int16)
    save_volume(classes, vox2ras, path("dseg.nii.gz", desc="tissue"))
    write_json(path("dseg.json", desc="tissue"), {"Manual": False})
    write_table(
        path("dseg.tsv", desc="tissue"),
        ("index", "name"),
        [(kind.value, kind.name.lower()) for kind in Tissue],
    )
    true = head.true_connectome()
    write_matrix(
        true.weights, list(true.names), path("relmat.dense.tsv", atlas=ATLAS, meas="count")
    )
    write_table(
        path("bundles.tsv", atlas=ATLAS),
        ("name", "from", "to", "count"),
        [(b.name, *b.nodes, n) for b, n in zip(geometry.bundles, head.weights, strict=True)],
    )
    tractogram = nib.streamlines.Tractogram(head.true_streamlines(), affine_to_rasmm=np.eye(4))
    nib.streamlines.save(tractogram, str(path("tractogram.tck", model="truth")))


def write_displacement(
    out_dir: Path,
    labels: tuple[str, str],
    displacement_mm: Float[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
) -> None:
    """Write how far susceptibility displaces the diffusion images of a session at rest.

    Millimetres along the phase-encoding voxel axis, positive towards larger indices: what belongs
    at a voxel lies so far on in the image.
    """
    subject, session = labels
    folder = truth_dir(out_dir) / f"sub-{subject}" / (f"ses-{session}" if session else "") / "dwi"
    name = file_name(subject, session, "", "displacement.nii.gz")
    save_volume(displacement_mm.astype(np.float32), vox2ras, folder / name)


def write_bias(
    out_dir: Path,
    labels: tuple[str, str],
    field: Float[np.ndarray, "x y z"],
    vox2ras: Float[np.ndarray, "4 4"],
) -> None:
    """Write what the diffusion images of a session were multiplied by."""
    subject, session = labels
    folder = truth_dir(out_dir) / f"sub-{subject}" / (f"ses-{session}" if session else "") / "dwi"
    name = file_name(subject, session, "", "biasfield.nii.gz")
    save_volume(field.astype(np.float32), vox2ras, folder / name)


def write_run(
    out_dir: Path,
    labels: tuple[str, str, str],
    head: Head,
    motion: Float[np.ndarray, "volume 4 4"],
    config: PhantomConfig,
) -> None:
    """Write what was done to one run: noise, position, movement and flipped gradients."""
    subject, session, run = labels
    folder = truth_dir(out_dir) / f"sub-{subject}" / (f"ses-{session}" if session else "") / "dwi"
    angles = Rotation.from_matrix(motion[:, :3, :3]).as_euler("xyz", degrees=True)
    write_json(
        folder / file_name(subject, session, run, "simulation.json"),
        {
            "SNR": config.snr if np.isfinite(config.snr) else None,
            "Seed": config.seed,
            "FlippedBvecAxes": config.flip,
            "BvecAxesOrder": config.permute,
            "BiasStrength": config.bias,
            "LargestDisplacementMM": config.distortion_mm,
            "PhaseEncodingDirection": config.phase_encoding,
            "HeadToRAS": np.round(head.head2ras, 6).tolist(),
            "MotionTranslationMM": np.round(motion[:, :3, 3], 4).tolist(),
            "MotionRotationDeg": np.round(angles, 4).tolist(),
        },
    )
