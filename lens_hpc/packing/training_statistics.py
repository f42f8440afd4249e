"""Statistics of the training split: of all features, and of a sample of the pixels."""

import numpy as np

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.manifest import PERCENTILES, Distribution, Statistics
from lens_hpc.packing.notes import ShardNote

PIXELS_SAMPLED = 500_000
ROWS_SAMPLED = 4096
ROWS_PER_READ = 256


def training_statistics(
    train: ColumnReader, features: np.ndarray, notes: list[ShardNote], seed: int
) -> Statistics:
    """Return the statistics of a training split whose shards are complete.

    `features` (N, F) are those of its rows, and `notes` those of its shards. Missing features are
    left out. Memory is bounded whatever the number of rows.
    """
    return Statistics(
        feature_min=tuple(np.nanmin(features, axis=0).tolist()),
        feature_max=tuple(np.nanmax(features, axis=0).tolist()),
        feature_median=tuple(np.nanmedian(features, axis=0).tolist()),
        image_max=max(0.0, *(value for note in notes for value in note.band_max)),
        features=tuple(_describe_feature(column) for column in features.T),
        bands=_describe_bands(train, notes, seed),
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


def _describe_bands(
    train: ColumnReader, notes: list[ShardNote], seed: int
) -> tuple[Distribution, ...]:
    """Return the distribution of each band: its extremes from the notes, the rest sampled."""
    written = [note for note in notes if note.record]
    lowest = np.min([note.band_min for note in written], axis=0)
    highest = np.max([note.band_max for note in written], axis=0)
    missing = np.sum([note.missing_pixels for note in written], axis=0)

    bands = []
    for number, pixels in enumerate(sample_pixels(train, seed)):
        described = Distribution(
            min=lowest[number],
            max=highest[number],
            percentiles=_percentiles(pixels),
            missing=int(missing[number]),
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
