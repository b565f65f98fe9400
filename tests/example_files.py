"""The files that the examples of the package read: a simulated head, and what is made of it.

The docstring of ``difftract_bids.interfaces`` tells readers of them, and how to simulate the head.
"""

from __future__ import annotations

import re
import shlex
import shutil
from contextlib import chdir
from pathlib import Path

import numpy as np

from difftract_bids import interfaces
from difftract_bids.bids.templates import NILEARN_TEMPLATE, template_t1w
from difftract_bids.cli import phantom
from difftract_bids.interfaces.anatomical import AlignT1w
from difftract_bids.interfaces.connectome import BuildConnectome
from difftract_bids.interfaces.diffusion import FitTensor
from difftract_bids.interfaces.fodf import FitFODF
from difftract_bids.interfaces.fsl import PrepareEddy
from difftract_bids.interfaces.motion import FlagOutliers, WriteConfounds
from difftract_bids.interfaces.preprocessing import ComputeBrainMask, ExtractReference
from difftract_bids.interfaces.refinement import RefineFODF
from difftract_bids.interfaces.response import EstimateResponse
from difftract_bids.interfaces.sensitivity import EstimateEdgeErrors, MapSensitivity
from difftract_bids.interfaces.tissue import TissuesFromLabels, UseGivenTransform
from difftract_bids.interfaces.tracking import TrackStreamlines
from difftract_bids.interfaces.weighting import WeighStreamlines
from difftract_bids.io.gradients import read_gradients
from difftract_bids.io.images import Volume, load_volume, save_volume
from difftract_bids.io.transforms import save_linear
from difftract_bids.learn.acquisition import Acquisition
from difftract_bids.learn.architectures import DEFAULT_ARCHITECTURE
from difftract_bids.learn.model_file import save_model
from difftract_bids.learn.network import FODFNetwork, NetworkSettings
from difftract_bids.phantom.settings import PhantomConfig
from difftract_bids.preprocessing.confounds import write_affines
from difftract_bids.preprocessing.registration import register_rigid, resample

SERIES = {"dwi": "dwi.nii.gz", "bval": "dwi.bval", "bvec": "dwi.bvec"}
MASKED = SERIES | {"mask": "mask.nii.gz"}
ATLAS = {"parcellation": "labels.nii.gz", "table": "labels.tsv"}


def write_example_files(folder: Path) -> Path:
    """Make all of them."""
    with chdir(folder):
        _scan()
        _preprocessed()
        _moved()
        _modelled()
        _tracked()
        _anatomy()
        _differentiated()
        _of_eddy()
    return folder


def simulate(page: str, folder: str = "bids", *options: str) -> None:
    """Call difftract-phantom as a page says."""
    (command,) = re.findall(r"^ *difftract-phantom bids (.*)$", page, re.MULTILINE)
    assert phantom.main([folder, *shlex.split(command), *options]) == 0


def link_named(files: Path, text: str, folder: Path) -> None:
    """Link those files into a folder that a text names, and no others: a result must not be one.

    What an example makes is written into the same folder.
    """
    named = set(re.findall(r"[\w.-]+", text))
    for path in files.iterdir():
        if path.name in named and not (folder / path.name).is_symlink():
            (folder / path.name).symlink_to(path)


def _scan() -> None:
    """Simulate the dataset, and a second acquisition that is encoded the opposite way."""
    simulate(interfaces.__doc__)
    simulate(interfaces.__doc__, "again", "--n-runs", "2", "--phase-encoding", "j")
    raw = Path("bids/sub-01")
    for end in ("nii.gz", "bval", "bvec"):
        shutil.copy(raw / f"dwi/sub-01_dwi.{end}", f"raw.{end}")
        shutil.copy(f"raw.{end}", f"dwi.{end}")  # the head kept still
        shutil.copy(f"again/sub-01/dwi/sub-01_run-2_dwi.{end}", f"raw_2.{end}")
    shutil.copy(raw / "anat/sub-01_T1w.nii.gz", "T1w.nii.gz")
    shutil.rmtree("again")
    second = load_volume("raw_2.nii.gz")
    save_volume(second.data[..., 0], second.vox2ras, "epi.nii.gz")
    truth = Path("bids/derivatives/truth/sub-01/dwi")
    for end in ("nii.gz", "tsv"):
        shutil.copy(truth / f"sub-01_atlas-Phantom_dseg.{end}", f"labels.{end}")


def _preprocessed() -> None:
    ExtractReference(**SERIES).run()
    ComputeBrainMask(dwiref="dwiref.nii.gz", meandwi="meandwi.nii.gz").run()
    shutil.copy("mask.nii.gz", "epi_mask.nii.gz")
    grid = load_volume("mask.nii.gz")
    noise_sd = np.full_like(grid.data, 1000 / PhantomConfig().snr)
    save_volume(noise_sd, grid.vox2ras, "noise.nii.gz")
    save_volume(3 * grid.data, grid.vox2ras, "displacement.nii.gz")
    save_volume(10 * grid.data, grid.vox2ras, "field_hz.nii.gz")


