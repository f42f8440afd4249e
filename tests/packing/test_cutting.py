"""Cutting, against astropy's Cutout2D."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from astropy.wcs.utils import skycoord_to_pixel

from lens_hpc.packing.cutting import CutoutBatch, open_tile
from lens_hpc.packing.image_formats import BadCutoutError
from lens_hpc.packing.mosaic_files import MosaicPlane
from lens_hpc.workers import make_pool
from tests.packing.mosaic_surveys import (
    ENDINGS,
    SCALE_ARCSEC,
    Projection,
    Storage,
    make_header,
    make_recipe,
    noise,
    positions_in,
    write_mosaic,
)

SHAPE = (250, 300)
MEMORY_BYTES = 1 << 28


def write_tile(folder: Path, header: fits.Header, storage: Storage = "plain") -> list[Path]:
    """Write a tile in two bands."""
    return [
        write_mosaic(folder / f"{band}.{ENDINGS[storage]}", noise(SHAPE, seed), header, storage)
        for seed, band in enumerate("gr")
    ]


def cut(paths: list[Path], positions: np.ndarray, **settings: Any) -> np.ndarray:
    """Return all cutouts of a tile in the order of the positions."""
    memory_bytes = settings.pop("memory_bytes", MEMORY_BYTES)
    with open_tile(make_recipe(**settings), paths, memory_bytes) as tile:
        batches = list(tile.cut(positions, batch_size=64))
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(len(positions)))
    return np.concatenate([batch.pixels for batch in batches])[np.argsort(rows)]


def cut_by_astropy(paths: list[Path], positions: np.ndarray, size: list[int]) -> np.ndarray:
    """Return the cutouts that astropy makes one by one, NaN beyond the edges."""
    cutouts = np.empty((len(positions), len(paths), *size), np.float32)
    for band, path in enumerate(paths):
        with fits.open(path) as hdus:
            hdu = next(hdu for hdu in hdus if hdu.shape)
            data, wcs = hdu.data, WCS(hdu.header)
        # As Cutout2D would do for each: it copies the WCS every time, which takes long.
        places = skycoord_to_pixel(SkyCoord(*positions.T, unit="deg"), wcs, mode="all")
        for number, place in enumerate(zip(*places, strict=True)):
            cutout = Cutout2D(data, place, size, mode="partial", fill_value=np.nan)
            cutouts[number, band] = cutout.data
    return cutouts


CENTRES = {
    "sky": (150.1, 2.2),
    "ra 0": (0.0001, -30.0),
    "north pole": (10.0, 89.9999),
    "south pole": (200.0, -89.9995),
}


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["plain", "gzip", "rice", "gzip_1"])
@pytest.mark.parametrize("projection", ["TAN", "SIP", "TPV"])
def test_every_pixel_is_that_of_astropy(
    tmp_path: Path, projection: Projection, storage: Storage
) -> None:
    header = make_header(SHAPE, CENTRES["sky"], projection)
    paths = write_tile(tmp_path, header, storage)
    positions = positions_in(header, SHAPE, 170)
    for size in ([16, 16], [15, 22]):
        expected = cut_by_astropy(paths, positions, size)
        np.testing.assert_array_equal(cut(paths, positions, size=size), expected)
        assert np.isnan(expected).any()


@pytest.mark.parametrize("centre", CENTRES.values(), ids=CENTRES)
@pytest.mark.parametrize("angle", [0, 33])
@pytest.mark.parametrize("projection", ["TAN", "SIP", "TPV"])
def test_every_pixel_is_that_of_astropy_all_over_the_sky(
    tmp_path: Path, centre: tuple[float, float], angle: float, projection: Projection
) -> None:
    header = make_header(SHAPE, centre, projection, angle_degrees=angle)
    paths = write_tile(tmp_path, header)
    positions = positions_in(header, SHAPE, 60)
    np.testing.assert_array_equal(cut(paths, positions), cut_by_astropy(paths, positions, [16, 16]))


@pytest.mark.parametrize("frame", ["FK5", "FK4", "galactic"])
def test_coordinates_of_another_system_are_converted(tmp_path: Path, frame: str) -> None:
    header = make_header(SHAPE)
    if frame == "galactic":
        header["CTYPE1"], header["CTYPE2"] = "GLON-TAN", "GLAT-TAN"
        del header["RADESYS"]
    else:
        header["RADESYS"] = frame
        header["EQUINOX"] = 2000.0 if frame == "FK5" else 1950.0
    paths = write_tile(tmp_path, header)

    wcs = WCS(header)
    x, y = np.random.default_rng(0).uniform(0, 250, (2, 40))
    icrs = wcs.pixel_to_world(x, y).icrs
    positions = np.stack([icrs.ra.deg, icrs.dec.deg], axis=1)
    np.testing.assert_array_equal(cut(paths, positions), cut_by_astropy(paths, positions, [16, 16]))


def test_a_header_may_name_the_declination_first(tmp_path: Path) -> None:
    header = make_header(SHAPE)
    positions = positions_in(header, SHAPE, 40)
    expected = cut(write_tile(tmp_path / "usual", header), positions)

    for word in ("CTYPE", "CRVAL", "CUNIT"):
        header[f"{word}1"], header[f"{word}2"] = header[f"{word}2"], header[f"{word}1"]
    for axis in "12":
        first, second = header[f"CD1_{axis}"], header[f"CD2_{axis}"]
        header[f"CD1_{axis}"], header[f"CD2_{axis}"] = second, first
    swapped = cut(write_tile(tmp_path / "swapped", header), positions)
    np.testing.assert_array_equal(swapped, expected)


@pytest.mark.parametrize("projection", ["TAN", "SIP", "TPV"])
def test_a_cutout_does_not_depend_on_those_beside_it(
    tmp_path: Path, projection: Projection
) -> None:
    header = make_header(SHAPE, projection=projection)
    paths = write_tile(tmp_path, header)
    positions = positions_in(header, SHAPE, 30)
    together = cut(paths, positions)
    for number in range(len(positions)):
        np.testing.assert_array_equal(cut(paths, positions[[number]])[0], together[number])


# ---- batches, strips and what is read ----


def test_batches_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    header = make_header(SHAPE)
    paths = write_tile(tmp_path, header)
    positions = positions_in(header, SHAPE, 100)
    with open_tile(make_recipe(), paths, MEMORY_BYTES) as tile:
        batches = list(tile.cut(positions, batch_size=40))
    assert [batch.rows.tolist() for batch in batches] == [
        list(range(40)),
        list(range(40, 80)),
        list(range(80, 100)),
    ]
    assert all(batch.pixels.dtype == np.float32 for batch in batches)
    assert all(batch.pixels.flags.c_contiguous for batch in batches)


@pytest.mark.parametrize("compressed_tile", [(1, 300), (40, 70)])
@pytest.mark.parametrize("rows_in_memory", [1, 20, 100, 249])
def test_strips_give_the_pixels_of_the_whole(
    tmp_path: Path, rows_in_memory: int, compressed_tile: tuple[int, int]
) -> None:
    header = make_header(SHAPE)
    path = tmp_path / "g.fits"
    write_mosaic(path, noise(SHAPE), header, "rice", tile_shape=compressed_tile)
    positions = positions_in(header, SHAPE, 100, beyond=30)
    few = {"bands": ["g"], "memory_bytes": rows_in_memory * SHAPE[1] * 4}
    np.testing.assert_array_equal(
        cut([path], positions, **few), cut([path], positions, bands=["g"])
    )


@pytest.mark.parametrize("rows_in_memory", [20, 100, 250])
def test_no_more_of_a_compressed_mosaic_is_held_than_allowed(
    tmp_path: Path, rows_in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = make_header(SHAPE)
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), header, "rice")
    held: list[int] = []
    original = MosaicPlane.decompress

    def noting(self: MosaicPlane, start: int, is_needed: np.ndarray) -> np.ndarray:
        strip = original(self, start, is_needed)
        held.append(len(strip))
        return strip

    monkeypatch.setattr(MosaicPlane, "decompress", noting)
    memory_bytes = rows_in_memory * SHAPE[1] * 4
    cut([path], positions_in(header, SHAPE, 100), bands=["g"], memory_bytes=memory_bytes)
    assert max(held) <= rows_in_memory
    assert sum(held) >= SHAPE[0] - 1


def test_of_a_compressed_mosaic_only_the_rows_that_are_needed_are_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = make_header(SHAPE)
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), header, "rice")
    positions = np.stack(WCS(header).all_pix2world([50, 60, 70], [30, 35, 200], 0), axis=1)

    read: list[tuple[int, int]] = []
    section = fits.CompImageHDU.section.fget(fits.open(path)[1]).__class__
    original = section.__getitem__

    def noting(self: Any, index: Any) -> Any:
        if index is not Ellipsis:
            read.append((index[-1].start, index[-1].stop))
        return original(self, index)

    monkeypatch.setattr(section, "__getitem__", noting)
    cut([path], positions, bands=["g"])
    assert read == [(22, 43), (192, 208)]


def _cut_in_worker(folder: Path) -> np.ndarray:
    header = make_header(SHAPE, projection="SIP")
    return cut(sorted(folder.glob("*.fz")), positions_in(header, SHAPE, 40))


def test_worker_processes_cut_the_same_pixels(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        write_tile(folder, make_header(SHAPE, projection="SIP"), "rice")
    expected = _cut_in_worker(folders[0])
    with make_pool(2, "fork") as pool:
        for found in pool.map(_cut_in_worker, folders):
            np.testing.assert_array_equal(found, expected)


# ---- pixels without measurement, units and zero points ----


def one_batch(paths: list[Path], positions: np.ndarray, **settings: Any) -> CutoutBatch:
    """Return the only batch of a tile in band g."""
    with open_tile(make_recipe(bands=["g"], **settings), paths, MEMORY_BYTES) as tile:
        (batch,) = tile.cut(positions, batch_size=1000)
    return batch


def position_of(header: fits.Header, x: float, y: float) -> np.ndarray:
    return np.stack(WCS(header).all_pix2world([x], [y], 0), axis=1)


def test_what_lies_beyond_the_edge_is_marked_and_measured(tmp_path: Path) -> None:
    header = make_header(SHAPE)
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), header)
    positions = np.concatenate(
        [
            position_of(header, *place)
            for place in [(99.8, 99.8), (-0.2, 99.8), (-0.2, -0.2), (-50, 0)]
        ]
        + [np.full((1, 2), np.nan), np.array([[20.0, -40.0]])]
    )
    batch = one_batch([path], positions)
    assert batch.edge_fraction.tolist() == [0, 0.5, 0.75, 1, 1, 1]
    assert batch.is_outside is not None
    np.testing.assert_array_equal(np.isnan(batch.pixels), batch.is_outside)


@pytest.mark.parametrize("storage", ["plain", "rice"])
@pytest.mark.parametrize(
    ("flags", "condition", "is_bad"),
    [
        (np.int16, "!= 0", [False, True, True]),
        (np.uint16, "& 4", [False, False, True]),
        (np.uint8, "& 3", [False, True, False]),
        (np.float32, "> 2", [False, False, True]),
    ],
)
def test_masks_of_another_hdu_count(
    tmp_path: Path, storage: Storage, flags: type, condition: str, is_bad: list[bool]
) -> None:
    header = make_header(SHAPE)
    mask = np.zeros(SHAPE, flags)
    mask[100, 100:103] = [0, 1, 4]
    flag_hdu = fits.ImageHDU(mask, name="FLAGS")
    if storage == "rice":
        flag_hdu = fits.CompImageHDU(mask, name="FLAGS", compression_type="GZIP_1")
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), header, storage, [flag_hdu])

    masks = {"hdu": "FLAGS", "bad": condition}
    batch = one_batch([path], position_of(header, 101, 100), size=[1, 3], masks=masks)
    assert np.isnan(batch.pixels[0, 0, 0]).tolist() == is_bad
    assert batch.is_outside is None


def test_one_image_for_two_bands_is_refused(tmp_path: Path) -> None:
    path = write_mosaic(tmp_path / "a.fits", noise(SHAPE), make_header(SHAPE))
    with pytest.raises(BadCutoutError, match=r"same image for the bands g and r; give each"):
        cut([path, path], np.zeros((1, 2)))


def test_bands_may_lie_in_one_file(tmp_path: Path) -> None:
    header = make_header(SHAPE)
    more = [fits.ImageHDU(noise(SHAPE, 7), header, name="r_SCI")]
    path = write_mosaic(tmp_path / "a.fits", noise(SHAPE), header, "rice", more)
    found = cut([path, path], positions_in(header, SHAPE, 5, beyond=-20), hdu={"g": 1, "r": 2})
    assert found.shape == (5, 2, 16, 16)
    assert (found[:, 0] != found[:, 1]).any()


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    more = [fits.ImageHDU(np.zeros((3, 3), np.int16), name="FLAGS")]
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), make_header(SHAPE), more=more)
    with pytest.raises(BadCutoutError, match=r"g\.fits\[1\]: the mask has \(3, 3\) pixels"):
        one_batch([path], np.zeros((1, 2)), masks={"hdu": "FLAGS"})


def test_the_word_for_no_measurement_is_taken_before_units_are_changed(tmp_path: Path) -> None:
    header = make_header(SHAPE)
    header["MAGZERO"] = 25.0
    pixels = noise(SHAPE)
    pixels[100, 100:102] = -99, -99 / 10
    path = write_mosaic(tmp_path / "g.fits", pixels, header)
    batch = one_batch(
        [path],
        position_of(header, 101, 100),
        size=[1, 3],
        bad_pixels={"mask": -99},
        mosaics={"path": "{tile}", "zero_point": "MAGZERO"},
        zero_point=27.5,
    )
    np.testing.assert_allclose(
        batch.pixels[0, 0, 0], [np.nan, -99, 10 * pixels[100, 102]], rtol=1e-6
    )


@pytest.mark.parametrize("value", [None, "bright", float("inf")])
def test_a_zero_point_that_a_file_lacks_is_told(tmp_path: Path, value: object) -> None:
    header = make_header(SHAPE)
    if isinstance(value, str):
        header["MAGZERO"] = value
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), header)
    with pytest.raises(BadCutoutError, match=r"g\.fits\[0\]: its header has no number MAGZERO"):
        one_batch(
            [path],
            np.zeros((1, 2)),
            mosaics={"path": "{tile}", "zero_point": "MAGZERO"},
            zero_point=25,
        )


@pytest.mark.parametrize("storage", ["plain", "rice"])
def test_whole_numbers_are_scaled_and_blank_ones_are_nothing(
    tmp_path: Path, storage: Storage
) -> None:
    header = make_header(SHAPE)
    pixels = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    pixels[100, 100] = -1
    path = write_mosaic(tmp_path / "g.fits", pixels, header, storage)
    with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
        words = hdus[-1]._bintable.header if storage == "rice" else hdus[0].header
        words["BSCALE"], words["BZERO"], words["BLANK"] = 0.5, 100.0, -1
    batch = one_batch([path], position_of(header, 101, 100), size=[1, 3])
    expected = [np.nan, *(pixels[100, 101:103] * 0.5 + 100)]
    np.testing.assert_allclose(batch.pixels[0, 0, 0], expected)


# ---- bands with wider pixels ----


@pytest.mark.parametrize("keeps", ["flux", "surface_brightness"])
def test_a_band_with_wide_pixels_is_put_where_the_sky_is(tmp_path: Path, keeps: str) -> None:
    fine_shape, wide_shape = (240, 300), (100, 110)
    fine = make_header(fine_shape)
    # It has a pixel scale and a corner of its own.
    wide = make_header(wide_shape, scale_arcsec=3 * SCALE_ARCSEC)
    wide["CRPIX1"] += 0.4

    def slope(header: fits.Header, shape: tuple[int, int]) -> np.ndarray:
        y, x = np.mgrid[: shape[0], : shape[1]]
        ra, dec = WCS(header).all_pix2world(x, y, 0)
        return ((ra - 150.1) * 2e4 + (dec - 2.2) * 1e4).astype(np.float32)

    sky = slope(fine, fine_shape)
    paths = [write_mosaic(tmp_path / "g.fits", sky, fine)]
    paths.append(write_mosaic(tmp_path / "r.fits", slope(wide, wide_shape), wide))
    positions = positions_in(fine, fine_shape, 50, beyond=-20)
    scale = {"g": SCALE_ARCSEC, "r": 3 * SCALE_ARCSEC}
    found = cut(paths, positions, pixel_scale=scale, resampling=keeps)

    # A slope over wide pixels is a staircase, whose steps are as high as those of three fine ones.
    expected = found[:, 0] if keeps == "surface_brightness" else found[:, 0] / 9
    step = 3 * np.abs(np.diff(sky, axis=1)).max() + 3 * np.abs(np.diff(sky, axis=0)).max()
    apart = found[:, 1] - expected
    assert np.abs(apart).max() < step
    assert np.abs(apart.mean(axis=(1, 2))).max() < step / 10


def test_bands_of_one_scale_may_begin_elsewhere(tmp_path: Path) -> None:
    header = make_header(SHAPE)
    pixels = noise(SHAPE)
    path = write_mosaic(tmp_path / "g.fits", pixels, header)
    header["CRPIX1"] -= 7
    header["CRPIX2"] -= 20
    part = write_mosaic(tmp_path / "r.fits", pixels[20:, 7:].copy(), header)
    positions = positions_in(header, (200, 250), 40, beyond=-20)
    found = cut([path, part], positions)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize("shape", [SHAPE, (200, 300)])
def test_bands_that_are_turned_against_each_other_are_refused(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    path = write_mosaic(tmp_path / "g.fits", noise(SHAPE), make_header(SHAPE))
    turned = make_header(shape, angle_degrees=0.5)
    other = write_mosaic(tmp_path / "r.fits", noise(shape), turned)
    with pytest.raises(BadCutoutError, match=r"r\.fits\[0\]: .* pixels from where .*g\.fits"):
        cut([path, other], np.zeros((1, 2)))
