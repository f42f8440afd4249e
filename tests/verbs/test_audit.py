"""What `lens-hpc audit` says and leaves; the checks are tested in tests/auditing."""

from pathlib import Path

import pytest

from lens_hpc import cli
from lens_hpc.errors import UserError
from lens_hpc.training.training_data import warn_of_leaks
from tests.auditing.planted import PlantedSurvey
from tests.conftest import call, pack_survey


@pytest.fixture
def leaky() -> PlantedSurvey:
    planted = PlantedSurvey()
    planted.table.loc[planted.labels == 0, "colour"] = 0
    return planted


def test_one_class_alone_has_no_label_to_leak(
    tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = pack_survey(survey, tmp_path / "d", "columns.label=null", "splits={all: 1.0}")
    assert "not audited" in capsys.readouterr().out
    with pytest.raises(UserError, match="only a labelled dataset can leak its labels"):
        call("audit", dataset)


@pytest.mark.slow
def test_the_command_ends_with_3_for_a_leak(leaky: PlantedSurvey, tmp_path: Path) -> None:
    assert cli.main(["audit", str(leaky.pack(tmp_path / "s"))]) == 3


def test_an_audit_that_cannot_be_kept_is_still_told(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    audited = call("audit", dataset)
    assert audited.audit.rows == 40
    (message,) = caplog.messages
    refusal = f"{dataset}/audit.json: cannot be written: Permission denied"
    assert message.startswith(f"the audit is not kept: {refusal}")


@pytest.mark.slow
def test_training_says_when_nobody_has_looked_and_when_there_is_a_leak(
    leaky: PlantedSurvey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = leaky.pack(tmp_path / "s")
    warn_of_leaks(dataset)
    assert caplog.messages == [
        f"{dataset} was never audited, or not since it was packed; run: lens-hpc audit {dataset}"
    ]
    call("audit", dataset)
    warn_of_leaks(dataset)
    assert "found a leak: features together: AUC 0.99" in caplog.messages[-1]
