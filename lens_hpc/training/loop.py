"""Train the model on a packed dataset, or go on where an earlier start of the same run was stopped.

1. The processes come together.
2. A run that was begun differently is refused; one that has finished is left as it is.
3. Dataset, model, loss, optimizer and schedule are made; what does not fit together is refused
   before the first step.
4. The run directory is begun, and the newest complete checkpoint, if there is one, sets everything
   back to where it was.
5. Each epoch: train step by step; validate over all processes; record; keep the best weights.
6. After each step all processes agree: go on, save, or save and stop.
7. The last weights become RUN/final, and the run has finished.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from lens_hpc import config, layout
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.dataset.mapping import cut_shards_named
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.training_rows import has_pixel_hashes, hash_rows, write_row_hashes
from lens_hpc.errors import UserError
from lens_hpc.loading.order import micro_batches
from lens_hpc.logs import logger
from lens_hpc.model.trained import save_trained
from lens_hpc.scoring.calibration import Calibration, fit_calibration, write_calibration
from lens_hpc.scoring.out_of_memory import out_of_memory_named
from lens_hpc.scoring.scores import score
from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.best import (
    TITLES,
    ValidationNumbers,
    as_recorded,
    best_of_records,
    is_better,
    measure_validation,
)
from lens_hpc.training.checkpoints import Checkpoints, resume_training
from lens_hpc.training.epoch_progress import EpochProgress, Pace
from lens_hpc.training.long_wait import waited_for
from lens_hpc.training.memory import smaller_micro_batch
from lens_hpc.training.metrics_log import (
    EpochFacts,
    cut_metrics_log,
    read_metrics_log,
)
from lens_hpc.training.run_folder import (
    check_same_run,
    is_finished,
    open_run,
    run_held,
    with_keys_of_run,
)
from lens_hpc.training.session import EpochClock, StopAgreed, TrainingSession
from lens_hpc.training.signals import Agreement, StopRequest, deadline
from lens_hpc.training.telling import epoch_facts, look_at_losses, record_epoch
from lens_hpc.training.trackers import Trackers
from lens_hpc.training.trainer import Trainer, average_statistics, make_trainer, train_step

STEPS_BETWEEN_LOOKS = 10


@dataclass(frozen=True, repr=False)
class TrainingResult:
    """What became of a call to train."""

    run: Path
    stopped: bool
    """Whether it was asked to stop, has saved, and goes on when it is called again."""
    step: int
    """Optimizer steps done, of all calls together."""
    best: ValidationNumbers
    """Numbers of the best weights on the validation split, by the words of `train.best`; none
    before the first epoch has ended."""
    best_by: str = "auc"
    """The number that chose these weights: `train.best`."""

    def __repr__(self) -> str:
        happened = "stopped and saved" if self.stopped else "trained to the end"
        best = f", {self.best_text}" if self.best else ""
        advice = "; the same call goes on from there" if self.stopped else ""
        return f"Training {self.run}: {happened} at step {self.step:,}{best}{advice}"

    @property
    def best_auc(self) -> float:
        """Return the AUC of the best weights; NaN before the first epoch has ended."""
        return self.best.get("auc", math.nan)

    @property
    def best_text(self) -> str:
        """Return, in words, the number that chose the best weights."""
        value = self.best.get(self.best_by)
        known = "unknown" if value is None else f"{value:.4f}"
        return f"best validation {TITLES[self.best_by]} {known}"


def train_run(settings: config.Train) -> TrainingResult:
    """Train as the settings say, in as many processes as the launcher started.

    A signal (SIGINT, SIGTERM, SIGHUP, SIGUSR1 or SIGUSR2) to one of them makes all save and return.
    The same call goes on with a run. Raises UserError for what is wrong with settings or data.
    """
    with (
        StopRequest() as request,
        cut_shards_named(),
        accelerator_session(settings) as accelerator,
    ):
        settings = with_keys_of_run(settings)
        manifest = read_manifest(settings.data.dataset)
        finished = _finished(settings, manifest)
        if finished:
            return finished

        with run_held(settings, accelerator):
            # Another job may have begun or ended it meanwhile.
            finished = _finished(settings, manifest)
            return finished or _train_here(settings, accelerator, manifest, request)


def _finished(settings: config.Train, manifest: Manifest) -> TrainingResult | None:
    """Return the result of a run that has finished. Raises UserError for another one."""
    check_same_run(settings, manifest)
    if not is_finished(settings):
        return None
    logger.info("%s has finished already; to train anew, name another run=FOLDER", settings.run)
    return finished_result(settings)


def _train_here(
    settings: config.Train, accelerator: Accelerator, manifest: Manifest, request: StopRequest
) -> TrainingResult:
    """Train in a run folder that no other job writes to."""
    loop = settings.train
    micro_batch_size, accumulation = micro_batches(
        loop.global_batch_size, accelerator.num_processes, loop.micro_batch_size
    )
    with (
        out_of_memory_named(smaller_micro_batch(settings, micro_batch_size, accumulation)),
        make_trainer(settings, accelerator, manifest) as trainer,
        open_run(trainer) as trackers,
    ):
        return train(trainer, trackers, request)


def finished_result(settings: config.Train) -> TrainingResult:
    """Return the result of a run that had finished before, as its metrics log tells it."""
    epochs = read_metrics_log(settings.run)
    step = max((int(facts["step"]) for facts in epochs), default=0)
    by = settings.train.best
    best = best_of_records(epochs, by)
    return TrainingResult(settings.run, stopped=False, step=step, best=best, best_by=by)


def train(trainer: Trainer, trackers: Trackers, request: StopRequest) -> TrainingResult:
    """Train all steps that are left, or as many as the request to stop leaves time for."""
    settings = trainer.settings
    accelerator = trainer.accelerator

    with Checkpoints(settings.run / layout.CHECKPOINTS, settings.checkpoint.keep) as checkpoints:
        state = resume_training(trainer, checkpoints)
        agreement = Agreement(accelerator, settings.train.timeout_minutes)
        stop_at = deadline(settings.train.max_minutes)
        session = TrainingSession(
            trainer, state, checkpoints, agreement, request, stop_at, trackers
        )

        stopped = False
        try:
            train_epochs(session)
        except StopAgreed:
            stopped = True
            session.save()

        # No process may end before the last checkpoint is on the disk.
        with waited_for(accelerator, "writing the last checkpoint"):
            checkpoints.wait()

    result = TrainingResult(
        settings.run, stopped, state.step, dict(state.best), settings.train.best
    )
    if stopped:
        reason = request.reason or "stopped as another process or the time limit asked"
        logger.info("%s: saved at step %d; the same line goes on from there", reason, state.step)
    else:
        logger.info("%s; evaluate it with: lens-hpc evaluate %s", result.best_text, settings.run)
    return result


# ---- epochs ----


def train_epochs(session: TrainingSession) -> None:
    """Train all epochs that are left, and write the best and the final weights."""
    trainer = session.trainer
    state = session.state
    if trainer.accelerator.is_main_process:
        cut_metrics_log(trainer.settings.run, state.epochs_done)

    facts: EpochFacts = {}
    validation = None
    pace = Pace(trainer, state)
    for epoch in range(state.epochs_done, trainer.settings.train.epochs):
        facts = train_epoch(session, epoch, pace, facts)
        validation = validate(session)
        facts |= as_recorded(validation.numbers)
        is_best = is_better(validation.numbers, state.best, trainer.settings.train.best)
        record_epoch(session, facts, is_best)

        if is_best:
            state.best = validation.numbers
            export(trainer, layout.BEST, facts, validation)
        state.epochs_done = epoch + 1
        state.loss_sum = 0.0

    if validation is None:
        # The run goes on with fewer epochs (resume.allow=[train.epochs]) than it has done already.
        average_statistics(trainer.accelerator, trainer.model, trainer.ema)
        validation = validate(session)
    export(trainer, layout.FINAL, facts, validation)


def train_epoch(session: TrainingSession, epoch: int, pace: Pace, last: EpochFacts) -> EpochFacts:
    """Train what is left of one pass over the training split, and return what to record of it.

    `last` is what was recorded of the epoch before, where that was in this call.
    """
    trainer = session.trainer
    order = trainer.order
    first = session.steps_into_epoch
    steps_left = range(first, order.steps)
    samples = sum(order.samples_of(step) for step in steps_left)

    clock = EpochClock(trainer.train_loader)
    with EpochProgress(trainer, pace, epoch, samples, last) as progress:
        batches = trainer.train_loader(epoch, trainer.shares(epoch, first))
        trainer.model.train()

        for step in steps_left:
            session.submit_wishes()
            trainer.rate.set(epoch + step / order.steps, 1 / order.steps)
            session.recent.append(train_step(trainer, session.state.step, batches))
            session.state.step += 1

            is_last = step == order.steps - 1
            if is_last:
                average_statistics(trainer.accelerator, trainer.model, trainer.ema)

            # The others have answered while this process trained.
            decision = session.decision()
            must_know = is_last or any(decision)
            if must_know or len(session.recent) == STEPS_BETWEEN_LOOKS:
                look_at_losses(session, clock, progress, must_know)
            progress.update(order.samples_of(step))

            if decision.stop:
                raise StopAgreed
            if decision.save:
                with clock.spending_on("saving"):
                    session.save()
    return epoch_facts(session, epoch, samples, clock)


# ---- what an epoch leaves ----


class Validation(NamedTuple):
    """The validation split, scored."""

    labels: np.ndarray
    """(N,) int8."""
    logits: np.ndarray
    """(N,) float32."""
    numbers: ValidationNumbers
    """What is recorded of them, by the words of `train.best`."""


def validate(session: TrainingSession) -> Validation:
    """Score the validation split once, over all processes."""
    trainer = session.trainer
    loader = trainer.validation_loader
    model = trainer.whole_model()
    logits = score(trainer.accelerator, model, loader, session.stop_if_requested)
    if not np.isfinite(logits).all():
        raise UserError(
            "the scores of the validation split became NaN or infinite; lower optim.lr, or set "
            "optim.gradient_clip"
        )

    labels = loader.samples.split.take("labels", np.arange(len(logits)))
    numbers = measure_validation(labels, logits, trainer.settings.loss)
    # Other processors may round otherwise, and all processes must keep the same weights.
    numbers = broadcast_object_list([numbers])[0]
    return Validation(labels, logits, numbers)


def export(trainer: Trainer, name: str, facts: EpochFacts, validation: Validation) -> None:
    """Write RUN/best or RUN/final, with the calibration by the validation of the same weights.

    All processes must call it, and wait until it is written.
    """
    model = trainer.whole_model()
    folder = trainer.settings.run / name
    with waited_for(trainer.accelerator, f"writing {folder}"):
        if trainer.accelerator.is_main_process:
            notes = {key: str(value) for key, value in facts.items()}
            write_calibration(folder, calibrate(validation), notes.get("step", ""))
            keep_training_rows(folder, trainer.train_loader.samples.split)
            save_trained(folder, model, trainer.settings, trainer.manifest, notes)


def keep_training_rows(folder: Path, split: Split) -> None:
    """Keep beside the weights which rows they were trained on.

    A dataset of an earlier version has no hashes of its pixels, and would have to be read anew.
    """
    file = folder / layout.TRAINING_ROWS
    if has_pixel_hashes(split.manifest) and not file.is_file():
        write_row_hashes(file, hash_rows(split))


def calibrate(validation: Validation) -> Calibration | None:
    """Fit probabilities to the validation split; None where that cannot be."""
    if not np.isfinite(validation.logits).all():
        return None
    return fit_calibration(validation.labels, validation.logits)
