import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lens_hpc import logs


@contextmanager
def unconfigured() -> Iterator[None]:
    """Logging as it is in a fresh process: pytest has handlers of its own at the root."""
    root = logging.getLogger()
    handlers = root.handlers
    level = logs.logger.level
    root.handlers = []
    logs.logger.setLevel(logging.NOTSET)
    try:
        yield
    finally:
        root.handlers = handlers
        logs.logger.setLevel(level)


def state() -> tuple[list[logging.Handler], int, list[logging.Handler], int]:
    root = logging.getLogger()
    return list(logs.logger.handlers), logs.logger.level, list(root.handlers), root.level


# ---- log lines ----


def test_lines_are_shown_where_nobody_configured_logging(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with unconfigured():
        before = state()
        with logs.shown():
            logs.logger.info("a line")
            with logs.shown():
                logs.logger.info("once")
        assert state() == before
        logs.logger.info("not any more")
    assert capsys.readouterr().err == "a line\nonce\n"


def test_other_ranks_show_warnings_with_their_rank(capsys: pytest.CaptureFixture[str]) -> None:
    with unconfigured(), logs.shown(rank=3):
        logs.logger.info("a line")
        logs.logger.warning("a warning")
    assert capsys.readouterr().err == "[rank 3] a warning\n"


def test_logging_that_is_configured_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with unconfigured():
        logging.getLogger().addHandler(logging.NullHandler())
        before = state()
        with logs.shown():
            assert state() == before
            logs.logger.warning("a warning")
    assert capsys.readouterr().err == ""


def test_an_error_leaves_nothing_behind() -> None:
    with unconfigured():
        before = state()
        with pytest.raises(KeyError), logs.shown():
            raise KeyError
        assert state() == before


def test_a_file_gets_the_lines_meanwhile(tmp_path: Path) -> None:
    file = tmp_path / "rank-0.log"
    before = state()
    with logs.to_file(file):
        logs.logger.warning("the first")
        added = set(logs.logger.handlers) - set(before[0])
        (handler,) = (each for each in added if isinstance(each, logging.FileHandler))
    logs.logger.warning("no more")
    assert state() == before
    assert isinstance(handler, logging.FileHandler)
    assert handler.stream is None

    with logs.to_file(file):
        logs.logger.warning("the second")
    lines = file.read_text().splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == ["the first", "the second"]


def test_a_file_gets_what_the_users_own_logging_does_not_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with unconfigured():
        own = logging.StreamHandler(sys.stderr)
        logging.root.addHandler(own)
        logging.root.setLevel(logging.WARNING)
        try:
            before = state()
            with logs.shown(), logs.to_file(tmp_path / "rank-0.log"):
                logs.logger.info("an epoch")
                logs.logger.warning("a warning")
            assert state() == before
        finally:
            logging.root.removeHandler(own)
    assert "an epoch" in (tmp_path / "rank-0.log").read_text()
    assert capsys.readouterr().err == "a warning\n"


def test_another_logger_is_quieted_meanwhile() -> None:
    other = logging.getLogger("some.library")
    other.setLevel(logging.DEBUG)
    with logs.quieted("some.library"):
        assert not other.isEnabledFor(logging.WARNING)
        assert other.isEnabledFor(logging.ERROR)
    assert other.level == logging.DEBUG


HOSTILE = "\x1b[2J\x07\udcff\nsecond"
SHOWN = "\\x1b[2J\\x07\\udcff\nsecond\n"


def test_lines_hold_nothing_for_a_terminal_to_obey(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rank-0.log"
    with unconfigured(), logs.shown(), logs.to_file(file):
        logs.logger.warning("%s", HOSTILE)
    with unconfigured():
        logs.setup()
        logs.logger.warning("%s", HOSTILE)
    assert capsys.readouterr().err == 2 * SHOWN
    assert file.read_text().endswith(SHOWN)


def test_a_log_file_on_a_full_disk_ends_no_work(capsys: pytest.CaptureFixture[str]) -> None:
    with unconfigured(), logs.to_file(Path("/dev/full")):
        logs.logger.warning("a line")
    assert capsys.readouterr().err == ""


def test_an_output_keeps_why_something_was_lost(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with logs.Output(writer) as output:
        print("read", file=output)
        assert os.read(reader, 99) == b"read\n"
        assert output.failure is None
        os.close(reader)
        print("lost\ud800", file=output)
        assert isinstance(output.failure, BrokenPipeError)
    os.close(writer)

    file = tmp_path / "kept"
    for line in "first", "second \ud800":
        with logs.Output(str(file)) as output:
            print(line, file=output)
    assert file.read_text() == "first\nsecond \\ud800\n"


def test_an_output_waits_for_its_reader_where_the_system_does_not() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text = "a line\n" * 100_000

    def write() -> None:
        with logs.Output(writer) as output:
            output.write(text)
        os.close(writer)

    writing = threading.Thread(target=write)
    writing.start()
    with os.fdopen(reader) as read:
        assert read.read() == text
    writing.join()


def test_a_library_that_sets_its_own_level_is_quieted_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As DeepSpeed does when it is imported."""
    other = logging.getLogger("some_library")
    with logs.quieted("some_library"):
        other.setLevel(logging.WARNING)
        other.warning("of no use to anybody")
        other.error("of some use")
    other.warning("told again")
    assert [record.message for record in caplog.records] == ["of some use", "told again"]
