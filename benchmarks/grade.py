"""How long does a grader wait for a mosaic of 200, from the key to what is drawn?

    python benchmarks/grade.py [objects=400] [repeats=5] [candidates=DATASET] [pictures=docs]

A mock survey from the ground is packed and served by `lens-hpc grade`, and Chromium shows it.
Medians are printed of a stretch that nobody asked for yet, which the server draws; of the next
page, which was asked for while the one before was looked at; and of the next candidate, large and
in all views. `pictures` is a folder for what the how-to page shows; `candidates` is used in place
of a new mock.
"""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import lens_hpc

SEED = 3
PER_PAGE = 200
SHOWN = ["z_phot", "mag"]
WINDOW = {"width": 1280, "height": 800}
PICTURE_SCALE = 0.75
LARGEST_PICTURE = 300_000
# Cells of the first page in which there is something to see, in the mock of 400 objects.
GRADED = {"q": 105, "w": 61, "e": 27, "r": 82}
MARKED = [36, 38, 76, 93, 137, 157, 162, 185]
LARGE = 162
NEXT_FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
LOOK_MILLISECONDS = 3000
LIMIT_SECONDS = 1.0


# ---- candidates, and a server for them ----


def make_candidates(folder: Path, objects: int) -> Path:
    """Pack a mock survey whose scores know a little of the truth, the best first."""
    survey = folder / "survey"
    lens_hpc.simulate(survey, objects=objects, survey="hsc", prevalence=0.25, seed=SEED)
    table = pd.read_csv(survey / "catalogue.csv")
    rng = np.random.default_rng(SEED)
    table["logit"] = rng.normal(0, 1.5, objects) + 2.5 * table["is_lens"]
    table["probability"] = 1 / (1 + np.exp(-table["logit"]))
    table["ra"] = rng.uniform(149.5, 150.7, objects).round(6)
    table["dec"] = rng.uniform(1.6, 2.8, objects).round(6)
    table["z_phot"] = table["photo_z"]
    table["mag"] = table["mag_i"]
    table.to_csv(survey / "catalogue.csv", index=False)

    recipe = (survey / "recipe.yaml").read_text().replace("name: mock", "name: my-survey")
    kept = "".join(f"  - {name}\n" for name in ["logit", "probability", "ra", "dec", *SHOWN])
    (survey / "recipe.yaml").write_text(recipe.replace("  - class\n", f"  - class\n{kept}"))
    candidates = folder / "candidates"
    splits = {"candidates": 1.0}
    lens_hpc.pack(survey / "recipe.yaml", source=survey, output=candidates, splits=splits)
    return candidates


@contextmanager
def serve(candidates: Path, grading: Path) -> Iterator[str]:
    """Start the real command, and yield the address that it prints."""
    command = ["grade", str(candidates), f"output={grading}", f"show={SHOWN}".replace("'", "")]
    server = subprocess.Popen(
        [sys.executable, "-m", "lens_hpc", *command], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    for line in server.stderr:
        if address := re.search(r"http://\S+/", line):
            yield address[0]
            break
    server.terminate()
    server.wait()


# ---- waiting ----


def seconds(window: Page, key: str, what: str) -> float:
    """Return how long it takes from a key until something is drawn."""
    window.evaluate("document.body.dataset.shown = ''")
    began = time.perf_counter()
    window.keyboard.press(key)
    window.wait_for_selector(f'body[data-shown^="{what}"]')
    window.evaluate(NEXT_FRAME)
    return time.perf_counter() - began


def begin(window: Page, address: str) -> None:
    """Give a name, and wait for the first page of the mosaic."""
    window.goto(address)
    window.wait_for_selector('body[data-shown="start"]')
    window.fill("#grader", "anna")
    window.keyboard.press("Enter")
    window.wait_for_selector('body[data-shown^="mosaic"]')


def measure(browser: Browser, address: str, repeats: int) -> dict[str, float]:
    """Return medians in seconds, by what is waited for."""
    times: dict[str, list[float]] = {"the next page": [], "another stretch": [], "a candidate": []}
    for _ in range(repeats):
        # A new window remembers no pictures.
        window = browser.new_page(viewport=WINDOW)
        begin(window, address)
        window.wait_for_timeout(LOOK_MILLISECONDS)
        times["the next page"].append(seconds(window, "PageDown", "mosaic"))
        times["another stretch"].append(seconds(window, "2", "mosaic"))

        window.keyboard.press("m")
        window.wait_for_selector('body[data-shown^="single"]')
        window.wait_for_timeout(LOOK_MILLISECONDS)
        times["a candidate"].append(seconds(window, "ArrowRight", "single"))
        window.close()
    return {what: statistics.median(values) for what, values in times.items()}


# ---- pictures ----


def draw_pictures(window: Page, address: str, folder: Path) -> None:
    """Write what the how-to page shows: a mosaic that is being swept, and one candidate."""
    begin(window, address)
    cells = window.locator(".cell")
    for key, cell in GRADED.items():
        cells.nth(cell).focus()
        window.keyboard.press(key)
    for cell in MARKED:
        cells.nth(cell).click()
    save(window, folder / "grade_mosaic.png")

    window.keyboard.press("Enter")
    for cell in MARKED[: MARKED.index(LARGE)]:
        window.wait_for_selector(f'body[data-shown="single i{cell:06d}"]')
        window.keyboard.press("ArrowRight")
    window.wait_for_selector(f'body[data-shown="single i{LARGE:06d}"]')
    save(window, folder / "grade_single.png")


def save(window: Page, file: Path) -> None:
    """Write a picture of the window, in few colours where it would be large."""
    window.screenshot(path=file)
    if file.stat().st_size > LARGEST_PICTURE:
        with Image.open(file) as picture:
            colours = picture.convert("RGB")
        few = colours.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
        few.save(file, optimize=True)


def main() -> int:
    """Serve a mock, and measure or draw."""
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        given = options.get("candidates")
        objects = int(options.get("objects", 2 * PER_PAGE))
        candidates = Path(given) if given else make_candidates(folder, objects)

        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        with serve(candidates, folder / "grading") as address:
            if "pictures" in options:
                window = browser.new_page(viewport=WINDOW, device_scale_factor=PICTURE_SCALE)
                draw_pictures(window, address, Path(options["pictures"]))
                return 0
            medians = measure(browser, address, int(options.get("repeats", 5)))

    for what, value in medians.items():
        print(f"{what:<16}{value:8.3f} s   limit {LIMIT_SECONDS:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
