"""Score a split with a trained run, every sample once, and say how far to trust the ranking.

1. Weights, settings and training statistics come from RUN/best or RUN/final; several runs are one
   ensemble.
2. The run's validation split is scored first, to calibrate the probabilities on samples that are
   not tested on.
3. Each process scores its share of the split and writes it to a part; one process merges the parts.
4. RUN/evaluation/SPLIT gets predictions.parquet, metrics.json, calibration.json, figures/ and
   report.html, together or not at all.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lens_hpc import files, layout
from lens_hpc.dataset.mapping import cut_shards_named
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.verdict import manifest_crc32, read_audit
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.metrics import table
from lens_hpc.model.trained import TrainedModel, load_trained, weights_folder
from lens_hpc.process import torch_unchanged
from lens_hpc.refusals import refusals_named
from lens_hpc.reporting.breakdown import choose_columns
from lens_hpc.reporting.comparison import Ablation, Seed, read_ablation, read_seed
from lens_hpc.reporting.recovery import (
    KnownLenses,
    find_known_lenses,
    read_known_lenses,
    split_positions,
)
from lens_hpc.reporting.report import Subject, write_report
from lens_hpc.reporting.results import Survey, evaluate_scores
from lens_hpc.reporting.summary import best_ranked, summarize
from lens_hpc.reporting.tracked import show_in_trackers
from lens_hpc.scoring import predictions
from lens_hpc.scoring.calibration import (
    Calibration,
    fit_calibration,
    probability_maps,
)
from lens_hpc.scoring.distributed import EnsembleScorer, samples_for
from lens_hpc.scoring.out_of_memory import out_of_memory_named, smaller_batch_size
from lens_hpc.scoring.predictions import Scores
from lens_hpc.scoring.provenance import SeenBefore, check_same_survey, find_rows_seen
from lens_hpc.texts import csv_text
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.long_wait import waited_for
from lens_hpc.training.run_folder import held_together

IDS_SHOWN = 5


@dataclass(frozen=True)
class Scoring:
    """What is scored, how, and what is asked of the scores."""

    split: str = "test"
    weights: str = "best"
    """best, final, or the FILE of the weights."""
    dataset: Path | None = None
    """A packed dataset to score in place of the run's own."""
    tta: str = "none"
    """Test-time augmentation: none, flips or d4."""
    allow: tuple[str, ...] = ()
    """pixel_scale and units may differ from the training's, where they are named."""
    batch_size: int = 256
    workers: int = 2
    code: tuple[str, ...] = ()
    """Packages of one's own that the model may come from."""
    known: Path | None = None
    """A list of known lenses to look for."""
    by: tuple[str, ...] | None = None
    """Columns to break the results down by; None: the kept columns of few values."""
    compare: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    """Other arms by their names, each of runs that were evaluated in the same way before."""
    arm: Sequence[Path] = ()
    """Other seeds of the run, evaluated in the same way before."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """A finished evaluation, as it lies on disk."""

    folder: Path
    """RUN/evaluation/SPLIT."""
    metrics: dict[str, Any]
    """What metrics.json holds."""
    text: str
    """What the terminal prints."""

    @property
    def report(self) -> Path:
        """The report, to open in a browser."""
        return self.folder / layout.REPORT

    @property
    def predictions(self) -> Path:
        """The score of every sample, in a Parquet file."""
        return self.folder / layout.PREDICTIONS

    def to_pandas(self) -> pd.DataFrame:
        """Read the predictions: one row for each sample of the split, in its order."""
        return pd.read_parquet(self.predictions)

    def __repr__(self) -> str:
        parts = [f"{self.metrics['n']:,} samples"]
        for metric in table.METRICS:
            value = self.metrics.get(metric.key)
            if metric.headline and value is not None:
                parts.append(f"{metric.name} {value:.4f}")
        return f"Evaluation({', '.join(parts)}, in {self.folder})"


# ---- the way through ----


def evaluate_runs(runs: Sequence[Path], scoring: Scoring, survey: Survey) -> Evaluation | None:
    """Evaluate a run, or several as one ensemble, on all processes.

    The first process returns the evaluation, the others None. Raise UserError for runs and datasets
    that are not there or do not suit each other.
    """
    with torch_unchanged(), cut_shards_named():
        # All that the user can have wrong is looked at before the processes meet.
        task = _prepare(runs, scoring)
        remedy = smaller_batch_size(scoring.batch_size)
        with accelerator_session() as accelerator, out_of_memory_named(remedy):
            # In float32, whatever the run was trained in: rounding makes ties.
            return _evaluate(accelerator, task, survey)


@dataclass(frozen=True)
class _Task:
    """An evaluation that can begin."""

    runs: Sequence[Path]
    members: list[TrainedModel]
    scoring: Scoring
    training_dataset: Path
    """The dataset that the first run was trained on."""
    split: Split
    origin: dict[str, Any]
    ablation: Ablation
    known: KnownLenses | None


def _prepare(runs: Sequence[Path], scoring: Scoring) -> _Task:
    """Load the models, open the split and read what to compare with."""
    members = [load_trained(weights_folder(run, scoring.weights), scoring.code) for run in runs]
    training_dataset = members[0].settings.data.dataset
    split = Split(scoring.dataset or training_dataset, scoring.split)
    differences = check_members(scoring, runs, members, split)
    known = read_known_lenses(scoring.known) if scoring.known else None
    if known is not None:
        split_positions(split)  # for its errors
    if scoring.by:
        choose_columns(split, scoring.by)

    # Other runs are compared with where split and dataset are the same.
    origin = {
        "runs": [str(run) for run in runs],
        "dataset": split.manifest.name,
        "dataset_crc32": manifest_crc32(split.dataset),
        "split": scoring.split,
        "weights": scoring.weights,
        "epochs": [member.facts.get("epoch") for member in members],
        "tta": scoring.tta,
        "unlike_training": differences,
    }

    def read(setting: str, run: Path) -> Seed:
        folder = layout.evaluation_folder(run, evaluation_name(scoring, [run]))
        return read_seed(setting, run, folder, origin)

    ablation = read_ablation(runs, scoring.arm, scoring.compare, read)
    return _Task(runs, members, scoring, training_dataset, split, origin, ablation, known)


def _evaluate(accelerator: Accelerator, task: _Task, survey: Survey) -> Evaluation | None:
    """Score on all processes; the first writes everything and returns it."""
    # The first run of an ensemble keeps the results.
    name = evaluation_name(task.scoring, task.runs)
    folder = files.final_name(layout.evaluation_folder(task.runs[0], name))
    evaluation = None
    with held_together(accelerator, folder):
        # It is made before the work, for all that could keep it from being made.
        with _folder_of_all(accelerator, folder) as partial:
            calibration, rows, logits = _score(accelerator, task)
            maps = probability_maps(calibration)
            with waited_for(accelerator, "writing predictions"), refusals_named(folder):
                rank = accelerator.process_index
                predictions.write_part(partial, rank, task.split, rows, logits, maps)

            # All parts are there now.
            if accelerator.is_main_process:
                scores = predictions.merge_parts(partial, task.split)
                evaluation = _write_evaluation(partial, folder, task, survey, calibration, scores)
        if evaluation:
            show_in_trackers(folder, task.runs[0], task.members[0])
    return evaluation


def _score(
    accelerator: Accelerator, task: _Task
) -> tuple[Calibration | None, np.ndarray, np.ndarray]:
    """Calibrate, and score this process's share: calibration, row numbers (n,), logits (n,)."""
    scoring = task.scoring
    scorer = EnsembleScorer(
        accelerator, task.members, scoring.tta, scoring.batch_size, scoring.workers
    )
    calibration = calibrate_on_validation(scorer, task.training_dataset, task.split)
    with waited_for(accelerator, f"scoring {task.split.name}"):
        rows, logits = scorer.score_share(task.split)
    return calibration, rows, logits


