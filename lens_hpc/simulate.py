"""simulate: a labelled mock survey, so that the demo and the tests need no network.

Every object is a function of (seed, its number) alone. The catalogue holds what a survey would measure on the noisy
cutout, never the truth of the simulation.
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from astropy.io import fits

from lens_hpc import config, files, logs
from lens_hpc.data import mock
from lens_hpc.workers import make_pool

OBJECTS_A_TASK = 25
APERTURE_ARCSEC = 2.0
PHOTO_Z_SCATTER = 0.04
PHOTO_Z_OUTLIERS = 0.05
PHOTO_Z_MISSING = 0.03


class Row(NamedTuple):
    """One line of catalogue.csv."""

    id: str
    is_lens: int
    object_class: str
    mag_i: float
    color_gi: float
    photo_z: float


def run(out: Path, overrides: list[str]) -> None:
    """Write OUT/cutouts/*.fits, OUT/catalogue.csv and OUT/recipe.yaml; OUT appears when all are complete."""
    settings = config.load(config.Simulate, overrides=overrides)
    with files.whole_folder(out) as folder:
        (folder / "cutouts").mkdir()
        rows = list(observe_all(settings, folder / "cutouts"))
        write_catalogue(folder / "catalogue.csv", rows, settings)
        (folder / "recipe.yaml").write_text(recipe(settings), encoding="utf-8")
    lenses = sum(row.is_lens for row in rows)
    print(
        f"{out}: {len(rows):,} objects, {lenses:,} of them lenses. Pack it with\n"
        f"  lens-hpc pack {out}/recipe.yaml source={out} output=FOLDER"
    )


def observe_all(settings: config.Simulate, folder: Path) -> Iterator[Row]:
    """Make all objects in worker processes and yield their catalogue rows in order."""
    lenses = np.zeros(settings.objects, dtype=bool)
    lenses[: round(settings.objects * settings.prevalence)] = True
    np.random.default_rng([settings.seed]).shuffle(lenses)
    starts = range(0, settings.objects, OBJECTS_A_TASK)
    progress = logs.Progress(settings.objects, "simulate", "objects")
    with make_pool(settings.processes, "spawn") as pool:
        tasks = [pool.submit(observe_some, settings, folder, s, lenses[s : s + OBJECTS_A_TASK]) for s in starts]
        try:
            for task in tasks:
                yield from task.result()
                progress.update(len(task.result()))
        finally:
            pool.shutdown(cancel_futures=True)
    progress.close()


def observe_some(settings: config.Simulate, folder: Path, start: int, lenses: np.ndarray) -> list[Row]:
    """Make the objects from number `start` on, lens or not as `lenses` says."""
    torch.set_num_threads(1)  # so that sums have one order
    return [observe(settings, folder, start + i, bool(lens)) for i, lens in enumerate(lenses)]


def observe(settings: config.Simulate, folder: Path, number: int, is_lens: bool) -> Row:
    """Draw one object, write its cutout, measure its catalogue row."""
    rng = np.random.default_rng([settings.seed, number])
    camera = mock.draw_camera(rng, settings.bands, settings.size, settings.pixel_scale)
    name, scene = ("lens", mock.draw_lens(rng, camera)) if is_lens else mock.draw_non_lens(rng)
    neighbours = mock.draw_neighbours(rng, settings.size * settings.pixel_scale / 2)
    flux = camera.expose([*scene.lights, *neighbours])
    if scene.lens:
        flux = flux + camera.expose(scene.sources, scene.lens)
    cutout = camera.record(rng, flux)
    identifier = f"MOCK{number:08d}"
    write_cutout(folder / f"{identifier}.fits", cutout, settings)
    return Row(identifier, int(is_lens), name, *photometry(cutout, settings), photo_z(rng, scene.z))


def photometry(cutout: np.ndarray, settings: config.Simulate) -> tuple[float, float]:
    """Aperture magnitude in the i band and colour g - i, or the nearest bands there are; NaN below zero flux."""
    axis = (np.arange(settings.size) - (settings.size - 1) / 2) * settings.pixel_scale
    aperture = np.hypot(axis[:, None], axis[None, :]) < APERTURE_ARCSEC
    flux = dict(zip(settings.bands, cutout[:, aperture].sum(axis=1), strict=True))
    magnitude = {
        band: mock.ZERO_POINT - 2.5 * math.log10(value) if value > 0 else math.nan for band, value in flux.items()
    }
    red = magnitude.get("i", magnitude[settings.bands[-1]])
    return red, magnitude.get("g", magnitude[settings.bands[0]]) - red


def photo_z(rng: np.random.Generator, z: float) -> float:
    """Photometric redshift: scattered, sometimes far off, sometimes missing."""
    scatter = rng.normal(0, PHOTO_Z_SCATTER * (1 + z))
    measured = rng.uniform(0.05, 1.2) if rng.uniform() < PHOTO_Z_OUTLIERS else max(z + scatter, 0.01)
    return math.nan if rng.uniform() < PHOTO_Z_MISSING else measured


def write_cutout(path: Path, cutout: np.ndarray, settings: config.Simulate) -> None:
    """One FITS file with a plane a band."""
    header = fits.Header()
    header["BANDS"] = (",".join(settings.bands), "planes, in this order")
    header["PIXSCALE"] = (settings.pixel_scale, "arcsec/px")
    header["MAGZERO"] = (mock.ZERO_POINT, "AB magnitude of one flux unit")
    fits.PrimaryHDU(cutout, header).writeto(path)


def write_catalogue(path: Path, rows: list[Row], settings: config.Simulate) -> None:
    """CSV with an empty cell for a value that could not be measured."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "is_lens", "class", "mag_i", "color_gi", "photo_z"])
        for row in rows:
            numbers = ["" if math.isnan(value) else f"{value:.4f}" for value in row[3:]]
            writer.writerow([*row[:3], *numbers])


def recipe(settings: config.Simulate) -> str:
    """The recipe that packs this survey."""
    columns = {"id": "id", "label": "is_lens", "features": ["mag_i", "color_gi", "photo_z"]}
    layout = {
        "name": "mock",
        "catalogue": "catalogue.csv",
        "columns": columns,
        "images": "cutouts/{id}.fits",
        "bands": list(settings.bands),
        "pixel_scale": settings.pixel_scale,
        "units": f"flux, AB magnitude {mock.ZERO_POINT} is 1",
        "seed": settings.seed,
    }
    return "# Made by lens-hpc simulate.\n" + yaml.safe_dump(layout, sort_keys=False)
