import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.training import bottleneck as bench
from tests.conftest import call
from tests.integration.commands import Job, forked

SMALL = (
    "model.backbone=test_resnet",
    "model.weights=none",
    "model.conv_channels=[8, 8]",
    "model.attention_channels=4",
)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "albumentations"])
def test_every_part_is_measured_and_nothing_is_written(
    tmp_path: Path,
    dataset: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{dataset: {dataset}, workers: 1}}\ntrain: {{global_batch_size: 4}}\n")
    before = set(tmp_path.rglob("*"))
    rates = call("bench", file, *SMALL, "seconds=0.1", f"augment.engine={engine}")

    printed = capsys.readouterr().out
    for part in (
        bench.READ,
        bench.NORMALISE,
        bench.AUGMENT,
        bench.LOADER,
        bench.MODEL,
        bench.ALL,
    ):
        line = next(line for line in printed.splitlines() if line.strip().startswith(part))
        assert float(line.split()[-1].replace(",", "")) > 0
        assert rates.samples_per_second[part] > 0
    assert (rates.rows, rates.batch_size) == (28, 4)
    assert "is the bottleneck" in printed
    assert set(tmp_path.rglob("*")) == before


def test_the_advice_names_the_slowest_part_and_a_setting() -> None:
    settings = config.Train(
        run=Path("r"),
        data=config.Data(dataset=Path("x"), workers=3),
        augment=config.Augment(engine="albumentations"),
    )
    rates = {
        bench.READ: 9.0,
        bench.NORMALISE: 8.0,
        bench.AUGMENT: 1.0,
        bench.LOADER: 2.0,
        bench.MODEL: 5.0,
    }

    def advice(**changed: float) -> str:
        return bench.give_advice(settings, rates | {getattr(bench, k): changed[k] for k in changed})

    assert "augment. Turn augment.engine=torch" in advice()
    assert "read from storage. Turn data.stage_to" in advice(READ=0.5)
    assert "normalise. Turn data.workers=6" in advice(NORMALISE=0.5)
    assert "The model is the bottleneck: the loader makes 10.0 times" in advice(LOADER=50.0)


def test_a_part_alone_has_one_thread_and_the_caller_has_its_own_again() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), bench.one_torch_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


class Processes:
    """An accelerator whose other process takes `slowness` times as long."""

    def __init__(self, slowness: float = 0.0, device: str = "cpu") -> None:
        self.slowness = slowness
        self.device = torch.device(device)

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        if not self.slowness:
            return own
        return torch.cat([own, own * torch.tensor([self.slowness, 1.0])])


class Counted:
    """A part that does ten samples in a hundredth of a second."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        time.sleep(0.01)
        return 10


def rate_of(part: bench.Part, seconds: float, processes: Any) -> float:
    return bench.samples_per_second(part, seconds, processes)


def test_a_rate_counts_samples_after_the_warm_up() -> None:
    part = Counted()
    began = time.perf_counter()
    rate = rate_of(part, 0.2, Processes())
    spent = time.perf_counter() - began
    counted = 10 * (part.calls - bench.WARM_UP_CALLS)
    assert counted / spent <= rate <= 10 / 0.01
    assert rate <= counted / 0.2


def test_the_slowest_process_says_when_to_end_and_all_are_added_up() -> None:
    part = Counted()
    rate = rate_of(part, 0.5, Processes(slowness=5.0))
    # The other one would have been called five times too often by this one's clock.
    assert part.calls - bench.WARM_UP_CALLS <= 12
    assert rate <= 2 * 10 / 0.05


def test_parts_that_are_ready_at_first_do_not_make_the_rounds_long() -> None:
    """A loader has some batches ready when its first is asked for."""
    calls = []

    def part() -> int:
        calls.append(None)
        time.sleep(0.0001 if len(calls) < 10 else 0.02)
        return 1

    began = time.perf_counter()
    rate_of(part, 0.2, Processes())
    assert time.perf_counter() - began < 2


def test_a_gpu_is_waited_for_before_and_after_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: happened.append("wait"))

    def gather(own: torch.Tensor) -> torch.Tensor:
        assert own.device.type == "meta"
        happened.append("round")
        return torch.tensor([[1.0, 4.0]])

    def part() -> int:
        happened.append("call")
        return 4

    processes = Processes(device="meta")
    monkeypatch.setattr(processes, "gather", gather)
    assert rate_of(part, 0.5, processes) == 4.0
    warm_up = ["wait", *["call"] * bench.WARM_UP_CALLS, "wait", "round"]
    assert happened == [*warm_up, "wait", "call", "wait", "round"]


MODEL = """
import torch
from lens_hpc.model.fusion import FusionModel


class TooLarge(FusionModel):
    def forward(self, images, features):
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(images, features)
"""


def test_too_little_memory_names_the_setting(
    training: config.Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "largepackage.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    model = training.model.model_copy(update={"name": "largepackage.TooLarge"})
    settings = training.model_copy(update={"model": model, "code": ("largepackage",)})
    with pytest.raises(UserError, match=r"train.micro_batch_size = 8: choose .*=4 .*2.00 GiB"):
        bench.measure_rates(settings, 0.01)


RANKS = """
import os
import time

os.environ["ACCELERATE_USE_CPU"] = "true"

import torch
from torch import distributed

from lens_hpc.training.accelerator import accelerator_session
from lens_hpc.training.bottleneck import samples_per_second

calls = 0


def part():
    global calls
    calls += 1
    distributed.all_reduce(torch.zeros(1))
    if calls % 2:  # so that their clocks do not tell the same
        time.sleep(0.05 * distributed.get_rank())
    return 1


with accelerator_session() as accelerator:
    for _ in range(3):
        samples_per_second(part, 0.3, accelerator)
    everyones = accelerator.gather(torch.tensor([calls])).tolist()
    print(f"calls {everyones}")
"""


@pytest.mark.slow
def test_two_processes_measure_equally_often(tmp_path: Path) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    result = forked(processes=2, program=(str(script),))
    assert result.returncode == 0, result.stderr[-3000:]
    first, second = re.findall(r"\d+", result.stdout)[:2]
    assert first == second


@pytest.mark.slow
def test_two_processes_measure_together(tmp_path: Path, dataset: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{dataset: {dataset}, workers: 1}}\ntrain: {{global_batch_size: 8}}\n")
    job = Job(
        tmp_path / "job", "bench", str(file), *SMALL, "seconds=0.5", "augment.engine=torch",
        "train.timeout_minutes=1", processes=2,
    )  # fmt: skip
    assert job.wait(120) == [0, 0], job.output(0) + job.output(1)
    assert "28 training rows, 4 a batch, samples/s of 2 processes together:" in job.output(0)
    assert "samples/s" not in job.output(1)
