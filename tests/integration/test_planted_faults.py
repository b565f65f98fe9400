"""What a critical eye would catch: each fault is planted, and its light must turn.

Faults are planted as they happen to people: in the files of a scan that was stopped early, of a
table of another convention, of another program's results. The same head without any is in each
run, so that a light that turns by itself is seen, too.
"""

import re
import shutil
from dataclasses import dataclass
from html import unescape

import nibabel as nib
import numpy as np
import pytest
from apps import copy_participant, make_phantom, run_app
from derivative_trees import heads, make_qsiprep_tree
from nibabel.affines import apply_affine

from difftract_bids.bids.figures import FIGURES
from difftract_bids.checks.table import read_checks

pytestmark = pytest.mark.integration
WORDS = {"bad": "Wrong", "look": "Look"}
#: What a fault of the images or the mask does to all that is made of them later on.
TRACKED = ("streamlines", "connectome")


@dataclass(frozen=True)
class Fault:
    """What is seen of a fault.

    Attributes
    ----------
    check, light
        The light that it turns, and how far.
    remedy
        What of the remedy must be told.
    figure
        Where the row's link leads, and what it shows is on the page.
    follows
        Lights that may turn with it, as what they judge is made of what is at fault.
    """

    check: str
    light: str
    remedy: str
    figure: str
    follows: tuple[str, ...] = ()


#: Participants of a raw dataset, of which motion is not estimated.
RAW = {
    "flipped": Fault("gradients", "bad", "--fix-gradients", "fodf", TRACKED),
    "stopped": Fault("acquisition", "look", "was the scan stopped early", "gradients"),
    "dead": Fault(
        *("acquisition", "bad", "Take the volumes without signal out", "gradients"),
        follows=("noise", "gradients", "anisotropy", *TRACKED),
    ),
    "swapped": Fault("parcellation", "bad", "Left and right do not fit", "nodes"),
    # So much noise that hardly anything is beyond doubt.
    "noisy": Fault(
        *("noise", "bad", "Anisotropy is overestimated", "fa"),
        follows=("gradients", "anisotropy", "coreg", *TRACKED),
    ),
}
#: Participants of the same dataset, of which it is.
MOVED = {"moved": Fault("motion", "bad", "The head moved much", "motion")}
#: Participants with QSIPrep's results.
GIVEN = {
    "shifted": Fault("coreg", "bad", "Look at the edges", "coreg", TRACKED),
    "halved": Fault(
        "mask", "bad", "leaves bright tissue out", "mask", ("coreg", "parcellation", *TRACKED)
    ),
    "skull": Fault("mask", "bad", "more than brain", "mask", TRACKED),
}
FAULTS = RAW | MOVED | GIVEN
_each = pytest.mark.parametrize("fault", FAULTS)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A phantom's copies, all but one with a fault."""
    root = tmp_path_factory.mktemp("planted")
    dataset = make_phantom(root / "bids")
    for label in ("clean", *FAULTS):
        copy_participant(dataset, "01", label)
    table = np.loadtxt(raw(dataset, "flipped", "bvec"))
    table[0] *= -1
    np.savetxt(raw(dataset, "flipped", "bvec"), table, fmt="%.8g")
    _stop_early(dataset, "stopped")
    _empty_volumes(dataset, "dead")
    truth = dataset / "derivatives" / "truth" / "sub-swapped"
    (labels,) = truth.rglob("*_atlas-Phantom_dseg.nii.gz")
    _rewrite(labels, lambda data, _: data[::-1])
    # The same head with a fault of the scan: only its series is another.
    for label, options in {"moved": ("--motion", "2", "2"), "noisy": ("--snr", "3")}.items():
        other = make_phantom(root / label, *options)
        shutil.copy(raw(other, "01"), raw(dataset, label))
    return dataset


@pytest.fixture(scope="module")
def tree(dataset):
    """QSIPrep's results of the copies whose faults are in these."""
    alone = dataset.parent / "alone"
    shutil.copytree(dataset, alone, ignore=shutil.ignore_patterns(*(f"sub-{f}" for f in FAULTS)))
    tree = make_qsiprep_tree(alone, dataset.parent / "qsiprep")
    for label in GIVEN:
        for path in sorted((tree / "sub-clean").rglob("*")):
            copy = tree / str(path.relative_to(tree)).replace("sub-clean", f"sub-{label}")
            if path.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    # Registration of diffusion images and T1w failed: all of the anatomy is elsewhere.
    for path in (tree / "sub-shifted" / "anat").glob("*.nii.gz"):
        image = nib.load(path)
        there = image.affine + np.array([[0, 0, 0, 0], [0, 0, 0, 12], [0, 0, 0, 0], [0, 0, 0, 0]])
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), there), path)
    (head,) = (head for head in heads(alone) if head.stem == "sub-clean")
    for label, is_brain in {
        "halved": lambda points, brain: brain & (points[..., 0] < 0),
        "skull": lambda points, _: head.geometry.pial.distance_mm(points) < 12,
    }.items():
        (mask,) = (tree / f"sub-{label}" / "dwi").glob("*_desc-brain_mask.nii.gz")
        _rewrite(mask, lambda data, points, is_brain=is_brain: is_brain(points, data > 0), head)
    return tree


def raw(dataset, participant, extension="nii.gz"):
    folder = dataset / f"sub-{participant}" / "dwi"
    return folder / f"sub-{participant}_dwi.{extension}"


