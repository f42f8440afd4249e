"""The graph gives what Finder.score gives, from the same values."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lens_hpc import Finder, UserError, config
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.exporting.graph import ScoringGraph, example_inputs
from lens_hpc.model.build import build_model
from lens_hpc.model.trained import TrainedModel
from tests.conftest import SMALL_MODEL

ROWS = 40
SAME = 1e-5

Made = tuple[Finder, ScoringGraph]


def make(manifest: Manifest, image_scale: str = "cutout", **model: Any) -> Made:
    """An untrained finder and its graph."""
    # Untrained ResNets say the same of all cutouts so small.
    tree = {
        "run": "run",
        "data": {"dataset": "no-dataset", "image_scale": image_scale},
        "model": SMALL_MODEL | {"backbone": "test_vit"} | model,
    }
    settings = config.Train.model_validate(tree)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_model(settings.model, manifest)
    trained = TrainedModel(network, settings, manifest, Path("no-run"), {})
    return Finder([trained]), ScoringGraph(trained)


def draw_inputs(dataset: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cutouts from faint to saturated, and features of which some are missing or far off."""
    manifest = read_manifest(dataset)
    rng = np.random.default_rng(seed)
    brightness = 10 ** rng.uniform(-3, 5, size=(ROWS, 1, 1, 1))
    shape = ROWS, len(manifest.bands), manifest.height, manifest.width
    images = brightness * rng.normal(0.5, 1, size=shape)
    saturated = images > np.quantile(images, 0.95)
    images[saturated] = images[~saturated].max()

    features = rng.standard_cauchy(size=(ROWS, len(manifest.features)))
    features[rng.random(features.shape) < 0.2] = np.nan
    return images.astype(np.float32), features.astype(np.float32)


def run_graph(graph: ScoringGraph, images: np.ndarray, features: np.ndarray) -> np.ndarray:
    inputs = [torch.from_numpy(images)]
    if graph.feature_inputs is not None:
        inputs.append(torch.from_numpy(features))
    with torch.inference_mode():
        return graph(*inputs).numpy()


KINDS = list(
    itertools.product(
        ("cutout", "split", "asinh"),
        ("robust", "minmax"),
        ("fusion", "image", "features"),
        (True, False),
    )
)


@pytest.mark.slow
@pytest.mark.parametrize(("image_scale", "scaling", "inputs", "indicator"), KINDS)
def test_a_graph_scores_as_the_finder_does(
    image_scale: str, scaling: str, inputs: str, indicator: bool, packed_once: Path
) -> None:
    model = {"feature_scaling": scaling, "inputs": inputs, "missing_indicator": indicator}
    finder, graph = make(read_manifest(packed_once), image_scale, **model)
    images, features = draw_inputs(
        packed_once, KINDS.index((image_scale, scaling, inputs, indicator))
    )
    features = features if finder.features else None
    wanted = finder.score(images, features)

    found = run_graph(graph, images, features)
    np.testing.assert_allclose(found, wanted, rtol=SAME, atol=SAME)
    assert np.ptp(wanted) > 100 * SAME

    dark = -np.abs(images)
    np.testing.assert_allclose(
        run_graph(graph, dark, features), finder.score(dark, features), rtol=SAME, atol=SAME
    )
    assert np.isnan(run_graph(graph, dark, features)).all() == (image_scale == "cutout")


def test_what_the_finder_refuses_gets_nan_and_spares_its_neighbours(packed_once: Path) -> None:
    finder, graph = make(read_manifest(packed_once))
    images, features = draw_inputs(packed_once, seed=1)
    wanted = run_graph(graph, images, features)

    images[0, 1, 2, 3] = np.nan
    images[1, 0, 0, 0] = np.inf
    images[2, 0, 0, 0] = -np.inf
    features[3, 1] = np.inf
    features[4, 0] = -np.inf
    found = run_graph(graph, images, features)
    assert np.isnan(found[:5]).all()
    np.testing.assert_allclose(found[5:], wanted[5:], rtol=SAME, atol=SAME)
    for row in range(5):
        with pytest.raises(UserError):
            finder.score(images[row : row + 1], features[row : row + 1])


@pytest.mark.parametrize("inputs", ["fusion", "image", "features"])
def test_examples_can_be_scored(inputs: str, packed_once: Path) -> None:
    finder, graph = make(read_manifest(packed_once), inputs=inputs)
    examples = example_inputs(finder.members[0], 30)
    again = example_inputs(finder.members[0], 30)
    assert all(torch.equal(one, other) for one, other in zip(examples[:1], again, strict=False))
    with torch.inference_mode():
        assert graph(*examples).isfinite().all()
    if finder.features:
        assert examples[1].isnan().any()
