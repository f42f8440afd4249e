import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lens_hpc.grading.views import cutout_png, draw_view, sheet_png, view_names

BANDS = ("g", "r", "i")


def galaxy(height: int = 20, width: int = 20) -> np.ndarray:
    """Noise, and a source that is bright in i alone, near the first corner of the array."""
    image = np.random.default_rng(0).normal(size=(3, height, width))
    image[2, 2:5, 2:5] += 50
    return image.astype(np.float32)


def pixels(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("dtype", "bands", "names"),
    [
        ("float32", ("g", "r", "i"), ["asinh", "log", "sqrt", "g", "r", "i"]),
        ("float16", ("VIS",), ["asinh", "log", "sqrt"]),
        ("uint8", ("r", "g", "b"), ["asinh", "r", "g", "b"]),
    ],
)
def test_there_are_three_stretches_and_each_band(
    dtype: str, bands: tuple[str, ...], names: list[str]
) -> None:
    manifest: Any = SimpleNamespace(dtype=dtype, bands=bands)
    assert view_names(manifest) == names


def test_north_is_up_and_each_view_is_another_picture() -> None:
    views = {name: pixels(cutout_png(galaxy(), BANDS, name, 20)) for name in ("asinh", "g", "i")}
    # The source, at the first rows of the array, is at the bottom: red, in i alone.
    bottom = views["asinh"][-4, 3]
    assert bottom[0] > 200
    assert bottom[0] > 2 * bottom[2]
    assert views["i"][-4, 3].min() > 250
    assert views["g"][-4, 3].max() < 200
    stretched = [np.asarray(draw_view(galaxy(), BANDS, name)) for name in ("asinh", "log", "sqrt")]
    assert len({picture.tobytes() for picture in stretched}) == 3


def test_the_longer_side_has_the_size() -> None:
    assert pixels(cutout_png(galaxy(20, 30), BANDS, "asinh", 90)).shape == (60, 90, 3)
    assert pixels(cutout_png(galaxy(200, 20), BANDS, "asinh", 50)).shape == (50, 5, 3)


def test_a_sheet_has_its_cells_in_rows_of_twenty() -> None:
    images = [np.full((3, 8, 12), number, np.uint8) for number in range(23)]
    sheet = pixels(sheet_png(images, ("r", "g", "b"), "asinh", 24))
    assert sheet.shape == (48, 480, 3)
    for number in range(23):
        row, column = divmod(number, 20)
        cell = sheet[row * 24 : (row + 1) * 24, column * 24 : (column + 1) * 24]
        # A cutout twice as wide as in the array, in the middle of its cell.
        assert (cell[4:20] == number).all()
        assert (cell[:4] == 0).all()
        assert (cell[20:] == 0).all()
    assert (sheet[24:, 3 * 24 :] == 0).all()
