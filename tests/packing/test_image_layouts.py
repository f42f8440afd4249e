"""Layouts of images that a recipe can say: each is packed from settings alone, and every pixel is
that of the array which was written."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from tests.conftest import call
from tests.packing.test_tar_files import write_tar

pytestmark = pytest.mark.slow

BANDS = ("g", "r", "i")
ROWS = 12

Writer = Callable[[Path, str, np.ndarray], None]
"""Writes the image (bands, height, width) of an object into a folder, under its id."""


@pytest.fixture
def images() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"o{i}": rng.integers(0, 200, (3, 16, 16)).astype(np.float32) for i in range(ROWS)}


def write_catalogue(folder: Path, images: dict[str, np.ndarray]) -> None:
    lines = [f"{name},{i % 2},{2 + i % 2},OBJ{i}" for i, name in enumerate(images)]
    (folder / "catalogue.csv").write_text("id,is_lens,ext,name\n" + "\n".join(lines) + "\n")


def images_packed(folder: Path, **settings: Any) -> dict[str, np.ndarray]:
    """Pack the survey in `folder` by a recipe of these settings; {id: image}."""
    recipe = {
        "name": "a",
        "catalogue": "catalogue.csv",
        "bands": list(BANDS),
        "pixel_scale": 0.2,
        "units": "counts",
        "splits": {"train": 1.0},
    }
    file = folder.parent / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe | settings))
    output = folder.parent / "packed"
    call("pack", file, f"source={folder}", f"output={output}")
    found = {}
    for name in read_manifest(output).splits:
        split = Split(output, name)
        found |= dict(zip(split.ids(), split.take("images", np.arange(len(split))), strict=True))
    return {str(identifier): image for identifier, image in found.items()}


# ---- writers ----


def write_hdus(folder: Path, name: str, image: np.ndarray) -> None:
    """A calibrated file of JWST or Euclid's cutouts: an HDU for each band, others between."""
    hdus: list[Any] = [fits.PrimaryHDU()]
    for band, plane in zip("GRI", image, strict=True):
        hdus.append(fits.ImageHDU(plane, name=f"{band}_SCI"))
        hdus.append(fits.ImageHDU(np.full((5, 5), 0.04), name=f"{band}_PSF"))
    fits.HDUList(hdus).writeto(folder / f"{name}.fits")


def write_columns(folder: Path, name: str, image: np.ndarray) -> None:
    columns = {f"IMG_{band}": plane[None] for band, plane in zip(BANDS, image, strict=True)}
    Table(columns).write(folder / f"{name}.fits")


def write_degenerate_cube(folder: Path, name: str, image: np.ndarray) -> None:
    fits.PrimaryHDU(image[:, None, None]).writeto(folder / f"{name}.fits")


def write_compressed_counts(folder: Path, name: str, image: np.ndarray) -> None:
    counts = image.astype(np.int16)
    fits.CompImageHDU(counts, compression_type="RICE_1").writeto(folder / f"{name}.fits.fz")


def write_hdf5(folder: Path, name: str, image: np.ndarray) -> None:
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["data/image"] = image
        file["data/psf"] = image[:, :3, :3]


def write_hdf5_bands(folder: Path, name: str, image: np.ndarray) -> None:
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        for band, plane in zip(BANDS, image, strict=True):
            file[f"image_{band}"] = plane


def write_groups(folder: Path, name: str, image: np.ndarray) -> None:
    """One HDF5 file with a group for each object."""
    with h5py.File(folder / "all.h5", "a") as file:
        file[f"objects/{name}/image"] = image


def write_last_axis(folder: Path, name: str, image: np.ndarray) -> None:
    np.save(folder / f"{name}.npy", np.moveaxis(image, 0, -1))


def write_npz(folder: Path, name: str, image: np.ndarray) -> None:
    np.savez(folder / f"{name}.npz", **dict(zip(BANDS, image, strict=True)), ra=np.zeros(1))


def write_rgba(folder: Path, name: str, image: np.ndarray) -> None:
    opaque = np.full((1, 16, 16), 255)
    pixels = np.moveaxis(np.concatenate([image, opaque]), 0, -1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / f"{name}.png")


def write_pages(folder: Path, name: str, image: np.ndarray) -> None:
    pages = [Image.fromarray(plane) for plane in image]
    pages[0].save(folder / f"{name}.tiff", save_all=True, append_images=pages[1:])


def write_either(folder: Path, name: str, image: np.ndarray) -> None:
    ending = "fits.gz" if int(name[1:]) % 2 else "fits"
    fits.PrimaryHDU(image).writeto(folder / f"{name}.{ending}")


