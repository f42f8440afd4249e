from pathlib import Path

import numpy as np
import pytest
import torch

from lens_hpc import config
from lens_hpc.data.loader import Loader, Samples
from lens_hpc.data.order import scoring_shares
from lens_hpc.data.reader import Split
from lens_hpc.engine.accelerator import make_accelerator
from lens_hpc.engine.score import in_order, score
from lens_hpc.engine.weights import make_model


def test_scores_are_sorted_by_row() -> None:
    np.testing.assert_array_equal(in_order(np.array([2, 0, 1]), np.array([0.2, 0.0, 0.1]), 3), [0.0, 0.1, 0.2])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([0, 1, 1], "1 of 3 samples have no score and 1 have several; first rows: 1, 2"),
        ([0, 1], "1 of 3 samples have no score and 0 have several; first rows: 2"),
        ([0, 1, 2, 2], "0 of 3 samples have no score and 1 have several; first rows: 2"),
    ],
)
def test_a_lost_or_doubled_score_is_an_error(rows: list[int], said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        in_order(np.array(rows), np.zeros(len(rows)), 3)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_score_is_the_models_logit_and_the_model_stays_in_training(
    dataset: Path, small_model: config.Model, batch_size: int
) -> None:
    split = Split(dataset, "train")
    loader = Loader(Samples(split, split.manifest, "cutout"), batch_size, 0, torch.device("cpu"))
    model = make_model(small_model, split.manifest).train()
    logits = score(make_accelerator(), model, loader)
    assert model.training
    whole = Loader(loader.samples, len(split), 0, loader.device)
    batch = next(whole(0, scoring_shares(len(split), len(split), 0, 1)))
    with torch.inference_mode():
        expected = model.eval()(batch.images, batch.features).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)
