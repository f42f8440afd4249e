"""The parts of a training, put together; and its step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from timm.layers.norm_act import convert_sync_batchnorm
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from lens_hpc import config
from lens_hpc.dataset.feature_scaling import doubts
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.loading.augmentation import make_augmentation
from lens_hpc.loading.loader import Batch, Loader
from lens_hpc.loading.order import Order, Share, micro_batches
from lens_hpc.loading.samples import Samples
from lens_hpc.logs import logger
from lens_hpc.model.build import (
    TRIED_BATCH,
    build_initial_model,
    build_model,
    find_unused,
    without_weights,
)
from lens_hpc.model.fusion import FusionModel
from lens_hpc.training import deepspeed
from lens_hpc.training.accelerator import bare_model
from lens_hpc.training.long_wait import waited_for
from lens_hpc.training.optimizer import BinaryLoss, LearningRate, make_optimizer
from lens_hpc.training.training_data import open_splits

SCORING_BATCH = 256
# A forward pass alone takes less memory than training by at least this factor.
SCORING_PER_TRAINING = 4


@dataclass
class Trainer:
    """Everything that an epoch needs. As a context manager, it ends the loaders when it is left."""

    settings: config.Train
    accelerator: Accelerator
    manifest: Manifest
    order: Order
    train_loader: Loader
    validation_loader: Loader
    model: Any
    ema: ModelEmaV3 | None
    """Its averaged copy, where the settings ask for one."""
    loss: BinaryLoss
    optimizer: Any
    rate: LearningRate
    accumulation: int
    """Micro-batches of a step on each process."""
    replica: nn.Module | None = None
    """A complete copy, where ZeRO 3 cuts the model."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # In reverse: each gives back the threads that it found.
        self.validation_loader.close()
        self.train_loader.close()

    def whole_model(self) -> nn.Module:
        """Return what is validated and exported: the averaged model, where there is one.

        All processes must call it.
        """
        model = bare_model(self.model)
        if self.ema:
            model = self.ema.module
        if not deepspeed.is_cut(model):
            return model

        if self.replica is None:
            settings = self.settings
            bare = without_weights(settings.model)
            self.replica = build_model(bare, self.manifest, settings.code)
            self.replica.to(self.accelerator.device)
        self.replica.load_state_dict(deepspeed.whole_weights(model))
        return self.replica

    def shares(self, epoch: int, first_step: int = 0) -> Iterator[Share]:
        """Yield this process's micro-batches of an epoch."""
        rank = self.accelerator.process_index
        world_size = self.accelerator.num_processes
        for share in self.order.shares(epoch, rank, world_size, first_step):
            yield from share.split(self.accumulation)


# ---- making one ----


def make_trainer(settings: config.Train, accelerator: Accelerator, manifest: Manifest) -> Trainer:
    """Put the parts together for the dataset that `manifest` describes.

    All processes must call it. Raises UserError for what cannot work.
    """
    loop = settings.train
    micro_batch_size, accumulation = micro_batches(
        loop.global_batch_size, accelerator.num_processes, loop.micro_batch_size
    )

    train_samples, validation_samples = open_samples(settings, accelerator, manifest)
    if accelerator.is_main_process:
        for doubt in doubts(settings.model, manifest):
            logger.warning(doubt)
    order = make_order(settings, train_samples.split)

    # Labels and weights may come from a slow disk, and DDP is the first that all make together.
    with waited_for(accelerator, "making the model"):
        model: Any = prepare_model(settings, manifest, accelerator, micro_batch_size)
    fused = accelerator.device.type == "cuda" and not deepspeed.is_used()
    optimizer: Any = make_optimizer(model, settings.optim, fused)
    rate = LearningRate(optimizer, settings.schedule, settings.optim)
    # Optimizer and average are made of the bare model, which Accelerate then wraps.
    ema = make_average(settings.optim, model)
    own_forward = vars(model).get("forward")
    model, optimizer = accelerator.prepare(model, optimizer)
    unwrap_forward(bare_model(model), own_forward)
    if ema and deepspeed.is_cut(bare_model(model)):
        raise UserError(
            "optim.ema_decay: cannot average weights that ZeRO 3 cuts; choose ZeRO 2, or null"
        )

    # Whatever is drawn from now on differs between processes.
    set_seed(loop.seed, device_specific=True)

    workers = settings.data.workers
    device = accelerator.device
    return Trainer(
        settings=settings,
        accelerator=accelerator,
        manifest=manifest,
        order=order,
        train_loader=Loader(train_samples, micro_batch_size, workers, device),
        validation_loader=Loader(validation_samples, scoring_batch_size(loop), workers, device),
        model=model,
        ema=ema,
        loss=BinaryLoss(settings.loss),
        optimizer=optimizer,
        rate=rate,
        accumulation=accumulation,
    )


