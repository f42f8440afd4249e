"""report.html: one file with everything that an evaluation says, for the browser, the telephone and the printer."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from scipy.special import expit

from lens_hpc import __version__
from lens_hpc.analysis import cutouts, figures
from lens_hpc.analysis.results import Results
from lens_hpc.analysis.rivals import Rival
from lens_hpc.analysis.verdict import Audit
from lens_hpc.data.reader import Split

CUTOUTS = 24
NAMES = {
    "auc": "AUC",
    "auc_bootstrap": "AUC, bootstrapped",
    "tpr0": "TPR0: completeness before the first false positive",
    "tpr10": "TPR10: completeness before the tenth",
    "tpr_at_fpr_1e-2": "completeness at a false positive rate of 1%",
    "tpr_at_fpr_1e-3": "completeness at a false positive rate of 0.1%",
    "tpr_at_fpr_1e-4": "completeness at a false positive rate of 0.01%",
    "average_precision": "average precision",
    "partial_auc": "partial AUC, false positive rate up to 1% (0.5 by chance)",
}
CAPTIONS = {
    "probability": "the model's own",
    "probability_temperature": "temperature",
    "probability_isotonic": "isotonic",
}


@dataclass(frozen=True)
class Subject:
    """What was evaluated."""

    run: Path
    inputs: str
    """What its model sees: fusion, image, features."""
    origin: dict[str, Any]
    audit: Audit | None


@dataclass(frozen=True)
class Card:
    """A cutout, and what is known of it."""

    picture: str
    id: str
    rank: int
    probability: float
    features: dict[str, float]


def write(
    folder: Path, subject: Subject, found: Results, rivals: list[Rival], split: Split, labels: np.ndarray,
    logits: np.ndarray,
) -> None:  # fmt: skip
    """Write report.html, and figures/, into `folder`."""
    curves = {f"{rival.run.name} ({rival.inputs})": rival.curve for rival in rivals if rival.curve is not None}
    drawings = figures.drawings(found, labels, logits, curves)
    if records := learning_curve(subject.run):
        drawings["learning"] = lambda axes: figures.draw_learning(axes, records)
    pictures = figures.save(folder / "figures", drawings)
    environment = Environment(
        loader=PackageLoader("lens_hpc.analysis", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        subject=subject,
        found=found,
        names=NAMES,
        captions=CAPTIONS,
        rivals=rivals,
        figures={name: data_uri("image/svg+xml", svg.encode()) for name, svg in pictures.items()},
        galleries=list(galleries(split, labels, logits)),
        manifest=split.manifest,
        probability_of=expit,
        version=__version__,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def learning_curve(run: Path) -> list[dict[str, float]]:
    """The epochs of a run; none where its record is not there."""
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []


def galleries(split: Split, labels: np.ndarray, logits: np.ndarray) -> Iterator[tuple[str, str, list[Card]]]:
    """Title, meaning and cutouts of what every lens finder wants to see first."""
    rank = np.empty(len(logits), dtype=np.int64)
    rank[np.argsort(-logits, kind="stable")] = np.arange(1, len(logits) + 1)
    best = rank.max(initial=0) + 1
    for title, meaning, label, worst_first in (
        ("Best-ranked lenses", "true lenses, the highest score first", 1, False),
        ("Worst misses", "true lenses, the lowest score first", 1, True),
        ("Worst false alarms", "no lenses, the highest score first", 0, False),
        ("Unlabelled, best-ranked", "the highest score first", -1, False),
    ):
        members = np.flatnonzero(labels == label)
        keys = best - rank[members] if worst_first else rank[members]
        chosen = members[np.argsort(keys)][:CUTOUTS]
        if len(chosen):
            yield title, meaning, [card(split, row, logits[row], rank[row]) for row in chosen]


def card(split: Split, row: int, logit: float, rank: int) -> Card:
    """One cutout of a gallery."""
    here = np.array([row])
    image = cutouts.composite(split.take("images", here)[0], split.manifest.bands)[::-1]  # the first row at the bottom
    picture = io.BytesIO()
    Image.fromarray((image * 255).astype(np.uint8)).save(picture, "png")
    values = dict(zip(split.manifest.features, split.take("features", here)[0].tolist(), strict=True))
    stated = float(expit(np.float64(logit)))
    return Card(data_uri("image/png", picture.getvalue()), str(split.ids(here)[0]), int(rank), stated, values)


def data_uri(kind: str, content: bytes) -> str:
    """Content that lies in the page itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
