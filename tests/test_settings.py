import os
import threading
from pathlib import Path

import pytest
import yaml

from lens_hpc import config, describing, settings, verbs
from lens_hpc.errors import UserError
from lens_hpc.packing.recipe import PackSettings

REQUIRED = ["run=runs/x", "data.dataset=data/x"]


def problems(*overrides: str, kind: type[settings.Settings] = config.Train) -> str:
    with pytest.raises(UserError) as error:
        settings.load(kind, overrides=overrides)
    return str(error.value)


def test_overrides_beat_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("run: here\ndata: {dataset: there}\noptim: {lr: 1e-4}\n")
    assert settings.load(config.Train, file).optim.lr == 1e-4
    assert settings.load(config.Train, file, ["optim.lr=3e-4", "run=elsewhere"]).run == Path(
        "elsewhere"
    )
    assert settings.load(config.Train, file, ["optim.lr=3e-4"]).optim.lr == 3e-4


def test_no_is_a_word_not_false() -> None:
    assert (
        settings.load(config.Train, overrides=[*REQUIRED, "train.precision=no"]).train.precision
        == "no"
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "optim.lrr=1",
            "optim.lrr = 1: unknown setting; did you mean optim.lr? (valid in optim: lr, weight",
        ),
        ("epochs=3", "epochs = 3: unknown setting; did you mean train.epochs?"),
        ("train.epochs=-1", "train.epochs = -1: must be greater than 0"),
        (
            "model.inputs=fuson",
            "model.inputs = fuson: must be fusion, image or features; did you mean fusion?",
        ),
        ("augment.blur=1.5", "augment.blur = 1.5: must be less than or equal to 1"),
        ("optim.lr=fast", "optim.lr = fast: must be a number"),
        ("optim.lr=0,5", "optim.lr = 0,5: must be a number; write 0.5"),
        ("optim.lr=nan", "optim.lr = nan: must be a finite number"),
        ("model.conv_kernel=4", "model: conv_kernel must be odd: got 4"),
        (
            "augment.engine=trch",
            "must be albumentations, torch, or mypackage.module.Name: got trch",
        ),
        ("optim.lr.x=1", "optim.lr = {x: 1}: must be a number"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_valid(override: str, said: str) -> None:
    assert said in problems(*REQUIRED, override)


def test_all_problems_come_at_once() -> None:
    message = problems("run=x", "optim.lr=-1", "train.epoch=3")
    assert message.startswith("3 problems in the settings from the command line:")
    assert "data.dataset: missing (folder of the packed dataset); give data.dataset=..." in message
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
        settings.load(config.Train, file)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (r'run: "a\0"', "run"),
        (r'data: {dataset: "a\0b"}', "data.dataset"),
        (r'code: ["\0"]', "code"),
        (r'data: {"d\0": 1}', "the name .*data"),
    ],
)
def test_a_nul_within_a_text_is_named(text: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key}.*: must not hold the character NUL"):
        settings.load(config.Train, values=yaml.safe_load(text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read: No such file"):
        settings.load(config.Train, tmp_path / "none.yaml")


def test_dump_reads_back_equal(tmp_path: Path) -> None:
    loaded = settings.load(
        config.Train, overrides=[*REQUIRED, "optim.lr=1e-8", "train.precision=no"]
    )
    (tmp_path / "a.yaml").write_text(settings.dump(loaded))
    assert settings.load(config.Train, tmp_path / "a.yaml") == loaded


def test_differences_name_the_setting() -> None:
    one = settings.load(config.Train, overrides=REQUIRED)
    other = settings.load(config.Train, overrides=[*REQUIRED, "optim.lr=1"])
    assert settings.differences(one, one) == []
    assert settings.differences(one, other) == ["optim.lr: 0.002 there, 1.0 here"]


def test_alternatives_of_a_setting_are_one_problem() -> None:
    recipe = [
        "name=a",
        "catalogue=c.csv",
        "images='{id}.npy'",
        "bands=g,r",
        "pixel_scale=0",
        "units=x",
    ]
    message = problems(*recipe, "source=a", "output=b", kind=PackSettings)
    assert message.startswith("2 problems")
    assert (
        "pixel_scale = 0: must be greater than 0, or must be a mapping, as in {a: ..., b: ...}"
        in message
    )
    assert "bands = g,r: must be a list; write [g, r]" in message


def test_splits_must_add_up() -> None:
    recipe = [
        "name=a",
        "catalogue=c.csv",
        "images='{id}.npy'",
        "bands=[g]",
        "pixel_scale=1",
        "units=x",
    ]
    message = problems(
        *recipe, "source=a", "output=b", "splits={train: 0.5, test: 0.2}", kind=PackSettings
    )
    assert "splits must add up to 1: got 0.7" in message


def test_every_setting_has_a_meaning() -> None:
    for verb in verbs.names():
        for setting in describing.describe(verbs.module(verb).Settings):
            assert setting.meaning, f"{verb}: {setting.key}"


def test_python_values_beat_the_file_and_join_its_groups(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("run: here\ndata: {dataset: there}\noptim: {lr: 1.0, weight_decay: 0.5}\n")
    loaded = settings.load(config.Train, file, values={"optim": {"lr": 3e-4}, "run": Path("x")})
    assert (loaded.optim.lr, loaded.optim.weight_decay, loaded.run) == (3e-4, 0.5, Path("x"))


def test_a_mapping_that_is_no_group_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "name: a\ncatalogue: c.csv\nimages: '{id}.npy'\nbands: [g]\npixel_scale: 1\nunits: x\n"
    )
    values = {"source": "s", "output": "o", "splits": {"train": 0.5, "test": 0.5}}
    assert settings.load(PackSettings, file, values=values).splits == {"train": 0.5, "test": 0.5}


@pytest.mark.parametrize("text", ["{id}.npy", "{id}", "{field}/{id:06d}.fits", "{id:[a-z]+}.npy"])
def test_a_template_on_the_command_line_is_a_text(text: str) -> None:
    recipe = ["name=a", "catalogue=c.csv", "bands=[g]", "pixel_scale=1", "units=x"]
    where = ["source=a", "output=b"]
    read = settings.load(PackSettings, overrides=[*recipe, *where, f"images={text}"])
    assert read.images == text


HARMLESS = {
    "aliases": "a: &a [1, 2]\nb: *a\nc: [*a, *a]\n",
    "a merge": "a: &a {x: 1}\nb: {<<: *a, y: 2}\n",
    "a list of 9,000 files": "stack: [" + ", ".join(f"f{n}.npy" for n in range(9000)) + "]\n",
    "a byte order mark": "\ufeffa: 1\n",
    "a long text": "a: " + "x" * 100_000 + "\n",
    "a list of 25,000 numbers": "a: [" + "1, " * 25_000 + "]\n",
    "tags of plain values": "a: !!str 2024\nb: !!float 3\nc: !!map {d: !!seq [!!int '4']}\ne: ! 5",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_bounded_leaves_room(tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(HARMLESS[name], encoding="utf-8")
    text = HARMLESS[name].removeprefix("\ufeff")
    assert settings.read_yaml(file) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text",
    ["!!bool yes", "!!int abc", "!!int ''", "!!float x", "!!map 3", "!!str [a]", "!!set {a}"],
)
def test_a_tag_that_does_not_fit_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(f"a: {text}")
    with pytest.raises(UserError, match="is not valid YAML"):
        settings.read_yaml(tmp_path / "a.yaml")


def test_settings_come_through_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=["a: 1\n" + "# comment\n" * 10_000])
    writer.start()
    assert settings.read_yaml(pipe) == {"a": 1}
    writer.join()

    monkeypatch.setattr(settings, "SECONDS_OF_PIPE", 0.1)
    with pytest.raises(UserError, match="pipe into which nothing is written"):
        settings.read_yaml(pipe)
    for no_file in (tmp_path, Path("/dev/null")):
        with pytest.raises(UserError, match="is no file"):
            settings.read_yaml(no_file)


def test_a_setting_of_many_groups_or_a_long_number_is_refused() -> None:
    assert "nested less than" in problems(*REQUIRED, "a." * 3000 + "b=1")
    assert "not valid YAML" in problems(*REQUIRED, "train.epochs=" + "1" * 5000)
    assert "nested more than" in problems(*REQUIRED, "train.epochs=" + "[" * 3000)
    reason = problems(*REQUIRED, "train.epochs=" + "1" * 4000)
    assert reason.endswith("...: must not have more than 64 bits")
    assert len(reason) < 200
