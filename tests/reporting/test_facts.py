import json
import sys
from pathlib import Path

import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.split import Split
from lens_hpc.model.trained import TrainedModel
from lens_hpc.reporting import facts
from tests.conftest import pack_survey, write_survey

ENVIRONMENT = {
    "command": ["/x/lens_hpc/__main__.py", "train", "configs/my run.yaml"],
    "git_commit": "0123456789abcdef+",
    "packages": {"lens_hpc": "0.1.9"},
    "device": "NVIDIA H100",
    "processes": 8,
}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("facts")
    return Split(pack_survey(write_survey(folder / "s"), folder / "d"), "test")


def told(run: Path, split: Split, settings: config.Train | None = None) -> dict[str, str]:
    members = []
    if settings is not None:
        notes = {"epoch": "7"}
        members.append(
            TrainedModel(torch.nn.Identity(), settings, split.manifest, run / "best", notes)
        )
    found = facts.gather_facts(run, members, split)
    assert len({fact.name for fact in found}) == len(found)
    return {fact.name: fact.value for fact in found}


def test_a_reader_learns_what_was_trained_and_how(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environment.json").write_text(json.dumps(ENVIRONMENT))
    monkeypatch.setattr(sys, "argv", ["/x/bin/lens-hpc", "evaluate", "runs/a", "split=test"])
    settings = config.Train(run=tmp_path, data=config.Data(dataset=split.dataset))
    known = told(tmp_path, split, settings)

    assert known["dataset"] == "toy: 40 rows (train 28, val 6, test 6)"
    assert known["cutouts"] == "g, r; 8 x 8 pixels of 0.2 arcsec, 1.6 arcsec wide"
    assert known["features"] == "radius, colour"
    assert known["model"] == "image and catalogue features, backbone resnet50"
    assert known["weights"] == f"best validation AUC, of epoch 7 of {settings.train.epochs}"
    assert known["seed"] == "0"
    assert known["trained by"] == "python -m lens_hpc train 'configs/my run.yaml'"
    assert known["trained with"] == "lens_hpc 0.1.9, commit 0123456789 and changes"
    assert known["trained on"] == "8 x NVIDIA H100"
    assert known["evaluated by"] == "lens-hpc evaluate runs/a split=test"
    assert known["evaluated"].endswith("UTC")


def test_an_ensemble_tells_each_seed(tmp_path: Path, split: Split) -> None:
    members = []
    for seed in (3, 8):
        settings = config.Train(
            run=tmp_path, data=config.Data(dataset=split.dataset), train={"seed": seed}
        )
        notes = {"epoch": str(seed + 1)}
        members.append(
            TrainedModel(torch.nn.Identity(), settings, split.manifest, tmp_path / "best", notes)
        )
    known = {fact.name: fact.value for fact in facts.gather_facts(tmp_path, members, split)}
    assert known["seed"] == "3, 8"
    assert known["weights"].startswith("best validation AUC, of epoch 4, 9 of ")


def test_what_is_not_known_is_not_told(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/ipykernel_launcher.py", "-f", "kernel.json"])
    monkeypatch.setattr(facts, "git_commit", lambda: None)
    known = told(tmp_path, split)
    assert known.keys() == {
        "run",
        "dataset",
        "cutouts",
        "features",
        "evaluated",
        "evaluated with",
    }
    assert "commit" not in known["evaluated with"]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("{", True),
        ("[" * 100_000, True),
        ("null", False),
        ("[]", False),
        ("{}", False),
        ('{"command": 1, "packages": [], "processes": "8", "device": null}', False),
        ('{"command": [], "packages": {"lens_hpc": 2}}', False),
    ],
)
def test_a_damaged_record_ends_no_evaluation(
    text: str, warned: bool, tmp_path: Path, split: Split, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "environment.json").write_text(text)
    assert not {name for name in told(tmp_path, split) if name.startswith("trained")}
    assert bool(caplog.messages) == warned


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"inputs": "features"}, "catalogue features alone"),
        ({"inputs": "image", "backbone": "vit"}, "image alone, backbone vit"),
        ({"name": "mine.Net"}, "mine.Net, image and catalogue features"),
    ],
)
def test_a_model_is_named_by_what_it_sees(changes: dict[str, str], named: str) -> None:
    assert facts._name_model(config.Model(weights="none").model_copy(update=changes)) == named
