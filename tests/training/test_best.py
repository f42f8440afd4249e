from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss, roc_auc_score

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import UserError
from lens_hpc.training.best import (
    as_recorded,
    best_of_records,
    check_best,
    is_better,
    measure_validation,
)

RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 2, 60).astype(np.int8)
LOGITS = (RNG.normal(size=60) + LABELS).astype(np.float32)


def test_the_numbers_are_those_of_independent_code() -> None:
    numbers = measure_validation(LABELS, LOGITS, config.Loss())
    assert numbers["loss"] == pytest.approx(log_loss(LABELS, expit(LOGITS)), rel=1e-5)
    assert numbers["auc"] == pytest.approx(roc_auc_score(LABELS, LOGITS))
    tenth = np.sort(LOGITS[LABELS == 0])[-10]
    assert numbers["tpr10"] == pytest.approx((LOGITS[LABELS == 1] > tenth).mean())
    expected = roc_auc_score(LABELS, LOGITS, max_fpr=0.01)
    assert numbers["partial_auc"] == pytest.approx(expected)


def test_the_loss_is_the_one_that_is_trained() -> None:
    p_true = expit(np.where(LABELS == 1, LOGITS, -LOGITS).astype(np.float64))
    plain = -np.log(p_true) * np.where(LABELS == 1, 3, 1)

    weighted = config.Loss(positive_weight=3)
    found = measure_validation(LABELS, LOGITS, weighted)
    assert found["loss"] == pytest.approx(plain.mean(), rel=1e-5)
    focal = config.Loss(kind="focal", positive_weight=3, focal_gamma=1.5)
    found = measure_validation(LABELS, LOGITS, focal)
    assert found["loss"] == pytest.approx((plain * (1 - p_true) ** 1.5).mean(), rel=1e-5)
    smoothed = measure_validation(LABELS, LOGITS, config.Loss(label_smoothing=0.2))
    other = -np.log(1 - p_true)
    expected = 0.9 * -np.log(p_true) + 0.1 * other
    assert smoothed["loss"] == pytest.approx(expected.mean(), rel=1e-5)


def test_a_number_that_needs_more_non_lenses_is_left_out() -> None:
    nine = np.concatenate([np.flatnonzero(LABELS == 0)[:9], np.flatnonzero(LABELS == 1)])
    assert "tpr10" not in measure_validation(LABELS[nine], LOGITS[nine], config.Loss())


@pytest.mark.parametrize(("non_lenses", "fine"), [(9, False), (10, True)])
def test_too_few_non_lenses_for_the_number_that_chooses_are_refused(
    dataset: Path, non_lenses: int, fine: bool
) -> None:
    manifest = read_manifest(dataset)
    record = manifest.splits["val"].model_copy(update={"non_lenses": non_lenses})
    changed = manifest.model_copy(update={"splits": manifest.splits | {"val": record}})
    for best in ("auc", "loss"):
        check_best(dataset, changed, "val", best)
    if fine:
        check_best(dataset, changed, "val", "tpr10")
        return
    told = r"^train.best = tpr10: needs 10 non-lenses .* split val, .* has 9 there; choose auc or"
    with pytest.raises(UserError, match=told):
        check_best(dataset, changed, "val", "tpr10")


@pytest.mark.parametrize(
    ("numbers", "best", "by", "expected"),
    [
        ({"auc": 0.0}, {}, "auc", True),  # the first epoch
        ({"auc": 0.8, "loss": 1.0}, {"auc": 0.7, "loss": 0.5}, "auc", True),
        ({"auc": 0.7}, {"auc": 0.7}, "auc", False),  # the earlier epoch stays
        ({"auc": 0.8, "loss": 1.0}, {"auc": 0.7, "loss": 0.5}, "loss", False),
        ({"auc": 0.6, "loss": 0.4}, {"auc": 0.7, "loss": 0.5}, "loss", True),
        ({"loss": 0.5}, {"loss": 0.5}, "loss", False),
        ({"auc": 0.1, "tpr10": 0.0}, {"auc": 0.7}, "tpr10", True),  # an earlier version's
    ],
)
def test_the_number_that_chooses_decides(
    numbers: dict[str, float], best: dict[str, float], by: str, expected: bool
) -> None:
    assert is_better(numbers, best, by) == expected


def test_the_best_of_records_is_found_of_those_that_have_the_number() -> None:
    old: dict[str, Any] = {"epoch": 1, "loss": 0.01, "val_auc": 0.9}
    numbers = [{"auc": 0.7, "loss": 0.5}, {"auc": 0.9, "loss": 0.5}, {"auc": 0.8, "loss": 0.9}]
    records = [old, *({"loss": 0.0} | as_recorded(each) for each in numbers)]
    assert best_of_records(records, "auc") == {"auc": 0.9}
    assert best_of_records(records, "loss") == numbers[0]
    assert best_of_records([old], "loss") == {}
    assert best_of_records([], "auc") == {}
