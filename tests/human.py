"""A human subject's tensor maps, streamlines and parcellation, as files that MRtrix3 reads, too.

Each is made once in a session, beside the fODF of :func:`mrtrix.human_scene`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import real_data
from mrtrix import Scene, alone, human_scene, run_mrtrix
from scipy.special import expit

from difftract_bids.bids.nodes import load_labels, read_nodes
from difftract_bids.io.images import Volume, load_volume, save_volume
from difftract_bids.preprocessing.parcellation import parcellation_in_dwi
from difftract_bids.preprocessing.registration import pseudo_t1w, register_affine

DATASET = "ds-human-3mm"
ATLAS = "Schaefer100TianS1"
TEMPLATE = "tpl-MNI152NLin2009cAsym"


@dataclass(frozen=True)
class HumanStreamlines:
    """Streamlines that tckgen made, and a parcellation.

    Attributes
    ----------
    tck, nodes
        Their files.
    fod
        The fODF that was tracked in.
    labels, vox2ras
        The parcellation in memory.
    """

    tck: Path
    nodes: Path
    fod: Path
    labels: torch.Tensor
    vox2ras: torch.Tensor


def human_streamlines(folder: Path) -> HumanStreamlines:
    """Track in a real brain and label it; skips the test where there are no real data."""
    scene = human_scene(DATASET, folder)
    nodes = nodes_of(scene)
    labels, vox2ras = load_volume(nodes, ndim=3, dtype=np.int32)
    return HumanStreamlines(
        streamlines_of(scene),
        nodes,
        scene.fod_file,
        torch.from_numpy(labels),
        torch.from_numpy(vox2ras),
    )


def streamlines_of(scene: Scene, n_streamlines: int = 25_000) -> Path:
    """Track all of a brain with SD_STREAM, on one thread: the same streamlines every time.

    Short ones are kept, too: the values along them are of few vertices.
    """

    def track(tck: Path) -> None:
        run_mrtrix(
            *("tckgen", "-algorithm", "SD_STREAM", scene.fod_file, tck, "-quiet", "-force"),
            *("-seed_image", scene.mask_file, "-select", n_streamlines, "-minlength", 3),
            *("-nthreads", 0),
        )

    return _once(scene, f"{n_streamlines}.tck", track)


def tensor_map_of(scene: Scene, name: str) -> Path:
    """Let MRtrix make the image of ``fa`` or ``adc`` of the series that an fODF is of."""
    tensor = _once(scene, "tensor.nii.gz", lambda path: _fit_tensor(scene, path))
    return _once(
        scene,
        f"{name}.nii.gz",
        lambda path: run_mrtrix(
            *("tensor2metric", tensor, f"-{name}", path, "-mask", scene.mask_file, "-quiet")
        ),
    )


def tissues_of(scene: Scene) -> Path:
    """Guess fractions of tissue from tensor maps; grey matter in the middle is deep.

    On a finer grid. Not where tissue is, but mixed and rough like it, to compare two programs.
    """

    def guess(path: Path) -> None:
        fa, md = (load_volume(tensor_map_of(scene, name), ndim=3).data for name in ("fa", "adc"))
        fluid, white = expit((md - 1.6e-3) / 2e-4), expit((fa - 0.2) / 0.04)
        index = np.stack(np.meshgrid(*map(np.arange, fa.shape), indexing="ij"), axis=-1)
        inside = index[scene.mask.numpy()]
        place = (index - inside.mean(0)) / inside.std(0)
        middle = expit((0.9 - np.linalg.norm(place, axis=-1)) / 0.1)
        grey = (1 - fluid) * (1 - white)
        parts = [grey * (1 - middle), grey * middle, (1 - fluid) * white, fluid, 0 * fluid]
        tissues = np.stack(parts, axis=-1) * scene.mask.numpy()[..., None]
        finer = scene.vox2ras.numpy().copy()
        finer[:3, :3] /= 2
        tissues = np.clip(zoom_by_two(tissues), 0, 1)
        total = tissues.sum(-1, keepdims=True)
        tissues = np.where(total > 0.5, tissues / np.maximum(total, 0.5), 0)
        save_volume(tissues.astype(np.float32), finer, path)

    return _once(scene, "5tt.nii.gz", guess)


def zoom_by_two(image: np.ndarray) -> np.ndarray:
    """Interpolate an image between its voxels, twice as many along each of the first axes."""
    for axis in range(3):
        after = np.concatenate([np.delete(image, 0, axis), np.take(image, [-1], axis)], axis)
        both = np.stack([image, (image + after) / 2], axis + 1)
        shape = list(image.shape)
        shape[axis] *= 2
        image = both.reshape(shape)
    return image


def nodes_of(scene: Scene) -> Path:
    """Bring the atlas to a brain by an affine map, which is quick.

    The labels need not lie where they belong: each is on the brain's surface or in its middle.
    """
    return _once(scene, f"{ATLAS}.nii.gz", lambda path: _resample_atlas(scene, path))


def _resample_atlas(scene: Scene, to: Path) -> None:
    data = real_data()
    atlas = data / "atlases" / TEMPLATE / f"{TEMPLATE}_atlas-{ATLAS}"
    t1w = data / "templateflow" / TEMPLATE / f"{TEMPLATE}_res-02_desc-brain_T1w.nii.gz"
    vox2ras, mask = scene.vox2ras.numpy(), scene.mask.numpy()
    fa, md = (load_volume(tensor_map_of(scene, name), ndim=3).data for name in ("fa", "adc"))
    to_template = register_affine(
        Volume(pseudo_t1w(fa, md, mask), vox2ras), load_volume(t1w, ndim=3), fixed_mask=mask
    )
    labels, lost = parcellation_in_dwi(
        load_labels(Path(f"{atlas}_res-02_dseg.nii.gz")),
        read_nodes(Path(f"{atlas}_dseg.tsv")),
        Volume(mask, vox2ras),
        [to_template],
    )
    assert not lost
    save_volume(labels, vox2ras, to)


def _fit_tensor(scene: Scene, to: Path) -> None:
    series = scene.fod_file.with_name("dwi.mif")
    run_mrtrix("dwi2tensor", series, to, "-mask", scene.mask_file, "-quiet")


def _once(scene: Scene, name: str, make: Callable[[Path], object]) -> Path:
    """Make a file unless it is there; one half made is never found under its name."""
    path = scene.fod_file.with_name(name)
    with alone(path):
        if not path.exists():
            aside = path.with_name(f"aside_{name}")
            make(aside)
            aside.rename(path)
    return path
