import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lens_hpc import cli, verbs

HEAVY = "torch", "timm", "pandas", "pydantic", "sklearn"


def test_help_names_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from lens_hpc.cli import main; main(['--help']);"
        f"print([m for m in sys.modules if m in {HEAVY} or m.startswith('lens_hpc.verbs.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert all(f"\n  {verb} " in done.stdout for verb in verbs.names())


@pytest.mark.parametrize("verb", verbs.names())
def test_help_of_a_verb_has_settings_and_an_example(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert verbs.header(verb).example in text
    assert ("(required)" in text) == (verb in {"pack", "train", "weights", "check", "bench"})


def test_help_leaves_a_process_that_is_not_the_commands_as_it_was() -> None:
    """Without its own answer to a broken pipe, it would die when a worker process does."""
    before = signal.getsignal(signal.SIGPIPE)
    cli.main(["--help"])
    assert signal.getsignal(signal.SIGPIPE) == before


def test_help_ends_in_silence_when_nobody_reads_on() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "lens_hpc", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == -signal.SIGPIPE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "unknown verb 'trian'; did you mean train?"),
        (["train"], "train needs its CONFIG first"),
        (["train", "optim.lr=1"], "train needs its CONFIG first"),
        (["train", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["evaluate", "nowhere"], "nowhere/best holds no model.safetensors"),
        (["simulate", "out", "objetcs=3"], "did you mean objects?"),
    ],
)
def test_what_the_user_got_wrong_ends_with_2_and_one_message(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    text = capsys.readouterr().err
    assert said in text
    assert "Traceback" not in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lens-hpc 0.")


def test_module_and_console_script_are_one_program(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("lens-hpc")
    answers = [
        subprocess.run(
            [*command, "--version"], capture_output=True, text=True, cwd=tmp_path, check=True
        ).stdout
        for command in ([str(script)], [sys.executable, "-m", "lens_hpc"])
    ]
    assert answers[0] == answers[1]
