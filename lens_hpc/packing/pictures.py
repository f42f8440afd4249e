"""Pictures: PNG, JPEG and TIFF, whose channels or pages are planes.

Pillow reads them, but it knows colours of 8 bits only, and would cut longer ones without a word.
OpenCV reads those, but takes some layouts for others: what it returns is compared with the header.
"""

import math
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from lens_hpc.packing.array_files import refuse_hdu
from lens_hpc.packing.fits_images import Hdu, check_pixel_count, check_unpacked

MODES = {"L", "I", "I;16", "I;16L", "I;16B", "I;16N", "F", "RGB", "RGBA", "LA"}
"""Modes of Pillow whose channels are amounts of light."""

REASONS = {
    "1": "its pixels have one bit; convert it to 8 bits",
    "P": "its pixels are numbers of a palette; convert it to grey or RGB",
    "PA": "its pixels are numbers of a palette; convert it to grey or RGB",
    "CMYK": "its channels are amounts of ink (CMYK); convert it to RGB",
}

# Tags of TIFF and some of their values.
WIDTH = 256
HEIGHT = 257
BITS_PER_SAMPLE = 258
PHOTOMETRIC = 262
STRIP_OFFSETS = 273
ORIENTATION = 274
SAMPLES_PER_PIXEL = 277
STRIP_BYTES = 279
PLANAR_CONFIGURATION = 284
EXTRA_SAMPLES = 338
SAMPLE_FORMAT = 339
CHANNELS_APART = 2
UNSIGNED = 1
UPRIGHT = 1
COLOURS_TIMES_ALPHA = 1
WHITE_IS_ZERO = 0
GREY_OR_RGB = (1, 2)

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0")
"""First bytes of a TIFF, and of a BigTIFF in the byte order that Pillow reads."""

PNG_CHANNELS = {2: 3, 4: 2, 6: 4}
"""Kinds of colour of a PNG (RGB, grey and alpha, RGBA): number of channels."""

CHANNEL_ORDER = {1: (1, [0]), 2: (4, [2, 3]), 3: (3, [2, 1, 0]), 4: (4, [2, 1, 0, 3])}
"""Number of channels in a file: how many OpenCV makes of them, and where those of the file are."""

Tags = dict[int, tuple[int, ...]]
"""Values of the tags of a TIFF."""


def read_picture(path: str, hdu: Hdu, key: str | None) -> np.ndarray:
    """Read channels, or the pages of a TIFF, as planes, turned as the file says."""
    refuse_hdu(hdu)
    if key is not None:
        raise ValueError("a picture has no arrays with names; leave key out, or use planes")
    return decode_picture(Path(path).read_bytes())


def decode_picture(content: bytes) -> np.ndarray:
    """Return the planes of a picture whose file has this content."""
    from PIL import Image, ImageSequence

    if content[:4] in TIFF_STARTS and _has_deep_colour(content):
        return _decode_deep_tiff(content)

    with warnings.catch_warnings():
        # It warns of what is refused here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        opened = Image.open(BytesIO(content))
    with opened as image:
        _check_size(image, len(content))

        # The standard has a PNG's bits and kind of colour in these bytes, always.
        if image.format == "PNG" and content[24] > 8 and content[25] in PNG_CHANNELS:
            return _decode_deep_png(content, image, PNG_CHANNELS[content[25]])
        if image.format == "PNG" and image.mode == "L" and content[24] < 8:
            raise ValueError(f"its pixels have {content[24]} bits; convert it to 8 bits")

        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "TIFF":
            raise ValueError(f"it has {frames} frames, and one is expected")
        pages: list[np.ndarray] = []
        for page in ImageSequence.Iterator(image):
            _check_size(page, len(content), sum(earlier.nbytes for earlier in pages))
            pages.append(_pixels_of_page(page))
    return _as_planes(pages)


def _check_size(page: Any, file_bytes: int, earlier_bytes: int = 0) -> None:
    """Raise ValueError for a page that with those before it is larger than any cutout."""
    values = page.width * page.height * len(page.getbands())
    check_pixel_count([values])
    bytes_each = 1 if page.mode in ("L", "RGB", "RGBA", "LA") else 4
    check_unpacked(values * bytes_each + earlier_bytes, file_bytes)


def _as_planes(pages: list[np.ndarray]) -> np.ndarray:
    page = pages[0]
    if len(pages) == 1:
        return page if page.ndim == 2 else np.moveaxis(page, -1, 0)

    shapes = {page.shape for page in pages}
    if len(shapes) > 1 or page.ndim != 2:
        raise ValueError(f"its pages must be grey and of one size; they have the shapes {shapes}")
    return np.stack(pages)


def _pixels_of_page(page: Any) -> np.ndarray:
    """Return the pixels of a page as Pillow has it: (height, width) or with channels behind."""
    from PIL import ImageOps

    if page.mode not in MODES:
        reason = REASONS.get(page.mode, f"pictures of the mode {page.mode} are not read")
        raise ValueError(reason)

    tags = _as_tuples(getattr(page, "tag_v2", {}))
    if tags:
        _refuse_changed_pages(tags, len(page.getbands()))
    bits = max(tags.get(BITS_PER_SAMPLE, (0,)))

    # It has no unsigned integers of 32 bits: it keeps their bits, and shows them as signed.
    is_unsigned = bits == 32 and tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == UNSIGNED
    pixels = np.asarray(ImageOps.exif_transpose(page))
    return pixels.view(np.uint32) if is_unsigned and page.mode == "I" else pixels