def _write_evaluation(
    partial: Path,
    folder: Path,
    task: _Task,
    survey: Survey,
    calibration: Calibration | None,
    scores: Scores,
) -> Evaluation:
    """Write all but the predictions into a folder that will become `folder`."""
    check_scores(scores.logits, task.split)
    columns = choose_columns(task.split, task.scoring.by)
    results = evaluate_scores(
        scores.labels, scores.logits, survey, scores.groups, calibration, columns
    )
    if task.known is not None:
        recovery = find_known_lenses(task.known, task.split, scores, results.sample)
        recovery.write(partial / layout.RECOVERY)
        results = replace(results, recovery=recovery)
    values = results.as_dict()
    trained = task.members[0].settings
    evaluated = Seed(task.runs[0], trained, values, partial / layout.PREDICTIONS)
    task.ablation.compare(evaluated, scores.labels, scores.logits, scores.groups)

    seen = find_rows_seen(task.split, [member.folder for member in task.members])
    if seen and seen.count:
        warn_of_rows_seen(partial, task.split, seen)
    trained_on = {"trained_on": seen.as_dict() if seen else None}
    metrics_text = _to_json(task.origin | trained_on | values | task.ablation.as_dict())
    # Without a calibration, the file says null.
    calibration_text = _to_json(None if calibration is None else asdict(calibration))
    (partial / layout.METRICS).write_text(metrics_text, encoding="utf-8")
    (partial / layout.CALIBRATION).write_text(calibration_text, encoding="utf-8")

    audit = read_audit(task.split.dataset)
    inputs = trained.model.inputs
    subject = Subject(task.runs[0], inputs, task.origin, audit, seen, task.members, columns)
    write_report(partial, subject, results, task.ablation, task.split, scores)
    best = best_ranked(task.split, scores) if results.sample is None else ""
    text = summarize(folder, results, task.ablation, best)
    return Evaluation(folder, json.loads(metrics_text), text)


