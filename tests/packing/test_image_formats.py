import contextlib
import gzip
import struct
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lens_hpc.dataset.manifest import read_manifest
from lens_hpc.dataset.split import Split
from lens_hpc.errors import UserError
from lens_hpc.packing import array_files
from lens_hpc.packing.fits_images import describe_fits, read_fits, read_fits_unit
from lens_hpc.packing.image_formats import BadCutoutError, find_reader, read_image
from tests.conftest import pack_survey


def test_every_format_gives_bands_first_in_native_order(tmp_path: Path) -> None:
    cube = np.arange(2 * 4 * 5, dtype=np.float32).reshape(2, 4, 5)
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(cube)]).writeto(tmp_path / "a.fits")
    np.save(tmp_path / "a.npy", cube.astype(">f4"))
    for name in ("a.fits", "a.npy"):
        image = read_image(tmp_path / name)
        assert image.dtype == np.dtype("float32")
        assert image.dtype.isnative
        np.testing.assert_array_equal(image, cube)
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture.transpose(2, 0, 1))
    colour = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.jpg", quality=95)
    means = read_image(tmp_path / "a.jpg").mean(axis=(1, 2))
    np.testing.assert_allclose(means, (200, 100, 50), atol=4)


def test_two_axes_are_one_band(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 5)))
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.npy").shape == (1, 4, 5)
    assert read_image(tmp_path / "a.png").shape == (1, 4, 5)


@pytest.mark.parametrize(
    "name", ["a.fits", "a.npy", "a.png", "a.jpg", "a.tif", "a.npz", "a.txt", "a"]
)
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(BadCutoutError, match=name):
        read_image(tmp_path / name)


def test_a_truncated_fits_file_is_named(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.ones((64, 64), np.float32)).writeto(tmp_path / "a.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(whole[:5000])
    with pytest.raises(BadCutoutError, match=r"a\.fits: cannot be read as an image"):
        read_image(tmp_path / "a.fits")


def test_a_truncated_npy_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((8, 8)))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(BadCutoutError, match="are not those of an array"):
        read_image(tmp_path / "a.npy")


def test_hdus_are_chosen_by_number_and_name(tmp_path: Path) -> None:
    one = np.ones((1, 4, 4), np.float32)
    two = np.full((1, 4, 4), 2, np.float32)
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(one, name="SCI"),
        fits.CompImageHDU(two[0], name="ERR"),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits"), one)
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits", hdu="ERR"), two)
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits", hdu=2), two)
    with pytest.raises(BadCutoutError, match=r"a\.fits"):
        read_image(tmp_path / "a.fits", hdu="NONE")


def test_pages_of_a_tiff_are_planes(tmp_path: Path) -> None:
    planes = [Image.fromarray(np.full((4, 4), value, np.float32)) for value in (1, 2, 3)]
    planes[0].save(tmp_path / "a.tif", save_all=True, append_images=planes[1:])
    assert read_image(tmp_path / "a.tif")[:, 0, 0].tolist() == [1, 2, 3]


def test_palettes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).convert("P").save(tmp_path / "a.png")
    with pytest.raises(BadCutoutError, match="palette"):
        read_image(tmp_path / "a.png")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadCutoutError, match=r"Object arrays|are not those"):
        read_image(tmp_path / "a.npy")


# ---- a file's own word for "no measurement" ----


@st.composite
def integer_images(draw: st.DrawFn) -> dict[str, Any]:
    """A FITS image of integers, some of which may be the word for no measurement."""
    dtype = draw(st.sampled_from(["u1", "i2", "i4", "i8"]))
    info = np.iinfo(dtype)
    compression = draw(st.sampled_from([None, None, "RICE_1", "GZIP_1"]))
    # Compressed integers of 64 bits are not part of the standard.
    if compression and dtype == "i8":
        dtype, info = "i4", np.iinfo("i4")
    # astropy takes the word 0 for none at all, which the standard does not say.
    numbers = st.integers(-100, 100).filter(bool)
    blank = draw(st.one_of(st.just(info.min), st.just(info.max), numbers).filter(bool))
    return {
        "dtype": dtype,
        "blank": blank if info.min <= blank else 255,
        "is_declared": draw(st.booleans()),
        "scale": draw(st.sampled_from([None, None, (0.01, 5.0), (2.0, 0.0), (1.0, 32768)])),
        "compression": compression,
        "seed": draw(st.integers(0, 99)),
        "bad": draw(st.integers(0, 9)),
    }


