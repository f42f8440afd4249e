"""RUN/metrics.jsonl: a line for each epoch, with what is known of it."""

import json
from pathlib import Path

from lens_hpc import files, layout
from lens_hpc.refusals import refusals_named

EpochFacts = dict[str, float]


def read_metrics_log(run: Path) -> list[EpochFacts]:
    """Read what was recorded of each epoch; nothing when there is no log."""
    return [json.loads(line) for line in _lines(run)]


def append_to_metrics_log(run: Path, facts: EpochFacts) -> None:
    """Record an epoch, and wait until the disk has it."""
    path = run / layout.METRICS_LOG
    with refusals_named(path, "the epochs before are kept"):
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
        files.sync(path)


def cut_metrics_log(run: Path, epochs: int) -> None:
    """Keep the first epochs alone: those after them will be recorded again."""
    kept = "".join(f"{line}\n" for line in _lines(run)[:epochs])
    files.write_text(run / layout.METRICS_LOG, kept)


def _lines(run: Path) -> list[str]:
    path = run / layout.METRICS_LOG
    if not path.is_file():
        return []
    # A last line without its end was cut off by a kill.
    complete, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return complete.splitlines()
