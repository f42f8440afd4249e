"""A contact sheet shows each candidate once, with what was made of it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lens_hpc.grading import contact_sheet
from lens_hpc.grading.contact_sheet import draw_contact_sheet
from lens_hpc.reporting.pictures import ScaleBar

BAR = ScaleBar(2.0, 30.0)


def make_table(count: int) -> pd.DataFrame:
    numbers = np.arange(count)
    return pd.DataFrame(
        {
            "id": [f"$id_{number}$\x1b" for number in numbers],
            "grade": "A",
            "mean_grade": 3.0,
            "known": np.where(numbers % 2, "known", None),
            "row": numbers,
        }
    )


def images_of(rows: pd.DataFrame) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(len(rows), 2, 8, 8)).astype(np.float32)


def draw(file: Path, count: int) -> None:
    draw_contact_sheet(file, make_table(count), images_of, ("g", "r"), BAR)


@pytest.mark.slow
def test_a_png_has_as_many_rows_as_it_needs(tmp_path: Path) -> None:
    heights = {}
    for count in (1, 6, 7):
        draw(tmp_path / "sheet.png", count)
        with Image.open(tmp_path / "sheet.png") as picture:
            assert picture.width == round(7.1 * 160)
            heights[count] = picture.height
    assert heights[1] == heights[6]
    assert heights[7] == pytest.approx(2 * heights[1], abs=2)


def test_a_picture_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    draw_page = contact_sheet._draw_page
    monkeypatch.setattr(
        contact_sheet, "_draw_page", lambda *given: figures.append(draw_page(*given)) or figures[-1]
    )
    draw(tmp_path / "sheet.png", 2)
    first, second = figures[0].axes
    # As it is written, without a formula or what a terminal obeys.
    assert first.get_title(loc="left") == r"$id_0$\x1b"
    assert [text.get_text() for text in first.texts] == ["2″", "A", "3.0"]
    assert [text.get_text() for text in second.texts] == ["2″", "A", "3.0", "known"]


def test_a_pdf_has_pages_and_is_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "CUTOUTS_OF_A_PAGE", 2)
    draw(tmp_path / "sheet.pdf", 5)
    content = (tmp_path / "sheet.pdf").read_bytes()
    assert content.count(b"/Type /Page ") == 3
    draw(tmp_path / "again.pdf", 5)
    assert (tmp_path / "again.pdf").read_bytes() == content


def test_a_png_that_would_be_too_tall_ends_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(contact_sheet, "MOST_OF_PNG", 3)
    with caplog.at_level(logging.WARNING):
        draw(tmp_path / "sheet.png", 5)
    assert "shows 3 of 5 candidates; sheet=pdf has all" in caplog.text
