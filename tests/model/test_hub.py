"""Backbones that others have pre-trained, in folders as timm itself writes them for the hub."""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from lens_hpc import UserError, config
from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.files import write_text
from lens_hpc.layout import WEIGHTS
from lens_hpc.model import hub
from lens_hpc.model.backbone import make_backbone
from lens_hpc.model.build import build_model
from lens_hpc.model.trained import load_trained, save_trained
from lens_hpc.settings import dump
from lens_hpc.training.run_folder import check_same_run, with_keys_of_run
from tests.conftest import SMALL_MODEL, call

SIZE = (48, 48)
IS_LONG = "LENS_HPC_LONG" in os.environ


def save_backbone(folder: Path, name: str = "test_resnet", **options: Any) -> Path:
    """A folder as timm's save_for_hf writes it, of weights that nobody else has."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = timm.create_model(name, **options)
        save_for_hf(model, folder, safe_serialization=True)
    return folder


def settings_for(**model: Any) -> config.Model:
    return config.Model(**(SMALL_MODEL | {"weights": "pretrained"} | model))


def build(settings: config.Model, bands: int) -> torch.nn.Module:
    return make_backbone(hub.with_architecture(settings), bands, SIZE)[0]


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_a_folder_starts_a_backbone_of_any_number_of_bands(bands: int, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    every_family = timm.list_models("test_*")
    for family in every_family if IS_LONG else rng.sample(every_family, 2):
        folder = tmp_path / family
        saved_bands, classes = rng.choice([1, 3]), rng.choice([0, 34])
        save_backbone(folder, family, in_chans=saved_bands, num_classes=classes)
        check_start(folder, saved_bands, bands)


def check_start(folder: Path, saved_bands: int, bands: int) -> None:
    """Check that a backbone of so many bands starts from all that the folder holds."""
    backbone = build(settings_for(backbone=f"local-dir:{folder}"), bands)

    saved = load_file(folder / WEIGHTS)
    parameters = dict(backbone.named_parameters())
    adapted = {name for name, one in parameters.items() if one.shape != saved[name].shape}
    assert all(torch.equal(parameters[name], saved[name]) for name in parameters.keys() - adapted)

    first = backbone.pretrained_cfg["first_conv"]
    assert (f"{first}.weight" in adapted) == (bands != saved_bands)
    assert all(name == f"{first}.weight" or "pos" in name for name in adapted)
    assert torch.isfinite(backbone(torch.rand(2, bands, *input_size(backbone)))).all()


def input_size(backbone: Any) -> tuple[int, int]:
    return (64, 64) if backbone.pretrained_cfg["fixed_input_size"] else SIZE


def test_the_folder_may_be_named_as_weights(tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "galaxies", num_classes=0)
    by_weights = build(settings_for(weights=str(folder)), 3)
    by_name = build(settings_for(backbone=f"local-dir:{folder}"), 3)
    for one, other in zip(by_weights.parameters(), by_name.parameters(), strict=True):
        assert torch.equal(one, other)

    with pytest.raises(
        UserError, match=r"are those of test_resnet.*; choose model.backbone=test_r"
    ):
        build(settings_for(backbone="test_vit", weights=str(folder)), 3)


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"architecture": ')


def take_architecture_away(folder: Path) -> None:
    (folder / "config.json").write_text("[1]")


def leave_pickles_alone(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def cut_weights(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def lose_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["layer4.0.conv2.weight"]
    save_file(tensors, folder / WEIGHTS)


def add_arguments(folder: Path) -> None:
    tree = json.loads((folder / "config.json").read_text())
    tree["model_args"] = {"stem_width": 7, "in_chans": 3}
    (folder / "config.json").write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_config, r"config.json: is damaged.*; fetch the folder again"),
        (take_architecture_away, r"config.json: is damaged.*; fetch the folder again"),
        (leave_pickles_alone, r"holds no model.safetensors; .* pickles, which may run code"),
        (cut_weights, r"no weights for test_resnet.* could be loaded"),
        (lose_a_tensor, r"lacks 1 tensors of the backbone, such as layer4.0.conv2.weight"),
        (add_arguments, r"config.json: its model has stem_width of its own"),
        (shutil.rmtree, r"is not there; on a machine with internet run lens-hpc weights CONFIG"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(damage: Any, said: str, tmp_path: Path) -> None:
    folder = save_backbone(tmp_path / "galaxies")
    damage(folder)
    with pytest.raises(UserError, match=said) as raised:
        build(settings_for(backbone=f"local-dir:{folder}"), 3)
    assert str(folder) in str(raised.value)


# ---- the hub ----


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(
        "run: r\ndata: {dataset: d}\nmodel: {backbone: 'hf_hub:someone/galaxies@v2', "
        f"weights_folder: {tmp_path / 'weights'}}}\n"
    )
    return file


def test_a_name_of_the_hub_is_fetched_once(
    config_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on_hub = save_backbone(tmp_path / "hub", num_classes=0)
    asked = []

    def download(repository: str, name: str, revision: str | None) -> str:
        asked.append((repository, name, revision))
        return str(on_hub / name)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    call("weights", config_file)
    fetched = tmp_path / "weights" / "someone" / "galaxies@v2"
    assert f"{fetched}: fetched, a test_resnet" in capsys.readouterr().out
    assert asked == [("someone/galaxies", name, "v2") for name in ("config.json", WEIGHTS)]
    call("weights", config_file)
    assert "there already" in capsys.readouterr().out
    assert len(asked) == 2

    name, folder = "hf_hub:someone/galaxies", tmp_path / "weights"
    settings = settings_for(backbone=f"{name}@v2", weights_folder=folder)
    assert build(settings, 3).state_dict().keys() == load_file(fetched / WEIGHTS).keys()
    for other in (name, f"{name}@v3"):
        with pytest.raises(UserError, match="is not there"):
            build(settings_for(backbone=other, weights_folder=folder), 3)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (
            OfflineModeIsEnabled("offline mode\nis on"),
            r"could not be fetched \(OfflineMode.*local-",
        ),
        (EntryNotFoundError("404"), r"has no config.json on the hub"),
        (OSError("no way"), r"could not be fetched \(OSError: no way\); run this on a machine"),
    ],
)
def test_what_the_hub_does_not_give_is_one_clear_error(
    failure: Exception,
    said: str,
    config_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise failure

    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with pytest.raises(UserError, match=said):
        call("weights", config_file)
    assert not list(tmp_path.glob("weights/*/*"))


@pytest.mark.parametrize("name", ["../../etc", "galaxies", "a/b/c", "a/..", "", "a/b@", "/a/b"])
def test_a_name_that_is_none_of_the_hub_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"must be hf_hub:OWNER/NAME"):
        build(settings_for(backbone=f"hf_hub:{name}"), 3)


def test_a_run_goes_on_with_the_folder_and_is_loaded_without_it(
    dataset: Path, tmp_path: Path
) -> None:
    folder = save_backbone(tmp_path / "galaxies")
    run, manifest = tmp_path / "run", read_manifest(dataset)
    model = SMALL_MODEL | {"backbone": f"local-dir:{folder}", "weights": "pretrained"}
    given = config.Train.model_validate({"run": run, "data": {"dataset": dataset}, "model": model})

    settings = with_keys_of_run(given)
    trained = build_model(settings.model, manifest)
    save_trained(run / "best", trained, settings, manifest, {})
    write_text(run / "config.yaml", dump(settings))
    write_text(run / "manifest.json", manifest.model_dump_json())
    check_same_run(with_keys_of_run(given), manifest)

    shutil.rmtree(folder)
    member = load_trained(run / "best")
    assert member.settings.model.backbone.startswith("test_resnet")
    for name, tensor in member.model.state_dict().items():
        assert torch.equal(tensor, trained.state_dict()[name])
