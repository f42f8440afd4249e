"""The Python door: what a notebook does, and how it finds its process afterwards."""

import _thread
import logging
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

import lens_hpc
from lens_hpc import Dataset, Finder, UserError
from tests.conftest import SMALL_MODEL, pack_survey, write_survey
from tests.integration import commands

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("door")
    return pack_survey(write_survey(folder / "survey", rows=200, size=16), folder / "shards")


@pytest.fixture(scope="module")
def run(shards: Path) -> Path:
    return train(shards, shards.parent / "run").run


def train(shards: Path, run: Path, **more: Any) -> Any:
    loop = {"epochs": 2, "global_batch_size": 16} | more.pop("train", {})
    return lens_hpc.train(run=run, data={"dataset": shards}, model=SMALL_MODEL, train=loop, **more)


def process_state() -> dict[str, Any]:
    """Return everything that a call must leave as it was."""
    logger = logging.getLogger("lens_hpc")
    fresh_thread_sees: list[int] = []
    thread = threading.Thread(target=lambda: fresh_thread_sees.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return {
        "signals": [signal.getsignal(number) for number in SIGNALS],
        "loggers": [logging.root.handlers[:], logging.root.level, logger.handlers[:], logger.level],
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "threads": [torch.get_num_threads(), cv2.getNumThreads(), *fresh_thread_sees],
        "random": [random.getstate(), torch.get_rng_state().tolist(), numpy_state()],
        "flags": [
            torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32,
            torch.backends.cudnn.benchmark,
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        ],
        "matplotlib": [matplotlib.get_backend(), dict(matplotlib.rcParams)],
        "process group": torch.distributed.is_initialized(),
        "children": multiprocessing.active_children(),
        "running": set(threading.enumerate()),
    }


def numpy_state() -> Any:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return name, keys.tolist(), rest  # type: ignore[union-attr]


def assert_same(before: dict[str, Any]) -> None:
    after = process_state()
    # A thread of an earlier test may have ended meanwhile.
    assert after.pop("running") <= before["running"]
    for name, value in after.items():
        assert before[name] == value, name


@pytest.mark.slow
def test_a_notebook_trains_twice_evaluates_and_scores(shards: Path, tmp_path: Path) -> None:
    before = process_state()

    first = train(shards, tmp_path / "first")
    assert not first.stopped
    assert (first.run / "final" / "calibration.json").is_file()
    assert_same(before)

    second = train(shards, tmp_path / "second", train={"precision": "bf16"})
    assert second.run == tmp_path / "second"
    assert_same(before)

    evaluation = lens_hpc.evaluate(tmp_path / "first", batch_size=8)
    assert evaluation.metrics["n"] == len(Dataset(shards)["test"])
    assert_same(before)

    # One order of batches and the same threads give the same logits.
    finder = Finder.load(tmp_path / "first", device="cpu")
    test = Dataset(shards)["test"][:]
    logits = finder.score(test.images, test.features, batch_size=8)
    table = pd.read_parquet(evaluation.predictions)
    assert list(table["id"]) == list(test.ids)
    np.testing.assert_allclose(logits, table["logit"], atol=1e-5)
    assert_same(before)


@pytest.mark.slow
def test_the_interrupt_button_stops_a_training_that_can_go_on(shards: Path, tmp_path: Path) -> None:
    before = process_state()
    run = tmp_path / "run"

    def interrupt() -> None:
        while not (run / "metrics.jsonl").is_file():
            time.sleep(0.05)
        _thread.interrupt_main(signal.SIGINT)

    button = threading.Thread(target=interrupt)
    button.start()
    stopped = train(shards, run, train={"epochs": 500})
    button.join()
    assert stopped.stopped
    assert stopped.step > 0
    assert_same(before)

    # The same call goes on; fewer epochs are another run's settings, which are allowed here.
    more = {"epochs": stopped.step // 8 + 1}
    finished = train(shards, run, train=more, resume={"allow": ["train.epochs"]})
    assert not finished.stopped
    assert finished.step > stopped.step
    assert_same(before)


@pytest.mark.slow
def test_a_call_that_fails_leaves_everything_as_it_was(shards: Path, tmp_path: Path) -> None:
    before = process_state()
    with pytest.raises(UserError, match=r"(?s)lens_hpc\.train\(\.\.\.\).*did you mean optim\.lr"):
        train(shards, tmp_path / "run", optim={"lrr": 1})
    with pytest.raises(UserError, match=r"lower optim\.lr"):
        train(shards, tmp_path / "run", optim={"lr": 1e30}, schedule={"minimum_lr": 1e30})
    assert_same(before)


@pytest.mark.slow
def test_every_verb_leaves_the_process_as_it_was(run: Path, shards: Path, tmp_path: Path) -> None:
    before = process_state()
    survey = lens_hpc.simulate(tmp_path / "mock", objects=24, size=48, processes=2)
    packed = lens_hpc.pack(
        survey.folder / "recipe.yaml", source=survey.folder, output=tmp_path / "shards"
    )
    assert len(Dataset(packed.output)["train"]) > 0
    lens_hpc.verify(packed.output)
    lens_hpc.info(packed.output, figure=tmp_path / "cutouts.png")
    audited = lens_hpc.audit(shards)
    assert audited.audit.verdict in {"fine", "look", "leak"}
    assert repr(audited)
    lens_hpc.check(run=tmp_path / "run", data={"dataset": shards}, model=SMALL_MODEL)
    lens_hpc.bench(data={"dataset": shards, "workers": 2}, model=SMALL_MODEL, seconds=0.1)
    assert_same(before)


# ---- the door itself ----


def test_importing_is_light_and_help_imports_no_verb() -> None:
    code = (
        "import sys, lens_hpc; dir(lens_hpc);"
        "print([m for m in sys.modules if m in {'torch', 'numpy', 'pandas', 'pydantic'}"
        " or m.startswith('lens_hpc.verbs.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_door_has_every_verb_and_no_other_name() -> None:
    assert {"Dataset", "Finder", "UserError", "pack", "train", "evaluate"} <= set(dir(lens_hpc))
    assert "Train the fusion model" in lens_hpc.train.__doc__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = lens_hpc.trian


def test_a_mistake_is_told_as_a_call(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"settings from lens_hpc\.simulate\(\.\.\.\)"):
        lens_hpc.simulate(tmp_path / "out", objetcs=3)
    with pytest.raises(UserError, match="needs its DATASET first"):
        lens_hpc.verify()
    with pytest.raises(UserError, match="takes one DATASET, not 2"):
        lens_hpc.verify(tmp_path, tmp_path)
    with pytest.raises(UserError, match="dataset: is the DATASET itself, which is given already"):
        lens_hpc.verify(tmp_path, dataset=tmp_path)
    with pytest.raises(UserError, match="are texts or paths, not dict"):
        lens_hpc.train({"run": tmp_path})
    with pytest.raises(UserError, match="no such home folder"):
        lens_hpc.verify("~nobody-of-that-name/shards")


def test_the_target_may_be_a_keyword_and_several_a_list(shards: Path, tmp_path: Path) -> None:
    assert lens_hpc.verify(dataset=shards).shards == 3
    with pytest.raises(UserError, match=f"{tmp_path}/a/best holds no"):
        lens_hpc.evaluate([tmp_path / "a", tmp_path / "b"])


def test_a_verb_can_be_sent_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(lens_hpc.verify)) is lens_hpc.verify


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_what_to_do(shards: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import lens_hpc\n"
        f"lens_hpc.train(run={str(tmp_path / 'run')!r}, data={{'dataset': {str(shards)!r}}}, "
        f"model={SMALL_MODEL!r}, train={{'epochs': 1, 'global_batch_size': 16}})\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode != 0
    assert 'put the calls below `if __name__ == "__main__":`' in done.stderr


@pytest.mark.slow
def test_a_launched_script_calls_one_verb_after_the_other(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    script = tmp_path / "script.py"
    script.write_text(
        "import lens_hpc\n"
        "if __name__ == '__main__':\n"
        f"    run = {str(tmp_path / 'run')!r}\n"
        f"    lens_hpc.train(run=run, data={{'dataset': {str(shards)!r}, 'workers': 0}}, "
        f"model={SMALL_MODEL!r}, train={{'epochs': 1, 'global_batch_size': 16}})\n"
        "    found = lens_hpc.evaluate(run, workers=0)\n"
        "    print('evaluated', found and found.metrics['n'])\n"
    )
    done = commands.lens_hpc(processes=2, program=(str(script),))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "evaluated 30" in done.stdout


@pytest.mark.slow
def test_a_process_group_of_the_callers_own_outlives_a_call_that_fails(
    shards: Path, tmp_path: Path
) -> None:
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=1)
    try:
        with pytest.raises(UserError):
            train(shards, tmp_path / "run", optim={"lr": 1e30}, schedule={"minimum_lr": 1e30})
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_a_typo_in_a_config_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("run: r\ndata: {dataset: d}\noptim: {lrr: 1}\n")
    code = (
        "import sys; from lens_hpc.cli import main;"
        f"status = main(['train', {str(config)!r}]); print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 False"
    assert "did you mean optim.lr?" in done.stderr
