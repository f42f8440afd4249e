"""What the checks need to know of all cutouts, from one reading of them."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from lens_hpc.auditing.audited_rows import AuditedRows
from lens_hpc.auditing.duplicates import cutout_fingerprints
from lens_hpc.auditing.same_sky import sky_signatures
from lens_hpc.auditing.shortcuts import OBJECT_NUMBERS, measure_centres, measure_cutouts
from lens_hpc.auditing.textures import border_pixels, measure_textures
from lens_hpc.dataset.shards import crc32_of_each
from lens_hpc.progress import Progress
from lens_hpc.resources import usable_cpus

# Cutouts are read in blocks of about this size, counted as 4 bytes a pixel.
BLOCK_BYTES = 1 << 24
LARGEST_BLOCK_ROWS = 256
# More rows would change no verdict on the border, and take long to train on.
MAXIMUM_BORDER_ROWS = 4_000
# The time to compare signatures grows with the square of the rows.
MAXIMUM_SIGNATURE_ROWS = 10_000


class CutoutFacts(NamedTuple):
    """What the checks need to know of all N cutouts, or of those M that are drawn."""

    numbers: np.ndarray
    """The numbers of `measure_cutouts`, (N, bands, 5)."""
    textures: np.ndarray
    """The numbers of `measure_textures`, (N, bands, 6)."""
    centres: np.ndarray
    """Where the light is centred, (N, 2) in pixels from the middle."""
    fingerprints: np.ndarray
    """The bits of `cutout_fingerprints`, (N, bytes)."""
    checksums: np.ndarray
    """CRC-32 of the pixels, (N,)."""
    border: np.ndarray
    """The outermost pixels in sigmas above the sky, (M, numbers), of `rows_for_border`."""
    signatures: np.ndarray
    """The numbers of `sky_signatures`, (M, numbers), of `rows_for_signatures`."""


def rows_for_border(rows: AuditedRows) -> np.ndarray:
    """Draw rows of both classes, as many of each if there are enough."""
    half = MAXIMUM_BORDER_ROWS // 2
    lenses = rows.draw(half, rows.labels == 1)
    non_lenses = rows.draw(half, rows.labels == 0)
    return np.sort(np.concatenate([lenses, non_lenses]))


def rows_for_signatures(rows: AuditedRows) -> np.ndarray:
    """Draw rows of all splits."""
    return rows.draw(MAXIMUM_SIGNATURE_ROWS, np.ones(len(rows), dtype=bool))


def examine_cutouts(rows: AuditedRows) -> CutoutFacts:
    """Read all cutouts once, with one thread for each core, and return the facts about them."""
    pixels = int(np.prod(rows.splits[0].shape("images")))
    row_bytes = 4 * pixels
    block_rows = int(np.clip(BLOCK_BYTES // row_bytes, 1, LARGEST_BLOCK_ROWS))
    is_for_border = np.isin(np.arange(len(rows)), rows_for_border(rows))
    is_for_signatures = np.isin(np.arange(len(rows)), rows_for_signatures(rows))

    def examine_block(start: int) -> CutoutFacts:
        block = slice(start, min(start + block_rows, len(rows)))
        images = rows.read_images(np.arange(block.start, block.stop))
        return _examine_images(images, is_for_border[block], is_for_signatures[block])

    blocks = []
    with (
        Progress(len(rows), "audit", "cutouts") as progress,
        ThreadPoolExecutor(usable_cpus()) as pool,
    ):
        for block in pool.map(examine_block, range(0, len(rows), block_rows)):
            blocks.append(block)
            progress.update(len(block.checksums))

    # From a list of blocks with seven arrays each to seven arrays.
    columns = zip(*blocks, strict=True)
    return CutoutFacts(*(np.concatenate(column) for column in columns))


def _examine_images(
    images: np.ndarray, is_for_border: np.ndarray, is_for_signatures: np.ndarray
) -> CutoutFacts:
    """Return the facts about B images; (B,) say for which to look at border and signature, too."""
    numbers = measure_cutouts(images)
    return CutoutFacts(
        numbers,
        measure_textures(images),
        measure_centres(images),
        cutout_fingerprints(images),
        crc32_of_each(images),
        border_pixels(images[is_for_border], _sky(numbers[is_for_border])),
        sky_signatures(images[is_for_signatures]),
    )


def _sky(numbers: np.ndarray) -> np.ndarray:
    """Return the level of the sky and its rms, (B, bands, 2), of the numbers of cutouts."""
    first = len(OBJECT_NUMBERS)
    return numbers[..., first : first + 2]
