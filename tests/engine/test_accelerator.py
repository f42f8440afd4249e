import pytest
import torch

from lens_hpc import UserError, config
from lens_hpc.engine.accelerator import make_accelerator


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU here")
def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="choose bf16 or no"):
        make_accelerator(
            config.Train.model_validate({"run": "r", "data": {"dataset": "d"}, "train": {"precision": "fp16"}})
        )


def test_processes_that_did_not_come_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make_accelerator()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="the launcher started 2 processes, but 1 came together"):
        make_accelerator()


def test_a_tracker_that_is_not_there_is_refused() -> None:
    settings = {"run": "r", "data": {"dataset": "d"}, "train": {"trackers": ["tensorboard", "tensorbord"]}}
    with pytest.raises(UserError, match=r"\['tensorbord'\]: unknown or not installed; here are: .*tensorboard"):
        make_accelerator(config.Train.model_validate(settings))
