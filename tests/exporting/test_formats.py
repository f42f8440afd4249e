"""ONNX Runtime and torch.export give PyTorch's logits. LENS_HPC_LONG=1 tries every family of timm,
and more cutouts."""

import os
import random
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch

import lens_hpc
from lens_hpc import Dataset, Finder
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.exporting.formats import make_onnx, trace
from lens_hpc.exporting.graph import example_inputs
from tests.conftest import SMALL_MODEL
from tests.exporting.test_graph import KINDS, make

pytestmark = pytest.mark.slow
IS_LONG = "LENS_HPC_LONG" in os.environ

SIMULATED = 1000 if IS_LONG else 200
SIZES = (48, 64) if IS_LONG else (48,)
SAME = 1e-4


def run_onnx(model: bytes | Path, *inputs: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options)
    names = [one.name for one in session.get_inputs()]
    (logits,) = session.run(["logits"], dict(zip(names, inputs, strict=True)))
    return logits


def vary(images: np.ndarray) -> np.ndarray:
    """Cutouts as they are, faint, bright, saturated and turned."""
    brightest = np.quantile(images, 0.99)
    variants = [images, 0.05 * images, 30 * images, images.clip(max=brightest), images[..., ::-1]]
    return np.concatenate(variants).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
def test_a_thousand_cutouts_have_the_same_logits_and_ranking(size: int, tmp_path: Path) -> None:
    survey, shards, run = tmp_path / "survey", tmp_path / "shards", tmp_path / "run"
    lens_hpc.simulate(survey, objects=SIMULATED, size=size, seed=20, processes=1)
    lens_hpc.pack(survey / "recipe.yaml", source=survey, output=shards, processes=1)
    lens_hpc.train(
        run=run,
        data={"dataset": shards, "image_scale": "asinh", "workers": 0},
        augment={"engine": "torch"},
        model=SMALL_MODEL,
        train={"epochs": 2, "global_batch_size": 16},
    )
    exported = lens_hpc.export(run, output=tmp_path / "exported").folder

    rows = [Dataset(shards)[split][:] for split in ("train", "val", "test")]
    images = vary(np.concatenate([part.images for part in rows]))
    features = np.concatenate([part.features for part in rows] * 5)
    assert len(images) == 5 * SIMULATED
    wanted = Finder.load(exported, device="cpu").score(images, features)
    assert np.ptp(wanted) > 1000 * SAME

    program = torch.export.load(exported / "model.pt2").module()
    of_program = program(torch.from_numpy(images), torch.from_numpy(features)).detach().numpy()
    for found in (run_onnx(exported / "model.onnx", images, features), of_program):
        assert np.abs(found - wanted).max() <= SAME
        order = np.argsort(wanted)
        above = np.subtract.outer(wanted[order], wanted[order]) > 2 * SAME
        assert (np.subtract.outer(found[order], found[order])[above] > 0).all()

    images[3, 0, 5, 5] = np.nan
    with_nan = run_onnx(exported / "model.onnx", images[:5], features[:5])
    assert np.flatnonzero(np.isnan(with_nan)).tolist() == [3]


def test_every_family_of_timm_is_exported(packed_once: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    every_family = timm.list_models("test_*")
    with_images = [kind for kind in KINDS if "features" not in kind]
    failed = []
    for family in every_family if IS_LONG else rng.sample(every_family, 2):
        bands, size, kind = rng.choice([1, 3, 5]), rng.choice([48, 64]), rng.choice(with_images)
        print(family, bands, size, *kind)
        manifest = with_bands(read_manifest(packed_once), bands, size)
        image_scale, scaling, inputs, indicator = kind
        model = {
            "backbone": family,
            "feature_scaling": scaling,
            "inputs": inputs,
            "missing_indicator": indicator,
        }
        difference = export_and_compare(manifest, image_scale, **model)
        print(f"  {difference:.2g}")
        failed += [] if difference <= SAME else [family]
    assert not failed


def with_bands(manifest: Manifest, bands: int, size: int) -> Manifest:
    """A manifest of cutouts of so many bands and pixels."""
    assert manifest.statistics is not None
    described = (manifest.statistics.bands * bands)[:bands]
    changes = {
        "bands": tuple("ugrizy"[:bands]),
        "height": size,
        "width": size,
        "statistics": manifest.statistics.model_copy(update={"bands": described}),
    }
    return manifest.model_copy(update=changes)


def export_and_compare(manifest: Manifest, image_scale: str, **model: object) -> float:
    """Return the largest difference of logits, for one cutout, two and some more."""
    finder, graph = make(manifest, image_scale, **model)
    trained = finder.members[0]
    inputs = example_inputs(trained, 3)
    program = trace(graph, inputs)
    onnx = make_onnx(program, inputs, {})

    differences = [0.0]
    for count in (1, 2, 7):
        inputs = example_inputs(trained, count)
        with torch.inference_mode():
            wanted = graph(*inputs).numpy()
            of_program = program.module()(*inputs).numpy()
        of_onnx = run_onnx(onnx, *(one.numpy() for one in inputs))
        differences += [np.abs(found - wanted).max() for found in (of_onnx, of_program)]
    return float(max(differences))
