"""A real browser before the grading page, and what it asked for and said meanwhile."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from lens_hpc.grading.grade_book import GradeBook
from lens_hpc.grading.grade_settings import GradeSettings
from lens_hpc.grading.grading_folder import begin_grading
from lens_hpc.grading.server import GradingServer
from lens_hpc.grading.shown_items import ShownItems
from lens_hpc.layout import grades_file
from tests.conftest import pack_survey, write_survey

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MOSAIC, SINGLE = "mosaic 0", "single i000000"
PATIENCE_SECONDS = 60
EVIL = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 1'>&amp;"
KEPT = ("ra", "dec", "logit", "probability", "field")


@contextmanager
def open_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def make_candidates(folder: Path, rows: int) -> Path:
    """Pack candidates that have scores and positions, and an evil text."""
    numbers = range(rows)
    survey = write_survey(
        folder / "survey",
        rows=rows,
        size=12,
        ra=[f"{150 + 0.01 * i:.4f}" for i in numbers],
        dec=["-1.25"] * rows,
        logit=[f"{9 - 0.01 * i:.4f}" for i in numbers],
        probability=["0.5"] * rows,
        field=[EVIL] * rows,
    )
    recipe = survey / "recipe.yaml"
    features = "features: [radius, colour]"
    recipe.write_text(recipe.read_text().replace(features, f"{features}, keep: {list(KEPT)}"))
    return pack_survey(survey, folder / "candidates", "splits={candidates: 1.0}")


def open_items(candidates: Path, grading: Path, **settings: Any) -> ShownItems:
    given = GradeSettings(candidates=candidates, output=grading, show=("field",), **settings)
    return ShownItems(begin_grading(given))


@contextmanager
def serve(candidates: Path, grading: Path, **settings: Any) -> Iterator[str]:
    """Serve a grading from this process, and yield its address."""
    items = open_items(candidates, grading, **settings)
    server = GradingServer(items, GradeBook(grading, items.record.fingerprint))
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    yield server.address
    server.http.shutdown()
    server.http.server_close()
    thread.join()


class Watched:
    """Windows of one browser that must say nothing, and ask nobody but the grading."""

    def __init__(self, browser: Browser, **settings: Any) -> None:
        self.context: BrowserContext = browser.new_context(**settings)
        self.context.set_default_timeout(1000 * PATIENCE_SECONDS)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.context.on("console", lambda message: self.said.append(message.text))
        self.context.on("weberror", lambda error: self.said.append(str(error.error)))
        self.context.on("request", lambda request: self.asked.append(request.url))

    def open(self, address: str, grader: str = "anna") -> Page:
        """Open a window, and begin by keys alone."""
        window = self.context.new_page()
        window.goto(address)
        wait_for(window, "start")
        window.keyboard.press("Control+a")
        window.keyboard.type(grader)
        window.keyboard.press("Enter")
        window.wait_for_selector("body[data-shown^=mosaic]")
        return window

    def check(self, address: str) -> None:
        """Assert that nothing was said, and nothing asked of others."""
        assert self.said == []
        others = [url for url in self.asked if not url.startswith((address, "data:", "blob:"))]
        assert others == []
        self.context.close()


def wait_for(window: Page, what: str) -> None:
    """Wait until something is drawn, and may be graded."""
    window.wait_for_selector(f'body[data-shown="{what}"]')


def press(window: Page, *keys: str) -> None:
    for key in keys:
        window.keyboard.press(key)


def lines(grading: Path, grader: str = "anna") -> list[dict[str, Any]]:
    file = grades_file(grading, grader)
    # The first line says of which grading they are.
    return [json.loads(line) for line in file.read_text().splitlines()[1:]] if file.exists() else []


def wait_for_lines(grading: Path, count: int, grader: str = "anna") -> list[dict[str, Any]]:
    wait_until(lambda: len(lines(grading, grader)) >= count)
    found = lines(grading, grader)
    assert len(found) == count
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)
