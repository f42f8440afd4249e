"""The picture of a sweep, of any number of settings and trials."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lens_hpc.sweeping.figures import Drawn, _draw_history, _draw_knob, draw_sweep
from lens_hpc.sweeping.space import read_space
from lens_hpc.sweeping.study import DONE, FAILED, SweepTrial
from tests.sweeping.pretended import sweep_settings

RANGES = {
    "optim.lr": {"log": [1e-4, 1e-1]},
    "train.global_batch_size": {"log": [16, 512]},
    "model.conv_channels": {"choices": [[8, 8], [16, 8]]},
    "augment.hflip": {"uniform": [0, 1]},
}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [0, 1, 4])
def test_each_setting_has_its_place(tmp_path: Path, packed_once: Path, settings: int) -> None:
    ranges = dict([*RANGES.items()][:settings])
    space = read_space(sweep_settings(tmp_path, packed_once, ranges=ranges))
    rng = np.random.default_rng(0)
    trials = []
    for number in range(12):
        values = {
            key: one.get("choices", [next(iter(one.values()))[0]])[0] for key, one in ranges.items()
        }
        value = None if number == 3 else float(rng.uniform(0.5, 1))
        trials.append(SweepTrial(number, FAILED if value is None else DONE, value, values))

    best = max(trials, key=lambda trial: trial.value or 0)
    importance = {key: 1 / len(ranges) for key in ranges}
    content = draw_sweep(Drawn(space.knobs, trials, best, importance, "validation AUC", False))
    (tmp_path / "sweep.png").write_bytes(content)
    rows = 1 + -(-settings // 3)
    with Image.open(tmp_path / "sweep.png") as picture:
        assert picture.size == (1760, 496 * rows)


def test_long_choices_do_not_run_into_each_other(tmp_path: Path, packed_once: Path) -> None:
    backbones = ["convnext_nano.in12k_ft_in1k", "maxvit_rmlp_small_rw_224", "resnet18"]
    ranges = {"model.backbone": {"choices": backbones}}
    (knob,) = read_space(sweep_settings(tmp_path, packed_once, ranges=ranges)).knobs
    trials = [SweepTrial(n, DONE, 0.5, {knob.key: one}) for n, one in enumerate(backbones)]
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    _draw_knob(axes, knob, Drawn([knob], trials, trials[0], {}, "validation AUC", False))
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {25.0}


def test_the_best_stands_at_its_number() -> None:
    trials = [SweepTrial(number, DONE, number / 10, {}) for number in range(5)]
    axes = Figure(layout="constrained").add_subplot()
    _draw_history(axes, Drawn([], trials, trials[4], {}, "validation AUC", False))
    (star,) = [line for line in axes.get_lines() if line.get_label() == "best"]
    assert star.get_xdata()[0] == trials[4].number
