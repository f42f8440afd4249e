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
from lens_hpc.training import loop, telling
from lens_hpc.training.checkpoints import Checkpoints
from lens_hpc.training.loop import TrainingResult, train_run
from lens_hpc.training.signals import SIGNALS
from tests.training.two_ranks import two_ranks


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


def numbers_of(record: dict[str, float]) -> dict[str, float]:
    """What was validated, by the words of train.best."""
    validated = {name: value for name, value in record.items() if name.startswith("val_")}
    return {name.removeprefix("val_"): value for name, value in validated.items()}


def epoch_of(folder: Path) -> int:
    """The epoch that exported weights are of."""
    with safe_open(folder / layout.WEIGHTS, "np") as weights:
        return int(weights.metadata()["epoch"])


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
    numbers = numbers_of(records(whole)[0])
    assert result == TrainingResult(training.run, True, 5, numbers)
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


def test_the_loss_of_validation_is_that_of_the_exported_weights(training: config.Train) -> None:
    train_run(training)
    labels, logits = val_logits(training, training.run / layout.FINAL)
    expected = np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean()
    assert records(training)[-1]["val_loss"] == pytest.approx(expected, rel=1e-5)


# ---- the number that chooses the best weights ----

SCRIPT: dict[str, list[float]] = {
    "auc": [0.6, 0.9, 0.9, 0.7],
    "tpr10": [0.1, 0.2, 0.5, 0.5],
    "partial_auc": [0.5, 0.5, 0.5, 0.6],
    "loss": [0.3, 0.6, 0.4, 0.5],
}
"""Numbers of four epochs; where two epochs are as good, the first is the best."""
BEST_EPOCHS = {"auc": 2, "tpr10": 3, "partial_auc": 4, "loss": 1}


