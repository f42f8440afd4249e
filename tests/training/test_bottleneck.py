from pathlib import Path

import pytest
import torch

from lens_hpc import config
from lens_hpc.training import bottleneck as bench
from tests.conftest import call

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


def test_a_rate_counts_samples_after_the_warm_up() -> None:
    calls = []

    def part() -> int:
        calls.append(None)
        return 10

    rate = bench.samples_per_second(part, 0.05, torch.device("cpu"))
    counted = 10 * (len(calls) - bench.WARM_UP_CALLS)
    assert 0.5 * counted / 0.05 < rate <= counted / 0.05
