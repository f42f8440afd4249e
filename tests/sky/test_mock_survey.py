import csv
import dataclasses
import multiprocessing
import threading
from pathlib import Path

import pytest
import torch
from astropy.io import fits

from lens_hpc.dataset.verdict import read_audit
from lens_hpc.errors import UserError
from lens_hpc.sky.mock_survey import MockSurvey, SurveyDesign, make_mock_survey
from tests.conftest import call, pack_survey
from tests.kills import files_of

DESIGN = SurveyDesign(
    objects=60, seed=5, prevalence=0.5, size=64, pixel_scale=0.168, bands=("g", "r", "i")
)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "catalogue.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_processes(tmp_path: Path) -> None:
    for name, processes, seed in (("a", 1, 5), ("b", 3, 5), ("c", 2, 6)):
        make_mock_survey(tmp_path / name, dataclasses.replace(DESIGN, seed=seed), processes)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


@pytest.mark.slow
def test_size_bands_and_prevalence_are_settings(tmp_path: Path) -> None:
    overrides = ("size=51", "bands=[r, z]", "prevalence=0.2", "pixel_scale=0.2")
    survey = call("simulate", tmp_path / "s", "objects=10", *overrides)
    assert survey == MockSurvey(tmp_path / "s", objects=10, lenses=2)

    rows = table(tmp_path / "s")
    assert list(rows[0]) == ["id", "is_lens", "class", "mag_i", "color_gi", "photo_z"]
    assert sum(int(row["is_lens"]) for row in rows) == 2
    assert all((row["class"] == "lens") == (row["is_lens"] == "1") for row in rows)
    for row in rows:
        with fits.open(tmp_path / "s" / "cutouts" / f"{row['id']}.fits") as hdus:
            assert hdus[0].data.shape == (2, 51, 51)
            assert hdus[0].header["BANDS"] == "r,z"


@pytest.mark.slow
def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    def state() -> list[object]:
        return [torch.get_num_threads(), threading.enumerate(), multiprocessing.active_children()]

    before = state()
    make_mock_survey(tmp_path / "s", dataclasses.replace(DESIGN, objects=4), processes=2)
    assert state() == before


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="already exists"):
        call("simulate", tmp_path / "s", "objects=10")


def test_a_field_too_small_for_arcs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be at least 8\.0 arcsec"):
        call("simulate", tmp_path / "s", "size=32")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_features_help_and_nothing_tells_the_label(tmp_path: Path) -> None:
    """Neither a feature, nor a number of the image, nor a cutout that is there twice."""
    call("simulate", tmp_path / "s", "objects=1000", "seed=11")
    dataset = pack_survey(tmp_path / "s", tmp_path / "d")
    assert call("audit", dataset).audit.verdict == "fine"
    found = read_audit(dataset)
    assert found is not None
    assert {finding.verdict for finding in found.findings} == {"fine"}

    auc = {}
    for finding in found.findings:
        if finding.found.startswith("AUC"):
            auc[finding.check] = float(finding.found.split()[1])
    assert 0.60 < auc.pop("features together") < 0.80
    assert len(auc) > 12
    assert max(auc.values()) < 0.68
