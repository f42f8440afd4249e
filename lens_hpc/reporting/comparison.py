"""Other runs, evaluated on the same samples: the ablation that an honest paper shows.

An arm is a recipe: runs that differ in their seed alone. What one run does better than another may
be the luck of its seed, so only an arm of several says something about its recipe.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc import config, layout, metrics, settings
from lens_hpc.dataset.manifest import read_run_manifest
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.metrics import Curve, Difference, table
from lens_hpc.training.run_folder import NOT_OF_THE_RUN

# Evaluations that agree in these are of the same samples.
SAME_SAMPLES = ("split", "dataset_crc32")

# In what the seeds of an arm must differ.
SEED = "train.seed"

ONE_SEED = (
    "one seed says nothing about a recipe, only about these weights: "
    "name more with arm=[RUN,...] and compare.NAME=[RUN,...]"
)


@dataclass(frozen=True)
class Seed:
    """A run of an arm, evaluated."""

    run: Path
    trained: config.Train
    """What it was trained with."""
    metrics: Mapping[str, Any]
    """What its metrics.json holds."""
    predictions: Path


@dataclass
class Arm:
    """Runs of one recipe, and how well they rank."""

    name: str
    seeds: list[Seed]

    @property
    def inputs(self) -> str:
        """What its models see: fusion, image or features."""
        return self.seeds[0].trained.model.inputs

    def described(self, more: str) -> str:
        """Return its name, its inputs where the name does not say them, and more."""
        inputs = "" if self.name == self.inputs else self.inputs
        parts = [part for part in (inputs, more) if part]
        return f"{self.name} ({', '.join(parts)})" if parts else self.name

    @property
    def aucs(self) -> list[float]:
        """The AUC of each seed; none where a class is missing."""
        found = [seed.metrics.get("auc") for seed in self.seeds]
        return [auc for auc in found if auc is not None]

    def mean(self, key: str) -> float | None:
        """Return the mean of a metric over the seeds, None where a seed has none."""
        values = [seed.metrics.get(key) for seed in self.seeds]
        return None if None in values else float(np.mean(np.array(values, float)))

    @property
    def spread(self) -> float | None:
        """By how much the AUC varies between seeds: standard deviation, or range of two."""
        if len(self.aucs) < 2:
            return None
        if len(self.aucs) == 2:
            return max(self.aucs) - min(self.aucs)
        return float(np.std(self.aucs, ddof=1))

    @property
    def spread_told(self) -> str:
        """The AUC of each seed and their spread, for a reader; an empty text for a single seed."""
        if self.spread is None:
            return ""
        listed = ", ".join(f"{auc:.4f}" for auc in self.aucs)
        kind = "range" if len(self.aucs) == 2 else "standard deviation"
        return f"{listed}; mean {np.mean(self.aucs):.4f}, {kind} {self.spread:.4f}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "inputs": self.inputs,
            "runs": [str(seed.run) for seed in self.seeds],
            "auc": [seed.metrics.get("auc") for seed in self.seeds],
            "auc_mean": self.mean("auc"),
            "auc_spread": self.spread,
        }


@dataclass
class Comparison:
    """Another arm, and how that of the evaluated run differs from it."""

    arm: Arm
    difference: Difference | None = None
    """Mean AUC of the evaluated run's arm minus its own."""
    curve: Curve | None = None
    """The ranking of its seed of median AUC."""

    @property
    def title(self) -> str:
        """Its name in a figure's legend."""
        seeds = len(self.arm.seeds)
        return self.arm.described(f"median of {seeds} seeds" if seeds > 1 else "")

    @property
    def verdict(self) -> str:
        """What the difference says: "better" only where no samples and no seeds make it up."""
        assert self.difference is not None
        value = self.difference.difference
        if not self.difference.is_shown:
            return f"no difference is shown: {value:+.4f}"
        if self.difference.over_seeds:
            return f"{'better' if value > 0 else 'worse'} by {abs(value):.4f}"
        return f"{'higher' if value > 0 else 'lower'} by {abs(value):.4f}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        tree = self.arm.as_dict()
        if self.difference is not None:
            p_value = self.difference.p_value
            tree["difference"] = self.difference.difference
            tree["difference_ci95"] = self.difference.ci95
            tree["p_value"] = None if np.isnan(p_value) else p_value
            tree["over_seeds"] = self.difference.over_seeds
            tree["verdict"] = self.verdict
        return tree

    def __str__(self) -> str:
        told = self.arm.spread_told
        seeds = f"{len(self.arm.seeds)} seeds: {told}" if told else ""
        text = f"against {self.arm.described(seeds)}"
        if self.difference is None:
            return text

        low, high = self.difference.ci95
        chance = "samples and seeds" if self.difference.over_seeds else "paired test"
        return (
            f"{text}: {self.verdict} in AUC [{low:+.4f}, {high:+.4f}],"
            f" p {self.difference.shown_p} ({chance})"
        )


