"""The parts of a training, put together; and its step."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from timm.utils.model_ema import ModelEmaV3
from torch import nn

from lens_hpc import UserError, config
from lens_hpc.data.augment import Augmentation
from lens_hpc.data.loader import Batch, Loader, Samples
from lens_hpc.data.order import Order, Share, micro_batches
from lens_hpc.data.reader import Split
from lens_hpc.data.shards import Manifest
from lens_hpc.engine import optim, weights, zero
from lens_hpc.engine.dataset import open_splits
from lens_hpc.logs import logger

SCORING_BATCH = 256


@dataclass
class Trainer:
    """Everything that an epoch needs."""

    settings: config.Train
    accelerator: Accelerator
    order: Order
    training: Loader
    validation: Loader
    model: Any
    ema: ModelEmaV3 | None
    loss: optim.Loss
    optimizer: Any
    rate: optim.LearningRate
    accumulation: int
    """Micro-batches of a step on each process."""
    replica: nn.Module | None = None
    """Whole, where ZeRO 3 cuts the model."""

    @property
    def manifest(self) -> Manifest:
        """Of the dataset."""
        return self.training.samples.training

    def whole_model(self) -> nn.Module:
        """What is validated and exported: the averaged model, where there is one. All processes must call it."""
        model: nn.Module = self.ema.module if self.ema else self.accelerator.unwrap_model(self.model)
        if not zero.is_cut(model):
            return model
        if self.replica is None:
            self.replica = weights.make_model(self.settings.model.model_copy(update={"weights": "none"}), self.manifest)
            self.replica.to(self.accelerator.device)
        self.replica.load_state_dict(zero.whole_weights(model))
        return self.replica

    def shares(self, epoch: int, first_step: int = 0) -> Iterator[Share]:
        """This process's micro-batches of an epoch."""
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        for share in self.order.shares(epoch, rank, world_size, first_step):
            yield from share.split(self.accumulation)


def make_trainer(settings: config.Train, accelerator: Accelerator) -> Trainer:
    """Put the parts together; UserError for what cannot work."""
    data, loop = settings.data, settings.train
    micro, accumulation = micro_batches(loop.global_batch_size, accelerator.num_processes, loop.micro_batch_size)
    splits = open_splits(data, loop.global_batch_size, accelerator)
    order = make_order(settings, splits["train"])
    manifest = splits["train"].manifest
    training = Samples(splits["train"], manifest, data.image_scale, Augmentation(settings.augment, loop.seed))
    validation = Samples(splits["val"], manifest, data.image_scale)
    model = make_model(settings, manifest, accelerator)
    optimizer = optim.make_optimizer(model, settings.optim)
    rate = optim.LearningRate(optimizer, settings.schedule, settings.optim)
    decay = settings.optim.ema_decay
    ema = ModelEmaV3(model, decay, use_warmup=True, device=accelerator.device) if decay else None
    model, optimizer = accelerator.prepare(model, optimizer)
    if ema and zero.is_cut(accelerator.unwrap_model(model)):
        raise UserError("optim.ema_decay: cannot average weights that ZeRO 3 cuts; choose ZeRO 2, or null")
    set_seed(loop.seed, device_specific=True)  # whatever is drawn from now on differs between processes
    return Trainer(
        settings,
        accelerator,
        order,
        Loader(training, micro, data.workers, accelerator.device),
        Loader(validation, SCORING_BATCH, data.workers, accelerator.device),
        model,
        ema,
        optim.Loss(settings.loss),
        optimizer,
        rate,
        accumulation,
    )


def make_model(settings: config.Train, manifest: Manifest, accelerator: Accelerator) -> nn.Module:
    """The model with its initial weights, the same on all processes, as the settings want it for the device."""
    loop = settings.train
    set_seed(loop.seed)
    model: nn.Module = weights.make_model(settings.model, manifest)
    if loop.sync_batchnorm and accelerator.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    elif loop.sync_batchnorm and accelerator.is_main_process:
        logger.warning("train.sync_batchnorm: torch has it for GPUs alone; each process normalises its own batches")
    if loop.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if loop.tf32:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if loop.compile:
        model.compile()  # in place, so that the names of its weights stay
    return model


def make_order(settings: config.Train, split: Split) -> Order:
    """The order of the training samples; UserError when an epoch would have no step."""
    data, loop = settings.data, settings.train
    labels = split.take("labels", np.arange(len(split))) if data.balance == "oversample" else None
    order = Order(len(split), loop.global_batch_size, loop.seed, data.shuffle == "blocks", data.last == "keep", labels)
    assert order.steps
    return order


def train_step(trainer: Trainer, step: int, batches: Iterator[Batch]) -> tuple[torch.Tensor, np.ndarray]:
    """One optimizer step, the `step`th of its run, on the next micro-batches.

    Returns this process's part of the mean loss, detached, and which samples it saw. The mean over the processes of
    their parts is the mean over the samples of the step, and so are the gradients.
    """
    accelerator, order, loop, with_zero = trainer.accelerator, trainer.order, trainer.settings.train, zero.is_used()
    scale = accelerator.num_processes / order.samples_of(step % order.steps)
    total, draws = torch.zeros((), device=accelerator.device), []
    for number in range(1, trainer.accumulation + 1):
        batch = next(batches)
        images = batch.images.contiguous(memory_format=torch.channels_last) if loop.channels_last else batch.images
        last = number == trainer.accumulation
        with nullcontext() if last or with_zero else accelerator.no_sync(trainer.model):
            losses = trainer.loss(trainer.model(images, batch.features), batch.labels)
            loss = (losses * batch.weights).sum() * scale
            if with_zero:
                trainer.model.set_gradient_accumulation_boundary(last)
                trainer.model.backward(loss, scale_wrt_gas=False)
            else:
                accelerator.backward(loss)
        total += loss.detach()
        draws.append(batch.draws)
    if with_zero:
        trainer.model.step()  # it clips, steps and clears
    else:
        if trainer.settings.optim.gradient_clip:
            accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.settings.optim.gradient_clip)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
    if trainer.ema:
        trainer.ema.update(accelerator.unwrap_model(trainer.model), step=step)
    return total, np.concatenate(draws)
