import pytest
import torch

from lens_hpc import UserError
from lens_hpc.engine.accelerator import make_accelerator


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU here")
def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(UserError, match="choose bf16 or no"):
        make_accelerator("fp16")


def test_processes_that_did_not_come_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    make_accelerator()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="the launcher started 2 processes, but 1 came together"):
        make_accelerator()
