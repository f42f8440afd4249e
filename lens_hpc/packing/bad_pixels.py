"""Bad pixels: those that hold no measurement, and planes and cutouts that show nothing.

Each plane is judged on its own, on the grid of its own file.
"""

import math
import operator
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

import numpy as np

from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.recipe import BadPixels

COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

MOST_BITS = 64
"""Of a number."""

STEP_OF_NO_DOUBT = 1e-3
"""A type whose steps are smaller than this part of a band's range keeps it; no need to measure."""

MOST_ROUNDING = 0.05
"""Greatest error of rounding that is usual in a band, in its standard deviation."""

MOST_ROUNDED_TO_ZERO = 0.01
"""Noise crosses zero, so some pixels may become zero; a band that is too faint loses more."""


class Judged(NamedTuple):
    """Planes that may be packed."""

    values: np.ndarray
    """(bands, height, width)"""
    is_bad: np.ndarray | None
    """Where they hold no measurement; None where all do."""
    ranges: list[tuple[float, float]]
    """Least and greatest good value of each plane."""


def judge_planes(image: np.ndarray, policy: BadPixels, name: str, bands: Sequence[str]) -> Judged:
    """Find the pixels of planes (bands, height, width) that hold no measurement.

    One that is masked in a masked array holds none. Raises BadCutoutError, with `name` and the
    band, when a plane has too many such pixels, or when all its other pixels are equal.
    """
    values = values_of(image)
    ranges = plane_ranges(values)

    # NaN is the least and the greatest where it is at all.
    is_whole = values.dtype.kind != "f" or all(map(math.isfinite, chain(*ranges)))
    is_bad = None
    if policy.mask is not None or not is_whole or isinstance(image, np.ma.MaskedArray):
        is_bad = find_bad_pixels(image, policy.mask)
    if is_bad is not None:
        _check_counts(is_bad, policy, name, bands)
        ranges = _ranges_of_good(values, is_bad)

    if policy.constant_bands == "refuse":
        for band, (low, high) in zip(bands, ranges, strict=True):
            if low == high:
                raise BadCutoutError(
                    f"{name}: band {band}: all pixels are {low:g}; "
                    "bad_pixels.constant_bands=keep packs such a band"
                )
    return Judged(values, is_bad, ranges)


@cache
def name_of_type(dtype: np.dtype) -> str:
    """Return what a type is called."""
    return str(dtype)  # NumPy takes longer for it than for a look at all pixels


def values_of(image: np.ndarray) -> np.ndarray:
    """Return the values of an array that may be a masked one."""
    return image.data if isinstance(image, np.ma.MaskedArray) else image


def plane_ranges(image: np.ndarray) -> list[tuple[float, float]]:
    """Return the least and the greatest value of each plane, of (bands, height, width)."""
    flat = image.reshape(len(image), -1)
    low = np.minimum.reduce(flat, axis=1).tolist()
    high = np.maximum.reduce(flat, axis=1).tolist()
    return list(zip(low, high, strict=True))


def find_bad_pixels(image: np.ndarray, mask: float | None) -> np.ndarray | None:
    """Return where pixels hold no measurement; None where all do."""
    values = values_of(image)
    is_bad = np.ma.getmaskarray(image) if isinstance(image, np.ma.MaskedArray) else None
    if values.dtype.kind == "f":
        is_unreal = ~np.isfinite(values)
        is_bad = is_unreal if is_bad is None else is_bad | is_unreal
    if mask is not None:
        is_masked = is_word(values, mask)
        is_bad = is_masked if is_bad is None else is_bad | is_masked
    return is_bad if is_bad is not None and is_bad.any() else None


def is_word(values: np.ndarray, word: float) -> np.ndarray:
    """Say which values are the one that stands for no measurement, in their own precision."""
    return np.asarray(
        values == (np.asarray(word, values.dtype) if values.dtype.kind == "f" else word)
    )


