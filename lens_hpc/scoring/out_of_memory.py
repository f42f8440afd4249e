"""A GPU without enough memory: the message that names the setting to turn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lens_hpc.errors import UserError

# CUDA's own libraries tell it in other words, and as other errors, than PyTorch's allocator.
SIGNS = ("out of memory", "ALLOC_FAILED")


@contextmanager
def out_of_memory_named(remedy: str) -> Iterator[None]:
    """Raise UserError, with what to do about it, when the memory of the device is not enough."""
    try:
        yield
    except RuntimeError as error:
        is_one = isinstance(error, torch.OutOfMemoryError)
        if not is_one and not any(sign in str(error) for sign in SIGNS):
            raise
        told = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"the memory of the device is not enough: {remedy} ({told})") from error


def smaller_batch_size(batch_size: int) -> str:
    """Return the remedy where cutouts are scored."""
    if batch_size == 1:
        return "a single cutout is too much for it; take another device"
    return f"batch_size = {batch_size}: choose batch_size={batch_size // 2}"
