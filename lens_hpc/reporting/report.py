"""report.html: one file with all that an evaluation says, for browser, telephone and printer."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from scipy.special import expit

from lens_hpc import layout
from lens_hpc._version import __version__
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.verdict import Audit
from lens_hpc.logs import logger
from lens_hpc.model.trained import TrainedModel
from lens_hpc.reporting import figures
from lens_hpc.reporting.breakdown import Column
from lens_hpc.reporting.comparison import Ablation
from lens_hpc.reporting.facts import gather_facts
from lens_hpc.reporting.galleries import make_album, save_sheets
from lens_hpc.reporting.results import Results
from lens_hpc.reporting.selections import read_selections
from lens_hpc.scoring.predictions import Scores
from lens_hpc.scoring.provenance import SeenBefore

TEMPLATE = "report.html.j2"
# What may stand in a data URI as it is.
SAFE_IN_URI = " ,:;=/"


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
    members: Sequence[TrainedModel] = ()
    """The models that gave the scores."""
    columns: Mapping[str, Column] = field(default_factory=dict)
    """By which the results are broken down."""


def write_report(
    folder: Path,
    subject: Subject,
    results: Results,
    ablation: Ablation,
    split: Split,
    scores: Scores,
) -> None:
    """Write report.html and figures/ into a folder."""
    drawings = _choose_drawings(subject, results, ablation, scores)
    svgs = figures.save_figures(folder / layout.FIGURES, drawings)
    album = make_album(split, scores, subject.members, subject.columns)
    save_sheets(folder / layout.FIGURES, album)

    page = _fill_template(
        subject=subject,
        results=results,
        ablation=ablation,
        figures={name: _as_uri(svg) for name, svg in svgs.items()},
        album=album,
        captions=figures.CAPTIONS,
        facts=gather_facts(subject.run, subject.members, split),
        selections=read_selections(subject.run, subject.members, _as_uri),
        can_be_audited=_has_both_classes(split.manifest),
        manifest=split.manifest,
    )
    # The name of a run may have bytes that are no UTF-8.
    (folder / layout.REPORT).write_text(page, encoding="utf-8", errors="backslashreplace")


def _has_both_classes(manifest: Manifest) -> bool:
    """Whether an audit can compare lenses with non-lenses."""
    records = manifest.splits.values()
    return any(record.lenses for record in records) and any(one.non_lenses for one in records)


def _as_uri(svg: str) -> str:
    """Return a figure so that it lies in the page itself, as text, which Base64 makes longer."""
    # A browser would leave line breaks out.
    one_line = svg.replace("\n", " ")
    return f"data:image/svg+xml,{quote(one_line, safe=SAFE_IN_URI)}"


def _fill_template(**parts: Any) -> str:
    """Return the page. Every text of its parts is text there, whatever it holds."""
    environment = Environment(
        loader=PackageLoader("lens_hpc.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        probability_titles=figures.PROBABILITY_TITLES,
        probability_of=expit,
        version=__version__,
        **parts,
    )


def _choose_drawings(
    subject: Subject, results: Results, ablation: Ablation, scores: Scores
) -> dict[str, figures.Draw]:
    curves = {}
    for comparison in ablation.comparisons:
        if comparison.curve is not None:
            curves[comparison.title] = comparison.curve
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
    # Earlier versions had no loss of validation.
    drawn = {figures.VALIDATION_LOSS: 0.0, **record}
    keys = [*figures.LEARNING, figures.VALIDATION_LOSS]
    return all(type(drawn.get(key)) in {int, float} for key in keys)
