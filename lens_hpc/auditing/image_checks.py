"""Checks of the cutouts and their files: numbers that tell the label, and duplicates."""

from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from lens_hpc.auditing.audited_rows import AuditedRows
from lens_hpc.auditing.cutout_facts import CutoutFacts, rows_for_border, rows_for_signatures
from lens_hpc.auditing.duplicates import DuplicatePair, find_duplicates
from lens_hpc.auditing.judgement import (
    CENTRE_LIMITS,
    EXPOSURE_LIMITS,
    OBJECT_LIMITS,
    ToldApart,
    judge_power,
    tell_apart,
)
from lens_hpc.auditing.same_sky import find_same_sky
from lens_hpc.auditing.shortcuts import (
    EXPOSURE_NUMBERS,
    OBJECT_NUMBERS,
)
from lens_hpc.auditing.textures import TEXTURE_NUMBERS
from lens_hpc.dataset.verdict import VERDICTS, Finding, first_few

# ---- numbers that may tell the label ----


def judge_file_types(rows: AuditedRows) -> Finding:
    """Check whether the type and size of the image's file can tell the label."""
    check = "type and size of the file"
    sources = np.concatenate([split.texts("sources") for split in rows.splits])
    file_types, type_numbers = np.unique(sources, return_inverse=True)
    if len(file_types) == 1:
        return Finding(verdict="fine", check=check, found=f"the same for all: {file_types[0]}")

    power = rows.measure_power(type_numbers.astype(np.float32))
    return judge_power(check, power, EXPOSURE_LIMITS)


def judge_image_numbers(rows: AuditedRows, numbers: np.ndarray) -> Iterator[Finding]:
    """Check whether one of the (N, bands, 5) numbers of `measure_cutouts` can tell the label."""
    for column, name in enumerate((*OBJECT_NUMBERS, *EXPOSURE_NUMBERS)):
        limits = OBJECT_LIMITS if name in OBJECT_NUMBERS else EXPOSURE_LIMITS
        for band_number, band in enumerate(rows.manifest.bands):
            values = numbers[:, band_number, column]
            is_constant = len(np.unique(values)) == 1
            if not is_constant:
                power = rows.measure_power(values)
                yield judge_power(f"{name} in {band}", power, limits)


def judge_textures(rows: AuditedRows, textures: np.ndarray) -> Iterator[Finding]:
    """Check whether noise or edges can tell the label, each by the band that tells it best."""
    for column, name in enumerate(TEXTURE_NUMBERS):
        best_of_bands = []
        for band_number, band in enumerate(rows.manifest.bands):
            power = rows.measure_power(textures[:, band_number, column])
            finding = judge_power(name, power, EXPOSURE_LIMITS)
            auc = power.auc if power else 0
            best_of_bands.append((VERDICTS.index(finding.verdict), auc, band, finding))

        _, _, band, finding = max(best_of_bands, key=itemgetter(0, 1))
        yield finding.model_copy(update={"found": f"in {band}: {finding.found}"})


def judge_border(rows: AuditedRows, facts: CutoutFacts) -> Finding:
    """Check whether border, sky and noise together can tell the label.

    A small classifier looks for what single numbers miss: a dead pixel, a corner without data.
    """
    drawn = rows_for_border(rows)
    exposure = facts.numbers[drawn][..., len(OBJECT_NUMBERS) :].reshape(len(drawn), -1)
    textures = facts.textures[drawn].reshape(len(drawn), -1)

    # Its distance from the sky says whether a pixel is noisy or dead, whatever its sign.
    columns = [facts.border, abs(facts.border), exposure, textures]
    power = rows.measure_power(np.concatenate(columns, axis=1), drawn)
    return judge_power("border and sky together", power, EXPOSURE_LIMITS)


def judge_centres(rows: AuditedRows, centres: np.ndarray) -> Iterator[Finding]:
    """Check whether one class lies off the centre of its cutouts.

    Arcs may move the centre of the light, but have no business to move it in the same direction.
    """
    for axis, offsets in zip("xy", centres.T, strict=True):
        power = rows.measure_power(offsets, by_rank=True)
        yield judge_power(f"centre of the light along {axis}", power, EXPOSURE_LIMITS)

    distances = np.hypot(*centres.T)
    power = rows.measure_power(distances)
    yield judge_power("centre of the light, distance", power, CENTRE_LIMITS)


