"""Packing from mosaics, by the real packing: the same as from stamps, and what goes wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS

from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.packing.packing import pack_survey
from lens_hpc.packing.recipe import PackSettings
from tests.packing.mosaic_surveys import (
    ENDINGS,
    SCALE_ARCSEC,
    Storage,
    make_header,
    noise,
    positions_in,
    write_mosaic,
)

SHAPE = (120, 150)
SIZE = 16
CENTRES = {"east": (150.1, 2.2), "west": (150.0, 2.2)}


def write_survey(folder: Path, storage: Storage = "plain", rows: int = 12) -> pd.DataFrame:
    """Write two tiles in two bands, and a catalogue of objects on them; return the catalogue."""
    tables = []
    for number, (tile, centre) in enumerate(CENTRES.items()):
        header = make_header(SHAPE, centre)
        for band_number, band in enumerate("gr"):
            pixels = noise(SHAPE, 10 * number + band_number)
            write_mosaic(folder / tile / f"{band}.{ENDINGS[storage]}", pixels, header, storage)
        ra, dec = positions_in(header, SHAPE, rows, seed=number, beyond=-SIZE).T
        tables.append(pd.DataFrame({"ra": ra, "dec": dec, "tile": tile}))

    catalogue = pd.concat(tables, ignore_index=True)
    catalogue.insert(0, "id", [f"obj{row}" for row in range(len(catalogue))])
    catalogue["is_lens"] = np.arange(len(catalogue)) % 2
    catalogue.to_csv(folder / "catalogue.csv", index=False)
    return catalogue


def pack(folder: Path, storage: Storage = "plain", **changes: Any) -> Dataset:
    """Pack the survey of a folder."""
    settings = {
        "name": "survey",
        "catalogue": "catalogue.csv",
        "mosaics": {"path": f"{{tile}}/{{band}}.{ENDINGS[storage]}"},
        "bands": ["g", "r"],
        "size": [SIZE, SIZE],
        "pixel_scale": SCALE_ARCSEC,
        "units": "nJy",
        "splits": {"train": 0.5, "val": 0.25, "test": 0.25},
        "source": folder,
        "output": folder / "out",
        "processes": 1,
        **changes,
    }
    pack_survey(PackSettings.model_validate(settings))
    return Dataset(settings["output"])


def images_by_id(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return the cutout of each id of all splits."""
    images = {}
    for split in dataset.values():
        stored = split.take("images", np.arange(len(split)))
        images |= zip(split.ids().tolist(), stored, strict=True)
    return images


def write_stamps(folder: Path, catalogue: pd.DataFrame, storage: Storage) -> None:
    """Cut the stamps of a survey of mosaics, by astropy."""
    for row in catalogue.itertuples():
        planes = []
        for band in "gr":
            path = folder / str(row.tile) / f"{band}.{ENDINGS[storage]}"
            with fits.open(path) as hdus:
                hdu = hdus[1 if storage == "rice" else 0]
                position = SkyCoord(row.ra, row.dec, unit="deg")
                cutout = Cutout2D(hdu.data, position, SIZE, WCS(hdu.header))
                planes.append(cutout.data.astype(np.float32))
        np.save(folder / f"{row.id}.npy", np.stack(planes))


COMPRESSED = [pytest.param(storage, marks=pytest.mark.slow) for storage in ("gzip", "rice")]


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["plain", *COMPRESSED])
@pytest.mark.parametrize("tile", [None, "tile"])
def test_mosaics_are_packed_to_the_pixels_of_stamps(
    tmp_path: Path, storage: Storage, tile: str | None
) -> None:
    catalogue = write_survey(tmp_path, storage)
    write_stamps(tmp_path, catalogue, storage)
    stamps = images_by_id(pack(tmp_path, mosaics=None, images="{id}.npy", output=tmp_path / "s"))

    path = f"{{tile}}/{{band}}.{ENDINGS[storage]}"
    packed = images_by_id(pack(tmp_path, mosaics={"path": path, "tile": tile}))

    assert packed.keys() == stamps.keys() == set(catalogue["id"])
    for name, image in stamps.items():
        np.testing.assert_array_equal(packed[name], image)


def test_a_packing_from_mosaics_is_the_same_whatever_the_shards_and_processes(
    tmp_path: Path,
) -> None:
    write_survey(tmp_path, rows=300)
    one = images_by_id(pack(tmp_path, output=tmp_path / "one"))
    two = images_by_id(pack(tmp_path, output=tmp_path / "two", shard_mib=1, processes=2))

    assert one.keys() == two.keys()
    for name, image in one.items():
        np.testing.assert_array_equal(two[name], image)


def test_a_packing_that_is_there_already_knows_its_positions(tmp_path: Path) -> None:
    catalogue = write_survey(tmp_path)
    pack(tmp_path)
    pack(tmp_path)

    # By less than a pixel, so that the files and the tile stay the same.
    catalogue.loc[0, "ra"] += 1e-6
    catalogue.to_csv(tmp_path / "catalogue.csv", index=False)
    with pytest.raises(UserError, match=r"its source has changed since it was packed: positions"):
        pack(tmp_path)


def test_mosaics_that_were_touched_are_read_again_and_compared(tmp_path: Path) -> None:
    write_survey(tmp_path)
    pack(tmp_path)
    mosaic = tmp_path / "east" / "g.fits"
    mosaic.touch()
    pack(tmp_path)

    with fits.open(mosaic, mode="update") as hdus:
        hdus[0].data += 1
    with pytest.raises(UserError, match=r"its source has changed .* images of obj"):
        pack(tmp_path)


# ---- edges and bad pixels ----


