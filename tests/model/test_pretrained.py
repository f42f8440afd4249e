from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from lens_hpc.config import Model
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.errors import UserError
from lens_hpc.model.build import build_model
from tests.conftest import call


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"run: r\ndata: {{dataset: d}}\nmodel: "
        f"{{backbone: test_resnet, weights_folder: {tmp_path / 'w'}}}\n"
    )
    return file


def test_weights_are_fetched_once_and_then_trained_from(
    config_file: Path,
    tmp_path: Path,
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fetched = timm.create_model(
        "test_resnet", pretrained=False
    )  # stands for timm's, that only the internet has
    with monkeypatch.context() as patch:
        patch.setattr(timm, "create_model", lambda name, pretrained: fetched)
        call("weights", config_file)
    file = tmp_path / "w" / "test_resnet.safetensors"
    assert torch.equal(load_file(file)["conv1.0.weight"], fetched.state_dict()["conv1.0.weight"])
    call("weights", config_file)
    assert "is there already" in capsys.readouterr().out
    settings = Model(backbone="test_resnet", weights="pretrained", weights_folder=tmp_path / "w")
    model = build_model(settings, read_manifest(dataset))
    assert torch.equal(
        model.state_dict()["image.backbone.bn1.weight"], fetched.state_dict()["bn1.weight"]
    )


def test_without_internet_there_is_one_clear_error(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no way\nto the hub")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        UserError, match=r"could not be fetched \(OSError: no way\); run this on a machine with"
    ):
        call("weights", config_file)
    assert not list((tmp_path / "w").glob("*"))
