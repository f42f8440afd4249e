"""report.html: one file with all that an evaluation says, for browser, telephone and printer."""

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from scipy.special import expit

from lens_hpc import layout
from lens_hpc._version import __version__
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.verdict import Audit
from lens_hpc.logs import logger
from lens_hpc.reporting import figures, pictures
from lens_hpc.reporting.comparison import Comparison
from lens_hpc.reporting.results import Results
from lens_hpc.scoring.predictions import Scores
from lens_hpc.scoring.provenance import SeenBefore

TEMPLATE = "report.html.j2"
CUTOUTS = 24
PROBABILITY_TITLES = {name: style[0] for name, style in figures.PROBABILITY_STYLES.items()}


@dataclass(frozen=True)
class Subject:
    """What was evaluated."""

    run: Path
    inputs: str
    """What its model sees: fusion, image or features."""
    origin: dict[str, Any]
    """Runs, dataset, split, weights and test-time augmentation, as in metrics.json."""
    audit: Audit | None
    seen: SeenBefore | None = None
    """Rows that the run was trained on; None where it does not keep which they were."""


def write_report(
    folder: Path,
    subject: Subject,
    results: Results,
    comparisons: list[Comparison],
    split: Split,
    scores: Scores,
) -> None:
    """Write report.html and figures/ into a folder."""
    drawings = _choose_drawings(subject, results, comparisons, scores)
    svgs = figures.save_figures(folder / layout.FIGURES, drawings)

    page = _fill_template(
        subject=subject,
        results=results,
        comparisons=comparisons,
        figures={name: _data_uri("image/svg+xml", svg.encode()) for name, svg in svgs.items()},
        galleries=list(make_galleries(split, scores.labels, scores.logits)),
        manifest=split.manifest,
    )
    # The name of a run may have bytes that are no UTF-8.
    (folder / layout.REPORT).write_text(page, encoding="utf-8", errors="backslashreplace")


def _fill_template(**parts: Any) -> str:
    """Return the page. Every text of its parts is text there, whatever it holds."""
    environment = Environment(
        loader=PackageLoader("lens_hpc.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        probability_titles=PROBABILITY_TITLES, probability_of=expit, version=__version__, **parts
    )


def _choose_drawings(
    subject: Subject, results: Results, comparisons: list[Comparison], scores: Scores
) -> dict[str, figures.Draw]:
    curves = {}
    for comparison in comparisons:
        if comparison.curve is not None:
            curves[f"{comparison.run.name} ({comparison.inputs})"] = comparison.curve
    drawings = figures.make_drawings(results, scores.labels, scores.logits, curves)

    records = read_learning_curve(subject.run)
    if records:
        drawings["learning"] = partial(figures.draw_learning, records=records)
    return drawings


def read_learning_curve(run: Path) -> list[dict[str, float]]:
    """Read the epochs of a run; none, with a warning if it is damaged, without its whole record."""
    file = run / layout.METRICS_LOG
    if not file.is_file():
        return []

    # A last line without its end is being written, or was cut off by a kill.
    complete, _, _ = file.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    lines = complete.splitlines()
    for number, line in enumerate(lines, start=1):
        if not _is_epoch(line):
            logger.warning("%s, line %d, is damaged: the report shows no learning", file, number)
            return []
    return [json.loads(line) for line in lines]


def _is_epoch(line: str) -> bool:
    """Whether a line of the record has the numbers that are drawn."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(record, dict):
        return False
    return all(type(record.get(key)) in {int, float} for key in figures.LEARNING)


# ---- galleries ----


@dataclass(frozen=True)
class Card:
    """A cutout, and what is known about it."""

    picture: str
    """PNG as a data URI."""
    id: str
    rank: int
    """From 1, the highest score first."""
    probability: float
    features: dict[str, float]


@dataclass(frozen=True)
class Gallery:
    """Cutouts that every user of a lens finder wants to see first."""

    title: str
    meaning: str
    cards: list[Card]


class _Choice(NamedTuple):
    """Which cutouts a gallery shows."""

    title: str
    meaning: str
    label: int
    lowest_first: bool


CHOICES = (
    _Choice("Best-ranked lenses", "true lenses, the highest score first", 1, False),
    _Choice("Worst misses", "true lenses, the lowest score first", 1, True),
    _Choice("Worst false alarms", "no lenses, the highest score first", 0, False),
    _Choice("Unlabelled, best-ranked", "the highest score first", -1, False),
)


def make_galleries(split: Split, labels: np.ndarray, logits: np.ndarray) -> Iterator[Gallery]:
    """Yield each gallery that has cutouts, of a split with labels and logits (N,)."""
    ranks = np.empty(len(logits), dtype=np.int64)
    # Equal scores keep the order of the split, so that a report is the same every time.
    order = np.argsort(-logits, kind="stable")
    ranks[order] = np.arange(1, len(logits) + 1)

    for choice in CHOICES:
        members = np.flatnonzero(labels == choice.label)
        keys = -ranks[members] if choice.lowest_first else ranks[members]
        rows = members[np.argsort(keys)][:CUTOUTS]
        if len(rows):
            cards = [make_card(split, row, logits[row], ranks[row]) for row in rows]
            yield Gallery(choice.title, choice.meaning, cards)


def make_card(split: Split, row: int, logit: float, rank: int) -> Card:
    """Return the card of one row of a split."""
    rows = np.array([row])
    image = pictures.composite(split.take("images", rows)[0], split.manifest.bands)
    # The first row of pixels is at the bottom, as in FITS files.
    upright = image[::-1]
    png = io.BytesIO()
    Image.fromarray((upright * 255).astype(np.uint8)).save(png, "png")

    values = split.take("features", rows)[0].tolist()
    return Card(
        picture=_data_uri("image/png", png.getvalue()),
        id=str(split.ids(rows)[0]),
        rank=int(rank),
        probability=float(expit(np.float64(logit))),
        features=dict(zip(split.manifest.features, values, strict=True)),
    )


def _data_uri(kind: str, content: bytes) -> str:
    """Return content so that it lies in the page itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
