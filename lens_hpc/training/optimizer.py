"""Loss, optimizer and learning-rate schedule."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from lens_hpc import config

BACKBONE_PREFIX = "image.backbone."


class BinaryLoss(nn.Module):
    """Binary cross entropy, or the focal loss, of logits against labels of 0 and 1."""

    def __init__(self, settings: config.Loss) -> None:
        super().__init__()
        self.settings = settings

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each sample, (B,), of logits (B,) and labels (B,)."""
        settings = self.settings
        smoothing = settings.label_smoothing
        targets = labels * (1 - smoothing) + 0.5 * smoothing
        weight = torch.full_like(logits[:1], settings.positive_weight)

        losses = functional.binary_cross_entropy_with_logits(
            logits, targets, reduction="none", pos_weight=weight
        )
        if settings.kind == "bce":
            return losses

        # Lin et al. 2017, equation 4: (1 - p_t)^gamma, p_t being the probability of the true class.
        p = torch.sigmoid(logits)
        p_true = p * labels + (1 - p) * (1 - labels)
        return losses * (1 - p_true) ** settings.focal_gamma


def make_optimizer(
    model: nn.Module, settings: config.Optim, fused: bool = False
) -> torch.optim.AdamW:
    """Make AdamW over two groups of parameters: the backbone's, and all others.

    Frozen parameters are left out. `fused` updates all weights by a few kernels of a GPU.
    """
    in_backbone, others = (
        [parameter for parameter in group if parameter.requires_grad]
        for group in _parameter_groups(model)
    )
    backbone_lr = settings.lr * settings.backbone_lr_factor
    groups: list[dict[str, Any]] = [
        {"params": in_backbone, "lr": backbone_lr, "backbone": True},
        {"params": others, "lr": settings.lr, "backbone": False},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        weight_decay=settings.weight_decay,
        # Where it is not fused, torch itself chooses.
        fused=fused or None,
    )


def _parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters of the backbone, and all others, in the order of the model."""
    in_backbone: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        group = in_backbone if name.startswith(BACKBONE_PREFIX) else others
        group.append(parameter)
    return in_backbone, others


def load_optimizer(optimizer: Any, model: nn.Module, saved: dict[str, Any]) -> None:
    """Set AdamW to a saved state, of this kind of device or another.

    Earlier versions kept unused parameters in its groups, without ever updating them.
    """
    groups = [dict(group) for group in saved["param_groups"]]
    is_trained = [
        parameter.requires_grad for group in _parameter_groups(model) for parameter in group
    ]
    numbers = [number for group in groups for number in group["params"]]
    kept = numbers
    if len(numbers) == len(is_trained):
        kept = [number for number, trained in zip(numbers, is_trained, strict=True) if trained]

    # A group of nothing but frozen parameters is not there any more.
    groups = [group for group in groups if set(group["params"]) & set(kept)]
    new_number = {number: position for position, number in enumerate(kept)}
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        group["params"] = [new_number[n] for n in group["params"] if n in new_number]
        group["fused"] = own["fused"]
    state = {new_number[n]: values for n, values in saved["state"].items() if n in new_number}
    optimizer.load_state_dict({"state": state, "param_groups": groups})


class LearningRate:
    """Linear warm-up, then cosine annealing with warm restarts, by the fraction of the epoch.

    Loshchilov & Hutter 2017, ICLR, equation 5.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        schedule: config.Schedule,
        optim: config.Optim,
    ) -> None:
        self.optimizer = optimizer
        self.warmup_epochs = schedule.warmup_epochs
        self.frozen_backbone_epochs = optim.frozen_backbone_epochs
        self.cosine = CosineAnnealingWarmRestarts(
            optimizer,
            T_0=schedule.period_epochs,
            T_mult=schedule.period_factor,
            eta_min=schedule.minimum_lr,
        )

    def set(self, epoch: float, epochs_per_step: float) -> None:
        """Set the rate of each group for the step that begins at this fractional epoch."""
        groups = self.optimizer.param_groups

        if epoch < self.warmup_epochs:
            risen = min(1.0, (epoch + epochs_per_step) / self.warmup_epochs)
            for group, rate in zip(groups, self.cosine.base_lrs, strict=True):
                group["lr"] = rate * risen
        else:
            self.cosine.step(epoch - self.warmup_epochs)

        if epoch < self.frozen_backbone_epochs:
            for group in groups:
                if group["backbone"]:
                    group["lr"] = 0.0  # AdamW multiplies its decay by it, too

    def now(self) -> float:
        """Return the present rate of all that is not the backbone."""
        return float(self.optimizer.param_groups[-1]["lr"])