def judge_told_apart(rows: AuditedRows, facts: CutoutFacts) -> Iterator[Finding]:
    """Check whether a number of sky or noise tells part of one class from all of the other.

    Non-lenses that no lens is like make any model look good, and need no lens finder.
    """
    exposure = facts.numbers[..., len(OBJECT_NUMBERS) :]
    numbers = np.concatenate([exposure, facts.textures], axis=-1)
    lenses = numbers[rows.labels == 1]
    non_lenses = numbers[rows.labels == 0]
    rejected = _tell_most_apart(rows, non_lenses, lenses)
    given_away = _tell_most_apart(rows, lenses, non_lenses)
    yield _judge_share("rejectable non-lenses", rejected, "non-lenses from all lenses")
    yield _judge_share("lenses given away", given_away, "lenses from all non-lenses")


class MostToldApart(NamedTuple):
    """The number that tells most of a class from the other, and in which band."""

    told: ToldApart
    name: str


def _tell_most_apart(
    rows: AuditedRows, one_class: np.ndarray, other_class: np.ndarray
) -> MostToldApart:
    """Find the best of the (rows, bands, numbers) of a class, the notable ones before others."""
    tried = []
    for column, name in enumerate((*EXPOSURE_NUMBERS, *TEXTURE_NUMBERS)):
        for band_number, band in enumerate(rows.manifest.bands):
            place = (slice(None), band_number, column)
            told = tell_apart(one_class[place], other_class[place])
            tried.append(MostToldApart(told, f"{name} in {band}"))
    return max(tried, key=lambda most: (most.told.is_notable, most.told.share))


def _judge_share(check: str, most: MostToldApart, classes: str) -> Finding:
    verdict = "look" if most.told.is_notable else "fine"
    found = f"{most.name} alone tells {most.told.share:.1%} of the {classes}"
    return Finding(verdict=verdict, check=check, found=found)


# ---- duplicates ----


def judge_duplicates(rows: AuditedRows, facts: CutoutFacts) -> Iterator[Finding]:
    """Check whether cutouts are there twice.

    Equal ones in two splits are a leak. Those that are only similar, or in the same split, are
    worth a look.
    """
    pairs, pairs_left_out = find_duplicates(facts.fingerprints, facts.checksums, rows.read_images)

    equal_across = []
    similar_across = []
    within = []
    with_two_labels = []
    for pair in pairs:
        if rows.split_numbers[pair.one] == rows.split_numbers[pair.other]:
            within.append(pair)
        elif pair.exact:
            equal_across.append(pair)
        else:
            similar_across.append(pair)

        labels = [rows.labels[pair.one], rows.labels[pair.other]]
        if sorted(labels) == [0, 1]:
            with_two_labels.append(pair)

    yield _judge_pairs(rows, "duplicates across splits", "leak", equal_across)
    yield _judge_pairs(rows, "near-duplicates across splits", "look", similar_across)
    yield _judge_pairs(rows, "duplicates within a split", "look", within)
    yield _judge_pairs(rows, "duplicates with two labels", "look", with_two_labels)

    known = {(pair.one, pair.other) for pair in pairs}
    yield _judge_same_sky(rows, facts.signatures, known)

    if pairs_left_out:
        found = (
            f"{pairs_left_out:,} pairs that may be alike were not compared, "
            "as there are too many: cutouts without noise"
        )
        yield Finding(verdict="look", check="near-duplicates", found=found)


def _judge_same_sky(
    rows: AuditedRows, signatures: np.ndarray, known: set[tuple[int, int]]
) -> Finding:
    """Judge pairs of different splits that show the same sky, but for the `known` duplicates."""
    drawn = rows_for_signatures(rows)
    pairs = []
    for pair in find_same_sky(signatures, rows.split_numbers[drawn]):
        one, other = drawn[[pair.one, pair.other]].tolist()
        if (one, other) not in known:
            pairs.append(DuplicatePair(one, other))

    return _judge_pairs(rows, "same sky across splits", "look", pairs, "shifted or turned")


def _judge_pairs(
    rows: AuditedRows,
    check: str,
    verdict_if_any: str,
    pairs: list[DuplicatePair],
    how: str = "turned or mirrored",
) -> Finding:
    if not pairs:
        return Finding(verdict="fine", check=check, found=f"none, also {how}")

    names = []
    for pair in pairs:
        one = rows.describe_row(pair.one)
        other = rows.describe_row(pair.other)
        names.append(f"{one} and {other}")
    found = f"{len(names):,} pairs, {how}: {first_few(names)}"
    return Finding(verdict=verdict_if_any, check=check, found=found)
