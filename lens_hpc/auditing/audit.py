"""The audit of a dataset, as a table of contents: each check is in the module of its subject.

Each finding has a verdict. `leak`: a result on this dataset would not be believed. `look`: there
may be a good reason, which somebody should know. `fine`: nothing was found.
"""

from pathlib import Path

from lens_hpc.auditing.audited_rows import AuditedRows
from lens_hpc.auditing.catalogue_checks import (
    judge_class_balance,
    judge_features,
    judge_groups,
    judge_names,
)
from lens_hpc.auditing.cutout_facts import examine_cutouts
from lens_hpc.auditing.image_checks import (
    judge_border,
    judge_centres,
    judge_duplicates,
    judge_file_types,
    judge_image_numbers,
    judge_textures,
    judge_told_apart,
)
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.mapping import cut_shards_named
from lens_hpc.dataset.split import Split
from lens_hpc.dataset.verdict import Audit, manifest_crc32


def audit_dataset(dataset: Path, quick: bool = False) -> Audit | None:
    """Run all checks on a packed dataset, or, if `quick`, those without images and training.

    Return None for a dataset without lenses or without non-lenses. Raise UserError when a shard is
    missing or damaged.
    """
    with cut_shards_named():
        splits = [Split(dataset, name) for name in read_manifest(dataset).splits]
        if not _has_both_classes(splits):
            return None

        rows = AuditedRows(splits, quick)
        findings = [
            judge_class_balance(rows),
            judge_groups(rows),
            *judge_features(rows),
        ]

        if not quick:
            cutouts = examine_cutouts(rows)
            findings += [
                *judge_names(rows),
                judge_file_types(rows),
                *judge_image_numbers(rows, cutouts.numbers),
                *judge_textures(rows, cutouts.textures),
                judge_border(rows, cutouts),
                *judge_centres(rows, cutouts.centres),
                *judge_told_apart(rows, cutouts),
                *judge_duplicates(rows, cutouts),
            ]

    return Audit(
        dataset=rows.manifest.name,
        manifest_crc32=manifest_crc32(dataset),
        rows=len(rows),
        findings=tuple(findings),
    )


def _has_both_classes(splits: list[Split]) -> bool:
    has_lenses = any(split.record.lenses for split in splits)
    has_non_lenses = any(split.record.non_lenses for split in splits)
    return has_lenses and has_non_lenses
