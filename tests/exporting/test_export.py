"""An export is whole, the same each time, and read like the run that it comes from."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

import lens_hpc
from lens_hpc import Finder, UserError
from lens_hpc.exporting import formats
from lens_hpc.model.build import build_model
from tests.conftest import call
from tests.exporting.test_graph import draw_inputs
from tests.kills import files_of
from tests.markdown import blocks_of
from tests.predicting.small_runs import make_run

OWN_CODE = """
from lens_hpc.model.fusion import FusionModel

class Mine(FusionModel):
    pass
"""


@pytest.fixture(scope="module")
def run(packed_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("export") / "run", packed_once, backbone="test_vit")


@pytest.mark.slow
def test_an_export_is_read_like_its_run(run: Path, packed_once: Path, tmp_path: Path) -> None:
    exported = call("export", run, f"output={tmp_path / 'shared'}", "formats=[]").folder
    ours, theirs = (Finder.load(folder, device="cpu") for folder in (run, exported))
    images, features = draw_inputs(packed_once, seed=5)
    np.testing.assert_array_equal(theirs.score(images, features), ours.score(images, features))
    np.testing.assert_array_equal(
        theirs.probability(images, features, prevalence=1e-3),
        ours.probability(images, features, prevalence=1e-3),
    )

    scored = lens_hpc.predict([exported, packed_once], output=tmp_path / "scored", batch_size=8)
    assert scored is not None
    evaluated = lens_hpc.evaluate(exported, dataset=packed_once, workers=0)
    assert evaluated is not None
    start = theirs.members[0].settings.model.model_copy(update={"weights": str(exported)})
    begun = build_model(start, theirs.members[0].manifest).state_dict()
    for name, tensor in theirs.members[0].model.state_dict().items():
        assert torch.equal(begun[name], tensor)

    again = call("export", exported, f"output={tmp_path / 'again'}", "formats=[]").folder
    assert (again / "model.safetensors").read_bytes() == (
        exported / "model.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_an_export_does_not_say_where_files_lay(run: Path, tmp_path: Path) -> None:
    exported = call("export", run, f"output={tmp_path / 'shared'}", "formats=[torch]").folder
    for file in exported.rglob("*"):
        if file.is_file() and file.suffix != ".parquet":
            content = file.read_bytes()
            for place in (run.parent, tmp_path, Path(lens_hpc.__file__).parent):
                assert str(place).encode() not in content, (file, place)


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes_and_a_card_that_works(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [sys.executable, "-m", "lens_hpc", "export", str(run)]
    subprocess.run([*line, f"output={tmp_path / 'one'}"], check=True)
    call("export", run, f"output={tmp_path / 'two'}")
    written = files_of(tmp_path / "one")
    assert written == files_of(tmp_path / "two")
    assert str(run.parent).encode() not in b"".join(written.values())
    check_descriptions(tmp_path / "one")

    monkeypatch.chdir(tmp_path / "one")
    by_finder, by_onnx_runtime = follow_card(Path("README.md"))
    np.testing.assert_allclose(by_finder, by_onnx_runtime, rtol=1e-4)


def follow_card(card: Path) -> list[np.ndarray]:
    """Run what a card shows, in its folder; return the probabilities of each script."""
    found = []
    for block in blocks_of(card):
        names: dict[str, Any] = {}
        exec(block.content, names)
        found.append(names.get("probability", names["logits"]))
    return found


def check_descriptions(folder: Path) -> None:
    """Check that each file of an export says what its inputs are."""
    description = json.loads((folder / "model.json").read_text())
    assert description["bands"] == ["g", "r"]
    assert description["units"] == "counts"
    assert description["pixel_scale_arcsec"] == 0.2
    assert description["features"] == ["radius", "colour"]
    assert description["temperature"] == 1.5
    texts = formats_of(folder)
    for key, value in description.items():
        wanted = value if isinstance(value, str) else json.dumps(value)
        assert [text[key] for text in texts] == [wanted] * len(texts), key


def formats_of(folder: Path) -> list[dict[str, str]]:
    """What each file of an export says of its inputs."""
    model = onnx.load(folder / "model.onnx")
    with safe_open(folder / "model.safetensors", "pt") as weights:
        of_weights = weights.metadata()
    kept = {"model.json": ""}
    torch.export.load(folder / "model.pt2", extra_files=kept)
    of_program = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in json.loads(kept["model.json"]).items()
    }
    return [{one.key: one.value for one in model.metadata_props}, of_weights, of_program]


# ---- refusals ----


def test_what_cannot_be_exported_is_named(run: Path, tmp_path: Path) -> None:
    output = f"output={tmp_path / 'shared'}"
    empty = tmp_path / "empty"
    empty.mkdir()
    for target, words, said in (
        (tmp_path / "nowhere", [], r"nowhere/best holds no model.safetensors: there is no"),
        (empty, [], r"empty/best holds no model.safetensors: is .* a run"),
        (run, ["weights=final"], r"run/final holds no model.safetensors"),
        (run, ["formats=[onxx]"], r"formats.*onnx.*torch"),
        (run, ["weights=other.pt"], r"weights = other.pt: must be best, final, or"),
    ):
        with pytest.raises(UserError, match=said):
            call("export", target, output, *words)
        assert not (tmp_path / "shared").exists()

    call("export", run, output, "formats=[]")
    with pytest.raises(UserError, match=r"shared already exists; name another folder"):
        call("export", run, output, "formats=[]")


@pytest.mark.slow
def test_a_model_of_ones_own_is_exported_where_its_package_is_named(
    run: Path, packed_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_export.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    own = shutil.copytree(run, tmp_path / "own")
    config_file = own / "best" / "config.yaml"
    config_file.write_text(config_file.read_text().replace("name: fusion", "name: own_export.Mine"))

    with pytest.raises(UserError, match=r"add code=\[own_export\]"):
        call("export", own, f"output={tmp_path / 'shared'}")
    words = [f"output={tmp_path / 'shared'}", "formats=[torch]", "code=[own_export]"]
    exported = call("export", own, *words).folder
    images, features = draw_inputs(packed_once, seed=6)
    program = torch.export.load(exported / "model.pt2").module()
    found = program(torch.from_numpy(images), torch.from_numpy(features)).detach().numpy()
    wanted = Finder.load(run, device="cpu").score(images, features)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert "`own_export.Mine`" in (exported / "README.md").read_text()


@pytest.mark.parametrize("wrong", ["trace", "agreement"])
@pytest.mark.slow
def test_a_graph_that_fails_or_differs_is_not_written(
    wrong: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Session:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self, _: Any, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.zeros(len(inputs["images"]), dtype=np.float32)]

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such operator. Next steps:\n- ask somebody")

    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    monkeypatch.setattr(formats, "make_onnx", lambda *_: b"")
    monkeypatch.setattr("lens_hpc.exporting.export.make_onnx", lambda *_: b"")
    said = r"logits in ONNX Runtime differ by up to .*formats=\[torch\]"
    if wrong == "trace":
        monkeypatch.setattr(torch.export, "export", fail)
        said = (
            r"by torch.export \(RuntimeError: no such operator\); leave that out with formats=\[\]"
        )
    with pytest.raises(UserError, match=said):
        call("export", run, f"output={tmp_path / 'shared'}", "formats=[onnx]")
    assert not list(tmp_path.iterdir())