def write_integer_image(path: Path, drawn: dict[str, Any]) -> None:
    rng = np.random.default_rng(drawn["seed"])
    image = rng.integers(0, 100, (9, 8)).astype(drawn["dtype"])
    image.ravel()[: drawn["bad"]] = drawn["blank"]
    if drawn["compression"]:
        hdu = fits.CompImageHDU(image, compression_type=drawn["compression"])
        hdus = fits.HDUList([fits.PrimaryHDU(), hdu])
    else:
        hdus = fits.HDUList([fits.PrimaryHDU(image)])
    hdus.writeto(path, overwrite=True)

    with fits.open(path, mode="update", do_not_scale_image_data=True) as opened:
        header = opened[-1].header
        if drawn["is_declared"]:
            header["BLANK"] = drawn["blank"]
        if drawn["scale"]:
            header["BSCALE"], header["BZERO"] = drawn["scale"]


@pytest.mark.slow
@given(integer_images())
def test_integer_pixels_are_those_of_astropy_and_blank_ones_are_masked(
    drawn: dict[str, Any],
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.fits"
        write_integer_image(path, drawn)
        # With its integers of no sign, astropy forgets the word.
        expected = fits.getdata(path, -1, uint=False).astype(np.float64)
        image = read_image(path)
    assert np.ma.getmaskarray(image)[0].tolist() == np.isnan(expected).tolist()
    found = np.ma.filled(image[0].astype(np.float64), np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_blank_says_nothing_of_floats(tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    hdu = fits.PrimaryHDU(image)
    hdu.header["BLANK"] = 5
    hdu.writeto(tmp_path / "a.fits", output_verify="ignore")
    assert not np.ma.isMaskedArray(read_image(tmp_path / "a.fits"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits")[0], image)


def test_nan_survives_lossy_compression(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    image[3, 4:9] = np.nan
    fits.CompImageHDU(image, compression_type="RICE_1").writeto(tmp_path / "a.fits")
    found = read_image(tmp_path / "a.fits")[0]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(image))
    np.testing.assert_array_equal(found, fits.getdata(tmp_path / "a.fits"))


@pytest.mark.parametrize("scale", [None, (0.5, 3.0), (1.0, 32768.0)])
def test_nulls_in_a_cell_of_a_table_are_masked(
    tmp_path: Path, scale: tuple[float, float] | None
) -> None:
    numbers = np.arange(20, dtype=np.int16).reshape(1, 4, 5)
    column = fits.Column("IMG", "20I", dim="(5,4)", array=numbers, null=7)
    hdu = fits.BinTableHDU.from_columns([column])
    if scale:
        hdu.header["TSCAL1"], hdu.header["TZERO1"] = scale
    hdu.writeto(tmp_path / "a.fits")

    image = read_image(tmp_path / "a.fits", key="img")
    assert np.ma.getmaskarray(image)[0].tolist() == (numbers[0] == 7).tolist()
    factor, zero = scale or (1, 0)
    np.testing.assert_allclose(np.ma.getdata(image)[0], numbers[0] * factor + zero)


@pytest.mark.parametrize("kind", ["image", "float zero", "short zero", "cell"])
def test_unsigned_numbers_of_64_bits_keep_their_digits(tmp_path: Path, kind: str) -> None:
    image = np.array([[0, 1, 2**63 - 1], [2**63, 2**63 + 1, 2**64 - 1]], np.uint64)
    if kind == "cell":
        column = fits.Column("IMG", "6K", dim="(3,2)", array=image[None], bzero=2**63)
        fits.BinTableHDU.from_columns([column]).writeto(tmp_path / "a.fits")
    else:
        fits.PrimaryHDU(image).writeto(tmp_path / "a.fits")
    zeros = {"float zero": "9.223372036854775808E+18", "short zero": "9.22337203685477E+18"}
    if kind in zeros:
        content = (tmp_path / "a.fits").read_bytes()
        start = content.index(b"BZERO")
        card = f"BZERO   = {zeros[kind]}".ljust(80).encode()
        (tmp_path / "a.fits").write_bytes(content[:start] + card + content[start + 80 :])
    found = read_image(tmp_path / "a.fits")[0]
    assert found.dtype == np.uint64
    np.testing.assert_array_equal(found, image)


def test_truth_values_of_a_table_are_no_image(tmp_path: Path) -> None:
    image = np.arange(4.0).reshape(1, 2, 2)
    columns = [
        fits.Column("MASK", "4L", dim="(2,2)", array=image > 1),
        fits.Column("IMG", "4D", dim="(2,2)", array=image),
    ]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits"), image)
    np.testing.assert_array_equal(read_fits(str(tmp_path / "a.fits"), None, "MASK"), image[0] > 1)
    with pytest.raises(BadCutoutError, match="not 2 of bool"):
        read_image(tmp_path / "a.fits", key="MASK")


# ---- parts of files ----


def test_a_name_that_looks_like_a_number_is_a_name(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(3, 1, 6, 6)).astype(np.float32)
    names = ("2", "1", "SCI")
    hdus = [fits.ImageHDU(image, name=name) for name, image in zip(names, images, strict=True)]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "a.fits")
    for hdu, number in (("1", 1), ("2", 0), ("3", 2), (1, 0), (2, 1)):
        found = read_image(tmp_path / "a.fits", hdu=hdu)
        np.testing.assert_array_equal(found, images[number])


@pytest.mark.parametrize(
    "name",
    ["J01+1", "J01+45.fits", "[g]/o0.fits", "cut[1].fits", "cut(b).fits", "$HOME.fits", "x[0]"],
)
def test_a_file_is_that_of_its_name(tmp_path: Path, name: str) -> None:
    """The C library would take parts of such names for the number of an HDU, or for a copy."""
    images = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    hdus = [fits.PrimaryHDU(images[0]), fits.ImageHDU(images[1])]
    hdus[0].header["BUNIT"] = "MJy/sr"
    with path.open("wb") as file:
        fits.HDUList(hdus).writeto(file)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]
    np.testing.assert_array_equal(read_image(path, reader=read_fits), images[0])
    np.testing.assert_array_equal(read_image(path, hdu=1, reader=read_fits), images[1])
    assert read_fits_unit(str(path), None) == "MJy/sr"
    assert describe_fits(str(path)) == "the HDUs 0, 1"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_a_column_of_a_table_is_chosen_by_key(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(2, 1, 6, 6)).astype(np.float32)
    Table({"IMG_G": images[0], "IMG_R": images[1]}).write(tmp_path / "a.fits")
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits", key="IMG_R"), images[1])
    with pytest.raises(BadCutoutError, match="the column IMG_Z"):
        read_image(tmp_path / "a.fits", key="IMG_Z")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("a.npy", {"key": "x"}),
        ("a.npy", {"hdu": 1}),
        ("a.npz", {"hdu": 1}),
        ("a.png", {"key": "x"}),
        ("a.png", {"hdu": "SCI"}),
        ("a.h5", {"hdu": 0}),
        ("a.fits", {"hdu": 0, "key": "x"}),
    ],
)
def test_a_part_that_a_file_cannot_have_is_refused(
    tmp_path: Path, name: str, part: dict[str, Any]
) -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4)
    np.save(tmp_path / "a.npy", image)
    np.savez(tmp_path / "a.npz", x=image)
    Image.fromarray(image).save(tmp_path / "a.png")
    fits.PrimaryHDU(image).writeto(tmp_path / "a.fits")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = image
    assert read_image(tmp_path / name).shape == (1, 4, 4)
    with pytest.raises(BadCutoutError, match=name):
        read_image(tmp_path / name, **part)


