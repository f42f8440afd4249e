from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from lens_hpc.reporting import pictures
from tests.reporting.test_figures import NAMES


@pytest.mark.parametrize("bands", [1, 2, 3, 5])
def test_composites_keep_colour_and_show_the_faint(bands: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, size=(bands, 40, 40))
    image[:, 18:22, 18:22] += 500
    image[-1, 5:8, 5:8] += 30  # the reddest
    picture = pictures.composite(image, tuple("grizy"[:bands]))
    assert picture.shape == (40, 40, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture[19, 19].mean() > 0.5

    sky = picture[25:].mean()
    if bands >= 3:
        assert picture[6, 6, 0] > 3 * sky
        assert picture[6, 6, 0] > 2 * picture[6, 6, 2]


def test_pictures_of_8_bits_stay_as_they_are() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    picture = pictures.composite(image, ("r", "g", "b"))
    np.testing.assert_array_equal(picture * 255, np.moveaxis(image, 0, -1))


def test_a_sheet_has_a_cell_for_each_cutout(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(5, 3, 12, 12))
    names = ["a short name", "a name that is longer than its cutout", "c", "d", "e"]
    style = dict(matplotlib.rcParams)
    sheets = {"some": (images, names), "others": (images[:2], names[:2])}
    pictures.draw_cutouts(tmp_path / "sheet.png", sheets, ("g", "r", "i"), columns=4)
    assert dict(matplotlib.rcParams) == style

    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width == round(4 * pictures.CUTOUT_WIDTH_INCHES * 160)
        assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_no_formula(name: str, tmp_path: Path) -> None:
    images = np.zeros((1, 1, 8, 8))
    pictures.draw_cutouts(tmp_path / "sheet.png", {"some": (images, [name])}, ("g",), columns=1)
    assert (tmp_path / "sheet.png").stat().st_size > 0
