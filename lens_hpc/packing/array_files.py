"""Arrays in files: .npy, .npz and HDF5."""

import gzip
import math
import zipfile
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any

import h5py
import numpy as np
from numpy.lib import format as npy

from lens_hpc.dataset.verdict import first_few
from lens_hpc.packing.fits_images import (
    GZIP_MAGIC,
    MOST_PIXELS,
    Hdu,
    check_pixel_count,
    check_unpacked,
)

NAMES_SHOWN = 30
CHUNK_BYTES = 1 << 20
MOST_LINKS = 16
MOST_BYTES = 8 * MOST_PIXELS
"""A few bytes may unzip to more than there is memory."""


def read_npy(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read as np.load does, but twice as fast: a survey's files share one header, parsed once."""
    if key is not None:
        raise ValueError("a .npy file holds one array without a name; leave key out")
    refuse_hdu(hdu)
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - no Path, and no buffer beside ours
        return decode_npy(file.readall())


def decode_npy(content: bytes | bytearray) -> np.ndarray:
    """Return the array of an .npy file that has this content, perhaps gzipped."""
    if content.startswith(GZIP_MAGIC):
        content = _unzip(bytes(content))

    # Bytes 8 and 9 of version 1.0 hold the length of the header that follows them, later ones
    # take two more. Byte 6 is the version.
    length_bytes = 2 if content[6:7] <= b"\x01" else 4
    header_length = 8 + length_bytes + int.from_bytes(content[8 : 8 + length_bytes], "little")
    shape, is_fortran, dtype = _parse_npy_header(bytes(content[:header_length]))

    # Objects would be pickles, which run code; a file of another length is damaged.
    length = len(content)
    expected_length = header_length + dtype.itemsize * math.prod(shape)
    if dtype.hasobject or length != expected_length:
        raise ValueError(f"{length:,} bytes are not those of an array {shape} of {dtype}")

    pixels = np.frombuffer(content, dtype, offset=header_length)
    return pixels.reshape(shape, order="F" if is_fortran else "C")


def _unzip(content: bytes) -> bytearray:
    unzipped = bytearray()
    with gzip.open(BytesIO(content)) as file:
        while len(unzipped) <= MOST_BYTES and (chunk := file.read(CHUNK_BYTES)):
            unzipped += chunk
            check_unpacked(len(unzipped), len(content))
    if len(unzipped) > MOST_BYTES:
        raise ValueError("unzipped, it is too large for a cutout")
    return unzipped


@lru_cache(maxsize=64)
def _parse_npy_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    stream = BytesIO(header)
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)

    # Version 3.0 differs from 2.0 in the names of fields alone, and pixels have none.
    if version in ((2, 0), (3, 0)):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"version {version} of .npy is not known")


def read_npz(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read one array of an .npz file; `key` names it where there are several."""
    refuse_hdu(hdu)
    with np.load(path, allow_pickle=False) as arrays:
        name = choose_array(list(arrays.files), key)
        member = npz_member(arrays, name)
        check_unpacked(member.file_size, member.compress_size)
        if member.file_size > MOST_BYTES:
            raise ValueError("unzipped, it is too large for a cutout")
        return np.asarray(arrays[name])


def npz_member(arrays: Any, name: str) -> zipfile.ZipInfo:
    """Return where an array of an .npz file lies."""
    members = {member.filename: member for member in arrays.zip.infolist()}
    return members.get(f"{name}.npy") or members[name]


def read_hdf5(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read one array of an HDF5 file, at any depth; `key` names it where there are several."""
    refuse_hdu(hdu)
    with h5py.File(path, "r", locking=False) as file:
        item = hdf5_item(file, key) if key is not None else None
        if not isinstance(item, h5py.Dataset):
            item = hdf5_item(file, choose_array(list_hdf5_arrays(file), key))
        if item.dtype.hasobject:
            raise ValueError("it holds texts or lists, no numbers")
        check_pixel_count(item.shape)
        check_hdf5_chunks(item)
        check_unpacked(item.nbytes, item.id.get_storage_size())
        return np.asarray(item[()])


def hdf5_item(group: h5py.Group, path: str, links: int = 0) -> Any:
    """Return what lies under a path in an HDF5 file, None for nothing.

    Raises ValueError where the path or the data lead into another file: nobody would notice if that
    changes or goes. `links` is how many led here.
    """
    item: Any = group.file if path.startswith("/") else group
    for part in path.split("/"):
        if part in ("", "."):
            continue
        name = part.encode()
        if not isinstance(item, h5py.Group) or not item.id.links.exists(name):
            return None
        kind = item.id.links.get_info(name).type
        if kind == h5py.h5l.TYPE_EXTERNAL:
            other, inner = item.id.links.get_val(name)
            listed = f"{inner.decode(errors='replace')} in {other.decode(errors='replace')}"
            raise ValueError(
                f"{path} is a link into another file, to {listed}: name that file, or copy it into "
                "this one"
            )
        if kind == h5py.h5l.TYPE_SOFT:
            if links == MOST_LINKS:
                return None
            item = hdf5_item(item, item.id.links.get_val(name).decode(), links + 1)
        else:
            item = item[part]
    if isinstance(item, h5py.Dataset):
        _refuse_other_files(item, path, links)
    return item


def _refuse_other_files(dataset: h5py.Dataset, name: str, links: int) -> None:
    """Raise ValueError for numbers in other files."""
    others = {entry[0] for entry in dataset.external or []}
    if dataset.is_virtual:
        sources = dataset.virtual_sources()
        # A dot is the file itself, in which a link may lead to another one.
        others = {source.file_name for source in sources} - {"."}
        for part in {source.dset_name for source in sources if source.file_name == "."}:
            if "%" in part or links == MOST_LINKS:
                raise ValueError(f"{name} is made of parts that cannot be known: copy it")
            hdf5_item(dataset.file, "/" + part, links + 1)
    if others:
        listed = first_few(sorted(others))
        raise ValueError(
            f"the pixels of {name} lie in other files, {listed}: name these in stack, or copy them "
            "into one file"
        )


def check_hdf5_chunks(dataset: h5py.Dataset) -> None:
    """Raise ValueError where reading any row would unpack a piece that fills the memory."""
    if dataset.chunks is not None:
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        check_unpacked(chunk_bytes, dataset.id.get_storage_size())


def list_hdf5_arrays(file: h5py.File) -> list[str]:
    """Return the names of all arrays in an HDF5 file, those in groups as group/name."""
    names: list[str] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    file.visititems(note)
    return names


def choose_array(names: Sequence[str], key: str | None) -> str:
    """Return the name that `key` says, or the only one there is; ValueError where neither is."""
    if key is None and len(names) == 1:
        return names[0]

    # The same array of HDF5 may be written with a slash before it.
    if key is not None and key.strip("/") in names:
        return key.strip("/")

    listed = ", ".join(names[:NAMES_SHOWN])
    if len(names) > NAMES_SHOWN:
        listed += ", ..."
    if key is None:
        raise ValueError(f"it holds the arrays {listed}; choose one with key")
    raise ValueError(f"the key {key!r} is not among {listed}; set key")


def refuse_hdu(hdu: Hdu) -> None:
    """Raise ValueError where an HDU is asked of a file that is no FITS file."""
    if hdu is not None:
        raise ValueError("only FITS files have HDUs; leave hdu out")
