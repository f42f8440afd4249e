from pathlib import Path

import numpy as np
import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.split import Split
from lens_hpc.model.build import build_model
from lens_hpc.model.fusion import ImageBranch
from lens_hpc.model.trained import TrainedModel
from lens_hpc.scoring import attention
from tests.conftest import pack_survey, write_survey


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("attention")
    survey = write_survey(folder / "s", rows=60, size=40)
    return Split(pack_survey(survey, folder / "d"), "train")


def trained(split: Split, small_model: config.Model, inputs: str, seed: int = 0) -> TrainedModel:
    settings = config.Train(
        run=Path("run"),
        data=config.Data(dataset=split.dataset),
        model=small_model.model_copy(update={"inputs": inputs}),
    )
    torch.manual_seed(seed)
    model = build_model(settings.model, split.manifest)
    return TrainedModel(model, settings, split.manifest, Path("run/best"), {})


def test_it_is_that_of_the_images_as_the_model_sees_them(
    split: Split, small_model: config.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "IMAGES_PER_PASS", 2)
    member = trained(split, small_model, "fusion")
    rows = np.array([7, 2, 5])
    found = attention.attention_maps([member], split.take("images", rows))
    assert found is not None
    assert found.shape == (3, 40, 40)

    image = member.model.image
    assert isinstance(image, ImageBranch)
    pixels = torch.from_numpy(split.take("images", rows))
    pixels /= pixels.amax((1, 2, 3), keepdim=True)
    expected = image.eval().attention_map(pixels).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_it_is_the_mean_of_those_that_have_some(split: Split, small_model: config.Model) -> None:
    first, second = (trained(split, small_model, "image", seed) for seed in (0, 1))
    blind = trained(split, small_model, "features")
    rows = np.arange(2)
    alone = [
        attention.attention_maps([member], split.take("images", rows)) for member in (first, second)
    ]
    together = attention.attention_maps([first, blind, second], split.take("images", rows))
    assert together is not None
    np.testing.assert_allclose(together, np.mean(np.array(alone), axis=0), atol=1e-6)


def test_features_alone_and_models_of_ones_own_have_none(
    split: Split, small_model: config.Model
) -> None:
    blind = trained(split, small_model, "features")
    assert attention.attention_maps([blind], split.take("images", np.arange(2))) is None
    own = TrainedModel(torch.nn.Linear(1, 1), blind.settings, split.manifest, Path("own"), {})
    assert attention.attention_maps([own], split.take("images", np.arange(2))) is None
    assert attention.attention_maps([], split.take("images", np.arange(2))) is None