def mask_pixels(image: np.ndarray, mask: np.ndarray, condition: str) -> np.ndarray:
    """Return the image as a masked array, bad where its mask fulfils a condition of the recipe.

    Both have the shape (planes, height, width), and a mask of one plane is one for all. Raises
    ValueError where they do not fit.
    """
    if mask.shape[1:] != image.shape[1:] or len(mask) not in (1, len(image)):
        raise ValueError(f"the mask has the shape {mask.shape}, and the image {image.shape}")

    values = values_of(mask)
    if condition.startswith("&"):
        if values.dtype.kind not in "iu":
            raise ValueError(f"masks.bad = {condition} is about bits, and the mask is of floats")
        unsigned = values.view(values.dtype.str.replace("i", "u"))
        named = int(condition[1:])
        bits = named & int(np.iinfo(unsigned.dtype).max)
        if not bits or named.bit_length() > MOST_BITS:
            raise ValueError(f"masks.bad = {condition}: numbers of {values.dtype} have no such bit")
        is_bad = (unsigned & bits) != 0
    else:
        sign = condition.rstrip("-+.0123456789eE ")
        is_bad = COMPARISONS[sign](values, float(condition.removeprefix(sign)))

    # A mask without a value says nothing good of its pixel.
    is_bad = is_bad | np.isnan(values) | np.ma.getmaskarray(mask) | np.ma.getmaskarray(image)
    return np.ma.MaskedArray(values_of(image), is_bad)


def _check_counts(is_bad: np.ndarray, policy: BadPixels, name: str, bands: Sequence[str]) -> None:
    for plane, band in zip(is_bad, bands, strict=True):
        if plane.mean() > policy.most:
            count = np.count_nonzero(plane)
            raise BadCutoutError(
                f"{name}: band {band}: {count:,} of {plane.size:,} pixels are NaN, infinite or "
                "masked; bad_pixels.most says how many may be"
            )


def _ranges_of_good(values: np.ndarray, is_bad: np.ndarray) -> list[tuple[float, float]]:
    """Return the least and the greatest good value of each plane; 0 where it has none."""
    ranges = []
    for plane, is_wrong in zip(values, is_bad, strict=True):
        good = plane[~is_wrong]
        ranges.append((float(good.min()), float(good.max())) if good.size else (0.0, 0.0))
    return ranges


def fill_bad_pixels(values: np.ndarray, is_bad: np.ndarray | None, policy: BadPixels) -> np.ndarray:
    """Return planes whose bad pixels are replaced by the recipe's policy."""
    if is_bad is None:
        return values

    # The image may be a view of a mapped file.
    filled = values.copy()
    for plane, is_wrong in zip(filled, is_bad, strict=True):
        plane[is_wrong] = _fill_value(plane[~is_wrong], policy)
    return filled


def _fill_value(good_pixels: np.ndarray, policy: BadPixels) -> float:
    if policy.fill == "median" and good_pixels.size:
        return np.median(good_pixels)
    return 0


# ---- whole cutouts ----


