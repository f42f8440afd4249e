"""The rows that are sorted by tile on disk, beside those that `pack` reads into memory."""

import gc
import os
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lens_hpc.errors import UserError
from lens_hpc.packing import survey_rows
from lens_hpc.packing.catalogue import read_catalogue
from lens_hpc.packing.recipe import Recipe
from lens_hpc.packing.survey_rows import CatalogueRows, SurveyRows, sort_rows
from tests.packing.mosaic_surveys import make_header, make_recipe, noise, positions_in, write_mosaic

pytestmark = pytest.mark.usefixtures("without_workers")

SHAPE = (60, 80)
CENTRES = {"a": (150.1, 2.2), "b": (150.102, 2.2), "c": (10.0, 2.2), "d": (10.1, 2.2)}
"""Tiles a and b overlap, and d has no band r."""
COUNT = 60


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    for tile, centre in CENTRES.items():
        for band in "g" if tile == "d" else "gr":
            path = folder / tile / f"{band}.fits"
            write_mosaic(path, noise(SHAPE), make_header(SHAPE, centre))
    return folder


@pytest.fixture
def source(tiles: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for tile in tiles.iterdir():
        (folder / tile.name).mkdir()
        for file in tile.iterdir():
            (folder / tile.name / file.name).hardlink_to(file)
    return folder


def make_frame(seed: int, count: int = COUNT) -> pd.DataFrame:
    """Return a catalogue in which anything that may be wrong with a row is."""
    rng = np.random.default_rng(seed)
    names = rng.choice(list(CENTRES), count)
    frame = pd.DataFrame({"n": np.arange(count), "id": [f"o{n * 7919}" for n in range(count)]})
    positions = np.empty((count, 2))
    for n, (name, centre) in enumerate(CENTRES.items()):
        is_in = names == name
        header = make_header(SHAPE, centre)
        positions[is_in] = positions_in(header, SHAPE, is_in.sum(), seed + n, beyond=3)
    frame["ra"], frame["dec"] = positions.T
    frame["tile"] = names
    frame["mag"] = rng.normal(20, 1, count)
    frame["snr"] = rng.normal(5, 3, count).astype(np.float32)
    frame["code"] = [f"{number}" for number in rng.integers(0, 50, count)]
    frame["word"] = rng.choice(["x", "yy", "", "ä"], count)

    spoilt = {"ra": [np.nan, 361, 20.0], "dec": [np.nan, -91], "mag": [np.inf, -99, np.nan]}
    spoilt |= {"id": ["", "i" * 501], "tile": ["", "e"], "snr": [np.nan]}
    for name, values in spoilt.items():
        for value in values:
            frame.loc[rng.integers(count), name] = value
    return frame


def write_catalogue(source: Path, frame: pd.DataFrame, kind: str, seed: int) -> str:
    if kind == "csv":
        frame.to_csv(source / "objects.csv", index=False)
        return "objects.csv"
    if kind == "parquet":
        frame.to_parquet(source / "objects.parquet", row_group_size=7)
        return "objects.parquet"

    folder = source / "objects"
    folder.mkdir()
    cuts = np.sort(np.random.default_rng(seed).integers(0, len(frame), 3))
    edges = [0, *cuts.tolist(), len(frame)]
    for number, (start, end) in enumerate(pairwise(edges)):
        frame[start:end].to_parquet(folder / f"{number}.parquet")
    return "objects"


def recipe_of(catalogue: str, tile: str | None = None, **settings: Any) -> Recipe:
    columns = {"features": ["mag", "snr"], "keep": ["n", "code", "word"], "missing": ["-99"]}
    return make_recipe(
        catalogue=catalogue,
        columns=columns | {"label": None} | settings.pop("columns", {}),
        mosaics={"path": "{tile}/{band}.fits", "tile": tile},
        **settings,
    )


def sort(recipe: Recipe, source: Path, table_rows: int = COUNT) -> SurveyRows:
    folder = source.parent / f"rows-{table_rows}"
    sort_rows(recipe, source, folder, table_rows)
    return SurveyRows(folder)


def all_of(survey: SurveyRows) -> list[CatalogueRows]:
    return [survey.read(number) for number in range(len(survey.tiles))]


# ---- beside what pack reads ----


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
@pytest.mark.parametrize("tile", [None, "tile"])
@pytest.mark.parametrize("where", [None, "snr > 2 & word != 'x'"])
@pytest.mark.parametrize("seed", range(2))
def test_rows_are_those_that_pack_reads(
    source: Path, kind: str, tile: str | None, where: str | None, seed: int
) -> None:
    recipe = recipe_of(write_catalogue(source, make_frame(seed), kind, seed), tile, where=where)
    catalogue = read_catalogue(recipe, source)
    row_of_number = {number: row for row, number in enumerate(catalogue.kept["n"].tolist())}
    survey = sort(recipe, source, table_rows=11)

    seen: list[int] = []
    for described, rows in zip(survey.tiles, all_of(survey), strict=True):
        numbers = rows.kept["n"].to_pylist()
        assert numbers == sorted(numbers)
        assert described.objects == len(numbers) > 0
        seen += numbers

        places = [row_of_number[number] for number in numbers]
        assert rows.ids.to_pylist() == catalogue.ids[places].tolist()
        np.testing.assert_array_equal(rows.features, catalogue.features[places])
        assert catalogue.positions is not None
        np.testing.assert_array_equal(rows.positions, catalogue.positions[places])
        for paths in catalogue.paths[places].tolist():
            assert tuple(paths) == (described.files or ("", ""))
        reasons = {n: catalogue.bad[row] for n, row in enumerate(places) if row in catalogue.bad}
        assert rows.reasons == reasons

        kept = pa.Table.from_pandas(catalogue.kept.iloc[places], preserve_index=False)
        assert rows.kept.cast(kept.schema).equals(kept)
        assert rows.kept.schema.types == kept.schema.types
    assert sorted(seen) == sorted(row_of_number)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "folder"])
