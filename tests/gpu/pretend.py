"""A CUDA GPU that is not there, so that the code for GPUs runs on any machine.

    with pretend_gpu() as gpu:
        batch = next(loader(0, shares))  # a Loader on GPU
        logits = model(batch.images, batch.features)
    assert gpu.faults() == []

Tensors on `cuda` have a shape, a type and a device, but no values (torch's FakeTensorMode); those
on the CPU are real. Whatever is launched is written down with the line of ours that did it: every
op, every copy and whether it blocks, and every wait of the host. What comes back is zeros.

A copy blocks unless it is asked to be asynchronous *and* the memory on the CPU is pinned. A
backward pass only gives every weight a gradient, and nothing tells whether streams wait for each
other. Other threads see the stand-ins for torch.cuda, but no fake tensors.
"""

import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode_temporarily
from torch.utils._pytree import tree_leaves

GPU = torch.device("cuda", 0)

ROOT = Path(__file__).parents[2]
LIBRARIES = (str(Path(torch.__file__).parents[1]), __file__)
"""Files that are not meant by "where": installed packages, and this one."""

COPIES = ("_to_copy", "copy_")
ALLOCATIONS = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")
VALUES_WANTED = ("_local_scalar_dense", "equal", "is_nonzero")
SIZES_UNKNOWN = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive")
INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
MASKS = (torch.bool, torch.uint8)


@dataclass(frozen=True)
class Call:
    """Something that was launched, and by which line of this repository."""

    what: str
    place: str

    def __str__(self) -> str:
        return f"{self.what} at {self.place}"


class PretendGpu(TorchDispatchMode):
    """Writes down what happens on the GPU; `pretend_gpu` makes one."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[Call] = []
        """What starts work on the GPU: ops and copies, but neither views nor allocations."""
        self.dispatched = 0
        """Ops with a tensor on the GPU, views and allocations included."""
        self.copies: list[Call] = []
        """Copies between CPU and GPU, in either direction."""
        self.blocking_copies: list[Call] = []
        self.waits: list[Call] = []
        """Where this thread waits until the GPU has computed something."""
        self.mixed: list[Call] = []
        """Ops on tensors of the CPU and of the GPU together."""
        self.pinned: dict[int, int] = {}
        """Begin and end of the memory on the CPU that counts as pinned."""
        self._thread = threading.get_ident()

    def faults(self) -> list[str]:
        """Return what should not happen: mixed devices, waits and blocking copies."""
        mixed = [f"mixed devices: {call}" for call in self.mixed]
        waits = [f"the host waits: {call}" for call in self.waits]
        blocking = [f"blocks: {call}" for call in self.blocking_copies]
        return mixed + waits + blocking

    def forget(self) -> None:
        """Forget what happened so far, for instance what is done only once."""
        self.dispatched = 0
        for calls in (self.launched, self.copies, self.blocking_copies, self.waits, self.mixed):
            calls.clear()

    def unrecorded(self) -> AbstractContextManager[Any]:
        """Write nothing down meanwhile, which takes time; nothing may be computed on the CPU."""
        return _pop_mode_temporarily()

    # ---- ops ----

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Have an op done on real tensors or on fake ones, and write it down."""
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled() and _is_composite(func):
            with self:  # elsewhere, autograd has taken it apart already
                return func.decompose(*args, **kwargs)

        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        on_cpu = [tensor for tensor in tensors if not isinstance(tensor, FakeTensor)]
        devices = [leaf.type for leaf in leaves if isinstance(leaf, torch.device)]
        if len(on_cpu) == len(tensors) and "cuda" not in devices:
            with unset_fake_temporarily():
                return func(*args, **kwargs)

        if func.namespace == "prim":  # only asks on which device a tensor is
            return func(*args, **kwargs)

        self.dispatched += 1
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name in COPIES and (on_cpu or "cpu" in devices):
            return self._copy(func, args, kwargs)
        if any(tensor.dim() for tensor in on_cpu):
            self._note(self.mixed, name)

        if name in VALUES_WANTED:
            self._note(self.waits, name)
            return _zero(args[0].dtype) if name == "_local_scalar_dense" else True
        if name in SIZES_UNKNOWN:
            self._note(self.waits, name)  # what follows is an error of FakeTensorMode
        if name in INDEXING and any(_is_mask(index) for index in tree_leaves(args[1])):
            self._note(self.waits, f"{name} by a mask")

        if not func.is_view and name not in ALLOCATIONS:
            self._note(self.launched, name)
        return func(*args, **kwargs)

    def _copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Write down a copy between CPU and GPU, and do what can be done of it."""
        in_place = func.name().startswith("aten::copy_")
        source = args[1] if in_place else args[0]
        to_gpu = not isinstance(source, FakeTensor)
        asynchronous = kwargs.get("non_blocking", False) or (in_place and args[2:] == (True,))
        memory = source if to_gpu else (args[0] if in_place else None)

        direction = "to" if to_gpu else "from"
        text = f"copy {direction} the GPU, {tuple(source.shape)} {source.dtype}"
        self._note(self.copies, text)
        self._note(self.launched, text)
        if not (asynchronous and self.is_pinned(memory)):
            self._note(self.blocking_copies, text)

        if to_gpu:
            return func(*args, **kwargs)
        with unset_fake_temporarily():
            if in_place:
                return args[0].zero_()
            return torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)

    def _note(self, calls: list[Call], what: str) -> None:
        calls.append(Call(what, _place()))

    # ---- pinned memory ----

    def pin(self, address: int, size: int, _flags: int = 0) -> "CudaStatus":
        """Take memory for pinned, as cudaHostRegister does."""
        self.pinned[address] = address + size
        return CudaStatus()

    def unpin(self, address: int) -> "CudaStatus":
        """Undo `pin`, as cudaHostUnregister does."""
        del self.pinned[address]
        return CudaStatus()

    def pin_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Take the memory of a tensor for pinned, as long as it is there, and return the tensor."""
        storage = tensor.untyped_storage()
        if storage.nbytes():
            self.pin(storage.data_ptr(), storage.nbytes())
            weakref.finalize(storage, self.unpin, storage.data_ptr())
        return tensor

    def is_pinned(self, tensor: torch.Tensor | None) -> bool:
        """Return whether the memory of a tensor counts as pinned."""
        if tensor is None:
            return False
        address = tensor.data_ptr()
        inside = (begin <= address < end for begin, end in self.pinned.items())
        return not tensor.numel() or any(inside)

    # ---- streams and events ----

    def synchronize(self, *_: Any) -> None:
        """Write down that the host waits for all that was launched."""
        if threading.get_ident() == self._thread:
            self._note(self.waits, "synchronize")

    def event(self, *_: Any, **__: Any) -> SimpleNamespace:
        """Make an event; it has happened as soon as other work was launched after it."""
        launched_before = len(self.launched)

        def synchronize() -> None:
            if launched_before == len(self.launched):
                self.synchronize()

        def record(stream: Any = None) -> None:
            nonlocal launched_before
            launched_before = len(self.launched)

        return SimpleNamespace(record=record, synchronize=synchronize, query=lambda: True)

    def stream(self, *_: Any, priority: int = 0, **__: Any) -> SimpleNamespace:
        """Make a stream."""
        return SimpleNamespace(
            priority=priority,
            record_event=self.event,
            wait_event=lambda event: None,
            wait_stream=lambda stream: None,
            synchronize=self.synchronize,
        )


