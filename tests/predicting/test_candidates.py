"""Chosen rows of a survey become a dataset, in their order."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.dataset.positions import positions_of
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.survey_kind import SurveyKind
from lens_hpc.errors import UserError
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.predicting import candidates
from lens_hpc.predicting.candidates import write_candidates
from lens_hpc.predicting.chosen_rows import candidate_rows
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
    best = candidate_rows(score(survey, tmp_path / "scores"), 300, 40, seed=0)
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
    assert kept["rank"][:300].tolist() == [*range(1, 301)]
    assert (kept["logit"][:300].diff().dropna() <= 0).all()
    assert kept["rank"][300:].isna().all()
    assert kept["drawn"].tolist() == ["top"] * 300 + ["random"] * 40
    np.testing.assert_allclose(kept["probability"], 1 / (1 + np.exp(-kept["logit"])), rtol=1e-6)
    assert (kept["tile"] == kept.index.str.rsplit("-", n=1).str[0]).all()
    assert [*kept] == [
        *("rank", "ra", "dec", "tile", "column_rank", "logit", "probability", "spread"),
        *("drawn", "inclusion_probability"),
    ]
    assert np.isfinite(positions_of(kept)).all()


def test_its_manifest_says_what_it_is_of(made: tuple[FakeSurvey, pa.Table, Path]) -> None:
    manifest = Dataset(made[2]).manifest
    kind = manifest.kind
    assert kind.name == "candidates of sky"
    assert (kind.bands, kind.features, kind.units) == (KIND.bands, KIND.features, "nJy")
    assert (kind.height, kind.width, kind.zero_point) == (10, 12, KIND.zero_point)
    assert manifest.recipe["candidates"] == PROVENANCE
    assert manifest.splits["candidates"].unlabelled == 340
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
    write_candidates(tmp_path / "c", survey, candidate_rows(score(survey, tmp_path), 4, 0, 0), {})
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
    order = [packed.ids().tolist().index(name) for name in best.ids().tolist()]
    np.testing.assert_array_equal(packed[order].images, best[:].images)
