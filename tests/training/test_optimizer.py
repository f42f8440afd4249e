import copy

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


class WithUnused(TwoParts):
    """As timm's ConvNeXt: a parameter of each group is never used."""

    def __init__(self) -> None:
        super().__init__()
        backbone = nn.ModuleDict({"unused": nn.LayerNorm(2), "used": nn.Linear(2, 1)})
        self.image = nn.ModuleDict({"backbone": backbone, "blocks": nn.Linear(2, 1)})
        self.unused = nn.Parameter(torch.ones(3))

    def freeze(self) -> "WithUnused":
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("unused" not in name)
        return self

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        x = torch.ones(5, 2)
        (self.image["backbone"]["used"](x) * self.image["blocks"](x)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def groups_of_earlier_versions(model: WithUnused, lr: float) -> torch.optim.AdamW:
    """All parameters are in the groups, whether they are used or not."""
    of_backbone, others = [], []
    for name, parameter in model.named_parameters():
        (of_backbone if name.startswith("image.backbone.") else others).append(parameter)
    groups = [
        {"params": of_backbone, "lr": lr, "backbone": True},
        {"params": others, "lr": lr, "backbone": False},
    ]
    return torch.optim.AdamW(groups, weight_decay=1e-4)


@pytest.mark.parametrize("saved_by", ["an earlier version", "this one"])
def test_an_optimizer_goes_on_from_a_saved_one(saved_by: str) -> None:
    settings = config.Optim(lr=0.1)
    first = WithUnused()
    other = copy.deepcopy(first).freeze()
    if saved_by == "this one":
        optimizer = optim.make_optimizer(first.freeze(), settings)
    else:
        optimizer = groups_of_earlier_versions(first, lr=0.1)
    for _ in range(3):
        first.step(optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    # As if it had been saved on a GPU.
    for group in saved["param_groups"]:
        group["fused"] = True

    other.load_state_dict(first.state_dict())
    resumed = optim.make_optimizer(other, settings)
    optim.load_optimizer(resumed, other, saved)
    assert [group["fused"] for group in resumed.param_groups] == [None, None]
    for _ in range(3):
        first.step(optimizer)
        other.step(resumed)
    for name, value in first.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_a_group_that_is_all_frozen_now_is_left_out_of_a_saved_one() -> None:
    model = WithUnused()
    for parameter in model.image["backbone"].parameters():
        parameter.requires_grad_(False)
    saved = groups_of_earlier_versions(model, lr=0.1).state_dict()

    resumed = optim.make_optimizer(model, config.Optim(lr=0.2))
    optim.load_optimizer(resumed, model, saved)
    assert [group["lr"] for group in resumed.param_groups] == [0.1]


def test_frozen_parameters_are_left_out() -> None:
    model = WithUnused().freeze()
    optimizer = optim.make_optimizer(model, config.Optim())
    in_groups = {id(one) for group in optimizer.param_groups for one in group["params"]}
    assert in_groups == {id(one) for one in model.parameters() if one.requires_grad}
