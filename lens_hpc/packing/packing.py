"""pack: a catalogue and its images become HDF5 shards and a manifest.

1. The catalogue is checked as a whole; every row gets its split; the rows of a split are shuffled
   over the whole split and cut into shards (`plan`).
2. Shards are written in OUTPUT.partial by any number of processes and tasks. A finished shard
   leaves a note of what it was made from, so that a later start keeps it (`writing`, `notes`).
3. Whoever finishes the last shard writes the manifest and renames the folder to OUTPUT
   (`publishing`).
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lens_hpc import files
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.errors import UserError
from lens_hpc.holding import held
from lens_hpc.layout import MANIFEST
from lens_hpc.packing.plan import Plan, is_same_recipe, make_plan, recipe_of
from lens_hpc.packing.publishing import publish_dataset, remove_notes
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.packing.source_record import check_source
from lens_hpc.packing.summary import describe_dataset, describe_plan
from lens_hpc.packing.writing import write_shards


@dataclass(frozen=True)
class Packed:
    """What became of a packing."""

    output: Path
    """Folder of the dataset."""
    manifest: Manifest | None
    """What the dataset holds; None after a dry run, and where another task publishes it."""
    text: str
    """What the terminal prints."""
    is_new: bool = False
    """Whether this call published the dataset, and did not find it packed already."""

    def __repr__(self) -> str:
        if self.manifest is None:
            first_line = self.text.partition("\n")[0]
            unfinished = f"this task's shards of {self.output}; the last task publishes it"
            return f"<Packed: {first_line or unfinished}>"

        splits = ", ".join(
            f"{name} {record.rows:,}" for name, record in self.manifest.splits.items()
        )
        rejected = f", {self.manifest.rejected:,} left out" if self.manifest.rejected else ""
        return f"<Packed {self.output}: rows {splits}{rejected}>"


def pack_survey(settings: PackSettings) -> Packed:
    """Pack a catalogue and its images into the dataset `settings.output`, or go on doing so.

    Raises UserError when the recipe, the catalogue or the images are at fault, or when the output
    holds something else.
    """
    if settings.dry_run:
        return Packed(settings.output, None, describe_plan(make_plan(settings)))

    if (settings.output / MANIFEST).is_file():
        return _packed_already(make_plan(settings))  # also where nothing can be written
    settings = settings.model_copy(update={"output": files.final_name(settings.output)})
    with _held(settings):
        return _pack(settings)


@contextmanager
def _held(settings: PackSettings) -> Iterator[None]:
    """Hold the output: alone, or with the other tasks that pack the same."""
    output = settings.output
    if settings.tasks == 1:
        with held(output):
            yield
        return

    packed = [recipe_of(settings), str(settings.source), settings.tasks]
    share = hashlib.sha256(json.dumps(packed).encode()).hexdigest()
    task = output.with_name(f".{output.name}.task-{settings.task}.lock")
    with held(output, share=share), held(output, file=task):
        yield


def _pack(settings: PackSettings) -> Packed:
    output = settings.output
    plan = make_plan(settings)
    if output.exists() and not _is_empty_folder(output):
        return _packed_already(plan)

    write_shards(plan)
    published = publish_dataset(plan)
    if published is None:
        return Packed(output, None, "")
    return Packed(output, published, describe_dataset(output, published), is_new=True)


def _packed_already(plan: Plan) -> Packed:
    output = plan.settings.output
    manifest = _check_packed_already(plan)
    text = f"{output} is packed already. {describe_dataset(output, manifest)}"
    return Packed(output, manifest, text)


def _is_empty_folder(folder: Path) -> bool:
    """Say whether this is a folder that the user has made for the dataset."""
    return folder.is_dir() and not any(folder.iterdir())


def _check_packed_already(plan: Plan) -> Manifest:
    """Return the manifest of the output when it is this very dataset; UserError otherwise."""
    output = plan.settings.output
    if not (output / MANIFEST).is_file():
        raise UserError(
            f"output = {output}: already holds something else than a dataset; name another folder"
        )

    manifest = read_manifest(output)
    if not is_same_recipe(manifest.recipe, plan.settings):
        raise UserError(
            f"output = {output}: already holds another dataset, {manifest.name}; "
            "name another folder"
        )

    packed_rows = manifest.rejected + sum(split.rows for split in manifest.splits.values())
    rows_now = len(plan.catalogue)
    if packed_rows != rows_now:
        raise UserError(
            f"output = {output}: was packed from {packed_rows:,} rows, and the source has "
            f"{rows_now:,} now; name another folder"
        )

    check_source(plan, manifest)
    remove_notes(output)
    return manifest