@pytest.mark.parametrize("tile", [None, "tile"])
def test_digests_do_not_depend_on_the_size_of_tables(
    source: Path, kind: str, tile: str | None
) -> None:
    recipe = recipe_of(write_catalogue(source, make_frame(5), kind, 5), tile)
    whole = sort(recipe, source).tiles
    names = [each.name for each in whole]
    assert names[-1] is None
    assert names[:-1] == sorted(CENTRES)
    for table_rows in (13, 59):
        assert sort(recipe, source, table_rows).tiles == whole


def test_rows_without_a_tile_come_in_parts(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(write_catalogue(source, make_frame(5), "csv", 5))
    whole = all_of(sort(recipe, source))[-1]
    monkeypatch.setattr(survey_rows, "MOST_WITHOUT_TILE", 4)
    for table_rows in (3, 60):
        survey = sort(recipe, source, table_rows)
        parts = [
            rows
            for tile, rows in zip(survey.tiles, all_of(survey), strict=True)
            if tile.name is None
        ]
        assert len(parts) > 2
        assert [len(part.ids) for part in parts[:-1]] == [4] * (len(parts) - 1)
        assert pa.concat_arrays([part.ids for part in parts]).equals(whole.ids)


def test_shuffled_files_have_the_same_rows(source: Path) -> None:
    frame = make_frame(6)
    shuffled = frame.sample(frac=1, random_state=6)
    in_order = recipe_of(write_catalogue(source, frame, "parquet", 6))
    in_files = recipe_of(write_catalogue(source, shuffled, "folder", 6))
    for one, other in zip(
        all_of(sort(in_order, source)), all_of(sort(in_files, source, 13)), strict=True
    ):
        order = np.argsort(other.kept["n"].to_numpy())
        assert one.ids.equals(other.ids.take(order))
        assert one.kept.equals(other.kept.take(order))
        np.testing.assert_array_equal(one.features, other.features[order])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value"),
    [("id", "new"), ("ra", 150.10001), ("mag", 20.5), ("word", "new"), ("snr", np.inf)],
)
def test_a_digest_tells_any_change_of_a_row(source: Path, column: str, value: object) -> None:
    frame = make_frame(7)
    is_good = frame["tile"].eq("a") & (frame["ra"] - 150.1).abs().lt(1e-3)
    row = int(np.flatnonzero(is_good)[0])
    frame.loc[row, ["ra", "dec", "mag", "snr"]] = [150.1, 2.2, 20.0, 5.0]
    before = sort(recipe_of(write_catalogue(source, frame, "csv", 7)), source).tiles

    frame.loc[row, column] = value
    after = sort(recipe_of(write_catalogue(source, frame, "csv", 7)), source, 50).tiles
    changed = [one.name for one, other in zip(before, after, strict=True) if one != other]
    assert changed == ["a"]


