from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.io import fits
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from lens_hpc.errors import UserError
from lens_hpc.packing.bad_pixels import (
    cast_pixels,
    fill_bad_pixels,
    find_bad_pixels,
    judge_planes,
    mask_pixels,
)
from lens_hpc.packing.cells import from_frame
from lens_hpc.packing.cutouts import Cutouts
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.parts import expand_parts, part_fields
from lens_hpc.packing.recipe import BadPixels, Masks, Recipe
from lens_hpc.packing.resampling import is_surface_brightness, resample_plane, spread_mask
from lens_hpc.packing.stacks import open_stack


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def cutouts_of(folder: Path, *files: str, rows: int = 1, **settings: Any) -> Cutouts:
    """The cutouts of a survey of which every row has the same files."""
    values: dict[str, Any] = {
        "name": "a",
        "catalogue": "c.csv",
        "images": "{id}.fits",
        "pixel_scale": 0.1,
        "units": "counts",
    }
    recipe = Recipe.model_validate(values | settings)
    return Cutouts(recipe, folder, np.array([files] * rows, dtype=object))


# ---- geometry ----


@given(coarse=st.integers(1, 30), fine=st.integers(1, 90), ratio=st.floats(1, 5))
def test_resampling_conserves_the_flux_of_the_common_field(
    coarse: int, fine: int, ratio: float
) -> None:
    plane = np.random.default_rng(0).uniform(size=(coarse, coarse))
    resampled = resample_plane(plane, ratio, fine, fine)
    if fine >= coarse * ratio:
        assert resampled.sum() == pytest.approx(plane.sum())
    else:
        assert resampled.sum() <= plane.sum() * (1 + 1e-9)
    if fine <= (coarse - 2) * ratio:
        flat = resample_plane(np.ones((coarse, coarse)), ratio, fine, fine)
        np.testing.assert_allclose(flat, 1 / ratio**2)


@given(coarse=st.integers(1, 20), fine=st.integers(1, 60), ratio=st.floats(1, 5))
@example(coarse=1, fine=3, ratio=1.0000000000000002)
def test_resampling_conserves_the_brightness_of_the_common_field(
    coarse: int, fine: int, ratio: float
) -> None:
    flat = resample_plane(np.full((coarse, coarse), 7.0), ratio, fine, fine, keep_brightness=True)
    is_covered = spread_mask(np.ones((coarse, coarse), bool), ratio, fine, fine)
    np.testing.assert_allclose(flat[is_covered], 7)
    assert not flat[~is_covered].any()


@given(coarse=st.integers(1, 12), fine=st.integers(1, 40), ratio=st.floats(1, 5))
def test_a_bad_pixel_is_spread_to_all_that_it_touches(coarse: int, fine: int, ratio: float) -> None:
    rng = np.random.default_rng(coarse)
    is_bad = rng.random((coarse, coarse)) < 0.2
    light = resample_plane(is_bad.astype(float), ratio, fine, fine)
    touched = spread_mask(is_bad, ratio, fine, fine)
    assert not light[~touched].any(where=light[~touched] > 1e-6)
    assert (light[touched] > 0).all()


@pytest.mark.parametrize(
    ("size", "expected"), [((3, 3), np.s_[1:4, 1:4]), ((3, 5), np.s_[1:4, 0:5])]
)
def test_cutouts_are_cropped_around_the_centre(
    tmp_path: Path, size: tuple[int, int], expected: Any
) -> None:
    image = np.arange(25.0)[None].reshape(1, 5, 5)
    np.save(tmp_path / "a.npy", image)
    cutouts = cutouts_of(tmp_path, "a.npy", bands=["g"], size=size)
    np.testing.assert_array_equal(cutouts[0][0], image[0][expected])


