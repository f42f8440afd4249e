"""A small survey of galaxies to paint on, and the recipe of the arcs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from lens_hpc.packing.injection_recipe import InjectionRecipe
from tests.conftest import pack_survey

ZERO_POINT = 27.0
BANDS = ("g", "i")
SIZE = 32
SKY = 0.02

RECIPE: dict[str, Any] = {
    "psf": {"g": 0.8, "i": {"column": "seeing_i"}},
    "deflector": {"sigma_v": "sigma_v", "z_lens": "z"},
    "sources": {
        "z": {"uniform": [1.5, 3.0]},
        "band": "i",
        "magnitude": {"normal": [23.5, 0.5]},
        "colors": {"g": {"normal": [0.5, 0.2]}},
    },
}


def recipe_of(**changes: Any) -> InjectionRecipe:
    """Return the recipe, but for what is another one."""
    return InjectionRecipe.model_validate(RECIPE | changes)


def write_recipe(file: Path, **changes: Any) -> Path:
    """Write the recipe, but for what is another one."""
    file.write_text(yaml.safe_dump(RECIPE | changes))
    return file


@contextmanager
def workers_that_are_threads(_processes: int) -> Iterator[ThreadPoolExecutor]:
    """To start processes, each of which imports torch, takes longer than to paint."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


def galaxy(rng: np.random.Generator, noise: float = SKY) -> np.ndarray:
    """Return the cutout of a round galaxy with noise, (bands, SIZE, SIZE) float32."""
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    radius = np.hypot(axis[:, None], axis)
    light = np.exp(-radius / 2) * np.array([1.0, 3.0])[:, None, None]
    return (light + rng.normal(0, noise, light.shape)).astype(np.float32)


def write_galaxies(folder: Path, rows: int = 40, **recipe: Any) -> Path:
    """Write a survey of galaxies, of which a tenth are labelled lenses, and a tenth non-lenses."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    table = pd.DataFrame(
        {
            "id": [f"gal{row:03d}" for row in range(rows)],
            "is_lens": [{0: "1", 5: "0"}.get(row % 10, "") for row in range(rows)],
            "part": ["test" if row % 4 == 3 else "train" for row in range(rows)],
            "colour": rng.normal(1, 0.3, rows).round(3),
            "z": rng.uniform(0.2, 0.5, rows).round(3),
            "sigma_v": rng.uniform(250, 300, rows).round(1),
            "seeing_i": rng.uniform(0.5, 0.7, rows).round(2),
            "tile": [f"t{row % 3}" for row in range(rows)],
            "weight": rng.uniform(0.5, 2, rows).round(2),
            "field": [f"f{row // 5}" for row in range(rows)],
        }
    )
    table.to_csv(folder / "catalogue.csv", index=False)
    for name in table["id"]:
        np.save(folder / f"{name}.npy", galaxy(rng))

    layout: dict[str, Any] = {
        "name": "galaxies",
        "catalogue": "catalogue.csv",
        "columns": {
            "id": "id",
            "label": "is_lens",
            "features": ["colour", "z"],
            "keep": ["sigma_v", "seeing_i", "tile"],
            "split": "part",
            "weight": "weight",
        },
        "images": "{id}.npy",
        "bands": list(BANDS),
        "pixel_scale": 0.2,
        "units": "flux, AB magnitude 27.0 is 1",
        "zero_point": ZERO_POINT,
        "gain": 2000.0,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(layout | recipe))
    return folder


def pack_galaxies(folder: Path, rows: int = 40, **recipe: Any) -> Path:
    """Write a survey of galaxies and pack it."""
    survey = write_galaxies(folder / "s", rows, **recipe)
    return pack_survey(survey, folder / "d")


def pack_pictures(folder: Path, rows: int = 40) -> Path:
    """Write the same galaxies as pictures of 8 bits, and pack them."""
    survey = write_galaxies(folder / "s", rows, dtype="uint8")
    for file in survey.glob("*.npy"):
        np.save(file, (50 + 30 * np.load(file)).clip(0, 255).astype(np.uint8))
    return pack_survey(survey, folder / "d")


def write_sources(folder: Path, rows: int = 12, **recipe: Any) -> Path:
    """Write a survey of sharp galaxies to be sources.

    The first has no light, the second no redshift, the third is labelled a lens.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(11)
    table = pd.DataFrame(
        {
            "id": [f"source{row:02d}" for row in range(rows)],
            "is_lens": [{2: "1", 4: "0"}.get(row, "") for row in range(rows)],
            "part": ["test" if row % 3 == 0 else "train" for row in range(rows)],
            "photo_z": ["1.9", "", *(f"{1 + row / 20:.2f}" for row in range(2, rows))],
            "mag": [f"{23 + row / 10:.1f}" for row in range(rows)],
            "blue": [f"{row / 10:.1f}" for row in range(rows)],
            "kind": ["spiral"] * rows,
        }
    )
    table.to_csv(folder / "catalogue.csv", index=False)
    axis = np.arange(48) - 23.5
    for row, name in enumerate(table["id"]):
        radius = np.hypot(axis[:, None], axis) / (2 + row / 3)
        bands = np.array([0.0 if row == 0 else 1.0, 3.0 + row])[:, None, None]
        light = (row > 0) * np.exp(-radius) * bands
        image = (light + rng.normal(0, SKY, light.shape)).astype(np.float32)
        np.save(folder / f"{name}.npy", image)

    layout: dict[str, Any] = {
        "name": "sources",
        "catalogue": "catalogue.csv",
        "columns": {
            "id": "id",
            "label": "is_lens",
            "features": ["photo_z"],
            "keep": ["mag", "blue", "kind"],
            "split": "part",
        },
        "images": "{id}.npy",
        "bands": ["f606w", "f814w"],
        "pixel_scale": 0.05,
        "units": "electrons per second",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(layout | recipe))
    return folder


def pack_sources(folder: Path, rows: int = 12, **recipe: Any) -> Path:
    """Write the galaxies that are to be sources, and pack them."""
    survey = write_sources(folder / "sources", rows, **recipe)
    return pack_survey(survey, folder / "galaxies")


def sources_of(galaxies: Path) -> dict[str, Any]:
    """Return the law of sources that are these galaxies."""
    return {
        "galaxies": str(galaxies),
        "z": {"column": "photo_z"},
        "band": "i",
        "magnitude": {"column": "mag"},
        "colors": {"g": {"column": "blue"}},
    }