def _moved() -> None:
    """Write a motion of the head that was none, but for half a millimetre along z."""
    still = np.tile(np.eye(4)[:3], (len(np.loadtxt("raw.bval")), 1, 1))
    still[20:, 2, 3] = 0.5
    write_affines("affines.txt", still)
    write_affines("rigid.txt", still)
    FlagOutliers(**SERIES, mask="mask.nii.gz").run()
    WriteConfounds(**MASKED, rigid="rigid.txt", outliers="outliers.tsv").run()


def _modelled() -> None:
    FitTensor(**MASKED).run()
    EstimateResponse(**MASKED, model="ss2t").run()
    Path("WM_response.txt").rename("wm.txt")
    Path("CSF_response.txt").rename("csf.txt")
    FitFODF(**MASKED, model="ss2t", response_wm="wm.txt", response_csf="csf.txt").run()
    Path("fodf.nii.gz").rename("wmfod.nii.gz")
    Path("fodf_csf.nii.gz").rename("csffod.nii.gz")
    EstimateResponse(**MASKED, model="csd", response_algorithm="fa").run()
    Path("WM_response.txt").rename("response.txt")
    FitFODF(**MASKED, model="csd", response_wm="response.txt").run()
    gradients = read_gradients("dwi.bval", "dwi.bvec", load_volume("dwi.nii.gz").vox2ras)
    met = Acquisition.of(gradients, load_volume("dwi.nii.gz").vox2ras)
    settings = NetworkSettings(DEFAULT_ARCHITECTURE, met, 4, 4, {"width": 2, "n_blocks": 1})
    save_model(Path("model.safetensors"), FODFNetwork(settings), {"participants": ["07"]})


def _tracked() -> None:
    given = {"fodf": "fodf.nii.gz", "brain_mask": "mask.nii.gz"}
    TrackStreamlines(**given, n_streamlines=2000, images=["fa.nii.gz"], image_names=["fa"]).run()
    WeighStreamlines(**given, tractogram="tractogram.trx").run()
    BuildConnectome(**ATLAS, summary="summary.parquet", connectome_hdf5=True).run()


def _anatomy() -> None:
    """Place the T1w, and a template that others have registered to it."""
    AlignT1w(t1w="T1w.nii.gz", dwiref="dwiref.nii.gz", mask="mask.nii.gz").run()
    template = load_volume(template_t1w(NILEARN_TEMPLATE, Path()), ndim=3)
    coarse = np.diag([4.0, 4, 4, 1])
    coarse[:3, 3] = template.vox2ras[:3, 3]
    small = Volume(resample(template, (50, 59, 48), coarse, []), coarse)
    save_volume(small.data.astype(np.float32), coarse, "template.nii.gz")
    t1w = load_volume("T1w.nii.gz")
    save_linear(register_rigid(t1w, small), "from-template_to-T1w.txt")
    UseGivenTransform(from_template="from-template_to-T1w.txt", t1w_to_dwi="t1w_to_dwi.txt").run()
    truth = load_volume("bids/derivatives/truth/sub-01/dwi/sub-01_desc-tissue_dseg.nii.gz")
    for tissue, name in enumerate(("gm", "wm", "csf"), start=1):
        share = (truth.data == tissue).astype(np.float32)
        save_volume(share, truth.vox2ras, f"{name}_probseg.nii.gz")
    aparcaseg = np.choose(truth.data.astype(int), [0, 1001, 2, 24, 0, 0]).astype(np.int16)
    save_volume(aparcaseg, truth.vox2ras, "aparcaseg.nii.gz")
    TissuesFromLabels(labels="aparcaseg.nii.gz").run()


def _differentiated() -> None:
    scene = SERIES | ATLAS | {"brain_mask": "mask.nii.gz", "fodf": "fodf.nii.gz"}
    scene |= {"response_wm": "response.txt", "model": "csd"}
    few = {"summary": "summary.parquet", "gradient_streamlines": 200}
    MapSensitivity(**scene, **few, edge="total").run()
    EstimateEdgeErrors(**scene, **few, sigma="noise.nii.gz").run()
    RefineFODF(**scene, target="count.dense.tsv", refine_steps=2, refine_seeds=300).run()


def _of_eddy() -> None:
    """Write what eddy would read, and what it would write of a head that did not move."""
    PrepareEddy(
        dwi="raw.nii.gz",
        bval="raw.bval",
        bvec="raw.bvec",
        mask="mask.nii.gz",
        pe_direction="j-",
        readout_s=0.05,
    ).run()
    shutil.copy("eddy_in.nii.gz", "eddy_corrected.nii.gz")
    shutil.copy("eddy_in.bvec", "eddy_corrected.eddy_rotated_bvecs")
    np.savetxt("eddy_corrected.eddy_parameters", np.zeros((len(np.loadtxt("raw.bval")), 16)))
