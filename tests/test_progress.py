import itertools
import logging
import sys

import pytest

from lens_hpc import progress as room
from lens_hpc.progress import Display, Progress, duration_text


@pytest.fixture
def every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is due each time."""
    monkeypatch.setattr(room, "SECONDS_BETWEEN_LINES", 0.0)


def test_off_a_terminal_it_is_a_plain_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO, "lens_hpc"):
        progress = Progress(1000, "train", "cutouts")
        progress.update(600, loss="0.5", AUC="0.9")
        assert not caplog.messages
        monkeypatch.setattr(room, "SECONDS_BETWEEN_LINES", 0.0)
        progress.update(300, loss="0.4")
    (line,) = caplog.messages
    assert line.startswith("train  900/1,000 cutouts  ")
    assert line.endswith(" cutouts/s  0 s left  loss 0.4  AUC 0.9")


@pytest.mark.usefixtures("every_line")
def test_before_one_is_done_no_time_left_is_guessed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "lens_hpc"), Progress(10, "predict", "objects") as progress:
        progress.update(0)
    assert caplog.messages == ["predict  0/10 objects  0 objects/s"]


@pytest.mark.usefixtures("every_line")
def test_other_ranks_are_silent(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda is_terminal=is_terminal: is_terminal)
        with caplog.at_level(logging.INFO, "lens_hpc"):
            with Progress(1, "pack", "rows", shown=False) as progress:
                progress.update(1)
            Display(shown=False).show("waiting")
    assert not caplog.messages
    assert capsys.readouterr().err == ""


def test_a_task_that_begins_is_shown_at_once_on_a_terminal_alone(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with caplog.at_level(logging.INFO, "lens_hpc"), Progress(2, "check", "checks") as progress:
        progress.begin("data")
    assert not caplog.messages

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(2, "check", "checks") as progress:
        progress.begin("model")
        assert "now: model" in capsys.readouterr().err


def test_a_bar_is_drawn_a_few_times_a_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    hundredths = itertools.count()
    monkeypatch.setattr(room.time, "monotonic", lambda: next(hundredths) / 100)
    with Progress(1000, "train", "cutouts") as progress:
        while next(hundredths) < 1000:
            progress.update(1)
    drawn = capsys.readouterr().err.count("train")
    assert 10 < drawn <= 1 + 10 / room.SECONDS_BETWEEN_BARS


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (99 * 60, "99 min"),
        (100 * 60, "1 h 40 min"),
        (2 * 3600 - 29, "2 h 0 min"),
        (47 * 3600, "47 h 0 min"),
        (100 * 3600, "4 d 4 h"),
    ],
)
def test_a_duration_is_said_in_words(seconds: float, words: str) -> None:
    assert duration_text(seconds) == words
