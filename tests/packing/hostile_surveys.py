"""Recipes and survey files of somebody who wants to harm: each leads out of its folder, fills the
memory, or never ends. They are small on disk."""

import gzip
import io
import json
import os
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import yaml
from astropy.table import Table

from tests.packing.damaged_surveys import ROWS, the_pixels, the_recipe, the_rows

MIB = 1 << 20
ZEROS = bytes(32 * MIB)
Make = Callable[[Path], dict[str, Any] | str | bytes | None]
"""Write a survey into a folder; return its recipe, or the text of that, or nothing if it stands."""


def survey(folder: Path, **settings: Any) -> dict[str, Any]:
    """Write a sound survey of .npy files, and return its recipe."""
    the_rows().to_csv(folder / "catalogue.csv", index=False)
    for number, pixels in enumerate(the_pixels()):
        np.save(folder / f"obj{number}.npy", pixels)
    return the_recipe(**settings)


def outside(folder: Path) -> Path:
    """Write what a survey needs beside its folder."""
    other = folder.parent / "outside"
    other.mkdir(exist_ok=True)
    survey(other)
    np.save(other / "stack.npy", the_pixels())
    np.save(other / "labels.npy", np.arange(ROWS) % 2)
    with h5py.File(other / "x.h5", "w") as file:
        file["pixels"] = the_pixels()[0]
        file["stack"] = the_pixels()
        file["labels"] = np.arange(ROWS) % 2
        for name in the_rows():
            file[name] = the_rows()[name].tolist()
        file["table"] = the_rows()[["is_lens", "radius", "colour"]].to_records(index=False)
    the_pixels()[0].tofile(other / "raw")
    the_pixels().tofile(other / "raw_stack")
    return other


def plain(text: str | bytes) -> Make:
    return lambda folder: text


def with_settings(**settings: Any) -> Make:
    return lambda folder: survey(folder, **settings)


def with_outside(write: Callable[[Path, Path], object], **settings: Any) -> Make:
    """A recipe that names what lies outside, or a link that leads there."""

    def make(folder: Path) -> dict[str, Any]:
        write(folder, outside(folder))
        return survey(folder) | settings

    return make


def linked(name: str, target: str) -> Callable[[Path, Path], object]:
    return lambda folder, other: (folder / name).symlink_to(other / target)


def nothing(folder: Path, other: Path) -> None:
    pass


def absolute(folder: Path) -> dict[str, Any]:
    return survey(folder, catalogue=str(outside(folder) / "catalogue.csv"))


def folder_with_link(folder: Path) -> dict[str, Any]:
    (folder / "parts").mkdir()
    (folder / "parts" / "a.npy").symlink_to(outside(folder) / "stack.npy")
    return survey(folder, images=None, stack="parts")


def many_files(pattern: str) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        (folder / ("a" * 200 + ".npy")).write_bytes(b"")
        columns = {"id": "a", "label": None}
        return the_recipe(catalogue=None, images=pattern, columns=columns)

    return make


def pipe(name: str, **settings: Any) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        recipe = survey(folder)
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        return recipe | settings

    return make


def recipe_is_pipe(folder: Path) -> None:
    os.mkfifo(folder / "recipe.yaml")


def recipe_is_folder(folder: Path) -> None:
    (folder / "recipe.yaml").mkdir()


def recipe_is_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        here = Path.cwd()
        os.chdir(folder)  # the name of a socket must be short
        try:
            opened.bind("recipe.yaml")
        finally:
            os.chdir(here)


def laughs(levels: int = 9, width: int = 9) -> str:
    lines = ["a0: &a0 [" + "x," * width + "]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [" + f"*a{level - 1}," * width + "]")
    return "\n".join(lines)


def merges(levels: int = 8, width: int = 9) -> str:
    lines = ["a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(width)) + "}"]
    for level in range(1, levels + 1):
        below = ", ".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} {{<<: [{below}]}}")
    return "\n".join(lines)


