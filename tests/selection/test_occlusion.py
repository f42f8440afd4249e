import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.selection.occlusion import contrast, find_control, hide


@given(st.integers(0, 1000))
def test_a_control_is_as_near_to_the_middle_and_hides_nothing_of_the_arc(seed: int) -> None:
    mask = np.random.default_rng(seed).random((9, 9)) < 0.1
    control = find_control(mask)
    assert not (control.mask & mask).any()
    if mask.any():
        assert control.mask.sum() == round(mask.sum() * (1 - control.overlap))

    # Turned and flipped, it has the same distances.
    y, x = np.mgrid[-4:5, -4:5]
    distances = np.sort(np.hypot(x, y)[control.mask])
    of_mask = np.sort(np.hypot(x, y)[mask]).tolist()
    assert set(distances.tolist()) <= set(of_mask)


def test_of_an_arc_it_is_on_the_other_side_and_of_a_ring_there_is_none() -> None:
    y, x = np.mgrid[-10:11, -10:11]
    is_ring = abs(np.hypot(x, y) - 7) < 1
    arc = find_control(is_ring & (x > 4))
    assert arc.is_one
    assert arc.overlap == 0
    assert arc.mask.sum() == (is_ring & (x > 4)).sum()
    assert not find_control(is_ring).is_one


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_only_the_masked_pixels_are_hidden_by_sky_like_the_rest(dtype: type) -> None:
    rng = np.random.default_rng(0)
    sky = np.array([20.0, 60.0])[:, np.newaxis, np.newaxis]
    cutout = (sky + 3 * rng.normal(size=(2, 60, 60))).astype(dtype)
    mask = np.zeros((60, 60), dtype=bool)
    mask[10:50, 10:30] = True
    before = cutout.copy()
    cutout[:, 12:20, 12:20] = 200

    hidden = hide(np.random.default_rng(1), cutout, mask)
    assert hidden.dtype == dtype
    np.testing.assert_array_equal(hidden[:, ~mask], before[:, ~mask])

    # Of 800 pixels, mean and deviation are known to 3 / sqrt(800); 6 sigma.
    of_mask = hidden[:, mask].astype(float)
    assert of_mask.mean(axis=1) == pytest.approx(sky.ravel(), abs=6 * 3 / np.sqrt(800) + 0.5)
    assert of_mask.std(axis=1) == pytest.approx([3, 3], rel=0.25)


def test_contrast_is_one_where_attention_is_as_everywhere() -> None:
    mask = np.zeros((4, 4), dtype=bool)
    mask[0] = True
    assert contrast(np.full((4, 4), 0.3), mask) == pytest.approx(1)
    assert contrast(np.where(mask, 1.0, 0.0), mask) == pytest.approx(4)
    assert np.isnan(contrast(np.zeros((4, 4)), mask))
    assert np.isnan(contrast(np.ones((4, 4)), ~np.ones((4, 4), dtype=bool)))
