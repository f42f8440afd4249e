import os
import warnings

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.training import accelerator as accelerator_module
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


def test_threads_are_limited_to_the_cores_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user has set a number, or a smaller one in a notebook."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    before = torch.get_num_threads()
    try:
        for found, cores, expected in ((8, 3, 3), (8, 64, 8), (2, 3, 2)):
            torch.set_num_threads(found)
            monkeypatch.setattr(accelerator_module, "usable_cpus", lambda cores=cores: cores)
            with accelerator_session(settings(trackers=[])):
                assert torch.get_num_threads() == expected
                assert os.environ["OMP_NUM_THREADS"] == str(expected)
            assert torch.get_num_threads() == found
            assert "OMP_NUM_THREADS" not in os.environ

        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            with monkeypatch.context() as patch:
                patch.setenv(variable, "8")
                torch.set_num_threads(8)
                with accelerator_session():
                    assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


def algorithms() -> tuple[object, ...]:
    return (
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize("of_the_notebook", [False, True])
def test_algorithms_are_tried_or_deterministic_and_restored(
    monkeypatch: pytest.MonkeyPatch, of_the_notebook: bool
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", of_the_notebook)
    before = algorithms()
    with accelerator_session(settings(trackers=[])):
        assert algorithms() == (True, False, False, None)
    with accelerator_session(settings(trackers=[], deterministic=True)):
        assert algorithms() == (False, True, True, ":4096:8")
    with accelerator_session():
        assert algorithms() == (False, False, False, None)
    assert algorithms() == before


def test_gradients_are_added_up_where_they_lie() -> None:
    with accelerator_session(settings(trackers=[])) as accelerator:
        handler = accelerator.ddp_handler
        assert (handler.gradient_as_bucket_view, handler.broadcast_buffers) == (True, False)


def test_the_model_is_compiled_by_the_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with accelerator_session(settings(trackers=[])) as accelerator:
        assert accelerator.state.dynamo_plugin.backend.value == "NO"


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
