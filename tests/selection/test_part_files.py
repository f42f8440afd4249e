from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens_hpc.errors import UserError
from lens_hpc.selection.part_files import PartFiles, read_scores

PARTS = [np.arange(0, 4), np.arange(4, 8), np.arange(8, 9)]


def test_only_parts_that_are_not_there_are_made(tmp_path: Path) -> None:
    made: list[int] = []

    def make(parts: Sequence[np.ndarray]) -> Iterator[pd.DataFrame]:
        for part in parts:
            made.extend(part.tolist())
            yield pd.DataFrame({"trial": part, "logit": part / 2})

    files = PartFiles(tmp_path / "parts", "of these weights")
    whole = files.complete("trials", PARTS, make)
    assert whole["trial"].tolist() == made == list(range(9))

    (tmp_path / "parts" / "trials-000001.parquet").unlink()
    made.clear()
    pd.testing.assert_frame_equal(files.complete("trials", PARTS, make), whole)
    assert made == [4, 5, 6, 7]

    # Those of another fingerprint are none.
    made.clear()
    PartFiles(tmp_path / "parts", "of others").complete("trials", PARTS, make)
    assert made == list(range(9))


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "trials.parquet"
    file.write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(UserError, match="delete it"):
        read_scores(file)