@contextmanager
def _folder_of_all(accelerator: Accelerator, path: Path) -> Iterator[Path]:
    """Yield a folder for all processes; it becomes `path` when the first of them is done."""
    partial = None
    with ExitStack() as stack:
        with waited_for(accelerator, f"making {path}"):
            if accelerator.is_main_process:
                partial = stack.enter_context(files.whole_folder(path, replace=True))
        yield broadcast_object_list([partial])[0]


def _to_json(tree: object) -> str:
    return json.dumps(tree, indent=1) + "\n"


# ---- checks and calibration ----


def check_members(
    scoring: Scoring, runs: Sequence[Path], members: Sequence[TrainedModel], split: Split
) -> list[str]:
    """Return in what the dataset differs from the training's, as far as that is allowed.

    Raises UserError where a run cannot read the split, or may have been trained on it.
    """
    differences: list[str] = []
    names_one_file = scoring.weights not in {layout.BEST, layout.FINAL}
    if len(runs) > 1 and names_one_file:
        raise UserError(
            f"weights = {scoring.weights}: one FILE is not the weights of {len(runs)} runs"
        )

    for run, member in zip(runs, members, strict=True):
        samples_for(member, split)  # for its errors
        kind, trained_on = split.manifest.kind, member.manifest.kind
        differences += check_same_survey(kind, trained_on, scoring.allow)
        if scoring.dataset is None and member.manifest.splits != split.manifest.splits:
            raise UserError(
                f"{run}: was trained on other splits than {split.dataset} has now, so that samples "
                f"of {split.name} may be among those; to score them all the same, say "
                f"dataset={split.dataset}"
            )
    return list(dict.fromkeys(differences))


def warn_of_rows_seen(folder: Path, split: Split, seen: SeenBefore) -> None:
    """Warn of rows that were trained on, and list them in a file of the evaluation."""
    ids = split.ids(np.flatnonzero(seen.rows)).tolist()
    listed = csv_text([["id"], *([text] for text in ids)])
    (folder / layout.TRAINED_ON).write_text(listed, encoding="utf-8")
    logger.warning(
        "%d of %d rows of %s are among those that the run was trained on (the same pixels or "
        "position), and say nothing about a survey: %s lists them",
        seen.count,
        len(split),
        split.name,
        layout.TRAINED_ON,
    )


def calibrate_on_validation(
    scorer: EnsembleScorer, home: Path, tested: Split
) -> Calibration | None:
    """Fit a calibration to the run's own validation split, in the dataset `home`.

    It is None, with a warning, where that cannot be, and where that split is the one tested.
    """
    try:
        validation = Split(home, "val")
    except UserError as error:
        logger.warning("probabilities are not calibrated: %s", error)
        return None

    # What was fitted to a split says nothing about it.
    if tested.name == "val" and tested.manifest.splits == validation.manifest.splits:
        return None
    if validation.manifest.splits != scorer.members[0].manifest.splits:
        logger.warning(
            "probabilities are not calibrated: %s was packed anew since the run was trained", home
        )
        return None

    logits = scorer.score_split(validation)
    check_scores(logits, validation)
    labels = validation.take("labels", np.arange(len(validation)))
    return fit_calibration(labels, logits)


def check_scores(logits: np.ndarray, split: Split) -> None:
    """Raise UserError for scores that are NaN or infinite."""
    wrong = np.flatnonzero(~np.isfinite(logits))
    if len(wrong):
        first = ", ".join(split.ids(wrong[:IDS_SHOWN]))
        raise UserError(
            f"{len(wrong):,} of {len(logits):,} scores are no numbers, the first of {first}: "
            "the weights are damaged, or those pixels are beyond what the run was trained on"
        )


# ---- names ----


def evaluation_name(scoring: Scoring, runs: Sequence[Path]) -> str:
    """Return SPLIT and what else is not the default, so that evaluations do not replace another."""
    parts = [scoring.split]
    if scoring.dataset is not None:
        checksum = manifest_crc32(scoring.dataset)
        parts.append(f"{scoring.dataset.resolve().name}-{checksum[:4]}")

    # The best weights of the run are the default.
    if scoring.weights == layout.FINAL:
        parts.append(layout.FINAL)
    elif scoring.weights != layout.BEST:
        folder = weights_folder(runs[0], scoring.weights).resolve()
        parts.append("-".join(folder.parts[-2:]))

    if scoring.tta != "none":
        parts.append(scoring.tta)
    for run in runs[1:]:
        parts.append(f"with-{run.resolve().name}")
    return "-".join(parts)
