"""Stacks in every form that a recipe can say: rows equal what NumPy wrote, or all is refused."""

import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lens_hpc import settings
from lens_hpc.dataset.dataset import Dataset
from lens_hpc.errors import UserError
from lens_hpc.packing import stack_files
from lens_hpc.packing.recipe import PackSettings
from lens_hpc.packing.stack_files import LazyRows, open_array
from lens_hpc.packing.stacks import open_stack
from tests.conftest import pack_survey

pytestmark = pytest.mark.slow

ROWS = 12
IMAGES = np.random.default_rng(0).integers(1, 200, (ROWS, 2, 6, 5))

RECIPE = """
name: stacked
catalogue: catalogue.csv
columns: {id: id, label: is_lens}
stack: %s
bands: [g, r]
pixel_scale: 0.2
units: adu
splits: {train: 1.0}
"""


def write_recipe(folder: Path, stack: str) -> Path:
    lines = "".join(f"o{i},{i % 2}\n" for i in range(ROWS))
    (folder / "catalogue.csv").write_text("id,is_lens\n" + lines)
    (folder / "recipe.yaml").write_text(RECIPE % stack)
    return folder


def packed_images(dataset: Path) -> dict[str, np.ndarray]:
    found = {}
    for split in Dataset(dataset).values():
        for sample in split:
            found[sample.id] = sample.image
    return found


def check_pack(folder: Path, *overrides: str, names: str = "o{}") -> dict[str, int]:
    """Pack, and compare all cutouts with IMAGES; return the labels."""
    dataset = pack_survey(folder, folder / "packed", *overrides)
    images = packed_images(dataset)
    assert len(images) == ROWS
    for row in range(ROWS):
        np.testing.assert_array_equal(images[names.format(row)], IMAGES[row])
    return {sample.id: sample.label for sample in Dataset(dataset)["train"]}


# ---- formats ----


def save_npz(file: Path, compressed: bool) -> None:
    save = np.savez_compressed if compressed else np.savez
    save(file, x=IMAGES.astype("f4"), y=np.arange(3))


def save_hdf5(file: Path, key: str, **options: object) -> None:
    with h5py.File(file, "w") as stream:
        stream.create_dataset(key, data=IMAGES.astype(options.pop("type", "f4")), **options)
        stream["another"] = np.arange(3)


def save_fits(file: Path, *hdus: fits.hdu.base._BaseHDU) -> None:
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(file)


def scaled_hdu() -> fits.ImageHDU:
    """Integers whose values are half as large, as BSCALE and BZERO say."""
    hdu = fits.ImageHDU(IMAGES.astype("f8"))
    hdu.scale("int16", bscale=0.5, bzero=3)
    return hdu


FORMATS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "plain.npy": (lambda file: np.save(file, IMAGES.astype("f4")), ()),
    "fortran.npy": (lambda file: np.save(file, np.asfortranarray(IMAGES, dtype="i4")), ()),
    "big.npy": (lambda file: np.save(file, IMAGES.astype(">u2")), ()),
    "stored.npz": (lambda file: save_npz(file, False), ("key=x",)),
    "squeezed.npz": (lambda file: save_npz(file, True), ("key=x",)),
    "plain.h5": (lambda file: save_hdf5(file, "x"), ("key=x",)),
    "nested.h5": (lambda file: save_hdf5(file, "train/images"), ("key=train/images",)),
    "gzip.hdf5": (lambda file: save_hdf5(file, "x", compression="gzip"), ("key=x",)),
    "big.h5": (lambda file: save_hdf5(file, "x", type=">f8"), ("key=x",)),
    "no_ending": (lambda file: save_hdf5(file, "x"), ("key=x",)),
    "float.fits": (lambda file: save_fits(file, fits.ImageHDU(IMAGES.astype("f4"))), ()),
    "unsigned.fits": (lambda file: save_fits(file, fits.ImageHDU(IMAGES.astype("u2"))), ()),
    "scaled.fits": (lambda file: save_fits(file, scaled_hdu()), ()),
    "rice.fits.fz": (lambda file: save_fits(file, fits.CompImageHDU(IMAGES.astype("i4"))), ()),
    "float.fits.gz": (lambda file: save_fits(file, fits.ImageHDU(IMAGES.astype("f4"))), ()),
    "named.fits": (
        lambda file: save_fits(
            file, fits.ImageHDU(np.zeros((3, 3))), fits.ImageHDU(IMAGES.astype("i2"), name="SCI")
        ),
        ("hdu=SCI",),
    ),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stack_of_every_format_is_read_to_the_bit(
    tmp_path: Path, name: str, processes: int
) -> None:
    write, overrides = FORMATS[name]
    write(tmp_path / name)
    write_recipe(tmp_path, name)
    check_pack(tmp_path, *overrides, f"processes={processes}", "shard_mib=1")


