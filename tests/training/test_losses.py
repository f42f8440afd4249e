import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.training.losses import check_losses, reduce_losses
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
    assert reduce_losses(trainer, results(1.0, 3.0)) == [0.5, 1.5]


def test_a_loss_that_is_no_number_is_told_with_its_step_and_samples(
    trainer: Any, tmp_path: Path
) -> None:
    check_losses(trainer, [1.0, 2.0, 3.0], results(1.0, 2.0, 3.0), last_step=10)
    assert not (tmp_path / "nonfinite.json").exists()

    losses = [1.0, float("nan"), 3.0]
    with pytest.raises(UserError, match=r"became nan in step 9 at learning rate 2\.5e-01"):
        check_losses(trainer, losses, results(*losses), last_step=10)
    told = json.loads((tmp_path / "nonfinite.json").read_text())
    # Draw 33 is the copy of row 5.
    expected = trainer.train_loader.samples.split.ids(np.array([3, 5])).tolist()
    assert told == {"step": 9, "lr": 0.25, "ids": expected}
