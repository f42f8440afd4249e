"""A packed dataset, for users of Python: its splits by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.summary import classes_text, cutouts_text, features_text
from lens_hpc.files import expand

if TYPE_CHECKING:
    import pandas as pd


class Dataset(Mapping[str, Split]):
    """The splits of a packed dataset, by name.

    >>> dataset = Dataset("data/demo/shards")
    >>> dataset["test"][0].image.shape
    (3, 64, 64)

    `path` is its folder and `manifest` what manifest.json holds. Raises UserError when the folder
    is no packed dataset, and when a split is asked for that it does not have. A split is opened
    when it is first asked for.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = expand(path)
        self.manifest = read_manifest(self.path)
        self._splits: dict[str, Split] = {}

    def __getitem__(self, name: str) -> Split:
        if name not in self._splits:
            self._splits[name] = Split(self.path, name)
        return self._splits[name]

    # Mapping takes both of these from `__getitem__`, whose UserError is no KeyError.

    def __contains__(self, name: object) -> bool:
        return name in self.manifest.splits

    def get(self, name: str, default: Any = None) -> Any:
        """Return a split, or the default if there is none of that name."""
        if name not in self:
            return default
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest.splits)

    def __len__(self) -> int:
        return len(self.manifest.splits)

    def __repr__(self) -> str:
        lines = [
            f"Dataset {self.manifest.name!r} in {self.path}",
            f"  cutouts   {cutouts_text(self.manifest)}",
            f"  features  {features_text(self.manifest)}",
        ]
        for name, record in self.manifest.splits.items():
            lines.append(f"  {name:<9} {classes_text(record)}")
        return "\n".join(lines)

    def to_pandas(self) -> "pd.DataFrame":
        """Return a table of all rows, a split behind the other, without the images.

        Its columns are id, split, label, group if there are groups, the features, and the columns
        that were kept beside them.
        """
        import pandas as pd

        tables = [split.to_pandas() for split in self.values()]
        return pd.concat(tables, ignore_index=True)
