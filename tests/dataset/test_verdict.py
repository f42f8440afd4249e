import json
from pathlib import Path

import pytest

from lens_hpc.dataset.verdict import (
    Audit,
    Finding,
    first_few,
    manifest_crc32,
    read_audit,
    write_audit,
)


def finding(verdict: str, check: str) -> Finding:
    return Finding(verdict=verdict, check=check, found="something")


def test_an_audit_holds_for_the_dataset_as_it_was(dataset: Path) -> None:
    assert read_audit(dataset) is None
    findings = (finding("fine", "a"), finding("leak", "b"), finding("look", "c"))
    audit = Audit(dataset="toy", manifest_crc32=manifest_crc32(dataset), rows=40, findings=findings)
    write_audit(dataset, audit)
    assert read_audit(dataset) == audit
    assert (audit.verdict, audit.reasons) == ("leak", "b: something")

    manifest = dataset / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert read_audit(dataset) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        {"findings": []},
        {"findings": [{"verdict": "superb", "check": "a", "found": "b"}]},
        {"rows": "many"},
    ],
    ids=lambda content: repr(content[:6] if isinstance(content, bytes) else content),
)
def test_a_damaged_audit_is_none(dataset: Path, content: bytes | dict[str, object]) -> None:
    findings = (finding("fine", "a"),)
    audit = Audit(dataset="toy", manifest_crc32=manifest_crc32(dataset), rows=40, findings=findings)
    write_audit(dataset, audit)
    assert read_audit(dataset) == audit

    file = dataset / "audit.json"
    if isinstance(content, dict):
        content = json.dumps(json.loads(file.read_text()) | content).encode()
    file.write_bytes(content)
    assert read_audit(dataset) is None


def test_many_names_are_counted() -> None:
    assert first_few(["a", "b", "c"]) == "a; b; c"
    assert first_few(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"
