import json
import logging
import math
import os
import shutil
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from lens_hpc import config, layout
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.loading.loader import Loader
from lens_hpc.logs import logger
from lens_hpc.scoring.calibration import fit_calibration, read_calibration
from lens_hpc.training import loop
from lens_hpc.training.loop import TrainingResult, train_run
from lens_hpc.training.signals import SIGNALS


def changed(settings: config.Train, **groups: dict[str, Any]) -> config.Train:
    tree = settings.model_dump()
    for group, values in groups.items():
        tree[group] = tree[group] | values if isinstance(values, dict) else values
    return config.Train.model_validate(tree)


def process_state() -> dict[str, Any]:
    """What a call must leave as it found it."""
    return {
        "signals": {number: signal.getsignal(number) for number in SIGNALS},
        "handlers": list(logger.handlers),
        "level": logger.level,
        "threads": {thread.name for thread in threading.enumerate()},
        "torch": (
            torch.get_num_threads(),
            torch.backends.cuda.matmul.allow_tf32,
            torch.get_rng_state().tolist(),
        ),
        "groups": torch.distributed.is_initialized(),
    }


def records(settings: config.Train) -> list[dict[str, float]]:
    lines = (settings.run / layout.METRICS_LOG).read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_training_twice_in_one_process_leaves_it_as_it_was(training: config.Train) -> None:
    """The second time in another precision, which Accelerate keeps in a state of the process."""
    settings = changed(training, data={"workers": 1}, train={"tf32": True})
    before = process_state()
    result = train_run(settings)
    assert process_state() == before

    assert not result.stopped
    assert result.step == 6
    assert result.best_auc == max(line["val_auc"] for line in records(settings))
    assert "trained to the end at step 6, best validation AUC" in repr(result)

    half = changed(settings, run=training.run.with_name("half"), train={"precision": "bf16"})
    assert train_run(half).step == 6
    assert process_state() == before
    assert (half.run / layout.FINAL / layout.WEIGHTS).is_file()


def test_a_finished_run_is_a_result_too(
    training: config.Train, caplog: pytest.LogCaptureFixture
) -> None:
    first = train_run(training)
    before = (training.run / layout.METRICS_LOG).read_bytes()
    with caplog.at_level(logging.INFO, logger.name):
        assert train_run(training) == first
    assert "has finished already" in caplog.text
    assert (training.run / layout.METRICS_LOG).read_bytes() == before

    (training.run / layout.METRICS_LOG).unlink()
    assert math.isnan(train_run(training).best_auc)


class Interrupt:
    """Ctrl-C in a step of a training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        self.step = step
        self.train_step = loop.train_step
        monkeypatch.setattr(loop, "train_step", self)

    def __call__(self, trainer: Any, step: int, batches: Any) -> Any:
        if step == self.step:
            signal.raise_signal(signal.SIGINT)
        return self.train_step(trainer, step, batches)


def test_an_interrupt_saves_and_the_same_call_goes_on(
    training: config.Train, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = changed(training, run=tmp_path / "whole")
    train_run(whole)
    before = process_state()
    with monkeypatch.context() as patch:
        Interrupt(patch, step=3)
        result = train_run(training)
    assert process_state() == before

    # The request is seen when the next step begins, which is done, too.
    assert result == TrainingResult(training.run, True, 5, records(whole)[0]["val_auc"])
    assert "stopped and saved at step 5" in repr(result)
    assert not (training.run / layout.FINAL).exists()

    again = train_run(training)
    assert (again.stopped, again.step) == (False, 6)
    ours = load_file(training.run / layout.FINAL / layout.WEIGHTS)
    theirs = load_file(whole.run / layout.FINAL / layout.WEIGHTS)
    assert all(np.array_equal(value, theirs[name]) for name, value in ours.items())


def test_a_stop_before_the_first_epoch_ends_knows_no_auc(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    Interrupt(monkeypatch, step=0)
    result = train_run(training)
    assert (result.stopped, result.step) == (True, 2)
    assert math.isnan(result.best_auc)


def test_an_error_leaves_the_process_as_it_was(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(trainer: Any, step: int, batches: Any) -> Any:
        raise ZeroDivisionError(step)

    monkeypatch.setattr(loop, "train_step", failing)
    before = process_state()
    with pytest.raises(ZeroDivisionError):
        train_run(changed(training, data={"workers": 1}))
    assert process_state() == before


def val_logits(settings: config.Train, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of the validation split, by exported weights."""
    from lens_hpc.loading.order import scoring_shares
    from lens_hpc.loading.samples import Samples
    from lens_hpc.model.trained import load_trained

    trained = load_trained(folder)
    split = Split(settings.data.dataset, "val")
    samples = Samples(split, trained.manifest, settings.data.image_scale)
    with Loader(samples, 256, 0, torch.device("cpu")) as loader, torch.inference_mode():
        batch = next(loader(0, scoring_shares(len(split), 256, 0, 1)))
        logits = trained.model.eval()(batch.images, batch.features).numpy()
    return split.take("labels", np.arange(len(split))), logits


def test_best_and_final_have_the_calibration_of_their_own_weights(
    training: config.Train,
) -> None:
    # The rate is so high that the two epochs differ.
    settings = changed(training, optim={"lr": 0.05}, train={"epochs": 4})
    train_run(settings)
    aucs = [line["val_auc"] for line in records(settings)]
    for name, epoch in (("best", int(np.argmax(aucs)) + 1), ("final", 4)):
        folder = settings.run / name
        with safe_open(folder / layout.WEIGHTS, "np") as weights:
            facts = weights.metadata()
        assert float(facts["epoch"]) == epoch
        expected = fit_calibration(*val_logits(settings, folder))
        found = read_calibration(folder, facts["step"])
        assert expected is not None
        assert found is not None
        assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
        np.testing.assert_allclose(
            found.isotonic_probabilities, expected.isotonic_probabilities, atol=1e-6
        )