# ---- types ----


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "data_type"),
    [
        (["1", "2", "3", ""], pa.int64()),
        (["1", "2", "3.5", "nan"], pa.float64()),
        (["1", "2", "3", "four"], pa.large_string()),
        (["1", "2", "3.5", "0012"], pa.large_string()),
        (["1.5", "2", "3", "12345678901234567"], pa.large_string()),
        (["", "", "", ""], pa.large_string()),
    ],
)
def test_a_kept_column_of_texts_has_the_type_of_all_its_rows(
    source: Path, texts: list[str], data_type: pa.DataType
) -> None:
    frame = make_frame(8)[:4].assign(code=texts, id=list("abcd"))
    recipe = recipe_of(write_catalogue(source, frame, "csv", 8))
    kept = read_catalogue(recipe, source).kept["code"]
    survey = sort(recipe, source, table_rows=1)
    pieces = [rows.kept.select(["n", "code"]) for rows in all_of(survey)]
    code = pa.concat_tables(pieces).sort_by("n")["code"]
    assert code.type == data_type == kept.dtype.pyarrow_dtype
    assert code.to_pylist() == pa.array(kept).to_pylist()


def test_files_of_different_types_are_one_table(source: Path) -> None:
    folder = source / "objects"
    folder.mkdir()
    frame = make_frame(9)[:40].assign(mag=20.0, word=None, id=[str(n) for n in range(40)])
    frame[:10].astype({"n": "int16", "mag": "float32"}).to_parquet(folder / "0.parquet")
    frame[10:20].assign(word="x", snr=np.nan).to_parquet(folder / "1.parquet")
    frame[20:30].assign(n=np.arange(20, 30) + 0.5).to_parquet(folder / "2.parquet")
    frame[30:].assign(word=np.nan).astype({"word": "float64"}).to_parquet(folder / "3.parquet")
    recipe = recipe_of("objects")

    kept = read_catalogue(recipe, source).kept
    expected = pa.Table.from_pandas(kept, preserve_index=False)
    found = [rows.kept for rows in all_of(sort(recipe, source, 7))]
    assert pa.concat_tables(found).sort_by("n").equals(expected)

    frame.assign(word=1.5).to_parquet(folder / "4.parquet")
    with pytest.raises(UserError, match=r"objects: its files are not of one table: .*word"):
        sort(recipe, source)


# ---- what is wrong with all rows ----


