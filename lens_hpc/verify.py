"""verify: is every byte of a dataset as it was packed?"""

from functools import partial
from pathlib import Path

from lens_hpc import UserError, config, logs
from lens_hpc.data import shards
from lens_hpc.workers import make_pool


def run(dataset: Path, overrides: list[str]) -> None:
    """Check all shards. UserError names each that is damaged, and its rows."""
    settings = config.load(config.Verify, overrides=overrides)
    manifest = shards.read_manifest(dataset)
    records = [shard for split in manifest.splits.values() for shard in split.shards]
    progress = logs.Progress(sum(record.bytes for record in records), "verify", "bytes")
    damaged = []
    with make_pool(min(settings.processes, len(records)), "fork") as pool:
        for record, problem in zip(records, pool.map(partial(shards.damage, dataset), records), strict=True):
            damaged += [problem] * bool(problem)
            progress.update(record.bytes)
    progress.close()
    if damaged:
        raise UserError(
            f"{len(damaged)} of {len(records)} shards are damaged; copy or pack them again:\n  " + "\n  ".join(damaged)
        )
    print(f"{dataset}: {len(records)} shards, {progress.done / 1e6:,.1f} MB, all as they were packed")