def test_arrays_of_hdf5_are_found_in_groups(tmp_path: Path) -> None:
    image = np.arange(16.0).reshape(4, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["objects/7/image"] = image
    np.testing.assert_array_equal(read_image(tmp_path / "a.h5")[0], image)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["objects/8/image"] = image + 1
    for key in ("objects/8/image", "/objects/8/image"):
        np.testing.assert_array_equal(read_image(tmp_path / "a.h5", key=key)[0], image + 1)
    with pytest.raises(BadCutoutError, match="objects/7/image, objects/8/image"):
        read_image(tmp_path / "a.h5")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_version_of_npy_is_read(tmp_path: Path, version: tuple[int, int], order: Any) -> None:
    image = np.asarray(np.arange(24, dtype=">i2").reshape(2, 3, 4), order=order)
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, image, version=version)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy"), np.load(tmp_path / "a.npy"))


def test_axes_of_length_one_are_left_out_and_bands_may_be_last(tmp_path: Path) -> None:
    image = np.arange(20, dtype=np.float32).reshape(4, 5)
    fits.PrimaryHDU(image[None, None]).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits"), image[None])
    cube = np.arange(60.0).reshape(3, 4, 5)
    np.save(tmp_path / "a.npy", np.moveaxis(cube, 0, -1))
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", axes="HWB"), cube)
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(BadCutoutError, match="leave axes out"):
        read_image(tmp_path / "a.png", axes="HWB")


