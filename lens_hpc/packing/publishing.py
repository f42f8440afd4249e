"""The end of a packing: the manifest is written, and the folder gets the name of the dataset.

Any task may be the last. Two may both believe that they are: they do the same, and one is late.
"""

import shutil
from pathlib import Path

import numpy as np

from lens_hpc import files
from lens_hpc.dataset.kept_columns import write_kept_columns
from lens_hpc.dataset.manifest import Manifest, ShardRecord
from lens_hpc.errors import UserError
from lens_hpc.layout import KEPT_COLUMNS, MANIFEST, REJECTED
from lens_hpc.logs import logger
from lens_hpc.packing.describing import (
    WrittenShard,
    count_duplicates,
    draft_manifest,
    make_split_record,
    manifest_text,
    with_statistics,
)
from lens_hpc.packing.notes import NOTES, ShardNote, notes_folder, read_note
from lens_hpc.packing.plan import Plan, bad_rows_error, check_features
from lens_hpc.packing.source_record import describe_source
from lens_hpc.packing.training_statistics import BandRanges, ranges_of_none
from lens_hpc.packing.writing import BadRows
from lens_hpc.texts import csv_text


def publish_dataset(plan: Plan) -> Manifest | None:
    """Write the manifest and give the dataset its name, when the shards of all tasks are there.

    Returns the manifest, or None where other tasks still write, or where one was the last.
    """
    output = plan.settings.output
    notes = [read_note(plan, shard) for shard in plan.shards]
    complete = [note for note in notes if note is not None]
    if plan.is_published():
        return None
    if len(complete) < len(notes):
        unfinished = len(notes) - len(complete)
        logger.info("%d of %d shards are still with other tasks", unfinished, len(notes))
        return None

    bad = dict(plan.catalogue.bad)
    for note in complete:
        bad |= {int(row): reason for row, reason in note.bad.items()}
    packed_rows = _packed_rows(plan, bad)

    try:
        _put_kept_columns(plan, packed_rows)
        manifest = make_manifest(plan, complete, bad)
        _remove_strays(plan)
        _put_file(plan, REJECTED, _rejected_text(plan, bad) if bad else None)
        _put_file(plan, MANIFEST, manifest_text(manifest))
        plan.folder.rename(output)
    except (FileNotFoundError, UserError):
        # Another task has renamed the folder meanwhile, and its shards are not where they were.
        if not plan.is_published():
            raise
        return None

    files.sync(output.parent)
    remove_notes(output)
    return manifest


def remove_notes(output: Path) -> None:
    """Remove the notes of the shards, which a published dataset does not need."""
    shutil.rmtree(output / NOTES, ignore_errors=True)


# ---- files ----


def _remove_strays(plan: Plan) -> None:
    """Delete what a killed start, or one with another recipe, left beside the shards."""
    planned = {plan.folder / shard.file for shard in plan.shards}
    folders = [path for path in plan.folder.iterdir() if path.is_dir() and path.name != NOTES]
    for folder in folders:
        for path in set(folder.iterdir()) - planned:
            path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _put_file(plan: Plan, name: str, text: str | None) -> None:
    """Put a file into the dataset by one rename, or remove it where there is no text.

    It is written under a name that no other task uses.
    """
    if text is None:
        (plan.folder / name).unlink(missing_ok=True)
        return
    own_file = notes_folder(plan) / f"{plan.settings.task}-{name}"
    files.write_text(own_file, text)
    own_file.replace(plan.folder / name)


def _put_kept_columns(plan: Plan, packed_rows: dict[str, np.ndarray]) -> None:
    """Put the table of columns.keep into the dataset, its rows in the dataset's order."""
    kept = plan.catalogue.kept
    if not len(kept.columns):
        (plan.folder / KEPT_COLUMNS).unlink(missing_ok=True)
        return

    rows = np.concatenate(list(packed_rows.values()))
    own_file = notes_folder(plan) / f"{plan.settings.task}-{KEPT_COLUMNS}"
    write_kept_columns(own_file, plan.catalogue.ids[rows], kept.iloc[rows])
    own_file.replace(plan.folder / KEPT_COLUMNS)


def _rejected_text(plan: Plan, bad: BadRows) -> str:
    """Return rejected.csv: row of the catalogue (from 1), id and reason of each row left out."""
    catalogue = plan.catalogue
    rows = [[catalogue.table_rows[row] + 1, catalogue.ids[row], bad[row]] for row in sorted(bad)]
    return csv_text([["row", "id", "reason"], *rows])


# ---- the manifest ----


def make_manifest(plan: Plan, notes: list[ShardNote], bad: BadRows) -> Manifest:
    """Return what the dataset holds, and the recipe that made it.

    `notes` are those of the plan's shards, in the same order. Raises UserError where a split has
    no good row, or a feature no value in training.
    """
    packed_rows = _packed_rows(plan, bad)
    # Again, without the rows rejected since.
    check_features(plan.settings, plan.catalogue, packed_rows)

    written = _written_shards(plan, notes)
    splits = {}
    for split, rows in packed_rows.items():
        records = [shard.record for shard in written if shard.split == split]
        splits[split] = make_split_record(plan.catalogue.labels[rows], records)

    manifest = draft_manifest(
        plan.folder,
        plan.facts,
        splits,
        duplicates=count_duplicates(plan.folder, written),
        rejected=len(bad),
        source=describe_source(plan),
    )
    if "train" not in packed_rows:
        return manifest
    features = plan.catalogue.features[packed_rows["train"]]
    return with_statistics(plan.folder, manifest, features, _training_ranges(plan, notes))


def _packed_rows(plan: Plan, bad: BadRows) -> dict[str, np.ndarray]:
    """Return the row numbers in each split, bad ones left out; UserError for an empty split."""
    packed = {}
    for split in plan.splits:
        planned = np.concatenate([shard.rows for shard in plan.shards_of(split)])
        rows = planned[~np.isin(planned, list(bad))]
        if not len(rows):
            raise bad_rows_error(plan.settings, plan.catalogue, bad)
        packed[split] = rows
    return packed


def _written_shards(plan: Plan, notes: list[ShardNote]) -> list[WrittenShard]:
    """Return the shards that have a file: those with a good row."""
    written = []
    for shard, note in zip(plan.shards, notes, strict=True):
        if note.record is not None:
            record = ShardRecord.model_validate(note.record)
            written.append(WrittenShard(shard.split, record, note.image_crc32))
    return written


def _training_ranges(plan: Plan, notes: list[ShardNote]) -> BandRanges:
    """Return the ranges of the pixels in training."""
    ranges = ranges_of_none(len(plan.settings.bands))
    for shard, note in zip(plan.shards, notes, strict=True):
        if shard.split == "train" and note.record is not None:
            noted = (note.band_min, note.band_max, note.missing_pixels)
            ranges = ranges.merged(BandRanges(*map(np.array, noted)))
    return ranges
