from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing.cells import make_table
from lens_hpc.packing.joins import join_tables
from lens_hpc.packing.recipe import Join

LARGE = 2305843009213693953
HUGE = 2**64 - 1


def joined(folder: Path, keys: pa.Array, keys_there: pa.Array) -> list[int | None]:
    """Return the numbers, from 0, of the rows that are the partners of the keys."""
    pq.write_table(pa.table({"id": keys_there, "n": range(len(keys_there))}), folder / "c.parquet")
    table = make_table({"id": keys}, ["id"], ["id"])
    join = Join(catalogue="c.parquet", key="id")
    return join_tables(table, [join], folder, ["n"]).columns["n"].to_pylist()


def unsigned(*numbers: int) -> pa.Array:
    return pa.array(numbers, pa.uint64())


@pytest.mark.parametrize(
    ("keys", "keys_there", "expected"),
    [
        (unsigned(HUGE, 5), unsigned(HUGE - 1, 5), [None, 1]),
        (unsigned(HUGE, 5), unsigned(HUGE - 1, HUGE, 5), [1, 2]),
        (pa.array([str(HUGE), "5", "NA"]), unsigned(HUGE - 1, 5), [None, 1, None]),
        (pa.array([LARGE, 5]), unsigned(HUGE, LARGE - 1, 5), [None, 2]),
        (pa.array([LARGE, 5]), unsigned(LARGE, 5).cast(pa.decimal128(20, 0)), [0, 1]),
        (pa.array(["005", "5.0"]), pa.array([4, 5]), [1, 1]),
        (pa.array([4, 5]), pa.array([4.0, 5.5]), [0, None]),
        (pa.array([2**24]), pa.array([2.0**24], pa.float32()), [0]),
        (pa.array([True, False]), pa.array([1, 0]), [0, 1]),
    ],
)
def test_keys_are_compared_exactly(
    tmp_path: Path, keys: pa.Array, keys_there: pa.Array, expected: list[int | None]
) -> None:
    assert joined(tmp_path, keys, keys_there) == expected


@pytest.mark.parametrize(
    ("keys", "keys_there"),
    [
        (pa.array([LARGE, 5]), pa.array([float(LARGE), 5.0])),
        (pa.array([float(LARGE), 5.0]), pa.array([LARGE, 5])),
        (pa.array([str(LARGE), "5"]), pa.array([float(LARGE), 5.0])),
        (unsigned(HUGE, 5), pa.array([float(HUGE), 5.0])),
        (pa.array([LARGE, 5]), pa.array(["5.5", str(LARGE)])),
        (pa.array([2**24 + 1]), pa.array([2.0**24], pa.float32())),
    ],
)
def test_keys_that_a_float_cannot_hold_are_named(
    tmp_path: Path, keys: pa.Array, keys_there: pa.Array
) -> None:
    with pytest.raises(UserError, match=r"c.parquet: id .* loses digits. Write both as whole"):
        joined(tmp_path, keys, keys_there)


@pytest.mark.parametrize(
    ("existing", "reason"),
    [
        (("id", "x"), r"join: no column 'id' in .*c.csv, which have: name, y"),
        (("name", "x"), r"join: no column 'id' in the rows, which have: name, x"),
    ],
)
def test_a_key_that_is_not_there_is_named_with_what_is(
    tmp_path: Path, existing: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "c.csv").write_text("name,y\na,1\n")
    arrays: dict[str, Any] = {name: pa.array(["a"]) for name in existing}
    table = make_table(arrays, existing, existing)
    with pytest.raises(UserError, match=reason):
        join_tables(table, [Join(catalogue="c.csv", key="id")], tmp_path, ["y"])