def test_cutouts_are_padded_around_the_centre_and_padding_is_no_measurement(
    tmp_path: Path,
) -> None:
    image = np.arange(1.0, 26).reshape(1, 5, 5)
    image[0, 0, 0] = np.nan
    np.save(tmp_path / "a.npy", image)
    cutouts = cutouts_of(tmp_path, "a.npy", bands=["g"], size=[9, 3], bad_pixels={"most": 0.5})
    padded = cutouts[0]
    np.testing.assert_array_equal(padded[0, 2:7], image[0, :, 1:4])
    assert not padded[0, [0, 1, 7, 8]].any()

    # A median of the padding, too, would be 0.
    wide = cutouts_of(tmp_path, "a.npy", bands=["g"], size=[9, 9], bad_pixels={"most": 0.5})
    assert wide[0][0, 2, 2] == np.nanmedian(image)


# ---- bad pixels ----


def test_bad_pixels_are_filled_only_as_far_as_the_policy_says() -> None:
    image = np.arange(1.0, 17).reshape(1, 4, 4)
    image[0, 0, :2] = np.nan, np.inf
    with pytest.raises(BadCutoutError, match="x: band g: 2 of 16 pixels are NaN, infinite or"):
        judge_planes(image, BadPixels(), "x", "g")
    with pytest.raises(BadCutoutError, match="3 of 16"):
        judge_planes(image, BadPixels(mask=16), "x", "g")

    values, is_bad, _ = judge_planes(image, BadPixels(most=0.2), "x", "g")
    filled = fill_bad_pixels(values, is_bad, BadPixels())
    assert filled[0, 0].tolist() == [9.5, 9.5, 3, 4]
    zeroed = fill_bad_pixels(values, is_bad, BadPixels(fill="zero"))
    assert zeroed[0, 0].tolist() == [0, 0, 3, 4]


