"""A labelled mock survey on disk: cutouts, a catalogue, and the recipe that packs both.

Every object is a function of the survey's seed and its own number alone. The catalogue holds what a
survey would measure on the noisy cutout, never the truth of the simulation.
"""

import csv
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from astropy.io import fits

from lens_hpc import files, logs
from lens_hpc.holding import held
from lens_hpc.sky.camera import draw_camera
from lens_hpc.sky.galaxies import draw_neighbours
from lens_hpc.sky.impostors import draw_non_lens
from lens_hpc.sky.lenses import draw_lens
from lens_hpc.sky.light import ZERO_POINT
from lens_hpc.workers import make_pool

OBJECTS_PER_TASK = 25
APERTURE_RADIUS_ARCSEC = 2.0
PHOTO_Z_SCATTER = 0.04
PHOTO_Z_OUTLIERS = 0.05
PHOTO_Z_MISSING = 0.03

CUTOUTS = "cutouts"
CATALOGUE = "catalogue.csv"
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class SurveyDesign:
    """What determines every byte of a mock survey."""

    objects: int
    """Number of cutouts."""
    seed: int
    prevalence: float
    """Share of the objects that are lenses."""
    size: int
    """Height and width of a cutout, pixels."""
    pixel_scale: float
    """Arcsec per pixel."""
    bands: tuple[str, ...]
    """Filters of each cutout, in this order: some of g, r, i, z, y."""


@dataclass(frozen=True)
class MockSurvey:
    """A mock survey that was made."""

    folder: Path
    objects: int
    lenses: int
    """How many of the objects are lenses."""


def make_mock_survey(out: Path, design: SurveyDesign, processes: int) -> MockSurvey:
    """Write OUT/cutouts/*.fits, OUT/catalogue.csv and OUT/recipe.yaml.

    The new folder `out` appears when all are complete. The number of worker processes changes
    nothing but the time. Raise UserError if `out` exists, or if the cutouts can show no lens.
    """
    with held(files.final_name(out)), files.whole_folder(out) as folder:
        cutouts = folder / CUTOUTS
        cutouts.mkdir()
        rows = list(_observe_all(design, cutouts, processes))
        _write_catalogue(folder / CATALOGUE, rows)
        (folder / RECIPE).write_text(_recipe_text(design), encoding="utf-8")

    lenses = sum(row.is_lens for row in rows)
    return MockSurvey(out, len(rows), lenses)


# ---- objects ----


class _Row(NamedTuple):
    """One line of the catalogue."""

    id: str
    is_lens: int
    object_class: str
    mag_i: float
    color_gi: float
    photo_z: float


def _observe_all(design: SurveyDesign, folder: Path, processes: int) -> Iterator[_Row]:
    """Make all objects in worker processes, and yield their catalogue rows in order."""
    is_lens = np.zeros(design.objects, dtype=bool)
    lenses = round(design.objects * design.prevalence)
    is_lens[:lenses] = True
    np.random.default_rng([design.seed]).shuffle(is_lens)

    progress = logs.Progress(design.objects, "simulate", "objects")
    pool = make_pool(processes, "spawn", _use_one_thread)
    with closing(progress), pool:
        tasks = []
        for start in range(0, design.objects, OBJECTS_PER_TASK):
            end = start + OBJECTS_PER_TASK
            task = pool.submit(_observe_some, design, folder, start, is_lens[start:end])
            tasks.append(task)

        try:
            for task in tasks:
                rows = task.result()
                yield from rows
                progress.update(len(rows))
        finally:
            # After an error in one task the others are not waited for.
            pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    """Keep torch to one thread in a worker, so that sums are always added in the same order."""
    torch.set_num_threads(1)


def _observe_some(
    design: SurveyDesign, folder: Path, start: int, is_lens: np.ndarray
) -> list[_Row]:
    """Make the objects from number `start` on, which are lenses or not."""
    rows = []
    for number, lens in enumerate(is_lens, start):
        rows.append(_observe(design, folder, number, bool(lens)))
    return rows


