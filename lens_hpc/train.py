"""train: fit the fusion model to a packed dataset.

 1. The settings are read, and the processes come together.
 2. Dataset, model, loss, optimizer and schedule are made; what does not fit together is refused before the first step.
 3. The run directory is begun, or a run that has finished is left as it is.
 4. Each epoch: train, validate over all processes, log, keep the best weights.
 5. The last weights become RUN/final, and the run has finished.

A run that was interrupted starts again from its first step.
"""

import json
import platform
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from lens_hpc import UserError, config, files, logs
from lens_hpc.analysis import metrics
from lens_hpc.data.shards import read_manifest
from lens_hpc.engine import checkpoint
from lens_hpc.engine.accelerator import make_accelerator
from lens_hpc.engine.score import score
from lens_hpc.engine.trainer import Trainer, make_trainer, train_step
from lens_hpc.logs import logger

STEPS_BETWEEN_FACTS = 10
# Settings that may change while the run stays the same; that the data do, the manifest tells.
NOT_OF_THE_RUN = {"run", "data.dataset", "data.workers", "data.verify", "data.stage_to"}
# What a run that was killed at its very start may have left.
BEGUN = {"config.yaml", "manifest.json", "environment.json", "metrics.jsonl"}
PACKAGES = ("lens_hpc", "torch", "timm", "albumentations", "accelerate", "h5py", "numpy", "scikit-learn")


def run(config_file: Path, overrides: list[str]) -> None:
    """Train as the config file and the overrides say, in as many processes as the launcher started."""
    settings = config.load(config.Train, config_file, overrides)
    accelerator = make_accelerator(settings.train.precision, settings.run)
    trainer = make_trainer(settings, accelerator)
    if (settings.run / "final" / checkpoint.WEIGHTS).is_file():
        check_same_run(trainer)
        logger.info("%s has finished already; name another run=FOLDER to train anew", settings.run)
        return
    begin_run(trainer)
    best_auc = -1.0
    facts: dict[str, float] = {}
    for epoch in range(settings.train.epochs):
        facts = train_epoch(trainer, epoch, facts.get("val_auc"))
        facts["val_auc"] = validate(trainer)
        record(trainer, facts)
        if facts["val_auc"] > best_auc:
            best_auc = facts["val_auc"]
            save(trainer, "best", facts)
    save(trainer, "final", facts)
    accelerator.end_training()
    logger.info("best validation AUC %.4f; evaluate it with: lens-hpc evaluate %s", best_auc, settings.run)


def check_same_run(trainer: Trainer) -> None:
    """UserError when RUN was begun with other settings or another dataset."""
    settings, folder = trainer.settings, trainer.settings.run
    if not (folder / "config.yaml").is_file():
        if folder.is_dir() and any(path.name.removesuffix(files.PARTIAL) not in BEGUN for path in folder.iterdir()):
            raise UserError(f"run = {folder}: the folder holds something else than a run; name another")
        return
    changed = config.differences(config.load(config.Train, folder / "config.yaml"), settings, NOT_OF_THE_RUN)
    if read_manifest(folder) != trainer.manifest:
        changed.append(f"{settings.data.dataset}: is not the dataset that the run was begun with")
    if changed:
        raise UserError(f"run = {folder}: was begun differently; name another run.\n  " + "\n  ".join(changed))


