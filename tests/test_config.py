from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from lens_hpc import config, settings
from lens_hpc.packing.recipe import PackSettings

ROOT = Path(__file__).parent.parent
REQUIRED = ["run=runs/x", "data.dataset=data/x"]


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_shipped_training_config_loads(file: Path) -> None:
    loaded = settings.load(config.Train, file)
    assert loaded.train.epochs > 0
    assert loaded.loss.positive_weight == 1.0


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "pack").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_shipped_recipe_loads(file: Path) -> None:
    assert settings.load(PackSettings, file, ["source=a", "output=b"]).bands


@pytest.mark.parametrize(
    "file", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_shipped_launcher_config_is_accelerates(file: Path) -> None:
    launcher = load_config_from_file(str(file))  # refuses unknown keys
    wanted = {"cpu": (1, 2), "one_gpu": (1, 1), "multi_gpu": (1, 4), "multi_node": (2, 8)}
    wanted |= {f"deepspeed_zero{stage}": (1, 4) for stage in (1, 2, 3)}
    assert (launcher.num_machines, launcher.num_processes) == wanted[file.stem]
    assert launcher.mixed_precision == "no"  # train.precision decides


def test_defaults_are_the_authors() -> None:
    loaded = settings.load(config.Train, overrides=REQUIRED)
    assert (loaded.optim.lr, loaded.optim.weight_decay) == (2e-3, 1e-4)
    assert (loaded.schedule.period_epochs, loaded.schedule.minimum_lr) == (10, 1e-6)
    assert (loaded.augment.hflip, loaded.augment.vflip, loaded.augment.blur) == (0.3, 0.3, 0.3)
    assert (loaded.model.backbone, loaded.model.conv_channels) == ("resnet50", (512, 256))
