"""train: fit the fusion model to a packed dataset, or go on where an earlier start of the same line was stopped.

1. The settings are read, and the processes come together.
2. Dataset, model, loss, optimizer and schedule are made; what does not fit together is refused before the first step.
3. The run directory is begun; one that was begun differently is refused, one that has finished is left as it is.
4. The newest whole checkpoint, if there is one, sets everything back to where it was.
5. Each epoch: train step by step; validate over all processes; record; keep the best weights.
6. After each step all processes agree: go on, save, or save and stop (exit status 85).
7. The last weights become RUN/final, and the run has finished.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object

from lens_hpc import UserError, config, files, logs
from lens_hpc.analysis import metrics
from lens_hpc.engine import checkpoint, weights
from lens_hpc.engine.accelerator import make_accelerator
from lens_hpc.engine.checkpoint import Checkpoints, Place
from lens_hpc.engine.run_folder import begin_run, check_same_run
from lens_hpc.engine.score import score
from lens_hpc.engine.signals import STOPPED, Agreement, StopRequest, deadline
from lens_hpc.engine.trainer import Trainer, make_trainer, train_step
from lens_hpc.logs import logger

STEPS_BETWEEN_LOOKS = 10


class Stop(Exception):  # noqa: N818 - no error
    """All processes agreed to stop here."""


@dataclass
class Run:
    """A training under way."""

    trainer: Trainer
    place: Place
    checkpoints: Checkpoints
    agreement: Agreement
    request: StopRequest
    deadline: float
    saved_at: float = field(default_factory=time.monotonic)
    recent: list[tuple[torch.Tensor, np.ndarray]] = field(default_factory=list)
    """Loss and samples, on this process, of the steps since the last look."""
    spent: dict[str, float] = field(default_factory=lambda: {"saving": 0.0, "logging": 0.0})
    """Seconds of the present epoch that were not for training."""

    @contextmanager
    def spending(self, what: str) -> Iterator[None]:
        """Add the time within to what was spent so."""
        began = time.monotonic()
        yield
        self.spent[what] += time.monotonic() - began

    @property
    def in_epoch(self) -> int:
        """Steps done of the present epoch."""
        return self.place.step - self.place.epochs_done * self.trainer.order.steps


def run(config_file: Path, overrides: list[str]) -> int:
    """Train as the config file and the overrides say, in as many processes as the launcher started."""
    request = StopRequest()
    settings = config.load(config.Train, config_file, overrides)
    loop = settings.train
    accelerator = make_accelerator(settings)
    trainer = make_trainer(settings, accelerator)
    check_same_run(settings, trainer.manifest)
    if (settings.run / "final" / weights.WEIGHTS).is_file():
        logger.info("%s has finished already; name another run=FOLDER to train anew", settings.run)
        return 0
    begin_run(trainer)
    checkpoints = Checkpoints(settings.run / "checkpoints", settings.checkpoint.keep)
    place = checkpoint.resume(trainer, checkpoints)
    agreement = Agreement(accelerator, loop.timeout_minutes)
    under_way = Run(trainer, place, checkpoints, agreement, request, deadline(loop.max_minutes))
    try:
        train(under_way)
    except Stop:
        save(under_way)
        checkpoints.wait()
        accelerator.wait_for_everyone()
        accelerator.end_training()
        reason = request.reason or "stopped as another process or the time limit asked"
        logger.info("%s: saved at step %d; the same line goes on from there", reason, place.step)
        return STOPPED
    except RuntimeError as error:
        error.add_note(agreement.last_seen())
        raise
    checkpoints.wait()
    accelerator.end_training()
    logger.info("best validation AUC %.4f; evaluate it with: lens-hpc evaluate %s", place.best_auc, settings.run)
    return 0


def train(run: Run) -> None:
    """All epochs that are left."""
    trainer, place = run.trainer, run.place
    forget_after(trainer, place)
    facts: dict[str, float] = {}
    for epoch in range(place.epochs_done, trainer.settings.train.epochs):
        facts = train_epoch(run, epoch, facts.get("val_auc"))
        facts["val_auc"] = validate(run)
        record(trainer, facts)
        if facts["val_auc"] > place.best_auc:
            place.best_auc = facts["val_auc"]
            export(trainer, "best", facts)
        place.epochs_done, place.loss_sum = epoch + 1, 0.0
    export(trainer, "final", facts)


def train_epoch(run: Run, epoch: int, last_auc: float | None) -> dict[str, float]:
    """What is left of one pass over the training split; returns what to record."""
    trainer, place, order, loop = run.trainer, run.place, run.trainer.order, run.trainer.settings.train
    first, began, waited = run.in_epoch, time.monotonic(), trainer.training.waited
    samples = sum(order.samples_of(step) for step in range(first, order.steps))
    shown = trainer.accelerator.is_main_process
    progress = logs.Progress(samples, f"epoch {epoch + 1}/{loop.epochs}", "cutouts", shown)
    progress.update(0, **({} if last_auc is None else {"AUC": f"{last_auc:.4f}"}))
    run.spent = dict.fromkeys(run.spent, 0.0)
    batches = trainer.training(epoch, trainer.shares(epoch, first))
    trainer.model.train()
    for step in range(first, order.steps):
        run.agreement.bring(f"step {place.step}", run.request.came() or time.time() > run.deadline, save_due(run))
        trainer.rate.set(epoch + step / order.steps, 1 / order.steps)
        run.recent.append(train_step(trainer, place.step, batches))
        place.step += 1
        if step == order.steps - 1:
            weights.average_statistics(trainer.accelerator, trainer.model, trainer.ema)
        stop, save_now = run.agreement.take()
        look = len(run.recent) == STEPS_BETWEEN_LOOKS or step == order.steps - 1
        if look or stop or save_now:
            waiting = (trainer.training.waited - waited) / (time.monotonic() - began)
            loss = look_at_losses(run)
            with run.spending("logging"):
                progress.update(0, **facts_now(run, loss, waiting))
        progress.update(order.samples_of(step))
        if stop:
            raise Stop
        if save_now:
            with run.spending("saving"):
                save(run)
    progress.close()
    seconds = time.monotonic() - began
    return {
        "epoch": epoch + 1,
        "step": place.step,
        "loss": place.loss_sum / order.steps,
        "lr": trainer.rate.now(),
        "seconds": seconds,
        "cutouts_per_second": samples / seconds,
        "waiting_for_data": (trainer.training.waited - waited) / seconds,
        **{what: spent / seconds for what, spent in run.spent.items()},
    }


def facts_now(run: Run, loss: float, waiting: float) -> dict[str, str]:
    """What stands beside the progress bar; the loss goes to the trackers, too."""
    trainer, device = run.trainer, run.trainer.accelerator.device
    trainer.accelerator.log({"step_loss": loss, "step_lr": trainer.rate.now()}, step=run.place.step)
    shown = {"step": f"{run.place.step}", "loss": f"{loss:.4f}", "lr": f"{trainer.rate.now():.2e}"}
    if waiting > 0.005:
        shown["wait"] = f"{waiting:.0%}"
    if device.type == "cuda":
        shown["memory"] = f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f}GB"
    return shown


def save_due(run: Run) -> bool:
    """Whether the step that begins now shall be followed by a checkpoint."""
    settings = run.trainer.settings.checkpoint
    by_steps = settings.every_steps is not None and (run.place.step + 1) % settings.every_steps == 0
    return by_steps or time.monotonic() - run.saved_at > 60 * settings.every_minutes


def save(run: Run) -> None:
    """Begin to write a checkpoint of this step; all processes together."""
    if state := checkpoint.capture(run.trainer, run.place):
        run.checkpoints.write(run.place.step, state)
    run.saved_at = time.monotonic()


def look_at_losses(run: Run) -> float:
    """Add the recent losses, over all processes, to the epoch's sum, and return the last.

    UserError when one is not a number, on all processes; the samples of its step are then in RUN/nonfinite.json.
    """
    trainer, place = run.trainer, run.place
    losses = trainer.accelerator.reduce(torch.stack([loss for loss, _ in run.recent]), reduction="mean").tolist()
    for number, loss in enumerate(losses):
        if not np.isfinite(loss):
            step = place.step - len(losses) + number + 1
            rows = gather_object((run.recent[number][1] % trainer.order.rows).tolist())
            file = trainer.settings.run / "nonfinite.json"
            ids = trainer.training.samples.split.ids(np.array(rows)).tolist()
            if trainer.accelerator.is_main_process:
                files.write_text(file, json.dumps({"step": step, "lr": trainer.rate.now(), "ids": ids}) + "\n")
            raise UserError(
                f"the loss became {loss} in step {step} at learning rate {trainer.rate.now():.1e}; lower optim.lr, or "
                f"set optim.gradient_clip. The samples of that step are in {file}"
            )
    place.loss_sum += sum(losses)
    run.recent.clear()
    return float(losses[-1])


def validate(run: Run) -> float:
    """AUC of the validation split, scored once over all processes."""
    trainer = run.trainer

    def agree() -> None:
        run.agreement.bring(f"validation after step {run.place.step}", run.request.came())
        if run.agreement.take()[0]:
            raise Stop

    logits = score(trainer.accelerator, trainer.whole_model(), trainer.validation, agree)
    if np.isnan(logits).any():
        raise UserError("the scores of the validation split became NaN; lower optim.lr, or set optim.gradient_clip")
    labels = trainer.validation.samples.split.take("labels", np.arange(len(logits)))
    return float(metrics.auc(metrics.rank(labels, logits)))


def record(trainer: Trainer, facts: dict[str, float]) -> None:
    """Write an epoch's facts to the log, metrics.jsonl and the trackers."""
    trainer.accelerator.log({name: value for name, value in facts.items() if name != "step"}, step=int(facts["step"]))
    if trainer.accelerator.is_main_process:
        path = trainer.settings.run / "metrics.jsonl"
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
        files.sync(path)
        logger.info(
            "epoch %d  loss %.4f  val AUC %.4f  lr %.2e  %.0f cutouts/s, %.0f%% waiting for data",
            *(facts[name] for name in ("epoch", "loss", "val_auc", "lr", "cutouts_per_second")),
            100 * facts["waiting_for_data"],
        )


def forget_after(trainer: Trainer, place: Place) -> None:
    """Drop what was recorded after the checkpoint that the run goes on from: it will be recorded again."""
    file = trainer.settings.run / "metrics.jsonl"
    if trainer.accelerator.is_main_process:
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        files.write_text(file, "".join(f"{line}\n" for line in lines[: place.epochs_done]))


def export(trainer: Trainer, name: str, facts: dict[str, float]) -> None:
    """Write RUN/best or RUN/final, and wait for it on all processes."""
    model = trainer.whole_model()
    if trainer.accelerator.is_main_process:
        notes = {key: str(value) for key, value in facts.items()}
        weights.save(trainer.settings.run / name, model, trainer.settings, trainer.manifest, notes)
    trainer.accelerator.wait_for_everyone()
