"""Loss, optimizer and learning-rate schedule."""

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from lens_hpc import config


def make_loss(settings: config.Loss, device: torch.device) -> nn.Module:
    """Binary cross entropy of logits (B,) against labels (B,), (B,)."""
    return nn.BCEWithLogitsLoss(reduction="none", pos_weight=torch.tensor(settings.positive_weight, device=device))


def make_optimizer(model: nn.Module, settings: config.Optim) -> torch.optim.AdamW:
    """AdamW over all parameters."""
    return torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)


def make_schedule(optimizer: torch.optim.Optimizer, settings: config.Schedule) -> CosineAnnealingWarmRestarts:
    """Cosine annealing with warm restarts (Loshchilov & Hutter 2017), to be stepped by the fractional epoch."""
    return CosineAnnealingWarmRestarts(
        optimizer, T_0=settings.period_epochs, T_mult=settings.period_factor, eta_min=settings.minimum_lr
    )
