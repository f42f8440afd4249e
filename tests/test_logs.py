import logging

import pytest

from lens_hpc import logs


def test_progress_off_a_terminal_is_a_plain_line_now_and_then(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with caplog.at_level(logging.INFO, "lens_hpc"):
        progress = logs.Progress(1000, "train", "cutouts")
        progress.update(600, loss="0.5", AUC="0.9")
        assert not caplog.messages
        monkeypatch.setattr(logs, "SECONDS_BETWEEN_LINES", 0.0)
        progress.update(300, loss="0.4")
    (line,) = caplog.messages
    assert line.startswith("train  900/1,000 cutouts  ")
    assert line.endswith(" cutouts/s  0 s left  loss 0.4  AUC 0.9")


def test_progress_of_other_ranks_is_silent(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level(logging.INFO, "lens_hpc"):
        progress = logs.Progress(1, "pack", "rows", shown=False)
        progress.update(1)
        progress.close()
    assert not caplog.messages
