"""The trackers that are known: each shows numbers by steps, and pictures, in its own way."""

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from lens_hpc import config, files, layout
from lens_hpc import settings as reading

PROJECT = "lens_hpc"
"""What W&B calls the project, and MLflow the experiment, unless their own variables say another."""
MLFLOW_VARIABLES = {
    # Its other stores need packages that we do not.
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Else a server that is away is asked for many minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
MOST_PARAMETERS = 100
"""That MLflow takes at once."""
LONGEST_PARAMETER = 6000


class Tracker(Protocol):
    """What shows the numbers of a run. Each method may fail in any way."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Show numbers at a step. All steps come in their order, some of them twice."""

    def show_pictures(self, title: str, pictures: Mapping[str, Path], step: int) -> None:
        """Show PNG files, by their names, in place of those of the same title."""

    def finish(self) -> None:
        """Wait until all is shown."""


class TensorBoard:
    """RUN/tensorboard."""

    def __init__(self, settings: config.Train) -> None:
        self._folder = settings.run / layout.TENSORBOARD

    @cached_property
    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Append the numbers to a file of events."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def show_pictures(self, title: str, pictures: Mapping[str, Path], step: int) -> None:
        """Write a file of events of its own, as none can be replaced in another."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from torch.utils.tensorboard import FileWriter

        files.make_folder(self._folder)
        with files.whole_folder(self._folder / title, replace=True) as folder:
            writer: Any = FileWriter(str(folder))
            for name, file in pictures.items():
                # As they are: to encode them again takes a second.
                width, height = Image.open(file).size
                content = file.read_bytes()
                image = Summary.Image(width=width, height=height, encoded_image_string=content)
                writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
            writer.close()

    def finish(self) -> None:
        """Close the file."""
        if "_writer" in vars(self):
            self._writer.close()


class WandB:
    """A run of Weights & Biases, whose files are in RUN/wandb."""

    def __init__(self, settings: config.Train) -> None:
        import wandb

        self._wandb = wandb
        self._starts_service = "WANDB_SERVICE" not in os.environ
        hooks = sys.exit, sys.excepthook
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=settings.run.resolve().name,
            id=_kept_id(settings.run, "wandb", lambda: uuid.uuid4().hex[:12]),
            resume="allow",
            reinit="create_new",  # a notebook may have one of its own
            dir=settings.run,
            config=settings.model_dump(mode="json"),
            allow_val_change=True,
            settings=wandb.Settings(console="off"),  # the streams stay as they are
        )
        sys.exit, sys.excepthook = hooks
        # Its own steps may not go back, as those of a run that goes on do.
        self._run.define_metric("*", step_metric="step")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log the numbers, with the step among them."""
        self._run.log({**numbers, "step": step})

    def show_pictures(self, title: str, pictures: Mapping[str, Path], step: int) -> None:
        """Log images; those of before stay behind them."""
        images = {
            f"{title}/{name}": self._wandb.Image(str(file)) for name, file in pictures.items()
        }
        self._run.log({**images, "step": step})

    def finish(self) -> None:
        """Wait until the service has all, and end it where it was started for this."""
        self._run.finish()
        if self._starts_service:
            self._wandb.teardown()


class MLflow:
    """A run of MLflow, in RUN/mlflow unless MLFLOW_TRACKING_URI says where."""

    def __init__(self, settings: config.Train) -> None:
        for name, value in MLFLOW_VARIABLES.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        own = (settings.run / layout.MLFLOW).resolve().as_uri()
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", own))
        self._id = _kept_id(settings.run, "mlflow", lambda: self._begin(settings))
        self._client.update_run(self._id, status="RUNNING")

    def _begin(self, settings: config.Train) -> str:
        """Make a run with the settings as its parameters, and return its id."""
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        run = self._client.create_run(self._experiment(name), run_name=settings.run.resolve().name)
        told = reading.leaves(settings.model_dump(mode="json"))
        parameters = [Param(key, str(value)[:LONGEST_PARAMETER]) for key, value in told]
        for start in range(0, len(parameters), MOST_PARAMETERS):
            some = parameters[start : start + MOST_PARAMETERS]
            self._client.log_batch(run.info.run_id, params=some)
        return run.info.run_id

    def _experiment(self, name: str) -> str:
        """Return the id of an experiment, which other runs may make at the same time."""
        from mlflow.exceptions import MlflowException

        with suppress(MlflowException):
            return self._client.create_experiment(name)
        experiment = self._client.get_experiment_by_name(name)
        assert experiment is not None
        return experiment.experiment_id

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log the numbers together."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, number, now, step) for name, number in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def show_pictures(self, title: str, pictures: Mapping[str, Path], step: int) -> None:
        """Keep the files as artifacts."""
        for file in pictures.values():
            self._client.log_artifact(self._id, str(file), title)

    def finish(self) -> None:
        """Say that nothing more comes."""
        self._client.set_terminated(self._id)


class TrackerOfAccelerate:
    """Another tracker that Accelerate knows, for numbers alone."""

    def __init__(self, name: str, settings: config.Train) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[name]
        folder = [settings.run / name] if kind.requires_logging_directory else []
        self._tracker = kind(PROJECT, *folder)
        self._tracker.start()

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Log the numbers together."""
        self._tracker.log(dict(numbers), step=step)

    def show_pictures(self, title: str, pictures: Mapping[str, Path], step: int) -> None:
        """Show none: each of them would need words of its own."""

    def finish(self) -> None:
        """Wait until all is logged."""
        self._tracker.finish()


KINDS: dict[str, type[TensorBoard] | type[WandB] | type[MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def _kept_id(run: Path, tracker: str, make: Callable[[], str]) -> str:
    """Return what a tracker calls the run; RUN/trackers.json keeps it for later starts."""
    file = run / layout.TRACKERS
    ids = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if tracker not in ids:
        ids[tracker] = make()
        files.write_text(file, json.dumps(ids) + "\n")
    return str(ids[tracker])
