"""What can be told without DeepSpeed: how complete tensors become flat pieces, and come back.

Its optimizers are imitated as deepspeed.py reads them; tests/integration/test_zero.py has real
ones.
"""

import copy
import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lens_hpc.errors import UserError
from lens_hpc.training import deepspeed

PROCESSES = 2


MODEL = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))  # 15 + 5 + 10 + 2 values
MODEL.register_buffer("counter", torch.tensor(10))
FROZEN = "1.weight"


def make_model(factor: int = 1) -> nn.Module:
    """The model, its values multiplied, and one of its weights frozen."""
    model = copy.deepcopy(MODEL)
    model.counter *= factor
    for name, parameter in model.named_parameters():
        parameter.data *= factor
        parameter.requires_grad = name != FROZEN
    return model


class Ranks:
    """Two processes as two threads, and what torch.distributed does between them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.local = threading.local()
        self.barrier = threading.Barrier(PROCESSES)
        self.shared: dict[int, torch.Tensor] = {}
        fake = SimpleNamespace(
            get_rank=lambda: self.local.rank,
            get_world_size=lambda: PROCESSES,
            all_gather_into_tensor=self.all_gather,
        )
        monkeypatch.setattr(deepspeed, "distributed", fake)

    def all_gather(self, rows: torch.Tensor, piece: torch.Tensor) -> None:
        self.shared[self.local.rank] = piece
        self.barrier.wait()
        rows.copy_(torch.cat([self.shared[rank] for rank in range(PROCESSES)]))
        self.barrier.wait()

    def run(self, function: Any) -> list[Any]:
        """Call a function with each rank."""
        results: dict[int, Any] = {}

        def of_rank(rank: int) -> None:
            self.local.rank = rank
            results[rank] = function(rank)

        threads = [threading.Thread(target=of_rank, args=(rank,)) for rank in range(PROCESSES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [results[rank] for rank in range(PROCESSES)]


def padded_rows(values: torch.Tensor) -> torch.Tensor:
    length = -(-values.numel() // PROCESSES)
    return nn.functional.pad(values, (0, length * PROCESSES - values.numel())).view(PROCESSES, -1)


def stage_2(model: nn.Module, rank: int) -> SimpleNamespace:
    """Its optimizer: the row of all parameters that are trained, cut."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    row = torch.cat([parameter.detach().flatten() for parameter in parameters])
    return SimpleNamespace(
        single_partition_of_fp32_groups=[padded_rows(row)[rank].clone()],
        round_robin_bit16_groups=[parameters],
        optimizer=SimpleNamespace(state={}),
    )


def stage_3(model: nn.Module, rank: int) -> SimpleNamespace:
    """Its optimizer: each parameter cut, and this rank's parts of what is trained in a row."""
    parameters: list[Any] = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    parts = []
    for number, parameter in enumerate(parameters):
        part = padded_rows(parameter.detach().flatten())[rank].clone()
        parameter.ds_id = number
        parameter.ds_shape = parameter.shape
        parameter.ds_numel = parameter.numel()
        parameter.ds_tensor = part
        parameter.partition_numel = part.numel
        parameter.data = torch.empty(0)
        if parameter.requires_grad:
            parts.append(part)
    return SimpleNamespace(
        fp32_partitioned_groups_flat=[torch.cat(parts)],
        fp16_groups=[trained],
        optimizer=SimpleNamespace(state={}),
    )


