"""A packed dataset as a survey: every row of every split, as it was packed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.packing import painted_parts
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.injecting import inject
from lens_hpc.predicting.opening import read_recipe
from lens_hpc.predicting.packed_survey import PackedSurvey
from lens_hpc.predicting.predict_settings import PredictSettings
from lens_hpc.predicting.survey import SurveyToScore
from tests.conftest import pack_survey, write_survey
from tests.packing.injections import pack_galaxies, recipe_of, workers_that_are_threads

ROWS = 600
KEEP = "columns.keep=[RA_deg,dec,note,tile]"


def write_positions(folder: Path, rows: int = ROWS) -> Path:
    """Write a survey with positions, and a column that has the name of one of ours."""
    return write_survey(
        folder,
        rows,
        bands=1,
        size=4,
        RA_deg=[f"{0.5 * row:g}" for row in range(rows)],
        dec=["" if row % 5 == 0 else f"{-0.1 * row:g}" for row in range(rows)],
        note=[f"note {row}" for row in range(rows)],
        tile=[f"T{row % 3}" for row in range(rows)],
    )


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with positions; not to be changed."""
    folder = tmp_path_factory.mktemp("positions")
    survey = write_positions(folder / "survey")
    return pack_survey(survey, folder / "packed", "bands=[r]", KEEP, "shard_mib=1")


def pixels_of(survey: SurveyToScore, part: int, batch_size: int) -> np.ndarray:
    """Return all pixels of a part, all of whose rows are usable."""
    reasons: dict[int, str] = {}
    batches = list(survey.batches(part, survey.rows(part), batch_size, reasons))
    assert not reasons
    assert [len(batch.rows) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    rows = np.concatenate([batch.rows for batch in batches])
    np.testing.assert_array_equal(rows, np.arange(survey.parts[part].objects))
    assert not any(batch.edge_fraction.any() for batch in batches)
    return np.concatenate([batch.pixels for batch in batches])


@pytest.mark.parametrize("compression", ["none", "lzf"])
def test_every_shard_of_every_split_is_a_part(tmp_path: Path, compression: str) -> None:
    survey_folder = write_survey(tmp_path / "survey", 700, bands=2, size=24)
    words = ("shard_mib=1", f"compression={compression}")
    dataset = Dataset(pack_survey(survey_folder, tmp_path / "packed", *words))
    survey: SurveyToScore = PackedSurvey(dataset.path)

    expected = {}
    for name, split in dataset.items():
        first = 0
        for number, shard in enumerate(split.record.shards):
            expected[f"{name}-shard-{number:05}"] = name, np.arange(first, first + shard.rows)
            first += shard.rows
    assert len(expected) > len(dataset)
    assert [part.name for part in survey.parts] == sorted(expected)
    assert survey.kind == dataset.manifest.kind

    for number, part in enumerate(survey.parts):
        name, rows = expected[part.name]
        split = dataset[name]
        found = survey.rows(number)
        assert found.table["id"].to_pylist() == split.ids(rows).tolist()
        np.testing.assert_array_equal(found.features, split.take("features", rows))
        assert found.reasons == {}
        stored = split.take("images", rows)
        np.testing.assert_array_equal(pixels_of(survey, number, 37), stored)
        np.testing.assert_array_equal(survey.cutouts(number, np.array([5, 2])), stored[[5, 2]])


def test_positions_and_kept_columns_come_along(packed: Path) -> None:
    survey = PackedSurvey(packed)
    for part in range(len(survey.parts)):
        table = survey.rows(part).table
        rows = [int(name.removeprefix("obj")) for name in table["id"].to_pylist()]

        # A position without a declination is none.
        assert table["ra"].to_pylist() == [None if row % 5 == 0 else 0.5 * row for row in rows]
        dec = [None if row % 5 == 0 else pytest.approx(-0.1 * row) for row in rows]
        assert table["dec"].to_pylist() == dec
        assert table["tile"].null_count == len(rows)

        # What was kept is there, too: our declination stands for it, our tile does not.
        assert table.column_names == ["id", "ra", "dec", "tile", "RA_deg", "note", "column_tile"]
        assert table["RA_deg"].to_pylist() == [0.5 * row for row in rows]
        assert table["note"].to_pylist() == [f"note {row}" for row in rows]
        assert table["column_tile"].to_pylist() == [f"T{row % 3}" for row in rows]


def test_the_truth_of_painted_rows_comes_along_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painted_parts, "workers", workers_that_are_threads)
    hosts = pack_galaxies(tmp_path, rows=20)
    injected = inject(hosts, tmp_path / "o", recipe_of(), processes=1)
    expected = pd.read_parquet(injected.output / "truth.parquet").set_index("id")

    survey = PackedSurvey(injected.output, with_truth=True)
    tables = [survey.rows(part).table for part in range(len(survey.parts))]
    found = pa.concat_tables(tables).to_pandas().set_index("id")
    assert len(found) > len(expected)
    painted = found.loc[expected.index]
    for name in ("einstein_radius", "arc_snr_i", "host_id"):
        pd.testing.assert_series_equal(painted[name], expected[name], check_dtype=False)
        assert found.drop(expected.index)[name].isna().all()
    # The hosts' own column stays what it was.
    hosts_own = Dataset(hosts).to_pandas().set_index("id")["sigma_v"]
    assert (found["sigma_v"] == hosts_own[found.index]).all()
    pd.testing.assert_series_equal(
        painted["sigma_v_truth"], expected["sigma_v"], check_dtype=False, check_names=False
    )
    assert "arc_mask" not in found

    without = PackedSurvey(injected.output)
    assert "einstein_radius" not in without.rows(0).table.column_names
    assert without.parts[0].fingerprint != survey.parts[0].fingerprint
    with pytest.raises(UserError, match=r"truth: .* has no truth\.parquet; it needs an injected"):
        PackedSurvey(hosts, with_truth=True)

    recipe = tmp_path / "s" / "recipe.yaml"
    asked = PredictSettings(targets=(tmp_path, recipe), output=tmp_path / "p", truth=True)
    with pytest.raises(UserError, match=r"truth: .* is a recipe; only of an injected dataset"):
        read_recipe(asked)


