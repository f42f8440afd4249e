from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.packing.cutouts import (
    Cutouts,
    cast_pixels,
    fill_bad_pixels,
    fit_centre,
    resample_plane,
)
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.recipe import BadPixels, Recipe


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


def test_cutouts_are_cropped_and_padded_around_the_centre() -> None:
    image = np.arange(25.0).reshape(1, 5, 5)
    np.testing.assert_array_equal(fit_centre(image, 3, 3), image[:, 1:4, 1:4])
    padded = fit_centre(image, 7, 3)
    np.testing.assert_array_equal(padded[:, 1:6], image[:, :, 1:4])
    assert not padded[:, [0, 6]].any()


def test_bad_pixels_are_filled_only_as_far_as_the_policy_says() -> None:
    image = np.arange(1.0, 17).reshape(1, 4, 4)
    image[0, 0, :2] = np.nan, np.inf
    with pytest.raises(BadCutoutError, match="2 of 16 pixels are NaN, infinite or masked"):
        fill_bad_pixels(image, BadPixels(), "x")
    filled = fill_bad_pixels(image, BadPixels(most=0.2), "x")
    assert filled[0, 0].tolist() == [9.5, 9.5, 3, 4]
    zeroed = fill_bad_pixels(image, BadPixels(most=0.2, fill="zero"), "x")
    assert zeroed[0, 0].tolist() == [0, 0, 3, 4]
    with pytest.raises(BadCutoutError, match="3 of 16"):
        fill_bad_pixels(image, BadPixels(mask=16), "x")


def test_a_constant_cutout_is_refused() -> None:
    with pytest.raises(BadCutoutError, match="all pixels are 3"):
        fill_bad_pixels(np.full((1, 4, 4), 3.0), BadPixels(), "x")


def test_a_stack_shorter_than_the_catalogue_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=(2, 1, 4, 4)))
    recipe = Recipe(
        name="a", stack="s.npy", bands=("g",), pixel_scale=1, units="x", catalogue="c.csv"
    )
    cutouts = Cutouts(recipe, tmp_path, np.empty((3, 0)))
    assert cutouts[1].shape == (1, 4, 4)
    with pytest.raises(BadCutoutError, match=r"s\.npy\[2\]: the stack has only 2 rows"):
        cutouts[2]


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e6, "float16"), (1e-12, "float16"), (0.5, "uint8"), (300, "uint8")]
)
def test_what_does_not_survive_the_cast_is_refused(value: float, dtype: str) -> None:
    with pytest.raises(BadCutoutError, match=r"x\.npy"):
        cast_pixels(np.array([[[value, 1.0]]]), dtype, "x.npy")


def test_what_survives_is_kept() -> None:
    values = np.array([[[0.0, 1.0, 200.0]]])
    for dtype in ("float32", "float16", "uint8"):
        np.testing.assert_array_equal(cast_pixels(values, dtype, "x.npy"), values)
