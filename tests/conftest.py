"""Small surveys and datasets that tests share. Nothing here is a file of the repository: tests make
what they need."""

import csv
import logging
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings

from lens_hpc import config, verbs

# nohup and shells that start something in the background let it ignore these, and its children.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# A test that fails on a busy machine alone would say nothing.
hypothesis_settings.register_profile("no deadline", deadline=None)
hypothesis_settings.load_profile("no deadline")

RECIPE = """
name: toy
catalogue: catalogue.csv
columns: {id: id, label: is_lens, features: [radius, colour]}
images: "{id}.npy"
bands: [g, r]
pixel_scale: 0.2
units: counts
"""


SMALL_MODEL = {
    "backbone": "test_resnet",
    "weights": "none",
    "conv_channels": (16, 8),
    "attention_channels": 4,
}
"""Settings of a model that trains in a moment."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that several workers end together.

    Packing forks, which takes the less the smaller the process of the tests still is.
    """
    first = ("test_readme.py", "slurm", "test_how_to.py", "integration", "packing")
    items.sort(
        key=lambda item: next(
            (n for n, part in enumerate(first) if part in item.path.parts), len(first)
        )
    )


def write_survey(
    folder: Path, rows: int = 40, bands: int = 2, size: int = 8, **columns: list[str]
) -> Path:
    """A toy survey: row i is a cutout filled with noise around i, a lens where i is odd."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    table = {
        "id": [f"obj{i}" for i in range(rows)],
        "is_lens": [str(i % 2) for i in range(rows)],
        "radius": [f"{rng.normal():.3f}" for _ in range(rows)],
        "colour": ["" if i % 7 == 0 else f"{rng.normal():.3f}" for i in range(rows)],
        **columns,
    }
    with (folder / "catalogue.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    for i in range(rows):
        np.save(
            folder / f"obj{i}.npy", (i + rng.normal(size=(bands, size, size))).astype(np.float32)
        )
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def call(verb: str, target: Path, *overrides: str) -> Any:
    """Call a verb as the terminal does, but for its errors: print its text and return its
    result."""
    module = verbs.module(verb)
    result = module.run(verbs.read_settings(verb, [target], overrides))
    print(module.text(result))
    return result


def pack_survey(survey: Path, output: Path, *overrides: str) -> Path:
    """Pack in one process, unless a test asks for more: to fork a large process takes long."""
    where = (f"source={survey}", f"output={output}", "processes=1")
    call("pack", survey / "recipe.yaml", *where, *overrides)
    return output


@pytest.fixture(autouse=True)
def log_lines_as_in_the_terminal() -> Iterator[None]:
    """Log lines are there in every test, whichever ran before it."""
    logger = logging.getLogger("lens_hpc")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.fixture(scope="session")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training split of 5,120 rows in 20 shards; not to be changed."""
    folder = tmp_path_factory.mktemp("many")
    survey = write_survey(folder / "s", rows=5120, size=24)
    return pack_survey(survey, folder / "d", "shard_mib=1", "splits={train: 1.0}")


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    return write_survey(tmp_path / "survey")


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy survey, packed; not to be changed."""
    folder = tmp_path_factory.mktemp("packed")
    return pack_survey(write_survey(folder / "survey"), folder / "dataset")


@pytest.fixture
def dataset(request: pytest.FixtureRequest, tmp_path: Path, packed_once: Path) -> Path:
    """The toy survey, packed, of a test's own: a copy, as to pack takes longer than most tests.

    Where a test has the survey, too, it is packed from there.
    """
    if "survey" in request.fixturenames:
        return pack_survey(request.getfixturevalue("survey"), tmp_path / "dataset")
    return shutil.copytree(packed_once, tmp_path / "dataset")


@pytest.fixture
def small_model() -> config.Model:
    return config.Model.model_validate(SMALL_MODEL)
