"""A labelled mock survey on disk: cutouts, a catalogue, the truth, and the recipe that packs.

Every object is a function of the survey's seed and its own number alone. The catalogue holds what a
survey would measure on other images of the object, never the truth of the simulation: that lies in
a table of its own, which the recipe does not name.
"""

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
import yaml
from astropy.io import fits

from lens_hpc import files
from lens_hpc.holding import held
from lens_hpc.progress import Progress
from lens_hpc.sky.camera import Camera, draw_camera
from lens_hpc.sky.galaxies import Scene, draw_neighbours
from lens_hpc.sky.impostors import draw_non_lens
from lens_hpc.sky.lenses import VisibleLens, draw_lens
from lens_hpc.sky.light import Light
from lens_hpc.sky.photometry import Measured, measure
from lens_hpc.sky.surveys import ZERO_POINT, ImagingSurvey
from lens_hpc.workers import make_pool

OBJECTS_PER_TASK = 25
T = TypeVar("T")

CUTOUTS = "cutouts"
CATALOGUE = "catalogue.csv"
TRUTH = "truth.csv"
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class SurveyDesign:
    """What determines every byte of a mock survey."""

    survey: ImagingSurvey
    """What its images are like."""
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
    """Filters of each cutout, in this order: some of those that the survey has."""


@dataclass(frozen=True)
class MockSurvey:
    """A mock survey that was made."""

    folder: Path
    objects: int
    lenses: int
    """How many of the objects are lenses."""
    tiles: int = 0
    """Number of tiles; 0 where the images are cutouts."""


def make_mock_survey(out: Path, design: SurveyDesign, processes: int) -> MockSurvey:
    """Write OUT/cutouts/*.fits, OUT/catalogue.csv, OUT/truth.csv and OUT/recipe.yaml.

    The new folder `out` appears when all are complete. The number of worker processes changes
    nothing but the time. Raise UserError if `out` exists, or if the cutouts can show no lens.
    """
    with held(files.final_name(out)), files.whole_folder(out) as folder:
        cutouts = folder / CUTOUTS
        cutouts.mkdir()
        with workers(processes) as pool:
            make = partial(_observe, design, cutouts)
            rows = make_objects(pool, make, range(design.objects), draw_labels(design))
        _write_catalogue(folder / CATALOGUE, rows)
        write_truth(folder / TRUTH, rows)
        images = {"images": f"{CUTOUTS}/{{id}}.fits"}
        write_recipe(folder / RECIPE, design, CATALOGUE, images, kept=["class"])

    lenses = sum(row.is_lens for row in rows)
    return MockSurvey(out, len(rows), lenses)


# ---- objects ----


class _Truth(NamedTuple):
    """What the simulation knows of a lens."""

    z_lens: float
    sigma_v: float
    """Velocity dispersion of the lens, km/s."""
    z_source: float
    einstein_radius: float
    """Arcsec."""
    magnification: float
    source_mag_i: float
    """Magnitude of the source in i, without lensing."""
    arc_signal_to_noise: float
    """Of all its images together, in the band of the cutout where it is highest."""


class ObjectRow(NamedTuple):
    """One object in the tables."""

    id: str
    object_class: str
    measured: Measured
    truth: _Truth | None
    """None where the object is no lens."""

    @property
    def is_lens(self) -> int:
        """The label: 1 for a lens, 0 for another object."""
        return int(self.truth is not None)


class DrawnObject(NamedTuple):
    """One object on the sky."""

    object_class: str
    scene: Scene
    neighbours: tuple[Light, ...]
    """Galaxies that happen to lie around it."""
    truth: _Truth | None

    def crowded_scene(self) -> Scene:
        """Return the scene with its neighbours."""
        return replace(self.scene, lights=(*self.scene.lights, *self.neighbours))


def draw_labels(design: SurveyDesign) -> list[bool]:
    """Draw which objects of the survey are lenses, (objects,)."""
    is_lens = np.zeros(design.objects, dtype=bool)
    lenses = round(design.objects * design.prevalence)
    is_lens[:lenses] = True
    np.random.default_rng([design.seed]).shuffle(is_lens)
    return is_lens.tolist()


