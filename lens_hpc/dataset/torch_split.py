"""A split as a dataset of torch: the only module of this room that imports torch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.data import Dataset as TorchDataset

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.sample import resolve_rows


class TorchSample(NamedTuple):
    """One item of a `TorchSplit`; a DataLoader makes batches with the same fields."""

    image: torch.Tensor
    """(bands, height, width) float32, in the units of the dataset."""
    features: torch.Tensor
    """(F,) float32; NaN where a value is missing."""
    label: int
    """1 for a lens, 0 for a non-lens, -1 for an unlabelled cutout."""


class TorchSplit(TorchDataset[TorchSample]):
    """Items of a split for a `torch.utils.data.DataLoader`, which may shuffle and have workers."""

    def __init__(self, split: ColumnReader) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> TorchSample:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[TorchSample]:
        """Return the items of a batch, read together. A DataLoader calls this where it exists."""
        row_numbers = resolve_rows(rows, len(self))
        images = torch.from_numpy(self.split.take("images", row_numbers)).float()
        features = torch.from_numpy(self.split.take("features", row_numbers))
        labels = self.split.take("labels", row_numbers).tolist()

        items = zip(images, features, labels, strict=True)
        return [TorchSample(image, feature, label) for image, feature, label in items]

    def __repr__(self) -> str:
        return f"TorchSplit({len(self):,} samples of {self.split.name!r} in {self.split.dataset})"
