"""Memory that batches lie in, and copies to a GPU that nothing waits for.

A copy to a GPU is asynchronous only if it comes from memory that is pinned: that the system keeps
where it is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from lens_hpc.logs import logger

ALIGNED_BYTES = 16


def copy_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the CPU on a device; a GPU copies it while the caller goes on."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class PackedTensors:
    """Tensors by name in one piece of memory, `whole`, so that one copy moves them all.

    They have the shapes (B, ...) and the types of those in `like`.
    """

    def __init__(
        self,
        like: Mapping[str, torch.Tensor],
        device: torch.device | None = None,
        pinned: bool = False,
    ) -> None:
        size = sum(_aligned(tensor.nbytes) for tensor in like.values())
        self.whole = torch.empty(size, dtype=torch.uint8, device=device, pin_memory=pinned)

        self.tensors: dict[str, torch.Tensor] = {}
        begin = 0
        for name, tensor in like.items():
            part = self.whole[begin : begin + tensor.nbytes]
            self.tensors[name] = part.view(tensor.dtype).view(tensor.shape)
            begin += _aligned(tensor.nbytes)

    def first(self, count: int) -> dict[str, torch.Tensor]:
        """Return the first `count` samples of all tensors."""
        return {name: first_samples(tensor, count) for name, tensor in self.tensors.items()}


def first_samples(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """Return the first `count` samples of a tensor (B, ...), which mostly are all."""
    return tensor if count == len(tensor) else tensor[:count]


@contextmanager
def memory_pinned(tensor: torch.Tensor) -> Iterator[None]:
    """Pin memory that is there already, as that which is shared with processes."""
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    address = tensor.data_ptr()
    # What it returns is true also for success.
    failed = int(runtime.cudaHostRegister(address, tensor.nbytes, 0))
    if failed:
        logger.warning("shared memory cannot be pinned (CUDA: %s): copies will block", failed)
    try:
        yield
    finally:
        if not failed:
            runtime.cudaHostUnregister(address)


def _aligned(size: int) -> int:
    """Return a number of bytes after which any type may begin."""
    return -(-size // ALIGNED_BYTES) * ALIGNED_BYTES
