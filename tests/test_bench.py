from pathlib import Path

import pytest

from lens_hpc import bench, config

SMALL = ("model.backbone=test_resnet", "model.weights=none", "model.conv_channels=[8, 8]", "model.attention_channels=4")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "albumentations"])
def test_every_part_is_measured_and_nothing_is_written(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{dataset: {dataset}, workers: 1}}\ntrain: {{global_batch_size: 4}}\n")
    before = set(tmp_path.rglob("*"))
    bench.run(file, [*SMALL, "seconds=0.1", f"augment.engine={engine}"])
    printed = capsys.readouterr().out
    for part in (bench.READ, bench.NORMALISE, bench.AUGMENT, bench.LOADER, bench.MODEL, bench.ALL):
        rate = next(line for line in printed.splitlines() if line.strip().startswith(part)).split()[-1]
        assert float(rate.replace(",", "")) > 0
    assert "is the bottleneck" in printed
    assert set(tmp_path.rglob("*")) == before


def test_the_advice_names_the_slowest_part_and_a_setting(tmp_path: Path) -> None:
    settings = config.load(config.Bench, None, ["data.dataset=x", "augment.engine=albumentations", "data.workers=3"])
    rates = {bench.READ: 9.0, bench.NORMALISE: 8.0, bench.AUGMENT: 1.0, bench.LOADER: 2.0, bench.MODEL: 5.0}
    assert "augment. Turn augment.engine=torch" in bench.advice(settings, rates)
    assert "read from storage. Turn data.stage_to" in bench.advice(settings, rates | {bench.READ: 0.5})
    assert "normalise. Turn data.workers=6" in bench.advice(settings, rates | {bench.NORMALISE: 0.5})
    assert "The model is the bottleneck: the loader makes 10.0 times" in bench.advice(
        settings, rates | {bench.LOADER: 50.0}
    )
