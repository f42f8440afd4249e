"""A training step tried before there is a GPU for it, and the memory that it will take there.

A few samples show whether the model works at all. Then the step is done on fake tensors, which have
a shape and no data: it costs neither memory nor time, whatever the batch. What lives at once is
counted as a GPU's allocator would.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import feature_width
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.errors import UserError
from lens_hpc.model.build import TRIED_BATCH, few_values_named
from lens_hpc.training import deepspeed
from lens_hpc.training.optimizer import BinaryLoss
from lens_hpc.training.trainer import scoring_batch_size

FLOAT32_BYTES = 4
ALLOCATED_TOGETHER = 512  # bytes: the allocator rounds up to them

# While a model trains, the loader makes the next batches: read, as float32, flipped, blurred, ...
TRAINING_BATCHES = 8
SCORING_BATCHES = 3
DDP_FIRST_BUCKET = 25 * 2**20  # bytes; the other buckets are the gradients

# Fitted to resnet50 on an H200, where the allocator had reserved 5.22 GB in float32 and 3.10 GB in
# bf16: the estimates are 3 % below. Workspaces are cuBLAS's and cuDNN's.
WORKSPACES = 0.25e9  # bytes
FRAGMENTATION = 0.15
CUDA_BYTES = 0.5e9  # of the driver; NCCL takes as much again


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made while it is entered, and live at once."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._seen = WeakIdKeyDictionary()
        for tensor in known:
            self._seen[tensor.untyped_storage()] = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Do an operation of torch, and count what it returned."""
        results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                self._count(result.untyped_storage())
        return results

    def _count(self, storage: torch.UntypedStorage) -> None:
        # Views share one.
        if storage in self._seen:
            return
        self._seen[storage] = True

        size = -(-storage.nbytes() // ALLOCATED_TOGETHER) * ALLOCATED_TOGETHER
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


# ---- a step is tried ----


class Trial(NamedTuple):
    """A training step that works, and the bytes beside the weights that live at once."""

    training_bytes: float
    """In a training step; gradients included."""
    scoring_bytes: float
    """While a batch of the validation split is scored."""
    why_few: str
    """Why it could be tried on a few samples only; mostly empty."""


class _Bytes(NamedTuple):
    """What lives at once beside the weights, in bytes."""

    training: float
    kept: float
    """Of the forward pass for the backward pass."""
    scoring: float


@dataclass(frozen=True)
class Step:
    """A training step as one process of a job does it."""

    settings: config.Train
    manifest: Manifest
    micro_batch_size: int
    accumulation: int
    """Micro-batches of a step."""
    world_size: int

    @property
    def few(self) -> int:
        """Samples that show whether the step works at all."""
        if self.settings.train.sync_batchnorm and self.world_size > 1:
            return TRIED_BATCH  # BatchNorm sees those of all processes
        return min(self.micro_batch_size, TRIED_BATCH)

    @property
    def scored(self) -> int:
        """Samples of a batch in validation."""
        return scoring_batch_size(self.settings.train)

    def try_on(self, model: nn.Module) -> Trial:
        """Try the step with this model: on a few samples, then on all as fake tensors.

        Raises UserError when it fails on the few. Not every model can do without data.
        """
        buffers = dict(model.named_buffers())
        few = self.few
        with self.failure_named(few):
            own: dict[str, torch.Tensor] = dict(model.named_parameters())
            own |= {name: one.clone() for name, one in buffers.items()}
            some = self._measure(model, own, few, TRIED_BATCH)

        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as fake:
                own |= buffers
                shapes = {name: fake.from_tensor(one) for name, one in own.items()}
                found = self._measure(model, shapes, self.micro_batch_size, self.scored)
            return Trial(found.training, found.scoring, "")
        except Exception as error:  # what fake tensors cannot do is told in many ways
            why_few = _one_line(error)

        # Gradients stay as large as they are, the rest grows with the samples.
        gradients = sum(one.nbytes for one in model.parameters() if one.requires_grad)
        activations = max(some.kept, some.training - gradients)
        training = gradients + activations / few * self.micro_batch_size
        scoring = some.scoring / TRIED_BATCH * self.scored
        return Trial(training, scoring, why_few)

    @contextmanager
    def failure_named(self, count: int) -> Iterator[None]:
        """Raise UserError when what is done meanwhile, with so many cutouts, fails."""
        try:
            with few_values_named(count):
                yield
        except UserError:
            raise
        except Exception as error:  # models fail in ways of their own
            raise UserError(self._describe(error, count)) from error

    def _measure(
        self, model: nn.Module, tensors: Mapping[str, torch.Tensor], trained: int, scored: int
    ) -> _Bytes:
        """Measure a training step of so many samples, and scoring so many, with these weights."""
        model.train()
        self._let_batchnorm_see_all(model)
        with LiveBytes(tensors.values()) as in_training:
            loss = self._loss(model, tensors, trained)
            kept = in_training.now

        # They are there from an earlier micro-batch, or are the buckets of DDP.
        trainable = [one for one in tensors.values() if one.requires_grad]
        gradients_stay = self.accumulation > 1 or self.world_size > 1
        with in_training:
            if gradients_stay:
                for one in trainable:
                    one.grad = torch.zeros_like(one)
            loss.backward()  # type: ignore[no-untyped-call]
            for one in trainable:
                one.grad = None

        model.eval()
        with LiveBytes(tensors.values()) as in_scoring, torch.no_grad():
            images, features, _ = self._samples(scored)
            torch.func.functional_call(model, dict(tensors), (images, features))
        return _Bytes(in_training.peak, kept, in_scoring.peak)

    def _loss(
        self, model: nn.Module, tensors: Mapping[str, torch.Tensor], count: int
    ) -> torch.Tensor:
        """Return the loss of so many samples, as `trainer.add_gradients` does."""
        settings = self.settings
        images, features, labels = self._samples(count)
        if settings.train.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)

        # A number of fp16 has as many bytes.
        mixed = settings.train.precision != "no"
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits = torch.func.functional_call(model, dict(tensors), (images, features)).float()
        losses = BinaryLoss(settings.loss)(logits, labels)
        return (losses * torch.ones_like(labels)).sum()

    def _samples(self, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return random images, features and labels."""
        manifest = self.manifest
        images = torch.rand(count, len(manifest.bands), manifest.height, manifest.width)
        features = torch.rand(count, feature_width(self.settings.model, manifest))
        return images, features, torch.ones(count)

    def _let_batchnorm_see_all(self, model: nn.Module) -> None:
        """Let BatchNorm be content with one value a channel, where the other GPUs have more."""
        if self.settings.train.sync_batchnorm and self.world_size > 1:
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _describe(self, error: Exception, count: int) -> str:
        """Say that a step of so many samples fails, and what to do."""
        model = self.settings.model
        name = f"model.backbone = {model.backbone}"
        if "." in model.name:
            name = f"model.name = {model.name}"
        return (
            f"{name}: a training step of {count} cutouts of {self.manifest.height} x "
            f"{self.manifest.width} px fails ({_one_line(error)})"
        )


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


# ---- what a GPU needs ----


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of one GPU that PyTorch will reserve, in bytes."""

    weights: float
    """Weights, AdamW's moments, the averaged copy, and what DDP or ZeRO adds."""
    step: float
    """Activations and gradients of a step, or of scoring when that takes more."""
    batches: float
    """Cutouts, in all the states in which the loader has them."""

    @property
    def total(self) -> float:
        """All of it, with workspaces and what the allocator cannot use."""
        return (self.weights + self.step + self.batches) * (1 + FRAGMENTATION) + WORKSPACES

    def __str__(self) -> str:
        rest = self.total - self.weights - self.step - self.batches
        return (
            f"about {_gigabytes(self.total)} GB of memory a GPU (an estimate: weights and "
            f"optimizer {_gigabytes(self.weights)}, activations and gradients "
            f"{_gigabytes(self.step)}, batches {_gigabytes(self.batches)}, workspaces and gaps "
            f"{_gigabytes(rest)}), and some {_gigabytes(CUDA_BYTES)} GB for CUDA itself"
        )


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f}" if size < 1e9 else f"{size / 1e9:.1f}"