def open_samples(
    settings: config.Train, accelerator: Accelerator, manifest: Manifest
) -> tuple[Samples, Samples]:
    """Open the samples to train on and those to validate on. All processes must call it."""
    data, model = settings.data, settings.model
    splits = open_splits(settings, manifest, accelerator)
    augmentation = make_augmentation(settings.augment, settings.train.seed, settings.code)
    return (
        Samples(
            splits.train,
            manifest,
            data.image_scale,
            augmentation,
            model,
            soft_labels=settings.loss.soft_labels,
        ),
        Samples(
            splits.validation,
            manifest,
            data.image_scale,
            model=model,
            verify=data.verify != "full",
        ),
    )


def scoring_batch_size(settings: config.Loop) -> int:
    """Return the samples of a batch in validation, which is the same on any number of processes.

    Whoever sets a small micro-batch has large cutouts, or a small memory.
    """
    if settings.micro_batch_size is None:
        return SCORING_BATCH
    return min(SCORING_BATCH, SCORING_PER_TRAINING * settings.micro_batch_size)


def make_order(settings: config.Train, split: Split) -> Order:
    """Make the order of the training samples.

    Raises UserError when an epoch would have no step.
    """
    data = settings.data
    labels = None
    if data.balance == "oversample":
        labels = split.take("labels", np.arange(len(split)))

    order = Order(
        rows=len(split),
        global_batch_size=settings.train.global_batch_size,
        seed=settings.train.seed,
        blocks=data.shuffle == "blocks",
        keep_last=data.last == "keep",
        labels=labels,
    )
    assert order.steps  # raises for itself
    return order


def prepare_model(
    settings: config.Train, manifest: Manifest, accelerator: Accelerator, micro_batch_size: int
) -> nn.Module:
    """Make the model with its initial weights, the same on all processes, on their device."""
    loop = settings.train
    tried = min(micro_batch_size, TRIED_BATCH)
    several_gpus = accelerator.num_processes > 1 and accelerator.device.type == "cuda"
    if loop.sync_batchnorm and several_gpus:
        tried = TRIED_BATCH  # BatchNorm sees those of all processes
    trial = build_model(without_weights(settings.model), manifest, settings.code)
    with accelerator.autocast():
        unused = find_unused(trial.to(accelerator.device), settings.model, manifest, tried)

    set_seed(loop.seed)
    model = build_initial_model(settings, manifest).to(accelerator.device)
    if unused:
        leave_alone(model, unused, accelerator)
    if loop.sync_batchnorm:
        model = synchronise_batchnorm(model, accelerator)

    # DeepSpeed sends weights as plain rows of bytes. Images alone that are so do as well: a
    # convolution takes its layout from them.
    if loop.channels_last and not deepspeed.is_used():
        model = model.to(memory_format=torch.channels_last)
    if loop.compile:
        model.compile()  # in place, so that the names of its weights stay
    return model


def leave_alone(model: nn.Module, unused: list[str], accelerator: Accelerator) -> None:
    """Keep processes from waiting for gradients that never come.

    Parameters of our own model that no logit depends on are frozen. A model of one's own may need
    them for other samples, so DDP then looks after each step which were used.
    """
    told = "%d tensors are left out of a step, at least for some samples: %s"
    if type(model) is FusionModel:
        told = "%d tensors stay as they are, as no logit depends on them: %s"
        for name in unused:
            model.get_parameter(name).requires_grad_(False)
    elif accelerator.ddp_handler:
        accelerator.ddp_handler.find_unused_parameters = True

    if accelerator.is_main_process:
        logger.info(told, len(unused), ", ".join(unused))