# ---- pictures ----


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write 16 bits a channel by the standard (ISO 15948), which no library here writes in all."""
    height, width, channels = pixels.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    blocks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in blocks:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        content += struct.pack(">I", len(data)) + name + data + checksum
    path.write_bytes(content)


def write_tiff(
    path: Path, pixels: np.ndarray, order: str = "<", planar: int = 1, **changes: list[int]
) -> None:
    """Write a TIFF of one strip (or one a channel) by the standard (TIFF 6.0).

    `changes` are other values of tags, such as tag_262=[0].
    """
    height, width, channels = pixels.shape
    bits = pixels.dtype.itemsize * 8
    laid_out = pixels if planar == 1 else np.moveaxis(pixels, -1, 0)
    data = laid_out.astype(pixels.dtype.newbyteorder(order)).tobytes()
    strips = 1 if planar == 1 else channels
    step = len(data) // strips
    colour = 2 if channels > 2 else 1
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags: list[tuple[int, str, list[int]]] = [
        (256, "H", [width]),
        (257, "H", [height]),
        (258, "H", [bits] * channels),
        (259, "H", [1]),
        (262, "H", [colour]),
        (273, "I", [1000 + number * step for number in range(strips)]),
        (277, "H", [channels]),
        (278, "H", [height]),
        (279, "I", [step] * strips),
        (284, "H", [planar]),
        (339, "H", [kind] * channels),
    ]
    if channels in (2, 4):
        tags.insert(-1, (338, "H", [2]))
    tags = [(tag, letter, changes.get(f"tag_{tag}", values)) for tag, letter, values in tags]

    entries, extra = b"", b""
    for tag, letter, values in tags:
        content = struct.pack(order + letter * len(values), *values)
        if len(content) > 4:
            place = struct.pack(order + "I", 500 + len(extra))
            extra += content
            content = place
        code = {"H": 3, "I": 4}[letter]
        entries += struct.pack(order + "HHI", tag, code, len(values)) + content.ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    directory = start + struct.pack(order + "H", len(tags)) + entries + b"\0\0\0\0"
    path.write_bytes((directory.ljust(500, b"\0") + extra).ljust(1000, b"\0") + data)


def random_pixels(dtype: str, channels: int) -> np.ndarray:
    rng = np.random.default_rng(channels)
    if dtype[0] == "f":
        return rng.normal(0, 1e3, (5, 7, channels)).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, (5, 7, channels), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_keeps_them(tmp_path: Path, channels: int) -> None:
    pixels = random_pixels("u2", channels)
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.moveaxis(pixels, -1, 0))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [1, 2])
def test_a_tiff_is_read_right_or_refused(
    tmp_path: Path, dtype: str, channels: int, order: str, planar: int
) -> None:
    pixels = random_pixels(dtype, channels)
    write_tiff(tmp_path / "a.tif", pixels, order, planar)
    try:
        image = read_image(tmp_path / "a.tif")
    except BadCutoutError:
        # What all programs write is read.
        is_usual = channels in (1, 3, 4) and planar == 1 and (order == "<" or dtype != "u4")
        assert not is_usual
    else:
        np.testing.assert_array_equal(image, np.moveaxis(pixels, -1, 0))


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("is_page", [False, True])
def test_a_bigtiff_is_read_as_a_tiff_is(tmp_path: Path, dtype: str, is_page: bool) -> None:
    pixels = random_pixels(dtype, 1 if is_page else 3)
    write_bigtiff(tmp_path / "a.tif", pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.moveaxis(pixels, -1, 0))


def write_bigtiff(path: Path, pixels: np.ndarray) -> None:
    """Write a BigTIFF of one strip: as a TIFF, with 64 bits for what takes 32 there."""
    height, width, channels = pixels.shape
    data = pixels.tobytes()
    kind = {"u": 1, "f": 3}[pixels.dtype.kind]
    tags = [
        (256, [width]),
        (257, [height]),
        (258, [pixels.itemsize * 8] * channels),
        (259, [1]),
        (262, [2 if channels > 1 else 1]),
        (273, [1000]),
        (277, [channels]),
        (278, [height]),
        (279, [len(data)]),
        (339, [kind] * channels),
    ]
    content = struct.pack("<2sHHHQQ", b"II", 43, 8, 0, 16, len(tags))
    for tag, values in tags:
        shorts = struct.pack(f"<{len(values)}H", *values)
        content += struct.pack("<HHQ", tag, 3, len(values)) + shorts.ljust(8, b"\0")
    path.write_bytes((content + bytes(8)).ljust(1000, b"\0") + data)


@pytest.mark.parametrize(
    ("dtype", "channels", "changes", "message"),
    [
        ("u1", 4, {"tag_338": [0]}, "4 channels, of which 3 are read"),
        ("u1", 4, {"tag_338": [1]}, "multiplied by its last channel"),
        ("u1", 2, {"tag_338": [0]}, "2 channels, of which 1 are read"),
        ("i1", 1, {}, "have a sign"),
        ("u1", 1, {"tag_262": [0]}, "zero is white"),
        ("u2", 1, {"tag_262": [0]}, "zero is white"),
        ("f4", 1, {"tag_262": [0]}, "zero is white"),
        ("u1", 1, {"tag_258": [4]}, "4 bits"),
    ],
)
def test_what_pillow_would_change_is_refused(
    tmp_path: Path, dtype: str, channels: int, changes: dict[str, list[int]], message: str
) -> None:
    write_tiff(tmp_path / "a.tif", random_pixels(dtype, channels), **changes)  # type: ignore[arg-type]
    with pytest.raises(BadCutoutError, match=message):
        read_image(tmp_path / "a.tif")


def test_colours_of_later_pages_are_not_cut_to_8_bits(tmp_path: Path) -> None:
    for name, dtype in (("a", "u1"), ("b", "u2")):
        write_tiff(tmp_path / f"{name}.tif", random_pixels(dtype, 3))

    # The second file follows the first: all places in it, and that of its directory, move.
    first, second = ((tmp_path / f"{name}.tif").read_bytes() for name in "ab")
    shift = len(first) + len(first) % 2
    moved = bytearray(second)
    for number in range(11):
        start = 10 + 12 * number
        tag, kind, count = struct.unpack_from("<HHI", moved, start)
        if tag == 273 or count * (2 if kind == 3 else 4) > 4:
            place = struct.unpack_from("<I", moved, start + 8)[0]
            struct.pack_into("<I", moved, start + 8, place + shift)
    joined = bytearray(first.ljust(shift, b"\0") + moved)
    struct.pack_into("<I", joined, 10 + 12 * 11, shift + 8)
    (tmp_path / "c.tif").write_bytes(joined)
    with pytest.raises(BadCutoutError, match="3 channels of 16 bits are not read"):
        read_image(tmp_path / "c.tif")


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_refused(tmp_path: Path, bits: int) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    header = content[12:24] + bytes([bits]) + content[25:29]
    checksum = struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(content[:12] + header + checksum + content[33:])
    with pytest.raises(BadCutoutError, match=f"{bits} bits; convert it to 8"):
        read_image(tmp_path / "a.png")


def test_a_deep_picture_that_is_turned_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", random_pixels("u2", 3))
    content = (tmp_path / "a.png").read_bytes()
    exif = b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    block = struct.pack(">I", len(exif) - 4) + exif + struct.pack(">I", zlib.crc32(exif))
    (tmp_path / "a.png").write_bytes(content[:33] + block + content[33:])
    with pytest.raises(BadCutoutError, match="turned"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "float.tif"])
def test_deep_colours_that_are_cut_off_are_refused(tmp_path: Path, name: str) -> None:
    write_png(tmp_path / "a.png", random_pixels("u2", 3))
    write_tiff(tmp_path / "a.tif", random_pixels("u2", 3))
    write_tiff(tmp_path / "float.tif", random_pixels("f4", 3))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-30])
    with pytest.raises(BadCutoutError, match=name):
        read_image(tmp_path / name)


@pytest.mark.parametrize("mode", ["1", "P", "CMYK", "LAB", "YCbCr"])
def test_channels_that_are_no_light_are_refused(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.full((4, 4, 3), 90, np.uint8))
    picture = image.convert(mode) if mode != "LAB" else Image.new("LAB", (4, 4))
    picture.save(tmp_path / "a.tif")
    with pytest.raises(BadCutoutError, match=r"bit|palette|ink|mode"):
        read_image(tmp_path / "a.tif")


def test_a_picture_is_turned_as_it_says(tmp_path: Path) -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    assert expected.shape == (5, 4, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.moveaxis(expected, -1, 0))


def test_frames_of_an_animation_are_no_planes(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (1, 2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(BadCutoutError, match="2 frames"):
        read_image(tmp_path / "a.png")


# ---- hostile files ----


def write_some_files(folder: Path) -> list[Path]:
    """A file of every format, in several kinds."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 16, 16)).astype(np.float32)
    counts = rng.integers(0, 100, (16, 16)).astype(np.int16)
    hdu = fits.CompImageHDU(counts, compression_type="RICE_1")
    hdu.header["BLANK"] = 5
    hdu.writeto(folder / "rice.fits")
    fits.PrimaryHDU(image).writeto(folder / "plain.fits")
    fits.PrimaryHDU(image).writeto(folder / "zipped.fits.gz")
    Table({"IMG": counts[None]}).write(folder / "table.fits")
    np.save(folder / "a.npy", image)
    np.savez_compressed(folder / "a.npz", image)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("group/image", data=image, compression="gzip")
    write_png(folder / "deep.png", random_pixels("u2", 3))
    write_tiff(folder / "deep.tif", random_pixels("f4", 3))
    Image.fromarray(counts.astype(np.uint8)).save(folder / "grey.png")
    Image.fromarray(counts.astype(np.uint8)).save(folder / "grey.jpg")
    Image.fromarray(image[0]).save(folder / "float.tif")
    return sorted(folder.iterdir())


