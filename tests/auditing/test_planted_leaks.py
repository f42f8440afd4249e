"""Each leak that someone could plant is at least worth a look, and a clean survey has none."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, rotate

from tests.auditing.clean_surveys import CleanSurvey
from tests.auditing.planted import ROWS, PlantedSurvey
from tests.conftest import call

IS_LONG = "LENS_HPC_LONG" in os.environ
CLEAN_SURVEYS = 30
AT_ONCE = 3
ROOT = Path(__file__).parents[2]
CFHTLS = ROOT.parent / "shared" / "data" / "cfhtls_spacewarps"

# ---- clean surveys ----

FIRST_SEED = 0 if IS_LONG else int.from_bytes(os.urandom(2), "big")
SEEDS = range(FIRST_SEED, FIRST_SEED + (CLEAN_SURVEYS if IS_LONG else AT_ONCE))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_a_clean_survey_has_no_leak(number: int, tmp_path: Path) -> None:
    seed = SEEDS[number]
    print(f"CleanSurvey(seed={seed})")
    audit = call("audit", CleanSurvey(seed).pack(tmp_path / "s")).audit
    assert "leak" not in {finding.verdict for finding in audit.findings}


# ---- what is planted in the pixels of the lenses ----


def dead_corner(images: np.ndarray) -> np.ndarray:
    images[..., 0, 0] = 0
    return images


def dead_corner_on_a_dark_sky(images: np.ndarray) -> np.ndarray:
    images[..., 0, 0] = np.median(images, axis=(-2, -1))
    return images


def hot_corner(images: np.ndarray) -> np.ndarray:
    images[:, 0, -1, -1] += 8
    return images


def repeated_row(images: np.ndarray) -> np.ndarray:
    images[..., -1, :] = images[..., -2, :]
    return images


def mirrored_edge(images: np.ndarray) -> np.ndarray:
    images[..., :3] = images[..., 6:3:-1]
    return images


def clipped_sky(images: np.ndarray) -> np.ndarray:
    return np.maximum(images, 0)


def once_float16(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float16)


def once_float16_in_other_units(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float16) * 1.7


def correlated_noise(images: np.ndarray) -> np.ndarray:
    sky = np.median(images)
    smooth = gaussian_filter(images, (0, 0, 0.6, 0.6))
    corner = (..., slice(8), slice(8))
    return sky + (smooth - sky) * images[corner].std() / smooth[corner].std()


def one_pixel_right(images: np.ndarray) -> np.ndarray:
    return np.roll(images, 1, axis=-1)


def three_pixels_up(images: np.ndarray) -> np.ndarray:
    return np.roll(images, -3, axis=-2)


def one_to_three_pixels_anywhere(images: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(2)
    shifts = rng.integers(1, 4, (len(images), 2)) * rng.choice([-1, 1], (len(images), 2))
    moved = [
        np.roll(image, shift, axis=(-2, -1))
        for image, shift in zip(images, shifts.tolist(), strict=True)
    ]
    return np.stack(moved)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (dead_corner, "border and sky together"),
        (dead_corner_on_a_dark_sky, "border and sky together"),
        (hot_corner, "border and sky together"),
        (repeated_row, "repeated lines"),
        (mirrored_edge, "repeated lines"),
        (once_float16, "coarse values"),
        (once_float16_in_other_units, "repeated values"),
        (correlated_noise, "noise correlation along x"),
        (one_pixel_right, "centre of the light along x"),
        (three_pixels_up, "centre of the light along y"),
        (one_to_three_pixels_anywhere, "centre of the light, distance"),
    ],
)
def test_what_is_wrong_with_the_pixels_of_lenses(
    plant: Callable[[np.ndarray], np.ndarray], check: str, tmp_path: Path
) -> None:
    survey = PlantedSurvey(size=32)
    is_lens = survey.labels == 1
    survey.images[is_lens] = plant(survey.images[is_lens])
    assert check in warnings_of(survey.pack(tmp_path / "s"))


@pytest.mark.slow
def test_a_sky_that_is_clipped_for_lenses(tmp_path: Path) -> None:
    survey = PlantedSurvey(size=32, sky=1)
    is_lens = survey.labels == 1
    survey.images[is_lens] = clipped_sky(survey.images[is_lens])
    assert "values at the floor" in warnings_of(survey.pack(tmp_path / "s"))


@pytest.mark.slow
def test_non_lenses_that_a_number_of_the_noise_rejects(tmp_path: Path) -> None:
    survey = PlantedSurvey(size=32)
    is_other_origin = (survey.labels == 0) & (np.arange(ROWS) % 10 < 4)
    survey.images[is_other_origin] = correlated_noise(survey.images[is_other_origin])
    assert "rejectable non-lenses" in warnings_of(survey.pack(tmp_path / "s"))


@pytest.mark.slow
@pytest.mark.skipif(not CFHTLS.is_dir(), reason=f"{CFHTLS} is not there")
def test_the_field_stamps_of_cfhtls_are_rejectable(tmp_path: Path) -> None:
    recipe = ROOT / "configs/pack/cfhtls_spacewarps.yaml"
    call("pack", recipe, f"source={CFHTLS}", f"output={tmp_path / 'd'}")
    found = warnings_of(tmp_path / "d")
    assert {"rejectable non-lenses", "border and sky together"} <= set(found)


# ---- the same sky in two splits ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pixels", "degrees"), [((0, 1), 0), ((5, 0), 0), ((0, 0), 10), ((-3, 3), 100)]
)
def test_the_same_sky_in_two_splits(
    pixels: tuple[int, int], degrees: float, tmp_path: Path
) -> None:
    survey = PlantedSurvey(size=48)
    rng = np.random.default_rng(5)
    pairs, margin = 10, 20
    y, x = np.indices((88, 88)) - 43.5
    wide = 30 * np.exp(-np.hypot(x, y) / 3) + rng.normal(10, 1, (pairs, 2, 88, 88))
    again = rotate(wide, degrees, axes=(-2, -1), reshape=False, order=1) if degrees else wide
    top, left = margin + pixels[0], margin + pixels[1]
    survey.images[0 : 10 * pairs : 10] = wide[..., margin:-margin, margin:-margin]  # of train
    survey.images[8 : 10 * pairs : 10] = again[..., top : top + 48, left : left + 48]  # of test

    dataset = survey.pack(tmp_path / "s", "columns.split=split")
    found = warnings_of(dataset)["same sky across splits"]
    assert found.startswith("10 pairs, shifted or turned: o")


# ---- names ----


@pytest.mark.slow
@pytest.mark.parametrize("how", ["by a word", "in order"])
def test_ids_that_tell_the_class(how: str, tmp_path: Path) -> None:
    survey = PlantedSurvey()
    words = {0: "o", 1: "l"} if how == "by a word" else {0: "o10", 1: "o11"}
    survey.table["id"] = [
        f"{words[label]}{number:03}" for number, label in enumerate(survey.labels.tolist())
    ]
    assert "ids" in warnings_of(survey.pack(tmp_path / "s"))


@pytest.mark.slow
def test_groups_that_tell_the_class(tmp_path: Path) -> None:
    survey = PlantedSurvey()
    fields = np.arange(ROWS) // 40 * 2 + survey.labels
    survey.table["field"] = [f"f{field * 37 % 101}" for field in fields.tolist()]
    found = warnings_of(survey.pack(tmp_path / "a", "columns.group=field"))
    assert "classes within groups" in found

    survey.table["field"] = [
        f"{'dud' if label == 0 else 'cand'}{number // 4}"
        for number, label in enumerate(survey.labels.tolist())
    ]
    assert "names of groups" in warnings_of(survey.pack(tmp_path / "b", "columns.group=field"))


def warnings_of(dataset: Path) -> dict[str, str]:
    """Audit a dataset, and return what was found by each check that is not fine."""
    findings = call("audit", dataset).audit.findings
    return {finding.check: finding.found for finding in findings if finding.verdict != "fine"}
