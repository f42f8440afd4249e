"""The audit finds what was planted, by name, and nothing in a sound survey."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lens_hpc import UserError, audit, cli
from lens_hpc.analysis.verdict import read_audit
from lens_hpc.engine.dataset import warn_of_leaks
from tests.conftest import pack_survey

ROWS = 600
RECIPE = """
name: planted
catalogue: catalogue.csv
stack: images.npy
columns: {id: id, label: is_lens, features: [mag, colour]}
bands: [g, r]
pixel_scale: 0.2
units: counts
"""


class Survey:
    """Noise around a galaxy each; the features tell a little, as they do in the sky."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(ROWS) % 2
        y, x = np.indices((24, 24)) - 11.5
        light = np.exp(-np.hypot(x, y) / 3) * rng.uniform(5, 50, (ROWS, 2, 1, 1))
        self.images = (light + rng.normal(10, 1, (ROWS, 2, 24, 24))).astype(np.float32)
        self.table = pd.DataFrame(
            {
                "id": [f"o{i}" for i in range(ROWS)],
                "is_lens": self.labels,
                "mag": rng.normal(self.labels / 2, 1),
                "colour": rng.normal(size=ROWS),
                "field": [f"f{i // 4}" for i in range(ROWS)],
                "split": np.where(np.arange(ROWS) % 10 < 6, "train", np.where(np.arange(ROWS) % 10 < 8, "val", "test")),
            }
        )

    def pack(self, folder: Path, *overrides: str) -> Path:
        folder.mkdir()
        np.save(folder / "images.npy", self.images)
        self.table.to_csv(folder / "catalogue.csv", index=False)
        (folder / "recipe.yaml").write_text(RECIPE)
        return pack_survey(folder, folder / "d", *overrides)


def findings(dataset: Path, status: int) -> dict[str, tuple[str, str]]:
    assert audit.run(dataset, []) == status
    found = read_audit(dataset)
    assert found is not None
    return {finding.check: (finding.verdict, finding.found) for finding in found.findings}


def leaks(found: dict[str, tuple[str, str]]) -> set[str]:
    return {check for check, (verdict, _) in found.items() if verdict == "leak"}


@pytest.fixture
def planted() -> Survey:
    return Survey()


