"""Samples as a user of Python gets them: one, or many at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Sample(NamedTuple):
    """One row of a split."""

    image: np.ndarray
    """(bands, height, width), as it was packed, in the units of the dataset."""
    features: np.ndarray
    """(F,) float32, in the units of the catalogue; NaN where a value is missing."""
    label: int
    """1 for a lens, 0 for a non-lens, -1 for an unlabelled cutout."""
    id: str
    group: str
    """Empty where the dataset has no groups."""
    target: float = float("nan")
    """Soft label from 0 to 1; NaN: the label."""
    weight: float = 1.0
    """Of the row in the loss."""

    def __repr__(self) -> str:
        parts = [
            f"id={self.id!r}",
            f"label={self.label}",
            f"image={self.image.dtype}{list(self.image.shape)}",
            f"features={self.features}",
        ]
        if self.group:
            parts.append(f"group={self.group!r}")
        return f"Sample({', '.join(parts)})"


class SampleBatch(NamedTuple):
    """Some rows of a split, N of them."""

    images: np.ndarray
    """(N, bands, height, width), as they were packed, in the units of the dataset."""
    features: np.ndarray
    """(N, F) float32, in the units of the catalogue; NaN where a value is missing."""
    labels: np.ndarray
    """(N,) int8: 1 for a lens, 0 for a non-lens, -1 for an unlabelled cutout."""
    ids: np.ndarray
    """(N,) strings."""
    groups: np.ndarray
    """(N,) strings, empty where the dataset has no groups."""
    targets: np.ndarray
    """(N,) float32: soft labels from 0 to 1; NaN: the label."""
    weights: np.ndarray
    """(N,) float32: of each row in the loss."""

    def __repr__(self) -> str:
        parts = [
            f"images={self.images.dtype}{list(self.images.shape)}",
            f"features={self.features.dtype}{list(self.features.shape)}",
            f"labels={self.labels}",
            f"ids={self.ids}",
        ]
        return f"SampleBatch({', '.join(parts)})"

    def sample(self, position: int) -> Sample:
        """Return one of the rows."""
        return Sample(
            image=self.images[position],
            features=self.features[position],
            label=int(self.labels[position]),
            id=str(self.ids[position]),
            group=str(self.groups[position]),
            target=float(self.targets[position]),
            weight=float(self.weights[position]),
        )


def resolve_rows(chosen: Sequence[int] | np.ndarray, rows: int) -> np.ndarray:
    """Return the row numbers, (N,) int64 from 0 on, that an index into `rows` rows means.

    `chosen` holds numbers, negative ones counting from the end, or a boolean for each row. Raises
    IndexError for a number beyond the rows, and TypeError for what is no number.
    """
    numbers = np.asarray(chosen)
    if numbers.ndim != 1:
        raise IndexError(f"rows are chosen by one list of numbers, not by {numbers.ndim} axes")
    if not len(numbers):
        return np.empty(0, dtype=np.int64)

    if numbers.dtype == bool:
        if len(numbers) != rows:
            raise IndexError(f"{len(numbers)} booleans cannot choose among {rows} rows")
        return np.flatnonzero(numbers)

    if not np.issubdtype(numbers.dtype, np.integer):
        raise TypeError(f"rows are chosen by numbers or booleans, not by {numbers.dtype}")
    is_beyond = (numbers < -rows) | (numbers >= rows)
    if is_beyond.any():
        raise IndexError(f"row {numbers[is_beyond][0]} is not one of the {rows} rows")
    numbers = numbers.astype(np.int64)
    return np.where(numbers < 0, numbers + rows, numbers)
