"""What a sweep's file may say."""

from pathlib import Path
from typing import Any

import pytest

from lens_hpc.errors import UserError
from tests.sweeping.pretended import sweep_settings


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"ranges": {"optim.lr": {}}}, "give exactly one of uniform, log and choices"),
        ({"ranges": {"optim.lr": {"log": [1, 2], "uniform": [1, 2]}}}, "exactly one of"),
        ({"ranges": {"optim.lr": {"uniform": [2, 1]}}}, "must be the lower one"),
        ({"ranges": {"optim.lr": {"log": [0, 1]}}}, "must be greater than 0"),
        ({"ranges": {"optim.lr": {"choices": [1, 1]}}}, "choices must differ"),
        ({"ranges": {"train.best": {"choices": ["auc"]}}}, "train.best: must be the same"),
        ({"ranges": {"train.seed": {"choices": [1]}}, "seeds": 2}, "train.seed: must be the same"),
        ({"fixed": {"optim.lr": 1}}, "optim.lr: is fixed and has a range; give one"),
        ({"fixed": {"optim": {"lr": 1}}}, "optim.lr: is fixed and has a range; give one"),
        ({"ranges": {"optim": {"choices": [{"lr": 1}]}, "optim.lr": {"log": [1, 2]}}}, "overlaps"),
        ({"ranges": {"train": {"choices": [{"best": "loss"}]}}}, "ranges.train: must be the same"),
        ({"ranges": {"data": {"choices": [{"dataset": "a"}]}}}, "ranges.data: must be the same"),
        ({"fixed": {"run": "here"}}, "fixed.run: is the sweep's own"),
        ({"folds": 1}, "folds = 1: must be greater than or equal to 2"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, packed_once: Path, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        sweep_settings(tmp_path, packed_once, **given)


def test_ranges_by_groups_are_those_of_dotted_keys(tmp_path: Path, packed_once: Path) -> None:
    lr = {"log": [1e-4, 1e-2]}
    nested = sweep_settings(tmp_path, packed_once, ranges={"optim": {"lr": lr}})
    assert nested == sweep_settings(tmp_path, packed_once, ranges={"optim.lr": lr})
