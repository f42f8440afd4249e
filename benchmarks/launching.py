"""What a training step costs the thread that launches it, beside the model.

    python benchmarks/launching.py [steps=200]

That thread asks our loader for micro-batches of 512 cutouts of 3 x 64 x 64, two threads of which
read and draw, and gives them to a model that does nothing. Printed are the ops that it launches a
step, copies and all, and the CPU time that it takes (`time.thread_time`, median).

- "fake GPU": one that is not there (tests/gpu/pretend.py) and answers at once, out of a record of
  what each op gave before. Torch, Python and our loader take their time, driver and kernels none.
- "fake tensors": the same where FakeTensorMode works out every answer, and takes most of the time.
- "GPU": a real one, where there is one.
"""

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from loader import write_shards  # noqa: E402
from loader_peers import IMAGE, N_FEATURES  # noqa: E402

from lens_hpc import config  # noqa: E402
from lens_hpc.dataset.split import Split  # noqa: E402
from lens_hpc.loading.augmentation import make_augmentation  # noqa: E402
from lens_hpc.loading.loader import Batch, Loader  # noqa: E402
from lens_hpc.loading.order import Order  # noqa: E402
from lens_hpc.loading.samples import Samples  # noqa: E402
from tests.gpu.pretend import GPU, pretend_gpu  # noqa: E402

BATCH = 512
ROWS = 4 * BATCH
WORKERS = 2
WARM_UP_STEPS = 6
PLACES = 2  # the loader's memory on the GPU, in turn
LIMIT_MS = 2.0

AUGMENTATIONS = {
    "author's": config.Augment(engine="torch"),
    "and turns, shifts": config.Augment(engine="torch", rotate90=0.5, shift=3),
    "and noise": config.Augment(engine="torch", rotate90=0.5, shift=3, noise=0.01),
}


class Recorded(TorchDispatchMode):
    """Answers each op with what it gave before."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[Any, Any]] = []
        self.position: int | None = None
        """Where it is in its answers; None while they are recorded."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer, or have the op done and record what it gives."""
        if self.position is None:
            result = func(*args, **(kwargs or {}))
            self.answers.append((func, result))
            return result

        known, result = self.answers[self.position]
        assert func is known, "a step is not like the one before"
        self.position = (self.position + 1) % len(self.answers)
        return result


@contextmanager
def endless_batches(split: Split, settings: config.Augment) -> Iterator[Iterator[Batch]]:
    """Yield the batches of epoch after epoch, on the GPU."""
    augmentation = make_augmentation(settings, seed=0)
    samples = Samples(split, split.manifest, "cutout", augmentation)
    order = Order(len(split), BATCH)
    epochs = (order.shares(epoch, 0, 1) for epoch in itertools.count())

    with Loader(samples, BATCH, WORKERS, GPU) as loader:
        batches = loader(0, itertools.chain.from_iterable(epochs))
        for _ in range(WARM_UP_STEPS):
            next(batches)
        yield batches
        batches.close()


def milliseconds(batches: Iterator[Batch], steps: int) -> float:
    """Return the CPU time of this thread for a batch."""
    times = []
    for _ in range(steps):
        began = time.thread_time()
        next(batches)
        times.append(time.thread_time() - began)
    return 1e3 * statistics.median(times)


def on_fake_tensors(split: Split, settings: config.Augment, steps: int) -> tuple[int, int, float]:
    """Return ops and copies a step, and milliseconds."""
    with pretend_gpu() as gpu, endless_batches(split, settings) as batches:
        gpu.forget()
        next(batches)
        launched, copies = len(gpu.launched), len(gpu.copies)
        assert gpu.faults() == []
        with gpu.unrecorded():
            return launched, copies, milliseconds(batches, steps)


def on_fake_gpu(split: Split, settings: config.Augment, steps: int) -> float:
    """Return milliseconds where every op is answered from a record."""
    # Otherwise autograd would look at the answers, and find that it knows them.
    without_autograd = torch._C._AutoDispatchBelowADInplaceOrView()
    with (
        pretend_gpu() as gpu,
        endless_batches(split, settings) as batches,
        gpu.unrecorded(),
        without_autograd,
        Recorded() as recorded,
    ):
        for _ in range(PLACES):
            next(batches)
        recorded.position = 0
        return milliseconds(batches, steps)


def main(steps: int) -> None:
    """Print a line for each augmentation."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((ROWS, *IMAGE), dtype=np.float32)
    features = rng.standard_normal((ROWS, N_FEATURES), dtype=np.float32)
    labels = rng.integers(0, 2, ROWS)

    with tempfile.TemporaryDirectory() as name:
        write_shards(Path(name), images, features, labels)
        split = Split(Path(name) / "shards", "train")

        print(f"ms of the launching thread a step of {BATCH}; at most {LIMIT_MS} is wanted")
        print(f"{'':<20}{'ops':>5}{'copies':>8}{'fake GPU':>10}{'fake tensors':>14}{'GPU':>8}")
        for kind, settings in AUGMENTATIONS.items():
            launched, copies, fake = on_fake_tensors(split, settings, steps)
            found = f"{on_fake_gpu(split, settings, steps):>10.2f}{fake:>14.2f}"
            if torch.cuda.is_available():
                with endless_batches(split, settings) as batches:
                    found += f"{milliseconds(batches, steps):>8.2f}"
            print(f"{kind:<20}{launched:>5}{copies:>8}{found}")


if __name__ == "__main__":
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    main(int(options.get("steps", 200)))
