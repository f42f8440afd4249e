"""What is planted in a catalogue is found, by name."""

from pathlib import Path

import numpy as np
import pytest

from lens_hpc.auditing.audit import audit_dataset
from tests.auditing.planted import LEAK_STATUS, ROWS, PlantedSurvey, findings, leaks

# ---- classes and groups ----


@pytest.mark.slow
def test_groups_across_splits(
    planted: PlantedSurvey, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = planted.pack(tmp_path / "s", "columns.split=split", "columns.group=field")
    assert "audit at first sight: leak (groups across splits: " in capsys.readouterr().out
    verdict, said = findings(dataset, LEAK_STATUS)["groups across splits"]
    assert verdict == "leak"
    assert said.endswith("f1; f101; f102; and 87 more")


@pytest.mark.slow
def test_splits_with_other_shares_of_lenses(planted: PlantedSurvey, tmp_path: Path) -> None:
    is_early_lens = (planted.labels == 1) & (np.arange(ROWS) < 300)
    planted.table.loc[is_early_lens, "split"] = "train"
    dataset = planted.pack(tmp_path / "s", "columns.split=split")
    verdict, said = findings(dataset, 0)["class balance"]
    assert verdict == "look"
    assert said.startswith("the splits differ; lenses: ")


# ---- features ----


@pytest.mark.slow
def test_a_feature_that_is_zero_for_every_non_lens(planted: PlantedSurvey, tmp_path: Path) -> None:
    planted.table.loc[planted.labels == 0, "colour"] = 0
    found = findings(planted.pack(tmp_path / "s"), LEAK_STATUS)
    assert leaks(found) == {"feature colour", "features together"}
    assert found["feature colour"][1].startswith("is 0 for every non-lens; AUC 0.9")


@pytest.mark.slow
def test_one_that_is_zero_for_most_lenses_too(planted: PlantedSurvey, tmp_path: Path) -> None:
    is_zero = (planted.labels == 0) | (np.arange(ROWS) % 10 < 8)
    planted.table.loc[is_zero, "colour"] = 0
    assert leaks(findings(planted.pack(tmp_path / "s"), LEAK_STATUS)) == {"feature colour"}


@pytest.mark.slow
def test_features_that_are_missing_or_constant(planted: PlantedSurvey, tmp_path: Path) -> None:
    planted.table.loc[planted.labels == 0, "colour"] = np.nan
    planted.table["mag"] = 3
    found = findings(planted.pack(tmp_path / "s"), LEAK_STATUS)
    assert leaks(found) == {"feature colour", "features together"}
    rates = "missing for 0.0% of the lenses and 100.0% of the non-lenses"
    assert rates in found["feature colour"][1]
    assert found["feature mag"] == ("look", "is 3 for all: it says nothing")


@pytest.mark.slow
def test_features_that_are_missing_more_often_for_a_class(
    planted: PlantedSurvey, tmp_path: Path
) -> None:
    is_missing = (planted.labels == 0) & (np.arange(ROWS) % 10 < 4)
    planted.table.loc[is_missing, "colour"] = np.nan
    verdict, said = findings(planted.pack(tmp_path / "s"), 0)["feature colour"]
    assert verdict == "look"
    assert said.startswith("missing for 0.0% of the lenses and 40.0% of the non-lenses")


def test_numbers_that_stand_for_no_measurement(planted: PlantedSurvey, tmp_path: Path) -> None:
    planted.table.loc[np.arange(ROWS) % 100 < 2, "mag"] = -99
    planted.table.loc[7, "colour"] = 9999
    audit = audit_dataset(planted.pack(tmp_path / "s"), quick=True)
    assert audit is not None
    found = {finding.check: finding for finding in audit.findings}
    for name, told in (("mag", "12 rows have -99"), ("colour", "1 row has 9999")):
        finding = found[f"feature {name}"]
        value = told.rpartition(" ")[2]
        assert finding.verdict == "look"
        assert f"; {told}, far from the others (" in finding.found
        assert finding.found.endswith(f"pack with columns.missing={{'{name}': ['{value}']}}")


@pytest.mark.slow
def test_features_that_are_rare_are_no_leak(planted: PlantedSurvey, tmp_path: Path) -> None:
    numbers = np.arange(ROWS)
    is_flagged = np.isin(numbers, [2, 40])  # two non-lenses
    is_measured = numbers % 100 == 1  # six lenses
    planted.table["mag"] = is_flagged.astype(int)
    planted.table.loc[~is_measured, "colour"] = np.nan
    found = findings(planted.pack(tmp_path / "s", "splits={train: 1.0}"), 0)
    assert leaks(found) == set()


@pytest.mark.slow
def test_a_perfect_feature_leaks_however_few_lenses_and_groups_there_are(
    planted: PlantedSurvey, tmp_path: Path
) -> None:
    is_kept = (planted.labels == 0) | (np.arange(ROWS) % 14 == 1)
    planted.table = planted.table[is_kept].copy()
    planted.images = planted.images[planted.table.index]
    planted.table["mag"] += 10 * planted.table["is_lens"]
    planted.table["field"] = planted.table["is_lens"].astype(str)  # all lenses in one group
    dataset = planted.pack(tmp_path / "s", "splits={train: 1.0}", "columns.group=field")
    assert "feature mag" in leaks(findings(dataset, LEAK_STATUS))
