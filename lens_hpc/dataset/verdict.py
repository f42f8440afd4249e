"""What an audit leaves beside a dataset: findings, each with its verdict."""

import zlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lens_hpc import files, layout

VERDICTS = ("fine", "look", "leak")
SHOWN = 3


class Finding(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Literal["fine", "look", "leak"]
    check: str
    found: str


class Audit(BaseModel):
    """What audit.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    manifest_crc32: str
    rows: int
    findings: Annotated[tuple[Finding, ...], Field(min_length=1)]

    @property
    def verdict(self) -> str:
        """The worst verdict of all findings."""
        return max((finding.verdict for finding in self.findings), key=VERDICTS.index)

    @property
    def reasons(self) -> str:
        """The findings that led to the verdict, or the number of checks when all are fine."""
        verdict = self.verdict
        worst = [finding for finding in self.findings if finding.verdict == verdict]
        if verdict == "fine":
            return f"{len(worst)} checks"
        return first_few([f"{finding.check}: {finding.found}" for finding in worst])


def read_audit(dataset: Path) -> Audit | None:
    """Return the audit of a dataset as it is now; None when there is none."""
    try:
        audit = Audit.model_validate_json((dataset / layout.AUDIT).read_bytes())
        is_current = audit.manifest_crc32 == manifest_crc32(dataset)
    except (OSError, ValidationError):
        return None
    return audit if is_current else None


def write_audit(dataset: Path, audit: Audit) -> None:
    """Write the audit beside the manifest of the dataset."""
    files.write_text(dataset / layout.AUDIT, audit.model_dump_json(indent=1) + "\n")


def manifest_crc32(dataset: Path) -> str:
    """Return the checksum of the manifest, which holds the checksums of all the rest."""
    crc = zlib.crc32((dataset / layout.MANIFEST).read_bytes())
    return f"{crc:08x}"


def first_few(names: list[str]) -> str:
    """Name the first, and count the others."""
    text = "; ".join(names[:SHOWN])
    others = len(names) - SHOWN
    if others > 0:
        text += f"; and {others:,} more"
    return text
