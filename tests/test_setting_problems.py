"""Whole messages about settings, and that no word of the libraries' gets into them."""

from pathlib import Path

import pytest

from lens_hpc import config, settings, verbs
from lens_hpc.describing import describe
from lens_hpc.errors import UserError
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.setting_problems import MOST_PROBLEMS

WRONG = (
    "no such word",
    None,
    -1,
    1.5,
    True,
    [],
    ["a", "b", "c"],
    [-1, -2],
    {},
    {"a": None},
    {"a": {"b": "c"}},
    [{"a": 1}],
)
FOREIGN = (
    "instance of",
    "Input should",
    "dictionary",
    "uple",
    "<class",
    "Path",
    "valid string",
    "valid integer",
    "unable to",
    "after validation",
    "function",
    "None",
    "True",
    "pydantic",
)


def told(kind: type[settings.Settings], tree: object, file: Path | None = None) -> str:
    with pytest.raises(UserError) as error:
        settings.load(kind, file, values=tree)
    return str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("verb", [*verbs.names(), "recipe of inject"])
def test_no_wrong_value_is_told_in_words_of_a_library(verb: str) -> None:
    """Each setting of each verb gets values of all kinds; most are wrong."""
    kind = InjectionRecipe if verb == "recipe of inject" else verbs.module(verb).Settings
    messages = ""
    for setting in describe(kind):
        for value in WRONG:
            try:
                settings.load(kind, values={setting.key: value})
            except UserError as error:
                messages += str(error)
    assert messages
    assert [word for word in FOREIGN if word in messages] == []


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "data: {dataset: d}",
            ["run: missing (folder of the run); give run=... or write it into FILE"],
        ),
        (
            "run: r\ndata:{dataset: d}",
            [
                "data.dataset: missing (folder of the packed dataset); give data.dataset=... or "
                "write it into FILE",
                "data:{dataset = d}: unknown setting; behind a colon must be a blank",
            ],
        ),
        (
            "run: r",
            [
                "data.dataset: missing (folder of the packed dataset); give data.dataset=... or "
                "write it into FILE"
            ],
        ),
        ("run: r\ndata: d", ["data = d: is a group of settings; write data.dataset=d"]),
        (
            "run: r\ndata:\ndataset: d",
            [
                "data = null: is a group of settings; they stand below it, indented: dataset, "
                "image_scale, shuffle, ...",
                "dataset = d: unknown setting; did you mean data.dataset? (valid: run, data, "
                "augment, model, loss, optim, schedule, train, checkpoint, resume, code)",
            ],
        ),
        (
            "run: r\ndata: {dataset: d}\noptim:\n- lr: 1",
            [
                "optim = [{lr: 1}]: is a group of settings (lr, weight_decay, backbone_lr_factor, "
                "...), no list; leave out the dashes or brackets"
            ],
        ),
        (
            "run: r\ndata: {dataset: d}\ntrain: 5",
            ["train = 5: is a group of settings; give one of them, as train.epochs=..."],
        ),
        (
            "run: r\ndata: {dataset: d}\ntrain: {compile: maybe, epochs: many}",
            [
                "train.epochs = many: must be a whole number",
                "train.compile = maybe: must be true or false",
            ],
        ),
        (
            "run: r\ndata: {dataset: d}\nmodel: {conv_channels: 8}\nresume: {allow: optim.lr}",
            [
                "model.conv_channels = 8: must be a list, as in [a, b]",
                "resume.allow = optim.lr: must be a list; write [optim.lr]",
            ],
        ),
        (
            "run: r\ndata: {dataset: d}\nmodel: {conv_channels: [8]}",
            ["model.conv_channels: must have 2 values"],
        ),
    ],
)
def test_a_config_with_mistakes_gets_this_message(
    text: str, problems: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    listed = "\n".join(f"  {problem}" for problem in problems).replace("FILE", str(file))
    assert told(config.Train, {}, file) == f"{count} in the settings from {file}:\n{listed}"


RECIPE = "name: a\ncatalogue: c\nbands: [g]\npixel_scale: 1\nunits: x\nsource: s\noutput: o\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "images: x\ncolumns: id",
            "columns = id: is a group of settings; give one of them, as columns.id=...",
        ),
        ("mosaics: m", "mosaics = m: is a group of settings; write mosaics.path=m"),
        (
            "mosaics: {ra: RA}",
            "mosaics.path: missing (path of a mosaic in the source folder); give mosaics.path=... "
            "or write it into FILE",
        ),
        (
            "images: x\njoin: {catalogue: y}",
            "join.key: missing (column that both have); give join.key=... or write it into FILE",
        ),
        (
            "images: x\nmasks: {hud: 1}",
            "masks.hud = 1: unknown setting; did you mean masks.hdu? (valid in masks: hdu, key, "
            "bad)",
        ),
    ],
)
def test_a_recipe_with_a_mistake_gets_this_message(text: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(RECIPE + text)
    said = f"1 problem in the settings from {file}:\n  {problem}".replace("FILE", str(file))
    assert told(PackSettings, {}, file) == said


def test_what_an_injection_lacks_is_told_by_its_parts() -> None:
    tree = {"psf": {"g": 1.0}, "sources": {"z": 2}}
    assert told(InjectionRecipe, tree).splitlines()[1:] == [
        "  deflector: missing; give at least one of its settings: deflector.einstein_radius=..., "
        "deflector.sigma_v=..., deflector.magnitude=..., ...",
        "  sources.z = 2: must be a mapping with one of fixed, uniform, normal, within, power, "
        "column, as in {fixed: ...}",
        "  sources.magnitude: missing (AB magnitude in `band`); give sources.magnitude=...",
        "  sources.band: missing (the reference band); give sources.band=...",
    ]


def test_of_many_problems_the_first_are_told() -> None:
    tree = {"run": "r", "data": {"dataset": "d"}} | {f"x{number}": 1 for number in range(30)}
    lines = told(config.Train, tree).splitlines()
    assert lines[0].startswith(f"more than {MOST_PROBLEMS} problems in the settings from")
    assert len(lines) == 1 + MOST_PROBLEMS + 1
    assert lines[-1] == "  and 10 more"
