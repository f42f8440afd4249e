"""Small surveys and datasets that tests share. Nothing here is a file of the repository: tests make what they need."""

import csv
from pathlib import Path

import numpy as np
import pytest

from lens_hpc import config, pack

RECIPE = """
name: toy
catalogue: catalogue.csv
columns: {id: id, label: is_lens, features: [radius, colour]}
images: "{id}.npy"
bands: [g, r]
pixel_scale: 0.2
units: counts
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that several workers end together."""
    first = ("slurm", "integration")
    items.sort(key=lambda item: next((n for n, part in enumerate(first) if part in item.path.parts), len(first)))


def write_survey(folder: Path, rows: int = 40, bands: int = 2, size: int = 8, **columns: list[str]) -> Path:
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
        np.save(folder / f"obj{i}.npy", (i + rng.normal(size=(bands, size, size))).astype(np.float32))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def pack_survey(survey: Path, output: Path, *overrides: str) -> Path:
    pack.run(survey / "recipe.yaml", [f"source={survey}", f"output={output}", *overrides])
    return output


@pytest.fixture(scope="session")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training split of 5,120 rows in 20 shards; not to be changed."""
    folder = tmp_path_factory.mktemp("many")
    survey = write_survey(folder / "s", rows=5120, size=24)
    return pack_survey(survey, folder / "d", "shard_mib=1", "splits={train: 1.0}")


@pytest.fixture
def survey(tmp_path: Path) -> Path:
    return write_survey(tmp_path / "survey")


@pytest.fixture
def dataset(tmp_path: Path, survey: Path) -> Path:
    return pack_survey(survey, tmp_path / "dataset")


@pytest.fixture
def small_model() -> config.Model:
    return config.Model(backbone="test_resnet", weights="none", conv_channels=(16, 8), attention_channels=4)
