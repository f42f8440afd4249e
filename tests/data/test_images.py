from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from lens_hpc import UserError
from lens_hpc.data import images


def test_every_format_gives_bands_first_in_native_order(tmp_path: Path) -> None:
    cube = np.arange(2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(cube)]).writeto(tmp_path / "a.fits")
    np.save(tmp_path / "a.npy", cube.astype(">f4"))
    for name in ("a.fits", "a.npy"):
        image = images.read(tmp_path / name)
        assert image.dtype == np.dtype("float32")
        assert image.dtype.isnative
        np.testing.assert_array_equal(image, cube)
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.read(tmp_path / "a.png"), picture.transpose(2, 0, 1))


def test_two_axes_are_one_band(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    assert images.read(tmp_path / "a.npy").shape == images.read(tmp_path / "a.png").shape == (1, 4, 5)


@pytest.mark.parametrize("name", ["a.fits", "a.npy", "a.png", "a.jpg"])
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(UserError, match=name):
        images.read(tmp_path / name)


def test_a_truncated_fits_file_is_named(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.ones((64, 64), np.float32)).writeto(tmp_path / "a.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(whole[:5000])
    with pytest.raises(UserError, match=r"a\.fits: cannot be read as an image"):
        images.read(tmp_path / "a.fits")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="allow_pickle"):
        images.read(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("value", "dtype"), [(np.nan, "float32"), (1e6, "float16"), (1e-12, "float16"), (0.5, "uint8"), (300, "uint8")]
)
def test_what_does_not_survive_the_cast_is_refused(value: float, dtype: str) -> None:
    with pytest.raises(UserError, match=r"x\.npy"):
        images.cast(np.array([[[value, 1.0]]]), dtype, Path("x.npy"))


def test_what_survives_is_kept() -> None:
    values = np.array([[[0.0, 1.0, 200.0]]])
    for dtype in ("float32", "float16", "uint8"):
        np.testing.assert_array_equal(images.cast(values, dtype, Path("x.npy")), values)
