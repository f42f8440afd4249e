import os
import warnings

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.training.accelerator import accelerator_session, check_world


def settings(**loop: object) -> config.Train:
    return config.Train.model_validate({"run": "r", "data": {"dataset": "d"}, "train": loop})


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU here")
def test_fp16_needs_a_gpu() -> None:
    with (
        pytest.raises(UserError, match="choose bf16 or no"),
        accelerator_session(settings(precision="fp16")),
    ):
        pass


def test_processes_that_did_not_come_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with accelerator_session() as accelerator:
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(UserError, match="the launcher started 2 processes, but 1 came"):
            check_world(accelerator)


def test_a_tracker_that_is_not_there_is_refused() -> None:
    wanted = settings(trackers=["tensorboard", "tensorbord"])
    with (
        pytest.raises(
            UserError, match=r"\['tensorbord'\]: unknown or not installed; here are: .*tensorboard"
        ),
        accelerator_session(wanted),
    ):
        pass


def test_sessions_of_two_precisions_follow_each_other() -> None:
    for precision in ("no", "bf16", "no"):
        with accelerator_session(settings(precision=precision, trackers=[])) as accelerator:
            assert accelerator.mixed_precision == precision
    assert not AcceleratorState._shared_state


def test_the_state_of_a_notebooks_own_accelerator_is_back_afterwards() -> None:
    filters = list(warnings.filters)
    environment = dict(os.environ)
    own = Accelerator(cpu=True, mixed_precision="bf16")
    try:
        with accelerator_session(settings(precision="no", trackers=[])) as accelerator:
            assert accelerator.mixed_precision == "no"
        assert own.mixed_precision == "bf16"
        assert AcceleratorState().mixed_precision == "bf16"
    finally:
        AcceleratorState._reset_state(True)
    assert list(warnings.filters) == filters
    assert dict(os.environ) == environment
