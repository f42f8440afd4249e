import pytest
import torch

from lens_hpc.errors import UserError
from lens_hpc.scoring.out_of_memory import out_of_memory_named, smaller_batch_size

TOLD = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
    torch.OutOfMemoryError(""),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", TOLD)
def test_the_remedy_is_told_in_one_line(error: RuntimeError) -> None:
    with pytest.raises(UserError) as told, out_of_memory_named("choose batch_size=3"):
        raise error
    text = str(told.value)
    assert text.startswith("the memory of the device is not enough: choose batch_size=3 (")
    assert "\n" not in text
    assert told.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as told, out_of_memory_named("choose batch_size=3"):
        raise error
    assert told.value is error


def test_the_batch_is_halved_as_long_as_it_can_be() -> None:
    assert smaller_batch_size(256) == "batch_size = 256: choose batch_size=128"
    assert smaller_batch_size(3) == "batch_size = 3: choose batch_size=1"
    assert "take another device" in smaller_batch_size(1)