def are_surely_good(images: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Say which of many cutouts are stored as they are, whatever the recipe's policy, (N,).

    `images` is (N, bands, height, width), and `dtype` the type to store. One of which it says no
    may be good, too: only the other functions know. This one looks only once at all pixels.
    """
    count, bands, height, _ = images.shape
    if images.dtype != dtype:
        return np.zeros(count, dtype=bool)

    # A sum is finite only if all its pixels are.
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduce(images.reshape(count, bands, -1), axis=2)
    is_finite = np.isfinite(sums).all(axis=1)

    # The row through the middle is enough to see that a band shows something, and no other's image.
    middle = images[:, :, height // 2].copy()
    low = middle.min(axis=2)
    high = middle.max(axis=2)
    has_detail = (low < high).all(axis=1)
    has_light = (high > 0).any(axis=1)
    return is_finite & has_detail & has_light & ~_may_be_alike(low, high)


def _may_be_alike(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Say which cutouts have bands with the same least and greatest values (N, bands), (N,)."""
    first, second = np.triu_indices(low.shape[1], k=1)
    same_low = low[:, first] == low[:, second]
    same_high = high[:, first] == high[:, second]
    return np.asarray((same_low & same_high).any(axis=1))


def check_cutout(
    image: np.ndarray, ranges: list[tuple[float, float]], name: str, bands: Sequence[str]
) -> None:
    """Raise BadCutoutError for a cutout without light, or with the same image in two bands.

    `ranges` are the least and the greatest value of each band.
    """
    low = min(low for low, _ in ranges)
    peak = max(high for _, high in ranges)
    if low == peak:
        raise BadCutoutError(f"{name}: all pixels are {peak:g}")
    if peak <= 0:
        raise BadCutoutError(
            f"{name}: its brightest pixel is {peak:g}, and cutouts are scaled by theirs, which "
            "must be above 0"
        )
    if len(set(ranges)) < len(ranges):
        _check_bands_differ(image, ranges, name, bands)


def _check_bands_differ(
    image: np.ndarray, ranges: list[tuple[float, float]], name: str, bands: Sequence[str]
) -> None:
    for number, (low, high) in enumerate(ranges):
        first = ranges.index((low, high))
        if first < number and low < high and np.array_equal(image[first], image[number]):
            raise BadCutoutError(
                f"{name}: the bands {bands[first]} and {bands[number]} hold the same image; name "
                "where each lies (images, hdu, key), or a grey picture's only plane (planes=[0])"
            )


def cast_pixels(image: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Return the image in the type to store; BadCutoutError when its pixels do not survive."""
    if image.dtype == dtype:
        return image

    with np.errstate(over="ignore", invalid="ignore"):
        stored = image.astype(dtype)

    # A picture must stay as it is to the count; a float may be rounded, but not to infinity.
    if dtype == "uint8":
        survives = bool((stored == image).all())
    else:
        survives = bool(np.isfinite(stored).all()) and not _loses_a_band(image, stored)

    if not survives:
        low = image.min()
        high = image.max()
        raise BadCutoutError(
            f"{name}: pixels from {low:g} to {high:g} do not fit {dtype}; choose another dtype"
        )
    return stored


def check_stored(
    stored: np.ndarray,
    image: np.ndarray,
    ranges: list[tuple[float, float]],
    name: str,
    bands: Sequence[str],
) -> None:
    """Raise BadCutoutError where planes lose in the type to store what `check_cutout` asks for.

    Both have the shape (bands, height, width); `image` has the type of the file, and `ranges` are
    the least and the greatest value of each of its bands.
    """
    if stored.dtype == image.dtype or stored.dtype.kind != "f":
        return

    # Rounding leaves the order of numbers as it is, so there is no need to look for them again.
    rounded = np.array(ranges, np.float64).astype(stored.dtype).tolist()
    ranges = [(low, high) for low, high in rounded]
    dtype = name_of_type(stored.dtype)
    for number, band in enumerate(bands):
        if _loses_detail(stored[number], image[number], *ranges[number]):
            raise BadCutoutError(
                f"{name}: band {band}: in {dtype}, rounding would change its pixels (near "
                f"{ranges[number][1]:g}) by more than {MOST_ROUNDING:.0%} of their standard "
                "deviation; choose another dtype, or write images with less background or in "
                "other units"
            )
    check_cutout(
        stored, ranges, f"{name}: as {dtype}, but not in the file (choose another dtype)", bands
    )


def _loses_detail(stored: np.ndarray, plane: np.ndarray, low: float, high: float) -> bool:
    """Say whether rounding has changed a plane by much of its own variation."""
    relative_step, least_step = _steps_of(stored.dtype)
    step = max(max(abs(low), abs(high)) * relative_step, least_step)
    if step < STEP_OF_NO_DOUBT * (high - low):
        return False

    error = float(np.std(stored.astype(np.float64) - plane))
    return error > MOST_ROUNDING * float(np.std(plane, dtype=np.float64))


@cache
def _steps_of(dtype: np.dtype) -> tuple[float, float]:
    """Return the relative step between the numbers of a type, and the least step."""
    info = np.finfo(dtype)
    return float(info.eps), float(info.smallest_subnormal)


def _loses_a_band(image: np.ndarray, stored: np.ndarray) -> bool:
    vanishes = (stored == 0) & (image != 0)
    return bool((vanishes.mean(axis=(1, 2)) > MOST_ROUNDED_TO_ZERO).any())