LAYOUTS: dict[str, tuple[Writer, dict[str, Any]]] = {
    "an HDU a band, by name": (
        write_hdus,
        {"images": "{id}.fits", "hdu": {"g": "G_SCI", "r": "R_SCI", "i": "I_SCI"}},
    ),
    "an HDU a band, by number": (
        write_hdus,
        {"images": "{id}.fits", "hdu": {"g": 1, "r": 3, "i": 5}},
    ),
    "an array a band": (write_hdf5_bands, {"images": "{id}.hdf5", "key": "image_{band}"}),
    "an array a band in .npz": (write_npz, {"images": "{id}.npz", "key": "{band}"}),
    "a column a band": (write_columns, {"images": "{id}.fits", "key": "IMG_{band}"}),
    "a cube with axes of length one": (write_degenerate_cube, {"images": "{id}.fits"}),
    "compressed counts": (write_compressed_counts, {"images": "{id}.fits.fz"}),
    "nested HDF5": (write_hdf5, {"images": "{id}.h5", "key": "data/image"}),
    "a group an object": (write_groups, {"images": "all.h5", "key": "objects/{id}/image"}),
    "bands last": (write_last_axis, {"images": "{id}.npy", "axes": "HWB"}),
    "three planes of RGBA": (write_rgba, {"images": "{id}.png", "planes": [0, 1, 2]}),
    "pages of a TIFF": (write_pages, {"images": "{id}.tiff"}),
    "one of two endings": (write_either, {"images": ["{id}.fits", "{id}.fits.gz"]}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_packed_as_it_was_written(
    tmp_path: Path, images: dict[str, np.ndarray], layout: str
) -> None:
    write, settings = LAYOUTS[layout]
    folder = tmp_path / "survey"
    folder.mkdir()
    write_catalogue(folder, images)
    for name, image in images.items():
        write(folder, name, image)
    np.testing.assert_equal(images_packed(folder, **settings), images)


def test_a_column_says_in_which_hdu_an_object_lies(
    tmp_path: Path, images: dict[str, np.ndarray]
) -> None:
    folder = tmp_path / "survey"
    folder.mkdir()
    write_catalogue(folder, images)
    for i, (name, image) in enumerate(images.items()):
        hdus = [fits.ImageHDU(image + offset, name=f"OBJ{i + offset}") for offset in (-1, 0, 1)]
        fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(folder / f"{name}.fits")
    by_name = images_packed(folder, images="{id}.fits", hdu="{name}")
    np.testing.assert_equal(by_name, images)

    (tmp_path / "packed").rename(tmp_path / "by_name")
    by_number = images_packed(folder, images="{id}.fits", hdu="{ext}")
    expected = {name: image + i % 2 for i, (name, image) in enumerate(images.items())}
    np.testing.assert_equal(by_number, expected)


def test_images_on_another_disk_are_followed_where_asked(
    tmp_path: Path, images: dict[str, np.ndarray]
) -> None:
    folder = tmp_path / "survey"
    (tmp_path / "scratch").mkdir()
    folder.mkdir()
    (folder / "cutouts").symlink_to(tmp_path / "scratch")
    write_catalogue(folder, images)
    for name, image in images.items():
        np.save(tmp_path / "scratch" / f"{name}.npy", image)
    with pytest.raises(UserError, match="follow_links=true"):
        images_packed(folder, images="cutouts/{id}.npy")
    found = images_packed(folder, images="cutouts/{id}.npy", follow_links=True)
    np.testing.assert_equal(found, images)


def test_a_file_for_several_bands_without_their_hdus_is_refused(
    tmp_path: Path, images: dict[str, np.ndarray]
) -> None:
    folder = tmp_path / "survey"
    folder.mkdir()
    write_catalogue(folder, images)
    for name, image in images.items():
        write_hdus(folder, name, image)
    with pytest.raises(UserError, match="the same image for the bands g and r"):
        images_packed(folder, images=dict.fromkeys(BANDS, "{id}.fits"))
    with pytest.raises(UserError, match="1 G_SCI, 2 G_PSF"):
        images_packed(folder, images="{id}.fits")


def test_units_of_most_files_decide_how_a_band_is_resampled(tmp_path: Path) -> None:
    folder = tmp_path / "survey"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"o{i}" for i in range(ROWS)]
    write_catalogue(folder, dict.fromkeys(names, np.zeros(0)))
    for number, name in enumerate(names):
        fits.PrimaryHDU(rng.normal(10, 1, (12, 12))).writeto(folder / f"{name}_g.fits")
        coarse = fits.PrimaryHDU(rng.normal(10, 1e-3, (4, 4)))
        if number != 5:
            coarse.header["BUNIT"] = "MJy/sr"
        coarse.writeto(folder / f"{name}_r.fits")
    settings = {
        "images": "{id}_{band}.fits",
        "bands": ["g", "r"],
        "pixel_scale": {"g": 0.1, "r": 0.3},
    }
    with pytest.raises(UserError, match=r"1 of 12 rows.*\n.*o5_r\.fits.*set resampling"):
        images_packed(folder, **settings)
    found = images_packed(folder, **settings, on_bad="skip")
    assert len(found) == ROWS - 1
    for image in found.values():
        np.testing.assert_allclose(image[1], 10, rtol=1e-3)


# ---- Euclid ----

RECIPES = Path(__file__).parents[2] / "configs" / "pack"
EUCLID = Path(__file__).parents[3] / "shared" / "data" / "euclid_q1_lens"
EUCLID_BANDS = ("DES_G", "DES_R", "VIS", "DES_I", "DES_Z", "NIR_Y", "NIR_J", "NIR_H")


def write_euclid_file(file: Path, seed: int) -> None:
    """Write the HDUs of the real file, which its README lists: image, PSF and error a band."""
    rng = np.random.default_rng(seed)
    hdus: list[Any] = [fits.PrimaryHDU()]
    for band in ("DES_G", "DES_R", "VIS", "DES_I", "DES_Z", "NIR_Y", "NIR_J", "NIR_H"):
        image = rng.normal(size=(100, 100)).astype(np.float32)
        psf = rng.uniform(size=(49, 49))
        errors = rng.uniform(1, 2, (100, 100)).astype(np.float32)
        image[0, :5], errors[0, :5] = 0, 1e16
        for kind, content in (("BGSUB", image), ("PSF", psf), ("RMS", errors)):
            hdus.append(fits.ImageHDU(content, name=f"{band}_{kind}"))
    file.parent.mkdir(parents=True)
    fits.HDUList(hdus).writeto(file)


def check_euclid(source: Path, files: dict[str, Path], output: Path, *overrides: str) -> None:
    recipe = RECIPES / "euclid_q1.yaml"
    call("pack", recipe, f"source={source}", f"output={output}", *overrides)
    assert read_manifest(output).bands == EUCLID_BANDS
    split = Split(output, "test")
    stored = split.take("images", np.arange(len(split)))
    for name, image in zip(split.ids(), stored, strict=True):
        for band, plane in zip(EUCLID_BANDS, image, strict=True):
            expected = fits.getdata(files[str(name)], f"{band}_BGSUB")
            np.testing.assert_array_equal(plane, expected)


def test_euclid_q1(tmp_path: Path) -> None:
    source = tmp_path / "survey"
    files = {name: source / name / f"{name}.fits" for name in ("1020_NEG57", "1021_NEG58")}
    for seed, file in enumerate(files.values()):
        write_euclid_file(file, seed)
    check_euclid(source, files, tmp_path / "packed")

    output = tmp_path / "masked"
    masks = 'masks={hdu: "{band}_RMS", bad: "> 1e15"}'
    call(
        "pack",
        RECIPES / "euclid_q1.yaml",
        f"source={source}",
        f"output={output}",
        masks,
        "bad_pixels.most=0.1",
    )
    filled = Split(output, "test").take("images", np.arange(2))
    assert (filled[:, :, 0, :5] != 0).all()


@pytest.mark.skipif(not EUCLID.is_dir(), reason="the real lens of Euclid is not here")
def test_a_real_lens_of_euclid(tmp_path: Path) -> None:
    files = {file.stem: file for file in EUCLID.glob("*.fits")}
    check_euclid(EUCLID, files, tmp_path / "packed")


# ---- images in a table, and in archives ----


def test_images_in_a_column_of_parquet(tmp_path: Path, images: dict[str, np.ndarray]) -> None:
    """As the library `datasets` writes its feature Image: a struct of bytes and path."""
    folder = tmp_path / "survey"
    folder.mkdir()
    cells = []
    for name, image in images.items():
        buffer = BytesIO()
        Image.fromarray(np.moveaxis(image, 0, -1).astype(np.uint8)).save(buffer, "png")
        cells.append({"bytes": buffer.getvalue(), "path": f"{name}.png"})
    labels = [i % 2 for i in range(ROWS)]
    table = pa.table({"id": list(images), "is_lens": labels, "image": cells})
    pq.write_table(table, folder / "train.parquet", row_group_size=5)
    found = images_packed(folder, catalogue="train.parquet", stack="train.parquet", key="image")
    np.testing.assert_equal(found, images)


@pytest.mark.parametrize("archives", ["a.tar", "shards"])
def test_images_in_archives_of_webdataset(
    tmp_path: Path, images: dict[str, np.ndarray], archives: str
) -> None:
    """Members of a sample share their key; one is the image, one its label."""
    folder = tmp_path / "survey"
    (folder / "shards").mkdir(parents=True)
    paths = [folder / "a.tar"]
    if archives == "shards":
        paths = [folder / "shards" / "0.tar", folder / "shards" / "1.tar"]
    for number, path in enumerate(paths):
        members = {}
        for i, (name, image) in list(enumerate(images.items()))[number :: len(paths)]:
            buffer = BytesIO()
            np.save(buffer, image)
            members[f"{name}.npy"] = buffer.getvalue()
            members[f"{name}.json"] = json.dumps({"is_lens": i % 2, "mag": 20 + i}).encode()
        write_tar(path, members)

    pattern = "a.tar/{__key__}.npy" if archives == "a.tar" else "shards/{__tar__}/{__key__}.npy"
    columns = {"id": "__key__", "label": "is_lens", "features": ["mag"]}
    found = images_packed(folder, catalogue=archives, images=pattern, columns=columns)
    np.testing.assert_equal(found, images)

    # The names alone are enough where there are no labels.
    (tmp_path / "packed").rename(tmp_path / "labelled")
    pattern = pattern.replace("{__key__}", "{id}").replace("{__tar__}", "{tar}")
    found = images_packed(folder, catalogue=None, images=pattern, columns={"label": None})
    np.testing.assert_equal(found, images)
