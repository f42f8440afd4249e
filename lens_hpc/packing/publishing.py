"""The end of a packing: the manifest is written, and the folder gets the name of the dataset.

Any task may be the last. Two may both believe that they are: they do the same, and one is late.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lens_hpc import files
from lens_hpc._version import __version__
from lens_hpc.dataset import shards
from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.kept_columns import record_tables, write_kept_columns
from lens_hpc.dataset.manifest import (
    SCHEMA_VERSION,
    Manifest,
    ShardRecord,
    SplitRecord,
)
from lens_hpc.errors import UserError
from lens_hpc.layout import KEPT_COLUMNS, MANIFEST, REJECTED
from lens_hpc.logs import logger
from lens_hpc.packing.notes import NOTES, ShardNote, notes_folder, read_note
from lens_hpc.packing.plan import Plan, Shard, bad_rows_error, check_features, recipe_of
from lens_hpc.packing.source_record import describe_source
from lens_hpc.packing.training_statistics import training_statistics
from lens_hpc.packing.writing import BadRows
from lens_hpc.texts import csv_text

TWINS_SHOWN = 3


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
        _put_file(plan, MANIFEST, manifest.model_dump_json(indent=1) + "\n")
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
    settings = plan.settings
    packed_rows = _packed_rows(plan, bad)
    check_features(settings, plan.catalogue, packed_rows)  # again, without the rows rejected since

    assert plan.cutouts.shape is not None
    _, height, width = plan.cutouts.shape
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=settings.name,
        bands=settings.bands,
        height=height,
        width=width,
        dtype=settings.dtype,
        pixel_scale_arcsec=settings.finest_pixel_scale,
        resampled=_resampled_bands(plan),
        units=settings.units,
        zero_point=_by_band(settings.zero_point, settings.bands),
        gain=_by_band(settings.gain, settings.bands),
        features=settings.columns.features,
        grouped=settings.columns.group is not None,
        seed=settings.seed,
        block_rows=shards.BLOCK_ROWS,
        statistics=None,
        splits={
            split: _make_split_record(plan, notes, split, rows)
            for split, rows in packed_rows.items()
        },
        rejected=len(bad),
        duplicates_across_splits=count_duplicates(plan, notes),
        recipe=recipe_of(settings),
        created_by=f"lens_hpc {__version__}",
        files=record_tables(plan.folder),
        source=describe_source(plan),
    )
    return _with_statistics(plan, manifest, notes, packed_rows)


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


def _notes_of(plan: Plan, notes: list[ShardNote], split: str) -> list[ShardNote]:
    pairs = zip(plan.shards, notes, strict=True)
    return [note for shard, note in pairs if shard.split == split]


def _make_split_record(
    plan: Plan, notes: list[ShardNote], split: str, rows: np.ndarray
) -> SplitRecord:
    labels = plan.catalogue.labels[rows]
    records = [note.record for note in _notes_of(plan, notes, split)]
    return SplitRecord(
        rows=len(rows),
        lenses=int((labels == 1).sum()),
        non_lenses=int((labels == 0).sum()),
        unlabelled=int((labels == -1).sum()),
        shards=tuple(ShardRecord.model_validate(record) for record in records if record),
    )


def _resampled_bands(plan: Plan) -> tuple[str, ...]:
    """Return the bands whose pixels were wider than those of the finest."""
    ratios = plan.cutouts.pixel_ratios
    if ratios is None:
        return ()
    bands = zip(plan.settings.bands, ratios, strict=True)
    return tuple(band for band, ratio in bands if ratio > 1)


def _by_band(
    setting: float | Mapping[str, float | None] | None, bands: tuple[str, ...]
) -> dict[str, float | None]:
    """Return the value of each band of a setting that is one for all, or a mapping."""
    if isinstance(setting, Mapping):
        return {band: setting[band] for band in bands}
    return dict.fromkeys(bands, setting)


def _with_statistics(
    plan: Plan, manifest: Manifest, notes: list[ShardNote], packed_rows: dict[str, np.ndarray]
) -> Manifest:
    """Return the manifest with the statistics of training, where there is one."""
    if "train" not in packed_rows:
        return manifest

    train = ColumnReader(plan.folder, "train", manifest=manifest)
    features = plan.catalogue.features[packed_rows["train"]]
    of_train = _notes_of(plan, notes, "train")
    statistics = training_statistics(train, features, of_train, plan.settings.seed)
    return manifest.model_copy(update={"statistics": statistics})


# ---- duplicates ----


def count_duplicates(plan: Plan, notes: list[ShardNote]) -> int:
    """Count the cutouts that are identical to one in another split; warn with the first few."""
    names = []
    for one, other in _equal_checksums(plan, notes):
        (shard, row), (other_shard, other_row) = one, other
        if shard.split == other_shard.split:
            continue

        # Different cutouts may have one checksum by chance.
        image, name = shards.read_row(plan.folder / shard.file, row)
        other_image, other_name = shards.read_row(plan.folder / other_shard.file, other_row)
        if np.array_equal(image, other_image):
            names.append(f"{name} ({shard.split}) and {other_name} ({other_shard.split})")

    if names:
        shown = "; ".join(names[:TWINS_SHOWN])
        if len(names) > TWINS_SHOWN:
            shown += " ..."
        logger.warning(
            "%d cutouts are identical to one in another split: %s; "
            "keep them together with columns.group",
            len(names),
            shown,
        )
    return len(names)


def _equal_checksums(
    plan: Plan, notes: list[ShardNote]
) -> list[tuple[tuple[Shard, int], tuple[Shard, int]]]:
    """Return pairs of (shard, row in it) whose images have the same checksum."""
    counts = [len(note.image_crc32) for note in notes]
    codes = np.concatenate([np.array(note.image_crc32, dtype=np.uint32) for note in notes])
    shard_numbers = np.repeat(np.arange(len(notes)), counts)
    row_numbers = np.concatenate([np.arange(count) for count in counts])

    # Equal checksums are neighbours once they are sorted.
    order = np.argsort(codes, kind="stable")
    is_equal = codes[order[1:]] == codes[order[:-1]]
    pairs = []
    for position in np.flatnonzero(is_equal):
        one, other = (
            (plan.shards[shard_numbers[index]], int(row_numbers[index]))
            for index in order[position : position + 2]
        )
        pairs.append((one, other))
    return pairs