def test_a_dead_band_is_a_bad_row_that_names_its_file(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    np.save(tmp_path / "g.npy", rng.normal(size=(8, 8)))
    dead_planes = {"zero": np.zeros((8, 8)), "full": np.full((8, 8), 255.0)}
    dead_planes["masked"] = np.where(np.eye(8), 100.0, 3.0)
    for name, plane in dead_planes.items():
        np.save(tmp_path / f"{name}.npy", plane)
        settings = {"bands": ["g", "r"], "bad_pixels": {"mask": 100, "most": 0.6}}
        with pytest.raises(BadCutoutError, match=rf"^{name}\.npy: band r: all pixels are"):
            cutouts_of(tmp_path, "g.npy", f"{name}.npy", **settings)[0]

        settings["bad_pixels"]["constant_bands"] = "keep"
        kept = cutouts_of(tmp_path, "g.npy", f"{name}.npy", **settings)[0]
        assert np.ptp(kept[1]) == 0
        with pytest.raises(BadCutoutError, match="all pixels are"):
            cutouts_of(tmp_path, f"{name}.npy", **settings | {"bands": ["g"]})[0]


def test_the_fraction_of_bad_pixels_is_that_of_each_band(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    image = rng.normal(size=(4, 8, 8))
    image[2, :4] = np.nan
    np.save(tmp_path / "a.npy", image)
    settings = {"bands": list("griz"), "bad_pixels": {"most": 0.3}}
    with pytest.raises(BadCutoutError, match=r"a\.npy: band i: 32 of 64"):
        cutouts_of(tmp_path, "a.npy", **settings)[0]
    cutout = cutouts_of(tmp_path, "a.npy", **settings | {"bad_pixels": {"most": 0.5}}).read(0)
    assert cutout.missing.tolist() == [0, 0, 32, 0]


def test_two_bands_with_one_image_are_a_bad_row(tmp_path: Path, rng: np.random.Generator) -> None:
    plane = rng.normal(size=(8, 8))
    np.save(tmp_path / "a.npy", np.stack([plane, plane + 1, plane]))
    with pytest.raises(BadCutoutError, match="the bands g and i hold the same image"):
        cutouts_of(tmp_path, "a.npy", bands=["g", "r", "i"])[0]


def test_a_cutout_without_light_is_a_bad_row(tmp_path: Path, rng: np.random.Generator) -> None:
    np.save(tmp_path / "a.npy", -rng.uniform(1, 2, size=(1, 8, 8)))
    with pytest.raises(BadCutoutError, match="its brightest pixel is -1"):
        cutouts_of(tmp_path, "a.npy", bands=["g"])[0]


COARSE = {"bands": ["V", "J"], "pixel_scale": {"V": 0.1, "J": 0.3}}


def test_bands_of_one_scale_are_cut_around_their_centres(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    wide, narrow = rng.normal(5, 1, (10, 12)), rng.normal(5, 1, (8, 8))
    np.save(tmp_path / "g.npy", wide)
    np.save(tmp_path / "r.npy", narrow)
    cutout = cutouts_of(tmp_path, "g.npy", "r.npy", bands=["g", "r"], size=[8, 8])[0]
    expected = np.stack([wide[1:9, 2:10], narrow])
    np.testing.assert_array_equal(cutout, expected.astype(np.float32))

    # Cut to whole pixels, their centres would not meet.
    np.save(tmp_path / "odd.npy", rng.normal(5, 1, (9, 9)))
    for file, size in (("odd.npy", [8, 8]), ("r.npy", [9, 9]), ("r.npy", None)):
        with pytest.raises(BadCutoutError, match=r"different sizes.*size="):
            cutouts_of(tmp_path, "g.npy", file, bands=["g", "r"], size=size)[0]


@pytest.mark.parametrize("word", [np.nan, np.inf, 100.0])
@pytest.mark.parametrize("ratio", [3, 2.5])
def test_bad_pixels_are_known_before_pixels_are_mixed(
    tmp_path: Path, rng: np.random.Generator, word: float, ratio: float
) -> None:
    fine, coarse = rng.normal(5, 1, (60, 60)), rng.normal(5, 1, (20, 20))
    np.save(tmp_path / "V.npy", fine)
    np.save(tmp_path / "clean.npy", coarse)
    coarse[5, 5] = word
    np.save(tmp_path / "J.npy", coarse)
    settings: dict[str, Any] = {"bands": ["V", "J"], "pixel_scale": {"V": 1, "J": ratio}}
    settings["bad_pixels"] = {"mask": 100}
    with pytest.raises(BadCutoutError, match=r"J\.npy: band J: 1 of 400 pixels are NaN"):
        cutouts_of(tmp_path, "V.npy", "J.npy", **settings)[0]

    settings["bad_pixels"] = {"mask": 100, "most": 0.01}
    cutout = cutouts_of(tmp_path, "V.npy", "J.npy", **settings).read(0)
    clean = cutouts_of(tmp_path, "V.npy", "clean.npy", **settings)[0]
    is_bad = np.zeros((20, 20), bool)
    is_bad[5, 5] = True
    touched = spread_mask(is_bad, ratio, 60, 60)
    np.testing.assert_allclose(cutout.image[1][~touched], clean[1][~touched], rtol=1e-5)
    np.testing.assert_array_equal(cutout.image[0], fine.astype(np.float32))
    assert cutout.missing.tolist() == [0, touched.sum()]

    # 20 coarse pixels do not reach over all of 60 fine ones at a ratio of 2.5.
    covered = clean[1] != 0
    filled = np.median(cutout.image[1][~touched & covered])
    np.testing.assert_allclose(cutout.image[1][touched], filled, rtol=1e-5)


def test_what_is_cropped_away_is_not_judged(tmp_path: Path, rng: np.random.Generator) -> None:
    fine, coarse = rng.normal(5, 1, (60, 60)), rng.normal(5, 1, (20, 20))
    fine[0], coarse[:, 0] = np.nan, np.nan
    np.save(tmp_path / "V.npy", fine)
    np.save(tmp_path / "J.npy", coarse)
    cutout = cutouts_of(tmp_path, "V.npy", "J.npy", **COARSE, size=[50, 50]).read(0)
    assert cutout.missing.tolist() == [0, 0]
    with pytest.raises(BadCutoutError, match="band V: 60 of 3,600"):
        cutouts_of(tmp_path, "V.npy", "J.npy", **COARSE)[0]


def test_planes_of_one_file_are_resampled_as_their_scales_say(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    image = rng.normal(5, 1, (2, 20, 20))
    np.save(tmp_path / "a.npy", image)
    cutout = cutouts_of(tmp_path, "a.npy", bands=["V", "J"], pixel_scale={"V": 0.1, "J": 0.2})[0]
    np.testing.assert_allclose(cutout[1], resample_plane(image[1], 2, 20, 20), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e9, 1e200])
def test_a_scale_that_shares_no_pixel_is_refused(
    tmp_path: Path, rng: np.random.Generator, scale: float
) -> None:
    np.save(tmp_path / "a.npy", rng.normal(5, 1, (2, 20, 20)))
    cutouts = cutouts_of(tmp_path, "a.npy", bands=["V", "J"], pixel_scale={"V": 1e-9, "J": scale})
    with pytest.raises(BadCutoutError, match=r"a\.npy: shares no pixel with .* is pixel_scale"):
        cutouts.read(0)


@pytest.mark.parametrize(
    ("units", "bunit", "resampling", "expected"),
    [
        ("counts", None, None, 5 / 9),
        ("MJy/sr", None, None, 5),
        ("mag / arcsec**2", None, None, 5),
        ("MJy sr-1", None, None, 5),
        ("as published", "MJy/sr", None, 5),
        ("as published", "ELECTRONS/S", None, 5 / 9),
        ("MJy/sr", "MJy/sr", "flux", 5 / 9),
        ("counts", None, "surface_brightness", 5),
    ],
)
def test_surface_brightness_is_not_resampled_as_flux(
    tmp_path: Path,
    rng: np.random.Generator,
    units: str,
    bunit: str | None,
    resampling: str | None,
    expected: float,
) -> None:
    fits.PrimaryHDU(rng.normal(5, 1, (60, 60))).writeto(tmp_path / "V.fits")
    hdu = fits.PrimaryHDU(rng.normal(5, 1e-4, (20, 20)))
    if bunit:
        hdu.header["BUNIT"] = bunit
    hdu.writeto(tmp_path / "J.fits")
    cutouts = cutouts_of(tmp_path, "V.fits", "J.fits", **COARSE, units=units, resampling=resampling)
    np.testing.assert_allclose(cutouts[0][1], expected, rtol=1e-3)


@pytest.mark.parametrize("unit", ["MJy/sr", "counts"])
def test_the_unit_of_a_cell_is_looked_at(
    tmp_path: Path, rng: np.random.Generator, unit: str
) -> None:
    fine, coarse = rng.normal(5, 1, (1, 60, 60)), rng.normal(5, 1e-4, (1, 20, 20))
    columns = [
        fits.Column("V", "3600D", dim="(60,60)", array=fine),
        fits.Column("J", "400D", dim="(20,20)", array=coarse, unit=unit),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    cutouts = cutouts_of(tmp_path, "a.fits", **COARSE, key="{band}", units="as published")
    expected = 5 if unit == "MJy/sr" else 5 / 9
    np.testing.assert_allclose(cutouts[0][1], expected, rtol=1e-3)


def test_all_rows_of_a_band_are_resampled_in_one_way(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    fits.PrimaryHDU(rng.normal(5, 1, (60, 60))).writeto(tmp_path / "V.fits")
    for row in range(3):
        hdu = fits.PrimaryHDU(rng.normal(5, 1e-4, (20, 20)))
        if row:
            hdu.header["BUNIT"] = "MJy/sr"
        hdu.writeto(tmp_path / f"{row}.fits")
    cutouts = cutouts_of(tmp_path, "V.fits", "0.fits", rows=3, **COARSE)
    cutouts.images.paths[:, 1] = [f"{row}.fits" for row in range(3)]  # type: ignore[union-attr]
    cutouts.decide_resampling(range(3))
    np.testing.assert_allclose(cutouts[2][1], 5, rtol=1e-3)
    with pytest.raises(BadCutoutError, match=r"0\.fits: band J: its unit is not .*resampling="):
        cutouts.read(0)


def test_units_of_surface_brightness_are_known() -> None:
    for unit in ("MJy/sr", "mag/arcsec^2", "mag arcsec-2", "erg/s/cm2/arcsec2", "nJy / sr"):
        assert is_surface_brightness(unit)
    for unit in ("counts", "nanomaggies", "Jy", "flux as published", "e-/s", "adu", "mJy"):
        assert not is_surface_brightness(unit)


# ---- masks ----


@pytest.mark.parametrize(
    ("condition", "bad"),
    [
        ("!= 0", [False, True, True, True, True]),
        ("& 4", [False, False, False, True, True]),
        ("&5", [False, True, False, True, True]),
        ("<= 1", [True, True, False, False, False]),
        ("> 3e0", [False, False, False, True, True]),
    ],
)
def test_a_mask_says_which_pixels_are_bad(condition: str, bad: list[bool]) -> None:
    mask = np.array([[[0, 1, 2, 4, 7]]])
    image = np.zeros((2, 1, 5), np.float32)
    masked = mask_pixels(image, mask, Masks(hdu=1, bad=condition).bad)
    assert np.ma.getmaskarray(masked)[1, 0].tolist() == bad


@pytest.mark.parametrize(
    ("kind", "condition", "bad"),
    [
        ("u1", "& 1023", [False, True, True]),
        ("i4", "& 2147483648", [False, False, True]),
        ("i8", "& 9223372036854775809", [False, True, True]),
    ],
)
def test_bits_beyond_those_of_a_mask_and_its_sign_are_bits(
    kind: str, condition: str, bad: list[bool]
) -> None:
    mask = np.array([[[0, 1, 255 if kind == "u1" else np.iinfo(kind).min]]], kind)
    masked = mask_pixels(np.zeros((1, 1, 3)), mask, Masks(hdu=1, bad=condition).bad)
    assert np.ma.getmaskarray(masked)[0, 0].tolist() == bad
    with pytest.raises(ValueError, match="have no such bit"):
        mask_pixels(np.zeros((1, 1, 3)), mask, "& " + "1" * 30)
    with pytest.raises(ValueError, match="have no such bit"):
        mask_pixels(np.zeros((1, 1, 3)), mask.astype("u1"), "& 256")


def test_a_mask_that_does_not_fit_is_refused() -> None:
    image = np.zeros((1, 4, 4))
    with pytest.raises(ValueError, match="the mask has the shape"):
        mask_pixels(image, np.zeros((1, 4, 5)), "!= 0")
    with pytest.raises(ValueError, match="bits"):
        mask_pixels(image, np.zeros((1, 4, 4)), "& 1")
    weights = np.ones((1, 4, 4))
    weights[0, 0, 0] = np.nan
    assert find_bad_pixels(mask_pixels(image, weights, "<= 0"), None).sum() == 1  # type: ignore[union-attr]
    for wrong in ("zero", "!= x", "> 1 & 2"):
        with pytest.raises(ValidationError):
            Masks(hdu=1, bad=wrong)


def test_masks_of_each_band_lie_in_their_hdus(tmp_path: Path, rng: np.random.Generator) -> None:
    """As in a file of JWST: SCI, ERR and DQ, here for two bands."""
    hdus = [fits.PrimaryHDU()]
    images = rng.normal(5, 1, (2, 8, 8)).astype(np.float32)
    for number, band in enumerate("GR"):
        flags = np.zeros((8, 8), np.int32)
        flags[number, number] = 1
        flags[7, 7] = 2
        hdus += [
            fits.ImageHDU(images[number], name=f"{band}_SCI"),
            fits.ImageHDU(flags, name=f"{band}_DQ"),
        ]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    settings: dict[str, Any] = {"bands": ["G", "R"], "hdu": "{band}_SCI"}
    settings["masks"] = {"hdu": "{band}_DQ", "bad": "& 1"}
    settings["bad_pixels"] = {"most": 0.1, "fill": "zero"}
    cutout = cutouts_of(tmp_path, "a.fits", **settings).read(0)
    assert cutout.missing.tolist() == [1, 1]
    assert cutout.image[0, 0, 0] == cutout.image[1, 1, 1] == 0
    images[0, 0, 0] = images[1, 1, 1] = 0
    np.testing.assert_array_equal(cutout.image, images)


@pytest.mark.parametrize("kind", ["fits", "npz"])
@pytest.mark.parametrize("planes", [None, [2, 0]])
def test_each_band_of_one_image_has_its_own_mask(
    tmp_path: Path, rng: np.random.Generator, kind: str, planes: list[int] | None
) -> None:
    image = rng.normal(5, 1, (3 if planes else 2, 8, 8)).astype(np.float32)
    masks = {"g": np.zeros((8, 8), np.int16), "r": np.zeros((8, 8), np.int16)}
    masks["g"][1, 1] = masks["r"][2, 2:4] = 1
    if kind == "fits":
        hdus = [fits.ImageHDU(mask, name=f"{band}_mask") for band, mask in masks.items()]
        fits.HDUList([fits.PrimaryHDU(image), *hdus]).writeto(tmp_path / "a.fits")
        settings: dict[str, Any] = {"masks": {"hdu": "{band}_mask"}}
    else:
        of_bands = {f"{band}_mask": mask for band, mask in masks.items()}
        np.savez(tmp_path / "a.npz", image=image, **of_bands)
        settings = {"key": "image", "masks": {"key": {"g": "g_mask", "r": "r_mask"}}}

    settings |= {"bands": ["g", "r"], "planes": planes}
    settings["bad_pixels"] = {"most": 0.1, "fill": "zero"}
    cutout = cutouts_of(tmp_path, f"a.{kind}", **settings).read(0)
    expected = image[planes or [0, 1]]
    expected[0, 1, 1] = expected[1, 2, 2:4] = 0
    np.testing.assert_array_equal(cutout.image, expected)


def test_a_mask_of_a_band_has_one_plane(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.normal(5, 1, (2, 8, 8))
    np.savez(tmp_path / "a.npz", image=image, g=np.zeros((2, 8, 8)), r=np.zeros((2, 8, 8)))
    cutouts = cutouts_of(tmp_path, "a.npz", bands=["g", "r"], key="image", masks={"key": "{band}"})
    with pytest.raises(BadCutoutError, match=r"a\.npz: the mask of a band must have one plane"):
        cutouts.read(0)


@pytest.mark.parametrize("kind", ["npz", "h5", "fits"])
def test_masks_may_hold_truth_values_and_images_may_not(
    tmp_path: Path, rng: np.random.Generator, kind: str
) -> None:
    image = rng.normal(5, 1, (8, 8)).astype(np.float32)
    mask = np.zeros((8, 8), bool)
    mask[3, 4] = True
    if kind == "npz":
        np.savez(tmp_path / "a.npz", image=image, mask=mask)
    elif kind == "h5":
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["image"], file["mask"] = image, mask
    else:
        columns = [
            fits.Column("mask", "64L", dim="(8,8)", array=mask[None]),
            fits.Column("image", "64E", dim="(8,8)", array=image[None]),
        ]
        fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    settings: dict[str, Any] = {"bands": ["g"], "key": "image", "masks": {"key": "mask"}}
    settings["bad_pixels"] = {"most": 0.1, "fill": "zero"}
    for bad in ("!= 0", "== 1", "& 1"):
        settings["masks"]["bad"] = bad
        cutout = cutouts_of(tmp_path, f"a.{kind}", **settings).read(0)
        np.testing.assert_array_equal(cutout.image[0], np.where(mask, 0, image))
    with pytest.raises(BadCutoutError, match="axes of numbers, not 2 of bool"):
        cutouts_of(tmp_path, f"a.{kind}", bands=["g"], key="mask").read(0)


# ---- parts and planes ----


@pytest.fixture
def many_hdus(tmp_path: Path, rng: np.random.Generator) -> np.ndarray:
    images = rng.normal(5, 1, (3, 8, 8)).astype(np.float32)
    hdus = [fits.ImageHDU(image, name=band) for image, band in zip(images, "GRI", strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "m.fits")
    return images


@pytest.mark.parametrize("hdu", [{"g": "G", "r": 2, "i": "I"}, {"g": 1, "r": 2, "i": 3}])
def test_each_band_has_its_hdu(tmp_path: Path, many_hdus: np.ndarray, hdu: Any) -> None:
    cutouts = cutouts_of(tmp_path, "m.fits", bands=list("gri"), hdu=hdu)
    np.testing.assert_array_equal(cutouts[0], many_hdus)


def test_one_image_for_several_bands_is_refused(tmp_path: Path, many_hdus: np.ndarray) -> None:
    with pytest.raises(UserError, match="the same image for the bands g and r"):
        cutouts_of(tmp_path, "m.fits", "m.fits", "m.fits", bands=list("gri"))
    with pytest.raises(BadCutoutError, match=r"name it in hdu or key: it has .*2 R"):
        cutouts_of(tmp_path, "m.fits", bands=list("gri"))[0]
    with pytest.raises(BadCutoutError, match="no HDU Z; it has the HDUs 0, 1 G, 2 R, 3 I"):
        cutouts_of(tmp_path, "m.fits", bands=["z"], hdu="Z")[0]


def test_columns_name_hdus_and_arrays(tmp_path: Path, many_hdus: np.ndarray) -> None:
    import pandas as pd

    table = from_frame(pd.DataFrame({"ext": ["G", "3"], "n": ["7", "8"]}, dtype=object))
    assert part_fields({"g": "{ext}_{band}", "r": 1}) == ["ext"]
    assert expand_parts(5, table, ["g"]) is None
    hdus = expand_parts("{ext}", table, ["g"])
    recipe = Recipe(
        name="a", images="m.fits", catalogue="c", bands=("g",), pixel_scale=1, units="x",
        hdu="{ext}",
    )  # fmt: skip
    paths = np.array([["m.fits"], ["m.fits"]], dtype=object)
    cutouts = Cutouts(recipe, tmp_path, paths, hdus=hdus)
    np.testing.assert_array_equal(cutouts[0][0], many_hdus[0])
    np.testing.assert_array_equal(cutouts[1][0], many_hdus[2])

    with h5py.File(tmp_path / "all.h5", "w") as file:
        for name, image in zip("78", many_hdus, strict=False):
            file[f"{name}/image"] = image
    recipe = recipe.model_copy(update={"hdu": None, "key": "{n}/image"})
    keys = expand_parts("{n}/image", table, ["g"])
    paths = np.array([["all.h5"], ["all.h5"]], dtype=object)
    cutouts = Cutouts(recipe, tmp_path, paths, keys=keys)
    np.testing.assert_array_equal(cutouts[1][0], many_hdus[1])


def test_planes_are_chosen(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.normal(5, 1, (4, 8, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", image)
    cutouts = cutouts_of(tmp_path, "a.npy", bands=["i", "g"], planes=[2, 0])
    np.testing.assert_array_equal(cutouts[0], image[[2, 0]])
    with pytest.raises(BadCutoutError, match="has 4 planes, and planes="):
        cutouts_of(tmp_path, "a.npy", bands=["i"], planes=[4])[0]
    with pytest.raises(BadCutoutError, match=r"has 4 planes.*planes="):
        cutouts_of(tmp_path, "a.npy", bands=["i", "g"])[0]


def test_bands_that_are_last_are_pointed_out(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.normal(5, 1, (8, 8, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", image)
    with pytest.raises(BadCutoutError, match="set axes=HWB"):
        cutouts_of(tmp_path, "a.npy", bands=list("gri"))[0]
    cutouts = cutouts_of(tmp_path, "a.npy", bands=list("gri"), axes="HWB")
    np.testing.assert_array_equal(cutouts[0], np.moveaxis(image, -1, 0))

    np.save(tmp_path / "s.npy", image[None])
    recipe = Recipe(
        name="a", stack="s.npy", catalogue="c", bands=("g", "r", "i"), pixel_scale=1, units="x"
    )  # type: ignore[call-arg]
    stack = open_stack(recipe, tmp_path, np.array([0]), 1)
    of_stack = Cutouts(recipe, tmp_path, np.empty((1, 0), dtype=object), stack=stack)
    with pytest.raises(BadCutoutError, match="set stack_axes=NHWB"):
        of_stack.read(0)


# ---- types ----


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e6, "float16"), (1e-12, "float16"), (0.5, "uint8"), (300, "uint8")]
)
def test_what_does_not_survive_the_cast_is_refused(value: float, dtype: str) -> None:
    with pytest.raises(BadCutoutError, match=r"x\.npy"):
        cast_pixels(np.array([[[value, 1.0]]]), dtype, "x.npy")


@pytest.mark.parametrize(
    ("background", "spread", "dtype", "is_kept"),
    [
        (3000, 0.4, "float16", False),
        (1e9, 5, "float32", False),
        (1e-6, 1e-7, "float16", False),
        (100, 1, "float16", True),
        (1e6, 5, "float32", True),
        (1e-6, 1e-7, "float32", True),
    ],
)
def test_rounding_must_not_drown_a_band(
    tmp_path: Path, rng: np.random.Generator, background: float, spread: float, dtype: str,
    is_kept: bool,
) -> None:  # fmt: skip
    image = rng.normal(0, 1, (2, 16, 16)) + np.array([5, 0])[:, None, None]
    image[1] = background + spread * image[1]
    np.save(tmp_path / "a.npy", image)
    cutouts = cutouts_of(tmp_path, "a.npy", bands=["g", "r"], dtype=dtype)
    if is_kept:
        np.testing.assert_allclose(cutouts[0][1], image[1], atol=0.05 * spread)
        return
    with pytest.raises(BadCutoutError, match=rf"a\.npy: band r: in {dtype}, rounding would change"):
        cutouts.read(0)


def test_pixels_are_checked_as_they_are_stored(tmp_path: Path, rng: np.random.Generator) -> None:
    star = np.zeros((8, 8))
    star[3, 3] = 20
    alike = np.stack([100 + star, 100.001 + star])
    dark = -rng.uniform(0.5, 1, (2, 16, 16))
    dark[:, 3, 3] = 1e-9
    messages = {"the bands g and r hold the same image": alike, "its brightest pixel is 0": dark}
    for message, image in messages.items():
        np.save(tmp_path / "a.npy", image)
        assert cutouts_of(tmp_path, "a.npy", bands=["g", "r"], dtype="float32").read(0)
        with pytest.raises(BadCutoutError, match=rf"as float16, .* another dtype\): {message}"):
            cutouts_of(tmp_path, "a.npy", bands=["g", "r"], dtype="float16").read(0)


def test_what_survives_is_kept() -> None:
    values = np.array([[[0.0, 1.0, 200.0]]])
    for dtype in ("float32", "float16", "uint8"):
        np.testing.assert_array_equal(cast_pixels(values, dtype, "x.npy"), values)


def test_noise_that_crosses_zero_fits_float16(rng: np.random.Generator) -> None:
    image = rng.normal(0, 1e-3, (2, 64, 64)).astype(np.float32)
    image[0, 3, 3] = 1e-9
    stored = cast_pixels(image, "float16", "x.npy")
    np.testing.assert_allclose(stored, image, atol=1e-6)

    # One band of flux that is too faint is lost, however bright the other is.
    image[1] *= 1e-6
    with pytest.raises(BadCutoutError, match="do not fit float16"):
        cast_pixels(image, "float16", "x.npy")
