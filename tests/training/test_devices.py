import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import distributed

from lens_hpc import config
from lens_hpc.errors import UserError
from lens_hpc.training import devices
from lens_hpc.training.accelerator import accelerator_session, check_world

ROOT = Path(__file__).parents[2]
LAUNCHER = (
    "ACCELERATE_USE_CPU",
    "ACCELERATE_MIXED_PRECISION",
    "ACCELERATE_DYNAMO_BACKEND",
    "CUDA_VISIBLE_DEVICES",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Without a GPU, device files or a launcher."""
    for variable in LAUNCHER:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(devices, "DEVICE_FILES", tmp_path)
    return tmp_path


def settings(**loop: object) -> config.Train:
    wanted = {"run": "r", "data": {"dataset": "d"}, "train": {"trackers": []} | loop}
    return config.Train.model_validate(wanted)


# ---- the CPU ----


def test_fp16_is_refused_on_the_cpu_of_a_machine_with_gpus(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with (
        pytest.raises(UserError, match="fp16: needs a GPU, and ACCELERATE_USE_CPU=true forbids it"),
        accelerator_session(settings(precision="fp16")),
    ):
        pass


@pytest.mark.parametrize("for_training", [True, False])
def test_a_gpu_that_torch_cannot_use_is_named(
    machine: Path, monkeypatch: pytest.MonkeyPatch, for_training: bool
) -> None:
    def too_old() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\n")

    (machine / "nvidia0").touch()
    monkeypatch.setattr(torch.cuda, "init", too_old)
    with (
        pytest.raises(UserError, match=r"a GPU that PyTorch cannot use: .*too old") as error,
        accelerator_session(settings() if for_training else None),
    ):
        pass
    assert "ACCELERATE_USE_CPU=true" in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCELERATE_USE_CPU", "true"),
        ("ACCELERATE_USE_CPU", "1"),
        ("CUDA_VISIBLE_DEVICES", ""),
        ("CUDA_VISIBLE_DEVICES", "-1"),
        ("CUDA_VISIBLE_DEVICES", "-1,-1"),
        ("CUDA_VISIBLE_DEVICES", "NoDevFiles"),
    ],
)
def test_whoever_chooses_the_cpu_gets_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    (machine / "nvidia0").touch()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError):
        devices.check_cpu("no", uses_deepspeed=False)
    monkeypatch.setenv(variable, value)
    devices.check_cpu("no", uses_deepspeed=False)


def test_processes_that_were_launched_for_gpus_are_refused_without(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """DeepSpeed cannot be told to use the CPU, and is warned of."""
    devices.check_cpu("no", uses_deepspeed=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match=r"launcher started 4 processes for GPUs, and .* has none"):
        devices.check_cpu("no", uses_deepspeed=False)
    with caplog.at_level(logging.WARNING):
        devices.check_cpu("no", uses_deepspeed=True)
    assert "started 4 processes for GPUs" in caplog.text


@pytest.mark.slow
def test_the_config_file_for_the_cpu_hides_gpus(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os; print('sees', os.environ['CUDA_VISIBLE_DEVICES'])")
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    cpu = ["--config_file", str(ROOT / "configs" / "accelerate" / "cpu.yaml")]
    done = subprocess.run([*launcher, *cpu, str(script)], capture_output=True, text=True)
    assert done.stdout.count("sees -1,-1") == 2, done.stdout + done.stderr


# ---- the launcher ----


@pytest.mark.parametrize(
    ("variable", "name"),
    [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM")],
)
def test_a_strategy_that_we_have_not_is_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(UserError, match=f"asks for {name}"), accelerator_session():
        pass


@pytest.mark.parametrize(
    ("variable", "value", "setting", "chosen"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "train.precision", {"precision": "bf16"}),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "train.precision", {"precision": "bf16"}),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "train.compile", {"compile": True}),
    ],
)
def test_what_of_the_launcher_is_not_heeded_is_told(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    setting: str,
    chosen: dict[str, object],
) -> None:
    monkeypatch.setenv(variable, value)
    with caplog.at_level(logging.WARNING):
        devices.check_launcher(settings(**chosen).train)
        devices.check_launcher(None)
        assert caplog.text == ""
        devices.check_launcher(settings().train)
    assert f"{variable}={value.lower()} is not heeded: set {setting}" in caplog.text

    caplog.clear()
    monkeypatch.setenv(variable, "NO")
    devices.check_launcher(settings().train)
    assert caplog.text == ""


# ---- GPUs ----


class Gpus:
    """Processes of one node, with GPUs that are not there, and the store that they share."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, uuids: list[str], processes: int) -> None:
        store = distributed.HashStore()
        monkeypatch.setattr(distributed.distributed_c10d, "_get_default_store", lambda: store)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla V100")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
        monkeypatch.setattr(
            torch.cuda,
            "get_device_properties",
            lambda device: SimpleNamespace(uuid=uuids[device.index]),
        )
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        self.count = len(uuids)
        self.processes = processes

    def check(self, rank: int, settings: config.Train | None = None) -> None:
        accelerator: Any = SimpleNamespace(
            device=torch.device("cuda", rank % self.count),  # as Accelerate chooses it
            process_index=rank,
            num_processes=self.processes,
            is_main_process=rank == 0,
        )
        check_world(accelerator, settings)


def test_more_processes_than_gpus_are_refused(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = Gpus(monkeypatch, ["a", "b"], processes=4)
    for rank in (0, 1):
        gpus.check(rank)
    for rank in (2, 3):
        shared = f"ranks {rank - 2} and {rank} share one GPU of .* 4 processes .* sees 2 GPUs"
        with pytest.raises(UserError, match=shared):
            gpus.check(rank)


def test_processes_that_see_a_gpu_each_are_fine(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with Slurm's --gpus-per-task; and the same process may come again."""
    with caplog.at_level(logging.WARNING):
        gpus = Gpus(monkeypatch, ["a"], processes=2)
        gpus.check(0)
        gpus.check(0)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="b")
        )
        gpus.check(1)
    assert caplog.text == ""


@pytest.mark.parametrize(("processes", "warned"), [(1, True), (3, True), (4, False)])
def test_gpus_that_are_left_unused_are_told(
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    processes: int,
    warned: bool,
) -> None:
    gpus = Gpus(monkeypatch, ["a", "b", "c", "d"], processes)
    with caplog.at_level(logging.WARNING):
        for rank in range(processes):
            gpus.check(rank)
    told = f"{processes} of the 4 GPUs here are used. To use all, add processes=4"
    assert (told in caplog.text) == warned


def test_a_gpu_that_imitates_bf16_is_told(
    machine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus = Gpus(monkeypatch, ["a"], processes=1)
    with caplog.at_level(logging.WARNING):
        gpus.check(0, settings())
        assert caplog.text == ""
        gpus.check(0, settings(precision="bf16"))
    assert "Tesla V100 only imitates it, slowly; choose fp16" in caplog.text
