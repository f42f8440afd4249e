"""What the terminal says of a packing: what would be packed, and what was."""

from pathlib import Path

import numpy as np

from lens_hpc.dataset.manifest import Manifest
from lens_hpc.layout import REJECTED
from lens_hpc.packing.plan import Plan


def describe_plan(plan: Plan) -> str:
    """Say what would be packed, a line for each split."""
    catalogue = plan.catalogue
    count = len(catalogue)
    rejected = len(catalogue.bad)
    output = plan.settings.output
    lines = [f"would pack {count:,} rows, {rejected:,} of them rejected, into {output}"]

    for split in plan.splits:
        planned = plan.shards_of(split)
        rows = np.concatenate([shard.rows for shard in planned])
        count = len(rows)
        labels = catalogue.labels[rows]
        lenses = int((labels == 1).sum())
        non_lenses = int((labels == 0).sum())
        unlabelled = int((labels == -1).sum())
        classes = _describe_classes(lenses, non_lenses, unlabelled)

        # An estimate: without the other columns, and before compression.
        size = count * plan.cutouts.row_bytes
        lines.append(_split_line(split, count, classes, len(planned), size))

    shape = f"{plan.cutouts.shape} (bands, height, width)"
    lines.append(f"  a cutout is {shape}, stored as {plan.settings.dtype}")
    return "\n".join(lines)


def describe_dataset(output: Path, manifest: Manifest) -> str:
    """Say what was packed, a line for each split."""
    lines = [str(output)]
    for split, record in manifest.splits.items():
        classes = _describe_classes(record.lenses, record.non_lenses, record.unlabelled)
        size = sum(shard.bytes for shard in record.shards)
        lines.append(_split_line(split, record.rows, classes, len(record.shards), size))

    if manifest.rejected:
        lines.append(f"  {manifest.rejected:,} rows were left out: see {REJECTED}")
    return "\n".join(lines)


def _describe_classes(lenses: int, non_lenses: int, unlabelled: int) -> str:
    parts = [f"{lenses:,} lenses"]
    if non_lenses:
        parts.append(f"{non_lenses:,} non-lenses")
    if unlabelled:
        parts.append(f"{unlabelled:,} unlabelled")
    return ", ".join(parts)


def _split_line(split: str, rows: int, classes: str, files: int, size: int) -> str:
    """Return the line of a split; `size` is in bytes."""
    plural = "s" if files > 1 else ""
    megabytes = size / 1e6
    counts = f"{rows:>10,} rows: {classes}"
    return f"  {split:<8} {counts}; {files} shard{plural}, {megabytes:,.1f} MB"
