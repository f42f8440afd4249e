"""Score a survey: each object once, by any number of processes and tasks, killed and gone on with.

1. The models are loaded, and the survey's kind is compared with that of their training.
2. OUTPUT/prediction.json notes models, recipe and settings; another prediction is refused.
3. The rows of a catalogue of mosaics are sorted by tile, once.
4. Each process scores its share of the parts, and writes each whole or not at all. A part that is
   there, of the same rows and files, is kept.
5. Whoever finds all parts there writes candidates/ and, last, summary.json.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate import Accelerator
from accelerate.utils import gather_object

from lens_hpc import files, layout
from lens_hpc.dataset.mapping import cut_shards_named
from lens_hpc.errors import UserError
from lens_hpc.holding import held
from lens_hpc.logs import logger
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.predicting import records
from lens_hpc.predicting.dry_run import describe_work
from lens_hpc.predicting.models import Models, check_suits, load_models
from lens_hpc.predicting.opening import (
    open_in_place,
    open_sorted,
    read_recipe,
    sort_survey,
)
from lens_hpc.predicting.predict_settings import PredictSettings
from lens_hpc.predicting.score_files import fingerprint_of, score_table, write_scores
from lens_hpc.predicting.scoring_parts import PartScorer
from lens_hpc.predicting.sharing import share_out
from lens_hpc.predicting.summary import describe_summary, finish_output
from lens_hpc.predicting.survey import SurveyToScore, kind_of_recipe
from lens_hpc.process import torch_unchanged
from lens_hpc.progress import Progress
from lens_hpc.scoring.out_of_memory import out_of_memory_named, smaller_batch_size
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.long_wait import waited_for

FAULTS_SHOWN = 20


@dataclass(frozen=True, repr=False)
class Prediction:
    """A survey that was scored, as it lies on disk."""

    output: Path
    summary: dict[str, Any] | None
    """What summary.json holds; None after a dry run, and while other tasks still score."""
    text: str
    """What the terminal prints."""

    @property
    def scores(self) -> Path:
        """Folder of the scores: Parquet files, a row an object."""
        return self.output / layout.SCORES

    @property
    def candidates(self) -> Path:
        """The highest scores, a packed dataset."""
        return self.output / layout.CANDIDATES

    def to_pandas(self, columns: list[str] | None = None) -> pd.DataFrame:
        """Read all scores, or some columns of them: a row an object."""
        return pd.read_parquet(self.scores, columns=columns)

    def __repr__(self) -> str:
        return f"<Prediction: {self.text.partition(chr(10))[0]}>"


@dataclass(frozen=True)
class _Task:
    """A prediction that can begin."""

    settings: PredictSettings
    output: Path
    models: Models
    mosaics: PackSettings | None
    """The recipe of mosaics, whose rows are to be sorted."""
    survey: SurveyToScore | None
    """Any other survey, open."""
    record: dict[str, Any]
    """What prediction.json says."""


# ---- the way through ----


def predict_survey(settings: PredictSettings) -> Prediction | None:
    """Score a survey on all processes, or go on with it; the first process returns what was done.

    Raises UserError for runs and surveys that are not there or do not suit each other, and, when
    all else is scored, for parts that cannot be read.
    """
    remedy = smaller_batch_size(settings.batch_size)
    with torch_unchanged(), cut_shards_named():
        # All that the user can have wrong is looked at before the processes meet.
        task = _prepare(settings)
        with accelerator_session() as accelerator, out_of_memory_named(remedy):
            if settings.dry_run:
                return _describe(accelerator, task)
            return _predict(accelerator, task)


def _prepare(settings: PredictSettings) -> _Task:
    models = load_models(settings.runs, settings.weights, settings.code, settings.prevalence)
    recipe = read_recipe(settings)
    survey = open_in_place(recipe, settings.survey, settings.truth)
    if survey is None:
        assert recipe is not None
        assert recipe.size is not None
        kind, mosaics = kind_of_recipe(recipe, recipe.size), recipe
    else:
        kind, mosaics = survey.kind, None
    differences = check_suits(models, kind, settings.allow)

    record = records.describe_prediction(settings, models, recipe, kind.name, differences)
    output = files.final_name(settings.output)
    records.check_output(output, record)
    return _Task(settings, output, models, mosaics, survey, record)


def _predict(accelerator: Accelerator, task: _Task) -> Prediction | None:
    with _held(accelerator, task):
        survey = _open_together(accelerator, task)
        faults = _score_share(accelerator, task, survey)
        _refuse_faults(task, survey, gather_object(faults))

        summary = None
        with waited_for(accelerator, "merging"):
            if accelerator.is_main_process:
                summary = _finish(task, survey)
    if not accelerator.is_main_process:
        return None
    return Prediction(task.output, summary, describe_summary(task.output, summary))


@contextmanager
def _held(accelerator: Accelerator, task: _Task) -> Iterator[None]:
    """Let the first process hold the output: alone, or with other tasks of the same prediction."""
    settings, output = task.settings, task.output
    # Tasks may name the same runs by several paths.
    shared = [records.deciding(task.record), settings.tasks]
    share = hashlib.sha256(json.dumps(shared).encode()).hexdigest()
    own = output.with_name(f".{output.name}.task-{settings.task}.lock")
    with ExitStack() as stack:
        with waited_for(accelerator, f"taking {output}"):
            if accelerator.is_main_process and settings.tasks == 1:
                stack.enter_context(held(output))
            elif accelerator.is_main_process:
                stack.enter_context(held(output, share=share))
                stack.enter_context(held(output, file=own))
        yield


def _open_together(accelerator: Accelerator, task: _Task) -> SurveyToScore:
    """Open the survey, when the first process has begun the output and sorted the rows."""
    output = task.output
    with waited_for(accelerator, f"beginning {output}"):
        if accelerator.is_main_process:
            # One task begins, the others wait and find it done.
            with held(output, file=_lock(output, "begin"), patient=True):
                records.begin_output(output, task.record)
                if task.mosaics is not None:
                    sort_survey(task.mosaics, output)
    if task.mosaics is not None:
        return open_sorted(task.mosaics, output)
    assert task.survey is not None
    return task.survey


def _lock(output: Path, step: str) -> Path:
    return output.with_name(f".{output.name}.{step}.lock")


# ---- scoring ----


def _score_share(
    accelerator: Accelerator, task: _Task, survey: SurveyToScore
) -> list[tuple[int, str]]:
    """Score this process's parts that are not there yet; return those that cannot be read."""
    settings = task.settings
    workers = settings.tasks * accelerator.num_processes
    worker = settings.task * accelerator.num_processes + accelerator.process_index
    shares = share_out([part.objects for part in survey.parts], workers)
    missing = [part for part in shares[worker] if not _is_there(task.output, survey, part)]
    kept = len(shares[worker]) - len(missing)
    if kept:
        logger.info("%s: %d of %d parts are there already", task.output, kept, len(shares[worker]))

    scorer = PartScorer(
        survey=survey,
        models=task.models,
        score=task.models.scorer(accelerator.device, settings.tta),
        batch_size=settings.batch_size,
        prevalence=settings.prevalence,
    )
    faults = []
    objects = sum(survey.parts[part].objects for part in missing)
    shown = accelerator.is_main_process
    with (
        waited_for(accelerator, "scoring", shows_progress=True) as tell,
        Progress(objects, "predict", "objects", shown) as progress,
    ):

        def count(looked_at: int) -> None:
            progress.update(looked_at)
            tell(f"{progress.done:,.0f} of {objects:,} objects")

        for work in scorer.run(missing, count):
            part = survey.parts[work.number]
            if work.fault:
                faults.append((work.number, work.fault))
                if settings.on_bad == "error":
                    continue
            table = score_table(work.rows, scorer.scores_of(work))
            write_scores(layout.scores_file(task.output, part.name), table, part.fingerprint)
    return faults


