"""What is wrong with an image file, by words that anybody understands."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits
from PIL import Image

from lens_hpc.packing.damage import describe_damage
from lens_hpc.packing.image_formats import BadCutoutError, read_image

PIXELS = np.arange(2 * 8 * 8, dtype=np.float32).reshape(2, 8, 8)
SHOWN_NOISE = r"it begins with '\x00\x01\x02\x03"


def write(folder: Path, ending: str) -> Path:
    """A sound image of a format, by the ending of its name."""
    file = folder / f"image{ending}"
    match ending:
        case ".fits" | ".fits.gz":
            fits.writeto(file, PIXELS)
        case ".npy":
            np.save(file, PIXELS)
        case ".npz":
            np.savez(file, pixels=PIXELS)
        case ".h5":
            with h5py.File(file, "w") as opened:
                opened["pixels"] = PIXELS
        case _:
            Image.fromarray(PIXELS[0].astype(np.uint8)).save(file)
    return file


def reason(file: Path) -> str:
    with pytest.raises(BadCutoutError) as error:
        read_image(file)
    return str(error.value).removeprefix(f"{file}: cannot be read as an image: ")


KINDS = {
    ".fits": "FITS",
    ".fits.gz": "FITS",
    ".npy": "NumPy",
    ".npz": ".npz",
    ".h5": "HDF5",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".tif": "TIFF",
}


@pytest.mark.parametrize("ending", KINDS)
def test_what_is_empty_cut_off_or_of_another_kind_is_called_so(ending: str, tmp_path: Path) -> None:
    file = write(tmp_path, ending)
    sound = file.read_bytes()
    read_image(file)

    file.write_bytes(b"")
    assert reason(file) == "it is empty"
    file.write_bytes(b"<html>404 not found</html>")
    assert reason(file) == f"it is no {KINDS[ending]} file: it begins with '<html>404 no'"
    file.write_bytes(bytes(range(200)) * 9)
    assert reason(file).startswith(f"it is no {KINDS[ending]} file: {SHOWN_NOISE}")

    file.write_bytes(sound[: len(sound) * 2 // 3])
    # Of .npy, the message says how many bytes there are, and how many should be.
    assert reason(file) == "it is cut off" or ending in (".npy", ".tif")


def test_no_word_of_the_c_library_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, ".fits")
    content = file.read_bytes()
    for damaged in (content[:100], content[:3000], content.replace(b"BITPIX", b"XITPIX")):
        file.write_bytes(damaged)
        assert "FITSIO" not in reason(file)
        assert "ffopen" not in reason(file)
    assert reason(file) == "second keyword not BITPIX"


def test_what_the_system_says_and_what_nobody_foresaw_is_told_as_it_is(tmp_path: Path) -> None:
    missing = OSError(errno.EACCES, os.strerror(errno.EACCES))
    assert describe_damage(tmp_path / "a.fits", missing) == "Permission denied"
    assert describe_damage(tmp_path / "a.fits", KeyError("x")) == "KeyError: 'x'"
    assert describe_damage(tmp_path / "a.fits", ValueError("of\nours")) == "of"