def draw_object(
    rng: np.random.Generator, design: SurveyDesign, camera: Camera, is_lens: bool
) -> DrawnObject:
    """Draw one object, a lens or not, that this camera would show."""
    lens = draw_lens(rng, camera, design.survey)
    if is_lens:
        object_class, scene = "lens", lens.scene()
    else:
        object_class, scene = draw_non_lens(rng, lens)

    half_width = design.size * design.pixel_scale / 2
    neighbours = draw_neighbours(rng, half_width)
    truth = _truth(lens) if is_lens else None
    return DrawnObject(object_class, scene, tuple(neighbours), truth)


def _observe(design: SurveyDesign, folder: Path, number: int, is_lens: bool) -> ObjectRow:
    """Draw one object, write its cutout, and measure its catalogue row."""
    rng = np.random.default_rng([design.seed, number])
    camera = draw_camera(rng, design.survey, design.bands, design.size, design.pixel_scale)
    drawn = draw_object(rng, design, camera, is_lens)
    scene = drawn.crowded_scene()
    cutout = camera.record(rng, scene.expose(camera))

    identifier = f"MOCK{number:08d}"
    _write_cutout(folder / f"{identifier}.fits", cutout, design)
    return ObjectRow(identifier, drawn.object_class, measure(rng, scene), drawn.truth)


def _truth(lens: VisibleLens) -> _Truth:
    return _Truth(
        z_lens=lens.galaxy.z,
        sigma_v=lens.galaxy.sigma_v,
        z_source=lens.z_source,
        einstein_radius=lens.mass.theta_e,
        magnification=lens.magnification,
        source_mag_i=lens.source_mag_i(),
        arc_signal_to_noise=lens.signal_to_noise,
    )


# ---- worker processes ----


@contextmanager
def workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Yield worker processes. After an error in one task the others are not waited for."""
    with make_pool(processes, "spawn", _use_one_thread) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    """Keep torch to one thread in a worker, so that sums are always added in the same order."""
    torch.set_num_threads(1)


def make_objects(
    pool: ProcessPoolExecutor, make: Callable[..., T], *arguments: Sequence[Any]
) -> list[T]:
    """Return what `make` makes of the arguments of each object, in their order."""
    made = []
    with Progress(len(arguments[0]), "simulate", "objects") as progress:
        for each in pool.map(make, *arguments, chunksize=OBJECTS_PER_TASK):
            made.append(each)
            progress.update(1)
    return made


# ---- files ----


def _write_cutout(path: Path, cutout: np.ndarray, design: SurveyDesign) -> None:
    """Write a FITS file with a plane for each band."""
    header = fits.Header()
    header["BANDS"] = (",".join(design.bands), "planes, in this order")
    header["PIXSCALE"] = (design.pixel_scale, "arcsec/px")
    header["MAGZERO"] = (ZERO_POINT, "AB magnitude of one flux unit")
    fits.PrimaryHDU(cutout, header).writeto(path)


def _write_catalogue(path: Path, rows: list[ObjectRow]) -> None:
    """Write what a survey would know, and the label."""
    lines = [[row.id, row.is_lens, row.object_class, *_cells(row.measured)] for row in rows]
    _write_table(path, ["id", "is_lens", "class", *Measured._fields], lines)


def write_truth(path: Path, rows: list[ObjectRow]) -> None:
    """Write what the simulation knows of each lens."""
    lines = [[row.id, *_cells(row.truth)] for row in rows if row.truth]
    _write_table(path, ["id", *_Truth._fields], lines)


def _cells(values: Iterable[float]) -> list[str]:
    """Return the text of each value, empty for one that could not be measured."""
    return ["" if math.isnan(value) else f"{value:.4f}" for value in values]


def _write_table(path: Path, names: list[str], lines: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(lines)


def write_recipe(
    path: Path,
    design: SurveyDesign,
    catalogue: str,
    images: dict[str, Any],
    kept: list[str],
) -> None:
    """Write the recipe that packs this survey; `images` are its settings that say where they lie.

    All but these are the same for cutouts and mosaics, so that models of one can score the other.
    """
    recipe = {
        "name": "mock",
        "catalogue": catalogue,
        "columns": {
            "id": "id",
            "label": "is_lens",
            "features": list(Measured._fields),
            "keep": kept,
        },
        **images,
        "bands": list(design.bands),
        "pixel_scale": design.pixel_scale,
        "units": f"flux, AB magnitude {ZERO_POINT} is 1",
        "zero_point": ZERO_POINT,
        "gain": design.survey.gain,
        "seed": design.seed,
    }
    text = "# Made by lens-hpc simulate.\n" + yaml.safe_dump(recipe, sort_keys=False)
    path.write_text(text, encoding="utf-8")
