import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lens_hpc import config
from lens_hpc import settings as reading
from lens_hpc.dataset.manifest import Manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.loading.loader import Loader
from lens_hpc.loading.order import scoring_shares
from lens_hpc.model.build import build_initial_model, build_model
from lens_hpc.model.fusion import FusionModel
from lens_hpc.model.trained import load_trained, save_trained
from lens_hpc.scoring.distributed import samples_for
from lens_hpc.scoring.finder import Finder
from tests.conftest import SMALL_MODEL, pack_survey, write_survey

Saved = tuple[Path, torch.nn.Module]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    return pack_survey(write_survey(folder / "survey"), folder / "dataset")


@pytest.fixture(scope="module")
def saved_once(packed: Path) -> Saved:
    small_model = config.Model.model_validate(SMALL_MODEL)
    manifest = Split(packed, "train").manifest
    run = packed.parent / "run"
    settings = config.Train(run=run, data=config.Data(dataset=packed), model=small_model)
    model = build_model(small_model, manifest)
    save_trained(run / "best", model, settings, manifest, {"epoch": "3"})
    return run / "best", model


@pytest.fixture
def saved(tmp_path: Path, saved_once: Saved) -> Saved:
    """A copy that a test may damage."""
    folder, model = saved_once
    return shutil.copytree(folder, tmp_path / "run" / "best"), model


def what_is_said(of: Callable[[], object]) -> str:
    """Return the message for the user, if there is one."""
    try:
        of()
    except UserError as error:
        return str(error)
    return ""


def test_what_was_saved_is_loaded(saved: Saved) -> None:
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


def test_damaged_or_foreign_weights_are_named(saved: Saved) -> None:
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
    saved: Saved,
    packed: Path,
    small_model: config.Model,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, theirs = saved
    manifest = Split(packed, "train").manifest
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
        build_model(small_model.model_copy(update={"weights": str(packed)}), manifest)


# ---- runs of earlier versions ----


def without_newer_keys(folder: Path) -> None:
    """Make the config that of a version that knew min-max scaling alone, and no indicators."""
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    for key in config.MODEL_OF_OLDER_RUNS:
        del tree["model"][key]
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))


def inputs_of_old(raw: np.ndarray, manifest: Manifest) -> torch.Tensor:
    """Scale features as the code before feature_scaling did (commit 67f67a1)."""
    statistics = manifest.statistics
    assert statistics is not None
    low = np.array(statistics.feature_min, dtype=np.float32)
    high = np.array(statistics.feature_max, dtype=np.float32)
    median = np.array(statistics.feature_median, dtype=np.float32)
    filled = np.where(np.isnan(raw), median, raw)
    return torch.from_numpy((filled - low) / np.where(high > low, high - low, 1))


def test_a_run_of_an_earlier_version_scores_as_it_did_to_the_bit(
    tmp_path: Path, packed: Path
) -> None:
    manifest = Split(packed, "train").manifest
    size = manifest.height, manifest.width
    model = config.Model.model_validate(SMALL_MODEL | config.MODEL_OF_OLDER_RUNS)
    old = FusionModel(model, len(manifest.bands), size, len(manifest.features)).eval()
    settings = config.Train(run=tmp_path, data=config.Data(dataset=packed), model=model)
    save_trained(tmp_path / "best", old, settings, manifest, {})
    without_newer_keys(tmp_path / "best")

    test = Split(packed, "test")[:]
    assert np.isnan(test.features).any()
    images = torch.from_numpy(test.images / test.images.max((1, 2, 3), keepdims=True))
    with torch.inference_mode():
        expected = old(images, inputs_of_old(test.features, manifest)).numpy()

    # One's own arrays, and a split that is evaluated.
    np.testing.assert_array_equal(Finder.load(tmp_path).score(test.images, test.features), expected)
    trained = load_trained(tmp_path / "best")
    count = len(expected)
    samples = samples_for(trained, Split(packed, "test"))
    with Loader(samples, count, 0, torch.device("cpu")) as loader, torch.inference_mode():
        batch = next(loader(0, scoring_shares(count, count, 0, 1)))
        logits = trained.model.eval()(batch.images, batch.features).numpy()
    np.testing.assert_array_equal(logits, expected)


BOTH_SCALINGS = {"model.feature_scaling": "minmax", "data.image_scale": "asinh"}


