"""A sweep of real trainings: stopped, shared by two tasks, with a setting that does not train."""

import signal
import time
from pathlib import Path

import pytest

import lens_hpc
from tests.integration.forked import Forked, forks
from tests.integration.test_failing_disk import ON_CPU

pytestmark = pytest.mark.slow

CONFIG = """
run: none
data: {{dataset: {dataset}, workers: 0}}
model: {{inputs: features}}
train: {{epochs: 60, global_batch_size: 14, trackers: []}}
"""
SWEEP = """
config: {folder}/config.yaml
output: {folder}/swept
ranges: {{optim.lr: {{choices: [0.001, 0.01, 1.0e+30]}}}}
"""


def start(folder: Path, name: str) -> Forked:
    words = ("sweep", str(folder / "sweep.yaml"))
    return forks().start(*words, output=folder / name, environment=ON_CPU)


def test_a_stopped_sweep_goes_on_with_two_tasks(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.format(dataset=dataset))
    (tmp_path / "sweep.yaml").write_text(SWEEP.format(folder=tmp_path))
    swept = tmp_path / "swept"

    task = start(tmp_path, "stopped")
    log = swept / "trials" / "0000.log"
    while not (log.exists() and "epoch 1 " in log.read_text()):
        assert task.poll() is None, (tmp_path / "stopped").read_text()
        time.sleep(0.02)
    task.send_signal(signal.SIGTERM)
    assert task.wait() == 85
    assert "saved at step" in log.read_text()

    tasks = [start(tmp_path, f"task-{number}") for number in (0, 1)]
    for number, task in enumerate(tasks):
        assert task.wait() == 0, (tmp_path / f"task-{number}").read_text()
    assert "going on from step" in log.read_text()

    found = lens_hpc.sweep(tmp_path / "sweep.yaml")
    table = found.table.set_index("optim.lr")
    assert table["status"].to_dict() == {0.001: "done", 0.01: "done", 1e30: "failed"}
    assert "the loss became" in table.loc[1e30, "reason"]
    assert found.best["optim.lr"] in {0.001, 0.01}
    assert not found.stopped
    assert [path.name for path in swept.rglob("*lock*")] == []
