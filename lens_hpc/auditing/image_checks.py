"""Checks of the cutouts and their files: numbers that tell the label, and duplicates."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import numpy as np

from lens_hpc import logs
from lens_hpc.auditing.audited_rows import AuditedRows
from lens_hpc.auditing.duplicates import DuplicatePair, cutout_fingerprints, find_duplicates
from lens_hpc.auditing.judgement import EXPOSURE_LIMITS, OBJECT_LIMITS, judge_power
from lens_hpc.auditing.shortcuts import EXPOSURE_NUMBERS, OBJECT_NUMBERS, measure_cutouts
from lens_hpc.dataset.shards import crc32_of_each
from lens_hpc.dataset.verdict import Finding, first_few
from lens_hpc.resources import usable_cpus

# Cutouts are read in blocks of about this size, counted as 4 bytes a pixel.
BLOCK_BYTES = 1 << 24
LARGEST_BLOCK_ROWS = 256


# ---- one reading of all cutouts ----


class CutoutFacts(NamedTuple):
    """What the checks need to know of all N cutouts."""

    numbers: np.ndarray
    """The numbers of `measure_cutouts`, (N, bands, 5)."""
    fingerprints: np.ndarray
    """The bits of `cutout_fingerprints`, (N, bytes)."""
    checksums: np.ndarray
    """CRC-32 of the pixels, (N,)."""


def examine_cutouts(rows: AuditedRows) -> CutoutFacts:
    """Read all cutouts once, with one thread for each core, and return the facts about them."""
    pixels = int(np.prod(rows.splits[0].shape("images")))
    row_bytes = 4 * pixels
    block_rows = int(np.clip(BLOCK_BYTES // row_bytes, 1, LARGEST_BLOCK_ROWS))

    def examine_block(start: int) -> CutoutFacts:
        end = min(start + block_rows, len(rows))
        images = rows.read_images(np.arange(start, end))
        return CutoutFacts(
            measure_cutouts(images), cutout_fingerprints(images), crc32_of_each(images)
        )

    blocks = []
    progress = logs.Progress(len(rows), "audit", "cutouts")
    with closing(progress), ThreadPoolExecutor(usable_cpus()) as pool:
        for block in pool.map(examine_block, range(0, len(rows), block_rows)):
            blocks.append(block)
            progress.update(len(block.checksums))

    # From a list of blocks with three arrays each to three arrays.
    columns = zip(*blocks, strict=True)
    return CutoutFacts(*(np.concatenate(column) for column in columns))


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


# ---- duplicates ----


def judge_duplicates(
    rows: AuditedRows, fingerprints: np.ndarray, checksums: np.ndarray
) -> Iterator[Finding]:
    """Check whether cutouts are there twice.

    Equal ones in two splits are a leak. Those that are only similar, or in the same split, are
    worth a look.
    """
    pairs, pairs_left_out = find_duplicates(fingerprints, checksums, rows.read_images)

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

    if pairs_left_out:
        found = (
            f"{pairs_left_out:,} pairs that may be alike were not compared, "
            "as there are too many: cutouts without noise"
        )
        yield Finding(verdict="look", check="near-duplicates", found=found)


def _judge_pairs(
    rows: AuditedRows, check: str, verdict_if_any: str, pairs: list[DuplicatePair]
) -> Finding:
    if not pairs:
        return Finding(verdict="fine", check=check, found="none, also turned or mirrored")

    names = []
    for pair in pairs:
        one = rows.describe_row(pair.one)
        other = rows.describe_row(pair.other)
        names.append(f"{one} and {other}")
    found = f"{len(names):,} pairs, turned or mirrored: {first_few(names)}"
    return Finding(verdict=verdict_if_any, check=check, found=found)
