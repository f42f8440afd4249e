import pytest
import torch
from torch import nn

from lens_hpc import config
from lens_hpc.training import optimizer as optim


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.ModuleDict({"backbone": nn.Linear(2, 1), "blocks": nn.Linear(2, 1)})


def rates(
    schedule: config.Schedule, settings: config.Optim, epochs: tuple[float, ...]
) -> list[tuple[float, float]]:
    """Rates of the backbone and of the rest at the start of some steps, 100 an epoch."""
    optimizer = optim.make_optimizer(TwoParts(), settings)
    rate = optim.LearningRate(optimizer, schedule, settings)
    found = []
    for epoch in epochs:
        rate.set(epoch, 0.01)
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"]))
        assert rate.now() == optimizer.param_groups[1]["lr"]
    return found


def test_the_schedule_is_a_cosine_with_restarts_in_epochs() -> None:
    of_all = rates(config.Schedule(), config.Optim(), (0, 5, 9.999, 10, 15))
    start, middle, end, restart, again = (rest for _, rest in of_all)
    assert start == restart == 2e-3
    assert middle == again == pytest.approx((2e-3 + 1e-6) / 2)
    assert end == pytest.approx(1e-6, rel=1e-2)


def test_the_rate_rises_before_the_first_cosine() -> None:
    schedule = config.Schedule(warmup_epochs=2, period_epochs=4)
    found = [rest for _, rest in rates(schedule, config.Optim(lr=1.0), (0, 0.99, 1.99, 2, 4, 6))]
    assert found == pytest.approx([0.005, 0.5, 1.0, 1.0, 0.5, 1.0], rel=1e-4)


def test_the_backbone_may_learn_slower_and_later() -> None:
    settings = config.Optim(lr=1.0, backbone_lr_factor=0.1, frozen_backbone_epochs=1)
    assert rates(config.Schedule(), settings, (0, 0.99))[0] == (0.0, 1.0)
    backbone, rest = rates(config.Schedule(), settings, (5,))[0]
    assert backbone == pytest.approx(0.1 * rest, rel=1e-4)


def loss_of(logits: torch.Tensor, labels: torch.Tensor, **settings: object) -> torch.Tensor:
    return optim.BinaryLoss(config.Loss(**settings))(logits, labels)


def test_a_lens_weighs_what_the_setting_says() -> None:
    logits, lens, other = torch.tensor([0.3, -2.0]), torch.ones(2), torch.zeros(2)
    torch.testing.assert_close(
        loss_of(logits, lens, positive_weight=3.0), 3 * loss_of(logits, lens)
    )
    torch.testing.assert_close(loss_of(logits, other, positive_weight=3.0), loss_of(logits, other))


def test_smoothing_moves_labels_towards_a_half() -> None:
    logits, labels = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 0.0])
    expected = nn.functional.binary_cross_entropy_with_logits(
        logits, torch.tensor([0.95, 0.05]), reduction="none"
    )
    torch.testing.assert_close(loss_of(logits, labels, label_smoothing=0.1), expected)


def test_the_focal_loss_is_that_of_the_paper() -> None:
    logits, labels = torch.tensor([0.3, -2.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])
    p = torch.sigmoid(logits)
    p_true = torch.where(labels == 1, p, 1 - p)
    torch.testing.assert_close(
        loss_of(logits, labels, kind="focal", focal_gamma=2.0), -((1 - p_true) ** 2) * p_true.log()
    )
    torch.testing.assert_close(
        loss_of(logits, labels, kind="focal", focal_gamma=0.0), loss_of(logits, labels)
    )
