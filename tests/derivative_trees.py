"""Derivative trees as QSIPrep, fMRIPrep and FreeSurfer leave them, made of a phantom's truth.

The names are those of the programs' own lists of expected outputs (QSIPrep's
``qsiprep/tests/data/*_outputs.txt``, fMRIPrep's ``.circleci/*_outputs.txt``); the content is
what a program without any error would have found.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813 (its customary name)
from nibabel.affines import apply_affine
from scipy.ndimage import affine_transform

from difftract_bids.io.gradients import GradientTable, read_gradients, write_gradients
from difftract_bids.io.transforms import set_geometry
from difftract_bids.phantom.geometry import Geometry, load_geometry
from difftract_bids.phantom.tissue import Tissue, TissueMap, map_tissue

TEMPLATE = "MNI152NLin2009cAsym"
#: FreeSurfer's numbers for the parts of the phantom: cortex (Desikan-Killiany, without the 1000
#: or 2000 of the side) and nuclei (left, right).
CORTEX = {
    "FrontalPole": 32, "SuperiorFrontal": 28, "MiddleFrontal": 27, "Orbitofrontal": 12,
    "InferiorFrontal": 18, "SupplementaryMotor": 17, "Precentral": 24, "Postcentral": 22,
    "SuperiorParietal": 29, "InferiorParietal": 8, "LateralOccipital": 11, "OccipitalPole": 21,
    "SuperiorTemporal": 30, "InferiorTemporal": 9, "TemporalPole": 33, "Fusiform": 7,
}  # fmt: skip
NUCLEI = {
    "Thalamus": (10, 49),
    "Putamen": (12, 51),
    "Hippocampus": (17, 53),
    "Brainstem": (16, 16),
}
WHITE, GREY, VENTRICLE = (2, 41), (3, 42), (4, 43)
_LPS = nib.orientations.axcodes2ornt("LPS")


def make_qsiprep_tree(
    phantom: Path, out: Path, *, version: str = "1.0.1", old_names: bool = False
) -> Path:
    """Write what QSIPrep leaves of a phantom without motion, distortion or flipped vectors.

    Parameters
    ----------
    phantom
        A phantom dataset.
    out
        Folder to make.
    version
        What its description says.
    old_names
        Whether to use the names of releases before 1.0: ``space-T1w``, ``_confounds``.
    """
    _describe(out, "qsiprep", version, "QSIPrep output", old=old_names)
    space = "T1w" if old_names else "ACPC"
    prefix = "" if old_names else "_space-ACPC"
    for head in heads(phantom):
        anat = _folder(out, head, "anat")
        _save(head.t1w, anat / f"{head.stem}{prefix}_desc-preproc_T1w.nii.gz")
        _write_json(anat / f"{head.stem}{prefix}_desc-preproc_T1w.json", {"SkullStripped": False})
        _save_like(head.t1w, head.brain, anat / f"{head.stem}{prefix}_desc-brain_mask.nii.gz")
        if not old_names:
            _save_like(head.t1w, head.aseg, anat / f"{head.stem}{prefix}_desc-aseg_dseg.nii.gz")
        _save_like(head.t1w, head.dseg, anat / f"{head.stem}{prefix}_dseg.nii.gz")
        _write_transforms(head, anat / f"{head.stem}", space)
        if old_names:
            for tissue, data in head.probseg.items():
                path = anat / f"{head.stem}_label-{tissue}_probseg.nii.gz"
                _save_like(head.t1w, data, path)
        for dwi in head.dwi:
            _write_qsiprep_run(head, dwi, _folder(out, head, "dwi"), space, old_names=old_names)
    return out


def make_fmriprep_tree(
    phantom: Path, out: Path, *, version: str = "24.1.1", kind: str = "fMRIPrep"
) -> Path:
    """Write what fMRIPrep (or sMRIPrep) leaves of a phantom's T1w.

    Parameters
    ----------
    phantom
        A phantom dataset.
    out
        Folder to make.
    version, kind
        What its description says.
    """
    _describe(out, kind, version, f"{kind} - fMRI PREProcessing workflow")
    for head in heads(phantom):
        stem = _folder(out, head, "anat") / head.stem
        _save(head.t1w, stem.with_name(f"{stem.name}_desc-preproc_T1w.nii.gz"), axes=None)
        _write_json(stem.with_name(f"{stem.name}_desc-preproc_T1w.json"), {"SkullStripped": False})
        images = {
            "desc-brain_mask": head.brain,
            "dseg": head.dseg,
            "desc-aseg_dseg": head.aseg,
            "desc-aparcaseg_dseg": head.aparcaseg,
            **{f"label-{tissue}_probseg": data for tissue, data in head.probseg.items()},
        }
        for name, data in images.items():
            path = stem.with_name(f"{stem.name}_{name}.nii.gz")
            _save_like(head.t1w, data, path, axes=None)
        # What lies in template space must not be taken for the participant's own.
        other = stem.with_name(f"{stem.name}_space-{TEMPLATE}_desc-preproc_T1w.nii.gz")
        _save(head.t1w, other, axes=None)
        _write_transforms(head, stem, "T1w")
        rigid = sitk.AffineTransform(3)
        name = f"{stem.name}_from-fsnative_to-T1w_mode-image_xfm.txt"
        sitk.WriteTransform(rigid, str(stem.with_name(name)))
    return out


def make_freesurfer_tree(
    phantom: Path, out: Path, *, version: str = "7.3.2", voxel_size_mm: float = 1.0
) -> Path:
    """Write a SUBJECTS_DIR with the images of ``mri/`` that are used.

    Parameters
    ----------
    phantom
        A phantom dataset.
    out
        Folder to make.
    version
        What the build stamp says.
    voxel_size_mm
        FreeSurfer conforms to 1 mm and 256 voxels along each axis; larger ones are quicker.
    """
    for head in heads(phantom):
        folder = out / head.stem
        (folder / "mri").mkdir(parents=True)
        (folder / "scripts").mkdir()
        stamp = f"freesurfer-linux-ubuntu22_x86_64-{version}-20220804-6354275\n"
        (folder / "scripts" / "build-stamp.txt").write_text(stamp)
        n = round(256 / voxel_size_mm)
        centre = apply_affine(head.t1w.affine, (np.array(head.t1w.shape) - 1) / 2)
        conformed = np.eye(4)
        conformed[:3, :3] = np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]]) * voxel_size_mm
        conformed[:3, 3] = centre - conformed[:3, :3] @ np.full(3, n / 2)
        t1w = head.t1w.get_fdata(dtype=np.float32)
        scale = 110 / np.median(t1w[head.classes == Tissue.WHITE])
        images = {
            "T1": (np.clip(t1w * scale, 0, 255), 1, np.uint8),
            "brainmask": (np.clip(t1w * scale, 0, 255) * head.brain, 1, np.uint8),
            "aparc+aseg": (head.aparcaseg, 0, np.int32),
        }
        to_t1w = np.linalg.inv(head.t1w.affine) @ conformed
        for name, (data, order, kind) in images.items():
            moved = affine_transform(
                np.asarray(data, np.float32), to_t1w, output_shape=(n, n, n), order=order
            )
            image = nib.MGHImage(np.rint(moved).astype(kind), conformed)
            nib.save(image, folder / "mri" / f"{name}.mgz")
    return out


@dataclass(frozen=True)
class TrueHead:
    """One participant and session of a phantom dataset.

    Attributes
    ----------
    phantom
        The dataset.
    stem
        First part of its file names.
    head2ras
        Head axes to scanner axes, millimetres.
    """

    phantom: Path
    stem: str
    head2ras: np.ndarray

    @property
    def folder(self) -> Path:
        """Folder of its raw images."""
        return self.phantom.joinpath(*self.stem.split("_"))

    @cached_property
    def t1w(self) -> nib.Nifti1Image:
        """Its raw T1w."""
        return nib.load(self.folder / "anat" / f"{self.stem}_T1w.nii.gz")

    @property
    def dwi(self) -> list[Path]:
        """Its raw diffusion images."""
        return sorted((self.folder / "dwi").glob("*_dwi.nii.gz"))

    @cached_property
    def geometry(self) -> Geometry:
        """The head in its own axes."""
        return load_geometry()

    @cached_property
    def tissue(self) -> TissueMap:
        """Tissues on the grid of the T1w."""
        vox2head = np.linalg.inv(self.head2ras) @ self.t1w.affine
        return map_tissue(self.geometry, self.t1w.shape[:3], vox2head, samples_per_axis=2)

    @cached_property
    def classes(self) -> np.ndarray:
        """Most of what each voxel of the T1w is."""
        return self.tissue.fractions.argmax(axis=-1)

    @cached_property
    def points_mm(self) -> np.ndarray:
        """Positions of the T1w's voxels, head axes."""
        grid = np.moveaxis(np.indices(self.t1w.shape[:3]), 0, -1)
        return apply_affine(np.linalg.inv(self.head2ras) @ self.t1w.affine, grid)

    @cached_property
    def brain(self) -> np.ndarray:
        """Brain and what fluid is in it."""
        return self.brain_on(self.t1w.affine, self.t1w.shape[:3])

    def brain_on(self, vox2ras: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The same on any grid."""
        grid = np.moveaxis(np.indices(shape), 0, -1).reshape(-1, 3)
        points = apply_affine(np.linalg.inv(self.head2ras) @ vox2ras, grid)
        return (self.geometry.pial.distance_mm(points) < 0.5).reshape(shape)

    @property
    def probseg(self) -> dict[str, np.ndarray]:
        """Tissue probabilities, in the brain."""
        kinds = {"GM": Tissue.GREY, "WM": Tissue.WHITE, "CSF": Tissue.CSF}
        fractions = self.tissue.fractions
        return {name: fractions[..., kind] * self.brain for name, kind in kinds.items()}

    @property
    def dseg(self) -> np.ndarray:
        """Tissue classes by BIDS' numbers: 1 grey, 2 white, 3 fluid."""
        return np.where(self.brain & (self.classes <= Tissue.CSF), self.classes, 0)

    @cached_property
    def aparcaseg(self) -> np.ndarray:
        """FreeSurfer's labels, with the parts of the cortex."""
        labels = self.aseg.copy()
        for parcel in self.geometry.parcels:
            name = parcel.name.partition("-")[2]
            if parcel.kind == "cortex":
                inside = (self.tissue.labels == parcel.index) & np.isin(labels, GREY)
                labels[inside] = CORTEX[name] + (1000 if parcel.hemisphere == "left" else 2000)
        return labels

    @cached_property
    def aseg(self) -> np.ndarray:
        """FreeSurfer's labels, with the cortex of a side in one."""
        right = (self.points_mm[..., 0] >= 0).astype(int)
        labels = np.zeros(self.classes.shape, np.int32)
        for tissue, pair in ((Tissue.WHITE, WHITE), (Tissue.GREY, GREY)):
            labels = np.where(self.classes == tissue, np.take(pair, right), labels)
        fluid = np.argwhere((self.classes == Tissue.CSF) & self.brain)
        inside = [
            ventricle.distance_mm(self.points_mm[tuple(fluid.T)]) < 0
            for ventricle in self.geometry.ventricles
        ]
        voxels = tuple(fluid[np.any(inside, axis=0)].T)
        labels[voxels] = np.take(VENTRICLE, right[voxels])
        # Voxels that are grey by less than half have no parcel: at a nucleus they are its edge.
        loose = (self.classes == Tissue.GREY) & (self.tissue.labels == 0)
        for parcel in self.geometry.parcels:
            if parcel.kind == "nucleus":
                pair = NUCLEI[parcel.name.rpartition("-")[2]]
                here = self.tissue.labels == parcel.index
                here[loose] = parcel.shape.distance_mm(self.points_mm[loose]) < 2.0
                labels[here] = np.take(pair, right)[here]
        return labels * (self.brain | (labels > 0))


def heads(phantom: Path) -> Iterator[TrueHead]:
    """List the participants and sessions of a phantom dataset."""
    truth = phantom / "derivatives" / "truth"
    seen = set()
    for path in sorted(truth.glob("sub-*/**/*_simulation.json")):
        stem = "_".join(part for part in path.name.split("_") if part[:4] in ("sub-", "ses-"))
        if stem not in seen:
            seen.add(stem)
            said = json.loads(path.read_text())
            yield TrueHead(phantom, stem, np.array(said["HeadToRAS"]))


def _write_qsiprep_run(
    head: TrueHead, path: Path, folder: Path, space: str, *, old_names: bool
) -> None:
    """Write one preprocessed series, in LPS+ voxel order as QSIPrep does."""
    raw = nib.load(path)
    stem = path.name.removesuffix("_dwi.nii.gz")
    bval, bvec = (path.with_name(f"{stem}_dwi.{extension}") for extension in ("bval", "bvec"))
    gradients = read_gradients(bval, bvec, raw.affine)
    name = folder / f"{stem}_space-{space}_desc-preproc_dwi"
    image = _save(raw, name.with_name(f"{name.name}.nii.gz"))
    write_gradients(gradients, image.affine, name)
    _write_mrtrix_table(gradients, name.with_name(f"{name.name}.b"))
    sidecar = json.loads(path.with_name(f"{stem}_dwi.json").read_text())
    _write_json(name.with_name(f"{name.name}.json"), sidecar)
    data = image.get_fdata(dtype=np.float32)
    mask = head.brain_on(image.affine, image.shape[:3]).astype(np.uint8)
    begin = f"{stem}_space-{space}"
    _save_array(mask, image.affine, folder / f"{begin}_desc-brain_mask.nii.gz")
    reference = data[..., gradients.b0_mask].mean(axis=-1)
    _save_array(reference, image.affine, folder / f"{begin}_dwiref.nii.gz")
    table = "confounds" if old_names else "desc-confounds_timeseries"
    columns = (
        "framewise_displacement",
        "trans_x",
        "trans_y",
        "trans_z",
        "rot_x",
        "rot_y",
        "rot_z",
    )
    rows = ["\t".join(columns)] + ["\t".join("0" for _ in columns)] * image.shape[3]
    (folder / f"{stem}_{table}.tsv").write_text("\n".join(rows) + "\n")


def _write_mrtrix_table(gradients: GradientTable, path: Path) -> None:
    np.savetxt(path, np.column_stack([gradients.bvecs, gradients.bvals_s_mm2]), fmt="%.8g")


def _write_transforms(head: TrueHead, stem: Path, target: str) -> None:
    """Write the map of the template (the head's own axes, bent a little) and its inverse.

    Each is a composite of an affine part and a field of displacements, in the order in which ANTs
    puts them: ITK applies the last first.
    """
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    lps = flip @ head.head2ras @ flip
    to_t1w = sitk.AffineTransform(3)
    to_t1w.SetMatrix(lps[:3, :3].ravel().tolist())
    to_t1w.SetTranslation(lps[:3, 3].tolist())
    bend = _field()
    # Resampling the T1w onto the template: template points, bent, then into the T1w.
    forward = sitk.CompositeTransform([to_t1w, sitk.DisplacementFieldTransform(bend)])
    unbend = sitk.DisplacementFieldTransform(
        sitk.InvertDisplacementField(_field(), 200, 1e-3, 1e-4)
    )
    backward = sitk.CompositeTransform([unbend, to_t1w.GetInverse()])
    pairs = {(target, TEMPLATE): forward, (TEMPLATE, target): backward}
    for (moving, fixed), transform in pairs.items():
        name = f"{stem.name}_from-{moving}_to-{fixed}_mode-image_xfm.h5"
        sitk.WriteTransform(transform, str(stem.with_name(name)))


def _field() -> sitk.Image:
    """Make a smooth field of displacements of up to 2 mm around the origin."""
    vox2ras = np.diag([8.0, 8.0, 8.0, 1.0])
    vox2ras[:3, 3] = (-112, -112, -112)
    shape = (29, 29, 29)
    x, y, z = np.moveaxis(apply_affine(vox2ras, np.moveaxis(np.indices(shape), 0, -1)), -1, 0)
    waves = np.stack([np.sin(y / 40), np.sin(z / 40), np.sin(x / 40)], axis=-1)
    radius = np.sqrt(x**2 + y**2 + z**2)[..., None]
    vectors = 2.0 * waves * np.clip(1 - radius / 112, 0, 1)
    image = sitk.GetImageFromArray(vectors.transpose(2, 1, 0, 3).copy(), isVector=True)
    set_geometry(image, vox2ras)
    return image


def _describe(out: Path, name: str, version: str, title: str, *, old: bool = False) -> None:
    out.mkdir(parents=True)
    maker = {"Name": name, "Version": version}
    said = {"PipelineDescription": maker} if old else {"GeneratedBy": [maker]}
    base = {"Name": title, "BIDSVersion": "1.4.0", "DatasetType": "derivative"}
    _write_json(out / "dataset_description.json", base | said)


def _folder(out: Path, head: TrueHead, datatype: str) -> Path:
    folder = out.joinpath(*head.stem.split("_"), datatype)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _save(image: nib.Nifti1Image, path: Path, axes: np.ndarray | None = _LPS) -> nib.Nifti1Image:
    """Write an image with its voxels in another order; the same positions in space."""
    if axes is not None:
        own = nib.orientations.io_orientation(image.affine)
        image = image.as_reoriented(nib.orientations.ornt_transform(own, axes))
    nib.save(image, path)
    return image


def _save_like(
    model: nib.Nifti1Image, data: np.ndarray, path: Path, axes: np.ndarray | None = _LPS
) -> None:
    kind = np.float32 if data.dtype.kind == "f" else np.int32 if data.max() > 255 else np.uint8
    _save(nib.Nifti1Image(data.astype(kind), model.affine), path, axes)


def _save_array(data: np.ndarray, affine: np.ndarray, path: Path) -> None:
    nib.save(nib.Nifti1Image(data, affine), path)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
