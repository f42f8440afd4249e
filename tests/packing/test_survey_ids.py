from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_hpc.packing.survey_ids import RepeatedId, SeenIds


def find_repeated(tables: Sequence[Sequence[str]]) -> RepeatedId | None:
    """Return a repeated id of tables whose rows follow each other."""
    ids = [name for table in tables for name in table]
    with TemporaryDirectory() as folder:
        seen = SeenIds(Path(folder) / "hashes")
        row = 0
        for table in tables:
            rows = np.arange(row, row + len(table))
            repeated = seen.add(np.array(table, dtype=str), rows)
            if repeated:
                return repeated
            row += len(table)
        return seen.find_repeated(ids.__getitem__)


NAMES = st.integers(0, 60).map(lambda number: f"{number}é")


@pytest.mark.parametrize("hashes", [None, 1, 3])
@settings(max_examples=60, deadline=None)
@given(tables=st.lists(st.lists(NAMES, max_size=6), max_size=5))
def test_an_id_that_stands_twice_is_found(hashes: int | None, tables: list[list[str]]) -> None:
    real_hash = pd.util.hash_array
    with pytest.MonkeyPatch.context() as patch:
        if hashes:
            # There are so few hashes that different ids have the same one.
            patch.setattr(
                pd.util, "hash_array", lambda *given, **named: real_hash(*given, **named) % hashes
            )
        repeated = find_repeated(tables)

    ids = [name for table in tables for name in table]
    assert (repeated is None) == (len(set(ids)) == len(ids))
    if repeated:
        assert repeated.first_row < repeated.second_row
        assert ids[repeated.first_row] == ids[repeated.second_row] == repeated.id


def test_many_ids_of_all_ranges_are_compared() -> None:
    tables = [[f"{table} {number}" for number in range(2_000)] for table in range(3)]
    assert find_repeated(tables) is None
    for name in ("0 0", "1 777", "0 1999"):
        repeated = find_repeated([*tables, [name]])
        assert repeated is not None
        assert repeated.id == name
        assert repeated.second_row == 6_000
