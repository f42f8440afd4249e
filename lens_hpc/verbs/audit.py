"""audit: before anyone trains, find what lets a classifier look good without finding lenses."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lens_hpc.errors import UserError
from lens_hpc.logs import logger
from lens_hpc.settings import FilePath
from lens_hpc.settings import Settings as BaseSettings

if TYPE_CHECKING:
    from lens_hpc.dataset.verdict import Audit

TARGET = "DATASET"
TARGET_SETTING = "dataset"
EXTRA = "pack"
SUMMARY = (
    "Find what gives the label away before anyone trains: features, shortcuts, duplicates, "
    "split groups. The verdicts are kept in DATASET/audit.json; exit status 3 when one is leak."
)
EXAMPLE = "lens-hpc audit data/demo/shards"

LEAK_STATUS = 3


class Settings(BaseSettings):
    """Settings of `lens-hpc audit`."""

    dataset: FilePath
    """Packed dataset to audit."""


class Audited(NamedTuple):
    """A dataset, and what the audit found in it."""

    dataset: Path
    audit: "Audit"

    def __repr__(self) -> str:
        return text(self)


def run(settings: Settings) -> Audited:
    """Audit a packed dataset, and keep the findings in its folder.

    Raise UserError when the dataset has no lenses or no non-lenses, or when a shard is damaged.
    """
    from lens_hpc.auditing.audit import audit_dataset  # imports scikit-learn
    from lens_hpc.dataset.verdict import write_audit

    audit = audit_dataset(settings.dataset)
    if audit is None:
        raise UserError(
            f"{settings.dataset}: has no lenses or no non-lenses; "
            "only a labelled dataset can leak its labels"
        )

    try:
        write_audit(settings.dataset, audit)
    except UserError as error:
        # A dataset that belongs to somebody else can be audited all the same.
        logger.warning("the audit is not kept: %s", error)
    return Audited(settings.dataset, audit)


def text(audited: Audited) -> str:
    """Return a line for each finding, and the verdict."""
    audit = audited.audit
    width = max(len(finding.check) for finding in audit.findings)
    lines = [f"{audited.dataset}: {audit.dataset}, {audit.rows:,} cutouts"]
    for finding in audit.findings:
        lines.append(f"  {finding.verdict:<5} {finding.check:<{width}}  {finding.found}")
    lines.append(f"verdict: {audit.verdict}")
    return "\n".join(lines)


def status(audited: Audited) -> int:
    """Return another exit status for a leak, so that a pipeline can end there."""
    return LEAK_STATUS if audited.audit.verdict == "leak" else 0
