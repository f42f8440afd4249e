import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.training.losses import receive_losses, send_losses
from lens_hpc.training.trainer import StepResult


@pytest.fixture
def trainer(tmp_path: Path, dataset: Path) -> Any:
    """One of two processes; the other's losses are zero."""
    split = Split(dataset, "train")
    return SimpleNamespace(
        accelerator=SimpleNamespace(
            reduce=lambda losses, reduction: losses / 2, is_main_process=True
        ),
        settings=SimpleNamespace(run=tmp_path),
        rate=SimpleNamespace(now=lambda: 0.25),
        order=SimpleNamespace(rows=len(split)),
        train_loader=SimpleNamespace(samples=SimpleNamespace(split=split)),
    )


def results(*losses: float) -> list[StepResult]:
    return [StepResult(torch.tensor(loss), np.array([3, 28 + 5])) for loss in losses]


def test_losses_are_the_means_over_the_processes(trainer: Any) -> None:
    sent = send_losses(trainer, results(1.0, 3.0), last_step=10)
    assert receive_losses(trainer, sent) == [0.5, 1.5]


def test_a_loss_that_is_no_number_is_told_with_its_step_and_samples(
    trainer: Any, tmp_path: Path
) -> None:
    receive_losses(trainer, send_losses(trainer, results(1.0, 2.0, 3.0), last_step=10))
    assert not (tmp_path / "nonfinite.json").exists()

    sent = send_losses(trainer, results(1.0, float("nan"), 3.0), last_step=10)
    # The rate is that of the steps, whatever it is when their losses are looked at.
    trainer.rate = SimpleNamespace(now=lambda: 0.125)
    with pytest.raises(UserError, match=r"became nan in step 9 at learning rate 2\.5e-01"):
        receive_losses(trainer, sent)
    told = json.loads((tmp_path / "nonfinite.json").read_text())
    # Draw 33 is the copy of row 5.
    expected = trainer.train_loader.samples.split.ids(np.array([3, 5])).tolist()
    assert told == {"step": 9, "lr": 0.25, "ids": expected}
