"""The run directory: begun once, and continued only with the same settings and dataset."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from accelerate import Accelerator

from lens_hpc import config, files, layout, logs
from lens_hpc import settings as reading
from lens_hpc.dataset.manifest import Manifest, read_run_manifest
from lens_hpc.errors import UserError
from lens_hpc.holding import WAIT_MINUTES, held
from lens_hpc.logs import logger
from lens_hpc.model.hub import with_architecture
from lens_hpc.training.environment import describe_environment
from lens_hpc.training.long_wait import waited_for
from lens_hpc.training.trackers import Trackers, started_trackers
from lens_hpc.training.trainer import Trainer

# Settings that may change while the run stays the same; that the data do, the manifest tells.
NOT_OF_THE_RUN = {
    "run",
    "data.dataset",
    "data.workers",
    "data.verify",
    "data.stage_to",
    "model.weights_folder",
    "train.micro_batch_size",
    "train.max_minutes",
    "train.timeout_minutes",
    "train.trackers",
    "checkpoint.every_steps",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    "resume.allow",
}
# What a run may hold before its config.yaml is there, of which a part may be.
BEGUN = {
    layout.CONFIG,
    layout.MANIFEST,
    layout.ENVIRONMENT,
    layout.METRICS_LOG,
    layout.LOGS,
    layout.LOCK,
}


def with_keys_of_run(settings: config.Train) -> config.Train:
    """Return the settings with those of a run that goes on, where they do not say other ones.

    That is for keys whose default has changed since the version that may have begun it. A backbone
    from the hub gets the name of its architecture, with which the run is loaded without the hub.
    """
    settings = settings.model_copy(update={"model": with_architecture(settings.model)})
    config_file = settings.run / layout.CONFIG
    if not config_file.is_file():
        return settings
    begun_with = reading.load(config.Train, config_file)
    changed = {}
    for name, older in config.OLDER_RUNS.items():
        group, begun_group = getattr(settings, name), getattr(begun_with, name)
        unsaid = older.keys() - group.model_fields_set
        update = {key: getattr(begun_group, key) for key in unsaid}
        changed[name] = group.model_copy(update=update)
    return settings.model_copy(update=changed)


def check_same_run(settings: config.Train, manifest: Manifest) -> None:
    """Raise UserError when the run was begun with other settings or another dataset."""
    run = settings.run
    config_file = run / layout.CONFIG
    if not config_file.is_file():
        _check_not_foreign(settings)
        return

    begun_with = reading.load(config.Train, config_file)
    changed = reading.differences(begun_with, settings, NOT_OF_THE_RUN)
    refused = [line for line in changed if _key_of(line) not in settings.resume.allow]
    other_rows = not read_run_manifest(run).is_of_same_rows(manifest)
    if other_rows:
        refused.append(f"{settings.data.dataset}: is not the dataset that the run was begun with")

    # What has finished learns nothing any more, whatever is allowed.
    is_over = bool(changed) and is_finished(settings)
    if refused or is_over:
        advice = _advice(run, [_key_of(line) for line in changed], is_over, other_rows)
        raise UserError("\n  ".join([f"run = {run}: {advice}", *(refused or changed)]))


def _key_of(difference: str) -> str:
    return difference.partition(":")[0]


def _advice(run: Path, changed: list[str], is_over: bool, other_rows: bool) -> str:
    """Say what to do about a run that was begun with other settings, or on another dataset."""
    if is_over:
        return (
            "has finished with other settings; to train on from its weights, begin another run: "
            f"model.weights={run} run=NEW"
        )
    if other_rows:
        return "was begun differently; name another run"
    allow = f"resume.allow=[{','.join(changed)}]"
    return f"was begun with other settings; name another run, or go on with these: {allow}"


def _check_not_foreign(settings: config.Train) -> None:
    """Raise UserError when a folder without a config holds what no run leaves there."""
    run = settings.run
    if not run.is_dir():
        return
    is_foreign = bool(files.names_in(run) - BEGUN)

    # Another job may have begun the run meanwhile.
    if is_foreign and not (run / layout.CONFIG).is_file():
        raise UserError(f"run = {run}: the folder holds something else than a run; name another")


def is_finished(settings: config.Train) -> bool:
    """Whether the run has trained all its epochs."""
    return (settings.run / layout.FINAL / layout.WEIGHTS).is_file()


@contextmanager
def held_together(
    accelerator: Accelerator,
    target: Path,
    file: Path | None = None,
    wait_minutes: float = WAIT_MINUTES,
) -> Iterator[None]:
    """Let the first process hold what all of them write (`lens_hpc.holding`).

    All processes must enter it. Raises UserError, on all of them, where another job holds it.
    """
    with ExitStack() as stack:
        with waited_for(accelerator, f"taking {target}"):
            if accelerator.is_main_process:
                stack.enter_context(held(target, file, wait_minutes=wait_minutes))
        yield


@contextmanager
def run_held(settings: config.Train, accelerator: Accelerator) -> Iterator[None]:
    """Hold the run's folder, as long as this job trains, and clear away what a killed one left."""
    run = settings.run
    is_new = not run.exists()
    try:
        with held_together(accelerator, run, run / layout.LOCK, settings.train.timeout_minutes):
            if accelerator.is_main_process:
                for folder in (run, run / layout.BEST, run / layout.FINAL):
                    files.remove_partials(folder)
            yield
    finally:
        if is_new and accelerator.is_main_process:
            with suppress(OSError):
                run.rmdir()  # it is empty where nothing could be begun


@contextmanager
def open_run(trainer: Trainer) -> Iterator[Trackers]:
    """Begin the run's folder, or note a new start there, and log into it meanwhile.

    Yields its trackers, which the first process alone tells. All processes must enter it.
    """
    run = trainer.settings.run
    trainer.accelerator.wait_for_everyone()  # all have looked at what was there
    files.make_folder(run / layout.LOGS)
    with logs.to_file(layout.rank_log(run, trainer.accelerator.process_index)):
        _note_start(trainer)
        if not trainer.accelerator.is_main_process:
            yield Trackers()
            return
        with started_trackers(trainer.settings) as trackers:
            yield trackers


def _note_start(trainer: Trainer) -> None:
    """Write config, manifest and environment of the run."""
    accelerator = trainer.accelerator
    settings = trainer.settings
    environment = describe_environment(accelerator)

    if accelerator.is_main_process:
        run = settings.run
        files.write_text(run / layout.MANIFEST, trainer.manifest.model_dump_json(indent=1) + "\n")
        files.write_text(run / layout.ENVIRONMENT, json.dumps(environment, indent=1) + "\n")
        # The config comes last: a folder that has one is a run.
        files.write_text(run / layout.CONFIG, reading.dump(settings))
        logger.info(
            "%s: %s on %d x %s, %s training rows, %d steps an epoch",
            run,
            settings.model.inputs,
            accelerator.num_processes,
            environment["device"],
            f"{trainer.order.rows:,}",
            trainer.order.steps,
        )