def synchronise_batchnorm(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    """Let BatchNorm normalise over the batches of all GPUs; on CPUs, warn that torch cannot."""
    if accelerator.device.type == "cuda":
        # torch's own converter drops the activations within timm's BatchNormAct2d layers.
        return convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    if accelerator.is_main_process:
        logger.warning(
            "train.sync_batchnorm: torch has it for GPUs alone; "
            "each process normalises its own batches"
        )
    return model


def unwrap_forward(model: nn.Module, own_forward: Any) -> None:
    """Undo that Accelerate lets every forward pass be in mixed precision.

    Ours is, in training alone (`add_gradients`): validation is in float32, as evaluation is.
    `own_forward` is what the model had in place of its class's method, mostly nothing.
    """
    for name in ("_original_forward", "forward"):
        vars(model).pop(name, None)
    if own_forward is not None:
        model.forward = own_forward


def make_average(settings: config.Optim, model: nn.Module) -> ModelEmaV3 | None:
    """Make the moving average of a model's weights, if the settings ask for one.

    The model must be on its device already: timm then updates all weights by a few calls.
    """
    if not settings.ema_decay:
        return None
    return ModelEmaV3(model, settings.ema_decay, use_warmup=True)


# ---- its step ----


class StepResult(NamedTuple):
    """What one process knows of a step that it took part in."""

    loss: torch.Tensor
    """This process's part of the mean loss, detached."""
    draws: np.ndarray
    """(share,) int64: which samples it saw (loading/order.py)."""


def train_step(trainer: Trainer, step: int, batches: Iterator[Batch]) -> StepResult:
    """Do one optimizer step, the `step`th of its run, on the next micro-batches.

    The mean over the processes of their parts of the loss is the mean over the samples of the step,
    and so are the gradients.
    """
    accelerator = trainer.accelerator
    order = trainer.order
    samples = order.samples_of(step % order.steps)
    scale = accelerator.num_processes / samples

    total = torch.zeros((), device=accelerator.device)
    draws = []
    for number in range(trainer.accumulation):
        batch = next(batches)
        is_last = number == trainer.accumulation - 1
        total += add_gradients(trainer, batch, scale, is_last)
        draws.append(batch.draws)

    update_weights(trainer)
    if trainer.ema:
        trainer.ema.update(bare_model(trainer.model), step=step)
    return StepResult(total, np.concatenate(draws))


def add_gradients(trainer: Trainer, batch: Batch, scale: float, is_last: bool) -> torch.Tensor:
    """Add the gradients of one micro-batch, and return its detached loss.

    Each sample's loss is multiplied by `scale`. The last micro-batch of a step makes the processes
    add up their gradients.
    """
    images = batch.images
    if trainer.settings.train.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)

    uses_deepspeed = deepspeed.is_used()
    gradients_stay_here: AbstractContextManager[Any] = nullcontext()
    if not is_last and not uses_deepspeed:
        gradients_stay_here = trainer.accelerator.no_sync(trainer.model)

    with gradients_stay_here:
        with trainer.accelerator.autocast():
            logits = trainer.model(images, batch.features).float()
        losses = trainer.loss(logits, batch.labels)
        loss = (losses * batch.weights).sum() * scale
        if uses_deepspeed:
            trainer.model.set_gradient_accumulation_boundary(is_last)
            trainer.model.backward(loss, scale_wrt_gas=False)
        else:
            trainer.accelerator.backward(loss)
    return loss.detach()


def update_weights(trainer: Trainer) -> None:
    """Let the optimizer use the gradients, and clear them."""
    if deepspeed.is_used():
        trainer.model.step()  # it clips, steps and clears
        return

    largest_norm = trainer.settings.optim.gradient_clip
    if largest_norm:
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), largest_norm)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def average_statistics(accelerator: Accelerator, model: nn.Module, ema: ModelEmaV3 | None) -> None:
    """Give all processes the mean of their BatchNorm statistics.

    All then validate and save the same model. All processes must call it.
    """
    modules = [bare_model(model)]
    if ema:
        modules.append(ema.module)

    for module in modules:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, reduction="mean"))
