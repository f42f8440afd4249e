"""The grading page in a real browser: by keys alone, at both widths, and nothing is ever lost."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route

from lens_hpc.grading.embed import write_page
from lens_hpc.grading.grade_files import read_grades
from tests.grading.browsers import (
    CHROMIUM,
    EVIL,
    MOSAIC,
    SINGLE,
    Watched,
    lines,
    make_candidates,
    open_browser,
    open_items,
    press,
    serve,
    wait_for,
    wait_for_lines,
    wait_until,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is missing: apt-get install chromium"),
]
ALL = 1000
ONE_BY_ONE = ALL if os.environ.get("LENS_HPC_LONG") else 15
LETTERS = {"q": "A", "w": "B", "e": "C", "r": "X"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_candidates(tmp_path_factory.mktemp("page"), ALL)


@pytest.fixture
def grading(tmp_path: Path) -> Path:
    return tmp_path / "grading"


@pytest.fixture
def address(candidates: Path, grading: Path) -> Iterator[str]:
    """Of a grading of ten candidates."""
    with serve(candidates, grading, limit=10) as address:
        yield address


@pytest.fixture
def windows(browser: Browser, address: str) -> Iterator[Watched]:
    watched = Watched(browser, viewport={"width": 1280, "height": 800})
    yield watched
    watched.check(address)


def graded(grading: Path, count: int) -> dict[str, str]:
    """Wait for so many lines, and return the grade of each item that they are of."""
    return {line["item"]: line["grade"] for line in wait_for_lines(grading, count)}


def notice(window: Page) -> str:
    return window.locator("#notice").inner_text() if window.locator("#notice").is_visible() else ""


# ---- the way through ----


def test_a_thousand_candidates_by_keys_alone(
    browser: Browser, candidates: Path, grading: Path
) -> None:
    with serve(candidates, grading) as address:
        watched = Watched(browser, viewport={"width": 1280, "height": 800})
        window = watched.open(address)
        assert window.locator(".cell").count() == 200

        # The second, and the one below the third: 20 cells stand in a row.
        press(window, "ArrowRight", " ", "ArrowRight", "ArrowDown", " ", "Enter")
        wait_for(window, "single i000001")
        press(window, "w")
        wait_for(window, "single i000022")
        press(window, "s", "q")
        for first in range(200, ALL, 200):
            wait_for(window, f"mosaic {first}")
            press(window, "Enter")
        window.wait_for_selector("text=All are graded")

        found = wait_for_lines(grading, ALL)
        assert sorted(line["item"] for line in found) == [f"i{i:06d}" for i in range(ALL)]
        assert {line["item"]: line["grade"] for line in found if line["grade"] != "X"} == {
            "i000001": "B",
            "i000022": "A",
        }
        assert [line["class"] for line in found if line["item"] == "i000022"] == ["spiral"]
        assert {line["view"] for line in found} == {"mosaic", "single"}
        watched.check(address)


def test_one_by_one_in_order(browser: Browser, candidates: Path, grading: Path) -> None:
    with serve(candidates, grading, limit=ONE_BY_ONE) as address:
        watched = Watched(browser)
        window = watched.open(address)
        press(window, "m")
        expected = []
        for i in range(ONE_BY_ONE):
            wait_for(window, f"single i{i:06d}")
            key = "qwer"[i % 4]
            press(window, key)
            expected.append((f"i{i:06d}", LETTERS[key]))

        wait_for(window, f"mosaic {ONE_BY_ONE - 1 - (ONE_BY_ONE - 1) % 200}")
        found = wait_for_lines(grading, ONE_BY_ONE)
        assert [(line["item"], line["grade"]) for line in found] == expected
        assert all(0 <= line["seconds"] < 60 for line in found)
        watched.check(address)


def test_undo_takes_back_a_grade_or_a_page(windows: Watched, address: str, grading: Path) -> None:
    window = windows.open(address)
    press(window, "q", "w", "u")
    assert graded(grading, 3) == {"i000000": "A", "i000001": None}

    wait_for(window, MOSAIC)
    press(window, " ", "Enter")
    wait_for(window, "single i000001")
    assert list(graded(grading, 11).values()) == ["A", None, *["X"] * 8]
    press(window, "u")
    wait_for(window, MOSAIC)
    assert list(graded(grading, 19).values()) == ["A", *[None] * 9]
    assert window.locator('.cell[data-grade="X"]').count() == 0
    assert window.locator('.cell[aria-pressed="true"]').count() == 1

    press(window, "u")
    assert graded(grading, 20)["i000000"] is None
    press(window, "u")
    assert notice(window) == "Nothing to undo in this window."


def test_classes_and_notes_go_with_the_grade_or_follow_it(
    windows: Watched, address: str, grading: Path
) -> None:
    window = windows.open(address)
    press(window, "m")
    wait_for(window, SINGLE)

    # Letters of a note are no grades.
    press(window, "n")
    window.keyboard.type("queer arc")
    press(window, "Enter", "a", "q")
    wait_for(window, "single i000001")
    press(window, "ArrowLeft")
    wait_for(window, SINGLE)
    assert window.locator("#note").input_value() == "queer arc"
    press(window, "h")
    assert window.locator('#classes [aria-pressed="true"]').inner_text().split()[0] == "other"

    # What is being written belongs to this one, also where a click leaves the focus (Safari).
    window.locator("#note").fill("no arc")
    window.locator('aside [data-key="ArrowRight"]').evaluate("button => button.click()")
    wait_for(window, "single i000001")
    assert window.locator("#note").input_value() == ""

    found = wait_for_lines(grading, 3)
    assert {line["item"] for line in found} == {"i000000"}
    assert [(line["grade"], line["class"], line["note"]) for line in found] == [
        ("A", "ring", "queer arc"),
        ("A", "other", "queer arc"),
        ("A", "other", "no arc"),
    ]


def test_a_click_elsewhere_leaves_keys_with_their_cell(
    windows: Watched, address: str, grading: Path
) -> None:
    window = windows.open(address)
    press(window, "ArrowRight")
    window.locator('header [data-key="?"]').click()
    press(window, "q", "Escape", " ")
    assert window.locator('.cell[aria-pressed="true"]').count() == 1
    press(window, "w")
    assert graded(grading, 1) == {"i000001": "B"}

    # The keys of a button that somebody went to by tab are its own.
    window.locator('#mosaic [data-key="u"]').focus()
    press(window, "Enter")
    wait_for_lines(grading, 2)
    assert graded(grading, 2) == {"i000001": None}


def test_a_key_that_is_held_down_grades_one(windows: Watched, address: str, grading: Path) -> None:
    window = windows.open(address)
    for _ in range(5):
        window.keyboard.down("q")
    window.keyboard.up("q")
    press(window, "w")
    assert graded(grading, 2) == {"i000000": "A", "i000001": "B"}


def test_nothing_is_graded_before_it_is_drawn(
    windows: Watched, address: str, grading: Path
) -> None:
    window = windows.open(address)
    held: list[Route] = []
    windows.context.route("**/cutout/i000001.png*", lambda route: held.append(route))
    press(window, "m")
    wait_for(window, SINGLE)
    press(window, "q", "q", "w", "e")
    assert list(graded(grading, 1)) == ["i000000"]

    for route in held:
        route.continue_()
    wait_for(window, "single i000001")
    press(window, "w")
    assert graded(grading, 2) == {"i000000": "A", "i000001": "B"}


# ---- what is shown ----


def test_a_candidate_is_shown_whole_and_its_text_is_text(windows: Watched, address: str) -> None:
    window = windows.open(address)
    press(window, "m")
    wait_for(window, SINGLE)

    facts = window.locator("#facts dd").all_inner_texts()
    assert facts == ["i000000", *facts[1:2], "0.5", facts[3], "-1.250000°", EVIL]
    assert window.evaluate("window.evil") is None
    assert window.locator("#shots button").all_inner_texts() == ["asinh", "log", "sqrt", "g", "r"]

    links = window.locator("#links a")
    assert links.all_inner_texts() == ["Legacy Survey", "Aladin Lite", "NED"]
    for link in links.all():
        assert link.get_attribute("target") == "_blank"
        assert link.get_attribute("rel") == "noopener noreferrer"
        href = link.get_attribute("href") or ""
        assert facts[3].removesuffix("°").rstrip("0") in href
        assert "-1.25" in href


def test_views_and_zoom(windows: Watched, address: str) -> None:
    window = windows.open(address)
    press(window, "m")
    wait_for(window, SINGLE)
    picture = "document.getElementById('cutout').toDataURL()"
    bar = "#scale"

    asinh = window.evaluate(picture)
    press(window, "5")
    window.wait_for_selector('#shots [value="r"][aria-pressed="true"]')
    assert window.evaluate(picture) != asinh

    # 12 pixels of 0.2 arcsec.
    side = window.locator("#stage").bounding_box()["width"]
    assert window.locator(bar).inner_text() == "0.5″"
    assert window.locator(bar).bounding_box()["width"] == pytest.approx(side * 0.5 / 2.4, rel=0.01)
    press(window, "+", "+")
    assert window.locator(bar).inner_text() == "0.2″"
    assert "scale(2.25)" in window.locator("#cutout").get_attribute("style")
    press(window, "0")
    window.locator("#stage").hover()
    window.mouse.wheel(0, -100)
    window.wait_for_function(
        "() => document.querySelector('#cutout').style.transform.includes('1.2')"
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_both_widths_and_fingers(
    browser: Browser, address: str, grading: Path, width: int
) -> None:
    size = {"width": width, "height": 844}
    watched = Watched(browser, viewport=size, has_touch=True)
    window = watched.open(address)
    wide = "document.documentElement.scrollWidth"
    assert window.evaluate(wide) <= width
    assert window.locator(".cell").first.bounding_box()["width"] >= 44

    window.locator(".cell").nth(3).tap()
    window.locator("#finish").tap()
    wait_for(window, "single i000003")
    assert window.evaluate(wide) <= width
    for key in ("q", "r", "a", "h"):
        window.locator(f'aside [data-key="{key}"]').scroll_into_view_if_needed()
        assert window.locator(f'aside [data-key="{key}"]').is_visible()
    window.locator('[data-key="?"]').first.tap()
    assert window.locator("#help").is_visible()
    assert window.evaluate(wide) <= width
    window.locator('#help [data-key="?"]').tap()

    window.locator('aside [data-key="q"]').tap()
    wait_for(window, MOSAIC)
    assert graded(grading, 10)["i000003"] == "A"
    watched.check(address)


# ---- nothing is lost ----


def test_a_reload_goes_on_with_grades_and_marks(
    windows: Watched, address: str, grading: Path
) -> None:
    window = windows.open(address)
    press(window, "q", "w", " ")
    wait_for_lines(grading, 2)
    window.reload()
    wait_for(window, "start")

    # The name is remembered.
    press(window, "Enter")
    wait_for(window, MOSAIC)
    assert window.locator("#count").inner_text() == "2 of 10 graded"
    assert window.locator('.cell[aria-pressed="true"]').count() == 1
    press(window, "e")
    assert graded(grading, 3) == {"i000000": "A", "i000001": "B", "i000002": "C"}


def test_two_windows_of_a_grader_know_of_each_other(
    windows: Watched, address: str, grading: Path
) -> None:
    one, two = windows.open(address), windows.open(address)
    press(one, "q")
    two.wait_for_selector('.cell[data-grade="A"]')
    press(two, "ArrowRight", "w", " ")
    one.wait_for_selector('.cell[data-grade="B"]')
    one.wait_for_selector('.cell[aria-pressed="true"]')

    other = windows.open(address, "ben")
    press(other, "r")
    found = wait_for_lines(grading, 2)
    assert [(line["item"], line["grade"]) for line in found] == [("i000000", "A"), ("i000001", "B")]
    assert len({line["window"] for line in found}) == 2
    assert wait_for_lines(grading, 1, "ben")[0]["grade"] == "X"
    assert other.locator('.cell[data-grade="A"]').count() == 0


def start_command(candidates: Path, grading: Path, port: int = 0) -> tuple[subprocess.Popen, str]:
    """Start the real command, and return it with the address that it prints."""
    command = [sys.executable, "-m", "lens_hpc", "grade", str(candidates), f"output={grading}"]
    process = subprocess.Popen([*command, f"port={port}"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://\S+/", line):
            return process, found[0]
    raise AssertionError("it printed no address")


def test_grades_outlive_a_killed_server(browser: Browser, candidates: Path, grading: Path) -> None:
    server, address = start_command(candidates, grading)
    watched = Watched(browser)
    window = watched.open(address)
    press(window, "q")
    wait_for_lines(grading, 1)
    wait_until(lambda: window.evaluate("kept.names(LINE).length") == 0)
    server.send_signal(signal.SIGKILL)
    server.wait()

    press(window, "w", "e")
    window.wait_for_selector("#notice >> text=kept in this browser until then: 2")
    port = int(address.split(":")[2].split("/")[0])
    assert f"port={port}" in notice(window)

    server, new_address = start_command(candidates, grading, port)
    try:
        window.wait_for_selector("#notice >> text=started anew")
        with window.expect_download() as download:
            window.locator("#save").click()
        assert download.value.suggested_filename == "anna.jsonl"
        assert len(download.value.path().read_text().splitlines()) == 3

        watched.open(new_address)
        found = wait_for_lines(grading, 3)
        assert [line["grade"] for line in found] == ["A", "B", "C"]
    finally:
        server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    watched.context.close()


# ---- one file ----


def test_the_page_that_is_one_file(
    browser: Browser, candidates: Path, grading: Path, tmp_path: Path
) -> None:
    items = open_items(candidates, grading, limit=10)
    file = tmp_path / "page.html"
    write_page(file, items)
    watched = Watched(browser)
    window = watched.open(file.as_uri())
    press(window, " ", "Enter")
    wait_for(window, SINGLE)
    assert window.locator("#facts dd").last.inner_text() == EVIL
    assert window.evaluate("window.evil") is None
    press(window, "g", "q")
    wait_for(window, MOSAIC)

    window.reload()
    wait_for(window, "start")
    press(window, "Enter")
    wait_for(window, MOSAIC)
    assert window.locator("#count").inner_text() == "10 of 10 graded"
    press(window, "ArrowRight", "w")
    with window.expect_download() as download:
        window.locator("#save").click()
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)

    table = read_grades([saved], items.record.fingerprint).sort_values("item")
    assert saved.name == "anna.jsonl"
    assert table["grade"].tolist() == ["A", "B", *["X"] * 8]
    assert table["class"].iloc[0] == "artefact"
    assert lines(grading) == []
    watched.check(file.as_uri())