def estimate_memory(step: Step, model: nn.Module, trial: Trial) -> MemoryEstimate:
    """Estimate the memory of a GPU for a training whose step was tried."""
    weights = sum(one.nbytes for one in [*model.parameters(), *model.buffers()])
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    moments = len(deepspeed.MOMENTS) * FLOAT32_BYTES * trained
    average = weights if step.settings.optim.ema_decay else 0

    shared = 0.0
    if deepspeed.is_used():
        # Each process has a part of the moments, and of a copy of the weights.
        shared = (moments + FLOAT32_BYTES * trained) / step.world_size
        shared += FLOAT32_BYTES * deepspeed.BUCKET_VALUES
    else:
        shared = moments + (DDP_FIRST_BUCKET if step.world_size > 1 else 0)

    manifest = step.manifest
    cutout = FLOAT32_BYTES * len(manifest.bands) * manifest.height * manifest.width
    training_batches = TRAINING_BATCHES * step.micro_batch_size * cutout
    scoring_batches = SCORING_BATCHES * step.scored * cutout
    in_step, batches = max(
        (trial.training_bytes, training_batches), (trial.scoring_bytes, scoring_batches), key=sum
    )
    return MemoryEstimate(weights + average + shared, in_step, batches)


# ---- when it is not enough ----


def smaller_micro_batch(settings: config.Train, micro_batch_size: int, accumulation: int) -> str:
    """Return what to do when a training step does not fit into the memory of a GPU."""
    share = micro_batch_size * accumulation
    smaller = [size for size in range(1, micro_batch_size) if share % size == 0]

    remedies = []
    if smaller:
        remedies.append(
            f"train.micro_batch_size={smaller[-1]} (train.global_batch_size = "
            f"{settings.train.global_batch_size} stays as it is)"
        )
    if settings.train.precision == "no":
        remedies.append("train.precision=bf16")
    remedies.append("a smaller model.backbone")
    return f"train.micro_batch_size = {micro_batch_size}: choose {', or '.join(remedies)}"