def _refuse_changed_pages(tags: Tags, channels: int) -> None:
    """Raise ValueError for a page of a TIFF of which Pillow makes other numbers, or fewer."""
    bits = max(tags.get(BITS_PER_SAMPLE, (1,)))
    samples = tags.get(SAMPLES_PER_PIXEL, (1,))[0]
    is_signed = any(kind != UNSIGNED for kind in tags.get(SAMPLE_FORMAT, ()))
    if bits > 8 and tags.get(PLANAR_CONFIGURATION) == (CHANNELS_APART,):
        raise ValueError("its channels lie apart (planar configuration 2); write them together")
    if samples != channels:
        raise ValueError(
            f"its pixels have {samples} channels, of which {channels} are read; write a page for "
            "each channel"
        )
    if bits < 8:
        raise ValueError(f"its pixels have {bits} bits; convert it to 8 bits")
    if bits > 8 and channels > 1:
        raise ValueError(
            f"pages with {channels} channels of {bits} bits are not read; write a page for each "
            "channel"
        )
    if bits == 8 and is_signed:
        raise ValueError("its numbers of 8 bits have a sign; write them with 16 bits")
    if COLOURS_TIMES_ALPHA in tags.get(EXTRA_SAMPLES, ()):
        raise ValueError(
            "its colours are multiplied by its last channel (ExtraSamples 1); write it with "
            "ExtraSamples 2, or a page for each channel"
        )
    if tags.get(PHOTOMETRIC) == (WHITE_IS_ZERO,):
        raise ValueError("its zero is white (PhotometricInterpretation 0); write it with black")


# ---- colours of more than 8 bits ----


def _read_tiff_tags(content: bytes) -> tuple[Tags, bool]:
    """Return the tags of the first page of a TIFF, and whether there are more pages."""
    from PIL import TiffImagePlugin

    is_big = content[2:3] == b"+"
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if is_big else 8])
    file = BytesIO(content)
    file.seek(directory.next)
    directory.load(file)
    return _as_tuples(directory), bool(directory.next)


def _as_tuples(directory: Any) -> Tags:
    tags = {}
    for tag, value in directory.items():
        tags[tag] = value if isinstance(value, tuple) else (value,)
    return tags


def _has_deep_colour(content: bytes) -> bool:
    """Say whether a TIFF has channels of more bits than Pillow reads."""
    tags, _ = _read_tiff_tags(content)
    channels = tags.get(SAMPLES_PER_PIXEL, (1,))[0]
    bits = max(tags.get(BITS_PER_SAMPLE, (1,)))
    return bits > (8 if channels > 1 else 32)


def _decode_deep_tiff(content: bytes) -> np.ndarray:
    tags, has_more_pages = _read_tiff_tags(content)
    shape = [tags[tag][0] for tag in (WIDTH, HEIGHT, SAMPLES_PER_PIXEL)]
    bits = tags[BITS_PER_SAMPLE]
    check_pixel_count(shape)
    check_unpacked(math.prod(shape) * bits[0] // 8, len(content))
    channels = tags[SAMPLES_PER_PIXEL][0]
    if channels not in (1, 3, 4) or len(set(bits)) > 1 or bits[0] not in (16, 32, 64):
        raise ValueError(
            f"{channels} channels of {bits[0]} bits are not read; write a page for each channel"
        )
    if tags.get(PLANAR_CONFIGURATION) == (CHANNELS_APART,):
        raise ValueError("its channels lie apart (planar configuration 2); write them together")
    if has_more_pages or tags.get(PHOTOMETRIC, (0,))[0] not in GREY_OR_RGB:
        raise ValueError("only a single page of RGB is read with more than 8 bits a channel")

    # Of a file that is cut off, OpenCV would return what there is.
    ends = map(sum, zip(tags.get(STRIP_OFFSETS, ()), tags.get(STRIP_BYTES, ()), strict=False))
    if max(ends, default=0) > len(content):
        raise ValueError("its end is missing")
    return _decode_colours(content, channels, bits[0])


def _decode_deep_png(content: bytes, image: Any, channels: int) -> np.ndarray:
    # Of a damaged file OpenCV may return a part, and Pillow raises.
    image.load()
    if getattr(image, "n_frames", 1) > 1:
        raise ValueError("it has several frames, and one is expected")
    if image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:
        raise ValueError("it is turned (EXIF) and has 16 bits a channel; write it upright")
    return _decode_colours(content, channels, bits=16)


def _decode_colours(content: bytes, channels: int, bits: int) -> np.ndarray:
    """Let OpenCV read a picture: (channels, height, width), or (height, width) for a channel."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("it is damaged, or compressed in a way that is not read")

    # Its order is blue, green, red, alpha; of a grey with alpha, it makes such a colour.
    found = 1 if pixels.ndim == 2 else pixels.shape[-1]
    expected, order = CHANNEL_ORDER[channels]
    if found != expected or pixels.itemsize * 8 != bits:
        raise ValueError(f"its {channels} channels of {bits} bits are not read")
    return pixels if found == 1 else np.moveaxis(pixels[..., order], -1, 0)
