"""Code of one's own: used where the user says so, never because a file says so."""

from pathlib import Path

import pytest

import lens_hpc
from lens_hpc import Dataset, Finder, UserError, config
from lens_hpc import settings as reading
from tests.conftest import pack_survey, write_survey

MODEL = """
from pathlib import Path

from torch import nn

from lens_hpc.model.fusion import FusionModel

Path(__file__).with_name("imported").touch()


class TwoLayers(FusionModel):
    def make_head(self, settings, channels):
        width = settings.options["width"]
        return nn.Sequential(nn.Linear(channels, width), nn.Mish(), nn.Linear(width, 1))
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "headpackage"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "models.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.slow
def test_a_model_from_outside_trains_is_evaluated_and_scores(package: Path, tmp_path: Path) -> None:
    shards = pack_survey(write_survey(tmp_path / "survey", rows=60), tmp_path / "shards")
    run = tmp_path / "run"
    call = {
        "run": run,
        "data": {"dataset": shards},
        "model": {
            "name": "headpackage.models.TwoLayers",
            "options": {"width": 5},
            "inputs": "features",
        },
        "train": {"epochs": 1, "global_batch_size": 8},
    }

    # Named, but not allowed: nothing is imported.
    with pytest.raises(UserError, match=r"add code=\[headpackage\]"):
        lens_hpc.train(**call)
    assert not (package / "imported").exists()

    lens_hpc.train(**call, code=["headpackage"])
    assert (package / "imported").exists()
    assert "code" not in (run / "config.yaml").read_text()

    # A run alone is no reason to import what it names.
    for use in (Finder.load, lens_hpc.evaluate):
        with pytest.raises(UserError, match=r"add code=\[headpackage\]"):
            use(run)
    assert lens_hpc.evaluate(run, code=["headpackage"]).metrics["n"] == 8
    test = Dataset(shards)["test"][:]
    finder = Finder.load(run, code=["headpackage"])
    assert finder.score(test.images, test.features).shape == (8,)
    assert finder.members[0].model.head[0].out_features == 5


def test_a_config_file_cannot_allow_code(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("run: r\ndata: {dataset: d}\ncode: [headpackage]\n")
    with pytest.raises(UserError, match=r"code must not stand in a file.*give code=\.\.\."):
        reading.load(config.Train, file)
