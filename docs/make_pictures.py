"""The pictures of README and docs: reports of simulated heads, as Chromium shows them.

    python docs/make_pictures.py                # everything
    python docs/make_pictures.py --redraw       # of the data that are there, figures drawn anew
    python docs/make_pictures.py --take-only    # of the pages that are there

It simulates a head as a scanner would see it, and coarser ones for the group, runs the app on
them, and takes pictures of the pages. Data that are in ``--work`` already are not made again. It
needs the development environment, and Debian's ``chromium`` and ``chromium-driver``. The same
heads give the same pictures, but for times and memory. They are nobody's, and can be given to
everybody.
"""

# A script that talks, beside the pages that its pictures are in.
# ruff: noqa: INP001, T201

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
sys.path.insert(0, str(ROOT / "tests"))

from browser import PROGRAMS, Browser, open_browser  # noqa: E402 - it is the tests'

#: Such that what stands beside the list of sections is as wide as a README is shown, 880 pixels.
_WIDTH = 1190
_HEIGHT = 900
_SHARPNESS = 2
_MARGIN = 10
#: Of all pictures together: they are in every clone.
_MOST_BYTES = 1_500_000
#: How long each picture of a flicker is seen, milliseconds.
_FLICKER_MS = 1200

#: A scan of ten minutes of somebody who does not keep quite still. Where the head lies is drawn
#: anew at each volume, so that displacements from one to the next are several times as large.
_HEAD = (
    *("--voxel-size", "2.5", "--t1w-voxel-size", "1.2", "--shells", "1000", "2500"),
    *("--directions", "32", "--n-b0", "6", "--snr", "22", "--motion", "0.1", "0.12"),
    *("--bias", "0.3"),
)
#: Nearly all that a report can show. No template: none looks like a head without folds.
_HEAD_RUN = (
    *("--act", "off", "--n-streamlines", "200000", "--gradient-streamlines", "20000"),
    *("--connectome-measures", "count", "meanlength", "meanfa", "sift2"),
    *("--edge-standard-errors", "--sensitivity", "LH-Precentral-Brainstem"),
    *("--omp-nthreads", "1"),
)
#: How far the head moves between volumes (mm, degrees), and signal over noise, of each person.
_PEOPLE = (
    *((0.02, 0.02, 30), (0.03, 0.04, 28), (0.04, 0.03, 31), (0.05, 0.05, 26), (0.03, 0.02, 29)),
    *((0.06, 0.05, 33), (0.02, 0.03, 30), (0.5, 0.6, 27), (0.04, 0.05, 29), (0.03, 0.04, 12)),
)
_PERSON = ("--voxel-size", "4", "--t1w-voxel-size", "2.5", "--directions", "30", "--n-b0", "4")
_PEOPLE_RUN = ("--n-streamlines", "20000", "--omp-nthreads", "1")

#: Pictures of the subject's page and of the group's: what is in them, as selectors of CSS.
_OF_SUBJECT = {
    "lights": ("main h1", ".verdict", "table.lights"),
    "cost": ('[id$="desc-cost_dwi"] .cost',),
    **{
        name: (f'[id$="desc-{name}_dwi"] img',)
        for name in ("gradients", "motion", "fodf", "tractogram", "nodes", "errors", "sensitivity")
    },
}
_OF_GROUP = {
    "group-quality": ("#distributions .reportlet",),
    "group-outliers": ("#outliers table",),
    "group-mean": ("#atlas-Phantom-mean .reportlet",),
    "group-similarity": ("#atlas-Phantom-similarity svg",),
}
_DRAWN = "[data-ready='true']"
#: They end where a picture ends; words want some paper about them.
_BORDERED = (" img", ".reportlet", ".view3d-plot")