@dataclass
class Ablation:
    """The arm of the evaluated run, and others."""

    own: Arm
    """Until the run is evaluated, its other seeds alone."""
    comparisons: list[Comparison] = field(default_factory=list)

    def compare(
        self,
        evaluated: Seed,
        labels: np.ndarray,
        logits: np.ndarray,
        groups: np.ndarray | None = None,
    ) -> None:
        """Add the evaluated run to its arm, and test how this differs from each other one.

        `labels` and `logits` are (N,) of each sample, `groups` (N,) int. Where one of the classes
        is missing, no difference is found. Raise UserError for damaged predictions.
        """
        labelled = labels >= 0
        if groups is not None:
            groups = groups[labelled]

        def ranked(seeds: Sequence[Seed]) -> list[np.ndarray]:
            return [read_logits(seed.predictions, len(labels))[labelled] for seed in seeds]

        own_logits = [logits[labelled], *ranked(self.own.seeds)]
        self.own.seeds.insert(0, evaluated)
        for arm in self.arms:
            warn_of_other_settings(arm)

        labels_there = labels[labelled]
        has_both_classes = 0 < (labels_there == 1).sum() < len(labels_there)
        for comparison in self.comparisons:
            others = ranked(comparison.arm.seeds)
            if has_both_classes:
                comparison.difference = metrics.compare_arms(
                    labels_there, own_logits, others, groups
                )
                comparison.curve = _median_curve(labels_there, others)

    @property
    def arms(self) -> list[Arm]:
        """The evaluated run's, and the others."""
        return [self.own, *(comparison.arm for comparison in self.comparisons)]

    @property
    def is_shown(self) -> bool:
        """Whether there is another seed, or another arm."""
        return len(self.own.seeds) > 1 or bool(self.comparisons)

    @property
    def caution(self) -> str:
        """What holds for every arm of a single seed; an empty text without one."""
        differences = [comparison.difference for comparison in self.comparisons]
        return ONE_SEED if any(each and not each.over_seeds for each in differences) else ""

    def lines(self) -> list[str]:
        """Return what the terminal says of it."""
        lines = [str(comparison) for comparison in self.comparisons]
        if self.own.spread_told:
            lines.insert(0, f"AUC of {len(self.own.seeds)} seeds: {self.own.spread_told}")
        if self.caution:
            lines.append(self.caution)
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        others = [comparison.as_dict() for comparison in self.comparisons]
        return {"arm": self.own.as_dict(), "comparisons": others}


