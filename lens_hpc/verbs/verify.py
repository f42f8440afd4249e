"""verify: is every byte of a dataset as it was packed?"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, PositiveInt

from lens_hpc.dataset.columns import ColumnReader
from lens_hpc.dataset.kept_columns import find_table_damage
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.shards import find_damage
from lens_hpc.errors import UserError
from lens_hpc.progress import Progress
from lens_hpc.resources import usable_cpus
from lens_hpc.settings import FilePath
from lens_hpc.settings import Settings as BaseSettings
from lens_hpc.workers import make_pool

TARGET = "DATASET"
TARGET_SETTING = "dataset"
SUMMARY = "Read every byte of a packed dataset, and name the shards and rows that are damaged."
EXAMPLE = "lens-hpc verify data/demo/shards"


class Settings(BaseSettings):
    """Settings of `lens-hpc verify`."""

    dataset: FilePath
    """Packed dataset to verify."""
    processes: PositiveInt = Field(default_factory=usable_cpus)
    """Worker processes."""


class Verified(NamedTuple):
    """A dataset without damage."""

    dataset: Path
    shards: int
    bytes: int


def run(settings: Settings) -> Verified:
    """Check all shards. Raises UserError with the name of each that is damaged, and its rows."""
    manifest = read_manifest(settings.dataset)
    records = [shard for split in manifest.splits.values() for shard in split.shards]
    size = sum(record.bytes for record in records)

    problems = []
    for name, table in manifest.files.items():
        damage = find_table_damage(settings.dataset, name, table)
        problems += [damage] if damage else []

    with (
        Progress(size / 1e6, "verify", "MB") as progress,
        make_pool(min(settings.processes, len(records)), "fork") as pool,
    ):
        found = pool.map(partial(find_damage, settings.dataset), records)
        for record, problem in zip(records, found, strict=True):
            if problem:
                problems.append(problem)
            progress.update(record.bytes / 1e6)

    if problems:
        listed = "\n  ".join(problems)
        kind = "files" if manifest.files else "shards"
        raise UserError(
            f"{len(problems)} of {len(records) + len(manifest.files)} {kind} are damaged; "
            f"copy or pack them again:\n  {listed}"
        )
    # What is as it was packed is still to be what the manifest says: opening finds out.
    for name in manifest.splits:
        ColumnReader(settings.dataset, name, manifest=manifest)
    return Verified(settings.dataset, len(records), size)


def text(verified: Verified) -> str:
    """Say how much was read."""
    size = f"{verified.bytes / 1e6:,.1f} MB"
    return f"{verified.dataset}: {verified.shards} shards, {size}, all as they were packed"
