"""What is scored is what was packed: pixels that changed since are refused, not scored."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lens_hpc import config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.model.build import build_model
from lens_hpc.model.trained import TrainedModel, load_trained, save_trained
from lens_hpc.scoring.distributed import EnsembleScorer
from lens_hpc.training.accelerator import accelerator_session
from tests.conftest import SMALL_MODEL, pack_survey, write_survey


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A test split of two blocks and a run, which nobody may change for long."""
    folder = tmp_path_factory.mktemp("distributed")
    survey = write_survey(folder / "s", rows=400, size=8)
    return pack_survey(survey, folder / "d", "splits={train: 0.1, val: 0.1, test: 0.8}")


@pytest.fixture(scope="module")
def member(packed: Path) -> TrainedModel:
    model = config.Model.model_validate(SMALL_MODEL)
    run = packed.parent / "run"
    settings = config.Train(run=run, data=config.Data(dataset=packed), model=model)
    manifest = read_manifest(packed)
    save_trained(run / "best", build_model(model, manifest), settings, manifest, {})
    return load_trained(run / "best")


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_that_changed_since_they_were_packed_are_not_scored(
    packed: Path, member: TrainedModel, workers: int
) -> None:
    file = packed / "test" / "shard-00000.h5"
    sound = file.read_bytes()
    with h5py.File(file) as shard:
        place = shard["images"].id.get_offset() + 300 * 2 * 8 * 8 * 4
    with accelerator_session() as accelerator:
        scorer = EnsembleScorer(accelerator, [member], "none", 64, workers)
        rows, logits = scorer.score_share(Split(packed, "test"))
        assert np.isfinite(logits).all()
        assert len(rows) == 320

        file.write_bytes(sound[:place] + bytes(2000) + sound[place + 2000 :])
        try:
            with pytest.raises(UserError, match=r"test/shard-00000\.h5: .* in rows 256-319"):
                scorer.score_share(Split(packed, "test"))
        finally:
            file.write_bytes(sound)
