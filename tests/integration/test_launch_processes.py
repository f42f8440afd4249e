"""`processes=2`: a training in two processes, stopped from its terminal, and gone on with."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lens_hpc.status_line import REVERSED
from tests.conftest import pack_survey, write_survey
from tests.integration.commands import TOO_LONG_SECONDS, lens_hpc

pytestmark = pytest.mark.slow
CONFIG = """
data: {{dataset: {folder}/d, workers: 0}}
augment: {{engine: torch}}
model:
  {{backbone: test_vit, weights: none, norm: layer, conv_channels: [16, 8], attention_channels: 4}}
train: {{epochs: 1000, global_batch_size: 24}}
run: {folder}/run
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launched")
    pack_survey(write_survey(folder / "s", rows=75, size=16), folder / "d")
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder))
    return folder / "config.yaml"


def on_a_terminal(seen: Callable[[str], bool], *arguments: str) -> tuple[int, str, str]:
    """Run `lens-hpc ARGUMENTS`, interrupt it when `seen` says so: status, stdout, what was seen."""
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "lens_hpc", *arguments]
    told = ""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=terminal, text=True
    ) as launcher:
        os.close(terminal)
        until = time.monotonic() + TOO_LONG_SECONDS
        interrupted = False
        while part := _read(reader):
            assert time.monotonic() < until, told
            told += part
            if not interrupted and seen(told):
                launcher.send_signal(signal.SIGINT)
                interrupted = True
        os.close(reader)
        assert launcher.stdout is not None
        return launcher.wait(), launcher.stdout.read(), told


def _read(reader: int) -> str:
    """What the terminal was sent; nothing when all processes have left it."""
    try:
        return os.read(reader, 1 << 16).decode(errors="replace")
    except OSError:
        return ""


def test_an_interrupted_training_has_saved_and_goes_on_with_another_number_of_processes(
    config: Path,
) -> None:
    status, printed, told = on_a_terminal(
        lambda told: "epoch 2 " in told, "train", str(config), "processes=2"
    )
    assert (status, printed) == (85, ""), told
    assert "fusion on 2 x cpu" in told
    assert REVERSED in told, "no bar"
    assert told.count("SIGINT: saved at step") == 1
    assert "Traceback" not in told
    assert "processes" not in (config.parent / "run" / "config.yaml").read_text()

    saved = int(told.partition("SIGINT: saved at step ")[2].partition(";")[0])
    last = ("train", str(config), f"train.max_minutes={1e-9}", "processes=1")
    gone_on = lens_hpc(*last)
    assert gone_on.returncode == 85, gone_on.stderr
    assert f"step {saved}" in gone_on.stderr


def test_what_the_processes_find_wrong_is_told_once(config: Path) -> None:
    run = f"run={config.parent / 'refused'}"
    refused = lens_hpc("train", str(config), run, "train.global_batch_size=25", "processes=2")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr == (
        "lens-hpc: train: train.global_batch_size = 25 cannot be shared evenly by 2 processes; "
        "choose 24 or 26\n"
    )
    assert not (config.parent / "refused").exists()
