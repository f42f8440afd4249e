"""The GPU that is not there sees what it is there to see."""

import re
from collections.abc import Callable

import pytest
import torch

from tests.gpu.pretend import GPU, pretend_gpu


def on_gpu(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device=GPU)


FAULTS: dict[str, Callable[[], object]] = {
    "the host waits: _local_scalar_dense": lambda: on_gpu(3).sum().item(),
    "the host waits: equal": lambda: torch.equal(on_gpu(3), on_gpu(3)),
    "the host waits: index_put_ by a mask": lambda: on_gpu(3).__setitem__(
        on_gpu(3, dtype=torch.bool), on_gpu(3)
    ),
    "the host waits: synchronize": lambda: torch.cuda.synchronize(),
    "blocks: copy to the GPU, (3,)": lambda: torch.zeros(3).to(GPU),
    "blocks: copy to the GPU, (4,)": lambda: torch.zeros(4).to(GPU, non_blocking=True),
    "blocks: copy to the GPU, (5,)": lambda: torch.zeros(5).pin_memory().to(GPU),
    "blocks: copy to the GPU, ()": lambda: torch.tensor(1.0, device=GPU),
    "blocks: copy to the GPU, (6,)": lambda: on_gpu(6).copy_(torch.zeros(6), non_blocking=True),
    "blocks: copy from the GPU, (3,)": lambda: on_gpu(3).cpu(),
    "mixed devices: index": lambda: on_gpu(3)[torch.tensor([0, 1])],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_kind_of_fault_is_written_down_with_its_place(fault: str) -> None:
    with pretend_gpu() as gpu:
        FAULTS[fault]()
    (found,) = gpu.faults()
    assert found.startswith(fault)
    assert re.search(r" at tests/gpu/test_pretend.py:\d+$", found)


@pytest.mark.parametrize("op", [torch.nonzero, torch.unique, lambda x: x[x > 0]])
def test_what_has_as_many_results_as_the_values_say_cannot_go_on(op: Callable) -> None:
    with pretend_gpu() as gpu, pytest.raises(Exception, match="aten"):
        op(on_gpu(3))
    assert len(gpu.waits) == 1


def test_mixed_devices_that_no_gpu_could_add_are_an_error() -> None:
    with pretend_gpu(), pytest.raises(RuntimeError, match="on the same device"):
        on_gpu(3) + torch.zeros(3)


def test_what_is_asynchronous_is_no_fault() -> None:
    with pretend_gpu() as gpu:
        source = torch.empty(4, 3, pin_memory=True)
        there = source[1:].to(GPU, non_blocking=True)
        there.copy_(source[:3], non_blocking=True)
        sums = (there.view(9) * 2).sum()
        stream = torch.cuda.Stream(GPU)
        event = stream.record_event()
        sums += 1
        event.synchronize()
        back = torch.ones(1).pin_memory()
        back.copy_(sums, non_blocking=True)
        assert back.item() == 0
    assert gpu.faults() == []
    assert len(gpu.copies) == 3
    assert [call.what for call in gpu.launched[2:-1]] == ["mul", "sum", "add_"]


def test_an_event_that_nothing_was_launched_after_is_waited_for() -> None:
    with pretend_gpu() as gpu:
        on_gpu(3).add_(1)
        torch.cuda.Stream(GPU).record_event().synchronize()
    assert len(gpu.waits) == 1


def test_memory_is_pinned_no_longer_than_it_is_there() -> None:
    with pretend_gpu() as gpu:
        tensor = torch.empty(5, pin_memory=True)
        assert tensor[3:].is_pinned()
        del tensor
        assert gpu.pinned == {}


def test_the_cpu_computes_and_the_gpu_gives_zeros() -> None:
    with pretend_gpu():
        assert torch.arange(4).sum().item() == 6
        assert on_gpu(2, 3).cpu().numpy().tolist() == [[0.0] * 3] * 2
        assert on_gpu(1).item() == 0
    assert torch.arange(4).sum() == 6


def test_inference_mode_hides_nothing() -> None:
    model = torch.nn.Linear(4, 3)
    with pretend_gpu() as gpu, torch.inference_mode():
        on = model.to(GPU)
        gpu.forget()
        assert on(on_gpu(2, 4)).cpu().numpy().shape == (2, 3)
    assert [call.what.partition(",")[0] for call in gpu.launched] == ["addmm", "copy from the GPU"]
    assert len(gpu.faults()) == 1


def test_a_backward_pass_gives_every_weight_a_gradient() -> None:
    with pretend_gpu() as gpu:
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1)).to(GPU)
        gpu.forget()
        model(on_gpu(2, 4)).sum().backward()
        assert all(weight.grad.shape == weight.shape for weight in model.parameters())
    assert gpu.faults() == []
