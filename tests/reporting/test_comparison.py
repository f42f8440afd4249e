import dataclasses
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lens_hpc import config, metrics, settings
from lens_hpc.dataset.manifest import Manifest, ShardRecord, SplitRecord
from lens_hpc.errors import UserError
from lens_hpc.reporting.comparison import (
    Ablation,
    Arm,
    Comparison,
    Seed,
    read_ablation,
    read_seed,
)

ORIGIN = {"split": "test", "dataset_crc32": "1234"}
COUNT = 40
ZERO = "0" * 8
SHARD = ShardRecord(file="test/shard-00000.h5", rows=1, bytes=1, crc32=ZERO, block_crc32=(ZERO,))
MANIFEST = Manifest(
    schema_version=3,
    name="data",
    bands=("g",),
    height=8,
    width=8,
    dtype="float32",
    pixel_scale_arcsec=0.2,
    resampled=(),
    units="counts",
    features=(),
    grouped=False,
    seed=0,
    block_rows=256,
    statistics=None,
    splits={"test": SplitRecord(rows=1, lenses=1, non_lenses=0, unlabelled=0, shards=(SHARD,))},
    rejected=0,
    duplicates_across_splits=0,
    recipe={},
    created_by="",
)


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """A run with an evaluation, as far as a comparison reads it."""
    write_run(tmp_path)
    return tmp_path


def write_run(run: Path, seed: int = 0, **changed: Any) -> Path:
    """Write a run as far as a comparison reads it, with a ranking of its own."""
    folder = run / "evaluation"
    folder.mkdir(parents=True)
    manifest = MANIFEST.model_copy(update={"name": changed.pop("name", "data")})
    (run / "manifest.json").write_text(manifest.model_dump_json())
    (run / "config.yaml").write_text(settings.dump(train_settings(run, seed, **changed)))
    write_metrics(folder, {"auc": 0.5 + seed / 100})
    noise = np.random.default_rng(seed).normal(size=COUNT)
    write_predictions(folder, {"logit": np.linspace(0, 1, COUNT) + 0.1 * noise * bool(seed)})
    return run


def train_settings(run: Path, seed: int, **changed: Any) -> config.Train:
    return config.Train(
        run=run,
        data=config.Data(dataset=changed.pop("dataset", Path("data"))),
        train=config.Loop(seed=seed, **changed),
    )


def write_metrics(folder: Path, changed: dict[str, Any]) -> None:
    (folder / "metrics.json").write_text(json.dumps({**ORIGIN, "auc": 0.5, **changed}))


def write_predictions(folder: Path, changed: dict[str, Any]) -> None:
    columns = {"index": np.arange(COUNT)[::-1], "logit": np.linspace(0, 1, COUNT), **changed}
    present = {name: values for name, values in columns.items() if values is not None}
    pq.write_table(pa.table(present), folder / "predictions.parquet")


def read(setting: str, run: Path) -> Seed:
    return read_seed(setting, run, run / "evaluation", ORIGIN)


def seed_of(auc: float | None) -> Seed:
    return Seed(Path("run"), train_settings(Path("run"), 0), {"auc": auc}, Path())


def compare(run: Path, *others: Path, groups: np.ndarray | None = None) -> Comparison:
    """Compare a ranking that is nearly perfect with that of an arm."""
    other = Arm("other", [read("compare", each) for each in (run, *others)])
    ablation = Ablation(Arm("this run", []), [Comparison(other)])
    labels = np.arange(COUNT) // (COUNT // 2)
    logits = labels + np.random.default_rng(0).normal(size=COUNT)
    # A row without a label counts in nothing.
    labels = np.where(np.arange(COUNT) == 3, -1, labels)
    ablation.compare(seed_of(0.9), labels, logits, groups)
    return ablation.comparisons[0]


def width(comparison: Comparison) -> float:
    assert comparison.difference is not None
    return float(np.ptp(comparison.difference.ci95))


# ---- one run ----


def test_a_sound_evaluation_is_compared_row_by_row(evaluated: Path) -> None:
    found = compare(evaluated)
    assert found.difference is not None
    # Its rows lie in the other order, so that it ranks every lens last.
    assert 0.5 < found.difference.difference < 1
    assert str(found).endswith("(paired test)")
    assert found.title == "other (fusion)"