def test_a_file_that_would_fill_all_memory_is_refused(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(np.zeros((4, 4), np.float32))
    hdu.writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    longer = content.replace(b"NAXIS1  =                    4", b"NAXIS1  =         999999999999")
    assert longer != content
    (tmp_path / "a.fits").write_bytes(longer)

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (1 << 20, 1 << 20), "f4", chunks=(64, 64))
    pixels = np.zeros((4, 4, 3), np.float32)
    write_tiff(tmp_path / "a.tif", pixels)
    whole = bytearray((tmp_path / "a.tif").read_bytes())
    for tag in (256, 257):
        entry = struct.pack("<HHI", tag, 3, 1)
        place = whole.index(entry) + len(entry)
        whole[place : place + 2] = b"\xff\xff"
    (tmp_path / "a.tif").write_bytes(whole)

    for name in ("a.fits", "a.h5", "a.tif"):
        with pytest.raises(BadCutoutError, match="too many for a cutout"):
            read_image(tmp_path / name)


def test_a_small_file_that_unzips_to_a_large_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_files, "MOST_BYTES", 1000)
    np.savez_compressed(tmp_path / "a.npz", np.zeros((99, 99)))
    buffer = BytesIO()
    np.save(buffer, np.zeros((99, 99)))
    (tmp_path / "a.npy").write_bytes(gzip.compress(buffer.getvalue()))
    for name in ("a.npz", "a.npy"):
        with pytest.raises(BadCutoutError, match="too large for a cutout"):
            read_image(tmp_path / name)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_end_in_a_message(tmp_path: Path) -> None:
    """A slice of the fuzz: bytes changed, cut off or added at random places."""
    rng = np.random.default_rng(0)
    for file in write_some_files(tmp_path):
        whole = file.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            kind = rng.integers(3)
            place = int(rng.integers(len(damaged)))
            if kind == 0:
                del damaged[place:]
            elif kind == 1:
                damaged[place : place + 4] = rng.bytes(4)
            else:
                damaged[place:place] = rng.bytes(int(rng.integers(1, 99)))
            file.write_bytes(damaged)
            with contextlib.suppress(BadCutoutError):
                assert read_image(file).ndim == 3


