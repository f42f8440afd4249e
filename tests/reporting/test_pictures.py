from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from lens_hpc.reporting import pictures
from tests.reporting.test_figures import NAMES

BAR = pictures.ScaleBar(2.0, 20.0)


@pytest.mark.parametrize(
    ("bands", "names"),
    [
        ("g", ["grey", "shallow", "deep"]),
        ("gr", ["grey", "shallow", "deep", "band g", "band r"]),
        ("gri", ["colour", "shallow", "deep", "band g", "band r", "band i"]),
        ("ugrizyJ", ["colour", "shallow", "deep", *(f"band {band}" for band in "ugrizy")]),
    ],
)
def test_views_are_stretches_and_single_bands(bands: str, names: list[str]) -> None:
    image = np.random.default_rng(0).normal(size=(len(bands), 10, 12))
    views = pictures.make_views(image, tuple(bands))
    assert list(views) == names
    assert all(view.shape == (10, 12, 3) for view in views.values())
    assert all(view.min() >= 0 and view.max() <= 1 for view in views.values())


def test_a_deep_view_shows_what_a_shallow_one_hides() -> None:
    image = np.random.default_rng(0).normal(size=(3, 40, 40))
    image[:, 10:13, 10:13] += 5000
    image[:, 30:33, 30:33] += 12
    views = pictures.make_views(image, ("g", "r", "i"))
    faint = [views[name][30:33, 30:33].mean() for name in ("shallow", "colour", "deep")]
    assert faint[0] < 0.5 * faint[1] < 0.5 * faint[2]


def test_pictures_of_8_bits_have_no_other_stretch() -> None:
    image = np.zeros((3, 4, 4), np.uint8)
    assert list(pictures.make_views(image, ("r", "g", "b"))) == [
        "colour",
        "band r",
        "band g",
        "band b",
    ]
    assert list(pictures.make_views(image[:1], ("w",))) == ["grey"]


def test_attention_glows_behind_the_sky_and_leaves_the_brightest() -> None:
    image = np.zeros((3, 4, 4), np.uint8)
    image[:, 0, 0] = 255
    attention = np.zeros((4, 4))
    attention[:2] = 0.3
    view = pictures.make_views(image, ("r", "g", "b"), attention)["attention"]
    np.testing.assert_allclose(view[1, 1], pictures.GLOW)
    np.testing.assert_allclose(view[3, 3], 0)
    np.testing.assert_allclose(view[0, 0], 1)


def test_a_sheet_has_a_cell_for_each_cutout(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(5, 3, 12, 12))
    names = ["a short name", "a name that is longer than its cutout", "c", "d", "e"]
    style = dict(matplotlib.rcParams)
    sheets = {"some": (images, names), "others": (images[:2], names[:2])}
    pictures.draw_cutouts(tmp_path / "sheet.png", sheets, ("g", "r", "i"), BAR, columns=4)
    assert dict(matplotlib.rcParams) == style

    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width == round(4 * pictures.CUTOUT_WIDTH_INCHES * 160)
        assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_formula(name: str, tmp_path: Path) -> None:
    images = np.zeros((1, 1, 8, 8))
    sheets = {"some": (images, [name])}
    pictures.draw_cutouts(tmp_path / "sheet.png", sheets, ("g",), BAR, columns=1)
    assert (tmp_path / "sheet.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("width", "pixel_scale", "length"),
    [(64, 0.168, 2), (80, 0.1, 2), (101, 0.187, 5), (20, 0.2, 1), (64, 0.01, 0.2), (44, 27.0, 500)],
)
def test_a_scale_bar_is_round_and_fits(width: int, pixel_scale: float, length: float) -> None:
    manifest: Any = SimpleNamespace(width=width, pixel_scale_arcsec=pixel_scale)
    bar = pictures.scale_bar(manifest)
    assert bar.arcsec == pytest.approx(length)
    assert bar.percent == pytest.approx(100 * length / (width * pixel_scale))
    assert 15 < bar.percent <= 45


@pytest.mark.parametrize(("height", "width"), [(40, 40), (20, 40), (40, 20)])
@pytest.mark.parametrize("percent", [15.0, 45.0])
def test_the_bar_of_a_sheet_is_as_long_as_it_says(
    height: int, width: int, percent: float, tmp_path: Path
) -> None:
    black = np.zeros((1, 1, height, width), np.uint8)
    bar = pictures.ScaleBar(1.0, percent)
    pictures.draw_cutouts(tmp_path / "a.png", {"one": (black, ["a"])}, ("g",), bar, columns=1)
    with Image.open(tmp_path / "a.png") as picture:
        brightness = np.asarray(picture.convert("L"))

    # The cutout is dark between the white page's margins, but for the bar near its lower edge.
    dark = brightness < 60
    columns = np.flatnonzero(dark.sum(axis=0) > 0.2 * len(dark))
    lower_edge = np.flatnonzero(dark[:, columns[-1]])[-1]
    lowest_tenth = brightness[lower_edge - round(0.1 * np.ptp(columns)) : lower_edge]
    light = lowest_tenth[:, columns[0] : columns[-1]] > 150

    length = 100 * light.sum(axis=1).max() / (np.ptp(columns) + 1)
    assert length == pytest.approx(percent, abs=1.5)
