"""What is wrong with an image file, in words, from what a library raised when it read it.

Libraries tell the call of theirs that failed, or what they guessed. Most files that cannot be read
are empty, cut off, or of another kind than their name says: a download that failed, for example.
"""

import re
from pathlib import Path

from lens_hpc.packing.fits_images import GZIP_MAGIC, OTHER_MAGICS

BEGINNINGS = {
    "FITS": ((".fits", ".fit", ".fts", ".fz"), (b"SIMPLE", b"XTENSION")),
    "NumPy": ((".npy",), (b"\x93NUMPY",)),
    ".npz": ((".npz",), (b"PK",)),
    "HDF5": ((".h5", ".hdf5", ".hdf"), (b"\x89HDF",)),
    "PNG": ((".png",), (b"\x89PNG",)),
    "JPEG": ((".jpg", ".jpeg"), (b"\xff\xd8",)),
    "TIFF": ((".tif", ".tiff"), (b"II", b"MM")),
}
"""Kind of file: the endings of its name, and how its bytes begin."""
BYTES_SHOWN = 12

CUT_OFF = re.compile(
    r"past end of file|error reading from FITS file|truncated|^EOF|end-of-stream|not a zip file|"
    r"No data left|file ended",
    re.IGNORECASE,
)
"""What the libraries say of a file that ends too early."""
STATUS_OF_CFITSIO = re.compile(r"^FITSIO status = \d+: ")


def describe_damage(path: str | Path, error: Exception) -> str:
    """Return why a file could not be read: a few words about `it`, without the file's name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror

    kind = _wrong_beginning(Path(path))
    if kind:
        return kind
    # The C library adds a line for each of its functions.
    first_line = " ".join(str(error).partition("\n")[0].split())
    if "cannot identify image file" in first_line:
        return "it holds no picture"
    if CUT_OFF.search(str(error)):
        return "it is cut off"
    if type(error) in (ValueError, OSError):
        return STATUS_OF_CFITSIO.sub("", first_line)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _wrong_beginning(path: Path) -> str:
    """Say what a file is, where it is empty, or of another kind than its name says."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        content = file.read(BYTES_SHOWN)
    if not content:
        return "it is empty"

    name = path.name.lower()
    if content.startswith((GZIP_MAGIC, *OTHER_MAGICS)):
        return ""
    for kind, (endings, beginnings) in BEGINNINGS.items():
        if name.removesuffix(".gz").endswith(endings) and not content.startswith(beginnings):
            return f"it is no {kind} file: it begins with {repr(content)[1:]}"
    return ""