# ---- formats that a recipe names ----

READER = '''
import numpy as np


def read_raw(path, hdu, key):
    """Little-endian float32 of 2 bands, 8 x 8."""
    return np.fromfile(path, "<f4").reshape(2, 8, 8)


not_a_function = 3
'''


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of the user's own, on sys.path and outside of lens_hpc."""
    package = "a_survey_of_my_own"
    folder = tmp_path / "code" / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "formats.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield package
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def without_endings(survey: Path) -> None:
    """Write each image of the toy survey as bare numbers, in a file without an ending."""
    for file in survey.glob("*.npy"):
        np.load(file).tofile(file.with_suffix(""))
        file.unlink()


def images_by_id(dataset: Path) -> dict[str, np.ndarray]:
    images = {}
    for name in read_manifest(dataset).splits:
        split = Split(dataset, name)
        images |= dict(zip(split.ids(), split.take("images", np.arange(len(split))), strict=True))
    return images


def test_a_named_format_is_read_whatever_the_ending(tmp_path: Path, survey: Path) -> None:
    expected = images_by_id(pack_survey(survey, tmp_path / "by_ending"))
    for file in survey.glob("*.npy"):
        file.rename(file.with_suffix(".dat"))
    dataset = pack_survey(survey, tmp_path / "d", "images='{id}.dat'", "format=npy")
    assert read_manifest(dataset).recipe["format"] == "npy"
    np.testing.assert_equal(images_by_id(dataset), expected)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_reader_of_ones_own_is_called(
    tmp_path: Path, survey: Path, own_code: str, processes: int
) -> None:
    expected = images_by_id(pack_survey(survey, tmp_path / "by_ending"))
    without_endings(survey)
    dataset = pack_survey(
        survey,
        tmp_path / "d",
        "images='{id}'",
        f"format={own_code}.formats.read_raw",
        f"code=[{own_code}]",
        f"processes={processes}",
    )
    np.testing.assert_equal(images_by_id(dataset), expected)
    sources = Split(dataset, "train").texts("sources", np.arange(28))
    assert set(sources) == {"read_raw float32 8x8"}


