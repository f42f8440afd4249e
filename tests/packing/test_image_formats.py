import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.packing.image_formats import BadCutoutError, find_reader, read_image
from tests.conftest import pack_survey


def test_every_format_gives_bands_first_in_native_order(tmp_path: Path) -> None:
    cube = np.arange(2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(cube)]).writeto(tmp_path / "a.fits")
    np.save(tmp_path / "a.npy", cube.astype(">f4"))
    for name in ("a.fits", "a.npy"):
        image = read_image(tmp_path / name)
        assert image.dtype == np.dtype("float32")
        assert image.dtype.isnative
        np.testing.assert_array_equal(image, cube)
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture.transpose(2, 0, 1))
    colour = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.jpg", quality=95)
    means = read_image(tmp_path / "a.jpg").mean(axis=(1, 2))
    np.testing.assert_allclose(means, (200, 100, 50), atol=4)


def test_two_axes_are_one_band(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.npy").shape == (1, 4, 5)
    assert read_image(tmp_path / "a.png").shape == (1, 4, 5)


@pytest.mark.parametrize(
    "name", ["a.fits", "a.npy", "a.png", "a.jpg", "a.tif", "a.npz", "a.txt", "a"]
)
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(BadCutoutError, match=name):
        read_image(tmp_path / name)


def test_a_truncated_fits_file_is_named(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.ones((64, 64), np.float32)).writeto(tmp_path / "a.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(whole[:5000])
    with pytest.raises(BadCutoutError, match=r"a\.fits: cannot be read as an image"):
        read_image(tmp_path / "a.fits")


def test_a_truncated_npy_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((8, 8)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(BadCutoutError, match="are not those of an array"):
        read_image(tmp_path / "a.npy")


def test_hdus_are_chosen_by_number_and_name(tmp_path: Path) -> None:
    one = np.ones((1, 4, 4), np.float32)
    two = np.full((1, 4, 4), 2, np.float32)
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(one, name="SCI"),
        fits.CompImageHDU(two[0], name="ERR"),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits"), one)
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits", hdu="ERR"), two)
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits", hdu=2), two)
    with pytest.raises(BadCutoutError, match=r"a\.fits"):
        read_image(tmp_path / "a.fits", hdu="NONE")


def test_pages_of_a_tiff_are_planes(tmp_path: Path) -> None:
    planes = [Image.fromarray(np.full((4, 4), value, np.float32)) for value in (1, 2, 3)]
    planes[0].save(tmp_path / "a.tif", save_all=True, append_images=planes[1:])
    assert read_image(tmp_path / "a.tif")[:, 0, 0].tolist() == [1, 2, 3]


def test_palettes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).convert("P").save(tmp_path / "a.png")
    with pytest.raises(BadCutoutError, match="palette"):
        read_image(tmp_path / "a.png")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadCutoutError, match=r"Object arrays|are not those"):
        read_image(tmp_path / "a.npy")


# ---- formats that a recipe names ----

READER = '''
import numpy as np


def read_raw(path, hdu, key):
    """Little-endian float32 of 2 bands, 8 x 8."""
    return np.fromfile(path, "<f4").reshape(2, 8, 8)


not_a_function = 3
'''


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of the user's own, on sys.path and outside of lens_hpc."""
    package = "a_survey_of_my_own"
    folder = tmp_path / "code" / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "formats.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def without_endings(survey: Path) -> None:
    """Write each image of the toy survey as bare numbers, in a file without an ending."""
    for file in survey.glob("*.npy"):
        np.load(file).tofile(file.with_suffix(""))
        file.unlink()


def images_by_id(dataset: Path) -> dict[str, np.ndarray]:
    images = {}
    for name in read_manifest(dataset).splits:
        split = Split(dataset, name)
        images |= dict(zip(split.ids(), split.take("images", np.arange(len(split))), strict=True))
    return images


def test_a_named_format_is_read_whatever_the_ending(tmp_path: Path, survey: Path) -> None:
    expected = images_by_id(pack_survey(survey, tmp_path / "by_ending"))
    for file in survey.glob("*.npy"):
        file.rename(file.with_suffix(".dat"))
    dataset = pack_survey(survey, tmp_path / "d", "images='{id}.dat'", "format=npy")
    assert read_manifest(dataset).recipe["format"] == "npy"
    np.testing.assert_equal(images_by_id(dataset), expected)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_reader_of_ones_own_is_called(
    tmp_path: Path, survey: Path, own_code: str, processes: int
) -> None:
    expected = images_by_id(pack_survey(survey, tmp_path / "by_ending"))
    without_endings(survey)
    dataset = pack_survey(
        survey,
        tmp_path / "d",
        "images='{id}'",
        f"format={own_code}.formats.read_raw",
        f"code=[{own_code}]",
        f"processes={processes}",
    )
    np.testing.assert_equal(images_by_id(dataset), expected)
    sources = Split(dataset, "train").texts("sources", np.arange(28))
    assert set(sources) == {"read_raw float32 8x8"}


def test_a_reader_that_fails_makes_a_bad_row(tmp_path: Path, survey: Path, own_code: str) -> None:
    without_endings(survey)
    (survey / "obj3").write_bytes(b"junk")
    settings = (
        "images='{id}'",
        f"format={own_code}.formats.read_raw",
        f"code=[{own_code}]",
        "on_bad=skip",
    )
    dataset = pack_survey(survey, tmp_path / "d", *settings)
    rejected = (dataset / "rejected.csv").read_text()
    assert "obj3: cannot be read as an image: ValueError: cannot reshape array" in rejected


def test_code_that_the_user_did_not_name_is_not_imported(
    tmp_path: Path, survey: Path, own_code: str
) -> None:
    recipe = survey / "recipe.yaml"
    recipe.write_text(recipe.read_text() + f"format: {own_code}.formats.read_raw\n")
    for code in ("code=[]", "code=[another]"):
        with pytest.raises(UserError, match=rf"add code=\[{own_code}\]"):
            pack_survey(survey, tmp_path / "d", code)
    assert own_code not in sys.modules
    assert not (tmp_path / "d.partial").exists()


def test_a_format_that_is_unknown_or_no_function_is_named(own_code: str) -> None:
    with pytest.raises(UserError, match="format = jpg: unknown; valid: fits, npy, npz, picture"):
        find_reader("jpg")
    with pytest.raises(UserError, match="is not a function"):
        find_reader(f"{own_code}.formats.not_a_function", [own_code])
    assert find_reader(None) is None
