from pathlib import Path

import numpy as np
import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.split import Split
from lens_hpc.loading.loader import Loader
from lens_hpc.loading.order import scoring_shares
from lens_hpc.loading.samples import Samples
from lens_hpc.model.build import build_model
from lens_hpc.scoring.scores import score
from lens_hpc.training.accelerator import accelerator_session


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_score_is_the_models_logit_and_the_model_stays_in_training(
    dataset: Path, small_model: config.Model, batch_size: int
) -> None:
    split = Split(dataset, "train")
    loader = Loader(Samples(split, split.manifest, "cutout"), batch_size, 0, torch.device("cpu"))
    model = build_model(small_model, split.manifest).train()
    with accelerator_session() as accelerator:
        logits = score(accelerator, model, loader)
    assert model.training
    whole = Loader(loader.samples, len(split), 0, loader.device)
    batch = next(whole(0, scoring_shares(len(split), len(split), 0, 1)))
    with torch.inference_mode():
        expected = model.eval()(batch.images, batch.features).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.slow
def test_a_short_last_batch_of_a_compiled_model_is_filled_up(
    dataset: Path, small_model: config.Model
) -> None:
    split = Split(dataset, "train")
    loader = Loader(Samples(split, split.manifest, "cutout"), 5, 0, torch.device("cpu"))
    model = build_model(small_model, split.manifest).train()
    sizes: set[int] = set()
    model.register_forward_pre_hook(lambda _, arguments: sizes.add(len(arguments[0])))

    with accelerator_session() as accelerator:
        expected = score(accelerator, model, loader)
        assert sizes == {5, len(split) % 5}
        sizes.clear()

        model.compile(backend="eager")
        found = score(accelerator, model, loader)
    assert sizes == {5}
    np.testing.assert_allclose(found, expected, atol=1e-6)
