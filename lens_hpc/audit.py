"""audit: before anyone trains, find what could let a classifier look good without finding lenses.

1. Can the catalogue features tell the label alone, together or one by one?
2. Can a single number of an image, or the kind of its file?
3. Are cutouts there twice, also turned or mirrored; are groups split; are classes balanced alike?
4. Each finding gets a verdict: fine, look, leak. They are kept in DATASET/audit.json, for train and the report.
"""

from pathlib import Path

from lens_hpc import UserError, config
from lens_hpc.analysis.audit import audit
from lens_hpc.analysis.verdict import Audit, write_audit
from lens_hpc.logs import logger

LEAK = 3


def run(dataset: Path, overrides: list[str]) -> int:
    """Audit a packed dataset, print the findings and keep them. Exit status 3 when there is a leak."""
    config.load(config.Audit, overrides=overrides)
    found = audit(dataset)
    if found is None:
        raise UserError(f"{dataset}: has no lenses or no non-lenses; only a labelled dataset can leak its labels")
    print(table(dataset, found))
    try:
        write_audit(dataset, found)
    except OSError as error:  # somebody else's dataset
        logger.warning("%s: the audit cannot be kept there: %s", dataset, error.strerror)
    return LEAK if found.verdict == "leak" else 0


def table(dataset: Path, found: Audit) -> str:
    """A line a finding."""
    width = max(len(finding.check) for finding in found.findings)
    lines = [f"{dataset}: {found.dataset}, {found.rows:,} cutouts"]
    lines += [f"  {finding.verdict:<5} {finding.check:<{width}}  {finding.found}" for finding in found.findings]
    return "\n".join([*lines, f"verdict: {found.verdict}"])
