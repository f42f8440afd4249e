"""Scores of hosts and trials, part by part: those that are on disk already are kept."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc import files
from lens_hpc.logs import logger
from lens_hpc.predicting.score_files import damage_named, fingerprint_of, write_scores
from lens_hpc.progress import Progress

Make = Callable[[Sequence[np.ndarray]], Iterator[pd.DataFrame]]
"""Makes the table of each of some parts, which are numbers (B,), in their order."""


@dataclass(frozen=True)
class PartFiles:
    """A folder of tables, one a part, all of one fingerprint."""

    folder: Path
    fingerprint: str

    def complete(self, kind: str, parts: Sequence[np.ndarray], make: Make) -> pd.DataFrame:
        """Return the rows of all parts, when those that are not there are made."""
        files.make_folder(self.folder)
        paths = [self.folder / f"{kind}-{number:06d}.parquet" for number in range(len(parts))]
        missing = [
            number for number, path in enumerate(paths) if fingerprint_of(path) != self.fingerprint
        ]
        if len(missing) < len(parts):
            there = len(parts) - len(missing)
            logger.info("%s: %d of %d parts of %s are there", self.folder, there, len(parts), kind)

        wanted = [parts[number] for number in missing]
        with Progress(sum(map(len, wanted)), "completeness", kind) as progress:
            for number, table in zip(missing, make(wanted), strict=True):
                write_scored(paths[number], table, self.fingerprint)
                progress.update(len(table))
        return pd.concat([read_scores(path) for path in paths], ignore_index=True)


def write_scored(file: Path, table: pd.DataFrame, fingerprint: str) -> None:
    """Write a table that is a function of what the fingerprint stands for."""
    write_scores(file, pa.Table.from_pandas(table, preserve_index=False), fingerprint)


def read_scores(file: Path) -> pd.DataFrame:
    """Read a table. Raises UserError where it is damaged."""
    with damage_named(file):
        return pq.read_table(file).to_pandas()