@pytest.fixture
def scripted(training: config.Train, monkeypatch: pytest.MonkeyPatch) -> config.Train:
    """A training of four epochs whose validations find the numbers of SCRIPT."""
    steps = [0]
    train_step = loop.train_step

    def step_and_note(trainer: Any, step: int, batches: Any) -> Any:
        steps.append(step)
        return train_step(trainer, step, batches)

    def numbers_of_epoch(*_: Any) -> dict[str, float]:
        return {name: values[steps[-1] // 3] for name, values in SCRIPT.items()}

    monkeypatch.setattr(loop, "train_step", step_and_note)
    monkeypatch.setattr(loop, "measure_validation", numbers_of_epoch)
    monkeypatch.setattr("lens_hpc.training.training_data.check_best", lambda *_: None)
    return changed(training, train={"epochs": 4})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("by", "title"),
    [("auc", "AUC"), ("tpr10", "TPR10"), ("partial_auc", "partial AUC"), ("loss", "loss")],
)
def test_the_best_weights_are_chosen_by_the_number_that_the_settings_name(
    scripted: config.Train, by: str, title: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = changed(scripted, train={"best": by})
    with caplog.at_level(logging.INFO, logger.name):
        result = train_run(settings)

    epochs = [{name: values[epoch] for name, values in SCRIPT.items()} for epoch in range(4)]
    assert [numbers_of(record) for record in records(settings)] == epochs
    assert epoch_of(settings.run / layout.BEST) == BEST_EPOCHS[by]
    expected = epochs[BEST_EPOCHS[by] - 1]
    assert (result.best, result.best_by, result.best_auc) == (expected, by, expected["auc"])
    assert train_run(settings) == result

    told = f"best validation {title} {expected[by]:.4f}"
    assert f"{told}; evaluate it with" in caplog.text
    assert told in repr(result)
    assert "val loss 0.6000  val AUC 0.9000" in caplog.text
    assert f"val {title} {SCRIPT[by][3]:.4f}" in caplog.text


def test_a_run_that_goes_on_by_another_number_compares_the_new_with_the_new(
    scripted: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stopped in its third epoch, when the second had the best AUC, 0.9, and loss 0.6."""
    with monkeypatch.context() as patch:
        Interrupt(patch, step=6)
        assert train_run(scripted).best_auc == 0.9
    other = changed(scripted, train={"best": "loss"})
    with pytest.raises(UserError, match=r"train\.best: auc there, loss here"):
        train_run(other)
    assert epoch_of(scripted.run / layout.BEST) == 2

    result = train_run(changed(other, resume={"allow": ("train.best",)}))
    assert result.best["loss"] == 0.4
    assert epoch_of(scripted.run / layout.BEST) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("by", "epoch"), [("auc", 2), ("tpr10", 3)])
def test_a_run_of_an_earlier_version_goes_on(
    scripted: config.Train, monkeypatch: pytest.MonkeyPatch, by: str, epoch: int
) -> None:
    """It was stopped in its third epoch, and knows the AUC alone of its second, the best.

    The third has the same AUC. By another number nothing can be compared with the second.
    """
    with monkeypatch.context() as patch:
        Interrupt(patch, step=6)
        train_run(scripted)
    make_older(scripted.run)

    train_run(changed(scripted, train={"best": by}, resume={"allow": ("train.best",)}))
    assert epoch_of(scripted.run / layout.BEST) == epoch


def make_older(run: Path) -> None:
    """Turn a run that was stopped into one of an earlier version."""
    (folder,) = (run / layout.CHECKPOINTS).iterdir()
    captured = torch.load(folder / layout.CHECKPOINT_STATE, weights_only=True)
    place = captured["place"]
    place["best_auc"] = place.pop("best")["auc"]
    del captured["loss"]
    with Checkpoints(run / layout.CHECKPOINTS, keep=1) as checkpoints:
        checkpoints.write(place["step"], captured)

    config_file = run / layout.CONFIG
    lines = config_file.read_text().splitlines(keepends=True)
    older = [line for line in lines if line.strip() != "best: auc"]
    assert len(older) == len(lines) - 1
    config_file.write_text("".join(older))


DECIDED_TOGETHER = """
    from types import SimpleNamespace
    import numpy as np
    from lens_hpc.training import loop, telling

    loop.score = lambda *_: np.zeros(2, dtype=np.float32)
    loop.measure_validation = lambda *_: {"auc": 0.5 + rank / 1e15}
    split = SimpleNamespace(take=lambda *_: None)
    loader = SimpleNamespace(samples=SimpleNamespace(split=split))
    trainer = SimpleNamespace(
        accelerator=accelerator,
        settings=settings,
        validation_loader=loader,
        whole_model=lambda: None,
    )
    session = SimpleNamespace(trainer=trainer, stop_if_requested=None)
    print(loop.validate(session).numbers)
"""


@pytest.mark.slow
def test_all_processes_choose_by_the_same_numbers() -> None:
    """One of them rounds otherwise, and would wait for ever for the other to keep its weights."""
    assert two_ranks(DECIDED_TOGETHER).count("{'auc': 0.5}") == 2


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
    assert loop.calibrate(loop.Validation(labels, overflowed, {})) is None
    assert loop.calibrate(loop.Validation(labels, overflowed[[0, 2, 0]], {})) is not None


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


@pytest.mark.slow
def test_losses_are_looked_at_one_look_later_and_all_before_the_epoch_ends(
    training: config.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where they need not have arrived yet."""
    settings = changed(training, train={"global_batch_size": 4})  # 7 steps an epoch
    train_run(settings)

    events: list[tuple[str, int]] = []
    send, receive = telling.send_losses, telling.receive_losses

    def send_as_from_a_gpu(trainer: Any, results: Any, last_step: int) -> Any:
        events.append(("sent", last_step))
        event = SimpleNamespace(synchronize=lambda: None)
        return send(trainer, results, last_step)._replace(arrived=event)

    def receive_and_note(trainer: Any, sent: Any) -> Any:
        events.append(("looked at", sent.last_step))
        return receive(trainer, sent)

    monkeypatch.setattr(telling, "send_losses", send_as_from_a_gpu)
    monkeypatch.setattr(telling, "receive_losses", receive_and_note)
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
