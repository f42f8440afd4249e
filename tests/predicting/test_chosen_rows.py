"""The highest scores are found whatever the files they lie in, and others are drawn by chance."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lens_hpc.errors import UserError
from lens_hpc.predicting.chosen_rows import best_rows, candidate_rows


def write_scores(file: Path, table: pd.DataFrame, rows_of_a_group: int = 3) -> Path:
    schema = pa.schema([("id", pa.string()), ("logit", pa.float32())])
    other = [name for name in table if name not in schema.names]
    for name in other:
        schema = schema.append(pa.field(name, pa.array(table[name]).type))
    written = pa.Table.from_pandas(table, schema, preserve_index=False)
    pq.write_table(written, file, row_group_size=rows_of_a_group)
    return file


LOGITS = st.one_of(st.none(), st.sampled_from([-1.5, 0.0, 2.25]), st.floats(-9, 9, width=32))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    logits=st.lists(LOGITS, min_size=1, max_size=40),
    parts=st.integers(1, 4),
    count=st.integers(0, 45),
    seed=st.integers(0, 99),
)
def test_the_best_are_those_that_pandas_sorts_to_the_front(
    tmp_path: Path, logits: list[float | None], parts: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = [f"é{number}" if number % 3 else f"B{number}" for number in rng.permutation(len(logits))]
    table = pd.DataFrame({"id": ids, "logit": np.array(logits, dtype=np.float32)})
    table["kept"] = rng.integers(9, size=len(ids))
    table["part"] = rng.permutation(parts)[np.arange(len(ids)) % parts]
    table["row"] = table.groupby("part").cumcount()

    files = []
    for number in rng.permutation(parts).tolist():
        of_part = table.loc[table["part"] == number, ["id", "logit", "kept"]]
        files.append(write_scores(tmp_path / f"{number}.parquet", of_part))

    best = best_rows(files, count).to_pandas()
    expected = table.dropna(subset="logit").sort_values(["logit", "id"], ascending=[False, True])
    expected = expected.head(count).astype({"part": str}).reset_index(drop=True)
    pd.testing.assert_frame_equal(best, expected, check_dtype=False, check_index_type=False)


def test_kept_columns_of_our_names_get_a_prefix(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "logit": [1, 2], "row": [7, 8], "column_row": [5, 6]})
    table["rank"] = ["x", "y"]
    best = best_rows([write_scores(tmp_path / "t.parquet", table)], 9).to_pandas()
    assert best["id"].tolist() == ["b", "a"]
    assert best["row"].tolist() == [1, 0]
    assert best["column_column_row"].tolist() == [8, 7]
    assert best["column_row"].tolist() == [6, 5]
    assert best["column_rank"].tolist() == ["y", "x"]


def test_types_of_kept_columns_may_differ_between_files(tmp_path: Path) -> None:
    files = []
    for number, size in enumerate([[1, 2], [1.5, 2.5], [None, None]]):
        ids = [f"{number}-{row}" for row in range(2)]
        table = pd.DataFrame({"id": ids, "logit": [0.5, number], "size": size})
        table["class"] = pd.Categorical([f"of {name}" for name in ids])
        files.append(write_scores(tmp_path / f"{number}.parquet", table))
    best = best_rows(files, 4).to_pandas()
    assert best["id"].tolist() == ["2-1", "1-1", "0-0", "1-0"]
    assert best["class"].tolist() == ["of 2-1", "of 1-1", "of 0-0", "of 1-0"]
    assert best["size"].isna().tolist() == [True, False, False, False]
    assert best["size"][1:].tolist() == [2.5, 1, 1.5]


def test_without_a_score_or_a_file_there_is_none(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": ["a", "b"], "logit": [None, None]})
    best = best_rows([write_scores(tmp_path / "t.parquet", table)], 9)
    assert len(best) == 0
    assert best.column_names == ["id", "logit", "part", "row"]
    assert len(best_rows([], 9)) == 0


def test_only_groups_with_a_better_row_are_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()
    read_group = pq.ParquetFile.read_row_group

    def count(file: pq.ParquetFile, group: int, columns: Any = None) -> pa.Table:
        read["logit" if columns else "all"] += 1
        return read_group(file, group, columns)

    ids = [f"{number:03}" for number in range(300)]
    table = pd.DataFrame({"id": ids, "logit": np.arange(300.0)[::-1]})
    file = write_scores(tmp_path / "t.parquet", table)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", count)
    assert best_rows([file], 5)["id"].to_pylist() == ids[:5]
    assert read["logit"] == 100
    assert read["all"] <= 4


def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": list("abcdefgh"), "logit": np.arange(8.0)})
    file = write_scores(tmp_path / "tile-a.parquet", table, 8)
    content = bytearray(file.read_bytes())
    content[4:40] = b"\xff" * 36
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"tile-a\.parquet: cannot be read .*; delete it, and run"):
        best_rows([file], 3)


# ---- by chance ----


def scores_in_parts(folder: Path, logits: np.ndarray, parts: int, rng: Any) -> list[Path]:
    """Write scores of objects o0, o1, ... in some files, in any order; return the files."""
    order = rng.permutation(len(logits))
    table = pd.DataFrame({"id": [f"o{n}" for n in order], "logit": logits[order]})
    files = []
    for number, rows in enumerate(np.array_split(np.arange(len(table)), parts)):
        file = folder / f"{number}.parquet"
        files.append(write_scores(file, table.iloc[rows], int(rng.integers(1, 9))))
    return files


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    logits=st.lists(LOGITS, min_size=1, max_size=40),
    best=st.integers(0, 30),
    random=st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_the_draw_does_not_depend_on_files_and_leaves_the_top_out(
    tmp_path: Path, logits: list[float | None], best: int, random: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = np.array(logits, dtype=np.float32)
    chosen = [
        candidate_rows(
            scores_in_parts(tmp_path, scores, parts, rng), best, random, seed
        ).to_pandas()
        for parts in (1, 3)
    ]
    same = ["id", "logit", "rank", "drawn", "inclusion_probability"]
    pd.testing.assert_frame_equal(chosen[0][same], chosen[1][same])

    scored = np.isfinite(scores).sum()
    drawn = chosen[0][chosen[0]["drawn"] == "random"]
    top = chosen[0][chosen[0]["drawn"] == "top"]
    eligible = scored - len(top)
    assert len(top) == min(best, scored)
    assert len(drawn) == min(random, eligible)
    assert chosen[0]["id"].is_unique
    assert drawn["logit"].notna().all()
    assert drawn["rank"].isna().all()
    assert top["rank"].tolist() == [*range(1, len(top) + 1)]
    assert (top["inclusion_probability"] == 1).all()
    assert (drawn["inclusion_probability"] == len(drawn) / max(eligible, 1)).all()


def test_each_is_as_likely_to_be_drawn_as_its_inclusion_probability_says(tmp_path: Path) -> None:
    table = pd.DataFrame({"id": [f"o{n}" for n in range(50)], "logit": np.arange(50.0)})
    files = [write_scores(tmp_path / "t.parquet", table, rows_of_a_group=50)]
    seeds, drawn = 100, Counter[str]()
    for seed in range(seeds):
        chosen = candidate_rows(files, 10, 8, seed).to_pandas()
        drawn.update(chosen.loc[chosen["drawn"] == "random", "id"])
    assert set(drawn) == {f"o{number}" for number in range(40)}
    assert chosen["inclusion_probability"].tolist() == [1.0] * 10 + [8 / 40] * 8

    # All of 40 objects within these bounds, but for one survey in a million.
    low, high = binom.interval(1 - 1e-6 / 40, seeds, 8 / 40)
    assert all(low <= times <= high for times in drawn.values())


def test_the_first_of_a_draw_are_a_smaller_draw(tmp_path: Path) -> None:
    scores = np.arange(50, dtype=np.float32)
    files = scores_in_parts(tmp_path, scores, 2, np.random.default_rng(1))
    few, many = (candidate_rows(files, 5, count, seed=3)["id"].to_pylist() for count in (6, 20))
    assert many[: len(few)] == few