def test_rows_of_a_group_are_compared_as_one(evaluated: Path) -> None:
    assert width(compare(evaluated, groups=np.arange(COUNT) // 4)) > 1.2 * width(compare(evaluated))


@pytest.mark.parametrize("label", [-1, 0, 1])
def test_without_both_classes_nothing_is_compared(evaluated: Path, label: int) -> None:
    ablation = Ablation(Arm("this run", []), [Comparison(Arm("x", [read("compare", evaluated)]))])
    ablation.compare(seed_of(None), np.full(COUNT, label), np.zeros(COUNT))
    assert ablation.lines() == ["against x (fusion)"]
    json.dumps(ablation.as_dict(), allow_nan=False)


# ---- arms ----


def test_seeds_of_an_arm_are_compared_together(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, seed) for seed, name in enumerate("abc")]
    ablation = read_ablation([runs[0]], runs[1:2], {"other": runs[2:]}, read)

    labels = np.arange(COUNT) % 2
    evaluated = dataclasses.replace(seed_of(0.9), run=runs[0])
    ablation.compare(evaluated, labels, labels + 0.5)
    assert ablation.own.aucs == [0.9, 0.51]
    assert ablation.lines()[0] == "AUC of 2 seeds: 0.9000, 0.5100; mean 0.7050, range 0.3900"
    assert ablation.caution  # the other arm has one seed


def test_what_exceeds_samples_and_seeds_is_better(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    runs = []
    for number in range(6):
        run = write_run(tmp_path / str(number), number)
        logits = rng.normal(size=2000) + labels * (2.0 if number < 3 else 1.0)
        write_predictions(run / "evaluation", {"index": np.arange(2000), "logit": logits})
        runs.append(run)

    def ablate(arm: list[Path], others: list[Path]) -> Ablation:
        ablation = read_ablation(runs[:1], arm, {"other": others}, read)
        logits = pq.read_table(runs[0] / "evaluation/predictions.parquet")["logit"].to_numpy()
        ablation.compare(read("arm", runs[0]), labels, logits)
        json.dumps(ablation.as_dict(), allow_nan=False)
        return ablation

    arms = ablate(runs[1:3], runs[3:])
    spread = "0.5000, 0.5100, 0.5200; mean 0.5100, standard deviation 0.0100"
    assert arms.lines()[0] == f"AUC of 3 seeds: {spread}"
    line = r"against other \(fusion, 3 seeds: 0.53.*\): better by 0\.\d+ in AUC \[\+.*seeds\)"
    assert re.fullmatch(line, arms.lines()[1])
    assert arms.caution == ""
    assert arms.comparisons[0].title == "other (fusion, median of 3 seeds)"
    assert arms.as_dict()["comparisons"][0]["over_seeds"]

    # Of one seed, it is these weights that rank better.
    alone = ablate([], runs[3:])
    assert ": higher by 0." in alone.lines()[0]
    assert alone.lines()[-1] == alone.caution
    assert not alone.as_dict()["comparisons"][0]["over_seeds"]


@pytest.mark.parametrize(
    ("value", "low", "high", "over_seeds", "said"),
    [
        (0.02, 0.01, 0.03, True, "better by 0.0200"),
        (-0.02, -0.03, -0.01, True, "worse by 0.0200"),
        (0.02, 0.01, 0.03, False, "higher by 0.0200"),
        (-0.02, -0.03, -0.01, False, "lower by 0.0200"),
        (0.02, -0.01, 0.05, True, "no difference is shown: +0.0200"),
        (-0.0005, -0.01, 0.02, False, "no difference is shown: -0.0005"),
    ],
)
def test_words_follow_sign_and_interval(
    value: float, low: float, high: float, over_seeds: bool, said: str
) -> None:
    difference = metrics.Difference(value, (low, high), 0.1, over_seeds)
    comparison = Comparison(Arm("x", [seed_of(0.5)]), difference)
    assert comparison.verdict == said
    assert said in str(comparison)


def test_the_curve_is_that_of_median_auc(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), seed) for seed in range(3)]
    for run, noise in zip(runs, (0.0, 9.0, 1.0), strict=True):
        scores = np.arange(COUNT) / COUNT + noise * np.random.default_rng(1).normal(size=COUNT)
        write_predictions(run / "evaluation", {"index": np.arange(COUNT), "logit": scores})
    median = compare(*runs)
    alone = compare(runs[2])
    assert median.curve is not None
    assert alone.curve is not None
    np.testing.assert_array_equal(median.curve.thresholds, alone.curve.thresholds)


