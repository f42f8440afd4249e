"""Completion, by bash itself; zsh where there is one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lens_hpc import verbs
from lens_hpc.completion import completion_script
from lens_hpc.help import OTHER_WORDS, settings_of

ASK = """
options=
source {script}
COMP_WORDS=({words})
COMP_CWORD={position}
compopt() {{ options="$options $*"; }}
_lens_hpc
printf '%s\\n' "${{COMPREPLY[@]}}"
echo "options:$options"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "lens-hpc"
    file.write_text(completion_script("bash"))
    return file


def complete(script: Path, *words: str) -> tuple[list[str], str]:
    """Ask bash for what may stand in place of the last word; and how it is to be completed."""
    quoted = " ".join(f"'{word}'" for word in ("lens-hpc", *words))
    ask = ASK.format(script=script, words=quoted, position=len(words))
    done = subprocess.run(
        ["bash", "--norc", "-u", "-c", ask], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    *found, options = done.stdout.split("\n")[:-1]
    return [word for word in found if word], options.removeprefix("options:")


def test_verbs_and_other_words_come_first(script: Path) -> None:
    found, _ = complete(script, "")
    assert sorted(found) == sorted([*verbs.names(), *OTHER_WORDS])
    assert complete(script, "tr")[0] == ["train"]


@pytest.mark.parametrize("verb", verbs.names())
def test_all_settings_of_a_verb_are_completed_and_wait_for_a_value(verb: str, script: Path) -> None:
    found, options = complete(script, verb, "target", "")
    assert found == [f"{setting.key}=" for setting in settings_of(verb)]
    assert ("nospace" in options) == bool(found)


def test_words_that_are_valid_are_completed_behind_the_equals_sign(script: Path) -> None:
    """bash takes key=value for three words."""
    assert complete(script, "train", "a.yaml", "model.in")[0] == ["model.inputs="]
    found, options = complete(script, "train", "a.yaml", "model.inputs", "=")
    assert found == ["fusion", "image", "features"]
    assert "nospace" not in options
    assert complete(script, "train", "a.yaml", "model.inputs", "=", "f")[0] == [
        "fusion",
        "features",
    ]
    assert complete(script, "pack", "a.yaml", "dry_run", "=", "t")[0] == ["true"]


def test_files_are_left_to_bash(script: Path) -> None:
    for words in (("train", ""), ("train", "a.yaml", "data.dataset", "="), ("predict", "r", "x")):
        found, options = complete(script, *words)
        assert found == []
        assert "-o default" in options


def test_words_that_take_a_verb_or_a_shell(script: Path) -> None:
    assert complete(script, "help", "tr")[0] == ["train"]
    assert complete(script, "config", "pa")[0] == ["pack"]
    assert complete(script, "completion", "")[0] == ["bash", "zsh"]


@pytest.mark.slow
def test_the_command_writes_it_without_torch(script: Path) -> None:
    code = (
        "import sys; from lens_hpc.cli import main; main(['completion', 'bash']);"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip() == script.read_text().rstrip()


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh_takes_its_script(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(completion_script("zsh"))
    subprocess.run(["zsh", "-n", str(file)], check=True)
