from pathlib import Path

import pytest
import torch

from lens_hpc import config
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.model.build import build_model
from lens_hpc.model.trained import load_trained, save_trained


@pytest.fixture
def saved(tmp_path: Path, dataset: Path, small_model: config.Model) -> tuple[Path, torch.nn.Module]:
    manifest = Split(dataset, "train").manifest
    settings = config.Train(
        run=tmp_path / "run", data=config.Data(dataset=dataset), model=small_model
    )
    model = build_model(small_model, manifest)
    save_trained(tmp_path / "run" / "best", model, settings, manifest, {"epoch": "3"})
    return tmp_path / "run" / "best", model


def test_what_was_saved_is_loaded(saved: tuple[Path, torch.nn.Module]) -> None:
    folder, model = saved
    trained = load_trained(folder)
    for name, tensor in model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], tensor)
    assert trained.manifest.features == ("radius", "colour")
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.yaml",
        "manifest.json",
        "model.safetensors",
    ]


def test_damaged_or_foreign_weights_are_named(saved: tuple[Path, torch.nn.Module]) -> None:
    folder, _ = saved
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        text.replace("attention_channels: 4", "attention_channels: 5")
    )
    with pytest.raises(UserError, match=r"model\.safetensors: is damaged, or not of the model"):
        load_trained(folder)
    (folder / "config.yaml").write_text(text)
    (folder / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"model\.safetensors: is damaged"):
        load_trained(folder)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        load_trained(tmp_path / "best")


def test_a_run_is_a_start_for_another_with_other_features(
    saved: tuple[Path, torch.nn.Module],
    dataset: Path,
    small_model: config.Model,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, theirs = saved
    manifest = Split(dataset, "train").manifest
    same = build_model(small_model.model_copy(update={"weights": str(folder.parent)}), manifest)
    assert all(
        torch.equal(value, theirs.state_dict()[name]) for name, value in same.state_dict().items()
    )
    assert not caplog.messages
    other = manifest.model_copy(update={"features": ("one",)})
    model = build_model(small_model.model_copy(update={"weights": str(folder)}), other)
    anew = [
        name
        for name, value in model.state_dict().items()
        if value.shape != theirs.state_dict()[name].shape
    ]
    assert anew == ["features.0.weight"]
    assert "1 of" in caplog.text
    assert "begin anew: features.0.weight" in caplog.text
    with pytest.raises(UserError, match="name a run that has trained for an epoch"):
        build_model(small_model.model_copy(update={"weights": str(dataset)}), manifest)
