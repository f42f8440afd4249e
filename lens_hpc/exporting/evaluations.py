"""What the model card says of how good a model is: its run's evaluations, and their figures."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lens_hpc import files, layout
from lens_hpc.logs import logger
from lens_hpc.metrics.table import METRICS, Metric

PICTURES = {
    "roc_log": "Completeness against the rate of false positives",
    "scores": "Logits of lenses and non-lenses",
    "calibration": "Do the probabilities come true?",
}
"""Figures of an evaluation that the card shows."""


class MetricRow(NamedTuple):
    """A metric of an evaluation, as it is shown."""

    title: str
    value: str
    interval: str


class CopiedFigure(NamedTuple):
    """A figure, relative to the card."""

    file: str
    caption: str


@dataclass(frozen=True)
class Evaluated:
    """What the card says of one evaluation."""

    title: str
    n: int
    n_lenses: int
    rows: list[MetricRow]
    pictures: list[CopiedFigure]
    trained_on: int
    """Objects that the model was trained on, which make its figures too good."""


def read_evaluations(
    run: Path, weights: str, epoch: str | None, output: Path
) -> Iterator[Evaluated]:
    """Yield what a run's evaluations say of these weights alone, and copy figures to `output`.

    Ensembles are left out, and with a warning those that are damaged, or of another epoch.
    """
    folder = layout.evaluation_folder(run, "")
    for file in sorted(folder.glob(f"[!.]*/{layout.METRICS}")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            if len(record["runs"]) > 1 or record["weights"] != weights:
                continue
            # Earlier versions do not say.
            if record.get("epochs", [epoch]) == [epoch]:
                yield _describe(record, file.parent, output)
            else:
                logger.warning(
                    "%s: is not of the weights of epoch %s, and not in the card; evaluate them "
                    "again",
                    file,
                    epoch,
                )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            logger.warning("%s: is damaged (%s), and not in the card", file, error)


def _describe(record: dict[str, Any], source: Path, output: Path) -> Evaluated:
    augmented = "" if record["tta"] == "none" else f", test-time augmentation {record['tta']}"
    # Runs of earlier versions do not know; an id alone proves little.
    seen = record.get("trained_on") or {"by_pixels": 0, "by_position": 0}
    return Evaluated(
        title=f"Split {record['split']} of {record['dataset']}{augmented}",
        n=record["n"],
        n_lenses=record["n_lenses"],
        rows=[_describe_metric(metric, record) for metric in METRICS if not metric.repeats],
        pictures=list(_copy_pictures(source, output)),
        trained_on=max(seen["by_pixels"], seen["by_position"]),
    )


def _describe_metric(metric: Metric, record: dict[str, Any]) -> MetricRow:
    value = record.get(metric.key)
    if value is None:
        why_not = record.get("not_said", {}).get(metric.key, "unknown to the version that made it")
        return MetricRow(metric.title, why_not, "")

    interval = record.get(f"{metric.key}_ci95")
    if interval is None:
        return MetricRow(metric.title, f"{value:.4f}", "")
    low, high = interval
    return MetricRow(metric.title, f"{value:.4f}", f"{low:.4f} to {high:.4f}")


def _copy_pictures(source: Path, output: Path) -> Iterator[CopiedFigure]:
    """Copy the figures of an evaluation that are there, each evaluation's to a folder."""
    for name, caption in PICTURES.items():
        figure = source / layout.FIGURES / f"{name}.png"
        if figure.is_file():
            copied = Path(layout.FIGURES, source.name, figure.name)
            files.make_folder(output / copied.parent)
            shutil.copyfile(figure, output / copied)
            yield CopiedFigure(copied.as_posix(), caption)