def masked(folder: Path) -> dict[str, Any]:
    recipe = survey(folder, images="{id}.npz", key="a", masks={"key": "m", "bad": "& " + "1" * 30})
    for number, pixels in enumerate(the_pixels()):
        mask = np.zeros(pixels.shape, np.uint8)
        np.savez(folder / f"obj{number}.npz", a=pixels, m=mask)
    return recipe


def many_columns(folder: Path) -> dict[str, Any]:
    recipe = survey(folder)
    lines = [",".join(f"c{n}" for n in range(15_000)), ",".join("1" * 15_000)]
    (folder / "catalogue.csv").write_text("\n".join(lines))
    return recipe


ALONE = {"id": "id", "label": "is_lens"}

RECIPES: dict[str, tuple[Make, str]] = {
    "aliases of aliases": (plain(laughs()), "more than 200,000 values"),
    "an alias of a long text": (
        plain("a: &a " + "x" * 100_000 + "\nb: [" + "*a," * 5000 + "]"),
        "more than 200,000 values",
    ),
    "an alias in itself": (plain("a: &a [*a]"), "is a part of itself"),
    "aliases in merges": (plain(merges()), "more than 200,000 values"),
    "110,000 keys": (plain("".join(f"k{n}: \n" for n in range(110_000))), "200,000 values"),
    "5,000 keys": (plain("".join(f"k{n}: 1\n" for n in range(5000))), "more than 20 problems"),
    "a key of 100,000 letters": (plain("k" * 900 + ": {" + "a" * 900 + ": 1}"), "unknown"),
    "a large file": (plain("a: 1 #" + "x" * MIB), "more than 1,048,576 bytes"),
    "nested lists": (plain("a: " + "[" * 3000), "nested more than 50 deep"),
    "nested mappings": (plain("a: " + "{b: " * 3000), "nested more than 50 deep"),
    "a number of 5,000 digits": (plain("seed: " + "1" * 5001), "not valid YAML"),
    "a number of 4,000 digits": (with_settings(seed=10**3999), "seed = 1000.*more than 64 bits"),
    "a scale of 4,000 digits": (with_settings(pixel_scale=10**3999), "pixel_scale"),
    "a mask of 4,000 digits": (
        with_settings(bad_pixels={"mask": 10**3999}),
        r"bad_pixels\.mask.*64 bits",
    ),
    "planes of 4,000 digits": (with_settings(planes=[0, 10**3999]), "planes.*64 bits"),
    "bits of 30 digits": (masked, "have no such bit"),
    "5,000 bands": (with_settings(bands=[f"b{n}" for n in range(5000)]), "bands"),
    "15,000 features": (
        with_settings(columns={"features": [f"b{n}" for n in range(15_000)]}),
        "features",
    ),
    "a number that is padded far": (
        with_settings(images="{row:9999d}.npy"),
        "only a number's width",
    ),
    "15,000 columns": (many_columns, r"no column 'id'.*, \.\.\."),
    "an HDU of 4,000 digits": (with_settings(hdu=10**3999), "hdu"),
    "a number with colons": (plain("seed: " + "1:" * 400 + "1.5"), "not valid YAML"),
    "a set": (plain("bands: !!set {g, r}"), "settings have no tags"),
    "bytes": (plain("name: !!binary aGVsbG8="), "settings have no tags"),
    "a date that is none": (plain("name: !!timestamp 2020-99-99"), "settings have no tags"),
    "a number that is none": (plain("seed: !!int abc"), "does not fit"),
    "a mapping that is none": (plain("seed: !!map 3"), "not valid YAML"),
    "an object of Python": (plain("name: !!python/object:os.system x"), "settings have no tags"),
    "a key twice": (plain("a: 1\na: 2"), "stands twice"),
    "keys that are no texts": (plain("1: a\n2.5: b\nnull: c"), "Keys should be strings"),
    "a key that is a list": (plain("? [a, b]\n: 1"), "not valid YAML"),
    "tabs": (plain("a:\n\tb: 1"), "not valid YAML"),
    "UTF-16": (plain("name: toy".encode("utf-16")), "is no text"),
    "zeros": (plain(bytes(100)), "not valid YAML"),
    "nothing": (plain(""), "is empty"),
    "a folder": (recipe_is_folder, "is no file"),
    "a pipe": (recipe_is_pipe, "a pipe into which nothing is written"),
    "a socket": (recipe_is_socket, "is no file"),
    "catalogue above": (
        with_outside(nothing, catalogue="../outside/catalogue.csv"),
        "catalogue: .*leads out of the source folder.*follow_links=true",
    ),
    "catalogue absolute": (absolute, "catalogue: .*leads out of the source folder"),
    "catalogue linked": (
        with_outside(linked("c.csv", "catalogue.csv"), catalogue="c.csv"),
        r"catalogue: .*c\.csv leads out",
    ),
    "catalogue in a linked folder": (
        with_outside(linked("f", "."), catalogue="f/catalogue.csv"),
        "catalogue: .*leads out",
    ),
    "join above": (
        with_outside(nothing, join={"catalogue": "../outside/catalogue.csv", "key": "id"}),
        r"join\.catalogue: .*leads out",
    ),
    "stack above": (
        with_outside(nothing, images=None, stack="../outside/stack.npy"),
        "stack: .*leads out",
    ),
    "stack of a band linked": (
        with_outside(
            linked("r.npy", "stack.npy"), images=None, stack={"g": "obj0.npy", "r": "r.npy"}
        ),
        r"stack\.r: .*leads out",
    ),
    "stack in a folder linked": (folder_with_link, r"stack: .*a\.npy leads out"),
    "stack_labels above": (
        with_outside(
            nothing,
            **{"images": None, "stack": "obj0.npy", "catalogue": None, "columns": ALONE},
            stack_labels="../outside/labels.npy",
        ),
        "stack_labels: .*leads out",
    ),
    "images above": (with_settings(images="../outside/{id}.npy"), "leaves the source folder"),
    "images linked": (
        with_outside(linked("f", "."), images="f/{id}.npy"),
        "a link leads out of the source folder",
    ),
    "a pattern that backtracks": (many_files("{a:(a+)+}x.npy"), "takes more than 1 s"),
    "a pattern of many fields": (
        many_files("".join(f"{{a{n}}}" for n in range(12)) + "x.npy"),
        "takes more than 1 s",
    ),
    "a template of many fields": (with_settings(images="{id}" * 100_000), "images: .*longer than"),
    "a nested condition": (
        with_settings(where="not " * 3000 + "radius > 0"),
        "where = .*is not a condition",
    ),
    "a condition nested in brackets": (
        with_settings(where="(" * 3000 + "radius > 0" + ")" * 3000),
        "where = .*is not a condition",
    ),
    "a long condition": (
        with_settings(where="radius > 0" + " & radius > 0" * 50_000),
        "where = .*characters",
    ),
    "a long sum": (
        with_settings(where="radius" + " + radius" * 2000 + " > 0"),
        "where = .*nested more than 100 deep",
    ),
    "a long power": (with_settings(where="9 ** 9 ** 9 ** 9 > radius"), "cannot be understood"),
    "a number of a condition": (
        with_settings(where="radius > " + "1" * 5000),
        "where = .*is not a condition",
    ),
    "a cutout larger than memory": (
        with_settings(size=[10_000, 10_000], bands=["g", "r"]),
        "size: .*too many",
    ),
    "a catalogue that is a pipe": (pipe("catalogue.csv"), "a device or a pipe"),
    "a join that is a pipe": (
        pipe("more.csv", join={"catalogue": "more.csv", "key": "id"}),
        "a device or a pipe",
    ),
    "an image that is a pipe": (pipe("obj0.npy"), "is not a file"),
    "an archive that is a pipe": (
        pipe("a.tar", catalogue=None, images="{id}.npy", columns={"id": "id", "label": None}),
        "",
    ),
    "ids of 5,000 letters": (
        lambda folder: _long_ids(folder, 5000),
        "the id is longer than 500 characters",
    ),
}
"""Name: how to make it, and what the refusal says; nothing where it is no harm."""