def put_at_corner(folder: Path, catalogue: pd.DataFrame) -> None:
    """Move the first object to the first pixel of its tile."""
    with fits.open(folder / "east" / "g.fits") as hdus:
        ra, dec = WCS(hdus[0].header).all_pix2world(-0.2, -0.2, 0)
    catalogue.loc[0, ["ra", "dec"]] = ra, dec
    catalogue.to_csv(folder / "catalogue.csv", index=False)


@pytest.mark.parametrize("fill", ["zero", "median"])
def test_what_lies_beyond_an_edge_is_filled_and_counts_as_no_bad_pixel(
    tmp_path: Path, fill: str
) -> None:
    put_at_corner(tmp_path, write_survey(tmp_path))
    dataset = pack(tmp_path, bad_pixels={"fill": fill, "most": 0})

    image = images_by_id(dataset)["obj0"]
    half = SIZE // 2
    for plane, seed in zip(image, (0, 1), strict=True):
        inside = noise(SHAPE, seed)[: half + 1, : half + 1][:half, :half]
        np.testing.assert_array_equal(plane[half:, half:], inside)
        expected = 0 if fill == "zero" else np.median(inside)
        np.testing.assert_array_equal(plane[:half], expected)
        np.testing.assert_array_equal(plane[:, :half], expected)


def test_a_cutout_at_an_edge_can_be_left_out(tmp_path: Path) -> None:
    put_at_corner(tmp_path, write_survey(tmp_path))
    mosaics = {"path": "{tile}/{band}.fits", "edge": "skip"}
    with pytest.raises(
        UserError, match=r"obj0: east/g.fits: 75\.0% of the cutout lie .*\.edge=pad"
    ):
        pack(tmp_path, mosaics=mosaics)
    assert not (tmp_path / "out").exists()

    packed = images_by_id(pack(tmp_path, mosaics=mosaics, on_bad="skip"))
    assert "obj0" not in packed
    assert len(packed) == 23


def test_bad_pixels_at_an_edge_are_judged_where_the_mosaic_is(tmp_path: Path) -> None:
    put_at_corner(tmp_path, write_survey(tmp_path))
    with fits.open(tmp_path / "east" / "g.fits", mode="update") as hdus:
        hdus[0].data[0, 0] = np.nan
    with pytest.raises(UserError, match=r"band g: 1 of 64 pixels are NaN"):
        pack(tmp_path)

    image = images_by_id(pack(tmp_path, bad_pixels={"most": 0.02}))["obj0"]
    assert np.isfinite(image).all()


# ---- bad input: one message, and nothing written ----


def change_header(folder: Path, **words: object) -> None:
    """Change the header of one mosaic; None deletes a word."""
    with fits.open(folder / "east" / "r.fits", mode="update") as hdus:
        for word, value in words.items():
            if value is None:
                del hdus[0].header[word]
            else:
                hdus[0].header[word] = value


def without_wcs(folder: Path) -> None:
    change_header(folder, CTYPE1=None, CTYPE2=None)


def of_the_sun(folder: Path) -> None:
    change_header(folder, CTYPE1="HPLN-TAN", CTYPE2="HPLT-TAN")


def elsewhere(folder: Path) -> None:
    change_header(folder, CRVAL1=20.0)


def shifted(folder: Path) -> None:
    change_header(folder, CRPIX1=80.0)


def wide(folder: Path) -> None:
    change_header(folder, CD1_1=-SCALE_ARCSEC * 1.05 / 3600)


def cut_off(folder: Path) -> None:
    path = folder / "east" / "r.fits"
    path.write_bytes(path.read_bytes()[:20_000])


def of_text(folder: Path) -> None:
    (folder / "east" / "r.fits").write_text("no image")


def empty(folder: Path) -> None:
    (folder / "east" / "r.fits").write_bytes(b"")


def gone(folder: Path) -> None:
    (folder / "east" / "r.fits").unlink()


def a_cube(folder: Path) -> None:
    path = folder / "east" / "r.fits"
    header = fits.getheader(path)
    path.unlink()
    fits.PrimaryHDU(np.zeros((3, *SHAPE), np.float32), header).writeto(path)


FAULTS = {
    without_wcs: r"r\.fits\[0\]: has no world coordinates",
    of_the_sun: r"r\.fits\[0\]: its world coordinates .*HPLN.* not those of",
    elsewhere: r"r\.fits\[0\]: its world coordinates put it on another part of the sky .*g\.fits",
    shifted: r"r\.fits\[0\]: its world coordinates put a position 4\.5 pixels from",
    wide: r"r\.fits\[0\]: its pixels are 0\.2\d* arcsec .* pixel_scale says 0\.2",
    cut_off: r"r\.fits: is cut off: it has 20,000 bytes",
    of_text: r"r\.fits: cannot be read as a mosaic",
    empty: r"r\.fits: cannot be read as a mosaic",
    gone: r"tile east has no file of band r",
    a_cube: r"r\.fits: HDU 0 has the shape \(3, 120, 150\)",
}


@pytest.mark.slow
@pytest.mark.parametrize("spoil", FAULTS, ids=lambda spoil: spoil.__name__)
def test_a_bad_tile_is_told_with_its_rows_and_does_not_stop_the_others(
    tmp_path: Path, spoil: Any
) -> None:
    write_survey(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=FAULTS[spoil]) as caught:
        pack(tmp_path)
    assert "12 of 24 rows cannot be packed" in str(caught.value)
    assert [path.name for path in tmp_path.glob("*out*")] == []

    packed = images_by_id(pack(tmp_path, on_bad="skip"))
    assert packed.keys() == {f"obj{row}" for row in range(12, 24)}