def _median_curve(labels: np.ndarray, logits: Sequence[np.ndarray]) -> Curve:
    """Return the ranking of median AUC, the lower one of the two of an even number."""
    curves = sorted((metrics.rank(labels, each) for each in logits), key=metrics.auc)
    return curves[(len(curves) - 1) // 2]


# ---- reading what was evaluated before ----


def read_ablation(
    runs: Sequence[Path],
    arm: Sequence[Path],
    compare: Mapping[str, Sequence[Path]],
    read: Callable[[str, Path], Seed],
) -> Ablation:
    """Read what to compare the evaluated `runs` with: other seeds of their arm, and other arms.

    `read` returns a run, by the setting that names it. Raise UserError for what is not an arm.
    """
    if arm and len(runs) > 1:
        raise UserError(
            f"arm = {arm[0]}: several runs are one ensemble, which has no other seeds; evaluate one"
        )
    own = Arm("this run", [read("arm", run) for run in arm])
    if arm:
        trained = settings.load(config.Train, runs[0] / layout.CONFIG)
        check_seeds("arm", [(runs[0], trained), *_recipes(own)])

    comparisons = []
    for name, others in compare.items():
        other = Arm(name, [read("compare", run) for run in others])
        check_seeds("compare", _recipes(other))
        if arm:
            _check_apart([runs[0], *arm], others)
        comparisons.append(Comparison(other))
    return Ablation(own, comparisons)


def _recipes(arm: Arm) -> list[tuple[Path, config.Train]]:
    return [(seed.run, seed.trained) for seed in arm.seeds]


def check_seeds(setting: str, recipes: Sequence[tuple[Path, config.Train]]) -> None:
    """Raise UserError where two of an arm's runs have the same seed and the same settings.

    `setting` names them. Each has its folder, and what it was trained with.
    """
    for number, (run, trained) in enumerate(recipes):
        for before, trained_before in recipes[:number]:
            is_same = run.resolve() == before.resolve()
            if is_same or not _differences(before, trained_before, run, trained):
                raise UserError(
                    f"{setting} = {run}: has the seed and the settings of {before}, and is no "
                    "other seed of its arm; name runs that differ in train.seed"
                )


def warn_of_other_settings(arm: Arm) -> None:
    """Warn of runs of an arm that differ in more than their seed."""
    first = arm.seeds[0]
    for seed in arm.seeds[1:]:
        more = _differences(first.run, first.trained, seed.run, seed.trained, {SEED})
        if more:
            logger.warning(
                "%s differs from %s in more than its seed, so that the spread between them is not "
                "that of seeds alone: %s",
                seed.run,
                first.run,
                "; ".join(more),
            )


def _differences(
    before: Path,
    trained_before: config.Train,
    run: Path,
    trained: config.Train,
    ignored: Collection[str] = (),
) -> list[str]:
    """Describe in what the recipes of two runs differ, but for the dotted keys ignored."""
    unlike = settings.differences(trained_before, trained, {*NOT_OF_THE_RUN, *ignored})

    # One dataset has many paths, and one path may have had several datasets.
    if not read_run_manifest(before).is_of_same_rows(read_run_manifest(run)):
        there, here = trained_before.data.dataset, trained.data.dataset
        unlike.append(f"data.dataset: {there} there, {here} here, which are not the same")
    return unlike


def _check_apart(own: Sequence[Path], others: Sequence[Path]) -> None:
    """Raise UserError where an arm has a run of the evaluated one."""
    in_both = {run.resolve() for run in own} & {run.resolve() for run in others}
    for run in others:
        if run.resolve() in in_both:
            raise UserError(f"compare = {run}: is a seed of the evaluated run's arm, too")


def read_seed(setting: str, run: Path, evaluation: Path, origin: dict[str, Any]) -> Seed:
    """Read the evaluation of another run, to compare it with one of this origin.

    `setting` names it. Raise UserError when there is none, when it is damaged, or when it is one of
    other samples.
    """
    file = evaluation / layout.METRICS
    if not file.is_file():
        raise UserError(
            f"{setting} = {run}: {evaluation} is not there; "
            "evaluate that run with the same settings first"
        )

    tree = _read_metrics(file)
    differ = [name for name in SAME_SAMPLES if tree.get(name) != origin[name]]
    if differ:
        raise UserError(
            f"{setting} = {run}: {evaluation} is of other samples ({', '.join(differ)}); "
            "evaluate it again"
        )

    # That its predictions are damaged would else be found when all is scored.
    predictions = evaluation / layout.PREDICTIONS
    with _damage_named(predictions):
        pq.read_schema(predictions)

    trained = settings.load(config.Train, run / layout.CONFIG)
    return Seed(run, trained, tree, predictions)


def read_logits(predictions: Path, count: int) -> np.ndarray:
    """Return the logits of a split's `count` rows, in their order. Raise UserError for damage."""
    with _damage_named(predictions):
        columns = pq.read_table(predictions, columns=["index", "logit"])
        index = columns["index"].cast(pa.int64()).to_numpy()
        logits = columns["logit"].cast(pa.float32()).to_numpy()
        if not np.array_equal(np.sort(index), np.arange(count)) or not np.isfinite(logits).all():
            raise ValueError(f"has not one score for each of {count:,} rows")

    # Its samples may lie in another order: each goes to its own row.
    in_order = np.empty(count, np.float32)
    in_order[index] = logits
    return in_order


def _read_metrics(file: Path) -> dict[str, Any]:
    """Return what metrics.json holds. Raise UserError for what no evaluation has written."""
    with _damage_named(file):
        tree = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(tree, dict):
            raise ValueError("holds no mapping")

        headlines = [metric.key for metric in table.METRICS if metric.headline]
        for key in headlines:
            if not isinstance(tree.get(key), int | float | None):
                raise ValueError(f"{key} is no number")
    return tree


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Turn what a reader of this file raises into one UserError that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, RecursionError, pa.ArrowException) as error:
        raise UserError(f"{file}: is damaged ({error}); evaluate that run again") from error
