"""The run directory: begun once, and gone on with by the same settings and dataset alone."""

import json
import logging

from lens_hpc import UserError, config, files
from lens_hpc.data.shards import Manifest, read_manifest
from lens_hpc.engine.environment import describe
from lens_hpc.engine.trainer import Trainer
from lens_hpc.logs import logger

# Settings that may change while the run stays the same; that the data do, the manifest tells.
NOT_OF_THE_RUN = {
    "run", "data.dataset", "data.workers", "data.verify", "data.stage_to", "model.weights_folder",
    "train.micro_batch_size", "train.max_minutes", "train.timeout_minutes", "train.trackers",
    "checkpoint.every_steps", "checkpoint.every_minutes", "checkpoint.keep", "resume.allow",
}  # fmt: skip
# What a run may hold before its config.yaml is there.
BEGUN = {"manifest.json", "environment.json", "metrics.jsonl", "logs"}


def check_same_run(settings: config.Train, manifest: Manifest) -> None:
    """UserError when RUN was begun with other settings or another dataset."""
    folder = settings.run
    if not (folder / "config.yaml").is_file():
        if folder.is_dir() and any(path.name.removesuffix(files.PARTIAL) not in BEGUN for path in folder.iterdir()):
            raise UserError(f"run = {folder}: the folder holds something else than a run; name another")
        return
    before = config.load(config.Train, folder / "config.yaml")
    changed = config.differences(before, settings, {*NOT_OF_THE_RUN, *settings.resume.allow})
    if read_manifest(folder) != manifest:
        changed.append(f"{settings.data.dataset}: is not the dataset that the run was begun with")
    if changed:
        raise UserError(
            f"run = {folder}: was begun differently; name another run, or allow settings to differ with "
            "resume.allow=[KEY,...].\n  " + "\n  ".join(changed)
        )


def begin_run(trainer: Trainer) -> None:
    """Make RUN with its config, manifest, environment and logs, or note a new start there."""
    accelerator, settings, folder = trainer.accelerator, trainer.settings, trainer.settings.run
    accelerator.wait_for_everyone()  # all have looked at what was there
    files.make_folder(folder / "logs")
    handler = logging.FileHandler(folder / "logs" / f"rank-{accelerator.process_index}.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    facts = describe(accelerator)
    if accelerator.is_main_process:
        files.write_text(folder / "manifest.json", trainer.manifest.model_dump_json(indent=1) + "\n")
        files.write_text(folder / "environment.json", json.dumps(facts, indent=1) + "\n")
        files.write_text(folder / "config.yaml", config.dump(settings))
        logger.info(
            "%s: %s on %d x %s, %s training rows, %d steps an epoch",
            folder, settings.model.inputs, accelerator.num_processes, facts["device"],
            f"{trainer.order.rows:,}", trainer.order.steps,
        )  # fmt: skip
    accelerator.init_trackers("lens_hpc")
