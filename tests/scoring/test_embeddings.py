"""The vectors of a split are those that the last layer makes logits of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.model.trained import load_trained
from lens_hpc.scoring import embeddings
from lens_hpc.scoring.batches import BatchScorer
from lens_hpc.scoring.embeddings import embed_split
from lens_hpc.scoring.finder import Finder
from tests.conftest import pack_survey, write_survey
from tests.predicting.small_runs import make_run


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings")
    return pack_survey(write_survey(folder / "s", rows=40, size=40), folder / "d")


@pytest.mark.parametrize("inputs", ["fusion", "image", "features"])
def test_the_head_makes_the_scores_of_them(
    packed: Path, tmp_path: Path, inputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "ROWS_AT_ONCE", 7)
    run = make_run(tmp_path / "run", packed, inputs=inputs)
    split = Dataset(packed)["train"]
    vectors = embed_split(run, split)
    assert len(vectors) == len(split)

    head = load_trained(run / "best").model.head
    logits = head(torch.from_numpy(vectors)).squeeze(1).detach().numpy()
    expected = Finder.load(run, device="cpu").score(split[:].images, split[:].features)
    np.testing.assert_allclose(logits, expected, rtol=1e-4)


def test_a_split_of_another_kind_is_refused(packed: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", packed)
    other = pack_survey(write_survey(tmp_path / "s", rows=20, size=36), tmp_path / "d")
    with pytest.raises(UserError, match="height are 36, but the run was trained with 40"):
        embed_split(run, Dataset(other)["train"])


class OwnModel(torch.nn.Module):
    """A model of one's own, that only scores."""

    def forward(self, images: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))


def test_a_model_of_ones_own_that_does_not_embed_is_told(packed: Path, tmp_path: Path) -> None:
    trained = load_trained(make_run(tmp_path / "run", packed) / "best")
    scorer = BatchScorer([replace(trained, model=OwnModel())], torch.device("cpu"))
    batch = Dataset(packed)["train"][:3]
    with pytest.raises(UserError, match=r"run/best: its model has no method embed"):
        scorer.embed(batch.images, batch.features)
