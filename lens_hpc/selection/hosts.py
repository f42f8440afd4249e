"""The galaxies that trials are painted on, as worker processes get them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.packing.hosts import open_hosts
from lens_hpc.packing.injection_recipe import InjectionRecipe


@dataclass(frozen=True)
class Hosts:
    """H galaxies of a packed dataset."""

    dataset: Path
    bands: tuple[str, ...]
    splits: np.ndarray
    """(H,) texts: the split of each."""
    rows: np.ndarray
    """(H,) int: its row there."""
    ids: np.ndarray
    """(H,) texts."""
    painted_by: list[dict[str, Any]]
    """What arcs are a function of, of each host, by column."""

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self) -> pd.DataFrame:
        """Return features and kept columns of the hosts, (H,) rows."""
        dataset = Dataset(self.dataset)
        tables = []
        for name in dict.fromkeys(self.splits):
            table = dataset[name].to_pandas()
            tables.append(table.iloc[self.rows[self.splits == name]])
        together = pd.concat(tables, ignore_index=True)
        return together.drop(columns=["id", "split", "label", "group"], errors="ignore")


class HostReader:
    """Reads the cutouts and features of hosts."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.dataset = Dataset(hosts.dataset)

    def read(self, column: str, numbers: np.ndarray) -> np.ndarray:
        """Return images or features of some hosts, in their order, as they were packed.

        Raises UserError where the dataset is damaged.
        """
        parts = []
        places = []
        splits = self.hosts.splits[numbers]
        for name in np.unique(splits):
            of_split = np.flatnonzero(splits == name)
            rows = self.hosts.rows[numbers[of_split]]
            split = self.dataset[str(name)]
            split.check_blocks(rows)
            parts.append(split.take(column, rows))
            places.append(of_split)
        return np.concatenate(parts)[np.argsort(np.concatenate(places))]


def find_hosts(dataset: Path, recipe: InjectionRecipe) -> Hosts:
    """Return all hosts that a recipe finds in a dataset, in the order of its splits.

    How many of them inject would paint does not matter here. Raises UserError as it does.
    """
    opened = open_hosts(dataset, recipe.model_copy(update={"share": 1.0}))
    splits: list[str] = []
    rows: list[int] = []
    ids: list[str] = []
    painted_by = []
    for name, split in opened.splits.items():
        own = np.flatnonzero(split.is_host).tolist()
        splits += [name] * len(own)
        rows += own
        ids += [str(split.ids[row]) for row in own]
        painted_by += [split.catalogue_of(row) for row in own]
    bands = opened.manifest.bands
    return Hosts(dataset, bands, np.array(splits), np.array(rows), np.array(ids), painted_by)
