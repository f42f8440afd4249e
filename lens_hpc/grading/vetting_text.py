"""What a reader is told of a vetted list: what was found, and how far it is to be trusted."""

from pathlib import Path
from typing import Any

from lens_hpc import layout
from lens_hpc.grading.survey_estimate import ENOUGH_GRADERS

DIGITS = {"lenses": ",.0f", "completeness": ".2f", "purity": ".2f"}
"""Of what is estimated for a survey."""


def describe_vetting(output: Path, record: dict[str, Any], graders: dict[str, Any]) -> str:
    """Return some lines; `record` is what vetting.json has, and `graders` what graders.json has."""
    graded = "{graded:,} of {candidates:,} candidates are graded".format_map(record)
    facts = [("objects", _describe_grades(record))]
    if record["known"]:
        known = "{known:,} known, {new:,} new".format_map(record["known"]["lenses"])
        facts.append(("A and B", known))

    for grader in graders["graders"]:
        facts.append((grader["grader"], _describe_grader(grader)))
    if graders["fleiss_kappa"] is not None:
        agreement = "Fleiss' kappa {fleiss_kappa:.2f}, of {items_of_several:,} items"
        facts.append(("agreement", agreement.format_map(graders)))

    facts.append(("survey", _describe_survey(record["survey"])))
    if record["dataset"]:
        facts.append(("dataset", _describe_generation(record["dataset"])))

    lines = [f"  {title:<13} {text}" for title, text in facts]
    last = f"{layout.GRADED}.parquet, .csv and .fits, and {layout.VETTING} are in {output}"
    return "\n".join([f"{output}: {graded}", *lines, last])


def _describe_grades(record: dict[str, Any]) -> str:
    grades = [f"{letter} {count:,}" for letter, count in record["grades"].items()]
    listed = ", ".join(grades)
    return f"{record['objects']:,}: {listed}"


# ---- graders ----


def _describe_grader(grader: dict[str, Any]) -> str:
    found = _describe_share(grader["completeness"])
    wrong = _describe_share(grader["false_positive_rate"])
    speed = "{graded:,} grades, {seconds:.1f} s each".format_map(grader)
    return f"{speed}; hidden lenses found {found}, others called lenses {wrong}"


def _describe_share(share: dict[str, Any]) -> str:
    """Return a count, with the interval of its share where there are enough for one."""
    counts = "{count:,} of {total:,}".format_map(share)
    if share["ci95"] is None:
        return counts
    interval = _describe_interval(share["ci95"], ".2f")
    return f"{counts} ({interval})"


def _describe_interval(ends: tuple[float, float], digits: str) -> str:
    low, high = ends
    return format(low, digits) + " to " + format(high, digits)


# ---- the survey, and the next dataset ----


def _describe_survey(survey: dict[str, Any]) -> str:
    if "why_not" in survey:
        return f"not estimated: {survey['why_not']}"
    parts = []
    for name, digits in DIGITS.items():
        estimate = survey[name]
        # Such as the purity, where nothing was sure to be graded.
        if estimate is None:
            continue
        value = format(estimate["value"], digits)
        interval = _describe_interval(estimate["ci95"], digits)
        parts.append(f"{name} {value} ({interval})")
    listed = ", ".join(parts)
    text = f"{listed} of what was sure to be graded"
    if survey["to_confirm"]:
        text += (
            f"; {len(survey['to_confirm']):,} lenses of the random slice, each of which stands for "
            f"many, had fewer than {ENOUGH_GRADERS} graders: have them looked at again (to_confirm "
            f"in {layout.VETTING})"
        )
    return text


def _describe_generation(record: dict[str, Any]) -> str:
    added = "generation {number}: {lenses:,} lenses and {non_lenses:,} non-lenses join"
    text = added.format_map(record)
    left_out = []
    for reason, count in record["left_out"].items():
        words = reason.replace("_", " ")
        left_out.append(f"{count:,} {words}")
    listed = ", ".join(left_out)
    return f"{text}; left out: {listed}"
