"""Rows that a run was trained on are known again in another dataset."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.shards import crc32_of_each, hash_pixels
from lens_hpc.dataset.training_rows import (
    RowHashes,
    find_seen_rows,
    hash_rows,
    read_row_hashes,
    write_row_hashes,
)
from lens_hpc.errors import UserError
from tests.conftest import pack_survey, write_survey

KEEP = "columns.keep=[ra, dec]"
NO_TRAIN = ("splits={survey: 1.0}", "columns.label=null")


def write_sky(folder: Path, shift_arcsec: float = 0.0) -> Path:
    right_ascensions = [f"{(i * 9) % 360}" for i in range(40)]
    declinations = [f"{i - 20 + shift_arcsec / 3600:.8f}" for i in range(40)]
    return write_survey(folder, ra=right_ascensions, dec=declinations)


def test_rows_packed_anew_are_known_by_pixels_and_place(tmp_path: Path) -> None:
    survey = write_sky(tmp_path / "s")
    train = Dataset(pack_survey(survey, tmp_path / "d", KEEP))["train"]
    write_row_hashes(tmp_path / "rows.parquet", hash_rows(train))
    trained = read_row_hashes(tmp_path / "rows.parquet")
    assert trained is not None

    # Other ids, the same files; then the same ids, other pixels at another place.
    renamed = write_sky(tmp_path / "renamed", shift_arcsec=0.4)
    for row in range(40):
        shutil.move(renamed / f"obj{row}.npy", renamed / f"new{row}.npy")
    table = pd.read_csv(renamed / "catalogue.csv")
    table["id"] = [f"new{row}" for row in range(40)]
    table.to_csv(renamed / "catalogue.csv", index=False)
    again = Dataset(pack_survey(renamed, tmp_path / "e", KEEP, *NO_TRAIN))["survey"]
    seen = find_seen_rows(hash_rows(again), trained)
    was_trained = np.isin(again.ids(), [name.replace("obj", "new") for name in train.ids()])
    assert was_trained.sum() == 28
    assert not seen.by_id.any()
    np.testing.assert_array_equal(seen.by_pixels, was_trained)
    np.testing.assert_array_equal(seen.by_position, was_trained)

    other = write_sky(tmp_path / "other", shift_arcsec=5)
    for row in range(40):
        np.save(other / f"obj{row}.npy", np.load(other / f"obj{row}.npy") + 1)
    others = Dataset(pack_survey(other, tmp_path / "f", KEEP, *NO_TRAIN))["survey"]
    seen = find_seen_rows(hash_rows(others), trained)
    np.testing.assert_array_equal(seen.by_id, np.isin(others.ids(), train.ids()))
    assert not seen.by_pixels.any()
    assert not seen.by_position.any()


def test_positions_may_be_unknown(tmp_path: Path) -> None:
    survey = write_survey(tmp_path / "s")
    rows = hash_rows(Dataset(pack_survey(survey, tmp_path / "d"))["train"])
    assert np.isnan(rows.positions).all()
    assert not find_seen_rows(rows, rows).by_position.any()
    assert find_seen_rows(rows, rows).by_pixels.all()


def test_an_older_run_has_none_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert read_row_hashes(tmp_path / "rows.parquet") is None
    (tmp_path / "rows.parquet").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"rows\.parquet: is damaged"):
        read_row_hashes(tmp_path / "rows.parquet")


def row_table(**columns: pa.Array) -> pa.Table:
    """Return a sound table of two rows, but for these columns; None leaves one out."""
    hashes = pa.array([1, 2], pa.uint64())
    degrees = pa.array([1.5, None], pa.float64())
    table = {"id_hash": hashes, "pixel_hash": hashes, "ra": degrees, "dec": degrees} | columns
    return pa.table({name: values for name, values in table.items() if values is not None})


@pytest.mark.parametrize(
    "columns",
    [
        {"ra": None},
        {"id_hash": pa.array([1, None], pa.uint64())},
        {"id_hash": pa.array(["a", "b"])},
        {"pixel_hash": pa.array([[1], [2]])},
        {"dec": pa.array([b"x", b"y"])},
    ],
    ids=["a column less", "null", "texts", "lists", "bytes"],
)
def test_rows_of_another_kind_are_refused(tmp_path: Path, columns: dict[str, pa.Array]) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(row_table(), file)
    assert read_row_hashes(file) is not None
    pq.write_table(row_table(**columns), file)
    with pytest.raises(UserError, match=r"rows\.parquet: is damaged"):
        read_row_hashes(file)


def test_one_damaged_byte_is_read_or_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(row_table(), file)
    sound = file.read_bytes()
    for place in range(0, len(sound), 3):
        content = bytearray(sound)
        content[place] ^= 0x55
        file.write_bytes(content)
        said = ""
        try:
            read_row_hashes(file)
        except UserError as error:
            said = str(error)
        assert not said or str(file) in said


def test_places_are_compared_around_the_pole_and_across_zero() -> None:
    none = np.zeros(0, dtype=np.uint64)
    places = np.array([[359.9999, 0], [0.0, 89.9999], [180.0, 45.0], [np.nan, 3]])
    others = np.array([[0.0001, 0], [180.0, 89.9999], [180.001, 45.0], [3, 3]])
    rows, trained = RowHashes(none, none, places), RowHashes(none, none, others)
    assert find_seen_rows(rows, trained).by_position.tolist() == [True, True, False, False]


@given(
    shape=st.sampled_from([(1, 1, 1), (2, 3, 5), (3, 4, 4), (1, 7, 9)]),
    dtype=st.sampled_from(["float32", "float16", "uint8"]),
    seed=st.integers(0, 999),
)
def test_equal_pixels_have_equal_hashes_and_others_do_not(
    shape: tuple[int, ...], dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 200, (4, *shape)).astype(dtype)
    images[3] = images[0]
    hashes = hash_pixels(images)
    assert hashes.dtype == np.uint64
    assert hashes[3] == hashes[0]
    np.testing.assert_array_equal(hashes >> np.uint64(32), crc32_of_each(images))

    changed = images.copy()
    changed[1, 0, 0, 0] += 1
    assert hash_pixels(changed)[1] != hashes[1]
    assert len(hash_pixels(images[:0])) == 0