def test_a_run_is_one_seed_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    copy = write_run(tmp_path / "copy")
    other = write_run(tmp_path / "other", 1)
    link = tmp_path / "link"
    link.symlink_to(other)

    same = r"has the seed and the settings of .*; name runs that differ in train.seed"
    for arm in ([run], [copy], [other, link]):
        with pytest.raises(UserError, match=rf"^arm = {arm[-1]}: {same}"):
            read_ablation([run], arm, {}, read)
    with pytest.raises(UserError, match=rf"^compare = {link}: {same}"):
        read_ablation([run], [], {"other": [other, link]}, read)
    with pytest.raises(UserError, match=rf"^compare = {link}: is a seed of the evaluated run's"):
        read_ablation([run], [other], {"other": [link]}, read)
    # A part of an ensemble is no seed of it.
    assert read_ablation([run, other], [], {"part": [run]}, read).own.seeds == []
    with pytest.raises(UserError, match=r"^arm = .*link: several runs are one ensemble"):
        read_ablation([run, other], [link], {}, read)


def test_what_differs_beyond_the_seed_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runs = [write_run(tmp_path / str(seed), seed) for seed in range(3)]
    compare(*runs)
    assert caplog.text == ""

    # Where it was trained, and for how long at a time, is nothing of the recipe.
    unlike = write_run(tmp_path / "x", epochs=3, name="other", trackers=("wandb",), max_minutes=1)
    compare(*runs, unlike)
    data = "data.dataset: data there, data here, which are not the same"
    told = f"train.epochs: 30 there, 3 here; {data}"
    assert caplog.messages == [
        f"{unlike} differs from {runs[0]} in more than its seed, so that the spread between them "
        f"is not that of seeds alone: {told}"
    ]


def test_one_dataset_may_have_several_paths(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = [Path("data"), Path("data").resolve(), tmp_path / "a copy elsewhere"]
    runs = [write_run(tmp_path / str(seed), seed, dataset=path) for seed, path in enumerate(paths)]
    compare(*runs)
    assert caplog.text == ""

    # The same seed is no other one, whatever path its dataset had.
    same = write_run(tmp_path / "same", 0, dataset=paths[1])
    with pytest.raises(UserError, match=rf"^arm = {same}: has the seed and the settings of"):
        read_ablation(runs[:1], [same], {}, read)
    # With other data, it is.
    other = write_run(tmp_path / "other", 0, name="other")
    assert read_ablation(runs[:1], [other], {}, read).own.seeds


# ---- damage ----


@pytest.mark.parametrize(
    "content",
    ["", "null", "[1]", "{", "\0", "[" * 100_000, '{"auc": "high"}', '{"auc": [1]}', b"\xff"],
)
def test_damaged_metrics_are_told_by_their_name(evaluated: Path, content: str | bytes) -> None:
    file = evaluated / "evaluation" / "metrics.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"metrics.json: is damaged \(.*evaluate that run again"):
        compare(evaluated)


DAMAGE = {
    "a row twice": {"index": np.zeros(COUNT, int)},
    "a row of elsewhere": {"index": np.arange(COUNT) + 1},
    "a row before all": {"index": np.arange(COUNT) - 1},
    "no index": {"index": None},
    "texts": {"logit": ["high"] * COUNT},
    "NaN": {"logit": np.full(COUNT, np.nan)},
    "fewer rows": {"index": np.arange(3), "logit": np.zeros(3)},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_predictions_that_are_not_those_of_each_row_are_told(
    evaluated: Path, damage: dict[str, Any]
) -> None:
    write_predictions(evaluated / "evaluation", damage)
    with pytest.raises(UserError, match=r"predictions.parquet: is damaged"):
        compare(evaluated)


@pytest.mark.parametrize("kept", [None, 0, 10, 0.5, 0.99])
def test_predictions_that_are_cut_are_told_before_anything_is_scored(
    evaluated: Path, kept: float | None
) -> None:
    file = evaluated / "evaluation" / "predictions.parquet"
    content = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(content[: int(kept if kept > 1 else kept * len(content))])
    with pytest.raises(UserError, match=r"predictions.parquet: is damaged"):
        read("compare", evaluated)


def test_predictions_with_any_damaged_byte_are_compared_or_told(evaluated: Path) -> None:
    file = evaluated / "evaluation" / "predictions.parquet"
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 100):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        with suppress(UserError):
            compare(evaluated)
