"""A real browser for tests of pages: Chromium without a window, and cut off from any network.

What it answers are lists of faults, in words that find the element in the page: an empty list is
a good page.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

PROGRAMS = ("chromium", "chromedriver")
#: Set where a browser must be there (``.ci/run``): tests then fail without one, and never skip.
REQUIRED = "DIFFTRACT_REQUIRE_BROWSER"
#: Below this width a page is shown as a phone shows it.
PHONE_PX = 600
#: How long to wait for what must come, seconds: a busy machine without a GPU draws slowly.
PATIENCE_S = 120

needs_browser = pytest.mark.skipif(
    any(shutil.which(name) is None for name in PROGRAMS) and not os.environ.get(REQUIRED),
    reason="chromium and chromium-driver are not here",
)

_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-first-run", "--enable-unsafe-swiftshader", "--hide-scrollbars"),
    # What a page asks of a network is counted, and goes nowhere.
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--no-proxy-server"),
)
#: Addresses that are not asked of anybody.
_INWARD = ("file:", "data:", "blob:", "about:", "chrome:")
#: What a page may have the browser read of a disk: itself and its pictures.
_OPENED = ("Document", "Image")
_SCRIPTS = (Path(__file__).with_name("browser.js")).read_text(encoding="utf-8")


@contextmanager
def open_browser(width: int = 1280, height: int = 900, *, dark: bool = False) -> Iterator[Browser]:
    """Start Chromium with a profile of its own, and end it.

    Parameters
    ----------
    width, height
        Of the window, pixels of CSS.
    dark
        Whether its user prefers dark pages.
    """
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.fail(f"no {', '.join(missing)}, which {REQUIRED} asks for")
    # Named, so that selenium looks for none, and on no network.
    service = Service(shutil.which("chromedriver"))
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options=options, service=service)
        driver.set_script_timeout(PATIENCE_S)
        try:
            browser = Browser(driver)
            browser.resize(width, height)
            browser.prefer(dark=dark)
            yield browser
        finally:
            driver.quit()


class Browser:
    """One window, and what its page said and asked for since it was opened.

    Attributes
    ----------
    driver
        Selenium's, for what is not here.
    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self.page = Path()
        self._said: list[dict[str, Any]] = []
        self._asked: list[dict[str, Any]] = []

    def resize(self, width: int, height: int = 900) -> None:
        """Make the window as large; a narrow one is a phone's."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1}
        mobile = {"mobile": width < PHONE_PX}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen | mobile)

    def prefer(self, *, dark: bool, still: bool = True, printed: bool = False) -> None:
        """Prefer dark pages or light ones, and no motion; a page that is open changes at once.

        Parameters
        ----------
        dark
            Whether dark pages are preferred.
        still
            Whether nothing is to move.
        printed
            Whether the page is shown as it would be on paper.
        """
        wanted = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce" if still else ""}
        media = {"features": [wanted, motion], "media": "print" if printed else ""}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def open(self, page: Path) -> Browser:
        """Open a page of this disk by its ``file:`` address, and forget the one before."""
        self.driver.get("about:blank")
        self._read_logs()
        self._said, self._asked = [], []
        self.page = Path(page).resolve()
        self.driver.get(self.page.as_uri())
        return self

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page, which may ``return`` something and ``await``."""
        asked = f"{_SCRIPTS}\nconst done = arguments[arguments.length - 1];\n"
        asked += f"(async (...arguments) => {{ {script} }})(...[...arguments].slice(0, -1))"
        asked += ".then(value => done({value}), error => done({error: String(error.stack)}));"
        answer = self.driver.execute_async_script(asked, *arguments)
        assert "error" not in answer, answer["error"]
        return answer.get("value")

    def find(self, selector: str) -> WebElement:
        """Give the first element of a CSS selector, or fail."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector: str) -> list[WebElement]:
        """Give all elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait_for(self, selector: str, seconds: float = PATIENCE_S) -> WebElement:
        """Wait until there is such an element."""
        return WebDriverWait(self.driver, seconds, 0.05).until(lambda _: self.find_all(selector))[
            0
        ]

    def draw(self, selector: str, seconds: float = PATIENCE_S) -> WebElement:
        """Bring a figure that scripts draw into view and wait until it is there, or fail."""
        figure = self.find(selector)
        wait = WebDriverWait(self.driver, seconds, 0.05)
        state = wait.until(lambda _: self.run("return await drawn(arguments[0]);", figure))
        assert state == "true", figure.text
        return figure

    def console_errors(self) -> list[str]:
        """What was reported as an error: uncaught exceptions, refused loads, policies broken."""
        self._read_logs()
        return [one["message"] for one in self._said if one["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Addresses outside of this machine's files that were asked for, or would have been."""
        urls = (url for url, _ in self._requests())
        return [url for url in urls if not url.startswith(_INWARD)]

    def file_fetches(self) -> list[str]:
        """Files that were read by a script, or as a script or a style, not as page or picture."""
        files = ((url, kind) for url, kind in self._requests() if url.startswith("file:"))
        return [f"{kind}: {url}" for url, kind in files if kind not in _OPENED]

    def broken_images(self) -> list[str]:
        """Pictures that show nothing once the page has been scrolled through."""
        return self.run("await scrollThrough(); return await brokenImages();")

    def broken_links(self) -> list[str]:
        """Links that lead nowhere, or only where the page lies now."""
        links = self.run("return allLinks();")
        here = {link["fragment"]: link["found"] for link in links if link["fragment"]}
        told = ((link["where"], _fault(link["href"], here, self.page)) for link in links)
        outward = [link["href"] for link in links if link["loaded"] and "//" in link["href"]]
        return [f"{where}: {fault}" for where, fault in told if fault] + outward

    def without_alt(self, n_words: int = 3) -> list[str]:
        """Pictures whose text alternative has not so many words that their file's name lacks."""
        told = []
        for picture in self.run("return allPictures();"):
            name = _words(unquote(picture["file"].rsplit("/", 1)[-1]))
            if len(_words(picture["alt"]) - name) < n_words:
                told.append(f"{picture['where']}: {picture['alt']!r}")
        return told

    def overflowing(self) -> list[str]:
        """Elements and words that reach out of the page, unless within a box that scrolls."""
        return self.run("await scrollThrough(); return overflowing();")

    def low_contrast(self, least: float = 4.5) -> list[str]:
        """Text whose contrast with what is behind it is less (WCAG 2.1, 1.4.3)."""
        return self.run("openDetails(); return lowContrast(arguments[0]);", least)

    def without_name(self) -> list[str]:
        """Fields, sliders, lists and buttons of which a screen reader tells no name."""
        return self.run("openDetails(); return unnamedControls();")

    def repeated_ids(self) -> list[str]:
        """Identifiers that several elements have."""
        return self.run("return repeatedIds();")

    def pixels(self, element: WebElement) -> np.ndarray:
        """Take a picture of an element as it is seen, WebGL included: (height, width, 3) uint8."""
        # What is out of sight would be cut off.
        self.run("await bringIntoView(arguments[0]);", element)
        with Image.open(io.BytesIO(element.screenshot_as_png)) as image:
            return np.asarray(image.convert("RGB"))

    def screenshot(self, path: Path) -> Path:
        """Take a picture of the whole page, however long."""
        self.run("await scrollThrough();")
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        asked = {"clip": size | {"scale": 1}, "captureBeyondViewport": True}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", asked)
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    def still_pixels(
        self, element: WebElement, seconds: float = PATIENCE_S, *, unlike: np.ndarray | None = None
    ) -> np.ndarray:
        """Take pictures of an element until two in a row are the same; the last of them.

        What is ``unlike`` is not it: WebGL shows what was drawn some time after it was.
        """
        before = [self.pixels(element)]

        def same(_: Chrome) -> bool:
            before.append(self.pixels(element))
            is_old = unlike is not None and np.array_equal(before[-1], unlike)
            return not is_old and np.array_equal(*before[-2:])

        WebDriverWait(self.driver, seconds, 0.05).until(same)
        return before[-1]

    def to_pdf(self) -> bytes:
        """Print the page: a PDF of A4 sheets."""
        paper = {"paperWidth": 8.27, "paperHeight": 11.69}
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", paper)["data"])

    def hover(self, element: WebElement, x: float, y: float) -> None:
        """Move the pointer over an element: pixels right of and below its upper left corner."""
        left, top = self.run("return await bringIntoView(arguments[0]);", element)
        mouse = ActionBuilder(self.driver)
        mouse.pointer_action.move_to_location(round(left + x), round(top + y))
        mouse.perform()

    def touch(self, element: WebElement, *paths: list[tuple[float, float]]) -> None:
        """Put a finger down for each path, move all along theirs, and lift them.

        Places are pixels right of and below the element's upper left corner.
        """
        left, top = self.run("return await bringIntoView(arguments[0]);", element)
        for step in zip(*paths, strict=True):
            points = [{"x": left + x, "y": top + y, "id": n} for n, (x, y) in enumerate(step)]
            first = step == tuple(path[0] for path in paths)
            self._touch("touchStart" if first else "touchMove", points)
            self.run("await frames(1);")
        self._touch("touchEnd", [])

    def _touch(self, kind: str, points: list[dict[str, float]]) -> None:
        asked = {"type": kind, "touchPoints": points}
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", asked)

    def _read_logs(self) -> None:
        self._said += self.driver.get_log("browser")
        entries = (json.loads(entry["message"]) for entry in self.driver.get_log("performance"))
        self._asked += [entry["message"] for entry in entries]

    def _requests(self) -> list[tuple[str, str]]:
        self._read_logs()
        sent = [one for one in self._asked if one["method"] == "Network.requestWillBeSent"]
        asked = [(one["params"]["request"]["url"], one["params"].get("type", "")) for one in sent]
        sockets = [one for one in self._asked if one["method"] == "Network.webSocketCreated"]
        return asked + [(one["params"]["url"], "WebSocket") for one in sockets]


def _fault(href: str, here: dict[str, bool], page: Path) -> str:
    """Say what is wrong with a link of a page, if anything is."""
    parts = urlsplit(href)
    if parts.scheme == "data":
        return ""
    if parts.scheme in ("http", "https"):
        good = re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc) and not re.search(
            r"\s", href
        )
        return "" if good else f"{href!r} is no address"
    if parts.scheme or parts.netloc or parts.path.startswith("/"):
        return f"{href!r} holds on one machine only"
    target = page.parent / unquote(parts.path) if parts.path else page
    if not target.exists():
        return f"there is no file {unquote(parts.path)!r}"
    if not parts.fragment:
        return ""
    found = (
        here.get(parts.fragment)
        if target == page
        else f'id="{parts.fragment}"' in target.read_text()
    )
    return "" if found else f"nothing in {target.name} has the id {parts.fragment!r}"


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+|\d+", text.lower()))