def _rewrite(path, change, head=None):
    """Change an image's values; with a head, by where in it each voxel is."""
    image = nib.load(path)
    data, points = np.asarray(image.dataobj), None
    if head is not None:
        grid = np.moveaxis(np.indices(data.shape[:3]), 0, -1)
        points = apply_affine(np.linalg.inv(head.head2ras) @ image.affine, grid)
    nib.save(nib.Nifti1Image(change(data, points).astype(data.dtype), image.affine), path)


def _stop_early(dataset, participant):
    """Leave the second half of a scan out, with the b=0 volume that it begins with."""
    _rewrite(raw(dataset, participant), lambda data, _: data[..., : data.shape[3] // 2])
    for extension in ("bval", "bvec"):
        table = np.atleast_2d(np.loadtxt(raw(dataset, participant, extension)))
        np.savetxt(
            raw(dataset, participant, extension), table[:, : table.shape[1] // 2], fmt="%.8g"
        )


def _empty_volumes(dataset, participant, volumes=(5, 20)):
    def emptied(data, _):
        data[..., list(volumes)] = 0
        return data

    _rewrite(raw(dataset, participant), emptied)


def run(dataset, name, labels, *options):
    """Run participants; give the derivatives, and what was said."""
    out = dataset.parent / f"out_{name}"
    truth = f"Phantom={dataset / 'derivatives' / 'truth'}"
    # Streamlines enough to judge; ends are further from parcels where voxels are larger.
    short = ("--sloppy", "--response-algorithm", "fa", "--n-seeds", "6000")
    coarse = ("--assignment-radius", "6", "--atlases", truth, "-w", dataset.parent / "work")
    chosen = ("--participant-label", "clean", *labels)
    done = run_app(dataset, out, "participant", *chosen, *short, *coarse, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


@pytest.fixture(scope="module")
def from_raw(dataset):
    return run(dataset, "raw", RAW)


@pytest.fixture(scope="module")
def from_moved(dataset):
    return run(dataset, "moved", MOVED, "--motion-correction", "dipy")


@pytest.fixture(scope="module")
def from_given(dataset, tree):
    return run(dataset, "given", GIVEN, "--derivatives", f"qsiprep={tree}")


@pytest.fixture(scope="module")
def of_fault(request):
    """Derivatives and terminal of the run that a participant is in."""

    def made(fault):
        runs = {"raw": RAW, "moved": MOVED, "given": GIVEN}
        (name,) = (name for name, faults in runs.items() if fault in faults)
        return request.getfixturevalue(f"from_{name}")

    return made


def checks(out, participant):
    (table,) = (out / f"sub-{participant}" / "dwi").glob("*_desc-checks_quality.tsv")
    return {check.name: check for check in read_checks(table)}


@_each
def test_the_light_of_a_fault_turns(fault, of_fault):
    (out, _), planted = of_fault(fault), FAULTS[fault]
    found = checks(out, fault)[planted.check]
    assert found.light == planted.light, found


@_each
def test_the_other_lights_are_as_without_the_fault(fault, of_fault):
    (out, _), planted = of_fault(fault), FAULTS[fault]
    clean, found = checks(out, "clean"), checks(out, fault)
    own = {planted.check, *planted.follows}
    turned = {name: found[name] for name in found if found[name].light != clean[name].light}
    assert turned.keys() <= own, turned


@_each
def test_the_page_says_what_is_wrong_and_what_to_do_and_leads_to_its_figure(fault, of_fault):
    (out, _), planted = of_fault(fault), FAULTS[fault]
    page, found = (out / f"sub-{fault}.html").read_text(), checks(out, fault)[planted.check]
    (row,) = (
        row
        for row in re.findall(r'<tr class="(\w+)">(.*?)</tr>', page, re.DOTALL)
        if f">{found.title}<" in row[1]
    )
    told = " ".join(unescape(re.sub(r"<[^>]+>", " ", row[1])).split())
    assert row[0] == planted.light
    assert WORDS[planted.light] in told
    assert found.found in told
    assert planted.remedy in told
    (anchor,) = re.findall(r'<a href="#([^"]+)">', row[1])
    assert f"_desc-{planted.figure}_dwi" in anchor
    (part,) = re.findall(rf'id="{anchor}">(.*?)</small>', page, re.DOTALL)
    (picture,) = re.findall(r'<img[^>]* src="([^"]+)"', part)
    assert not FIGURES[planted.figure].is_html
    assert (out / picture).stat().st_size > 10_000
    assert "svg" in (out / picture).read_text()[:500]


@_each
def test_the_terminal_names_it(fault, of_fault):
    (out, said), planted = of_fault(fault), FAULTS[fault]
    word = "Wrong" if planted.light == "bad" else "Look at"
    (named,) = re.findall(rf"{word}: (.*?)\.", line_of(fault, said))
    assert checks(out, fault)[planted.check].title in named.split(", ")


@pytest.mark.parametrize("name", ["raw", "moved", "given"])
def test_nothing_is_said_of_the_one_without_a_fault(name, request):
    out, said = request.getfixturevalue(f"from_{name}")
    lights = {name: check.light for name, check in checks(out, "clean").items()}
    not_judged = set() if name == "moved" else {"motion"}
    assert {name for name, light in lights.items() if light != "good"} == not_judged, lights
    line = line_of("clean", said)
    assert "Wrong" not in line
    assert "Look" not in line


def line_of(participant, said):
    """What the terminal says of a participant in the end."""
    (line,) = re.findall(rf"^sub-{participant}: +done\..*$", said, re.MULTILINE)
    return line
