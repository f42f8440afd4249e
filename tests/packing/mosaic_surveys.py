"""Small surveys whose pixels lie in mosaics, for tests."""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lens_hpc.packing.recipe import Recipe

Projection = Literal["TAN", "SIP", "TPV"]
Storage = Literal["plain", "gzip", "rice", "gzip_1"]

SCALE_ARCSEC = 0.2
ENDINGS = {"plain": "fits", "gzip": "fits.gz", "rice": "fits.fz", "gzip_1": "fits.fz"}


def make_header(
    shape: tuple[int, int],
    centre: tuple[float, float] = (150.1, 2.2),
    projection: Projection = "TAN",
    scale_arcsec: float = SCALE_ARCSEC,
    angle_degrees: float = 0.0,
) -> fits.Header:
    """Return the header of a mosaic around a point of the sky, with or without distortions."""
    scale = scale_arcsec / 3600
    angle = np.radians(angle_degrees)
    header = fits.Header()
    kind = {"TAN": "TAN", "SIP": "TAN-SIP", "TPV": "TPV"}[projection]
    for axis, name in ((1, "RA--"), (2, "DEC-")):
        header[f"CTYPE{axis}"] = f"{name}-{kind}"
        header[f"CUNIT{axis}"] = "deg"
        header[f"CRVAL{axis}"] = centre[axis - 1]
        header[f"CRPIX{axis}"] = (shape[2 - axis] + 1) / 2
    header["CD1_1"], header["CD1_2"] = -scale * np.cos(angle), scale * np.sin(angle)
    header["CD2_1"], header["CD2_2"] = scale * np.sin(angle), scale * np.cos(angle)
    header["RADESYS"] = "ICRS"

    if projection == "SIP":
        header["A_ORDER"] = header["B_ORDER"] = 2
        header["A_2_0"], header["A_1_1"], header["B_0_2"] = 2e-5, -1e-5, 3e-5
    if projection == "TPV":
        for axis in (1, 2):
            header[f"PV{axis}_1"] = 1.0
            header[f"PV{axis}_4"] = 0.3
            header[f"PV{axis}_6"] = -0.2
    return header


def write_mosaic(
    path: Path,
    pixels: np.ndarray,
    header: fits.Header,
    storage: Storage = "plain",
    more: Sequence[Any] = (),
    **compression: Any,
) -> Path:
    """Write one mosaic, and more HDUs after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if storage in ("rice", "gzip_1"):
        kind = {"rice": "RICE_1", "gzip_1": "GZIP_1"}[storage]
        image = fits.CompImageHDU(pixels, header, compression_type=kind, **compression)
        fits.HDUList([fits.PrimaryHDU(), image, *more]).writeto(path)
        return path

    plain = path.with_suffix(".plain")
    fits.HDUList([fits.PrimaryHDU(pixels, header), *more]).writeto(plain)
    if storage == "gzip":
        path.write_bytes(gzip.compress(plain.read_bytes(), 1))
        plain.unlink()
        return path
    return plain.rename(path)


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Return pixels that all differ."""
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def make_recipe(**settings: Any) -> Recipe:
    """Return a recipe of mosaics in folders of tiles, in bands g and r."""
    recipe: dict[str, Any] = {
        "name": "survey",
        "catalogue": "catalogue.csv",
        "mosaics": {"path": "{tile}/{band}.fits"},
        "bands": ["g", "r"],
        "size": [16, 16],
        "pixel_scale": SCALE_ARCSEC,
        "units": "nJy",
    }
    return Recipe.model_validate(recipe | settings)


def positions_in(
    header: Mapping[str, Any], shape: tuple[int, int], count: int, seed: int = 0, beyond: float = 0
) -> np.ndarray:
    """Return positions at random points of a mosaic, or so many pixels beyond its edges: (N, 2)."""
    rng = np.random.default_rng(seed)
    low = -0.5 - beyond
    x = rng.uniform(low, shape[1] - 0.5 + beyond, count)
    y = rng.uniform(low, shape[0] - 0.5 + beyond, count)
    return np.stack(WCS(header).all_pix2world(x, y, 0), axis=1)
