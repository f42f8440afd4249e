"""A labelled dataset, checked and staged by all processes together, ready to train on."""

import math
import os
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from lens_hpc import UserError, config
from lens_hpc.analysis.verdict import read_audit
from lens_hpc.data import stage
from lens_hpc.data.reader import Split
from lens_hpc.data.shards import Manifest, ShardRecord, damage, read_manifest
from lens_hpc.logs import logger

SPLITS = ("train", "val")
# A rank reads about its part of the split (order.py): in steps of B samples, within so many standard deviations.
DEVIATIONS = 3


def open_splits(settings: config.Data, global_batch_size: int, accelerator: Accelerator) -> dict[str, Split]:
    """The training and the validation split. UserError on every process when anything is wrong with either."""
    manifest = read_manifest(settings.dataset)
    for name in SPLITS:
        check_labels(settings.dataset, manifest, name)
    if accelerator.is_main_process:
        warn_of_leaks(settings.dataset)
    staged: dict[str, Path] = {}
    if settings.stage_to:
        staged = stage_shards(
            settings.dataset, manifest, stage.expand(settings.stage_to), global_batch_size, accelerator
        )
    if settings.verify == "full":
        unseen = [shard for name in SPLITS for shard in manifest.splits[name].shards if shard.file not in staged]
        verify(settings.dataset, unseen, accelerator)
    return {name: Split(settings.dataset, name, staged) for name in SPLITS}


def warn_of_leaks(dataset: Path) -> None:
    """Say so when the dataset's labels can be told without finding lenses, or when nobody knows."""
    audit = read_audit(dataset)
    if audit is None:
        logger.warning("%s was never audited, or not since it was packed; run: lens-hpc audit %s", dataset, dataset)
    elif audit.verdict == "leak":
        logger.warning("the audit of %s found a leak: %s", dataset, audit.reasons)


def check_labels(dataset: Path, manifest: Manifest, name: str) -> None:
    """UserError unless a split has lenses, non-lenses and nothing unlabelled."""
    if name not in manifest.splits:
        raise UserError(f"{dataset} has no split {name!r}; it has: {', '.join(manifest.splits)}")
    record = manifest.splits[name]
    if record.unlabelled or not record.lenses or not record.non_lenses:
        raise UserError(
            f"{dataset}: the split {name} has {record.lenses} lenses, {record.non_lenses} non-lenses and "
            f"{record.unlabelled} unlabelled rows; both classes are needed, and labels for all"
        )


def stage_shards(
    dataset: Path, manifest: Manifest, folder: Path, global_batch_size: int, accelerator: Accelerator
) -> dict[str, Path]:
    """Copy what this node reads to `folder`, and return the copies that every process of the node then finds."""
    on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    begin = accelerator.process_index - accelerator.local_process_index
    first, last = begin / accelerator.num_processes, (begin + on_node) / accelerator.num_processes
    share = last - first
    margin = DEVIATIONS * math.sqrt(share * (1 - share) / global_batch_size)
    needed = [shard for name in SPLITS for shard in stage.shards_needed(manifest, name, first - margin, last + margin)]
    place = stage.place_of(manifest, folder)
    if accelerator.is_local_main_process:
        stage.copy_shards(dataset, needed, place)
    accelerator.wait_for_everyone()
    return stage.staged(needed, place)


def verify(dataset: Path, records: list[ShardRecord], accelerator: Accelerator) -> None:
    """Read every byte, each process its share. UserError on all processes names every damaged shard."""
    rank, world_size = accelerator.process_index, accelerator.num_processes
    found = [problem for record in records[rank::world_size] if (problem := damage(dataset, record))]
    problems = sorted(gather_object(found))
    if problems:
        raise UserError(f"{len(problems)} shards are damaged; copy or pack them again:\n  " + "\n  ".join(problems))
