"""What --help shows: first what people change, all of it by group, in 80 columns."""

import re
import shlex

import pytest

from lens_hpc import cli, verbs
from lens_hpc.describing import describe
from lens_hpc.help import WIDTH, overview, settings_of, verb_help
from lens_hpc.setting_problems import nearest_key
from lens_hpc.yaml_parsing import parse_yaml


@pytest.mark.parametrize("verb", verbs.names())
@pytest.mark.parametrize("shows_all", [False, True])
def test_no_line_is_wider_than_a_terminal(verb: str, shows_all: bool) -> None:
    wide = [line for line in verb_help(verb, shows_all).splitlines() if len(line) > WIDTH]
    assert wide == []
    assert [line for line in overview().splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize("verb", verbs.names())
def test_all_settings_are_listed_once_and_those_that_are_changed_first_exist(verb: str) -> None:
    keys = [setting.key for setting in settings_of(verb)]
    listed = re.findall(r"^  ([a-z][\w.]*) =", verb_help(verb, shows_all=True), re.MULTILINE)
    assert sorted(listed) == sorted(keys)

    first = verbs.module(verb).Settings.shown_first
    not_of_the_verb = set(first) - set(keys)
    assert not_of_the_verb <= {"processes"}  # train's, which weights shares
    shown = re.findall(r"^  ([a-z][\w.]*) =", verb_help(verb), re.MULTILINE)
    assert shown == [key for key in first if key in keys] or not first


def test_settings_that_a_verb_has_beside_anothers_come_first() -> None:
    text = verb_help("check")
    assert text.index("  world_size = 1") < text.index("  run = (required)")


def test_the_rest_is_listed_by_group_with_its_purpose() -> None:
    text = verb_help("train", shows_all=True)
    assert "\n\noptim: AdamW.\n  optim.lr = 0.002\n" in text
    assert text.index("  run = ") < text.index("\ndata: Where samples come from.")


@pytest.mark.parametrize("verb", [verb for verb in verbs.names() if "YAML" in verb_help(verb)])
def test_the_example_of_a_file_is_shown_and_is_valid(verb: str) -> None:
    kind = verbs.module(verb).Settings
    kind = kind.kind_of_recipe or kind
    kind.model_validate(parse_yaml(kind.example))
    indented = "".join(f"  {line}\n" for line in kind.example.strip().splitlines())
    assert f"is YAML, such as:\n{indented}lens-hpc config {verb} > my.yaml" in verb_help(verb)


def test_examples_can_be_pasted() -> None:
    for verb in verbs.names():
        command = re.search(r"Example:\n((?:.*\\\n)*.*)\n", verb_help(verb))
        assert command
        assert shlex.split(command[1].replace("\\\n", "")) == shlex.split(
            verbs.header(verb).example
        )


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ([], ["--help"]),
        (["help"], ["--help"]),
        (["-h"], ["--help"]),
        (["help", "train"], ["train", "--help"]),
        (["help", "train", "all"], ["train", "--help", "all"]),
        (["train", "-h"], ["train", "x.yaml", "--help"]),
    ],
)
def test_help_has_several_doors(
    words: list[str], same: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert cli.main(same) == 0
    assert capsys.readouterr().out == text


def test_a_setting_that_is_near_is_found() -> None:
    keys = [setting.key for setting in describe(verbs.module("train").Settings)]
    assert nearest_key(keys, "epochs", "epochs") == "train.epochs"
    assert nearest_key(keys, "data.datset", "datset") == "data.dataset"
    assert nearest_key(keys, "zzz", "zzz") == ""
