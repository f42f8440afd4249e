"""The audit as a whole: nothing in a sound survey, and the same findings each time."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from lens_hpc.auditing.audit import audit_dataset
from lens_hpc.dataset.verdict import read_audit
from tests.auditing.planted import PlantedSurvey, findings


@pytest.mark.slow
def test_a_sound_survey_is_fine(
    planted: PlantedSurvey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = findings(planted.pack(tmp_path / "s"), 0)
    assert {verdict for verdict, _ in found.values()} == {"fine"}
    said = capsys.readouterr().out
    assert "  audit at first sight: fine (4 checks); with images and all: lens-hpc audit" in said
    assert said.endswith("verdict: fine\n")


@pytest.mark.slow
def test_a_dataset_that_was_packed_anew_has_no_audit(
    planted: PlantedSurvey, tmp_path: Path
) -> None:
    dataset = planted.pack(tmp_path / "s")
    findings(dataset, 0)
    manifest = json.loads((dataset / "manifest.json").read_text())
    (dataset / "manifest.json").write_text(json.dumps(manifest | {"seed": 1}))
    assert read_audit(dataset) is None


@pytest.mark.slow
def test_the_same_data_in_two_tries_give_the_same_audit(
    planted: PlantedSurvey, tmp_path: Path
) -> None:
    dataset = planted.pack(tmp_path / "s")
    assert findings(dataset, 0) == findings(dataset, 0)
    kept = (dataset / "audit.json").read_bytes()
    findings(dataset, 0)
    assert (dataset / "audit.json").read_bytes() == kept


def test_a_few_rows_cannot_be_judged(dataset: Path) -> None:
    assert findings(dataset, 0)["features together"] == (
        "look",
        "too few lenses or non-lenses to tell",
    )


def test_a_quick_audit_has_fewer_checks_and_the_process_is_left_as_it_was(dataset: Path) -> None:
    before = _state_of_process()
    thorough = audit_dataset(dataset)
    quick = audit_dataset(dataset, quick=True)
    assert thorough is not None
    assert quick is not None

    checks = [finding.check for finding in thorough.findings]
    quick_checks = [finding.check for finding in quick.findings]
    assert set(quick_checks) < set(checks)
    assert "features together" not in quick_checks
    assert _state_of_process() == before


def _state_of_process() -> list[object]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return [threading.enumerate(), handlers, dict(os.environ)]