@pytest.mark.slow
@pytest.mark.parametrize("table_rows", [5, 30, 100])
@pytest.mark.parametrize("is_hash_weak", [False, True])
def test_a_repeated_id_is_refused_wherever_it_stands(
    source: Path, table_rows: int, is_hash_weak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_hash_weak:
        # Ids of the same hash are compared themselves.
        monkeypatch.setattr(pd.util, "hash_array", lambda ids, **_: np.full(len(ids), 9, "u8"))
    frame = make_frame(10).assign(id=[f"o{n}" for n in range(COUNT)])
    recipe = recipe_of(write_catalogue(source, frame, "csv", 10))
    assert sum(tile.objects for tile in sort(recipe, source, table_rows).tiles) == COUNT

    frame.loc[41, "id"] = "o3"
    write_catalogue(source, frame, "csv", 10)
    with pytest.raises(UserError, match=r"objects\.csv: the id 'o3' stands in row 3 and in row 41"):
        sort(recipe, source, table_rows)
    assert (source.parent / f"rows-{table_rows}").is_dir()  # as it was
    assert not list(source.parent.glob("*partial*"))


def test_units_are_judged_over_all_rows(source: Path) -> None:
    frame = make_frame(11)
    far = frame.assign(ra=0.5, dec=0.1, id=[f"far{n}" for n in range(COUNT)])
    recipe = recipe_of(write_catalogue(source, pd.concat([far, frame]), "csv", 11))
    tiles = sort(recipe, source, table_rows=10).tiles
    assert sum(tile.objects for tile in tiles) == 2 * COUNT

    radians = frame.assign(ra=np.radians(frame["ra"]), dec=np.radians(frame["dec"]))
    write_catalogue(source, radians, "csv", 11)
    with pytest.raises(
        UserError, match=r"0 of \d+ positions lie on a tile\. .* seem to be radians"
    ):
        sort(recipe, source, table_rows=10)


def test_names_of_tiles_are_judged_over_all_rows(source: Path) -> None:
    frame = make_frame(12)
    frame.loc[:20, "tile"] = "e"
    recipe = recipe_of(write_catalogue(source, frame, "csv", 12), "tile")
    assert "e" not in [tile.name for tile in sort(recipe, source, table_rows=10).tiles]

    write_catalogue(source, frame.assign(tile="e"), "csv", 12)
    with pytest.raises(UserError, match=r"tile = \'e\' \(mosaics\.tile\): no row names a tile"):
        sort(recipe, source, table_rows=10)


@pytest.mark.parametrize("kind", ["csv", "folder"])
def test_a_condition_that_holds_nowhere_is_refused(source: Path, kind: str) -> None:
    recipe = recipe_of(write_catalogue(source, make_frame(13), kind, 13), where="snr > 1e9")
    with pytest.raises(UserError, match="where = snr > 1e9: holds for none of 60 rows"):
        sort(recipe, source, table_rows=10)


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
def test_a_column_that_is_not_there_is_told(source: Path, kind: str) -> None:
    catalogue = write_catalogue(source, make_frame(14).drop(columns="mag"), kind, 14)
    with pytest.raises(UserError, match=r"no column 'mag' \(columns\.features\)"):
        sort(recipe_of(catalogue), source)


def test_damaged_and_empty_parquet_is_told(source: Path) -> None:
    recipe = recipe_of(write_catalogue(source, make_frame(15), "folder", 15))
    file = source / "objects" / "2.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"2\.parquet: cannot be read as a catalogue"):
        sort(recipe, source)

    for part in (source / "objects").iterdir():
        pq.write_table(pa.Table.from_pandas(make_frame(15)[:0]), part)
    with pytest.raises(UserError, match="objects: has no rows"):
        sort(recipe, source)


# ---- tiles that are not sound ----


@pytest.mark.parametrize("tile", [None, "tile"])
def test_a_tile_that_cannot_be_read_keeps_its_rows(source: Path, tile: str | None) -> None:
    recipe = recipe_of(write_catalogue(source, make_frame(16), "csv", 16), tile)
    (source / "c" / "r.fits").unlink()
    (source / "c" / "r.fits").write_text("no image")
    survey = sort(recipe, source, 10)
    place = [each.name for each in survey.tiles].index("c")
    rows = survey.read(place)
    assert list(rows.reasons) == list(range(survey.tiles[place].objects))
    assert any("c/r.fits: cannot be read" in reason for reason in rows.reasons.values())


def test_a_tile_that_a_link_leads_out_to_is_not_opened(source: Path, tmp_path: Path) -> None:
    recipe = recipe_of(write_catalogue(source, make_frame(17), "csv", 17))
    outside = tmp_path / "outside.fits"
    (source / "a" / "r.fits").rename(outside)
    (source / "a" / "r.fits").symlink_to(outside)
    rows = sort(recipe, source).read(0)
    assert "a/r.fits: a link leads out of the source folder" in " ".join(rows.reasons.values())

    followed = recipe.model_copy(update={"follow_links": True})
    assert len(sort(followed, source).read(0).reasons) < len(rows.reasons)


# ---- whether it is still right ----


@pytest.mark.slow
def test_rows_know_whether_they_are_still_right(source: Path) -> None:
    recipe = recipe_of(write_catalogue(source, make_frame(18), "folder", 18))
    survey = sort(recipe, source)
    assert survey.is_of(recipe, source)
    assert not survey.is_of(recipe_of("objects", "tile"), source)

    changes = [source / "objects" / "1.parquet", source / "b" / "g.fits"]
    for file in changes:
        before = file.stat()
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert not survey.is_of(recipe, source)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert survey.is_of(recipe, source)

    (source / "d" / "r.fits").hardlink_to(source / "c" / "r.fits")
    assert not survey.is_of(recipe, source)


# ---- memory ----


@pytest.mark.slow
def test_memory_does_not_grow_with_the_catalogue(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[int] = []
    read_rows = survey_rows.read_rows

    def note_and_read(*arguments: Any) -> Any:
        alive.append(pa.total_allocated_bytes())
        return read_rows(*arguments)

    monkeypatch.setattr(survey_rows, "read_rows", note_and_read)
    peaks = []
    for count in (1_000, 8_000):
        frame = pd.concat([make_frame(19)] * (count // COUNT + 1))[:count]
        frame = frame.assign(id=[f"o{n}" for n in range(count)])
        frame.to_parquet(source / "objects.parquet", row_group_size=250)
        recipe = recipe_of("objects.parquet")

        # What other tests have left may go at any time.
        peaks_of_count = []
        for _ in range(3):
            gc.collect()
            before = pa.total_allocated_bytes()
            sort(recipe, source, table_rows=500)
            peaks_of_count.append(max(alive) - before)
            alive.clear()
        peaks.append(statistics.median(peaks_of_count))
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["survey.json", "rows.arrow", "slices.npy"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_sorted_rows_that_are_damaged_are_named(source: Path, name: str, damage: str) -> None:
    catalogue = write_catalogue(source, make_frame(0), "parquet", 0)
    sort(recipe_of(catalogue), source)
    file = source.parent / f"rows-{COUNT}" / name
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.raises(UserError, match=r"is damaged .* delete it, and run the same line again"):
        SurveyRows(file.parent)
