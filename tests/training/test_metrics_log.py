from pathlib import Path

from lens_hpc.training.metrics_log import (
    append_to_metrics_log,
    cut_metrics_log,
    read_metrics_log,
)


def test_epochs_are_read_as_they_were_recorded(tmp_path: Path) -> None:
    assert read_metrics_log(tmp_path) == []
    epochs = [
        {"epoch": 1, "loss": 0.1 + 0.2},
        {"epoch": 2, "loss": 1e-9},
        {"epoch": 3, "loss": 2.0},
    ]
    for facts in epochs:
        append_to_metrics_log(tmp_path, facts)
    assert read_metrics_log(tmp_path) == epochs
    cut_metrics_log(tmp_path, 2)
    assert read_metrics_log(tmp_path) == epochs[:2]


def test_cutting_what_is_not_there_makes_an_empty_log(tmp_path: Path) -> None:
    cut_metrics_log(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
