"""Notes: a shard that is complete leaves one, so that a later start keeps it.

They lie in OUTPUT.partial/.notes and go when the dataset is published.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from lens_hpc import files
from lens_hpc.packing.plan import Plan, Shard

NOTES = ".notes"


class ShardNote(NamedTuple):
    """What is in a complete shard, and what it was made from."""

    fingerprint: str
    record: dict[str, Any] | None
    """The manifest's record of it; None where all rows were bad and there is no file."""
    image_crc32: list[int]
    band_min: list[float]
    band_max: list[float]
    missing_pixels: list[int]
    """Pixels of each band that hold no measurement."""
    bad: dict[str, str]
    """Row number in the catalogue, as JSON has keys: why the row was left out."""


def notes_folder(plan: Plan) -> Path:
    """Return the folder of all notes."""
    return plan.folder / NOTES


def write_note(plan: Plan, shard: Shard, note: ShardNote) -> None:
    """Say that a shard is complete."""
    files.write_text(_note_file(plan, shard), json.dumps(note._asdict()))


def read_note(plan: Plan, shard: Shard) -> ShardNote | None:
    """Return the note of a shard that is complete and made from the same recipe and source."""
    try:
        note = ShardNote(**json.loads(_note_file(plan, shard).read_text(encoding="utf-8")))
        if note.record is not None:
            size = (plan.folder / shard.file).stat().st_size
            if size != note.record["bytes"]:
                return None
    except (OSError, ValueError, TypeError):
        return None
    return note if note.fingerprint == plan.fingerprint(shard) else None


def _note_file(plan: Plan, shard: Shard) -> Path:
    return notes_folder(plan) / f"{shard.split}-{shard.number:05d}.json"
