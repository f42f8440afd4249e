"""A small survey of galaxies to paint on, and the recipe of the arcs."""

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
