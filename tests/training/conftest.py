"""A small training, in this process."""

from pathlib import Path

import pytest

from lens_hpc import config


@pytest.fixture
def training(tmp_path: Path, dataset: Path, small_model: config.Model) -> config.Train:
    """Settings of two epochs of three steps on the toy survey."""
    return config.Train(
        run=tmp_path / "run",
        data=config.Data(dataset=dataset, workers=0),
        augment=config.Augment(engine="torch"),
        model=small_model,
        optim=config.Optim(lr=1e-3),
        train=config.Loop(epochs=2, global_batch_size=8),
    )
