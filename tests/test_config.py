from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from lens_hpc import config, settings
from lens_hpc.errors import UserError
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


WITHOUT_THE_KEY: dict[str, Any] = {
    "data.image_scale": "cutout",
    "data.shuffle": "full",
    "data.balance": "none",
    "data.last": "drop",
    "data.workers": 2,
    "data.verify": "header",
    "data.stage_to": None,
    "augment.engine": "albumentations",
    "augment.hflip": 0.3,
    "augment.vflip": 0.3,
    "augment.blur": 0.3,
    "augment.rotate90": 0.0,
    "augment.shift": 0,
    "augment.noise": 0.0,
    "model.name": "fusion",
    "model.inputs": "fusion",
    "model.backbone": "resnet50",
    "model.weights": "pretrained",
    "model.weights_folder": "weights",
    "model.norm": "batch",
    "model.conv_channels": [512, 256],
    "model.conv_kernel": 3,
    "model.attention_channels": 128,
    "model.feature_channels": [128, 256],
    "model.feature_scaling": "minmax",
    "model.missing_indicator": False,
    "model.options": {},
    "loss.kind": "bce",
    "loss.positive_weight": 1.0,
    "loss.label_smoothing": 0.0,
    "loss.focal_gamma": 2.0,
    "loss.soft_labels": False,
    "optim.lr": 0.002,
    "optim.weight_decay": 0.0001,
    "optim.backbone_lr_factor": 1.0,
    "optim.frozen_backbone_epochs": 0,
    "optim.gradient_clip": None,
    "optim.ema_decay": None,
    "schedule.warmup_epochs": 0.0,
    "schedule.period_epochs": 10,
    "schedule.period_factor": 1,
    "schedule.minimum_lr": 1e-06,
    "train.epochs": 30,
    "train.best": "auc",
    "train.global_batch_size": 128,
    "train.micro_batch_size": None,
    "train.precision": "no",
    "train.tf32": False,
    "train.channels_last": False,
    "train.compile": False,
    "train.sync_batchnorm": False,
    "train.deterministic": False,
    "train.seed": 0,
    "train.max_minutes": None,
    "train.timeout_minutes": 10.0,
    "train.trackers": ["tensorboard"],
    "checkpoint.every_steps": None,
    "checkpoint.every_minutes": 10.0,
    "checkpoint.keep": 2,
    "resume.allow": [],
}
"""What a config.yaml of a run means that lacks a key: what was done before there was the key.

Who adds a key adds it here, with that. Who changes a default of new runs may not change it here:
then a run's file must be read with the old one, or the run would become another.
"""


@pytest.mark.parametrize("of_run", ["environment.json", "model.safetensors"])
def test_a_key_that_a_run_lacks_means_what_was_done_before_it(tmp_path: Path, of_run: str) -> None:
    """In the run's own folder, and beside its weights."""
    file = tmp_path / "config.yaml"
    file.write_text("run: r\ndata: {dataset: d}\n")
    (tmp_path / of_run).touch()
    tree = settings.load(config.Train, file).model_dump(mode="json")
    read = {}
    for group, values in tree.items():
        for key, value in values.items() if isinstance(values, dict) else [(None, values)]:
            read[f"{group}.{key}" if key else group] = value
    assert read == {"run": "r", "data.dataset": "d", **WITHOUT_THE_KEY}


def test_what_a_run_lacks_can_be_said_and_other_files_have_todays_default(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("run: r\ndata: {dataset: d}\nmodel: {inputs: features}\n")
    model = settings.load(config.Train, file).model
    assert (model.feature_scaling, model.missing_indicator) == ("robust", True)

    (tmp_path / "model.safetensors").touch()
    model = settings.load(config.Train, file, ["model.feature_scaling=robust"]).model
    assert (model.feature_scaling, model.missing_indicator) == ("robust", False)
    assert model.inputs == "features"
    with pytest.raises(UserError, match="model = none"):
        settings.load(config.Train, file, ["model=none"])


def test_the_authors_config_scales_as_he_did() -> None:
    author = settings.load(config.Train, ROOT / "configs" / "train" / "resnet50.yaml")
    assert author.model.model_dump().items() >= config.MODEL_OF_OLDER_RUNS.items()
