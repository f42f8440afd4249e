"""Surveys without a leak: objects and exposures as they come, the same for both classes."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from tests.conftest import pack_survey

RECIPE = """
name: clean
catalogue: catalogue.csv
stack: images.npy
columns: {id: id, label: is_lens, features: [mag, colour]}
pixel_scale: 0.2
units: counts
"""
SIZES = (24, 33, 48, 64)
FILTERS = "griz"
FIELDS = 25


class CleanSurvey:
    """Galaxies, some with an arc, in exposures that differ from field to field.

    The seed chooses size, bands, number of rows, share of lenses, depth, and what the pipeline did
    to all cutouts: smoothed them, rounded them, took the sky away, clipped it, padded an edge.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.size = int(rng.choice(SIZES))
        self.bands = FILTERS[: rng.integers(1, 1 + len(FILTERS))]
        self.rows = int(rng.integers(240, 600))
        self.labels = (rng.random(self.rows) < rng.choice([0.2, 0.5])).astype(int)
        self.fields = rng.integers(FIELDS, size=self.rows)
        self.grouped = bool(rng.integers(2))

        light = self._paint(rng)
        noise = self._expose(rng, light)
        self.images = self._reduce(rng, light + noise)
        self.table = pd.DataFrame(
            {
                "id": [f"J{rng.integers(10**9):09d}" for _ in range(self.rows)],
                "is_lens": self.labels,
                "mag": rng.normal(self.labels / 2, 1),
                "colour": np.where(rng.random(self.rows) < 0.1, np.nan, rng.normal(size=self.rows)),
                "field": [f"f{field}" for field in self.fields],
            }
        )

    def pack(self, folder: Path) -> Path:
        """Write the survey, and pack it."""
        folder.mkdir()
        np.save(folder / "images.npy", self.images)
        self.table.to_csv(folder / "catalogue.csv", index=False)
        (folder / "recipe.yaml").write_text(RECIPE)
        overrides = [f"bands=[{', '.join(self.bands)}]"]
        if self.grouped:
            overrides.append("columns.group=field")
        return pack_survey(folder, folder / "d", *overrides)

    def _paint(self, rng: np.random.Generator) -> np.ndarray:
        """Return galaxies, those of lenses with an arc, (rows, bands, size, size)."""

        def draw(low: float, high: float) -> np.ndarray:
            return rng.uniform(low, high, (self.rows, 1, 1))

        y, x = np.indices((self.size, self.size)) - (self.size - 1) / 2
        x = x - rng.normal(0, 0.4, (self.rows, 1, 1))
        y = y - rng.normal(0, 0.4, (self.rows, 1, 1))
        angle = draw(0, 2 * np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        across = (y * np.cos(angle) - x * np.sin(angle)) / draw(0.4, 1)
        galaxies = 10 ** draw(0.5, 2) * np.exp(-np.hypot(along, across) / draw(1, self.size / 12))

        radius = np.hypot(x, y) - draw(3, self.size / 5)
        arcs = draw(3, 15) * np.exp(-np.square(radius)) * np.exp(along / self.size)
        colours = rng.uniform(0.5, 1, (2, self.rows, len(self.bands), 1, 1))
        is_lens = self.labels[:, None, None, None]
        return galaxies[:, None] * colours[0] + is_lens * arcs[:, None] * colours[1]

    def _expose(self, rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
        """Return sky and noise of each field, with the noise of the light itself."""
        depth = rng.uniform(0.7, 1.5, (FIELDS, len(self.bands), 1, 1))[self.fields]
        level = rng.normal(rng.choice([0, 20]), 0.3, (FIELDS, len(self.bands), 1, 1))[self.fields]
        sigma = np.sqrt(np.square(depth) + light / rng.uniform(2, 20))
        return level + sigma * rng.normal(size=light.shape)

    def _reduce(self, rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
        """Return cutouts after a pipeline that treats both classes alike."""
        step = rng.integers(5)
        if step == 0:
            images = gaussian_filter(images, (0, 0, 0.7, 0.7))
        elif step == 1:
            images = np.round(images * 4) / 4
        elif step == 2:
            images = np.maximum(images, 0)
        elif step == 3:
            images[..., 0] = images[..., 1]
        return images.astype(np.float32)
