"""`lens-hpc config VERB > my.yaml`: the verb takes the file as it is."""

from pathlib import Path

import pytest

from lens_hpc import cli, settings, verbs
from lens_hpc.describing import describe
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.yaml_parsing import parse_yaml

TAKES_A_FILE = [verb for verb in verbs.names() if not verbs.header(verb).target_setting]
TAKES_A_RECIPE = ["inject", "completeness"]


def written(verb: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.main(["config", verb]) == 0
    file = folder / "my.yaml"
    file.write_text(capsys.readouterr().out)
    return file


@pytest.mark.parametrize("verb", TAKES_A_FILE)
def test_a_verb_takes_its_file_as_it_is_and_it_changes_nothing(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(verb, tmp_path, capsys)
    kind = verbs.module(verb).Settings
    example = tmp_path / "example.yaml"
    example.write_text(kind.example)
    assert verbs.read_settings(verb, [file]) == settings.load(kind, example)


@pytest.mark.parametrize("verb", TAKES_A_RECIPE)
def test_a_recipe_is_taken_as_it_is(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(verb, tmp_path, capsys)
    read = settings.load(InjectionRecipe, file)
    assert read == InjectionRecipe.model_validate(parse_yaml(InjectionRecipe.example))
    targets = [Path("run"), Path("hosts")] if verb == "completeness" else [Path("hosts")]
    words = [f"recipe={file}"] + ["output=o"] * (verb == "inject")
    verbs.read_settings(verb, targets, words)


@pytest.mark.parametrize("verb", [*TAKES_A_FILE, "inject"])
def test_every_setting_stands_in_the_file_below_its_meaning(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = written(verb, tmp_path, capsys).read_text()
    words = " ".join(text.replace("#", " ").split())
    kind = verbs.module(verb).Settings
    kind = kind.kind_of_recipe or kind
    for setting in describe(kind):
        if setting.is_of_choice or setting.key == "code":
            continue
        meaning = " ".join(setting.meaning.replace("#", " ").split())
        assert f"{meaning} {setting.key.rpartition('.')[2]}:" in words
    assert [
        line for line in text.splitlines() if line.lstrip().startswith("#") and len(line) > 80
    ] == []


def test_what_depends_on_the_machine_is_a_comment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = written("pack", tmp_path, capsys).read_text()
    assert "\n# processes: " in text
    assert "\nprocesses: " not in text
    assert "\nsplits: {train: 0.7, val: 0.15, test: 0.15}\n" in text
