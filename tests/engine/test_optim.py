import pytest
import torch
from torch import nn

from lens_hpc import config
from lens_hpc.engine import optim


def test_the_schedule_is_a_cosine_with_restarts_in_epochs() -> None:
    optimizer = optim.make_optimizer(nn.Linear(1, 1), config.Optim())
    schedule = optim.make_schedule(optimizer, config.Schedule())
    rates = {}
    for epoch in (0, 5, 9.999, 10, 15):
        schedule.step(epoch)
        rates[epoch] = optimizer.param_groups[0]["lr"]
    assert rates[0] == rates[10] == 2e-3
    assert rates[5] == rates[15] == pytest.approx((2e-3 + 1e-6) / 2)
    assert rates[9.999] == pytest.approx(1e-6, rel=1e-2)


def test_a_lens_weighs_what_the_setting_says() -> None:
    logits = torch.tensor([0.3, 0.3])
    plain = optim.make_loss(config.Loss(), torch.device("cpu"))
    heavy = optim.make_loss(config.Loss(positive_weight=3.0), torch.device("cpu"))
    lens, other = torch.ones(2), torch.zeros(2)
    torch.testing.assert_close(heavy(logits, lens), 3 * plain(logits, lens))
    torch.testing.assert_close(heavy(logits, other), plain(logits, other))
