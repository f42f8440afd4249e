from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from lens_hpc import UserError, config

ROOT = Path(__file__).parent.parent
REQUIRED = ["run=runs/x", "data.dataset=data/x"]


def problems(*overrides: str, kind: type[config.Settings] = config.Train) -> str:
    with pytest.raises(UserError) as error:
        config.load(kind, overrides=overrides)
    return str(error.value)


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "train").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_training_config_loads(file: Path) -> None:
    settings = config.load(config.Train, file)
    assert settings.train.epochs > 0
    assert settings.loss.positive_weight == 1.0


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "pack").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_loads(file: Path) -> None:
    assert config.load(config.Pack, file, ["source=a", "output=b"]).bands


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_launcher_config_is_accelerates(file: Path) -> None:
    launcher = load_config_from_file(str(file))  # refuses unknown keys
    wanted = {"cpu": (1, 2), "one_gpu": (1, 1), "multi_gpu": (1, 4), "multi_node": (2, 8)}
    wanted |= {f"deepspeed_zero{stage}": (1, 4) for stage in (1, 2, 3)}
    assert (launcher.num_machines, launcher.num_processes) == wanted[file.stem]
    assert launcher.mixed_precision == "no"  # train.precision decides


def test_defaults_are_the_authors() -> None:
    settings = config.load(config.Train, overrides=REQUIRED)
    assert (settings.optim.lr, settings.optim.weight_decay) == (2e-3, 1e-4)
    assert (settings.schedule.period_epochs, settings.schedule.minimum_lr) == (10, 1e-6)
    assert (settings.augment.hflip, settings.augment.vflip, settings.augment.blur) == (0.3, 0.3, 0.3)
    assert (settings.model.backbone, settings.model.conv_channels) == ("resnet50", (512, 256))


def test_overrides_beat_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("run: here\ndata: {dataset: there}\noptim: {lr: 1e-4}\n")
    assert config.load(config.Train, file).optim.lr == 1e-4
    assert config.load(config.Train, file, ["optim.lr=3e-4", "run=elsewhere"]).run == Path("elsewhere")
    assert config.load(config.Train, file, ["optim.lr=3e-4"]).optim.lr == 3e-4


def test_no_is_a_word_not_false() -> None:
    assert config.load(config.Train, overrides=[*REQUIRED, "train.precision=no"]).train.precision == "no"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lrr=1", "optim.lrr = 1: unknown setting; did you mean optim.lr? (valid here: optim.lr, "),
        ("epochs=3", "epochs = 3: unknown setting; did you mean train.epochs?"),
        ("train.epochs=-1", "train.epochs = -1: must be greater than 0"),
        ("model.inputs=fuson", "model.inputs = fuson: must be 'fusion', 'image' or 'features'"),
        ("augment.blur=1.5", "augment.blur = 1.5: must be less than or equal to 1"),
        ("optim.lr=fast", "optim.lr = fast: must be a valid number"),
        ("optim.lr=nan", "optim.lr = nan: must be a finite number"),
        ("model.conv_kernel=4", "model: conv_kernel must be odd: got 4"),
        ("optim.lr.x=1", "optim.lr = {'x': 1}: must be a valid number"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_valid(override: str, said: str) -> None:
    assert said in problems(*REQUIRED, override)


def test_all_problems_come_at_once() -> None:
    message = problems("run=x", "optim.lr=-1", "train.epoch=3")
    assert message.startswith("3 problems in the settings from the command line:")
    assert "data: missing" in message
    assert "did you mean train.epochs?" in message


def test_a_word_that_is_no_override_is_refused() -> None:
    assert "write key=value" in problems("train.epochs")


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: 1\na: 2\n", "stands twice"), ("- 1\n", "must hold"), ("a: [", "not valid YAML")],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"bad\.yaml") as error:
        config.load(config.Train, file)
    assert said in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read: No such file"):
        config.load(config.Train, tmp_path / "none.yaml")


def test_dump_reads_back_equal(tmp_path: Path) -> None:
    settings = config.load(config.Train, overrides=[*REQUIRED, "optim.lr=1e-8", "train.precision=no"])
    (tmp_path / "a.yaml").write_text(config.dump(settings))
    assert config.load(config.Train, tmp_path / "a.yaml") == settings


def test_differences_name_the_setting() -> None:
    one = config.load(config.Train, overrides=REQUIRED)
    other = config.load(config.Train, overrides=[*REQUIRED, "optim.lr=1"])
    assert config.differences(one, one) == []
    assert config.differences(one, other) == ["optim.lr: 0.002 there, 1.0 here"]


def test_alternatives_of_a_setting_are_one_problem() -> None:
    recipe = ["name=a", "catalogue=c.csv", "images='{id}.npy'", "bands=g,r", "pixel_scale=0", "units=x"]
    message = problems(*recipe, "source=a", "output=b", kind=config.Pack)
    assert message.startswith("2 problems")
    assert "pixel_scale = 0: must be greater than 0, or must be a mapping {a: ..., b: ...}" in message
    assert "bands = g,r: must be a list, as in [a, b]" in message


def test_splits_must_add_up() -> None:
    recipe = ["name=a", "catalogue=c.csv", "images='{id}.npy'", "bands=[g]", "pixel_scale=1", "units=x"]
    message = problems(*recipe, "source=a", "output=b", "splits={train: 0.5, test: 0.2}", kind=config.Pack)
    assert "splits must add up to 1: got 0.7" in message


def test_every_setting_has_a_meaning() -> None:
    for kind in (config.Simulate, config.Pack, config.Train, config.Evaluate):
        assert all(meaning for _, _, meaning in config.describe(kind))
