"""What an audit leaves beside a dataset: findings, each with its verdict."""

import json
import zlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lens_hpc import files

FILE = "audit.json"
VERDICTS = ("fine", "look", "leak")
SHOWN = 3


class Finding(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: str
    check: str
    found: str


class Audit(BaseModel):
    """What audit.json holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    manifest_crc32: str
    rows: int
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """The worst of all."""
        return max((finding.verdict for finding in self.findings), key=VERDICTS.index)

    @property
    def reasons(self) -> str:
        """What led to the verdict."""
        worst = [f"{finding.check}: {finding.found}" for finding in self.findings if finding.verdict == self.verdict]
        return f"{len(worst)} checks" if self.verdict == "fine" else some(worst)


def read_audit(dataset: Path) -> Audit | None:
    """The audit of a dataset as it is now; None when there is none."""
    try:
        audit = Audit.model_validate(json.loads((dataset / FILE).read_text(encoding="utf-8")))
        return audit if audit.manifest_crc32 == manifest_crc32(dataset) else None
    except (OSError, ValueError, ValidationError):
        return None


def write_audit(dataset: Path, audit: Audit) -> None:
    """Leave the audit beside the manifest that it is of."""
    files.write_text(dataset / FILE, audit.model_dump_json(indent=1) + "\n")


def manifest_crc32(dataset: Path) -> str:
    """Checksum of the manifest, which holds the checksums of all the rest."""
    return f"{zlib.crc32((dataset / 'manifest.json').read_bytes()):08x}"


def some(names: list[str]) -> str:
    """The first of them, and how many more."""
    return "; ".join(names[:SHOWN]) + f"; and {len(names) - SHOWN:,} more" * (len(names) > SHOWN)