def test_a_run_killed_before_its_final_weights_gets_them_with_their_calibration(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All epochs are recorded, and the newest checkpoint is of the middle of the last one."""
    settings = changed(training, checkpoint={"every_steps": 4})
    train_run(settings)
    expected = {
        file: (settings.run / layout.FINAL / file).read_bytes()
        for file in (layout.CALIBRATION, layout.MANIFEST, layout.CONFIG)
    }
    weights = load_file(settings.run / layout.FINAL / layout.WEIGHTS)
    lines = records(settings)
    shutil.rmtree(settings.run / layout.FINAL)

    assert train_run(settings).step == 6
    assert {
        file: (settings.run / layout.FINAL / file).read_bytes() for file in expected
    } == expected
    again = load_file(settings.run / layout.FINAL / layout.WEIGHTS)
    assert all(np.array_equal(value, again[name]) for name, value in weights.items())
    assert [line["loss"] for line in records(settings)] == [line["loss"] for line in lines]


def test_a_run_that_goes_on_with_fewer_epochs_is_calibrated_too(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Interrupt(patch, step=3)
        assert train_run(training).stopped
    fewer = changed(training, train={"epochs": 1}, resume={"allow": ("train.epochs",)})
    train_run(fewer)
    found = read_calibration(training.run / layout.FINAL)
    expected = fit_calibration(*val_logits(training, training.run / layout.FINAL))
    assert found is not None
    assert expected is not None
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)


def test_overflowed_scores_are_not_calibrated() -> None:
    labels = np.array([0, 1, 0], dtype=np.int8)
    overflowed = np.array([0.0, np.inf, 1.0], dtype=np.float32)
    assert loop.calibrate(loop.Validation(labels, overflowed, 1.0)) is None
    assert loop.calibrate(loop.Validation(labels, overflowed[[0, 2, 0]], 1.0)) is not None


def test_the_weights_are_written_last(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_run(training)
    times = {file.name: file.stat().st_mtime_ns for file in (training.run / layout.FINAL).iterdir()}
    assert set(times) == {
        layout.CONFIG,
        layout.MANIFEST,
        layout.CALIBRATION,
        layout.WEIGHTS,
        layout.TRAINING_ROWS,
    }
    assert max(times, key=lambda name: times[name]) == layout.WEIGHTS


def test_code_is_imported_only_when_the_caller_says_so(
    training: config.Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "own"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text(
        "from lens_hpc.model.fusion import FusionModel\nclass Mine(FusionModel): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = changed(training, model={"name": "own.models.Mine"})
    with pytest.raises(UserError, match=r"add code=\[own\]"):
        train_run(mine)
    assert not training.run.exists()

    train_run(changed(mine, code=("own",)))
    # The run's own config names the package, but that is nobody's permission.
    shutil.rmtree(training.run / layout.FINAL)
    with pytest.raises(UserError, match=r"add code=\[own\]"):
        train_run(mine)


def test_nothing_listens_when_a_slow_sigterm_comes_after_the_end(training: config.Train) -> None:
    train_run(training)
    pid = os.fork()
    if pid == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM


def test_losses_are_looked_at_one_look_later_and_all_before_the_epoch_ends(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where they need not have arrived yet."""
    settings = changed(training, train={"global_batch_size": 4})  # 7 steps an epoch
    train_run(settings)

    events: list[tuple[str, int]] = []
    send, receive = loop.send_losses, loop.receive_losses

    def send_as_from_a_gpu(trainer: Any, results: Any, last_step: int) -> Any:
        events.append(("sent", last_step))
        event = SimpleNamespace(synchronize=lambda: None)
        return send(trainer, results, last_step)._replace(arrived=event)

    def receive_and_note(trainer: Any, sent: Any) -> Any:
        events.append(("looked at", sent.last_step))
        return receive(trainer, sent)

    monkeypatch.setattr(loop, "send_losses", send_as_from_a_gpu)
    monkeypatch.setattr(loop, "receive_losses", receive_and_note)
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOOKS", 3)
    late = changed(settings, run=training.run.with_name("late"))
    train_run(late)

    # Step 3's are looked at when those of step 6 are due, before these are sent.
    first_epoch = [("sent", 3), ("looked at", 3), ("sent", 6), ("looked at", 6), ("sent", 7)]
    assert events[:6] == [*first_epoch, ("looked at", 7)]
    assert events[6] == ("sent", 10)
    assert [line["loss"] for line in records(late)] == [line["loss"] for line in records(settings)]


def test_too_little_memory_is_one_message_with_the_setting(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(loop, "train_step", fail)
    with pytest.raises(UserError, match=r"train\.micro_batch_size = 8: choose .*=4 \(train\.glob"):
        train_run(training)


def test_an_operation_without_the_same_bits_is_named(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError(
            "put_ does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True)'. You can turn off determinism ..."
        )

    monkeypatch.setattr(loop, "train_step", fail)
    settings = changed(training, train={"deterministic": True})
    with pytest.raises(UserError, match=r"^train.deterministic = true: put_ does not .*=false$"):
        train_run(settings)