def test_a_sound_survey_is_fine(planted: Survey, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(planted.pack(tmp_path / "s"), 0)
    assert {verdict for verdict, _ in found.values()} == {"fine"}
    said = capsys.readouterr().out
    assert "  audit at first sight: fine (4 checks); with images and all: lens-hpc audit" in said
    assert said.endswith("verdict: fine\n")


def test_a_feature_that_is_zero_for_every_non_lens(planted: Survey, tmp_path: Path) -> None:
    planted.table.loc[planted.labels == 0, "colour"] = 0
    found = findings(planted.pack(tmp_path / "s"), audit.LEAK)
    assert leaks(found) == {"feature colour", "features together"}
    assert found["feature colour"][1].startswith("is 0 for every non-lens; AUC 0.9")


@pytest.mark.slow
def test_one_that_is_zero_for_most_lenses_too(planted: Survey, tmp_path: Path) -> None:
    planted.table.loc[(planted.labels == 0) | (np.arange(ROWS) % 10 < 8), "colour"] = 0
    assert leaks(findings(planted.pack(tmp_path / "s"), audit.LEAK)) == {"feature colour"}


@pytest.mark.slow
def test_features_that_are_missing_or_constant(planted: Survey, tmp_path: Path) -> None:
    planted.table.loc[planted.labels == 0, "colour"] = np.nan
    planted.table["mag"] = 3
    found = findings(planted.pack(tmp_path / "s"), audit.LEAK)
    assert leaks(found) == {"feature colour", "features together"}
    assert "missing for 0.0% of the lenses and 100.0% of the non-lenses" in found["feature colour"][1]
    assert found["feature mag"] == ("look", "is 3 for all: it says nothing")


@pytest.mark.slow
def test_features_that_are_missing_more_often_for_a_class(planted: Survey, tmp_path: Path) -> None:
    planted.table.loc[(planted.labels == 0) & (np.arange(ROWS) % 10 < 4), "colour"] = np.nan
    verdict, said = findings(planted.pack(tmp_path / "s"), 0)["feature colour"]
    assert verdict == "look"
    assert said.startswith("missing for 0.0% of the lenses and 40.0% of the non-lenses")


def test_a_brighter_sky_in_lenses(planted: Survey, tmp_path: Path) -> None:
    planted.images[planted.labels == 1, 1] += 1  # sigma, in one band
    assert leaks(findings(planted.pack(tmp_path / "s"), audit.LEAK)) == {"sky level in r"}


@pytest.mark.slow
def test_features_that_are_rare_are_no_leak(planted: Survey, tmp_path: Path) -> None:
    planted.table["mag"] = np.isin(np.arange(ROWS), [2, 40]).astype(int)  # a flag, set for two non-lenses
    planted.table.loc[np.arange(ROWS) % 100 != 1, "colour"] = np.nan  # measured for six lenses
    found = findings(planted.pack(tmp_path / "s", "splits={train: 1.0}"), 0)
    assert leaks(found) == set()


@pytest.mark.slow
def test_a_perfect_feature_leaks_however_few_lenses_and_groups_there_are(planted: Survey, tmp_path: Path) -> None:
    planted.table = planted.table[(planted.labels == 0) | (np.arange(ROWS) % 14 == 1)].copy()
    planted.images = planted.images[planted.table.index]
    planted.table["mag"] += 10 * planted.table["is_lens"]
    planted.table["field"] = planted.table["is_lens"].astype(str)  # all lenses in one group
    splits = ("splits={train: 1.0}", "columns.group=field")
    assert "feature mag" in leaks(findings(planted.pack(tmp_path / "s", *splits), audit.LEAK))


@pytest.mark.slow
def test_a_noisier_sky_and_blank_edges_in_lenses(planted: Survey, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    planted.images[planted.labels == 1, 0] += rng.normal(0, 1.5, (ROWS // 2, 24, 24))
    planted.images[planted.labels == 0, 1, :, :2] = 0
    assert {"sky rms in g", "blank lines in r"} <= leaks(findings(planted.pack(tmp_path / "s"), audit.LEAK))


@pytest.mark.slow
def test_another_kind_of_file_for_lenses(planted: Survey, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for row, image in enumerate(planted.images):
        np.save(folder / f"o{row}.npy", image if planted.labels[row] else np.pad(image, ((0, 0), (1, 1), (1, 1))))
    planted.table.to_csv(folder / "catalogue.csv", index=False)
    (folder / "recipe.yaml").write_text(RECIPE.replace("stack: images.npy", 'images: "{id}.npy"\nsize: [24, 24]'))
    assert leaks(findings(pack_survey(folder, folder / "d"), audit.LEAK)) == {"type and size of the file"}


def test_duplicates_across_splits(planted: Survey, tmp_path: Path) -> None:
    planted.images[7] = planted.images[0]  # of val and train
    planted.images[28] = np.rot90(planted.images[11], 1, axes=(-2, -1))  # of test and train
    found = findings(planted.pack(tmp_path / "s", "columns.split=split"), audit.LEAK)
    assert leaks(found) == {"duplicates across splits"}
    said = found["duplicates across splits"][1]
    assert said.startswith("2 pairs")
    for name in ("o0 (train)", "o7 (val)", "o11 (train)", "o28 (test)"):
        assert name in said
    assert found["duplicates with two labels"][0] == "look"


@pytest.mark.slow
def test_duplicates_within_a_split_are_worth_a_look(planted: Survey, tmp_path: Path) -> None:
    planted.images[2] = planted.images[0]
    found = findings(planted.pack(tmp_path / "s", "columns.split=split"), 0)
    assert found["duplicates within a split"][0] == "look"
    assert found["duplicates with two labels"][0] == "fine"


def test_groups_across_splits(planted: Survey, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = planted.pack(tmp_path / "s", "columns.split=split", "columns.group=field")
    assert "audit at first sight: leak (groups across splits: " in capsys.readouterr().out
    verdict, said = findings(dataset, audit.LEAK)["groups across splits"]
    assert verdict == "leak"
    assert said.endswith("f1; f101; f102; and 87 more")


@pytest.mark.slow
def test_splits_with_other_shares_of_lenses(planted: Survey, tmp_path: Path) -> None:
    planted.table["split"] = np.where((planted.labels == 1) & (np.arange(ROWS) < 300), "train", planted.table["split"])
    verdict, said = findings(planted.pack(tmp_path / "s", "columns.split=split"), 0)["class balance"]
    assert verdict == "look"
    assert said.startswith("the splits differ; lenses: ")


@pytest.mark.slow
def test_a_dataset_that_was_packed_anew_has_no_audit(planted: Survey, tmp_path: Path) -> None:
    dataset = planted.pack(tmp_path / "s")
    findings(dataset, 0)
    manifest = json.loads((dataset / "manifest.json").read_text())
    (dataset / "manifest.json").write_text(json.dumps(manifest | {"seed": 1}))
    assert read_audit(dataset) is None


@pytest.mark.slow
def test_the_same_data_in_two_tries_give_the_same_audit(planted: Survey, tmp_path: Path) -> None:
    dataset = planted.pack(tmp_path / "s")
    assert findings(dataset, 0) == findings(dataset, 0)


def test_a_few_rows_cannot_be_judged(dataset: Path) -> None:
    assert findings(dataset, 0)["features together"] == ("look", "too few lenses or non-lenses to tell")


def test_one_class_alone_has_no_label_to_leak(tmp_path: Path, survey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = pack_survey(survey, tmp_path / "d", "columns.label=null", "splits={all: 1.0}")
    assert "not audited" in capsys.readouterr().out
    with pytest.raises(UserError, match="only a labelled dataset can leak its labels"):
        audit.run(dataset, [])


@pytest.mark.slow
def test_the_command_ends_with_3_for_a_leak(planted: Survey, tmp_path: Path) -> None:
    planted.table.loc[planted.labels == 0, "colour"] = 0
    assert cli.main(["audit", str(planted.pack(tmp_path / "s"))]) == 3


def test_training_says_when_nobody_has_looked_and_when_there_is_a_leak(
    planted: Survey, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planted.table.loc[planted.labels == 0, "colour"] = 0
    dataset = planted.pack(tmp_path / "s")
    warn_of_leaks(dataset)
    assert caplog.messages == [
        f"{dataset} was never audited, or not since it was packed; run: lens-hpc audit {dataset}"
    ]
    audit.run(dataset, [])
    warn_of_leaks(dataset)
    assert "found a leak: features together: AUC 0.99" in caplog.messages[-1]
