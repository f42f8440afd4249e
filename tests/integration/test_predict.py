"""A survey is scored from its mosaics: each object once, the same by any number of processes, by
tasks, and after any kill."""

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import lens_hpc
from lens_hpc import Dataset, Finder, UserError
from lens_hpc.predicting.prediction import Prediction
from tests.integration.commands import Job
from tests.kills import files_of
from tests.packing.mosaic_surveys import make_header, noise, positions_in, write_mosaic
from tests.predicting.small_runs import make_run

pytestmark = pytest.mark.slow
KILLS = 50 if "LENS_HPC_LONG" in os.environ else 2
SHAPE = (150, 200)
CENTRES = {"a": (150.1, 2.2), "b": (150.104, 2.2), "c/d": (150.1, 2.206)}
"""Of tiles of 40 x 30 arcsec, which overlap."""
OBJECTS_OF_A_TILE = 60
RECIPE = {
    "name": "survey",
    "catalogue": "catalogue",
    "columns": {"label": "is_lens", "features": ["radius", "colour"], "keep": ["ra", "field"]},
    "mosaics": {"path": "{tile:.*}/{band}.fits"},
    "bands": ["g", "r"],
    "size": [16, 16],
    "pixel_scale": 0.2,
    "units": "nJy",
    "bad_pixels": {"most": 0.9},
}


def write_survey(folder: Path, seed: int = 0) -> Path:
    """Tiles, and a catalogue of two files: at their edges, on no tile, and without a position."""
    rng = np.random.default_rng(seed)
    places = []
    for number, (tile, centre) in enumerate(CENTRES.items()):
        header = make_header(SHAPE, centre)
        for band in "gr":
            pixels = noise(SHAPE, seed + 2 * number + (band == "g"))
            pixels[70:74, 90:93] = np.nan
            write_mosaic(folder / tile / f"{band}.fits", pixels, header)
        places.append(positions_in(header, SHAPE, OBJECTS_OF_A_TILE, seed + number, beyond=4))

    positions = np.concatenate([*places, [[10.0, 10.0], [np.nan, 2.2]]])
    count = len(positions)
    table = pd.DataFrame(
        {
            "id": [f"obj{number:04d}" for number in range(count)],
            "ra": positions[:, 0],
            "dec": positions[:, 1],
            "is_lens": rng.integers(0, 2, count),
            "radius": rng.normal(size=count),
            "colour": np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count)),
            "field": rng.choice(["east", "west"], count),
        }
    ).sample(frac=1, random_state=seed)
    (folder / "catalogue").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(count), 2)):
        table.iloc[rows].to_parquet(folder / "catalogue" / f"{number}.parquet")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


