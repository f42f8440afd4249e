import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lens_hpc import cli, verbs
from lens_hpc.errors import UserError
from lens_hpc.refusals import REMEDIES, remedy_for
from lens_hpc.verbs import info
from tests.conftest import SMALL_MODEL
from tests.kills import files_of

REQUIRE_A_SETTING = {
    "combine",
    "grade",
    "pack",
    "train",
    "weights",
    "check",
    "bench",
    "predict",
    "inject",
    "completeness",
    "export",
    "sweep",
}
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
    assert verbs.header(verb).example in text.replace(" \\\n     ", "")
    assert ("(required)" in text) == (verb in REQUIRE_A_SETTING)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["info", "{}"]])
def test_a_text_that_nobody_reads_on_ends_in_silence(words: list[str], dataset: Path) -> None:
    with command(*[word.format(dataset) for word in words], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def command(*words: str, **streams: Any) -> subprocess.Popen[bytes]:
    """A command as the terminal starts it."""
    line = [sys.executable, "-m", "lens_hpc", *words]
    return subprocess.Popen(line, **{"stderr": subprocess.PIPE, **streams})


def test_a_text_that_its_file_cannot_hold_is_told(dataset: Path) -> None:
    with Path("/dev/full").open("w") as full, command("info", str(dataset), stdout=full) as process:
        assert process.stderr is not None
        told = process.stderr.read()
    assert told == b"lens-hpc: standard output: No space left on device\n"
    assert process.returncode == 2


CLOSED = "<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full"


@pytest.mark.slow
@pytest.mark.parametrize("closed", CLOSED)
def test_a_stream_that_is_closed_neither_ends_work_nor_gets_into_its_files(
    closed: str, survey: Path, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "packed"
    words = ["pack", f"{survey}/recipe.yaml", f"source={survey}", f"output={output}"]
    assert status_with(closed, *words) == (2 if "full" in closed else 0)
    assert files_of(output) == files_of(dataset)


def status_with(redirections: str, *words: str) -> int:
    """Exit status of a command whose streams a shell has redirected or closed."""
    line = shlex.join([sys.executable, "-m", "lens_hpc", *words])
    shell = ["bash", "-c", f"exec {line} {redirections}"]
    return subprocess.run(shell, check=False, capture_output=True).returncode


def status_when_it_dies(kind: str, *words: str) -> int:
    """Exit status of a command whose reader leaves: of a pipe at once, of a terminal later."""
    if kind == "pipe":
        read_from, written_to = os.pipe()
        os.close(read_from)
    else:
        read_from, written_to = pty.openpty()
    with command(*words, stdout=written_to, stderr=written_to) as process:
        os.close(written_to)
        if kind == "terminal":
            os.read(read_from, 1)
            os.close(read_from)
    return process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_packing_goes_on_when_its_reader_leaves(
    kind: str, survey: Path, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "packed"
    words = ["pack", f"{survey}/recipe.yaml", f"source={survey}", f"output={output}"]
    assert status_when_it_dies(kind, *words) == 0
    assert files_of(output) == files_of(dataset)


@pytest.mark.slow
def test_training_goes_on_when_its_terminal_is_closed_or_dies(
    dataset: Path, tmp_path: Path
) -> None:
    words = ["train", str(write_config(tmp_path, dataset))]
    runs = [tmp_path / name for name in ("seen", "closed", "dead")]
    assert status_with("", *words, f"run={runs[0]}") == 0
    assert status_with(">&- 2>&-", *words, f"run={runs[1]}") == 0
    assert status_when_it_dies("terminal", *words, f"run={runs[2]}") == 0

    trained = [load_file(run / "final" / "model.safetensors") for run in runs]
    for weights in trained[1:]:
        assert all(np.array_equal(weights[name], trained[0][name]) for name in trained[0])
    logs = [(run / "logs" / "rank-0.log").read_text() for run in runs]
    assert logs[0].count("\n") == logs[1].count("\n") == logs[2].count("\n") > 2


def write_config(folder: Path, dataset: Path) -> Path:
    tree = {
        "data": {"dataset": str(dataset), "workers": 0},
        "augment": {"engine": "torch"},
        "model": SMALL_MODEL,
        "optim": {"lr": 1e-3},
        "train": {"epochs": 2, "global_batch_size": 8},
    }
    file = folder / "train.yaml"
    file.write_text(json.dumps(tree))
    return file


def test_a_process_that_is_not_the_commands_keeps_its_streams_and_signals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without its own answer to a broken pipe, it would die when a worker process does."""
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGPIPE)
    cli.main(["--help"])
    assert (sys.stdout, sys.stderr, signal.getsignal(signal.SIGPIPE)) == before


@pytest.mark.parametrize("number", sorted(REMEDIES))
@pytest.mark.parametrize("file", [None, "some/file"])
def test_what_the_system_refuses_is_told_with_a_remedy(
    number: int,
    file: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(_: object) -> None:
        raise OSError(number, os.strerror(number), file)

    monkeypatch.setattr(info, "run", refused)
    assert cli.main(["info", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    name = file or "a file that the system does not name"
    assert told == f"lens-hpc: info: {name}: {os.strerror(number)}; {remedy_for(number)}\n"


@pytest.mark.parametrize("ours", [FileNotFoundError(2, "No such file", "x"), OSError("odd")])
def test_what_no_system_refuses_stays_our_fault(
    ours: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise ours

    monkeypatch.setattr(info, "run", fails)
    with pytest.raises(OSError, match=str(ours)[:5].replace("[", ".")):
        cli.main(["info", str(tmp_path)])


@pytest.mark.parametrize("shown", ["error", "text"])
def test_a_terminal_gets_nothing_to_obey(
    shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b[2J\x07\x9b31m\udcff\N{RIGHT-TO-LEFT OVERRIDE}\nsecond"

    def run(_: object) -> str:
        if shown == "error":
            raise UserError(hostile)
        return hostile

    monkeypatch.setattr(info, "run", run)
    monkeypatch.setattr(info, "text", str)
    cli.main(["info", str(tmp_path)])
    told = "".join(capsys.readouterr())
    assert told.endswith("\\x1b[2J\\x07\\x9b31m\\udcff\\u202e\nsecond\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "unknown verb 'trian'; did you mean train?"),
        (["TRAIN"], "unknown verb 'TRAIN'; did you mean train?"),
        (["help", "trian"], "help: unknown verb 'trian'; did you mean train?"),
        (["config"], "config needs one verb, as in\n  lens-hpc config train > my.yaml"),
        (["config", "info"], "info takes no file of settings, but key=value alone"),
        (["completion"], "completion needs a shell, bash or zsh, as in\n  source <(lens-hpc"),
        (["train"], "train needs its CONFIG first"),
        (["train", "optim.lr=1"], "train needs its CONFIG first"),
        (["train", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["evaluate", "nowhere"], "nowhere/best holds no model.safetensors"),
        (["simulate", "out", "objetcs=3"], "did you mean objects?"),
        (["info", "x" * 5000], "File name too long"),
        (["info", "seed=" + "1" * 5000], "info needs its DATASET first"),
    ],
)
def test_what_the_user_got_wrong_ends_with_2_and_one_message(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    text = capsys.readouterr().err
    assert said in text
    assert "Traceback" not in text


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([word]) == 0
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