def test_all_parts_have_tables_of_one_kind(packed: Path) -> None:
    survey = PackedSurvey(packed)
    assert len(survey.parts) == 3
    assert len({str(survey.rows(part).table.schema) for part in range(3)}) == 1


def test_a_part_is_known_by_what_it_holds(packed: Path, tmp_path: Path) -> None:
    copy = write_positions(tmp_path / "survey")
    same = pack_survey(copy, tmp_path / "same", "bands=[r]", KEEP)
    less = pack_survey(copy, tmp_path / "less", "bands=[r]", "columns.keep=[note]")

    fingerprints = [part.fingerprint for part in PackedSurvey(packed).parts]
    assert len(set(fingerprints)) == 3
    assert [part.fingerprint for part in PackedSurvey(same).parts] == fingerprints
    assert not {part.fingerprint for part in PackedSurvey(less).parts} & set(fingerprints)


def test_a_damaged_shard_is_told_and_the_others_are_read(tmp_path: Path, packed: Path) -> None:
    survey_folder = write_positions(tmp_path / "survey")
    folder = pack_survey(survey_folder, tmp_path / "packed", "bands=[r]")
    file = folder / "test" / "shard-00000.h5"
    stored = bytearray(file.read_bytes())
    image = Dataset(folder)["test"].take("images", np.array([3]))[0].tobytes()
    stored[stored.index(image)] ^= 1
    file.write_bytes(stored)

    survey = PackedSurvey(folder)
    names = [part.name for part in survey.parts]
    damaged = names.index("test-shard-00000")
    with pytest.raises(BadCutoutError, match=r"shard-00000\.h5: is damaged in rows 0-.* copy or"):
        pixels_of(survey, damaged, 50)
    assert len(pixels_of(survey, names.index("val-shard-00000"), 50))


def test_a_shard_that_is_gone_is_refused_at_once(tmp_path: Path) -> None:
    folder = pack_survey(write_positions(tmp_path / "survey"), tmp_path / "packed", "bands=[r]")
    (folder / "val" / "shard-00000.h5").unlink()
    with pytest.raises(UserError, match=r"val/shard-00000\.h5"):
        PackedSurvey(folder)