@pytest.mark.parametrize(
    ("inputs", "changes", "told"),
    [
        ("fusion", {}, []),
        ("fusion", {"model.feature_scaling": "minmax"}, ["model.feature_scaling=robust"]),
        ("fusion", {"data.image_scale": "asinh"}, ["data.image_scale=cutout"]),
        ("fusion", BOTH_SCALINGS, ["data.image_scale=cutout", "model.feature_scaling=robust"]),
        ("image", BOTH_SCALINGS, ["data.image_scale=cutout"]),
        ("features", BOTH_SCALINGS, ["model.feature_scaling=robust"]),
    ],
)
def test_a_start_from_weights_of_another_scaling_is_told(
    inputs: str,
    changes: dict[str, str],
    told: list[str],
    saved: Saved,
    packed: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, _ = saved
    start = {"model.weights": str(folder), "model.inputs": inputs}
    settings = reading.load(config.Train, folder / "config.yaml", values=start | changes)
    build_initial_model(settings, Split(packed, "train").manifest)

    scalings = [record.getMessage() for record in caplog.records if "scal" in record.getMessage()]
    assert len(scalings) == len(told)
    for text, theirs in zip(scalings, told, strict=True):
        assert f"was trained with {theirs}, and starts here with " in text


def test_a_start_from_a_run_of_an_older_version_is_told(
    saved: Saved, packed: Path, small_model: config.Model, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = saved
    without_newer_keys(folder)
    start = small_model.model_copy(update={"weights": str(folder)})
    settings = config.Train(run=folder, data=config.Data(dataset=packed), model=start)
    build_initial_model(settings, Split(packed, "train").manifest)
    assert "was trained with model.feature_scaling=minmax, and starts here with robust" in (
        caplog.text
    )


# ---- files that are damaged, or somebody else's ----


def with_header(data: bytes, change: Callable[[dict], object]) -> bytes:
    """Return safetensors whose header, which is JSON, is another one."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def first(header: dict) -> dict:
    return header[next(name for name in header if name != "__metadata__")]


WEIGHTS_DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "garbage": lambda data: b"\x80\x04junk" * 100,
    "cut in the header": lambda data: data[:50],
    "cut in the tensors": lambda data: data[:-100],
    "longer": lambda data: data + b"more",
    "a header of 10^9 bytes": lambda data: struct.pack("<Q", 10**9) + data[8:],
    "a header longer than any file": lambda data: b"\xff" * 8 + data[8:],
    "a header that is null": lambda data: struct.pack("<Q", 4) + b"null" + data,
    "a header of brackets": lambda data: struct.pack("<Q", 10**5) + b"[" * 10**5,
    "another shape": lambda data: with_header(data, lambda h: first(h).update(shape=[3])),
    "a huge shape": lambda data: with_header(data, lambda h: first(h).update(shape=[2**62, 8])),
    "an unknown type": lambda data: with_header(data, lambda h: first(h).update(dtype="PICKLE")),
    "a place elsewhere": lambda data: with_header(
        data, lambda h: first(h).update(data_offsets=[0, 1 << 40])
    ),
    "no tensor": lambda data: with_header(data, dict.clear),
}


@pytest.mark.parametrize("damage", WEIGHTS_DAMAGED.values(), ids=WEIGHTS_DAMAGED.keys())
def test_damaged_weights_are_one_message(
    saved: Saved,
    packed: Path,
    small_model: config.Model,
    damage: Callable[[bytes], bytes],
) -> None:
    folder, _ = saved
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError) as error:
        load_trained(folder)
    assert str(error.value).startswith(f"{file}: is damaged")
    assert len(str(error.value)) < 1000

    # As the start of another run, or as a file for the backbone.
    manifest = Split(packed, "train").manifest
    for weights in (folder, file):
        start = small_model.model_copy(update={"weights": str(weights)})
        said = what_is_said(lambda start=start: build_model(start, manifest))
        # A run's tensors without a match are named in a warning, when all can be read.
        assert str(weights) in said or (weights == folder and not said)


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "calibration.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"3", b"{", b"\xff\xfe", b"\0", b"[" * 100_000, b'{"step": []}'],
    ids=lambda content: repr(content[:6]),
)
def test_a_damaged_file_beside_the_weights_is_named(
    saved: Saved, name: str, content: bytes
) -> None:
    folder, _ = saved
    (folder / name).write_bytes(content)
    said = what_is_said(lambda: Finder.load(folder.parent))
    # A calibration may be of other weights, and is not used then.
    is_of_others = name == "calibration.json" and b"step" in content
    assert (str(folder / name) in said) != is_of_others


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "model.safetensors"])
def test_one_damaged_byte_is_loaded_or_named(saved: Saved, name: str) -> None:
    folder, _ = saved
    sound = (folder / name).read_bytes()
    rng = random.Random(0)
    for _ in range(20):
        content = bytearray(sound)
        # The first bytes of weights are their header.
        content[rng.randrange(min(len(sound), 5000))] ^= rng.randrange(1, 256)
        (folder / name).write_bytes(content)
        said = what_is_said(lambda: load_trained(folder))
        # Another value of a setting may be a sound one that does not suit the rest.
        assert name != "model.safetensors" or not said or name in said


def test_a_manifest_without_training_is_no_runs(saved: Saved) -> None:
    folder, _ = saved
    tree = json.loads((folder / "manifest.json").read_text())
    del tree["splits"]["train"]
    (folder / "manifest.json").write_text(json.dumps(tree | {"statistics": None}))
    with pytest.raises(UserError, match=r"manifest\.json: has no statistics of training"):
        load_trained(folder)