@pytest.mark.parametrize("name", ["plain.npy", "stored.npz", "plain.h5", "float.fits"])
def test_what_lies_plain_in_a_file_is_mapped(tmp_path: Path, name: str) -> None:
    FORMATS[name][0](tmp_path / name)
    key = "x" if FORMATS[name][1] else None
    assert isinstance(open_array(tmp_path / name, key, None), np.memmap)


def test_lazy_rows_are_opened_anew_in_another_process(tmp_path: Path) -> None:
    FORMATS["gzip.hdf5"][0](tmp_path / "gzip.hdf5")
    rows = open_array(tmp_path / "gzip.hdf5", "x", None)
    assert isinstance(rows, LazyRows)
    np.testing.assert_array_equal(rows[4], IMAGES[4])
    assert rows.__getstate__()["_rows"] is None


@pytest.mark.parametrize("blank", [-99, 0])
@pytest.mark.parametrize("kind", ["plain", "rice", "gz"])
def test_an_integer_cube_with_blank_pixels_has_nan_there(
    tmp_path: Path, blank: int, kind: str
) -> None:
    data = IMAGES.astype("i2")
    data[5, 1, 2, 3] = blank
    hdu = fits.CompImageHDU(data) if kind == "rice" else fits.ImageHDU(data)
    hdu.header["BLANK"] = blank
    name = "blank.fits.gz" if kind == "gz" else "blank.fits"
    save_fits(tmp_path / name, hdu)
    write_recipe(tmp_path, name)
    with pytest.raises(UserError, match=r"blank\.fits(.gz)?\[5\].*1 of 30 pixels are NaN"):
        pack_survey(tmp_path, tmp_path / "packed")


@pytest.mark.parametrize("kind", ["plain", "squeezed", "gz", "float_zero"])
def test_a_cube_of_long_numbers_without_a_sign_keeps_its_lowest_bits(
    tmp_path: Path, kind: str
) -> None:
    numbers = IMAGES.astype("u8") + np.uint64(2**63 + 2**60)
    hdu = fits.CompImageHDU if kind == "squeezed" else fits.ImageHDU
    name = "long.fits.gz" if kind == "gz" else "long.fits"
    options = {"compression_type": "GZIP_1"} if kind == "squeezed" else {}
    save_fits(tmp_path / name, hdu(numbers, **options))
    if kind == "float_zero":
        card = b"BZERO   =  9223372036854775808"
        content = (tmp_path / name).read_bytes()
        assert card in content
        (tmp_path / name).write_bytes(content.replace(card, b"BZERO   = 9223372036854775808."))
    rows = open_array(tmp_path / name, None, None)
    assert rows[3].dtype == np.uint64
    np.testing.assert_array_equal(rows[3], numbers[3])


@pytest.mark.parametrize("kind", ["bfloat16", "twelve_bits"])
def test_hdf5_numbers_that_numpy_has_no_type_for_are_read_by_their_library(
    tmp_path: Path, kind: str
) -> None:
    stored = h5py.h5t.IEEE_F32LE.copy() if kind == "bfloat16" else h5py.h5t.STD_U16LE.copy()
    if kind == "bfloat16":
        stored.set_fields(15, 7, 8, 0, 7)
        stored.set_size(2)
        stored.set_ebias(127)
    else:
        stored.set_precision(12)
        stored.set_offset(4)
    images = IMAGES.astype("f4" if kind == "bfloat16" else "u2")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        space = h5py.h5s.create_simple(images.shape)
        dataset = h5py.h5d.create(file.id, b"x", stored, space)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, images)
    rows = open_array(tmp_path / "x.h5", None, None)
    np.testing.assert_array_equal(rows[3], IMAGES[3])


# ---- layouts ----


def test_a_stack_for_each_band(tmp_path: Path) -> None:
    for number, band in enumerate("gr"):
        np.save(tmp_path / f"{band}.npy", IMAGES[:, number])
    write_recipe(tmp_path, "{r: r.npy, g: g.npy}")
    check_pack(tmp_path)


