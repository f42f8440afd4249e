"""The audit of a dataset, as a table of contents: each check is in the module of its subject.

Each finding has a verdict. `leak`: a result on this dataset would not be believed. `look`: there
may be a good reason, which somebody should know. `fine`: nothing was found.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from lens_hpc.auditing.audited_rows import AuditedRows
from lens_hpc.auditing.catalogue_checks import (
    judge_class_balance,
    judge_features,
    judge_groups,
    judge_names,
)
from lens_hpc.auditing.cutout_facts import CutoutFacts, examine_cutouts
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
from lens_hpc.dataset.verdict import Audit, Finding, manifest_crc32
from lens_hpc.progress import Progress

Check = Callable[[], Iterable[Finding]]
"""It looks at some rows, and says what it found."""


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
        findings = _make_checks(_catalogue_checks(rows))
        if not quick:
            cutouts = examine_cutouts(rows)
            findings += _make_checks(_image_checks(rows, cutouts))

    return Audit(
        dataset=rows.manifest.name,
        manifest_crc32=manifest_crc32(dataset),
        rows=len(rows),
        findings=tuple(findings),
    )


def _catalogue_checks(rows: AuditedRows) -> dict[str, Check]:
    return {
        "class balance": lambda: [judge_class_balance(rows)],
        "groups": lambda: [judge_groups(rows)],
        "features": lambda: judge_features(rows),
    }


def _image_checks(rows: AuditedRows, cutouts: CutoutFacts) -> dict[str, Check]:
    """Return those of the images, and of the catalogue those that take as long."""
    return {
        "names": lambda: judge_names(rows),
        "file types": lambda: [judge_file_types(rows)],
        "numbers of images": lambda: judge_image_numbers(rows, cutouts.numbers),
        "textures": lambda: judge_textures(rows, cutouts.textures),
        "border": lambda: [judge_border(rows, cutouts)],
        "centres": lambda: judge_centres(rows, cutouts.centres),
        "classes told apart": lambda: judge_told_apart(rows, cutouts),
        "duplicates": lambda: judge_duplicates(rows, cutouts),
    }


def _make_checks(checks: dict[str, Check]) -> list[Finding]:
    """Make all checks in their order, and show which."""
    findings: list[Finding] = []
    with Progress(len(checks), "audit", "checks") as progress:
        for name, check in checks.items():
            progress.begin(name)
            findings += check()
            progress.update(1)
    return findings


def _has_both_classes(splits: list[Split]) -> bool:
    has_lenses = any(split.record.lenses for split in splits)
    has_non_lenses = any(split.record.non_lenses for split in splits)
    return has_lenses and has_non_lenses
