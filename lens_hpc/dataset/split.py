"""A split of a dataset: a sequence of samples, whose columns are read by row numbers."""

import operator
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.kept_columns import read_kept_columns, read_truth_columns
from lens_hpc.dataset.sample import Sample, SampleBatch, resolve_rows
from lens_hpc.dataset.summary import classes_text, cutouts_text, features_text

if TYPE_CHECKING:
    import pandas as pd

    from lens_hpc.dataset.torch_split import TorchSplit

ROWS_PER_READ = 64


class Split(ColumnReader):
    """The rows of one split, as samples.

    `split[5]` is a `Sample`; `split[10:20]` and `split[[3, 1, 2]]` are a `SampleBatch`; a loop over
    a split yields its samples. Everything is as it was packed, in physical units.
    """

    @overload
    def __getitem__(self, key: int) -> Sample: ...

    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> SampleBatch: ...

    def __getitem__(self, key: Any) -> Sample | SampleBatch:
        """Return the sample of a row number, or the samples of a slice or of many row numbers.

        Negative numbers count from the end; an array of booleans chooses where it is true. Raises
        IndexError for a row that the split does not have.
        """
        if isinstance(key, slice):
            return self._read(np.arange(len(self))[key])
        if np.ndim(key):
            return self._read(resolve_rows(key, len(self)))

        row = operator.index(key)
        return self._read(resolve_rows([row], len(self))).sample(0)

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), ROWS_PER_READ):
            batch = self[start : start + ROWS_PER_READ]
            for position in range(len(batch.labels)):
                yield batch.sample(position)

    def __repr__(self) -> str:
        lines = [
            f"Split {self.name!r} of {self.manifest.name!r} in {self.dataset}",
            f"  samples   {classes_text(self.record)}",
            f"  cutouts   {cutouts_text(self.manifest)}",
            f"  features  {features_text(self.manifest)}",
        ]
        return "\n".join(lines)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table of all rows, without the images.

        Its columns are id, split, label, group if the dataset has groups, the features, and the
        columns that were kept beside them. Its index is the row numbers.
        """
        import pandas as pd

        rows = np.arange(len(self))
        labels = self.take("labels", rows)
        table = pd.DataFrame({"id": self.ids(), "split": self.name, "label": labels})
        if self.manifest.grouped:
            table["group"] = self.texts("groups")

        # A feature may have the name of another column: tables that are joined keep both.
        features = pd.DataFrame(self.take("features", rows), columns=list(self.manifest.features))
        kept = self.kept_columns().reset_index(drop=True)
        return pd.concat([table, features, kept], axis=1)

    def kept_columns(self) -> "pd.DataFrame":
        """Return the columns that the recipe keeps beside the data, such as positions.

        There is a row for each of the split's, by its id, and no column where none were kept.
        """
        return read_kept_columns(self.dataset, self.manifest).reindex(self.ids())

    def truth(self) -> "pd.DataFrame":
        """Return what is known of lenses that were painted: Einstein radius, magnification, ...

        There is a row for each of the split's, by its id, empty for what was not painted.
        """
        return read_truth_columns(self.dataset, self.manifest).reindex(self.ids())

    def to_torch(self) -> "TorchSplit":
        """Return the split as a `torch.utils.data.Dataset`.

        Its items are the image (bands, height, width) and the features (F,), float32 tensors as
        they were packed, and the label, an int. A DataLoader may shuffle them and have workers.
        """
        from lens_hpc.dataset.torch_split import TorchSplit

        return TorchSplit(self)

    def _read(self, row_numbers: np.ndarray) -> SampleBatch:
        return SampleBatch(
            images=self.take("images", row_numbers),
            features=self.take("features", row_numbers),
            labels=self.take("labels", row_numbers),
            ids=self.ids(row_numbers),
            groups=self.texts("groups", row_numbers),
            targets=self.take("targets", row_numbers),
            weights=self.take("weights", row_numbers),
        )
