"""Statistics of the training split: of all features, and of a sample of the pixels."""

from typing import NamedTuple

import numpy as np

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.manifest import PERCENTILES, Distribution, Statistics

PIXELS_SAMPLED = 500_000
ROWS_SAMPLED = 4096
ROWS_PER_READ = 256


class BandRanges(NamedTuple):
    """What only reading every pixel tells: of some cutouts, for each band, (bands,)."""

    lowest: np.ndarray
    highest: np.ndarray
    missing: np.ndarray
    """Pixels that hold no measurement."""

    def merged(self, other: "BandRanges") -> "BandRanges":
        """Return the ranges of the cutouts of both."""
        return BandRanges(
            lowest=np.minimum(self.lowest, other.lowest),
            highest=np.maximum(self.highest, other.highest),
            missing=self.missing + other.missing,
        )


def ranges_of_none(bands: int) -> BandRanges:
    """Return the ranges of no cutout."""
    return BandRanges(
        lowest=np.full(bands, np.inf),
        highest=np.full(bands, -np.inf),
        missing=np.zeros(bands, dtype=np.int64),
    )


def ranges_of(images: np.ndarray, missing: np.ndarray) -> BandRanges:
    """Return the ranges of cutouts (n, bands, height, width), and what they miss (bands,)."""
    lowest = images.min(axis=(0, 2, 3))
    highest = images.max(axis=(0, 2, 3))
    return BandRanges(lowest, highest, missing)


def training_statistics(
    train: ColumnReader, features: np.ndarray, ranges: BandRanges, seed: int
) -> Statistics:
    """Return the statistics of a training split whose shards are complete.

    `features` (N, F) are those of its rows, and `ranges` those of its pixels. Missing features are
    left out. Memory is bounded whatever the number of rows.
    """
    return Statistics(
        feature_min=tuple(np.nanmin(features, axis=0).tolist()),
        feature_max=tuple(np.nanmax(features, axis=0).tolist()),
        feature_median=tuple(np.nanmedian(features, axis=0).tolist()),
        image_max=max(0.0, float(ranges.highest.max())),
        features=tuple(_describe_feature(column) for column in features.T),
        bands=_describe_bands(train, ranges, seed),
    )


def _describe_feature(column: np.ndarray) -> Distribution:
    values = column[~np.isnan(column)]
    return Distribution(
        min=values.min(),
        max=values.max(),
        percentiles=_percentiles(values),
        missing=len(column) - len(values),
    )


def _percentiles(values: np.ndarray) -> dict[str, float]:
    at = np.percentile(values.astype(np.float64), PERCENTILES)
    pairs = zip(PERCENTILES, at.tolist(), strict=True)
    return {f"{percentile:g}": value for percentile, value in pairs}


# ---- pixels ----


def _describe_bands(train: ColumnReader, ranges: BandRanges, seed: int) -> tuple[Distribution, ...]:
    """Return the distribution of each band: its extremes of all pixels, the rest sampled."""
    bands = []
    for number, pixels in enumerate(sample_pixels(train, seed)):
        described = Distribution(
            min=ranges.lowest[number],
            max=ranges.highest[number],
            percentiles=_percentiles(pixels),
            missing=int(ranges.missing[number]),
        )
        bands.append(described)
    return tuple(bands)


def sample_pixels(train: ColumnReader, seed: int) -> np.ndarray:
    """Return pixels of each band from rows all over a split, (bands, pixels).

    They are all pixels where there are no more than PIXELS_SAMPLED a band.
    """
    count = len(train)
    bands, height, width = train.shape("images")
    pixels_of_image = height * width

    if count * pixels_of_image <= PIXELS_SAMPLED:
        rows = np.arange(count)
        pixels_a_row = pixels_of_image
    else:
        # Many rows, few pixels of each: what is bright or wide is bright over a whole cutout.
        rows = np.linspace(0, count - 1, min(count, ROWS_SAMPLED)).astype(np.int64)
        pixels_a_row = max(PIXELS_SAMPLED // len(rows), 1)

    rng = np.random.default_rng([seed, 2])
    sample = np.empty((bands, len(rows), pixels_a_row), train.dtype("images"))
    for start in range(0, len(rows), ROWS_PER_READ):
        part = rows[start : start + ROWS_PER_READ]
        images = train.take("images", part).reshape(len(part), bands, pixels_of_image)
        if pixels_a_row < pixels_of_image:
            # The same places in all bands, others in each row.
            places = rng.integers(pixels_of_image, size=(len(part), 1, pixels_a_row))
            images = np.take_along_axis(images, places, axis=2)
        sample[:, start : start + len(part)] = images.swapaxes(0, 1)
        train.forget()
    return sample.reshape(bands, -1)