def _long_ids(folder: Path, length: int) -> dict[str, Any]:
    recipe = survey(folder, images="obj{row}.npy")
    rows = the_rows()
    rows["id"] = [name * (length // 4) for name in rows["id"]]
    rows.to_csv(folder / "catalogue.csv", index=False)
    return recipe


# ---- files that lead out of themselves ----


def hdf5_image(write: Callable[[h5py.File, Path], object], key: str | None = "pixels") -> Make:
    """A survey whose images are HDF5 files that `write` fills."""

    def make(folder: Path) -> dict[str, Any]:
        other = outside(folder)
        the_rows().to_csv(folder / "catalogue.csv", index=False)
        for number in range(ROWS):
            with h5py.File(folder / f"obj{number}.h5", "w") as file:
                write(file, other)
        return the_recipe(images="{id}.h5", key=key)

    return make


def hdf5_table(write: Callable[[h5py.File, Path], object], **settings: Any) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        recipe = survey(folder, catalogue="c.h5", **settings)
        other = outside(folder)
        with h5py.File(folder / "c.h5", "w") as file:
            for name in the_rows():
                file[name] = the_rows()[name].tolist()
            write(file, other)
        return recipe

    return make


def hdf5_stack(write: Callable[[h5py.File, Path], object], **settings: Any) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        recipe = survey(folder, images=None, stack="s.h5", **settings)
        other = outside(folder)
        with h5py.File(folder / "s.h5", "w") as file:
            write(file, other)
        return recipe

    return make


def external_link(name: str, inner: str) -> Callable[[h5py.File, Path], object]:
    def write(file: h5py.File, other: Path) -> None:
        file.pop(name, None)
        file[name] = h5py.ExternalLink(str(other / "x.h5"), inner)

    return write


def through_links(file: h5py.File, other: Path) -> None:
    file["far"] = h5py.ExternalLink(str(other / "x.h5"), "/")
    file["pixels"] = h5py.SoftLink("/far/pixels")


def external_storage(shape: tuple[int, ...], raw: str) -> Callable[[h5py.File, Path], object]:
    def write(file: h5py.File, other: Path) -> None:
        place = [(str(other / raw), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("pixels", shape, "f4", external=place)

    return write


def external_column(file: h5py.File, other: Path) -> None:
    del file["radius"]
    place = [(str(other / "raw"), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("radius", (ROWS,), "f4", external=place)


def virtual(
    shape: tuple[int, ...], source: str | None, inner: str
) -> Callable[[h5py.File, Path], object]:
    def write(file: h5py.File, other: Path) -> None:
        file["far"] = h5py.ExternalLink(str(other / "x.h5"), "/")
        layout = h5py.VirtualLayout(shape, "f4")
        where = "." if source is None else str(other / source)
        layout[...] = h5py.VirtualSource(where, inner, shape)
        file.create_virtual_dataset("pixels", layout)

    return write


def labels_elsewhere(folder: Path) -> dict[str, Any]:
    other = outside(folder)
    np.save(folder / "stack.npy", the_pixels())
    with h5py.File(folder / "labels.h5", "w") as file:
        place = [(str(other / "raw"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("labels", (ROWS,), "f4", external=place)
    return the_recipe(
        **{"catalogue": None, "images": None, "stack": "stack.npy", "columns": ALONE},
        stack_labels="labels.h5",
    )


# ---- files that fill the memory ----


def zipped(start: bytes = b"", zeros: int = 512 * MIB) -> bytes:
    """Return a start and many zeros as gzip has them."""
    return gzip.compress(start) + gzip.compress(ZEROS, 1) * (zeros // len(ZEROS))


def image(ending: str, content: Callable[[], bytes], **settings: Any) -> Make:
    """A survey of which each image is such a file."""

    def make(folder: Path) -> dict[str, Any]:
        the_rows().to_csv(folder / "catalogue.csv", index=False)
        whole = content()
        for number in range(ROWS):
            (folder / f"obj{number}.{ending}").write_bytes(whole)
        return the_recipe(images=f"{{id}}.{ending}", **settings)

    return make


def file_of(name: str, content: Callable[[], bytes], **settings: Any) -> Make:
    """A survey of .npy files with one more file, which the recipe names."""

    def make(folder: Path) -> dict[str, Any]:
        recipe = survey(folder)
        (folder / name).write_bytes(content())
        return recipe | settings

    return make


def fits_header(shape: tuple[int, ...], bits: int = -32) -> bytes:
    cards = [f"SIMPLE  = {'T':>20}", f"BITPIX  = {bits:>20}", f"NAXIS   = {len(shape):>20}"]
    cards += [f"NAXIS{n + 1}  = {length:>20}" for n, length in enumerate(shape)]
    text = "".join(f"{card:80}" for card in [*cards, "END"])
    return text.ljust(-(-len(text) // 2880) * 2880).encode()


def npy_header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    stream = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def npz(shape: tuple[int, ...]) -> Callable[[], bytes]:
    """Return how to make an .npz file of zeros."""

    def make() -> bytes:
        stream = io.BytesIO()
        with (
            zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("a.npy", "w", force_zip64=True) as member,
        ):
            member.write(npy_header(shape))
            for _ in range(4 * int(np.prod(shape)) // len(ZEROS)):
                member.write(ZEROS)
        return stream.getvalue()

    return make


def lying_npz() -> bytes:
    """An .npz file that says its array is small."""
    content = bytearray(npz((256, 1024, 1024))())
    true_size = struct.pack("<I", len(npy_header((256, 1024, 1024))) + 4 * 256 * MIB)
    return bytes(content).replace(true_size, struct.pack("<I", 1000))


def hdf5_of_zeros(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Callable[[], bytes]:
    def make() -> bytes:
        stream = io.BytesIO()
        packed = zlib.compress(bytes(4 * int(np.prod(chunks))), 1)
        with h5py.File(stream, "w") as file:
            array = file.create_dataset("a", shape, "f4", chunks=chunks, compression="gzip")
            for start in range(0, shape[0], chunks[0]):
                offset = (start, *(0 for _ in shape[1:]))
                array.id.write_direct_chunk(offset, packed)
        return stream.getvalue()

    return make


def hdf5_of_claims() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("a", (10**9, 2, 8, 8), "f4", chunks=(1, 2, 8, 8))
    return stream.getvalue()


def picture(ending: str, shape: tuple[int, ...], dtype: str = "uint8") -> Callable[[], bytes]:
    def make() -> bytes:
        done, content = cv2.imencode(ending, np.zeros(shape, dtype))
        assert done
        return content.tobytes()

    return make


def tiff(side: int, pages: int = 1) -> Callable[[], bytes]:
    """A TIFF whose pages all have the same packed strip."""

    def make() -> bytes:
        strip = zlib.compress(bytes(side * side), 1)
        content = bytearray(b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip)
        for page in range(pages):
            tags = [(256, side), (257, side), (258, 8), (259, 8), (262, 1), (273, 8)]
            tags += [(277, 1), (278, side), (279, len(strip))]
            content += struct.pack("<H", len(tags))
            for tag, value in tags:
                content += struct.pack("<HHII", tag, 4, 1, value)
            next_page = len(content) + 4 if page < pages - 1 else 0
            content += struct.pack("<I", next_page)
        return bytes(content)

    return make


def parquet(rows: int) -> Callable[[], bytes]:
    def make() -> bytes:
        stream = io.BytesIO()
        columns = {name: pa.array([0], pa.int64()) for name in the_rows()}
        schema = pa.table(columns).schema
        with pq.ParquetWriter(stream, schema) as writer:
            indices = pa.array(np.zeros(rows, np.int64))
            writer.write_table(pa.table(dict.fromkeys(schema.names, indices)))
        return stream.getvalue()

    return make


def parquet_of_one_picture() -> bytes:
    """Many rows with one large picture, which the file has once."""
    stream = io.BytesIO()
    pixels = npy_header((4 * MIB,), "|u1") + bytes(4 * MIB)
    places = pa.array([0] * ROWS * 40, pa.int32())
    cells = pa.DictionaryArray.from_arrays(places, pa.array([pixels]))
    table = pa.table({"image": cells})
    pq.write_table(table, stream, compression="zstd", store_schema=False)
    return stream.getvalue()


def feather() -> bytes:
    stream = io.BytesIO()
    columns = dict.fromkeys(the_rows(), pa.array(np.zeros(32 * MIB // 2)))
    pyarrow.feather.write_feather(pa.table(columns), stream, compression="zstd")
    return stream.getvalue()


def tar_of(header: Callable[[tarfile.TarInfo], object]) -> Callable[[], bytes]:
    """A tar file with one member, of which the header lies."""

    def make() -> bytes:
        member = tarfile.TarInfo("obj0.json")
        header(member)
        return member.tobuf(tarfile.GNU_FORMAT) + b'{"id": "obj0"}'.ljust(512, b"\0") + bytes(1024)

    return make


def large_member(member: tarfile.TarInfo) -> None:
    member.size = 1 << 40


def long_name(member: tarfile.TarInfo) -> None:
    member.size = 1 << 40
    member.type = tarfile.GNUTYPE_LONGNAME


def long_pax(member: tarfile.TarInfo) -> None:
    member.size = 1 << 40
    member.type = tarfile.XHDTYPE


def csv_text() -> bytes:
    return the_rows().to_csv(index=False).encode()


def json_lines() -> bytes:
    rows = [json.dumps(row) for row in the_rows().to_dict("records")]
    return "\n".join([*rows, "[" * 100_000]).encode()


def votable() -> bytes:
    return b'<?xml version="1.0"?><VOTABLE version="1.3">' + b"<RESOURCE>" * 3000


def votable_elsewhere(folder: Path) -> dict[str, Any]:
    other = outside(folder)
    Table.from_pandas(the_rows()).write(other / "c.fits")
    text = (
        '<?xml version="1.0"?><VOTABLE version="1.3"><RESOURCE><TABLE>'
        '<FIELD name="id" datatype="char" arraysize="*"/>'
        f'<DATA><FITS><STREAM href="file://{other}/c.fits"/></FITS></DATA>'
        "</TABLE></RESOURCE></VOTABLE>"
    )
    (folder / "c.vot").write_text(text)
    return survey(folder, catalogue="c.vot")


def ecsv() -> bytes:
    head = "\n".join("# " + line for line in laughs().splitlines())
    return f"# %ECSV 1.0\n# ---\n{head}\n# datatype: *a8\nid is_lens\n1 2\n".encode()


def ecsv_of_merges() -> bytes:
    head = "\n".join("#   " + line for line in merges().splitlines())
    columns = "# datatype:\n# - {name: id, datatype: string}\n# - {name: is_lens, datatype: int64}"
    return f"# %ECSV 1.0\n# ---\n{columns}\n# meta:\n{head}\nid is_lens\no1 1\n".encode()


def entities() -> bytes:
    lines = ['<!ENTITY a0 "' + "x" * 1000 + '">']
    lines += [f'<!ENTITY a{n} "' + f"&a{n - 1};" * 10 + '">' for n in range(1, 9)]
    start = '<?xml version="1.0"?><!DOCTYPE VOTABLE [' + "".join(lines) + "]>"
    body = "<VOTABLE><RESOURCE><DESCRIPTION>&a8;</DESCRIPTION></RESOURCE></VOTABLE>"
    return (start + body).encode()


def npy_of(values: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        stream = io.BytesIO()
        np.save(stream, values, allow_pickle=True)
        return stream.getvalue()

    return make


STACKED = {"images": None}
WITHOUT = "would unpack to"
ELSEWHERE = "lie in other files|is a link into another file"

FILES: dict[str, tuple[Make, str]] = {
    "an image that is an external link": (
        hdf5_image(external_link("pixels", "pixels")),
        ELSEWHERE,
    ),
    "an image behind two links": (hdf5_image(through_links), ELSEWHERE),
    "an image in a linked group": (
        hdf5_image(external_link("far", "/"), key="far/pixels"),
        "far is|key|link into another file",
    ),
    "an image with external storage": (
        hdf5_image(external_storage((2, 8, 8), "raw")),
        ELSEWHERE,
    ),
    "an image that is virtual": (hdf5_image(virtual((2, 8, 8), "x.h5", "pixels")), ELSEWHERE),
    "an image that is virtual, within": (
        hdf5_image(virtual((2, 8, 8), None, "far/pixels")),
        ELSEWHERE,
    ),
    "an image that is virtual, without a key": (
        hdf5_image(virtual((2, 8, 8), "x.h5", "pixels"), key=None),
        ELSEWHERE,
    ),
    "an image that is virtual, of itself": (
        hdf5_image(virtual((2, 8, 8), None, "pixels")),
        "cannot be known",
    ),
    "a column that is an external link": (
        hdf5_table(external_link("radius", "radius")),
        ELSEWHERE,
    ),
    "a column with external storage": (hdf5_table(external_column), ELSEWHERE),
    "a table that is an external link": (
        hdf5_table(external_link("far", "/"), table="far"),
        ELSEWHERE,
    ),
    "a stack with external storage": (
        hdf5_stack(external_storage((ROWS, 2, 8, 8), "raw_stack")),
        ELSEWHERE,
    ),
    "a stack that is virtual": (hdf5_stack(virtual((ROWS, 2, 8, 8), "x.h5", "stack")), ELSEWHERE),
    "a stack that is an external link": (
        hdf5_stack(external_link("pixels", "stack"), key="pixels"),
        "key 'pixels' is not among|" + ELSEWHERE,
    ),
    "labels with external storage": (labels_elsewhere, ELSEWHERE),
    "an .npz image": (image("npz", npz((1, 8192, 4096))), WITHOUT),
    "an .npz image that lies": (image("npz", lying_npz), "cannot be read as an image"),
    "an .npz stack": (
        file_of("s.npz", npz((ROWS, 2, 4096, 4096)), stack="s.npz", **STACKED),
        WITHOUT,
    ),
    "an .npy image of claims": (
        image("npy", lambda: npy_header((10**9, 10**9))),
        "are not those of an array",
    ),
    "an .npy stack of claims": (
        file_of("s.npy", lambda: npy_header((10**9, 2, 8, 8)), stack="s.npy", **STACKED),
        "cannot be read as stack",
    ),
    "a zipped .npy image": (
        image("npy.gz", lambda: zipped(npy_header((8192, 4096 * 4)))),
        WITHOUT,
    ),
    "a FITS image of claims": (
        image("fits", lambda: fits_header((10**9, 10**9))),
        "too many for a cutout",
    ),
    "a FITS image of fewer claims": (
        image("fits", lambda: fits_header((8192, 8192)) + bytes(2880)),
        WITHOUT,
    ),
    "a zipped FITS image": (
        image("fits.gz", lambda: zipped(fits_header((8, 8, 2)) + bytes(2880))),
        WITHOUT,
    ),
    "a FITS image zipped by another program": (
        image("fits", lambda: b"BZh91AY&SY" + bytes(2880)),
        "by another program",
    ),
    "a zipped FITS stack": (
        file_of(
            "s.fits.gz", lambda: zipped(fits_header((8, 8, 2, ROWS))), stack="s.fits.gz", **STACKED
        ),
        WITHOUT,
    ),
    "a zipped FITS catalogue": (
        file_of("c.fits.gz", lambda: zipped(fits_header((8, 8))), catalogue="c.fits.gz"),
        WITHOUT,
    ),
    "an HDF5 image": (image("h5", hdf5_of_zeros((8192, 4096), (1024, 4096))), WITHOUT),
    "an HDF5 stack of one piece": (
        file_of(
            "s.h5",
            hdf5_of_zeros((65_536, 2, 16, 16), (65_536, 2, 16, 16)),
            stack="s.h5",
            **STACKED,
        ),
        WITHOUT,
    ),
    "an HDF5 stack of claims": (
        file_of("s.h5", hdf5_of_claims, stack="s.h5", **STACKED, catalogue=None, columns=ALONE),
        "most of which are empty",
    ),
    "a PNG": (image("png", picture(".png", (12_000, 12_000))), WITHOUT),
    "a PNG of deep colour": (image("png", picture(".png", (5000, 5000, 3), "uint16")), WITHOUT),
    "a TIFF": (image("tif", tiff(12_000)), WITHOUT),
    "a TIFF of many pages": (image("tif", tiff(4000, 2000)), WITHOUT),
    "a Parquet catalogue": (
        file_of("c.parquet", parquet(16 * MIB), catalogue="c.parquet"),
        "of memory",
    ),
    "a Parquet stack of one picture": (
        file_of("s.parquet", parquet_of_one_picture, stack="s.parquet", **STACKED),
        WITHOUT,
    ),
    "a Feather catalogue": (file_of("c.feather", feather, catalogue="c.feather"), "of memory"),
    "a zipped CSV catalogue": (
        file_of("c.csv.gz", lambda: zipped(csv_text()), catalogue="c.csv.gz"),
        WITHOUT,
    ),
    "a JSON catalogue that is nested": (
        file_of("c.jsonl", json_lines, catalogue="c.jsonl"),
        "is not JSON",
    ),
    "a VOTable that is nested": (file_of("c.vot", votable, catalogue="c.vot"), "catalogue"),
    "a VOTable whose data lie elsewhere": (votable_elsewhere, "its data lie elsewhere"),
    "an ECSV of aliases": (file_of("c.ecsv", ecsv, catalogue="c.ecsv"), "catalogue"),
    "an ECSV of merges": (
        file_of("c.ecsv", ecsv_of_merges, catalogue="c.ecsv"),
        "takes more than 2 s of the processor",
    ),
    "a VOTable of entities": (file_of("c.vot", entities, catalogue="c.vot"), "catalogue"),
    "a tar with a large member": (
        file_of("c.tar", tar_of(large_member), catalogue="c.tar"),
        "cut off|catalogue",
    ),
    "a tar with a long name": (
        file_of("c.tar", tar_of(long_name), catalogue="c.tar"),
        "catalogue",
    ),
    "a tar with a long header": (
        file_of("c.tar", tar_of(long_pax), catalogue=None, images="c.tar/{id}.npy", columns=ALONE),
        "tar archive",
    ),
    "a stack of texts": (
        file_of("s.npy", npy_of(np.array(["a"] * ROWS)), stack="s.npy", **STACKED),
        "cannot be read as a stack",
    ),
    "a stack of objects": (
        file_of("s.npy", npy_of(np.array([None] * ROWS)), stack="s.npy", **STACKED),
        "cannot be read as stack",
    ),
    "labels that are texts": (
        file_of(
            "l.npy",
            npy_of(np.array(["x"] * 6)),
            **STACKED,
            stack="obj0.npy",
            stack_labels="l.npy",
            catalogue=None,
            columns=ALONE,
        ),
        "",
    ),
}
"""Name: how to make it, and what the refusal says; nothing where it is no harm."""


def write_recipe(folder: Path, made: dict[str, Any] | str | bytes | None) -> Path:
    """Write what was made of a recipe, if it is not there already, and return its file."""
    file = folder / "recipe.yaml"
    if isinstance(made, dict):
        made = yaml.safe_dump(made)
    if isinstance(made, str):
        made = made.encode()
    if made is not None:
        file.write_bytes(made)
    return file
