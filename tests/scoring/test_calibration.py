import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from lens_hpc.errors import UserError
from lens_hpc.scoring.calibration import (
    Calibration,
    fit_calibration,
    read_calibration,
    shift_prevalence,
    write_calibration,
)


def draw(lenses: int, others: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of two Gaussian classes, whose true log-odds are known."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [lenses, others])
    return labels, rng.normal(np.where(labels == 1, 1.0, -1.0), 1.0)


def test_the_temperature_is_the_one_that_was_put_in() -> None:
    labels, scores = draw(20_000, 20_000)
    # Unit Gaussians at +1 and -1 have log-odds of twice the score.
    calibration = fit_calibration(labels, 6 * scores)
    assert calibration is not None
    assert calibration.temperature == pytest.approx(3, rel=0.03)
    assert calibration.prevalence == 0.5


def test_a_shifted_probability_comes_true_at_the_other_prevalence() -> None:
    labels, scores = draw(20_000, 20_000)
    calibration = fit_calibration(labels, 2 * scores)
    assert calibration is not None

    rare_labels, rare_scores = draw(2_000, 198_000, seed=1)
    for method in (calibration.by_temperature, calibration.by_isotonic):
        shifted = shift_prevalence(method(2 * rare_scores), calibration.prevalence, 0.01)
        assert shifted.mean() == pytest.approx(rare_labels.mean(), rel=0.05)


def test_a_shift_multiplies_the_odds_and_keeps_certainty() -> None:
    probabilities = np.array([0.0, 0.2, 0.5, 1.0])
    shifted = shift_prevalence(probabilities, 0.5, 1e-3)
    np.testing.assert_array_equal(shifted[[0, 3]], [0, 1])
    np.testing.assert_allclose(
        shifted[1:3], expit(logit(probabilities[1:3]) + logit(1e-3)), rtol=1e-12
    )
    np.testing.assert_allclose(shift_prevalence(shifted, 1e-3, 0.5), probabilities, atol=1e-12)


@pytest.mark.parametrize("apart", [0.0, 1.0, 6.0, 100.0])
def test_the_isotonic_map_is_never_certain(apart: float) -> None:
    labels, scores = draw(30, 400)
    calibration = fit_calibration(labels, scores + apart * labels)
    assert calibration is not None
    probabilities = calibration.by_isotonic(np.array([-1e9, *scores, 1e9]))
    assert 0 < probabilities.min() < probabilities.max() < 1


def test_the_isotonic_map_loses_less_on_new_samples_than_one_that_is_certain() -> None:
    def log_loss(fitted: tuple[float, ...], at: tuple[float, ...]) -> float:
        stated = np.clip(np.interp(scores, at, fitted), 1e-15, 1 - 1e-15)
        return -float(np.log(np.where(labels == 1, stated, 1 - stated)).mean())

    calibration = fit_calibration(*draw(40, 400))
    assert calibration is not None
    certain = IsotonicRegression().fit(*reversed(draw(40, 400)))
    labels, scores = draw(4_000, 40_000, seed=1)
    ours = log_loss(calibration.isotonic_probabilities, calibration.isotonic_logits)
    assert ours < log_loss(certain.y_thresholds_, certain.X_thresholds_)


def test_a_map_of_an_earlier_version_is_read_and_applied_as_it_is(tmp_path: Path) -> None:
    certain = Calibration(1.5, (-1.0, 2.0), (0.0, 1.0), 0.3)
    write_calibration(tmp_path, certain)
    read = read_calibration(tmp_path)
    assert read == certain
    assert read.by_isotonic(np.array([-5.0, 0.5, 5.0])).tolist() == [0.0, 0.5, 1.0]


def test_one_class_alone_cannot_be_calibrated() -> None:
    assert fit_calibration(np.ones(5), np.arange(5.0)) is None


def test_what_was_kept_is_read_and_none_takes_it_away(tmp_path: Path) -> None:
    calibration = Calibration(1.5, (-1.0, 2.0), (0.1, 0.9), 0.3)
    assert read_calibration(tmp_path) is None
    write_calibration(tmp_path, calibration, step="7")
    assert read_calibration(tmp_path, step="7") == calibration
    assert read_calibration(tmp_path, step="8") is None
    write_calibration(tmp_path, None)
    assert read_calibration(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "[" * 100_000, '{"temperature": "hot"}'], ids=lambda t: t[:9]
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(UserError, match=r"calibration\.json: is damaged"):
        read_calibration(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"temperature": float("nan")},
        {"prevalence": 1},
        {"prevalence": float("nan")},
        {"isotonic_logits": []},
        {"isotonic_logits": [2, -1]},
        {"isotonic_probabilities": [0.1]},
        {"isotonic_probabilities": [0.1, 7]},
        {"isotonic_probabilities": None},
    ],
    ids=str,
)
def test_numbers_that_no_fit_gives_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_calibration(tmp_path, Calibration(1.5, (-1.0, 2.0), (0.1, 0.9), 0.3))
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=r"calibration\.json: is damaged"):
        read_calibration(tmp_path)