def main() -> None:
    """Make the data if they are not there, and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "pictures")
    parser.add_argument("--redraw", action="store_true", help="draw figures that are there anew")
    parser.add_argument("--take-only", action="store_true", help="of the pages that are there")
    options = parser.parse_args()
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        parser.exit(2, f"Pictures are taken by Chromium: install {' and '.join(missing)}.\n")
    head, people = options.work.resolve() / "head", options.work.resolve() / "people"
    if not options.take_only:
        _make_data(head, people, ("--reports-only",) if options.redraw else ())
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir()
    with open_browser(_WIDTH) as browser:
        _take_of_subject(browser, head / "out" / "sub-01.html")
        _take_of_group(browser, people / "out" / "group.html")
    sizes = {path.name: path.stat().st_size for path in sorted(PICTURES.iterdir())}
    for name, size in sizes.items():
        print(f"{size / 1000:6.0f} kB  {name}")
    if sum(sizes.values()) > _MOST_BYTES:
        parser.exit(1, f"They have {sum(sizes.values()):,} bytes, more than {_MOST_BYTES:,}.\n")


def _make_data(head: Path, people: Path, again: tuple[str, ...]) -> None:
    if not (head / "bids").is_dir():
        _python("difftract_bids.cli.phantom", head / "bids", *_HEAD)
    _run_app(head, *_HEAD_RUN, *again)
    if not (people / "bids").is_dir():
        _simulate_people(people)
    _run_app(people, *_PEOPLE_RUN, *again)
    _python("difftract_bids", people / "bids", people / "out", "group", "-w", people / "work")


def _run_app(folder: Path, *arguments: str) -> None:
    bids = folder / "bids"
    truth = f"Phantom={bids / 'derivatives' / 'truth'}"
    options = ("participant", "-w", folder / "work", "--atlases", truth, "--offline", *arguments)
    _python("difftract_bids", bids, folder / "out", *options)


def _python(module: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    print("$", " ".join(command[1:]), flush=True)
    # A list of arguments and no shell: nothing in a path is interpreted.
    subprocess.run(command, check=True)  # noqa: S603


def _simulate_people(folder: Path) -> None:
    """Simulate each person by settings of their own, and put them into one dataset."""
    drafts = folder / "drafts"
    shutil.rmtree(drafts, ignore_errors=True)
    for number, (shift_mm, turn_deg, snr) in enumerate(_PEOPLE, start=1):
        one, label = drafts / f"{number:02d}", f"sub-{number:02d}"
        own = ("--seed", f"{number}", "--motion", f"{shift_mm}", f"{turn_deg}", "--snr", f"{snr}")
        _python("difftract_bids.cli.phantom", one, *_PERSON, *own)
        for path in sorted(path for path in one.rglob("*") if path.is_file()):
            inside = str(path.relative_to(one)).replace("sub-01", label)
            target = drafts / "all" / inside
            if "sub-" in inside or number == 1:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    rows = [f"sub-{number:02d}\tsimulated\n" for number in range(1, len(_PEOPLE) + 1)]
    table = drafts / "all" / "participants.tsv"
    table.write_text("participant_id\torigin\n" + "".join(rows), encoding="utf-8")
    (drafts / "all").rename(folder / "bids")
    shutil.rmtree(drafts)


def _take_of_subject(browser: Browser, page: Path) -> None:
    browser.open(page).run("await scrollThrough();")
    for name, selectors in _OF_SUBJECT.items():
        _save([_seen(browser, *selectors)], name)
    _save([_pointed_at(browser, "LH-Precentral", "Brainstem")], "matrix")
    _save(_flicker(browser, '[id$="desc-motionflicker_dwi"] .flicker'), "motionflicker")
    _save([_seen(browser, f".view3d{_DRAWN}")], "view3d-controls")
    _resize(browser, 720, _WIDTH + 400)
    for _ in range(2):
        browser.find(".view3d [data-zoom]").click()
    _save([_seen(browser, f".view3d{_DRAWN} .view3d-plot", width=_WIDTH + 400)], "view3d")


def _take_of_group(browser: Browser, page: Path) -> None:
    browser.open(page).run("await scrollThrough();")
    for name, selectors in _OF_GROUP.items():
        _save([_seen(browser, *selectors)], name)


def _seen(browser: Browser, *selectors: str, width: int = _WIDTH) -> Image.Image:
    """Take a picture of all that selectors find, in a window that is high enough for it."""
    top, bottom = _box(browser, *selectors)[1::2]
    _resize(browser, max(_HEIGHT, int(bottom - top) + 4 * _MARGIN), width)
    for _ in range(2):  # what comes near is drawn, and moves what is below
        top = _box(browser, *selectors)[1]
        browser.run("scrollBy({ top: arguments[0], behavior: 'instant' }); await frames(20);", top)
        for selector in selectors:
            browser.wait_for(selector, 60)
    browser.run("scrollBy({ top: -arguments[0], behavior: 'instant' }); await frames(5);", _MARGIN)
    return _cropped(browser, *selectors)


def _cropped(browser: Browser, *selectors: str) -> Image.Image:
    """Cut what selectors find out of what the window shows."""
    left, top, right, bottom = _box(browser, *selectors)
    margin = 0 if selectors[0].endswith(_BORDERED) else _MARGIN
    box = (left - margin, max(top - margin, 0), right + margin, bottom + margin)
    with Image.open(io.BytesIO(browser.driver.get_screenshot_as_png())) as image:
        return image.convert("RGB").crop(tuple(round(_SHARPNESS * edge) for edge in box))


def _box(browser: Browser, *selectors: str) -> tuple[float, float, float, float]:
    """Give left, top, right and bottom of all that selectors find, pixels of the window."""
    found = browser.run(
        """
        const all = arguments[0].map(one => document.querySelector(one));
        const boxes = all.map(one => one.getBoundingClientRect());
        const of = (end, side) => Math[end](...boxes.map(box => box[side]));
        return [of("min", "left"), of("min", "top"), of("max", "right"), of("max", "bottom")];""",
        [selector.replace(_DRAWN, "") for selector in selectors],
    )
    return tuple(found)


def _resize(browser: Browser, height: int, width: int = _WIDTH) -> None:
    screen = {"width": width, "height": height, "deviceScaleFactor": _SHARPNESS}
    told = screen | {"mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", told)
    browser.run("await frames(10);")


def _pointed_at(browser: Browser, one: str, other: str) -> Image.Image:
    """Take a picture of the matrix with the pointer over an edge."""
    matrix = f".matrix-view{_DRAWN}"
    _seen(browser, matrix)
    place = browser.run(
        """
        const script = arguments[0].parentElement.querySelector("script");
        const { names } = JSON.parse(script.textContent);
        const { xaxis, yaxis } = arguments[0]._fullLayout;
        const at = (axis, name) => axis._offset + axis.l2p(names.indexOf(name));
        return [at(xaxis, arguments[2]), at(yaxis, arguments[1])];""",
        browser.find(f"{matrix} .matrix-plot"),
        one,
        other,
    )
    browser.hover(browser.find(f"{matrix} .matrix-plot"), *place)
    browser.wait_for(".matrix-tip:not([hidden])")
    return _cropped(browser, matrix)


def _flicker(browser: Browser, selector: str) -> list[Image.Image]:
    """Take a picture of either state."""
    moving = {"features": [{"name": "prefers-reduced-motion", "value": "no-preference"}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", moving)
    pictures = []
    for which in ("before", "after"):
        browser.run("arguments[0].click();", browser.find(f"{selector} .flicker-choose-{which}"))
        pictures.append(_seen(browser, selector))
    browser.prefer(dark=False)
    return pictures


def _save(pictures: list[Image.Image], name: str) -> None:
    """Save one picture, or several in turn, the way that takes less."""
    options = {"method": 6, "save_all": len(pictures) > 1, "append_images": pictures[1:]}
    options |= {"duration": _FLICKER_MS, "loop": 0} if len(pictures) > 1 else {}
    written = []
    for way in ({"lossless": True}, {"quality": 74}):
        file = io.BytesIO()
        pictures[0].save(file, "WEBP", **options, **way)
        written.append(file.getvalue())
    (PICTURES / f"{name}.webp").write_bytes(min(written, key=len))


if __name__ == "__main__":
    main()
