import csv
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from lens_hpc import UserError, simulate
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


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mock") / "survey"
    simulate.run(folder, ["objects=1600", "seed=11"])
    return folder


@pytest.mark.slow
def test_features_help_but_do_not_tell(survey: Path) -> None:
    rows = table(survey)
    labels = np.array([int(row["is_lens"]) for row in rows])
    features = np.array([[float(row[name] or "nan") for name in ("mag_i", "color_gi", "photo_z")] for row in rows])
    trees = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.05, max_leaf_nodes=8, random_state=0)
    scores = cross_val_predict(trees, features, labels, cv=5, method="predict_proba")[:, 1]
    assert 0.60 < roc_auc_score(labels, scores) < 0.80


@pytest.mark.slow
def test_no_single_number_of_the_image_tells(survey: Path) -> None:
    rows = table(survey)
    labels = np.array([int(row["is_lens"]) for row in rows])
    images = np.stack([fits.getdata(survey / "cutouts" / f"{row['id']}.fits") for row in rows]).astype(float)
    border = np.concatenate([images[:, :, :5].reshape(len(rows), -1), images[:, :, -5:].reshape(len(rows), -1)], axis=1)
    shortcuts = {
        "sky rms": np.median(abs(border - np.median(border, axis=1, keepdims=True)), axis=1),
        "brightest pixel": images.max(axis=(1, 2, 3)),
        **{f"flux in band {band}": images[:, band].sum(axis=(1, 2)) for band in range(3)},
        **{f"peak in band {band}": images[:, band].max(axis=(1, 2)) for band in range(3)},
    }
    for name, values in shortcuts.items():
        auc = roc_auc_score(labels, values)
        assert max(auc, 1 - auc) < 0.65, name
