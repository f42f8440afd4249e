"""Ranges are checked against the settings of training, and what is drawn fits them."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.sweeping.space import Space, read_space
from lens_hpc.sweeping.study import study_held
from tests.sweeping.pretended import sweep_settings

ENDS = {
    "optim.lr": (1e-9, 10.0),
    "optim.gradient_clip": (1e-3, 100.0),
    "loss.label_smoothing": (0.0, 0.99),
    "augment.hflip": (0.0, 1.0),
}
WHOLE_ENDS = {
    "train.global_batch_size": (1, 4096),
    "train.micro_batch_size": (1, 512),
    "schedule.period_epochs": (1, 300),
    "train.seed": (0, 2**32 - 1),
    "augment.shift": (0, 40),
}
CHOICES = {
    "model.inputs": ["fusion", "image", "features"],
    "model.conv_channels": [[512, 256], [64, 32], [1, 1]],
    "train.micro_batch_size": [None, 1, 2],
    "model.missing_indicator": [True, False],
    "model.backbone": ["resnet18", "2"],
}


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    """Draw ranges of settings of every type."""
    drawn: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from([*ENDS, *WHOLE_ENDS, *CHOICES]), unique=True)):
        if key in CHOICES and draw(st.booleans() if key in WHOLE_ENDS else st.just(True)):
            some = st.lists(st.sampled_from(CHOICES[key]), min_size=1, max_size=3, unique_by=str)
            drawn[key] = {"choices": draw(some)}
            continue
        low, high = (ENDS | WHOLE_ENDS)[key]
        numbers = st.integers(low, high) if key in WHOLE_ENDS else st.floats(low, high)
        ends = sorted(draw(st.lists(numbers, min_size=2, max_size=2, unique=True)))
        is_log = ends[0] > 0 and draw(st.booleans())
        drawn[key] = {"log" if is_log else "uniform": ends}
    return drawn


def value_at(train: config.Train, key: str) -> Any:
    value: Any = train
    for name in key.split("."):
        value = getattr(value, name)
    return [*value] if isinstance(value, tuple) else value


def check(space: Space, values: Mapping[str, Any], given: dict[str, Any]) -> None:
    """Check that settings hold what was drawn, of the right type and within its range."""
    train = space.settings(values)
    for key, one in given.items():
        value = value_at(train, key)
        if "choices" in one:
            assert value in one["choices"]
            continue
        low, high = next(iter(one.values()))
        assert low <= value <= high
        assert isinstance(value, int if key in WHOLE_ENDS else float)
        assert value == values[key], "what is trained is what Optuna knows"


@given(given=ranges(), seed=st.integers(0, 2**40))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_that_is_drawn_is_valid_and_within_its_range(
    tmp_path: Path, packed_once: Path, given: dict[str, Any], seed: int
) -> None:
    asked = sweep_settings(tmp_path, packed_once, ranges=given, seed=seed)
    space = read_space(asked)
    rng = random.Random(seed)
    check(space, {knob.key: knob.draw(rng) for knob in space.knobs}, given)

    (tmp_path / "sweep" / "study.journal").unlink(missing_ok=True)
    with study_held(asked.output, space, seed) as study:
        for number in range(3):
            trial = study.draw()
            check(space, trial.settings, given)
            study.end(trial.number, number)


def test_all_problems_are_told_at_once(tmp_path: Path, packed_once: Path) -> None:
    wrong = {
        "optim.wieght_decay": {"log": [1e-4, 1e-2]},
        "optim.lr": {"uniform": [-1, 1]},
        "augment.hflip": {"uniform": [0, 2]},
        "train.epochs": {"uniform": [1.5, 4]},
        "model.inputs": {"choices": ["fusion", "pixels"]},
    }
    with pytest.raises(UserError) as told:
        read_space(sweep_settings(tmp_path, packed_once, ranges=wrong))
    assert str(told.value).splitlines()[0] == "ranges do not fit the settings of training:"
    for part in (
        "optim.wieght_decay = 0.0001: unknown setting; did you mean optim.weight_decay?",
        "optim.lr = -1.0: must be greater than 0",
        "augment.hflip = 2.0: must be less than or equal to 1",
        "train.epochs = 1.5: must be a whole number",
        "model.inputs = pixels: must be fusion, image or features",
    ):
        assert str(told.value).count(part) == 1
    assert str(told.value).count("unknown setting") == 1


@pytest.mark.parametrize("key", ["model.backbone", "train.tf32"])
def test_what_is_no_number_has_choices_alone(tmp_path: Path, packed_once: Path, key: str) -> None:
    asked = sweep_settings(tmp_path, packed_once, ranges={key: {"uniform": [0, 1]}})
    with pytest.raises(UserError, match=f"{key}: is no number; give its choices"):
        read_space(asked)


def test_a_rule_that_the_ends_fulfil_and_not_what_lies_between(
    tmp_path: Path, packed_once: Path
) -> None:
    asked = sweep_settings(tmp_path, packed_once, ranges={"model.conv_kernel": {"uniform": [3, 7]}})
    with pytest.raises(UserError, match="conv_kernel must be odd"):
        read_space(asked)


def test_options_of_a_model_of_ones_own_vary(tmp_path: Path, packed_once: Path) -> None:
    asked = sweep_settings(
        tmp_path,
        packed_once,
        fixed={"model.options.width": 4},
        ranges={"model.options.depth": {"choices": [1, 2]}},
    )
    space = read_space(asked)
    assert space.settings({"model.options.depth": 2}).model.options == {"width": 4, "depth": 2}
    assert space.combinations == 2
