"""What is planted in cutouts and files is found, by name."""

from pathlib import Path

import numpy as np
import pytest

from lens_hpc.auditing import cutout_facts
from tests.auditing.planted import LEAK_STATUS, RECIPE, ROWS, PlantedSurvey, findings, leaks
from tests.conftest import pack_survey

# ---- numbers that tell the label ----


@pytest.mark.slow
def test_a_brighter_sky_in_lenses(planted: PlantedSurvey, tmp_path: Path) -> None:
    planted.images[planted.labels == 1, 1] += 1  # sigma, in one band
    leaking = leaks(findings(planted.pack(tmp_path / "s"), LEAK_STATUS))
    assert leaking == {"sky level in r", "border and sky together"}


@pytest.mark.slow
def test_a_noisier_sky_and_blank_edges_in_lenses(planted: PlantedSurvey, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    planted.images[planted.labels == 1, 0] += rng.normal(0, 1.5, (ROWS // 2, 24, 24))
    planted.images[planted.labels == 0, 1, :, :2] = 0
    found = findings(planted.pack(tmp_path / "s"), LEAK_STATUS)
    assert {"sky rms in g", "blank lines in r"} <= leaks(found)


@pytest.mark.slow
def test_another_kind_of_file_for_lenses(planted: PlantedSurvey, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for row, image in enumerate(planted.images):
        is_lens = planted.labels[row] == 1
        stored = image if is_lens else np.pad(image, ((0, 0), (1, 1), (1, 1)))
        np.save(folder / f"o{row}.npy", stored)
    planted.table.to_csv(folder / "catalogue.csv", index=False)
    recipe = RECIPE.replace("stack: images.npy", 'images: "{id}.npy"\nsize: [24, 24]')
    (folder / "recipe.yaml").write_text(recipe)

    found = findings(pack_survey(folder, folder / "d"), LEAK_STATUS)
    assert leaks(found) == {"type and size of the file"}


# ---- duplicates ----


@pytest.mark.slow
def test_duplicates_across_splits(planted: PlantedSurvey, tmp_path: Path) -> None:
    planted.images[7] = planted.images[0]  # of val and train
    planted.images[28] = np.rot90(planted.images[11], 1, axes=(-2, -1))  # of test and train
    found = findings(planted.pack(tmp_path / "s", "columns.split=split"), LEAK_STATUS)
    assert leaks(found) == {"duplicates across splits"}
    said = found["duplicates across splits"][1]
    assert said.startswith("2 pairs")
    for name in ("o0 (train)", "o7 (val)", "o11 (train)", "o28 (test)"):
        assert name in said
    assert found["duplicates with two labels"][0] == "look"


@pytest.mark.slow
def test_duplicates_within_a_split_are_worth_a_look(planted: PlantedSurvey, tmp_path: Path) -> None:
    planted.images[2] = planted.images[0]
    found = findings(planted.pack(tmp_path / "s", "columns.split=split"), 0)
    assert found["duplicates within a split"][0] == "look"
    assert found["duplicates with two labels"][0] == "fine"


@pytest.mark.slow
def test_rows_are_drawn_for_what_takes_long(
    planted: PlantedSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutout_facts, "MAXIMUM_BORDER_ROWS", 200)
    monkeypatch.setattr(cutout_facts, "MAXIMUM_SIGNATURE_ROWS", 100)
    monkeypatch.setattr(cutout_facts, "LARGEST_BLOCK_ROWS", 4)
    planted.images[planted.labels == 1, :, 0, 0] = 0
    found = findings(planted.pack(tmp_path / "s"), LEAK_STATUS)
    assert "border and sky together" in leaks(found)
    assert found["same sky across splits"][0] == "fine"
