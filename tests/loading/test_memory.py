import numpy as np
import pytest
import torch

from lens_hpc.loading.memory import PackedTensors, copy_to, memory_pinned
from tests.gpu.pretend import GPU, PretendGpu, cuda_replaced, pretend_gpu

TYPES = (torch.float32, torch.int64, torch.uint8, torch.float64, torch.int16, torch.bool)


@pytest.mark.parametrize("count", [1, 5])
def test_tensors_of_any_shape_and_type_come_out_of_one_piece(count: int) -> None:
    rng = np.random.default_rng(0)
    shapes = ((), (3,), (0,), (2, 1, 5), (1, 1), (7,))
    like = {}
    for number, (shape, dtype) in enumerate(zip(shapes, TYPES, strict=True)):
        values = torch.from_numpy(rng.integers(0, 2, (count, *shape)))
        like[f"tensor{number}"] = values.to(dtype)

    packed, other = PackedTensors(like), PackedTensors(like)
    for name, tensor in like.items():
        packed.tensors[name].copy_(tensor)
    other.whole.copy_(packed.whole)
    for name, tensor in like.items():
        assert other.tensors[name].dtype == tensor.dtype
        assert torch.equal(other.tensors[name], tensor)
        assert torch.equal(other.first(1)[name], tensor[:1])


def test_a_copy_to_a_gpu_does_not_block() -> None:
    tensor = torch.arange(3)
    assert torch.equal(copy_to(tensor, torch.device("cpu")), tensor)
    with pretend_gpu() as gpu:
        assert copy_to(tensor, GPU).device == GPU
    assert len(gpu.copies) == 1
    assert gpu.faults() == []


@pytest.mark.parametrize("status", [0, 1])
def test_memory_is_pinned_meanwhile_or_else_the_user_is_told(
    status: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu = PretendGpu()
    tensor = torch.zeros(1000)
    if status:
        monkeypatch.setattr(gpu, "pin", lambda *_: status)
    with cuda_replaced(gpu), memory_pinned(tensor):
        assert gpu.is_pinned(tensor[10:]) == (not status)
    assert gpu.pinned == {}
    assert ("cannot be pinned" in caplog.text) == bool(status)
