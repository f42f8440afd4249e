"""The highest scores are found whatever the files they lie in, and become a dataset in order."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.positions import positions_of
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.errors import UserError
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.predicting import candidates
from lens_hpc.predicting.candidates import best_rows, write_candidates
from lens_hpc.predicting.survey import PartCutouts, PartRows, SurveyPart
from tests.conftest import call

KIND = SurveyKind(
    name="sky",
    bands=("g", "r", "i"),
    height=10,
    width=12,
    pixel_scale_arcsec=0.2,
    units="nJy",
    zero_point={"g": 31.4, "r": 31.4, "i": None},
    features=("radius", "colour"),
)


# ---- the best of all ----


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


# ---- the dataset ----


class FakeSurvey:
    """Tiles of noise, with an object of its own brightness in the middle of each cutout."""

    kind = KIND

    def __init__(self, objects: dict[str, int], dtype: str = "float32", first: int = 0) -> None:
        self.parts = [SurveyPart(name, count, 0, "") for name, count in sorted(objects.items())]
        self.dtype = dtype
        self.asked: list[tuple[str, int]] = []

    def rows(self, part: int) -> PartRows:
        name, count = self.parts[part].name, self.parts[part].objects
        numbers = np.arange(count)
        table = pa.table(
            {
                "id": [f"{name}-{number}" for number in numbers],
                "ra": pa.array(numbers / 2 + 10 * part, pa.float64()),
                "dec": pa.array(numbers / 10 - 0.25, pa.float64()),
                "tile": [name] * count,
                "rank": (numbers * 2).tolist(),
            }
        )
        features = np.stack([numbers + part, np.full(count, np.nan)], axis=1)
        return PartRows(table, features.astype(np.float32), {})

    def batches(
        self, part: int, rows: PartRows, batch_size: int, reasons: dict[int, str]
    ) -> Iterator[PartCutouts]:
        raise NotImplementedError

    def cutouts(self, part: int, rows: np.ndarray) -> np.ndarray:
        self.asked.append((self.parts[part].name, len(rows)))
        return np.stack([self.cutout(part, row) for row in rows.tolist()])

    def cutout(self, part: int, row: int) -> np.ndarray:
        rng = np.random.default_rng([part, row])
        noise = rng.normal(100, 3, (3, 10, 12))
        noise[:, 3:7, 4:8] += 10 + row
        return noise.astype(self.dtype)


def score(survey: FakeSurvey, folder: Path, seed: int = 0) -> list[Path]:
    """Write scores of all objects, every fifth of which has none."""
    rng = np.random.default_rng(seed)
    files = []
    for number, part in enumerate(survey.parts):
        table = survey.rows(number).table
        logits = rng.normal(size=part.objects).astype(np.float32)
        is_missing = np.arange(part.objects) % 5 == 0
        table = table.append_column("logit", pa.array(logits, mask=is_missing))
        probability = pa.array(1 / (1 + np.exp(-logits.astype(np.float64))), mask=is_missing)
        table = table.append_column("probability", probability)
        table = table.append_column("spread", pa.nulls(part.objects, pa.float32()))
        table = table.append_column("reason", pa.nulls(part.objects, pa.string()))
        files.append(folder / f"{part.name}.parquet")
        pq.write_table(table, files[-1])
    return files


TILES = {"tile-a": 400, "tile-b": 3, "tile-c": 500}
PROVENANCE = {"survey": "sky.yaml", "models": [{"run": "runs/a"}], "tta": "none"}


@pytest.fixture
def made(tmp_path: Path) -> tuple[FakeSurvey, pa.Table, Path]:
    survey = FakeSurvey(TILES)
    (tmp_path / "scores").mkdir()
    best = best_rows(score(survey, tmp_path / "scores"), 300)
    output = tmp_path / "out" / "candidates"
    output.parent.mkdir()
    write_candidates(output, survey, best, PROVENANCE)
    return survey, best, output


def test_candidates_are_in_the_order_of_the_ranking(
    made: tuple[FakeSurvey, pa.Table, Path],
) -> None:
    survey, best, output = made
    numbers = {part.name: number for number, part in enumerate(survey.parts)}
    split = Split(output, "candidates")
    sample = split[:]
    assert sample.ids.tolist() == best["id"].to_pylist()
    assert set(sample.labels.tolist()) == {-1}

    for rank, name in enumerate(sample.ids.tolist()):
        tile, row = name.rsplit("-", 1)
        part, number = numbers[tile], int(row)
        np.testing.assert_array_equal(sample.images[rank], survey.cutout(part, number))
        np.testing.assert_array_equal(sample.features[rank], survey.rows(part).features[number])

    kept = split.kept_columns()
    assert kept["rank"].tolist() == [*range(1, 301)]
    assert (kept["logit"].diff().dropna() <= 0).all()
    np.testing.assert_allclose(kept["probability"], 1 / (1 + np.exp(-kept["logit"])), rtol=1e-6)
    assert (kept["tile"] == kept.index.str.rsplit("-", n=1).str[0]).all()
    assert [*kept] == ["rank", "ra", "dec", "tile", "column_rank", "logit", "probability", "spread"]
    assert np.isfinite(positions_of(kept)).all()


def test_its_manifest_says_what_it_is_of(made: tuple[FakeSurvey, pa.Table, Path]) -> None:
    manifest = Dataset(made[2]).manifest
    kind = manifest.kind
    assert kind.name == "candidates of sky"
    assert (kind.bands, kind.features, kind.units) == (KIND.bands, KIND.features, "nJy")
    assert (kind.height, kind.width, kind.zero_point) == (10, 12, KIND.zero_point)
    assert manifest.recipe["candidates"] == PROVENANCE
    assert manifest.splits["candidates"].unlabelled == 300
    assert manifest.statistics is None


def test_each_part_is_asked_once_unless_memory_bounds_it(
    made: tuple[FakeSurvey, pa.Table, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey, best, output = made
    before = {path.name: path.read_bytes() for path in output.rglob("*.*")}
    of_tiles = Counter(best["tile"].to_pylist())
    assert survey.asked == sorted(of_tiles.items())

    monkeypatch.setattr(candidates, "MOST_BYTES", 7 * 3 * 10 * 12 * 4)
    survey.asked.clear()
    write_candidates(output, survey, best, PROVENANCE)
    assert max(count for _, count in survey.asked) == 7
    assert {path.name: path.read_bytes() for path in output.rglob("*.*")} == before
    assert [path.name for path in output.parent.iterdir()] == ["candidates"]


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_pixels_keep_their_type(tmp_path: Path, dtype: str) -> None:
    survey = FakeSurvey({"t": 9}, dtype)
    write_candidates(tmp_path / "c", survey, best_rows(score(survey, tmp_path), 4), {})
    assert Dataset(tmp_path / "c")["candidates"][:].images.dtype == dtype
    call("verify", tmp_path / "c")


def test_cutouts_that_are_gone_leave_the_candidates_that_were(
    made: tuple[FakeSurvey, pa.Table, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    survey, best, output = made
    before = {path.name: path.read_bytes() for path in output.rglob("*.*")}

    def fail(part: int, rows: np.ndarray) -> np.ndarray:
        raise BadCutoutError("tiles/b.fits: no such file")

    monkeypatch.setattr(survey, "cutouts", fail)
    with pytest.raises(UserError, match=r"tile-a: .*tiles/b\.fits: no such file.*same line again"):
        write_candidates(output, survey, best, PROVENANCE)
    assert {path.name: path.read_bytes() for path in output.rglob("*.*")} == before
    assert [path.name for path in output.parent.iterdir()] == ["candidates"]


# ---- the verbs ----


def test_info_shows_the_best_first(
    made: tuple[FakeSurvey, pa.Table, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lens_hpc.reporting import pictures

    output = made[2]
    shown = {}
    draw = pictures.draw_cutouts

    def note(path: Path, sheets: dict[str, Any], *others: Any) -> None:
        shown.update(sheets)
        draw(path, sheets, *others)

    monkeypatch.setattr(pictures, "draw_cutouts", note)
    figure = output.parent / "c.png"
    call("info", output, f"figure={figure}")
    [(title, (images, names))] = shown.items()
    best = Split(output, "candidates")
    assert title == "candidates, the best first"
    np.testing.assert_array_equal(images, best[:16].images)
    assert [name.split()[0] for name in names] == best.ids()[:16].tolist()
    with Image.open(figure) as picture:
        assert picture.width > 500


def test_pack_reads_them_back(made: tuple[FakeSurvey, pa.Table, Path], tmp_path: Path) -> None:
    output = made[2]
    call("verify", output)
    (tmp_path / "recipe.yaml").write_text(
        """
        name: vetted
        catalogue: columns.parquet
        columns: {id: id, label: null, keep: [logit]}
        stack: candidates
        key: images
        splits: {test: 1.0}
        bands: [g, r, i]
        pixel_scale: 0.2
        units: nJy
        """
    )
    call("pack", tmp_path / "recipe.yaml", f"source={output}", f"output={tmp_path / 'd'}")
    packed, best = Split(tmp_path / "d", "test"), Split(output, "candidates")
    order = np.argsort(packed.kept_columns()["logit"].to_numpy())[::-1]
    assert packed.ids()[order].tolist() == best.ids().tolist()
    np.testing.assert_array_equal(packed[order].images, best[:].images)