def _observe(design: SurveyDesign, folder: Path, number: int, is_lens: bool) -> _Row:
    """Draw one object, write its cutout, and measure its catalogue row."""
    rng = np.random.default_rng([design.seed, number])
    camera = draw_camera(rng, design.bands, design.size, design.pixel_scale)
    if is_lens:
        object_class = "lens"
        scene = draw_lens(rng, camera)
    else:
        object_class, scene = draw_non_lens(rng)

    half_width = design.size * design.pixel_scale / 2
    neighbours = draw_neighbours(rng, half_width)
    flux = camera.expose([*scene.lights, *neighbours])
    if scene.lens:
        flux = flux + camera.expose(scene.sources, scene.lens)
    cutout = camera.record(rng, flux)

    identifier = f"MOCK{number:08d}"
    _write_cutout(folder / f"{identifier}.fits", cutout, design)
    mag_i, color_gi = _measure_magnitudes(cutout, design)
    photo_z = _measure_photo_z(rng, scene.z)
    return _Row(identifier, int(is_lens), object_class, mag_i, color_gi, photo_z)


# ---- what a survey would measure ----


def _measure_magnitudes(cutout: np.ndarray, design: SurveyDesign) -> tuple[float, float]:
    """Return the aperture magnitude in i and the colour g - i, NaN where the flux is not positive.

    Without i the last band stands in for it, and without g the first: bands run from blue to red.
    `cutout` is (bands, height, width) without a sky level, its unit magnitude ZERO_POINT.
    """
    axis = (np.arange(design.size) - (design.size - 1) / 2) * design.pixel_scale
    radius = np.hypot(axis[:, None], axis[None, :])
    is_in_aperture = radius < APERTURE_RADIUS_ARCSEC
    fluxes = cutout[:, is_in_aperture].sum(axis=1)

    magnitudes = {}
    for band, flux in zip(design.bands, fluxes, strict=True):
        magnitudes[band] = ZERO_POINT - 2.5 * math.log10(flux) if flux > 0 else math.nan

    mag_red = magnitudes.get("i", magnitudes[design.bands[-1]])
    mag_blue = magnitudes.get("g", magnitudes[design.bands[0]])
    return mag_red, mag_blue - mag_red


def _measure_photo_z(rng: np.random.Generator, z: float) -> float:
    """Return a photometric redshift: scattered, sometimes far off, sometimes missing."""
    scatter = rng.normal(0, PHOTO_Z_SCATTER * (1 + z))
    is_outlier = rng.uniform() < PHOTO_Z_OUTLIERS
    measured = rng.uniform(0.05, 1.2) if is_outlier else max(z + scatter, 0.01)
    is_missing = rng.uniform() < PHOTO_Z_MISSING
    return math.nan if is_missing else measured


# ---- files ----


def _write_cutout(path: Path, cutout: np.ndarray, design: SurveyDesign) -> None:
    """Write a FITS file with a plane for each band."""
    header = fits.Header()
    header["BANDS"] = (",".join(design.bands), "planes, in this order")
    header["PIXSCALE"] = (design.pixel_scale, "arcsec/px")
    header["MAGZERO"] = (ZERO_POINT, "AB magnitude of one flux unit")
    fits.PrimaryHDU(cutout, header).writeto(path)


def _write_catalogue(path: Path, rows: list[_Row]) -> None:
    """Write the catalogue, with an empty cell for a value that could not be measured."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "is_lens", "class", "mag_i", "color_gi", "photo_z"])
        for row in rows:
            measured = [row.mag_i, row.color_gi, row.photo_z]
            cells = ["" if math.isnan(value) else f"{value:.4f}" for value in measured]
            writer.writerow([row.id, row.is_lens, row.object_class, *cells])


def _recipe_text(design: SurveyDesign) -> str:
    """Return the recipe that packs this survey."""
    recipe = {
        "name": "mock",
        "catalogue": CATALOGUE,
        "columns": {
            "id": "id",
            "label": "is_lens",
            "features": ["mag_i", "color_gi", "photo_z"],
        },
        "images": f"{CUTOUTS}/{{id}}.fits",
        "bands": list(design.bands),
        "pixel_scale": design.pixel_scale,
        "units": f"flux, AB magnitude {ZERO_POINT} is 1",
        "seed": design.seed,
    }
    return "# Made by lens-hpc simulate.\n" + yaml.safe_dump(recipe, sort_keys=False)