def test_a_reader_that_fails_makes_a_bad_row(tmp_path: Path, survey: Path, own_code: str) -> None:
    without_endings(survey)
    (survey / "obj3").write_bytes(b"junk")
    settings = (
        "images='{id}'",
        f"format={own_code}.formats.read_raw",
        f"code=[{own_code}]",
        "on_bad=skip",
    )
    dataset = pack_survey(survey, tmp_path / "d", *settings)
    rejected = (dataset / "rejected.csv").read_text()
    assert "obj3: cannot be read as an image: ValueError: cannot reshape array" in rejected


def test_code_that_the_user_did_not_name_is_not_imported(
    tmp_path: Path, survey: Path, own_code: str
) -> None:
    recipe = survey / "recipe.yaml"
    recipe.write_text(recipe.read_text() + f"format: {own_code}.formats.read_raw\n")
    for code in ("code=[]", "code=[another]"):
        with pytest.raises(UserError, match=rf"add code=\[{own_code}\]"):
            pack_survey(survey, tmp_path / "d", code)
    assert own_code not in sys.modules
    assert not (tmp_path / "d.partial").exists()


def test_a_format_that_is_unknown_or_no_function_is_named(own_code: str) -> None:
    valid = "fits, npy, npz, hdf5, picture"
    with pytest.raises(UserError, match=f"format = jpg: unknown; valid: {valid}"):
        find_reader("jpg")
    with pytest.raises(UserError, match="is not a function"):
        find_reader(f"{own_code}.formats.not_a_function", [own_code])
    assert find_reader(None) is None


def test_a_zipped_file_with_a_large_empty_extension_is_read(tmp_path: Path) -> None:
    image = np.arange(16, dtype="f4").reshape(4, 4)
    weights = fits.ImageHDU(np.zeros((4200, 4200), "f4"))
    content = BytesIO()
    fits.HDUList([fits.PrimaryHDU(image), weights]).writeto(content)
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(content.getvalue(), 1))
    np.testing.assert_array_equal(read_image(tmp_path / "a.fits.gz", hdu=0)[0], image)
