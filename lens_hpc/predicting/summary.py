"""The end of a prediction, when all parts are scored: the candidates, and a summary of all."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_hpc import files, layout
from lens_hpc.predicting.candidates import write_candidates
from lens_hpc.predicting.chosen_rows import RANK, candidate_rows
from lens_hpc.predicting.predict_settings import PredictSettings
from lens_hpc.predicting.score_files import damage_named
from lens_hpc.predicting.survey import SurveyPart, SurveyToScore
from lens_hpc.texts import printable
from lens_hpc.training.environment import package_versions

ROWS_AT_ONCE = 1 << 17
COUNTED = ["logit", "probability", "trained_on", "reason", "edge_fraction"]
PROBABILITIES = (0.5, 0.9, 0.99)
HISTOGRAM_EDGES = np.arange(-30, 30.5, 0.5)
"""Of logits; what lies outside is counted in the first and last bin."""
REASONS_SHOWN = 20
BEST_SHOWN = 5
RANDOM_WANTED = "random_wanted"


def finish_output(
    output: Path, survey: SurveyToScore, record: dict[str, Any], settings: PredictSettings
) -> dict[str, Any]:
    """Write the candidates and, last, the summary, unless both are there; return the summary."""
    wanted = {"parts_sha256": _digest(survey.parts), "candidates_wanted": settings.candidates}
    wanted[RANDOM_WANTED] = [settings.random, settings.seed] if settings.random else None
    # Summaries of earlier versions know of no random ones.
    before = {RANDOM_WANTED: None} | _read_summary(output)
    if all(before.get(key) == value for key, value in wanted.items()):
        return before

    _remove_strays(output, survey.parts)
    scored = [layout.scores_file(output, part.name) for part in survey.parts]
    chosen = candidate_rows(scored, settings.candidates, settings.random, settings.seed)
    _put_candidates(output, survey, chosen, record)

    summary = {**wanted, **_count(scored), "best": _describe_best(chosen)}
    summary |= {"parts": len(survey.parts), "packages": package_versions(), **record}
    files.write_text(output / layout.SUMMARY, json.dumps(summary, indent=1) + "\n")
    return summary


def _digest(parts: Sequence[SurveyPart]) -> str:
    """Return the SHA-256 of all that the scores of all parts depend on."""
    identities = [[part.name, part.fingerprint] for part in parts]
    return hashlib.sha256(json.dumps(identities).encode()).hexdigest()


def _read_summary(output: Path) -> dict[str, Any]:
    """Return the summary that is there; nothing where there is none, or a damaged one."""
    try:
        summary = json.loads((output / layout.SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _remove_strays(output: Path, parts: Sequence[SurveyPart]) -> None:
    """Delete what killed processes left, and the scores of parts that are no longer there."""
    scored = {layout.scores_file(output, part.name) for part in parts}
    for path in set((output / layout.SCORES).iterdir()) - scored:
        path.unlink(missing_ok=True)
    files.remove_partials(output)


def _put_candidates(
    output: Path, survey: SurveyToScore, chosen: pa.Table, record: dict[str, Any]
) -> None:
    folder = output / layout.CANDIDATES
    if len(chosen):
        write_candidates(folder, survey, chosen, record)
    else:
        shutil.rmtree(folder, ignore_errors=True)


# ---- counts ----


def _count(scored: Sequence[Path]) -> dict[str, Any]:
    """Return numbers of all objects, by streaming."""
    objects = with_score = seen = at_edge = 0
    above = dict.fromkeys(PROBABILITIES, 0)
    reasons: Counter[str] = Counter()
    histogram = np.zeros(len(HISTOGRAM_EDGES) - 1, np.int64)

    for batch in _batches(scored):
        objects += len(batch)
        seen += _true(batch["trained_on"])
        at_edge += int((_floats(batch["edge_fraction"]) > 0).sum())
        # Most reasons name the row behind a colon.
        told = batch["reason"].drop_null().to_pylist()
        reasons.update(text.partition(":")[0] for text in told)

        logits = _floats(batch["logit"])
        logits = logits[np.isfinite(logits)]
        with_score += len(logits)
        histogram += np.histogram(
            logits.clip(HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1]), HISTOGRAM_EDGES
        )[0]
        probabilities = _floats(batch["probability"])
        for limit in above:
            above[limit] += int((probabilities > limit).sum())

    return {
        "objects": objects,
        "scored": with_score,
        "without_score": objects - with_score,
        "reasons": dict(reasons.most_common(REASONS_SHOWN)),
        "at_an_edge": at_edge,
        "trained_on_before": seen,
        "probability_above": {f"{limit:g}": count for limit, count in above.items()},
        "histogram": {"logit_edges": HISTOGRAM_EDGES.tolist(), "objects": histogram.tolist()},
    }


def _batches(scored: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for file in scored:
        with damage_named(file), pq.ParquetFile(file, pre_buffer=False) as opened:
            yield from opened.iter_batches(ROWS_AT_ONCE, columns=COUNTED)


def _floats(column: pa.Array) -> np.ndarray:
    """Return numbers as float64, NaN for null."""
    return column.to_numpy(zero_copy_only=False).astype(np.float64)


def _true(column: pa.Array) -> int:
    return int(column.to_numpy(zero_copy_only=False).sum())


def _describe_best(chosen: pa.Table) -> list[dict[str, Any]]:
    best = chosen.filter(chosen[RANK].is_valid())
    return best.slice(0, BEST_SHOWN).select(["id", "logit", "probability"]).to_pylist()


# ---- the terminal ----


def describe_summary(output: Path, summary: dict[str, Any] | None) -> str:
    """Return what was scored, and where it is."""
    if summary is None:
        return f"{output}: the parts of this task are scored; the last task merges"

    above = [f"{count:,} above {limit}" for limit, count in summary["probability_above"].items()]
    best = [
        f"{printable(one['id'], kept='')} ({one['probability']:.4f})" for one in summary["best"]
    ]
    lines = [
        f"{output}: {summary['objects']:,} objects in {summary['parts']:,} parts, "
        f"{summary['scored']:,} scored",
        f"  probability   {', '.join(above)}",
        f"  highest       {', '.join(best) or 'none'}",
    ]
    if summary["without_score"]:
        listed = [f"{printable(why)} ({count:,})" for why, count in summary["reasons"].items()]
        lines.append(f"  without score {summary['without_score']:,}: {'; '.join(listed)}")
    if summary["trained_on_before"]:
        lines.append(f"  trained on    {summary['trained_on_before']:,}: see trained_on")
    lines.append(
        f"{layout.SCORES}/*.parquet, {layout.SUMMARY} and {layout.CANDIDATES}/ are in {output}"
    )
    return "\n".join(lines)
