"""Paints scenes of benchmarks/inject.py with lenstronomy, in an environment that has it.

    PYTHON inject_lenstronomy.py FOLDER RAYS_PER_SIDE

It reads FOLDER/scenes.json and psf.npy, writes FOLDER/pictures.npy, and prints arcs per second of
processor time.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel

SIZE = 64
PIXEL_SCALE = 0.168


def main(folder: Path, rays_per_side: int) -> None:
    """Paint all scenes, each of them anew, as one does who paints each arc once."""
    scenes = json.loads((folder / "scenes.json").read_text())
    psfs = [PSF("PIXEL", kernel_point_source=stamp) for stamp in np.load(folder / "psf.npy")]
    numerics = {"supersampling_factor": rays_per_side, "supersampling_convolution": False}
    models = [LightModel(["SERSIC_ELLIPSE"] * count) for count in range(1, 6)]
    lens = LensModel(["SIE", "SHEAR"])
    paint(scenes[0], psfs, lens, models, numerics)

    start = time.process_time()
    pictures = [paint(scene, psfs, lens, models, numerics) for scene in scenes]
    print(len(scenes) / (time.process_time() - start))
    np.save(folder / "pictures.npy", np.stack(pictures))


def paint(
    scene: dict, psfs: list[PSF], lens: LensModel, models: list[LightModel], numerics: dict
) -> np.ndarray:
    """Return the arcs in each band, (bands, SIZE, SIZE)."""
    corner = -(SIZE - 1) / 2 * PIXEL_SCALE
    data = ImageData(
        image_data=np.zeros((SIZE, SIZE)),
        ra_at_xy_0=corner,
        dec_at_xy_0=corner,
        transform_pix2angle=np.eye(2) * PIXEL_SCALE,
    )
    light = models[len(scene["sources"]) - 1]
    units = [source | {"amp": 1.0} for source in scene["sources"]]
    totals = np.array(light.total_flux(units))
    fluxes = np.array(scene["fluxes"])

    pictures = []
    for band, psf in enumerate(psfs):
        amplitudes = fluxes[:, band] / totals
        sources = [
            source | {"amp": amplitude}
            for source, amplitude in zip(scene["sources"], amplitudes, strict=True)
        ]
        model = ImageModel(data, psf, lens, source_model_class=light, kwargs_numerics=numerics)
        pictures.append(model.image(kwargs_lens=scene["lens"], kwargs_source=sources))
    return np.stack(pictures)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