@pytest.mark.parametrize("make_zero", [stage_2, stage_3])
def test_pieces_come_together_and_are_cut_again(
    make_zero: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = Ranks(monkeypatch)
    expected = make_model().state_dict()
    trained = expected.keys() - {FROZEN, "counter"}

    def gather(rank: int) -> deepspeed.ShardedState:
        model = make_model()
        zero = make_zero(model, rank)
        (piece,) = deepspeed._pieces(zero, model)
        flat = piece.flat
        zero.optimizer.state[flat] = {
            "step": torch.tensor(1.0),
            "exp_avg": flat * 2,
            "exp_avg_sq": flat * 3,
        }
        optimizer = SimpleNamespace(optimizer=zero)
        return deepspeed.gather_sharded_state(model, optimizer)

    for gathered in ranks.run(gather):
        assert gathered.keys() == {"weights", "exp_avg", "exp_avg_sq"}
        assert gathered["weights"].keys() == expected.keys()
        for kind, factor in (("weights", 1), ("exp_avg", 2), ("exp_avg_sq", 3)):
            assert gathered[kind].keys() >= trained
            for name, value in gathered[kind].items():
                torch.testing.assert_close(value, expected[name] * factor)

    def load(rank: int) -> deepspeed.ShardedState:
        model = make_model(factor=100)
        zero = make_zero(model, rank)
        optimizer = SimpleNamespace(optimizer=zero)
        deepspeed.load_sharded_state(model, optimizer, gathered, step=7)
        (state,) = zero.optimizer.state.values()
        assert state["step"] == 7
        return deepspeed.gather_sharded_state(model, optimizer)

    for again in ranks.run(load):
        torch.testing.assert_close(again, gathered)


@pytest.mark.parametrize("make_zero", [stage_2, stage_3])
def test_what_was_frozen_later_or_not_saved_changes_nothing_else(
    make_zero: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints of earlier versions: with moments of what is frozen now, or without it."""
    ranks = Ranks(monkeypatch)
    values = {name: value * 2 for name, value in MODEL.state_dict().items()}
    everything = {kind: dict(values) for kind in ("weights", "exp_avg", "exp_avg_sq")}

    def load(state: deepspeed.ShardedState) -> list[deepspeed.ShardedState]:
        def on_rank(rank: int) -> deepspeed.ShardedState:
            model = make_model()
            optimizer = SimpleNamespace(optimizer=make_zero(model, rank))
            deepspeed.load_sharded_state(model, optimizer, state, step=7)
            return deepspeed.gather_sharded_state(model, optimizer)

        return ranks.run(on_rank)

    for loaded in load(everything):
        torch.testing.assert_close(loaded["weights"], values)

    del everything["weights"][FROZEN]
    for loaded in load(everything):
        initial = MODEL.state_dict()[FROZEN]
        torch.testing.assert_close(loaded["weights"], values | {FROZEN: initial})


def test_cut_weights_are_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(monkeypatch)
    expected = make_model().state_dict()
    assert not deepspeed.is_cut(make_model())

    def whole(rank: int) -> dict[str, torch.Tensor]:
        model = make_model()
        stage_3(model, rank)
        assert deepspeed.is_cut(model)
        return deepspeed.whole_weights(model)

    for state in ranks.run(whole):
        assert state.keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_the_launcher_says_whether_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    assert not deepspeed.is_used()
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert deepspeed.is_used()


def test_fp16_is_refused() -> None:
    with pytest.raises(UserError, match="not with DeepSpeed here"):
        deepspeed.make_plugin("fp16", None)


@pytest.fixture
def launcher_config(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the launcher's file says of ZeRO, to be filled in."""
    zero: dict[str, Any] = {"stage": 2}
    plugin = SimpleNamespace(deepspeed_config={"zero_optimization": zero})
    monkeypatch.setattr(deepspeed, "DeepSpeedPlugin", lambda: plugin)
    monkeypatch.setattr(deepspeed, "_build_no_operator", lambda: None)
    monkeypatch.setattr("os.environ", dict(os.environ))
    return zero


def test_the_buffer_for_gradients_is_small_unless_the_file_says_otherwise(
    launcher_config: dict[str, Any],
) -> None:
    deepspeed.make_plugin("no", None)
    assert launcher_config["reduce_bucket_size"] == deepspeed.BUCKET_VALUES
    launcher_config["reduce_bucket_size"] = 7
    deepspeed.make_plugin("no", None)
    assert launcher_config["reduce_bucket_size"] == 7


@pytest.mark.parametrize(("device", "is_told"), [("none", False), ("cpu", True)])
def test_whoever_moves_the_optimizer_off_the_gpu_is_told_of_the_lock(
    launcher_config: dict[str, Any], device: str, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    launcher_config["offload_optimizer"] = {"device": device}
    with caplog.at_level("INFO", logger="lens_hpc"):
        deepspeed.make_plugin("no", None)
    assert ("remove the file cpu_adam/lock below TORCH_EXTENSIONS_DIR" in caplog.text) == is_told
