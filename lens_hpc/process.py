"""Leave the process as it was: a notebook goes on with its own settings after a call.

What belongs to Python is kept by `unchanged`. What belongs to torch and OpenCV is kept by
`torch_unchanged`, which imports torch and so is entered only by what needs torch anyway.
"""

import os
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ends_with_command = False
"""Whether this process is the terminal's: nothing in it needs to be as it was."""


@contextmanager
def unchanged() -> Iterator[None]:
    """Restore environment variables, warning filters, and Python's and NumPy's random states."""
    import numpy as np  # not for a process that only shows --help

    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002 - what other libraries may draw from
    try:
        with environment_unchanged(), warnings.catch_warnings():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def environment_unchanged() -> Iterator[None]:
    """Restore environment variables."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def let_threads_sleep() -> None:
    """Let the threads of torch that wait for each other sleep soon. To call before it is imported.

    GNU OpenMP lets them try 300,000 times first, for some milliseconds. Where others use the cores,
    too, that keeps the very thread from running for which they wait: a step then takes ten times as
    long, and more (benchmarks/threads.py). After 1000 times, nothing is lost on idle cores.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = "1000"


@contextmanager
def torch_unchanged() -> Iterator[None]:
    """Restore torch's random states, threads and flags, and OpenCV's threads."""
    import torch

    random_state = torch.get_rng_state()
    threads = torch.get_num_threads()
    default_dtype = torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    # A process that has not used a GPU yet has no state there to keep.
    uses_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpu_states = torch.cuda.get_rng_state_all() if uses_gpu else []
    cv2 = sys.modules.get("cv2")
    opencv_threads = cv2.getNumThreads() if cv2 else 0

    try:
        with _backend_flags_unchanged():
            yield
    finally:
        torch.set_rng_state(random_state)
        if gpu_states:
            torch.cuda.set_rng_state_all(gpu_states)
        torch.set_num_threads(threads)
        torch.set_default_dtype(default_dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if cv2:
            cv2.setNumThreads(opencv_threads)


@contextmanager
def float32_kept(tf32: bool = False) -> Iterator[None]:
    """Let float32 products and convolutions on a GPU keep all their bits meanwhile.

    With `tf32` they keep 10 bits of the mantissa, which is torch's own choice for convolutions.
    """
    import torch

    backends: Any = torch.backends
    with _backend_flags_unchanged():
        for owner in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            owner.fp32_precision = "tf32" if tf32 else "ieee"
        yield


@contextmanager
def _backend_flags_unchanged() -> Iterator[None]:
    """Restore what torch's backends were told about precision and about choosing algorithms."""
    import torch

    backends: Any = torch.backends
    flags = [
        (backends.cudnn, "benchmark"),
        (backends.cudnn, "deterministic"),
        (backends.cuda.matmul, "fp32_precision"),
        (backends.cudnn.conv, "fp32_precision"),
        (backends.cudnn.rnn, "fp32_precision"),
    ]
    before = [getattr(owner, name) for owner, name in flags]
    try:
        yield
    finally:
        # Only what changed is written, because torch refuses some mixtures of old and new flags.
        for (owner, name), value in zip(flags, before, strict=True):
            if getattr(owner, name) != value:
                setattr(owner, name, value)
