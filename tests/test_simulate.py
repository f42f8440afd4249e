import csv
from pathlib import Path

import pytest
from astropy.io import fits

from lens_hpc import UserError, audit, simulate
from lens_hpc.analysis.verdict import read_audit
from tests.conftest import pack_survey
from tests.kills import files_of


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "catalogue.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_on_any_number_of_processes(tmp_path: Path) -> None:
    for name, processes, seed in (("a", 1, 5), ("b", 3, 5), ("c", 2, 6)):
        simulate.run(tmp_path / name, ["objects=60", f"seed={seed}", f"processes={processes}"])
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


@pytest.mark.slow
def test_size_bands_and_prevalence_are_settings(tmp_path: Path) -> None:
    simulate.run(tmp_path / "s", ["objects=10", "size=51", "bands=[r, z]", "prevalence=0.2", "pixel_scale=0.2"])
    rows = table(tmp_path / "s")
    assert list(rows[0]) == ["id", "is_lens", "class", "mag_i", "color_gi", "photo_z"]
    assert sum(int(row["is_lens"]) for row in rows) == 2
    assert all((row["class"] == "lens") == (row["is_lens"] == "1") for row in rows)
    for row in rows:
        with fits.open(tmp_path / "s" / "cutouts" / f"{row['id']}.fits") as hdus:
            assert hdus[0].data.shape == (2, 51, 51)
            assert hdus[0].header["BANDS"] == "r,z"


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(UserError, match="already exists"):
        simulate.run(tmp_path / "s", ["objects=10"])


def test_a_field_too_small_for_arcs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must be at least 8\.0 arcsec"):
        simulate.run(tmp_path / "s", ["size=32"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_features_help_and_nothing_tells_the_label(tmp_path: Path) -> None:
    """Neither a feature, nor a number of the image, nor a cutout that is there twice."""
    simulate.run(tmp_path / "s", ["objects=1000", "seed=11"])
    dataset = pack_survey(tmp_path / "s", tmp_path / "d")
    assert audit.run(dataset, []) == 0
    found = read_audit(dataset)
    assert found is not None
    assert {finding.verdict for finding in found.findings} == {"fine"}
    auc = {f.check: float(f.found.split()[1]) for f in found.findings if f.found.startswith("AUC")}
    assert 0.60 < auc.pop("features together") < 0.80
    assert len(auc) > 12
    assert max(auc.values()) < 0.68
