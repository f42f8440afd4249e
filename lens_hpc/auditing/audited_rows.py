"""The rows of all splits of a dataset, one split behind the other."""

import numpy as np

from lens_hpc.auditing.shortcuts import Power, measure_power, measure_rank_power
from lens_hpc.dataset.split import Split


class AuditedRows:
    """The rows of all splits, numbered from 0 through all of them; N is their number.

    In a `quick` audit, the power of numbers is measured by their order alone, without training.
    """

    def __init__(self, splits: list[Split], quick: bool) -> None:
        self.splits = splits
        self.manifest = splits[0].manifest
        self.quick = quick

        lengths = [len(split) for split in splits]
        self._first_rows = np.cumsum([0, *lengths])
        self.split_numbers = np.repeat(np.arange(len(splits)), lengths)
        """Which of the splits each row is in, (N,)."""

        self.labels = self._read_column("labels")
        """1 for a lens, 0 for a non-lens, -1 for an unlabelled row, (N,)."""
        self.features = self._read_column("features")
        """Catalogue features, NaN where missing, (N, F)."""
        self.is_labelled = self.labels >= 0

        self.group_numbers = None
        """A number for each group of rows that belong together, (N,); None without groups."""
        if self.manifest.grouped:
            groups = np.concatenate([split.texts("groups") for split in splits])
            _, self.group_numbers = np.unique(groups, return_inverse=True)

    def __len__(self) -> int:
        return len(self.labels)

    def _read_column(self, name: str) -> np.ndarray:
        columns = []
        for split in self.splits:
            all_rows = np.arange(len(split))
            columns.append(split.take(name, all_rows))
        return np.concatenate(columns)

    def read_images(self, row_numbers: np.ndarray) -> np.ndarray:
        """Return the cutouts of any B rows, (B, bands, height, width)."""
        one_split = self.splits[0]
        shape = (len(row_numbers), *one_split.shape("images"))
        images = np.empty(shape, one_split.dtype("images"))

        for number, split in enumerate(self.splits):
            is_here = self.split_numbers[row_numbers] == number
            numbers_in_split = row_numbers[is_here] - self._first_rows[number]
            images[is_here] = split.take("images", numbers_in_split)
        return images

    def describe_row(self, row_number: int) -> str:
        """Return the id of a row and the split it is in."""
        split_number = self.split_numbers[row_number]
        split = self.splits[split_number]
        number_in_split = row_number - self._first_rows[split_number]
        [identifier] = split.ids(np.array([number_in_split]))
        return f"{identifier} ({split.name})"

    def measure_power(
        self, numbers: np.ndarray, row_numbers: np.ndarray | None = None, by_rank: bool = False
    ) -> Power | None:
        """Measure how well numbers of rows, (N,) or (N, F), tell the labelled rows' classes.

        They are those of all rows, unless `row_numbers` (N,) says which, and tell by their order
        alone in a quick audit or `by_rank`. Return None where a class is too small.
        """
        rows = np.arange(len(self)) if row_numbers is None else row_numbers
        is_labelled = self.is_labelled[rows]
        rows = rows[is_labelled]
        numbers = numbers[is_labelled]
        labels = self.labels[rows]
        groups = None if self.group_numbers is None else self.group_numbers[rows]

        if self.quick or by_rank:
            return measure_rank_power(labels, numbers, groups)
        return measure_power(labels, numbers, groups)

    def draw(self, at_most: int, is_wanted: np.ndarray) -> np.ndarray:
        """Return the numbers of at most so many of the wanted rows, (N,), always the same ones."""
        rng = np.random.default_rng(0)
        shuffled = rng.permutation(np.flatnonzero(is_wanted))
        return np.sort(shuffled[:at_most])
