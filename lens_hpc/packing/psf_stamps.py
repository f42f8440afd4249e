"""The PSF at a host, as its recipe says: a Moffat profile, or a stamp in a FITS file."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from astropy.io import fits
from scipy.ndimage import zoom

from lens_hpc.dataset.shards import file_crc32
from lens_hpc.errors import UserError
from lens_hpc.packing.cells import CatalogueTable
from lens_hpc.packing.damage import describe_damage
from lens_hpc.packing.injection_recipe import Psf, SeeingColumn
from lens_hpc.packing.templates import expand_template, template_fields
from lens_hpc.sky.psf import check_stamp, moffat_stamp, pad_stamps

STAMPS_KEPT = 1024
FINER = 8
"""By what factor a stamp is resampled to find its width."""


class HostPsf(NamedTuple):
    """The PSF of each band at one host."""

    stamps: np.ndarray
    """(bands, k, k), each of sum 1."""
    seeing: tuple[float, ...]
    """FWHM of each band, arcsec."""


def psf_at(
    psf: Mapping[str, Psf], bands: Sequence[str], pixel_scale: float, catalogue: Mapping[str, Any]
) -> HostPsf:
    """Return the PSF at a host with these catalogue values, in pixels of so many arcsec.

    Raises UserError for a FWHM that is none, and for a file that holds no stamp.
    """
    stamps = []
    seeing = []
    for band in bands:
        setting = psf[band]
        if isinstance(setting, str):
            stamp = read_stamp(stamp_file(setting, band, catalogue))
            fwhm = _width_of(stamp) * pixel_scale
        else:
            fwhm = _fwhm(setting, band, catalogue)
            stamp = _moffat(fwhm, pixel_scale)
        stamps.append(stamp)
        seeing.append(fwhm)

    return HostPsf(pad_stamps(stamps), tuple(seeing))


def _fwhm(setting: float | SeeingColumn, band: str, catalogue: Mapping[str, Any]) -> float:
    if not isinstance(setting, SeeingColumn):
        return setting

    column = setting.column
    fwhm = number_in(catalogue, column)
    if not 0 < fwhm < math.inf:
        raise UserError(
            f"psf.{band}: {column} = {fwhm} is no FWHM in arcsec; leave such hosts out, as in "
            f"where: {column} > 0"
        )
    return fwhm


def number_in(catalogue: Mapping[str, Any], column: str) -> float:
    """Return the value of a host in a column of numbers. Raises UserError where it is none."""
    try:
        return float(catalogue[column])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"its {column} is no number: {catalogue[column]!r}; name a column of numbers"
        ) from error


def stamp_checksums(
    psf: Mapping[str, Psf], bands: Sequence[str], catalogues: Iterable[Mapping[str, Any]]
) -> dict[str, str]:
    """Return the CRC-32 of each file with a stamp that these hosts need.

    Raises UserError for the first that holds none.
    """
    needed = set()
    for catalogue in catalogues:
        for band in bands:
            setting = psf[band]
            if isinstance(setting, str):
                needed.add(stamp_file(setting, band, catalogue))

    checksums = {}
    for file in sorted(needed):
        read_stamp(file)
        checksums[file] = file_crc32(Path(file))
    return checksums


def stamp_file(template: str, band: str, catalogue: Mapping[str, Any]) -> str:
    """Return the file with the stamp of a band at a host, whose name may hold catalogue values."""
    values = tuple((name, catalogue[name]) for name in template_fields(template))
    return _expanded(template, band, values)


@lru_cache(STAMPS_KEPT)
def _expanded(template: str, band: str, values: tuple[tuple[str, Any], ...]) -> str:
    columns = {name: pa.array([value]) for name, value in values}
    # A template without a column has a row, too.
    table = CatalogueTable(columns | {"": pa.array([0])}, columns)
    path = Path(expand_template(template, table, band)[0])
    return str(path.expanduser())


@lru_cache(STAMPS_KEPT)
def _moffat(fwhm: float, pixel_scale: float) -> np.ndarray:
    return moffat_stamp(fwhm, pixel_scale)


@lru_cache(STAMPS_KEPT)
def read_stamp(file: str) -> np.ndarray:
    """Return the first image of a FITS file as a PSF of sum 1, (k, k).

    Raises UserError for a file that cannot be read, and for an image that is no PSF.
    """
    try:
        with fits.open(file) as opened:
            images = [hdu.data for hdu in opened if hdu.is_image and hdu.data is not None]
    except Exception as error:  # astropy raises whatever it likes on a damaged file
        damage = describe_damage(file, error)
        raise UserError(f"{file}: cannot be read as the FITS stamp of a PSF: {damage}") from error
    if not images:
        raise UserError(f"{file}: has no image; a PSF is a stamp in a FITS image")

    stamp = np.asarray(images[0], dtype=np.float64)
    check_stamp(stamp, file)
    return stamp / stamp.sum()


def _width_of(stamp: np.ndarray) -> float:
    """Return the FWHM of a stamp: that of a circle as large as what is above half of its peak.

    *Unit: pixels*
    """
    fine = zoom(stamp, FINER, order=3, grid_mode=True, mode="grid-constant")
    area = (fine > fine.max() / 2).sum() / FINER**2
    return 2 * math.sqrt(area / math.pi)
