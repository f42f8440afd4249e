"""A labelled dataset, checked and staged by all processes together, ready to train on."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from accelerate import Accelerator
from accelerate.utils import gather_object

from lens_hpc import config
from lens_hpc.dataset import staging
from lens_hpc.dataset.manifest import Manifest, ShardRecord
from lens_hpc.dataset.shards import find_damage
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.verdict import read_audit
from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.training.best import check_best
from lens_hpc.training.long_wait import waited_for

TRAIN, VALIDATION = "train", "val"
SPLITS = (TRAIN, VALIDATION)
# A rank reads about its part of the split (loading/order.py): in steps of B samples, within this
# many standard deviations.
DEVIATIONS = 3


class TrainingSplits(NamedTuple):
    """The splits that a training reads."""

    train: Split
    validation: Split


def open_splits(
    settings: config.Train, manifest: Manifest, accelerator: Accelerator
) -> TrainingSplits:
    """Check, stage and open both splits.

    Raises UserError on every process when anything is wrong with either.
    """
    data = settings.data
    dataset = data.dataset
    check_splits(dataset, manifest, settings.train.best)
    if accelerator.is_main_process:
        warn_of_leaks(dataset)

    staged: dict[str, Path] = {}
    if data.stage_to:
        folder = staging.expand_folder(data.stage_to)
        batch = settings.train.global_batch_size
        staged = stage_shards(dataset, manifest, folder, batch, accelerator)

    # A copy was verified while it was made.
    if data.verify == "full":
        shards = [shard for name in SPLITS for shard in manifest.splits[name].shards]
        verify_shards(dataset, [shard for shard in shards if shard.file not in staged], accelerator)

    with waited_for(accelerator, f"opening {dataset}"):
        return TrainingSplits(
            train=Split(dataset, TRAIN, staged, manifest),
            validation=Split(dataset, VALIDATION, staged, manifest),
        )


def warn_of_leaks(dataset: Path) -> None:
    """Warn when the labels can be told without finding lenses, or when nobody knows."""
    audit = read_audit(dataset)
    if audit is None:
        logger.warning(
            "%s was never audited, or not since it was packed; run: lens-hpc audit %s",
            dataset,
            dataset,
        )
    elif audit.verdict == "leak":
        logger.warning("the audit of %s found a leak: %s", dataset, audit.reasons)


def check_splits(dataset: Path, manifest: Manifest, best: str) -> None:
    """Raise UserError unless one split can be trained on, and the other choose the best weights."""
    for name in SPLITS:
        check_labels(dataset, manifest, name)
    check_best(dataset, manifest, VALIDATION, best)


def check_labels(dataset: Path, manifest: Manifest, name: str) -> None:
    """Raise UserError unless a split has lenses, non-lenses and nothing unlabelled."""
    if name not in manifest.splits:
        names = ", ".join(manifest.splits)
        raise UserError(f"{dataset} has no split {name!r}; it has: {names}")

    record = manifest.splits[name]
    if record.unlabelled or not record.lenses or not record.non_lenses:
        raise UserError(
            f"{dataset}: the split {name} has {record.lenses} lenses, "
            f"{record.non_lenses} non-lenses and {record.unlabelled} unlabelled rows; "
            "both classes are needed, and labels for all"
        )


def stage_shards(
    dataset: Path,
    manifest: Manifest,
    folder: Path,
    global_batch_size: int,
    accelerator: Accelerator,
) -> dict[str, Path]:
    """Copy what this node reads into `folder`.

    Returns the copies, by the name of the shard, that every process of the node then finds.
    """
    first, last = _share_of_node(accelerator)
    share = last - first
    margin = DEVIATIONS * math.sqrt(share * (1 - share) / global_batch_size)

    needed: list[ShardRecord] = []
    for name in SPLITS:
        needed += staging.shards_needed(manifest, name, first - margin, last + margin)

    target = staging.staging_folder(manifest, folder)
    with waited_for(accelerator, "data.stage_to") as tell:
        if accelerator.is_local_main_process:
            staging.copy_shards(dataset, needed, target, tell)
    return staging.staged_copies(needed, target)


def _share_of_node(accelerator: Accelerator) -> tuple[float, float]:
    """Return where the ranks of this node begin and end among all, as fractions."""
    on_node = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    first_rank = accelerator.process_index - accelerator.local_process_index
    world_size = accelerator.num_processes
    return first_rank / world_size, (first_rank + on_node) / world_size


def verify_shards(dataset: Path, shards: Sequence[ShardRecord], accelerator: Accelerator) -> None:
    """Read every byte, each process its share.

    Raises UserError on all processes, which names every damaged shard.
    """
    rank = accelerator.process_index
    own_share = shards[rank :: accelerator.num_processes]
    damages = []
    with waited_for(accelerator, "data.verify") as tell:
        for number, shard in enumerate(own_share, start=1):
            damages.append(find_damage(dataset, shard))
            tell(staging.progress_text(own_share[:number], own_share))

    problems = sorted(gather_object([damage for damage in damages if damage]))
    if problems:
        listed = "\n  ".join(problems)
        raise UserError(f"{len(problems)} shards are damaged; copy or pack them again:\n  {listed}")
