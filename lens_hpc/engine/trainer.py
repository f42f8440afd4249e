"""The parts of a training, put together; and its step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from lens_hpc import config
from lens_hpc.data.augment import Augmentation
from lens_hpc.data.loader import Batch, Loader, Samples
from lens_hpc.data.order import Order, share_of_step
from lens_hpc.data.reader import Split
from lens_hpc.data.shards import Manifest
from lens_hpc.engine import checkpoint, optim
from lens_hpc.engine.dataset import open_splits

SCORING_BATCH = 256


@dataclass
class Trainer:
    """Everything that an epoch needs."""

    settings: config.Train
    accelerator: Accelerator
    order: Order
    training: Loader
    validation: Loader
    model: torch.nn.Module
    loss: torch.nn.Module
    optimizer: Any
    schedule: CosineAnnealingWarmRestarts

    @property
    def manifest(self) -> Manifest:
        """Of the dataset."""
        return self.training.samples.training


def make_trainer(settings: config.Train, accelerator: Accelerator) -> Trainer:
    """Put the parts together; UserError for what cannot work."""
    data, loop = settings.data, settings.train
    share = share_of_step(loop.global_batch_size, accelerator.num_processes)
    splits = open_splits(data, loop.global_batch_size, accelerator)
    order = make_order(settings, splits["train"])
    manifest = splits["train"].manifest
    training = Samples(splits["train"], manifest, data.image_scale, Augmentation(settings.augment, loop.seed))
    validation = Samples(splits["val"], manifest, data.image_scale)
    set_seed(loop.seed)
    with accelerator.local_main_process_first():  # one download of pretrained weights a node
        model = checkpoint.make_model(settings.model, manifest)
    optimizer = optim.make_optimizer(model, settings.optim)
    schedule = optim.make_schedule(optimizer, settings.schedule)
    model, optimizer = accelerator.prepare(model, optimizer)
    return Trainer(
        settings,
        accelerator,
        order,
        Loader(training, share, data.workers, accelerator.device),
        Loader(validation, SCORING_BATCH, data.workers, accelerator.device),
        model,
        optim.make_loss(settings.loss, accelerator.device),
        optimizer,
        schedule,
    )


def make_order(settings: config.Train, split: Split) -> Order:
    """The order of the training samples; UserError when an epoch would have no step."""
    data, loop = settings.data, settings.train
    labels = split.take("labels", np.arange(len(split))) if data.balance == "oversample" else None
    order = Order(len(split), loop.global_batch_size, loop.seed, data.shuffle == "blocks", data.last == "keep", labels)
    assert order.steps
    return order


def train_step(trainer: Trainer, batch: Batch, samples: int) -> torch.Tensor:
    """One optimizer step on `samples` over all processes; returns this process's part of their mean loss, detached.

    Processes average their gradients, hence the factor.
    """
    losses = trainer.loss(trainer.model(batch.images, batch.features), batch.labels)
    loss: torch.Tensor = (losses * batch.weights).sum() / samples * trainer.accelerator.num_processes
    trainer.accelerator.backward(loss)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    return loss.detach()
