"""How many arcs are painted a second, and how exactly?

    python benchmarks/inject.py [scenes=100] [lenstronomy=PYTHON]

The scenes are those of `lens-hpc inject`: an isothermal ellipsoid with shear, a disc with one to
four clumps, cutouts of 64 x 64 pixels of 0.168 arcsec in three bands, each with its PSF. What is
printed: arcs per second of one core's processor time, how far the magnification lies off that with
far more rays, and the largest difference of a pixel, as a share of the peak.

With the Python of an environment that has lenstronomy, it paints the same scenes, in turn with us,
with its rays along the side of a pixel as given, and its pixels are compared with ours.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lens_hpc.sky import rays  # noqa: E402
from lens_hpc.sky.arcs import Arcs, paint_arcs  # noqa: E402
from lens_hpc.sky.injection import HostGalaxy, Injection, draw_injection  # noqa: E402
from lens_hpc.sky.laws import DeflectorLaw, SourceLaw, SourceValue, ValueLaw  # noqa: E402
from lens_hpc.sky.psf import moffat_stamp, pad_stamps  # noqa: E402

BANDS = ("g", "r", "i")
SIZE = 64
PIXEL_SCALE = 0.168
SEEING = (0.77, 0.76, 0.58)
ZERO_POINT = 27.0
ROUNDS = 3
LENSTRONOMYS_RAYS = (3, 5)
PAINTER = Path(__file__).with_name("inject_lenstronomy.py")

DEFLECTOR = DeflectorLaw(einstein_radius=ValueLaw(uniform=(0.8, 1.8)), z_lens=ValueLaw(fixed=0.5))
SOURCES = SourceLaw(
    z=SourceValue(fixed=2.0),
    magnitude=SourceValue(normal=(24.4, 0.7)),
    band="i",
    colors={"g": SourceValue(fixed=0.5), "r": SourceValue(fixed=0.2)},
)


def main(*settings: str) -> None:
    """Print our rate and exactness, and lenstronomy's beside them."""
    given = dict(setting.split("=") for setting in settings)
    torch.set_num_threads(1)
    psf = pad_stamps([moffat_stamp(fwhm, PIXEL_SCALE) for fwhm in SEEING])
    scenes = draw_scenes(int(given.get("scenes", 100)))
    ours = [paint(scene, psf) for scene in scenes]

    their_rates: dict[int, list[float]] = {count: [] for count in LENSTRONOMYS_RAYS}
    our_rates = []
    for _ in range(ROUNDS):
        our_rates.append(our_rate(scenes, psf))
        if "lenstronomy" in given:
            for count, found in their_rates.items():
                rate, pictures = ask_lenstronomy(given["lenstronomy"], scenes, psf, count)
                found.append(rate)
        print(
            f"arcs/s: we {our_rates[-1]:.1f}",
            *(
                f"; lenstronomy, {count} x {count} rays a pixel {found[-1]:.1f}"
                for count, found in their_rates.items()
                if found
            ),
        )
    print(f"most of {ROUNDS} rounds: {max(our_rates):.1f} arcs a second and core")

    print("against far more rays:", compare(ours, paint_finely(scenes, psf)))
    if "lenstronomy" in given:
        theirs = [Arcs(picture, math.nan) for picture in pictures]
        print("against lenstronomy:  ", compare(ours, theirs))


def draw_scenes(number: int) -> list[Injection]:
    """Return lenses and sources, always the same ones."""
    rng = np.random.default_rng(0)
    host = HostGalaxy(x=0.03, y=-0.02, q=0.8, phi=0.4)
    return [draw_injection(rng, host, DEFLECTOR, SOURCES, BANDS) for _ in range(number)]


def fluxes(scene: Injection) -> np.ndarray:
    """Return the flux of each source in each band."""
    return 10 ** (-0.4 * (scene.magnitudes - ZERO_POINT))


def paint(scene: Injection, psf: np.ndarray) -> Arcs:
    """Return the arcs of a scene."""
    return paint_arcs(scene.lens, scene.sources, fluxes(scene), (SIZE, SIZE), PIXEL_SCALE, psf)


def our_rate(scenes: list[Injection], psf: np.ndarray) -> float:
    """Return arcs per second of processor time."""
    start = time.process_time()
    for scene in scenes:
        paint(scene, psf)
    return len(scenes) / (time.process_time() - start)


def paint_finely(scenes: list[Injection], psf: np.ndarray) -> list[Arcs]:
    """Return the arcs with a hundredth of the tolerance, and rays five times as close."""
    usual = rays.TOLERANCE, rays.RESOLUTION
    rays.TOLERANCE, rays.RESOLUTION = usual[0] / 100, usual[1] / 5
    painted = [paint(scene, psf) for scene in scenes[:30]]
    rays.TOLERANCE, rays.RESOLUTION = usual
    return painted


def compare(ours: list[Arcs], theirs: list[Arcs]) -> str:
    """Say by how much two differ at most."""
    pairs = list(zip(ours, theirs, strict=False))
    pixels = [np.abs(one.flux - other.flux).max() / other.flux.max() for one, other in pairs]
    flux = [abs(one.flux.sum() / other.flux.sum() - 1) for one, other in pairs]
    return (
        f"pixels differ by {max(pixels):.2%} of the peak at most, {np.median(pixels):.2%} "
        f"typically; flux by {max(flux):.2%} at most"
    )


# ---- lenstronomy ----


def ask_lenstronomy(
    python: str, scenes: list[Injection], psf: np.ndarray, rays_per_side: int
) -> tuple[float, np.ndarray]:
    """Return its arcs per second, and pictures (scenes, bands, SIZE, SIZE)."""
    described = [describe(scene) for scene in scenes]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "scenes.json").write_text(json.dumps(described))
        np.save(folder / "psf.npy", psf)
        command = [python, str(PAINTER), name, str(rays_per_side)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        return float(answer.stdout), np.load(folder / "pictures.npy")


def describe(scene: Injection) -> dict:
    """Return a scene in lenstronomy's words."""
    lens = scene.lens
    centre = {"center_x": lens.x, "center_y": lens.y}
    sie = {"theta_E": lens.theta_e, **ellipticity(lens.q, lens.phi), **centre}
    shear = {"gamma1": lens.gamma_1, "gamma2": lens.gamma_2, "ra_0": lens.x, "dec_0": lens.y}
    sources = [
        {
            # Its radius is the geometric mean of both axes, ours the major one.
            "R_sersic": source.radius * math.sqrt(source.q),
            "n_sersic": source.n,
            **ellipticity(source.q, source.phi),
            "center_x": source.x,
            "center_y": source.y,
        }
        for source in scene.sources
    ]
    return {"lens": [sie, shear], "sources": sources, "fluxes": fluxes(scene).tolist()}


def ellipticity(q: float, phi: float) -> dict[str, float]:
    """Return lenstronomy's two components."""
    size = (1 - q) / (1 + q)
    return {"e1": size * math.cos(2 * phi), "e2": size * math.sin(2 * phi)}


if __name__ == "__main__":
    main(*sys.argv[1:])
