"""Loss, optimizer and learning-rate schedule."""

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from lens_hpc import config


class Loss(nn.Module):
    """Binary cross entropy or focal loss of logits (B,) against labels (B,): (B,)."""

    def __init__(self, settings: config.Loss) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:  # noqa: D102 - the class says it
        s = self.settings
        targets = labels * (1 - s.label_smoothing) + 0.5 * s.label_smoothing
        weight = torch.full_like(logits[:1], s.positive_weight)
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=weight)
        if s.kind == "focal":  # (1 - p_t)^gamma, p_t being the probability of the true class (Lin et al. 2017, eq. 4)
            p = torch.sigmoid(logits)
            losses = losses * (1 - (p * labels + (1 - p) * (1 - labels))) ** s.focal_gamma
        return losses


def make_optimizer(model: nn.Module, settings: config.Optim) -> torch.optim.AdamW:
    """AdamW over two groups of parameters: the backbone's, and all others."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[name.startswith("image.backbone.")].append(parameter)
    factors = {True: settings.backbone_lr_factor, False: 1.0}
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": settings.lr * factors[backbone], "backbone": backbone}
            for backbone, parameters in groups.items()
            if parameters
        ],
        weight_decay=settings.weight_decay,
    )


class LearningRate:
    """Linear warm-up, then cosine annealing with warm restarts (Loshchilov & Hutter 2017), by the fractional epoch."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: config.Schedule, optim: config.Optim) -> None:
        self.optimizer, self.warmup_epochs = optimizer, schedule.warmup_epochs
        self.frozen_backbone_epochs = optim.frozen_backbone_epochs
        self.cosine = CosineAnnealingWarmRestarts(
            optimizer, T_0=schedule.period_epochs, T_mult=schedule.period_factor, eta_min=schedule.minimum_lr
        )

    def set(self, epoch: float, epochs_a_step: float) -> None:
        """Set the rate of each group for the step that begins at this fractional epoch."""
        if epoch < self.warmup_epochs:
            for group, rate in zip(self.optimizer.param_groups, self.cosine.base_lrs, strict=True):
                group["lr"] = rate * min(1.0, (epoch + epochs_a_step) / self.warmup_epochs)
        else:
            self.cosine.step(epoch - self.warmup_epochs)
        for group in self.optimizer.param_groups:
            if group["backbone"] and epoch < self.frozen_backbone_epochs:
                group["lr"] = 0.0  # AdamW multiplies its decay by it, too

    def now(self) -> float:
        """The rate of all that is not the backbone."""
        return float(self.optimizer.param_groups[-1]["lr"])