def test_channels_last_of_a_band_that_has_no_axis_for_them(tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", IMAGES[:, 0, :, :, None])
    np.save(tmp_path / "r.npy", IMAGES[:, 1])
    write_recipe(tmp_path, "{g: g.npy, r: r.npy}")
    check_pack(tmp_path, "stack_axes=NHWB")


def test_bands_are_arrays_of_one_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["bands/g"], file["bands/r"] = IMAGES[:, 0], IMAGES[:, 1]
    write_recipe(tmp_path, "all.h5")
    check_pack(tmp_path, "key=bands/{band}")
    hdus = [fits.ImageHDU(IMAGES[:, number].astype("i2")) for number in (1, 0)]
    save_fits(tmp_path / "all.fits", *hdus)
    (tmp_path / "packed").rename(tmp_path / "packed_before")
    check_pack(tmp_path, "stack=all.fits", "hdu={g: 2, r: 1}")


def test_bands_of_other_sizes_are_resampled(tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", np.kron(IMAGES[:, 0], np.ones((1, 2, 2))) / 4)
    np.save(tmp_path / "r.npy", IMAGES[:, 1])
    write_recipe(tmp_path, "{g: g.npy, r: r.npy}")
    dataset = pack_survey(tmp_path, tmp_path / "packed", "pixel_scale={g: 0.1, r: 0.2}")
    images = packed_images(dataset)
    assert images["o3"].shape == (2, 12, 10)
    np.testing.assert_allclose(images["o3"].sum(axis=(1, 2)), IMAGES[3].sum(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("ending", [".npy", ".fits"])
def test_a_stack_in_several_files(tmp_path: Path, ending: str) -> None:
    names = []
    for number, part in enumerate(np.split(IMAGES.astype("f4"), [5, 6])):
        names.append(f"part{number}{ending}")
        if ending == ".npy":
            np.save(tmp_path / names[-1], part)
        else:
            fits.PrimaryHDU(part).writeto(tmp_path / names[-1])
    write_recipe(tmp_path, f"[{', '.join(names)}]")
    check_pack(tmp_path)


def test_a_folder_of_hdf5_files(tmp_path: Path) -> None:
    """As the Multimodal Universe has them: healpix=*/001-of-001.hdf5, with a dataset a column."""
    (tmp_path / "recipe.yaml").write_text(RECIPE % "survey")
    for number, rows in ((17, range(5)), (3, range(5, ROWS))):
        folder = tmp_path / "survey" / f"healpix={number}"
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("no data")
        with h5py.File(folder / "001-of-001.hdf5", "w") as file:
            file["object_id"] = [f"o{row}".encode() for row in rows]
            file["image_array"] = IMAGES[rows].astype("f4")
            file["image_band"] = [[b"g", b"r"] for _ in rows]
    settings = ("catalogue=survey", "columns.id=object_id", "columns.label=null")
    check_pack(tmp_path, *settings, "key=image_array")


def test_pictures_in_a_column_of_parquet(tmp_path: Path) -> None:
    lines = [{"bytes": png_of(image), "path": None} for image in IMAGES[:, 0]]
    table = pa.table({"id": [f"o{row}" for row in range(ROWS)], "image": lines})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=5)
    (tmp_path / "recipe.yaml").write_text(RECIPE % "train.parquet")
    settings = ("catalogue=train.parquet", "columns.label=null", "bands=[g]", "key=image")
    images = packed_images(pack_survey(tmp_path, tmp_path / "p", *settings))
    for row in range(ROWS):
        np.testing.assert_array_equal(images[f"o{row}"][0], IMAGES[row, 0])


def png_of(plane: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(plane.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_channels_last_and_no_band_axis(tmp_path: Path) -> None:
    np.save(tmp_path / "last.npy", np.moveaxis(IMAGES, 1, -1))
    write_recipe(tmp_path, "last.npy")
    check_pack(tmp_path, "stack_axes=NHWB")
    np.save(tmp_path / "one.npy", IMAGES[:, 0])
    dataset = pack_survey(
        tmp_path, tmp_path / "one", "stack=one.npy", "stack_axes=NHW", "bands=[g]"
    )
    np.testing.assert_array_equal(packed_images(dataset)["o3"][0], IMAGES[3, 0])


def test_an_array_for_each_class(tmp_path: Path) -> None:
    np.save(tmp_path / "lenses.npy", IMAGES[:4])
    np.save(tmp_path / "nonlenses.npy", IMAGES[4:])
    write_recipe(tmp_path, "[lenses.npy, nonlenses.npy]")
    overrides = ("catalogue=null", "stack_labels=[1, 0]")
    labels = check_pack(tmp_path, *overrides, names="{}")
    assert labels == {str(row): int(row < 4) for row in range(ROWS)}


def save_parts(folder: Path, names: list[str], images: np.ndarray) -> None:
    folder.mkdir()
    for name, part in zip(names, np.array_split(images, len(names)), strict=True):
        np.save(folder / name, part)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    save_parts(tmp_path / "lenses", ["a.npy", "b.npy"], IMAGES[:4])
    save_parts(tmp_path / "others", ["c.npy"], IMAGES[4:])
    write_recipe(tmp_path, "[lenses, others]")
    overrides = ("catalogue=null", "stack_labels=[1, 0]")
    labels = check_pack(tmp_path, *overrides, names="{}")
    assert labels == {str(row): int(row < 4) for row in range(ROWS)}


@pytest.mark.parametrize("kind", ["npy", "column", "npz", "hdf5", "bool", "text", "missing"])
def test_labels_in_a_file_beside_the_stack(tmp_path: Path, kind: str) -> None:
    labels = np.arange(ROWS) % 2
    expected = {str(row): int(label) for row, label in enumerate(labels)}
    np.save(tmp_path / "x.npy", IMAGES)
    file, key = "y.npy", "null"
    match kind:
        case "npy":
            np.save(tmp_path / file, labels)
        case "column":
            np.save(tmp_path / file, labels[:, None].astype("f4"))
        case "bool":
            np.save(tmp_path / file, labels.astype(bool))
        case "text":
            np.save(tmp_path / file, labels.astype("S1"))
        case "missing":
            np.save(tmp_path / file, np.where(np.arange(ROWS) == 3, np.nan, labels))
            expected["3"] = -1
        case "npz":
            file, key = "y.npz", "y"
            np.savez(tmp_path / file, y=labels, z=labels)
        case _:
            file, key = "y.h5", "train/y"
            with h5py.File(tmp_path / file, "w") as stream:
                stream["train/y"], stream["z"] = labels, labels
    write_recipe(tmp_path, "x.npy")
    overrides = ("catalogue=null", f"stack_labels={file}", f"stack_labels_key={key}")
    assert check_pack(tmp_path, *overrides, names="{}") == expected


def test_files_of_a_stack_may_be_its_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "x_train.npz", x=IMAGES[:8], y=np.arange(8) % 2)
    np.savez(tmp_path / "x_test.npz", x=IMAGES[8:], y=np.arange(4) % 2)
    write_recipe(tmp_path, "[x_train.npz, x_test.npz]")
    names = "{x_train: train, x_test: test}"
    settings = ("columns.split=file", f"columns.split_names={names}", "key=x", "catalogue=null")
    dataset = Dataset(pack_survey(tmp_path, tmp_path / "p", *settings, "columns.label=null"))
    assert sorted(dataset["test"].ids(), key=int) == ["8", "9", "10", "11"]
    assert dataset["train"].record.unlabelled == 8


# ---- refused ----


@pytest.mark.parametrize("length", [ROWS - 1, ROWS + 1, 2 * ROWS])
def test_a_stack_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    np.save(tmp_path / "x.npy", np.resize(IMAGES, (length, 2, 6, 5)))
    write_recipe(tmp_path, "x.npy")
    with pytest.raises(UserError, match=f"{length} cutouts.*catalogue.csv has {ROWS} rows"):
        pack_survey(tmp_path, tmp_path / "p")
    with pytest.raises(UserError, match=f"{length} cutouts"):
        pack_survey(tmp_path, tmp_path / "p", "on_bad=skip")


def test_rows_that_where_leaves_out_shift_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    write_recipe(tmp_path, "x.npy")
    settings = ("where=id != 'o0' & id != 'o5'",)
    images = packed_images(pack_survey(tmp_path, tmp_path / "p", *settings))
    assert len(images) == ROWS - 2
    for name, image in images.items():
        np.testing.assert_array_equal(image, IMAGES[int(name[1:])])


def test_bands_of_different_lengths_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "g.npy", IMAGES[:, 0])
    np.save(tmp_path / "r.npy", IMAGES[:-1, 1])
    write_recipe(tmp_path, "{g: g.npy, r: r.npy}")
    with pytest.raises(UserError, match=r"r\.npy: the stack has 11 cutouts"):
        pack_survey(tmp_path, tmp_path / "p", "catalogue=null", "columns.label=null")


@pytest.mark.parametrize("overrides", [("stack_labels=[1, 0]",), ("columns.label=file == 'g_a'",)])
def test_bands_whose_files_are_cut_otherwise_are_refused(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    for number, (band, cut) in enumerate((("g", 3), ("r", 5))):
        np.save(tmp_path / f"{band}_a.npy", IMAGES[:cut, number])
        np.save(tmp_path / f"{band}_b.npy", IMAGES[cut:, number])
    write_recipe(tmp_path, "{g: [g_a.npy, g_b.npy], r: [r_a.npy, r_b.npy]}")
    told = r"of r is cut .* that of g: r_a\.npy has 5 cutouts, not 3; r_b\.npy has 7"
    with pytest.raises(UserError, match=told):
        pack_survey(tmp_path, tmp_path / "p", "catalogue=null", *overrides)


@pytest.mark.parametrize(
    "overrides", [(), ("catalogue=null", "stack_labels=y.npy")], ids=["catalogue", "labels"]
)
def test_a_folder_that_is_not_in_the_order_of_its_numbers_is_refused(
    tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    save_parts(tmp_path / "parts", [f"batch_{number}.npy" for number in range(ROWS)], IMAGES)
    np.save(tmp_path / "y.npy", np.arange(ROWS) % 2)
    write_recipe(tmp_path, "parts")
    told = (
        r"parts: parts/batch_10\.npy comes before parts/batch_2\.npy.*rows of (catalogue.csv|y.npy)"
    )
    with pytest.raises(UserError, match=told):
        pack_survey(tmp_path, tmp_path / "p", *overrides)

    for number in range(10):
        (tmp_path / f"parts/batch_{number}.npy").rename(tmp_path / f"parts/batch_0{number}.npy")
    check_pack(tmp_path, *overrides, names="{}" if overrides else "o{}")


@pytest.mark.parametrize(
    ("name", "override", "told"),
    [
        ("plain.npy", "key=x", "leave its key out"),
        ("plain.npy", "hdu=1", "leave hdu out"),
        ("stored.npz", "hdu=1", "leave hdu out"),
        ("plain.h5", "hdu=1", "leave hdu out"),
        ("float.fits", "key=SCI", "the key 'SCI' is for other files"),
    ],
)
def test_a_setting_that_the_file_does_not_know_is_refused(
    tmp_path: Path, name: str, override: str, told: str
) -> None:
    write, overrides = FORMATS[name]
    write(tmp_path / name)
    write_recipe(tmp_path, name)
    with pytest.raises(UserError, match=rf"{name}: .*{told}"):
        pack_survey(tmp_path, tmp_path / "p", *overrides, override)


@pytest.mark.parametrize("kind", ["virtual", "external"])
def test_hdf5_pixels_in_another_file_are_refused_with_its_name(tmp_path: Path, kind: str) -> None:
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["y"] = IMAGES
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if kind == "virtual":
            layout = h5py.VirtualLayout(IMAGES.shape, IMAGES.dtype)
            layout[...] = h5py.VirtualSource("source.h5", "y", IMAGES.shape)
            file.create_virtual_dataset("x", layout)
        else:
            outside = [("source.h5", 0, IMAGES.nbytes)]
            file.create_dataset("x", IMAGES.shape, IMAGES.dtype, external=outside)
    with pytest.raises(ValueError, match=r"pixels of x lie in other files, .*source\.h5: name"):
        open_array(tmp_path / "x.h5", None, None)


NO_IMAGES = {
    "complex": IMAGES[3].astype(complex),
    "text": np.full((2, 6, 5), "a"),
    "record": np.zeros((2, 6, 5), [("a", "f4")]),
    "row": np.arange(5.0),
    "number": np.float32(3),
    "empty": np.zeros((2, 0, 5)),
    "bool": IMAGES[3] > 50,
    "time": np.zeros((2, 6, 5), "M8[s]"),
}


@pytest.mark.parametrize("kind", NO_IMAGES)
@pytest.mark.parametrize("bad_row", [0, 3])
def test_a_cell_of_parquet_that_is_no_image_is_a_bad_row(
    tmp_path: Path, kind: str, bad_row: int
) -> None:
    cells = [npy_of(image) for image in IMAGES]
    cells[bad_row] = npy_of(NO_IMAGES[kind])
    pq.write_table(pa.table({"image": cells}), tmp_path / "x.parquet")
    write_recipe(tmp_path, "x.parquet")
    images = packed_images(pack_survey(tmp_path, tmp_path / "p", "on_bad=skip"))
    assert set(images) == {f"o{row}" for row in range(ROWS) if row != bad_row}
    assert f"x.parquet[{bad_row}]: cannot be read" in (tmp_path / "p/rejected.csv").read_text()


def npy_of(image: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, image)
    return stream.getvalue()


def test_pictures_have_no_channels_last(tmp_path: Path) -> None:
    cells = [png_of(image) for image in IMAGES[:, 0]]
    pq.write_table(pa.table({"image": cells}), tmp_path / "x.parquet")
    write_recipe(tmp_path, "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet: .*leave stack_axes out"):
        pack_survey(tmp_path, tmp_path / "p", "bands=[g]", "stack_axes=NHWB")


def write_wrong(file: Path, kind: str) -> None:
    match kind:
        case "absent":
            pass
        case "axes":
            np.save(file, IMAGES[:, 0])
        case "objects":
            np.save(file, np.array([{}, None]), allow_pickle=True)
        case "complex":
            np.save(file, IMAGES.astype(complex))
        case "scalar":
            np.save(file, np.float32(3))
        case "pickle":
            file.write_bytes(pickle.dumps(IMAGES))
        case "cut":
            np.save(file, IMAGES)
            file.write_bytes(file.read_bytes()[:-100])
        case _:
            file.write_bytes(b"")


@pytest.mark.parametrize(
    "kind", ["absent", "axes", "objects", "complex", "scalar", "pickle", "cut", "empty"]
)
@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".fits"])
def test_what_is_no_stack_is_refused_with_its_name(tmp_path: Path, kind: str, ending: str) -> None:
    write_wrong(tmp_path / "x.npy", kind)
    if kind != "absent":
        (tmp_path / "x.npy").rename(tmp_path / f"x{ending}")
    write_recipe(tmp_path, f"x{ending}")
    with pytest.raises(UserError, match=rf"x\{ending}"):
        pack_survey(tmp_path, tmp_path / "p")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (("stack_labels=[1]",), "stack_labels is for a stack without a catalogue"),
        (("catalogue=null", "stack_labels=[1, 0]"), "got 2 for 1 files"),
        (("catalogue=null", "stack_labels=[1]", "stack_labels_key=y"), "stack_labels_key"),
        (("stack=[]",), "stack must name a file"),
        (("stack={g: x.npy}",), "stack must name the bands g, r"),
        (("catalogue=null", "stack_labels=y.npy"), r"y\.npy: there is no such file"),
        (("catalogue=null", "stack_labels=x.npy"), "must hold one label for each of the 12"),
        (("catalogue=null",), r"no column 'is_lens' \(columns.label\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, settings: tuple[str, ...], told: str
) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    write_recipe(tmp_path, "x.npy")
    with pytest.raises(UserError, match=told):
        pack_survey(tmp_path, tmp_path / "p", *settings)


# ---- any order of any rows ----


@given(
    lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(lambda some: sum(some) > 0),
    seed=st.integers(0, 99),
    axes=st.sampled_from(["NBHW", "NHWB"]),
    dtype=st.sampled_from(["f4", ">f4", "i2", ">i4", "u1", "f8"]),
)
def test_any_rows_of_any_files_are_the_rows_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int, axes: str, dtype: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    images = rng.integers(0, 200, (count, 2, 3, 4)).astype(dtype)
    names = []
    for number, part in enumerate(np.split(images, np.cumsum(lengths)[:-1])):
        names.append(f"{number}.npy")
        np.save(folder / names[-1], np.moveaxis(part, 1, -1) if axes == "NHWB" else part)

    recipe = PackSettings(
        name="any",
        stack=tuple(names),
        stack_axes=axes,
        bands=("g", "r"),
        pixel_scale=1,
        units="u",
        source=folder,
        output=folder / "out",
    )
    rows = rng.integers(0, count, 5)
    stack = open_stack(recipe, folder, rows, count)
    for position, row in enumerate(rows):
        (image,) = stack.read(position)
        assert image.dtype.isnative
        np.testing.assert_array_equal(image, images[row])


@pytest.mark.parametrize("unit", ["MJy/sr", "count", ""])
def test_the_unit_of_a_cube_decides_how_a_band_is_resampled(tmp_path: Path, unit: str) -> None:
    """A surface brightness of 10 stays 10 on a grid three times as fine; a flux is divided."""
    source = tmp_path / "s"
    source.mkdir()
    rng = np.random.default_rng(0)
    for band, side in (("g", 12), ("r", 4)):
        cube = rng.normal(10, 0.1, (4, side, side)).astype(np.float32)
        header = fits.Header({"BUNIT": unit} if unit else {})
        fits.PrimaryHDU(cube, header).writeto(source / f"{band}.fits")
    (source / "c.csv").write_text("id,is_lens\n" + "".join(f"o{i},{i % 2}\n" for i in range(4)))
    (source / "recipe.yaml").write_text(
        "name: t\ncatalogue: c.csv\ncolumns: {id: id, label: is_lens}\n"
        "stack: {g: g.fits, r: r.fits}\nstack_axes: NHW\nbands: [g, r]\n"
        "pixel_scale: {g: 0.1, r: 0.3}\nunits: native\nsplits: {train: 1.0}\n"
    )
    pack_survey(source, tmp_path / "d")
    mean = Dataset(tmp_path / "d")["train"][:].images[:, 1].mean()
    assert mean == pytest.approx(10 if unit == "MJy/sr" else 10 / 9, rel=0.05)


SPARSE_ROWS = 4200


def sparse_images() -> np.ndarray:
    """Counts of few photons, which shrink by more than a hundred."""
    images = np.zeros((SPARSE_ROWS, 64, 64), "i4")
    images[:, 32, 32] = 1 + np.arange(SPARSE_ROWS) % 7
    return images


def save_sparse(file: Path) -> np.ndarray:
    images = sparse_images()
    if file.suffix == ".npz":
        np.savez_compressed(file, x=images)
    elif file.suffix == ".h5":
        with h5py.File(file, "w") as opened:
            options = {"chunks": (50, 64, 64), "compression": "gzip", "shuffle": True}
            opened.create_dataset("x", data=images, **options)
    elif file.suffix == ".parquet":
        lists = pa.FixedSizeListArray.from_arrays(images.ravel(), 64)
        lists = pa.FixedSizeListArray.from_arrays(lists, 64)
        pq.write_table(pa.table({"x": lists}), file, compression="zstd")
    else:
        image = fits.CompImageHDU(images, compression_type="GZIP_1", tile_shape=(50, 64, 64))
        fits.HDUList([fits.PrimaryHDU(), image]).writeto(file)
    assert images.nbytes > 100 * file.stat().st_size
    return images


def open_of(folder: Path, file: Path) -> Any:
    (folder / "recipe.yaml").write_text(RECIPE % file.name)
    overrides = [f"source={folder}", f"output={folder / 'd'}", "stack_axes=NHW", "bands=[g]"]
    recipe = settings.load(PackSettings, folder / "recipe.yaml", overrides)
    return open_stack(recipe, folder, np.arange(SPARSE_ROWS), SPARSE_ROWS)


@pytest.mark.parametrize("name", ["s.npz", "s.h5", "s.parquet", "s.fits.fz"])
def test_a_stack_that_is_nearly_empty_is_read(tmp_path: Path, name: str) -> None:
    images = save_sparse(tmp_path / name)
    stack = open_of(tmp_path, tmp_path / name)
    np.testing.assert_array_equal(stack.read(SPARSE_ROWS - 1)[0][0], images[-1])


def test_a_stack_that_is_read_at_once_must_fit_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_sparse(tmp_path / "s.npz")
    monkeypatch.setattr(stack_files, "half_of_memory", lambda: 32 << 20)
    with pytest.raises(UserError, match=r"s\.npz: .*would unpack to 68,812,928 bytes of memory"):
        open_of(tmp_path, tmp_path / "s.npz")


def test_a_stack_of_one_large_tile_is_refused(tmp_path: Path) -> None:
    tile = fits.CompImageHDU(np.zeros((40, 1024, 1024), "i4"), tile_shape=(40, 1024, 1024))
    fits.HDUList([fits.PrimaryHDU(), tile]).writeto(tmp_path / "s.fits.fz")
    with pytest.raises(UserError, match="would unpack to"):
        open_of(tmp_path, tmp_path / "s.fits.fz")
