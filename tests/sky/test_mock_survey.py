import csv
import dataclasses
import multiprocessing
import threading
from pathlib import Path

import pytest
import torch
from astropy.io import fits

from lens_hpc import Dataset
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.verdict import read_audit
from lens_hpc.errors import UserError
from lens_hpc.sky.deflection import einstein_radius
from lens_hpc.sky.lenses import MINIMUM_MAGNIFICATION
from lens_hpc.sky.mock_survey import MockSurvey, SurveyDesign, make_mock_survey
from lens_hpc.sky.surveys import EUCLID, SURVEYS, ZERO_POINT
from tests.conftest import call, pack_survey
from tests.kills import files_of

DESIGN = SurveyDesign(
    survey=EUCLID,
    objects=60,
    seed=5,
    prevalence=0.5,
    size=80,
    pixel_scale=0.1,
    bands=("vis",),
)
COLUMNS = ["mag_i", "color_gi_inner", "color_gi_outer", "color_ri", "photo_z"]


def table(folder: Path, name: str = "catalogue.csv") -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_processes(tmp_path: Path) -> None:
    for name, processes, seed in (("a", 1, 5), ("b", 3, 5), ("c", 1, 6)):
        make_mock_survey(tmp_path / name, dataclasses.replace(DESIGN, seed=seed), processes)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


@pytest.mark.slow
def test_size_bands_and_prevalence_are_settings(tmp_path: Path) -> None:
    overrides = ("survey=hsc", "size=51", "bands=[r, z]", "prevalence=0.2", "pixel_scale=0.2")
    survey = call("simulate", tmp_path / "s", "objects=10", *overrides, "processes=1")
    assert survey == MockSurvey(tmp_path / "s", objects=10, lenses=2)

    rows = table(tmp_path / "s")
    assert list(rows[0]) == ["id", "is_lens", "class", *COLUMNS]
    assert sum(int(row["is_lens"]) for row in rows) == 2
    assert all((row["class"] == "lens") == (row["is_lens"] == "1") for row in rows)
    for row in rows:
        with fits.open(tmp_path / "s" / "cutouts" / f"{row['id']}.fits") as hdus:
            assert hdus[0].data.shape == (2, 51, 51)
            assert hdus[0].header["BANDS"] == "r,z"


@pytest.mark.slow
def test_the_default_is_one_sharp_band_beside_a_catalogue_of_several(tmp_path: Path) -> None:
    call("simulate", tmp_path / "s", "objects=30", "processes=1")
    with fits.open(tmp_path / "s" / "cutouts" / "MOCK00000000.fits") as hdus:
        assert hdus[0].data.shape == (1, 80, 80)
        assert hdus[0].header["BANDS"] == "vis"

    dataset = pack_survey(tmp_path / "s", tmp_path / "d", "splits={train: 1.0}")
    manifest = read_manifest(dataset)
    assert manifest.bands == ("vis",)
    assert manifest.features == tuple(COLUMNS)
    assert manifest.pixel_scale_arcsec == 0.1
    assert manifest.zero_point == {"vis": ZERO_POINT}
    assert manifest.gain == {"vis": EUCLID.gain}
    assert "lens" in set(Dataset(dataset)["train"].kept_columns()["class"])


@pytest.mark.slow
def test_the_truth_of_each_lens_lies_in_a_table_of_its_own(tmp_path: Path) -> None:
    call("simulate", tmp_path / "s", "objects=40", "seed=2", "processes=1")
    lenses = [row["id"] for row in table(tmp_path / "s") if row["is_lens"] == "1"]
    truth = table(tmp_path / "s", "truth.csv")
    assert [row["id"] for row in truth] == lenses

    for row in truth:
        values = {name: float(value) for name, value in row.items() if name != "id"}
        assert values["z_source"] > values["z_lens"]
        theta_e = einstein_radius(values["sigma_v"], values["z_lens"], values["z_source"])
        assert values["einstein_radius"] == pytest.approx(theta_e, rel=1e-3)
        assert values["magnification"] >= MINIMUM_MAGNIFICATION
        assert values["arc_signal_to_noise"] >= EUCLID.least_signal_to_noise
        assert 20 < values["source_mag_i"] < 27

    told = (tmp_path / "s" / "catalogue.csv").read_text() + (
        tmp_path / "s" / "recipe.yaml"
    ).read_text()
    assert not any(name in told for name in (*truth[0], "truth") if name != "id")


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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["size=32"], r"must be at least 4\.8 arcsec"),
        (["survey=hsc", "size=32"], r"must be at least 6\.0 arcsec"),
        (["bands=[g]"], r"survey=euclid has vis, not g; .* survey=hsc \(g, r, i, z, y\)"),
        (["survey=hsc", "bands=[g, g]"], "must differ"),
        (["survey=lsst"], "euclid.*hsc"),
    ],
)
def test_images_that_no_survey_takes_are_refused(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        call("simulate", tmp_path / "s", *overrides)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("survey", SURVEYS)
def test_features_help_and_nothing_gives_the_label_away(tmp_path: Path, survey: str) -> None:
    """Neither a feature, nor a number of the image, nor a cutout that is there twice."""
    call("simulate", tmp_path / "s", "objects=1000", "seed=11", f"survey={survey}", "processes=1")
    dataset = pack_survey(tmp_path / "s", tmp_path / "d")
    assert call("audit", dataset).audit.verdict == "fine"
    found = read_audit(dataset)
    assert found is not None
    assert {finding.verdict for finding in found.findings} == {"fine"}

    auc = {}
    for finding in found.findings:
        if finding.found.startswith("AUC"):
            auc[finding.check] = float(finding.found.split()[1])
    assert 0.60 < auc.pop("features together") < 0.85
    assert auc.pop("feature color_gi_outer") < 0.80
    assert len(auc) > 12
    assert max(auc.values()) < 0.68
