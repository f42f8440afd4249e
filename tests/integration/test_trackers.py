"""A run that is killed, goes on and is evaluated, as TensorBoard, W&B and MLflow have it, offline.

What they have is read back by their own readers, or from their files.
"""

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lens_hpc import layout
from tests.conftest import pack_survey, write_survey
from tests.integration.commands import TOO_LONG_SECONDS, done
from tests.integration.forked import forks

pytestmark = pytest.mark.slow

EPOCHS = 5
STEPS = 6
CONFIG = """
run: {folder}/run
data: {{dataset: {folder}/d, workers: 0}}
model: {{inputs: features}}
train: {{epochs: 5, global_batch_size: 8, trackers: [tensorboard, wandb, mlflow]}}
checkpoint: {{every_steps: 5}}
"""
BLOCK_BYTES, HEADER_BYTES, FRAME_BYTES = 1 << 15, 7, 7
WHOLE, LAST = 1, 4


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that was killed when its second epoch was told, went on from a step before, and was
    evaluated."""
    folder = tmp_path_factory.mktemp("tracked")
    write_survey(folder / "s", rows=75, size=16)
    pack_survey(folder / "s", folder / "d")
    config = folder / "config.yaml"
    config.write_text(CONFIG.format(folder=folder))
    run = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("ACCELERATE_USE_CPU", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        kill_after(config, run / layout.TRACKED, f"epochs {2 * STEPS}\n")
        done("train", str(config))
        done("evaluate", str(run))
        yield run


def kill_after(config: Path, file: Path, text: str) -> None:
    """Start a training, and kill it when a file has a text."""
    process = forks().start("train", str(config), output=file.parents[1] / "log", environment={})
    until = time.monotonic() + TOO_LONG_SECONDS
    while not (file.is_file() and text in file.read_text()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    process.wait()


def check_curves(curves: dict[str, list[int]], points_lost: int = 1) -> None:
    """No step is there twice, nor is one missing but for those that the kill may have taken."""
    ends = [STEPS * epoch for epoch in range(1, EPOCHS + 1)]
    for name in ("loss/train", "loss/validation", "metrics/auc", "throughput/cutouts_per_second"):
        steps = curves[name]
        assert steps == sorted(set(steps)), name
        assert set(steps) <= set(ends)
        assert set(ends[2:]) <= set(steps)
        assert len(steps) >= EPOCHS - points_lost

    steps = curves["loss/step"]
    assert steps == sorted(set(steps))
    assert set(ends[2:]) <= set(steps)
    assert curves["lr/learning_rate"] == steps


def test_tensorboard_has_each_step_once_and_the_pictures(run: Path) -> None:
    events = EventAccumulator(str(run / layout.TENSORBOARD), size_guidance={"scalars": 0})
    events.Reload()
    curves = {
        tag: [point.step for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    check_curves(curves)

    pictures = EventAccumulator(str(run / layout.TENSORBOARD / "test"))
    pictures.Reload()
    assert {"roc", "calibration", "the_top_of_the_ranking", "worst_misses"} <= set(
        pictures.Tags()["images"]
    )
    assert len(pictures.Images("roc")) == 1


def test_mlflow_has_each_step_once_the_settings_and_the_pictures(run: Path) -> None:
    from mlflow import MlflowClient

    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient((run / layout.MLFLOW).as_uri())
    (experiment,) = (each for each in client.search_experiments() if each.name == "lens_hpc")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert tracked.info.run_name == "run"
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["model.inputs"] == "features"

    names = tracked.data.metrics
    histories = {name: client.get_metric_history(tracked.info.run_id, name) for name in names}
    check_curves({name: [point.step for point in history] for name, history in histories.items()})
    artifacts = {file.path for file in client.list_artifacts(tracked.info.run_id, "test")}
    assert {"test/roc.png", "test/worst_misses.png"} <= artifacts


def test_wandb_has_each_step_once_and_the_pictures(run: Path) -> None:
    curves: dict[str, list[int]] = {}
    pictures: set[str] = set()
    names = set()
    for file in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        names.add(file.name)
        for row in history(file):
            step = int(row.pop("step", "-1"))
            pictures |= {name for name in row if name.startswith("test/")}
            for name in row:
                curves.setdefault(name, []).append(step)
    assert len(names) == 1  # one run, of several starts
    # It writes every 15 s, and what it had not written is lost.
    check_curves(curves, points_lost=2)
    assert {"test/roc/path", "test/worst_misses/path"} <= pictures
    assert list(run.glob("wandb/offline-run-*/files/media/images/test/roc_*.png"))


def history(file: Path) -> Iterator[dict[str, str]]:
    """Yield what was logged together, by its names, as JSON."""
    from wandb.proto.wandb_internal_pb2 import Record

    for content in records(file.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "history":
            yield {
                item.key or "/".join(item.nested_key): item.value_json
                for item in record.history.item
            }


def records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format, which W&B has behind a header of its own.

    A record is cut into frames that do not span blocks. A kill may have cut off the last.
    """
    at = HEADER_BYTES
    parts = b""
    while at + FRAME_BYTES <= len(content):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < FRAME_BYTES:
            at += left
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + FRAME_BYTES])
        at += FRAME_BYTES + length
        parts += content[at - length : at]
        if kind in {WHOLE, LAST}:
            yield parts
            parts = b""