def begin_run(trainer: Trainer) -> None:
    """Make RUN with its config, manifest and environment."""
    check_same_run(trainer)
    trainer.accelerator.wait_for_everyone()
    settings, folder = trainer.settings, trainer.settings.run
    if trainer.accelerator.is_main_process:
        files.make_folder(folder)
        if (folder / "metrics.jsonl").is_file():
            logger.warning("%s was interrupted; it starts again from the first step", folder)
        for left_over in ("tensorboard", "best"):
            shutil.rmtree(folder / left_over, ignore_errors=True)
        files.write_text(folder / "manifest.json", trainer.manifest.model_dump_json(indent=1) + "\n")
        files.write_text(folder / "environment.json", json.dumps(environment(trainer.accelerator), indent=1) + "\n")
        files.write_text(folder / "metrics.jsonl", "")
        files.write_text(folder / "config.yaml", config.dump(settings))
        logger.info(
            "%s: %s on %d x %s, %s training rows",
            folder, settings.model.inputs, trainer.accelerator.num_processes, trainer.accelerator.device.type,
            f"{len(trainer.training.samples.split):,}",
        )  # fmt: skip
    trainer.accelerator.init_trackers("tensorboard")


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """What ran where: for environment.json."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "host": platform.node(),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
    }


def train_epoch(trainer: Trainer, epoch: int, last_auc: float | None) -> dict[str, float]:
    """One pass over the training split; returns what to record."""
    accelerator, loop = trainer.accelerator, trainer.settings.train
    order, steps = trainer.order, trainer.order.steps
    shares = order.shares(epoch, accelerator.process_index, accelerator.num_processes)
    title = f"epoch {epoch + 1}/{loop.epochs}"
    progress = logs.Progress(order.samples, title, "cutouts", shown=accelerator.is_main_process)
    if last_auc is not None:
        progress.update(0, AUC=f"{last_auc:.4f}")
    total_loss = torch.zeros((), device=accelerator.device)
    began = time.monotonic()
    trainer.model.train()
    for step, batch in enumerate(trainer.training(epoch, shares)):
        trainer.schedule.step(epoch + step / steps)
        loss = train_step(trainer, batch, order.samples_of(step))
        total_loss += loss
        shown = {"loss": f"{loss.item():.4f}", "lr": f"{lr(trainer):.2e}"} if step % STEPS_BETWEEN_FACTS == 0 else {}
        progress.update(order.samples_of(step), **shown)
    progress.close()
    mean_loss = float(accelerator.reduce(total_loss, reduction="mean")) / steps
    if not np.isfinite(mean_loss):
        raise UserError(
            f"the loss became {mean_loss} in epoch {epoch + 1} (learning rate {lr(trainer):.1e}); lower optim.lr"
        )
    seconds = time.monotonic() - began
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * steps,
        "loss": mean_loss,
        "lr": lr(trainer),
        "seconds": seconds,
        "cutouts_per_second": sum(map(order.samples_of, range(steps))) / seconds,
    }


def validate(trainer: Trainer) -> float:
    """AUC of the validation split, scored once over all processes."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    checkpoint.average_statistics(trainer.accelerator, model)
    logits = score(trainer.accelerator, model, trainer.validation)
    if np.isnan(logits).any():
        raise UserError("the scores of the validation split became NaN; lower optim.lr")
    labels = trainer.validation.samples.split.take("labels", np.arange(len(logits)))
    return metrics.delong(labels, logits)[0]


def record(trainer: Trainer, facts: dict[str, float]) -> None:
    """Write an epoch's facts to the log, metrics.jsonl and TensorBoard."""
    trainer.accelerator.log({name: value for name, value in facts.items() if name != "step"}, step=int(facts["step"]))
    if trainer.accelerator.is_main_process:
        with (trainer.settings.run / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
        logger.info(
            "epoch %d  loss %.4f  val AUC %.4f  lr %.2e  %.0f cutouts/s",
            *(facts[name] for name in ("epoch", "loss", "val_auc", "lr", "cutouts_per_second")),
        )


def save(trainer: Trainer, name: str, facts: dict[str, float]) -> None:
    """Write RUN/best or RUN/final, and wait for it on all processes."""
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        notes = {key: str(value) for key, value in facts.items()}
        checkpoint.save(trainer.settings.run / name, model, trainer.settings, trainer.manifest, notes)
    trainer.accelerator.wait_for_everyone()


def lr(trainer: Trainer) -> float:
    """The learning rate now."""
    return float(trainer.schedule.get_last_lr()[0])
