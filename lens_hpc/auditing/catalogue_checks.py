"""Checks of what the catalogue says: classes, groups and features."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import chdtrc

from lens_hpc.auditing.audited_rows import AuditedRows
from lens_hpc.auditing.judgement import NAME_LIMITS, OBJECT_LIMITS, judge_power
from lens_hpc.auditing.shortcuts import MINIMUM_ROWS, Power, power_of_scores
from lens_hpc.dataset.verdict import Finding, first_few
from lens_hpc.packing.missing import find_suspects, remedy

# Splits differ in their share of lenses when chance alone would do that more rarely than this.
CHANCE_OF_UNEQUAL_SPLITS = 1e-3
# A value of all rows of one class tells the classes apart if it is rarer than this in the other.
LARGEST_SHARE_OF_OTHER_CLASS = 0.9
# How much more often a feature may be missing in one class: a share, and standard deviations.
LARGEST_MISSING_DIFFERENCE = 0.05
LARGEST_MISSING_SIGMAS = 4
# A group of so many rows is hardly one object, and by chance alone hardly of one class.
MANY_MEMBERS = 10
# Numbers in an id; the digits of a hash may be too many for one number.
DIGITS = re.compile(r"\d{1,18}")


# ---- classes and groups ----


def judge_class_balance(rows: AuditedRows) -> Finding:
    """Check that all splits have both classes, and the same share of lenses."""
    counts_of_splits = []
    shares = []
    for split in rows.splits:
        lenses = split.record.lenses
        labelled = lenses + split.record.non_lenses
        share = lenses / max(labelled, 1)
        counts_of_splits.append([lenses, split.record.non_lenses])
        shares.append(f"{split.name} {share:.2%} of {labelled:,}")

    counts = np.array(counts_of_splits)
    found = f"lenses: {', '.join(shares)}"

    if not counts.all():
        verdict = "look"
        found = f"a split lacks a class; {found}"
    elif _chance_of_counts(counts) < CHANCE_OF_UNEQUAL_SPLITS:
        verdict = "look"
        found = f"the splits differ; {found}"
    else:
        verdict = "fine"
    return Finding(verdict=verdict, check="class balance", found=found)


def _chance_of_counts(counts: np.ndarray) -> float:
    """Return the p-value of a chi-squared test that (splits, 2) counts have the same shares."""
    if len(counts) == 1:
        return 1.0

    split_sums = counts.sum(axis=1, keepdims=True)
    class_sums = counts.sum(axis=0)
    expected = split_sums * class_sums / counts.sum()
    terms = np.square(counts - expected) / expected
    degrees_of_freedom = len(counts) - 1
    return float(chdtrc(degrees_of_freedom, terms.sum()))


def judge_groups(rows: AuditedRows) -> Finding:
    """Check that no group is in two splits."""
    check = "groups across splits"
    if not rows.manifest.grouped:
        return Finding(verdict="fine", check=check, found="the dataset has no groups")

    splits_with_group = Counter[str]()
    for split in rows.splits:
        groups = np.unique(split.texts("groups"))
        splits_with_group.update(groups.tolist())

    total = f"{len(splits_with_group):,}"
    across = [group for group, splits in splits_with_group.items() if splits > 1]
    if across:
        examples = first_few(sorted(across))
        found = f"{len(across):,} of {total} are in several: {examples}"
        return Finding(verdict="leak", check=check, found=found)
    return Finding(
        verdict="fine", check=check, found=f"each of {total} groups is in one split alone"
    )


# ---- names ----


def judge_names(rows: AuditedRows) -> Iterator[Finding]:
    """Check whether ids, names of groups, or the other rows of a group tell the label."""
    ids = np.concatenate([split.ids() for split in rows.splits])
    yield _judge_texts(rows, "ids", ids)
    if rows.group_numbers is None:
        return

    groups = np.concatenate([split.texts("groups") for split in rows.splits])
    yield _judge_texts(rows, "names of groups", groups)
    yield _judge_members(rows, rows.group_numbers)


def _judge_texts(rows: AuditedRows, check: str, texts: np.ndarray) -> Finding:
    """Judge texts by their words, their length, and their first and last number."""
    numbers = np.array([_numbers_of_text(text) for text in texts.tolist()])
    words = [DIGITS.sub("", text) for text in texts.tolist()]
    _, word_numbers = np.unique(words, return_inverse=True)

    columns = np.column_stack([word_numbers, numbers]).astype(np.float32)
    return judge_power(check, rows.measure_power(columns), NAME_LIMITS)


def _numbers_of_text(text: str) -> tuple[float, float, float]:
    """Return the length of a text, its first and its last number, NaN where there is none."""
    found = DIGITS.findall(text) or ["nan"]
    return len(text), float(found[0]), float(found[-1])


def _judge_members(rows: AuditedRows, group_numbers: np.ndarray) -> Finding:
    """Judge how well the other rows of a group of many tell the label of a row.

    Small groups are left out: those of one object have one label, as they should.
    """
    check = "classes within groups"
    is_lens = rows.labels[rows.is_labelled] == 1
    groups = group_numbers[rows.is_labelled]
    members = np.bincount(groups)[groups]
    lenses = np.bincount(groups, weights=is_lens)[groups]

    is_large = members >= MANY_MEMBERS
    lenses_in_large = (is_lens & is_large).sum()
    if min(lenses_in_large, is_large.sum() - lenses_in_large) < MINIMUM_ROWS:
        found = f"too few lenses or non-lenses are in groups of {MANY_MEMBERS} rows or more to tell"
        return Finding(verdict="fine", check=check, found=found)

    lenses_beside = lenses - is_lens
    share_beside = lenses_beside[is_large] / (members[is_large] - 1)
    power = power_of_scores(is_lens[is_large].astype(int), share_beside)
    return judge_power(check, power, NAME_LIMITS)


# ---- features ----


class FeatureValues(NamedTuple):
    """The values of one feature, NaN where missing."""

    lenses: np.ndarray
    non_lenses: np.ndarray


def judge_features(rows: AuditedRows) -> Iterator[Finding]:
    """Check whether features can tell the label, and have values that stand for no measurement."""
    if not rows.manifest.features:
        yield Finding(verdict="fine", check="features", found="the dataset has none")
        return

    if not rows.quick:
        power = rows.measure_power(rows.features)
        yield judge_power("features together", power, OBJECT_LIMITS)

    is_lens = rows.labels == 1
    is_non_lens = rows.labels == 0
    for name, feature in zip(rows.manifest.features, rows.features.T, strict=True):
        power = rows.measure_power(feature)
        values = FeatureValues(feature[is_lens], feature[is_non_lens])
        finding = _judge_feature(f"feature {name}", values, power)
        yield _with_suspects(finding, name, feature)


def _judge_feature(check: str, values: FeatureValues, power: Power | None) -> Finding:
    """Judge a feature by its power, and by whether it is constant or missing in one class."""
    power_if_known = "" if power is None else f"; {power}"
    constant = _judge_constant(check, values, power_if_known)
    if constant:
        return constant

    missing = _judge_missing(check, values, power_if_known)
    if missing and missing.verdict == "leak":
        return missing

    judged = judge_power(check, power, OBJECT_LIMITS)
    if missing and judged.verdict == "fine":
        return missing
    return judged


def _judge_constant(check: str, values: FeatureValues, power_if_known: str) -> Finding | None:
    """Judge a feature that has the same value in a class, or everywhere; else return None."""
    is_complete = not np.isnan(np.concatenate(values)).any()
    sides = (
        ("non-lens", values.non_lenses, values.lenses),
        ("lens", values.lenses, values.non_lenses),
    )

    for class_name, one_class, other_class in sides:
        known = one_class[~np.isnan(one_class)]
        if len(known) < MINIMUM_ROWS or known.min() != known.max():
            continue

        value = known[0]
        known_of_other = other_class[~np.isnan(other_class)]
        is_same = known_of_other == value
        if len(is_same) and is_same.mean() < LARGEST_SHARE_OF_OTHER_CLASS:
            found = f"is {value:g} for every {class_name}{power_if_known}"
            return Finding(verdict="leak", check=check, found=found)

        # A feature that is missing for some may still tell the classes by that.
        if is_same.all() and is_complete:
            found = f"is {value:g} for all: it says nothing"
            return Finding(verdict="look", check=check, found=found)
    return None


def _judge_missing(check: str, values: FeatureValues, power_if_known: str) -> Finding | None:
    """Judge a feature that is missing more often in one class; else return None."""
    lens_share = np.isnan(values.lenses).mean()
    non_lens_share = np.isnan(values.non_lenses).mean()
    difference = abs(lens_share - non_lens_share)
    found = (
        f"missing for {lens_share:.1%} of the lenses "
        f"and {non_lens_share:.1%} of the non-lenses{power_if_known}"
    )

    # Known values of one class alone are as good as a label.
    lenses = len(values.lenses)
    non_lenses = len(values.non_lenses)
    is_class_missing = 1.0 in (lens_share, non_lens_share)
    is_class_told = difference > 1 - LARGEST_SHARE_OF_OTHER_CLASS
    is_proven = min(lenses, non_lenses) >= MINIMUM_ROWS
    if is_class_missing and is_class_told and is_proven:
        return Finding(verdict="leak", check=check, found=found)

    # The variance of the difference, if a feature is missing by chance alone.
    share = np.isnan(np.concatenate(values)).mean()
    inverse_counts = 1 / max(lenses, 1) + 1 / max(non_lenses, 1)
    variance = share * (1 - share) * inverse_counts
    by_chance = LARGEST_MISSING_SIGMAS * np.sqrt(variance)
    if difference > max(LARGEST_MISSING_DIFFERENCE, by_chance):
        return Finding(verdict="look", check=check, found=found)
    return None


def _with_suspects(finding: Finding, name: str, values: np.ndarray) -> Finding:
    """Return the finding of a feature with values (N,), with those that seem to mean "missing"."""
    told = [finding.found]
    for suspect in find_suspects(values):
        rows = "1 row has" if suspect.rows == 1 else f"{suspect.rows:,} rows have"
        value = f"{suspect.value:g}"
        told.append(
            f"{rows} {value}, far from the others ({suspect.low:g} to {suspect.high:g}): if it "
            f"stands for no measurement, pack with {remedy(name, value)}"
        )

    is_worse = len(told) > 1 and finding.verdict == "fine"
    verdict = "look" if is_worse else finding.verdict
    return Finding(verdict=verdict, check=finding.check, found="; ".join(told))
