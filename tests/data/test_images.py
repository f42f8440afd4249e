from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lens_hpc import config
from lens_hpc.data import images
from lens_hpc.data.images import BadCutoutError, Cutouts


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
    Image.fromarray(np.full((16, 16, 3), (200, 100, 50), np.uint8)).save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(images.read(tmp_path / "a.jpg").mean(axis=(1, 2)), (200, 100, 50), atol=4)


def test_two_axes_are_one_band(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    assert images.read(tmp_path / "a.npy").shape == images.read(tmp_path / "a.png").shape == (1, 4, 5)


@pytest.mark.parametrize("name", ["a.fits", "a.npy", "a.png", "a.jpg", "a.tif", "a.npz", "a.txt"])
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(BadCutoutError, match=name):
        images.read(tmp_path / name)


def test_a_truncated_fits_file_is_named(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.ones((64, 64), np.float32)).writeto(tmp_path / "a.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(whole[:5000])
    with pytest.raises(BadCutoutError, match=r"a\.fits: cannot be read as an image"):
        images.read(tmp_path / "a.fits")


def test_a_truncated_npy_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((8, 8)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(BadCutoutError, match="are not those of an array"):
        images.read(tmp_path / "a.npy")


def test_hdus_are_chosen_by_number_and_name(tmp_path: Path) -> None:
    one, two = np.ones((1, 4, 4), np.float32), np.full((1, 4, 4), 2, np.float32)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(one, name="SCI"), fits.CompImageHDU(two[0], name="ERR")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(images.read(tmp_path / "a.fits"), one)
    np.testing.assert_array_equal(images.read(tmp_path / "a.fits", hdu="ERR"), two)
    np.testing.assert_array_equal(images.read(tmp_path / "a.fits", hdu=2), two)
    with pytest.raises(BadCutoutError, match=r"a\.fits"):
        images.read(tmp_path / "a.fits", hdu="NONE")


def test_pages_of_a_tiff_are_planes(tmp_path: Path) -> None:
    planes = [Image.fromarray(np.full((4, 4), value, np.float32)) for value in (1, 2, 3)]
    planes[0].save(tmp_path / "a.tif", save_all=True, append_images=planes[1:])
    assert images.read(tmp_path / "a.tif")[:, 0, 0].tolist() == [1, 2, 3]


def test_palettes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).convert("P").save(tmp_path / "a.png")
    with pytest.raises(BadCutoutError, match="palette"):
        images.read(tmp_path / "a.png")


@given(coarse=st.integers(1, 30), fine=st.integers(1, 90), factor=st.floats(1, 5))
def test_resampling_conserves_the_flux_of_the_common_field(coarse: int, fine: int, factor: float) -> None:
    plane = np.random.default_rng(0).uniform(size=(coarse, coarse))
    resampled = images.resample(plane, factor, fine, fine)
    if fine >= coarse * factor:
        assert resampled.sum() == pytest.approx(plane.sum())
    else:
        assert resampled.sum() <= plane.sum() * (1 + 1e-9)
    if fine <= (coarse - 2) * factor:
        flat = images.resample(np.ones((coarse, coarse)), factor, fine, fine)
        np.testing.assert_allclose(flat, 1 / factor**2)


def test_cutouts_are_cropped_and_padded_around_the_centre() -> None:
    image = np.arange(25.0).reshape(1, 5, 5)
    np.testing.assert_array_equal(images.fit_centre(image, 3, 3), image[:, 1:4, 1:4])
    padded = images.fit_centre(image, 7, 3)
    np.testing.assert_array_equal(padded[:, 1:6], image[:, :, 1:4])
    assert not padded[:, [0, 6]].any()


def policy(**bad_pixels: object) -> config.Recipe:
    return config.Recipe(
        name="a", images="{id}.npy", bands=("g",), pixel_scale=1, units="x", bad_pixels=bad_pixels, catalogue="c.csv"
    )


def test_bad_pixels_are_filled_only_as_far_as_the_policy_says() -> None:
    image = np.arange(1.0, 17).reshape(1, 4, 4)
    image[0, 0, :2] = np.nan, np.inf
    with pytest.raises(BadCutoutError, match="2 of 16 pixels are NaN, infinite or masked"):
        images.fill_bad_pixels(image, policy(), "x")
    filled = images.fill_bad_pixels(image, policy(most=0.2), "x")
    assert filled[0, 0].tolist() == [9.5, 9.5, 3, 4]
    assert images.fill_bad_pixels(image, policy(most=0.2, fill="zero"), "x")[0, 0].tolist() == [0, 0, 3, 4]
    with pytest.raises(BadCutoutError, match="3 of 16"):
        images.fill_bad_pixels(image, policy(mask=16), "x")


def test_a_constant_cutout_is_refused() -> None:
    with pytest.raises(BadCutoutError, match="all pixels are 3"):
        images.fill_bad_pixels(np.full((1, 4, 4), 3.0), policy(), "x")


def test_a_stack_shorter_than_the_catalogue_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(2, 1, 4, 4)))
    recipe = config.Recipe(name="a", stack="s.npy", bands=("g",), pixel_scale=1, units="x", catalogue="c.csv")
    cutouts = Cutouts(recipe, tmp_path, np.empty((3, 0)))
    assert cutouts[1].shape == (1, 4, 4)
    with pytest.raises(BadCutoutError, match=r"s\.npy\[2\]: the stack has only 2 rows"):
        cutouts[2]


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadCutoutError, match=r"Object arrays|are not those"):
        images.read(tmp_path / "a.npy")


@pytest.mark.parametrize(("value", "dtype"), [(1e6, "float16"), (1e-12, "float16"), (0.5, "uint8"), (300, "uint8")])
def test_what_does_not_survive_the_cast_is_refused(value: float, dtype: str) -> None:
    with pytest.raises(BadCutoutError, match=r"x\.npy"):
        images.cast(np.array([[[value, 1.0]]]), dtype, "x.npy")


def test_what_survives_is_kept() -> None:
    values = np.array([[[0.0, 1.0, 200.0]]])
    for dtype in ("float32", "float16", "uint8"):
        np.testing.assert_array_equal(images.cast(values, dtype, "x.npy"), values)