def _is_there(output: Path, survey: SurveyToScore, part: int) -> bool:
    name, fingerprint = survey.parts[part].name, survey.parts[part].fingerprint
    return fingerprint_of(layout.scores_file(output, name)) == fingerprint


def _refuse_faults(task: _Task, survey: SurveyToScore, faults: Sequence[tuple[int, str]]) -> None:
    """Tell all processes' parts that cannot be read; UserError unless they are to be skipped."""
    if not faults:
        return
    lines = []
    for number, reason in sorted(faults)[:FAULTS_SHOWN]:
        part = survey.parts[number]
        lines.append(f"  {part.name}, {part.objects:,} objects: {reason}")
    if len(faults) > FAULTS_SHOWN:
        lines.append(f"  and {len(faults) - FAULTS_SHOWN:,} more")

    objects = sum(survey.parts[number].objects for number, _ in faults)
    told = f"{len(faults):,} parts with {objects:,} objects cannot be read"
    listed = "\n".join(lines)
    if task.settings.on_bad == "error":
        raise UserError(
            f"{told}:\n{listed}\nAll others are scored. Mend them and run the same line again, or "
            "give their objects the reason with on_bad=skip"
        )
    logger.warning("%s, and have no score:\n%s", told, listed)


# ---- the end ----


def _finish(task: _Task, survey: SurveyToScore) -> dict[str, Any] | None:
    """Write candidates and summary where all parts are there; None where other tasks still score.

    Two tasks may both be the last: one of them writes, and the other finds it written.
    """
    output = task.output
    unfinished = [n for n in range(len(survey.parts)) if not _is_there(output, survey, n)]
    if unfinished:
        logger.info("%d of %d parts are with other tasks", len(unfinished), len(survey.parts))
        return None
    with held(output, file=_lock(output, "finish"), patient=True):
        return finish_output(output, survey, task.record, task.settings)


def _describe(accelerator: Accelerator, task: _Task) -> Prediction | None:
    """Say what there is to do."""
    if not accelerator.is_main_process:
        return None
    with tempfile.TemporaryDirectory() as folder:
        survey = task.survey
        if task.mosaics is not None:
            sort_survey(task.mosaics, Path(folder))
            survey = open_sorted(task.mosaics, Path(folder))
        assert survey is not None
        scorer = task.models.scorer(accelerator.device, task.settings.tta)
        workers = accelerator.num_processes * task.settings.tasks
        text = describe_work(survey, scorer, task.settings.batch_size, workers)
    return Prediction(task.output, None, text)