class CudaStatus:
    """What CUDA's functions return for success, as torch 2.14 has it: 0, and yet true."""

    def __int__(self) -> int:
        return 0


@contextmanager
def pretend_gpu() -> Iterator[PretendGpu]:
    """Let there be a GPU meanwhile, and yield what writes down what it is given to do."""
    gpu = PretendGpu()
    with cuda_replaced(gpu), FakeTensorMode(allow_non_fake_inputs=True), gpu:
        yield gpu


@contextmanager
def cuda_replaced(gpu: PretendGpu) -> Iterator[None]:
    """Put stand-ins in the place of what torch asks a driver for."""
    empty = torch.empty
    callers_stream = gpu.stream()

    def empty_perhaps_pinned(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        tensor = empty(*args, **kwargs)
        return gpu.pin_tensor(tensor) if pin_memory else tensor

    runtime = SimpleNamespace(cudaHostRegister=gpu.pin, cudaHostUnregister=gpu.unpin)
    stand_ins = [
        (torch, "empty", empty_perhaps_pinned),
        (torch, "Generator", _GeneratorOnCpu),
        (torch.Tensor, "pin_memory", lambda tensor, *_: gpu.pin_tensor(tensor.clone())),
        (torch.Tensor, "is_pinned", lambda tensor, *_: gpu.is_pinned(tensor)),
        (torch.Tensor, "record_stream", lambda tensor, stream: None),
        (torch.Tensor, "backward", _give_gradients),
        (torch.cuda, "Stream", gpu.stream),
        (torch.cuda, "Event", gpu.event),
        (torch.cuda, "stream", lambda stream: nullcontext()),
        (torch.cuda, "current_stream", lambda *_: callers_stream),
        (torch.cuda, "synchronize", gpu.synchronize),
        (torch.cuda, "cudart", lambda: runtime),
        (torch.cuda, "is_bf16_supported", lambda *_, **__: True),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
    ]
    with ExitStack() as stack:
        for owner, name, stand_in in stand_ins:
            stack.enter_context(mock.patch.object(owner, name, stand_in))
        yield


class _GeneratorOnCpu(torch.Generator):
    """Random numbers of the CPU, whatever the device that they are wanted for."""

    def __new__(cls, device: Any = None) -> "_GeneratorOnCpu":
        return super().__new__(cls)

    def __init__(self, device: Any = None) -> None:
        super().__init__()


def _give_gradients(loss: torch.Tensor, *_: Any, **__: Any) -> None:
    """Give every weight that a loss depends on a gradient; autograd itself needs a real GPU."""
    seen = set()
    left = [loss.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        left += [function for function, _ in node.next_functions]
        weight = getattr(node, "variable", None)
        if weight is not None and weight.grad is None:
            weight.grad = torch.empty_like(weight)


def _is_composite(func: Any) -> bool:
    """Return whether an op is made of others on every device."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return func.namespace != "prim" and func.has_kernel_for_dispatch_key(key)


def _place() -> str:
    """Return the file and line of the innermost code that is not a library's."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return f"{name}:{frame.f_lineno}"


def _zero(dtype: torch.dtype) -> float | bool:
    """Return zero as a number of Python's."""
    if dtype == torch.bool:
        return False
    return 0.0 if dtype.is_floating_point else 0


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in MASKS