@pytest.fixture(scope="module", autouse=True)
def as_many_threads_as_commands() -> Iterator[None]:
    """Sums of as many parts have the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    survey = write_survey(folder / "survey")
    packed = folder / "packed"
    lens_hpc.pack(survey / "recipe.yaml", source=survey, output=packed, on_bad="skip")
    make_run(folder / "run", packed)
    make_run(folder / "other", packed, seed=1)
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, bytes]:
    """What one process makes in one go."""
    predict(folder, "alone")
    return outcome(folder / "alone")


def predict(folder: Path, output: str, **settings: object) -> Prediction:
    survey = settings.pop("survey", folder / "survey")
    return lens_hpc.predict(
        folder / "run",
        survey / "recipe.yaml",
        source=survey,
        output=folder / output,
        batch_size=16,
        candidates=20,
        random=15,
        **settings,
    )


def outcome(output: Path) -> dict[str, bytes]:
    return {
        name: content for name, content in files_of(output).items() if not name.startswith(".rows")
    }


def test_each_object_has_its_score_or_a_reason(folder: Path, alone: dict[str, bytes]) -> None:
    scores = pd.read_parquet(folder / "alone/scores")
    catalogue = pd.read_parquet(folder / "survey/catalogue")
    assert sorted(scores["id"]) == sorted(catalogue["id"])
    assert scores["logit"].isna().eq(scores["reason"].notna()).all()
    assert sorted(path.name for path in (folder / "alone/scores").iterdir()) == [
        "no-tile-00000.parquet",
        "tile-a.parquet",
        "tile-b.parquet",
        "tile-c%2Fd.parquet",
    ]

    there = catalogue.set_index("id").add_suffix("_there")
    joined = scores.set_index("id").join(there)
    np.testing.assert_array_equal(joined["ra"], joined["ra_there"])
    np.testing.assert_array_equal(joined["field"], joined["field_there"])
    of_nan = joined[joined["ra_there"].isna()]
    assert of_nan["reason"].str.contains("missing").all()

    summary = json.loads((folder / "alone/summary.json").read_text())
    assert summary["objects"] == len(catalogue)
    assert summary["scored"] == scores["logit"].notna().sum()
    assert sum(summary["histogram"]["objects"]) == summary["scored"]
    assert summary["at_an_edge"] == (scores["edge_fraction"] > 0).sum() > 0
    assert 0 < summary["trained_on_before"] == scores["trained_on"].sum() < len(scores)


def test_scores_are_those_of_the_packed_cutouts(folder: Path, alone: dict[str, bytes]) -> None:
    scores = pd.read_parquet(folder / "alone/scores").set_index("id")["logit"]
    finder = Finder.load(folder / "run")
    dataset = Dataset(folder / "packed")
    compared = 0
    for name in dataset.manifest.splits:
        batch = dataset[name][:]
        expected = finder.score(batch.images, batch.features)
        np.testing.assert_allclose(scores[list(batch.ids)], expected, atol=1e-5)
        compared += len(expected)
    assert compared == scores.notna().sum()


def test_a_packed_survey_has_the_same_scores(folder: Path, alone: dict[str, bytes]) -> None:
    of_shards = lens_hpc.predict(
        folder / "run", folder / "packed", output=folder / "of-shards", batch_size=16
    ).to_pandas()
    of_mosaics = pd.read_parquet(folder / "alone/scores").set_index("id")
    of_shards = of_shards.set_index("id")
    there = of_mosaics.loc[of_shards.index]
    np.testing.assert_allclose(of_shards["logit"], there["logit"], atol=1e-5)
    np.testing.assert_array_equal(of_shards["field"], there["field"])
    assert of_shards["trained_on"].equals(there["trained_on"])


def test_candidates_are_the_highest_scores(folder: Path, alone: dict[str, bytes]) -> None:
    scores = pd.read_parquet(folder / "alone/scores").dropna(subset="logit")
    scores = scores.sort_values(["logit", "id"], ascending=[False, True])
    candidates = Dataset(folder / "alone/candidates")["candidates"]
    assert list(candidates.ids()[:20]) == list(scores["id"][:20])

    # Then some of all others.
    others = scores["id"][20:]
    assert set(candidates.ids()[20:]) <= set(others)
    assert candidates.kept_columns()["inclusion_probability"].iloc[20:].eq(15 / len(others)).all()

    # Their pixels are what was scored.
    batch = candidates[:]
    logits = Finder.load(folder / "run").score(batch.images, batch.features)
    found = scores.set_index("id")["logit"][candidates.ids()]
    np.testing.assert_allclose(logits, found, atol=1e-5)
    np.testing.assert_allclose(candidates.kept_columns()["logit"], found, rtol=1e-6)


def test_tasks_in_any_order_make_the_same_bytes(folder: Path, alone: dict[str, bytes]) -> None:
    for task in (2, 0, 3, 1):
        done = predict(folder, "tasks", task=task, tasks=4)
        assert (done.summary is None) == (task != 1)
    assert outcome(folder / "tasks") == alone


def test_processes_make_the_same_bytes_and_go_on_after_kills(
    folder: Path, alone: dict[str, bytes]
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    output = folder / "killed"
    words = [
        "predict",
        str(folder / "run"),
        str(folder / "survey/recipe.yaml"),
        f"source={folder}/survey",
        f"output={output}",
        "batch_size=16",
        "candidates=20",
        "random=15",
    ]

    began = time.monotonic()
    job = Job(folder / "said", *words, processes=2)
    assert job.wait() == [0, 0], job.output()
    seconds = time.monotonic() - began
    assert outcome(output) == alone

    for _ in range(KILLS):
        # Now and then from nothing.
        if rng.random() < 0.5:
            shutil.rmtree(output, ignore_errors=True)
        job = Job(folder / "said", *words, processes=2)
        time.sleep(rng.uniform(0.3, 1) * seconds)
        job.kill()
    job = Job(folder / "said", *words, processes=2)
    assert job.wait() == [0, 0], job.output()
    assert outcome(output) == alone


def test_a_damaged_tile_stops_no_other_and_is_scored_when_it_is_mended(folder: Path) -> None:
    survey = shutil.copytree(folder / "survey", folder / "damaged survey")
    tile = survey / "b/r.fits"
    whole = tile.read_bytes()
    tile.write_bytes(whole[: len(whole) // 2])
    predicted: list[object] = []
    with pytest.raises(UserError, match=r"b/r\.fits.*cut off"):
        predicted.append(predict(folder, "mended", survey=survey))
    there = [path.name for path in (folder / "mended/scores").iterdir()]
    assert "tile-a.parquet" in there
    assert "tile-b.parquet" not in there
    assert not (folder / "mended/summary.json").exists()

    skipped = predict(folder, "mended", survey=survey, on_bad="skip").to_pandas()
    of_tile = skipped[skipped["tile"] == "b"]
    assert of_tile["logit"].isna().all()
    assert of_tile["reason"].str.contains("cut off").any()

    tile.write_bytes(whole)
    mended = predict(folder, "mended", survey=survey).to_pandas()
    assert mended.loc[mended["tile"] == "b", "logit"].notna().any()


def test_more_tiles_extend_an_output(folder: Path, alone: dict[str, bytes]) -> None:
    survey = shutil.copytree(folder / "survey", folder / "growing")
    later = survey / "c"
    later.rename(folder / "later")
    first = predict(folder, "extended", survey=survey).to_pandas()
    (folder / "later").rename(later)
    second = predict(folder, "extended", survey=survey).to_pandas()

    both = pd.read_parquet(folder / "alone/scores")
    assert first["logit"].notna().sum() < second["logit"].notna().sum()
    columns = ["id", "tile", "logit", "probability", "reason"]
    in_order = [table[columns].sort_values("id").reset_index(drop=True) for table in (second, both)]
    pd.testing.assert_frame_equal(*in_order)


def test_the_same_line_again_says_what_is_there(folder: Path, alone: dict[str, bytes]) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "alone").rglob("*")}
    assert "scored" in predict(folder, "alone").text
    assert {path: path.stat().st_mtime_ns for path in (folder / "alone").rglob("*")} == before
    with pytest.raises(UserError, match="was begun with another batch_size"):
        lens_hpc.predict(
            folder / "run",
            folder / "survey/recipe.yaml",
            source=folder / "survey",
            output=folder / "alone",
        )


def test_an_ensemble_has_a_spread_and_a_dry_run_writes_nothing(folder: Path) -> None:
    runs = [folder / "run", folder / "other"]
    survey = folder / "survey"
    settings = {"source": survey, "output": folder / "both"}
    told = lens_hpc.predict(*runs, survey / "recipe.yaml", dry_run=True, **settings)
    assert f"{3 * OBJECTS_OF_A_TILE + 2} objects in 4 parts" in told.text
    assert not (folder / "both").exists()
    scores = lens_hpc.predict(*runs, survey / "recipe.yaml", **settings).to_pandas()
    assert (scores["spread"].notna() == scores["logit"].notna()).all()
    assert scores["spread"].max() > 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"recipe": {"bands": ["r", "g"]}}, "bands are"),
        ({"recipe": {"size": [20, 20]}}, "height are 20"),
        ({"recipe": {"columns": {"features": ["radius"]}}}, "features are"),
        ({"recipe": {"pixel_scale": 0.3}}, "pixels of 0.3 arcsec"),
        ({"recipe": {"units": "counts"}}, "units of counts"),
        ({"recipe": {"catalogue": "no.parquet"}}, "no such catalogue"),
        ({"recipe": {"colour": "blue"}}, "colour"),
        ({"source": None}, "which folder holds"),
        ({"task": 2, "tasks": 2}, "task must be less than tasks"),
    ],
)
def test_what_does_not_suit_is_refused_before_anything_is_written(
    folder: Path, settings: dict, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        lens_hpc.predict(
            folder / "run",
            folder / "survey/recipe.yaml",
            **{"source": folder / "survey", "output": folder / "refused"} | settings,
        )
    assert not (folder / "refused/scores").exists() or not any(
        (folder / "refused/scores").iterdir()
    )
