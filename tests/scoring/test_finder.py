"""Arrays of one's own are scored as a user would expect, or refused by name."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.io import fits
from astropy.table import Table

import lens_hpc
from lens_hpc import Dataset, Finder, UserError
from lens_hpc.scoring.distributed import samples_for
from tests.conftest import SMALL_MODEL, pack_survey, write_survey


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finder")
    return pack_survey(write_survey(folder / "survey", rows=200, size=16), folder / "shards")


@pytest.fixture(scope="module")
def run(shards: Path) -> Path:
    loop = {"epochs": 2, "global_batch_size": 16}
    run = shards.parent / "run"
    return lens_hpc.train(run=run, data={"dataset": shards}, model=SMALL_MODEL, train=loop).run


@pytest.mark.slow
def test_a_finder_says_what_it_is_and_scores_columns_by_name(run: Path, shards: Path) -> None:
    finder = Finder.load(str(run))
    assert "g, r; 16 x 16 px of 0.2 arcsec; counts" in repr(finder)
    assert "radius, colour" in repr(finder)

    test = Dataset(str(shards))["test"][:5]
    images = test.images.copy()
    by_order = finder.score(images, test.features)
    np.testing.assert_array_equal(images, test.images)

    columns = {"colour": test.features[:, 1], "radius": test.features[:, 0]}
    np.testing.assert_array_equal(finder.score(images, columns), by_order)
    np.testing.assert_array_equal(finder.score(images, pd.DataFrame(columns)), by_order)
    np.testing.assert_allclose(finder.score(images.astype(">f8"), test.features), by_order)
    assert finder.score(images[:0], test.features[:0]).shape == (0,)


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_members(run: Path, shards: Path) -> None:
    test = Dataset(shards)["test"][:5]
    both = Finder.load(run, run, weights="final")
    one = Finder.load(run, weights="final")
    logits = one.score(test.images, test.features)
    np.testing.assert_allclose(both.score(test.images, test.features), logits, rtol=1e-6)
    probabilities = both.probability(test.images, test.features)
    np.testing.assert_allclose(probabilities, one.probability(test.images, test.features))


@pytest.mark.slow
def test_a_probability_follows_the_prevalence(run: Path, shards: Path) -> None:
    test = Dataset(shards)["test"][:20]
    finder = Finder.load(run)
    same = finder.probability(test.images, test.features)
    rare = finder.probability(test.images, test.features, prevalence=1e-3)

    # Half of the toy survey are lenses, so the odds change by 0.001 / 0.999.
    odds = same / (1 - same) * (1e-3 / (1 - 1e-3))
    np.testing.assert_allclose(rare, odds / (1 + odds), rtol=0.1)
    isotonic = finder.probability(test.images, test.features, method="isotonic", prevalence=0.1)
    assert ((isotonic >= 0) & (isotonic <= 1)).all()


@pytest.mark.slow
def test_a_run_without_a_calibration_gives_scores_alone(run: Path, shards: Path) -> None:
    file = run / "best" / "calibration.json"
    kept = file.read_text()
    file.unlink()
    try:
        finder = Finder.load(run)
        test = Dataset(shards)["test"][:3]
        assert "scores only" in repr(finder)
        assert finder.score(test.images, test.features).shape == (3,)
        with pytest.raises(UserError, match=r"keeps no calibration\.json.* only score\(\)"):
            finder.probability(test.images, test.features)
    finally:
        file.write_text(kept)


@pytest.mark.slow
def test_what_cannot_be_scored_is_named(run: Path, shards: Path) -> None:
    finder = Finder.load(run)
    test = Dataset(shards)["test"][:4]
    broken = test.images.copy()
    broken[2, 0, 3, 3] = np.nan

    for arguments, said in (
        ((test.images[0], test.features), r"shape \(2, 16, 16\).*\(N, 2, 16, 16\).*bands g, r"),
        ((test.images[:, :1], test.features), r"shape \(4, 1, 16, 16\)"),
        ((broken, test.features), "NaN or infinite in rows 2"),
        ((test.images,), "needs the features radius, colour"),
        ((test.images, test.features[:, :1]), r"must be \(4, 2\): radius, colour"),
        ((test.images, {"radius": test.features[:, 0]}), "features lack colour"),
        ((test.images.astype(str), test.features), "must be numbers"),
    ):
        with pytest.raises(UserError, match=said):
            finder.score(*arguments)
    with pytest.raises(UserError, match="trained on g, r, in this order"):
        finder.score(test.images, test.features, bands=["r", "g"])
    for prevalence in (2, "1e-3"):
        with pytest.raises(UserError, match="must lie between 0 and 1"):
            finder.probability(test.images, test.features, prevalence=prevalence)
    for size in (0, -1, 2.5):
        with pytest.raises(UserError, match=r"batch_size = .*: must be a whole number above 0"):
            finder.score(test.images, test.features, batch_size=size)
    masked = np.ma.masked_greater(test.images, test.images.mean())
    with pytest.raises(UserError, match="masked pixels; fill them"):
        finder.score(masked, test.features)
    with pytest.raises(UserError, match="features cannot be read as numbers"):
        finder.score(test.images, {"radius": ["a", "b", "c", "d"], "colour": test.features[:, 1]})


@pytest.mark.slow
def test_a_cutout_without_light_has_no_score(
    run: Path, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finder = Finder.load(run)
    test = Dataset(shards)["test"][:4]
    images = test.images.copy()
    images[1] = -np.abs(images[1])
    images[3] = 0

    with caplog.at_level("WARNING"):
        logits = finder.score(images, test.features, batch_size=3)
    assert "2 cutouts have no score, for no pixel of them is above 0: rows 1, 3" in caplog.text
    assert np.isnan(logits).tolist() == [False, True, False, True]
    for method in ("temperature", "isotonic"):
        probabilities = finder.probability(images, test.features, method=method)
        assert np.isnan(probabilities).tolist() == [False, True, False, True]

    kept = finder.score(test.images[[0, 2]], test.features[[0, 2]])
    np.testing.assert_allclose(logits[[0, 2]], kept, rtol=1e-5)


@pytest.mark.slow
def test_a_run_on_an_older_dataset_scores_cutouts_without_light_as_it_did(
    run: Path, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finder = Finder.load(run)
    member = finder.members[0]
    older = member.manifest.model_copy(update={"schema_version": 2})
    finder.members = (dataclasses.replace(member, manifest=older),)

    test = Dataset(shards)["test"][:2]
    with caplog.at_level("WARNING"):
        logits = finder.score(0 * test.images, test.features)
    assert np.isfinite(logits).all()
    assert "no score" not in caplog.text


@pytest.mark.slow
def test_stretched_cutouts_are_scored_as_they_are_evaluated(run: Path, shards: Path) -> None:
    finder = Finder.load(run)
    member = finder.members[0]
    data = member.settings.data.model_copy(update={"image_scale": "asinh"})
    settings = member.settings.model_copy(update={"data": data})
    stretching = dataclasses.replace(member, settings=settings)
    finder = Finder([stretching])

    split = Dataset(shards)["test"]
    test = split[:4]
    samples = samples_for(stretching, split)
    images = torch.from_numpy(test.images.copy())
    samples.normalise(images)
    features = torch.empty(4, samples.feature_width)
    samples.read_rest(np.arange(4), features, *torch.empty(2, 4))

    with torch.no_grad():
        expected = member.model(images, features)
    logits = finder.score(test.images, test.features)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    # No brightest pixel is needed.
    assert np.isfinite(finder.score(-np.abs(test.images), test.features)).all()


@pytest.mark.slow
def test_features_of_any_kind_of_table_are_taken_by_name(run: Path, shards: Path) -> None:
    finder = Finder.load([run])
    test = Dataset(shards)["test"][:4]
    expected = finder.score(test.images, test.features)
    columns = {"colour": test.features[:, 1], "name": test.ids, "radius": test.features[:, 0]}

    table = Table(columns)
    records = np.rec.fromarrays(list(columns.values()), names=list(columns))
    fits_table = fits.BinTableHDU(table).data
    for features in (table, records, fits_table, pd.DataFrame(columns)):
        np.testing.assert_array_equal(finder.score(test.images, features), expected)


@pytest.mark.slow
def test_what_cannot_be_loaded_is_named(run: Path) -> None:
    with pytest.raises(UserError, match="one FILE is not the weights of 2 runs"):
        Finder.load(run, run, weights=run / "best")
    with pytest.raises(UserError, match=r"device = gpu: cannot be used"):
        Finder.load(run, device="gpu")
    with pytest.raises(UserError, match="needs a run"):
        Finder.load()
    with pytest.raises(UserError, match="no such home folder"):
        Finder.load("~nobody-of-that-name/run")


@pytest.mark.slow
def test_a_calibration_of_other_weights_is_not_used(run: Path) -> None:
    file = run / "best" / "calibration.json"
    kept = file.read_text()
    # As if a kill had come between the calibration and the weights of a better epoch.
    step = json.loads(kept)["step"]
    file.write_text(kept.replace(f'"step": "{step}"', '"step": "999"'))
    try:
        assert not Finder.load(run).is_calibrated
    finally:
        file.write_text(kept)
    assert Finder.load(run).is_calibrated
