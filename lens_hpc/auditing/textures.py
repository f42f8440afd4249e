"""What the noise and the edges of a cutout are like: numbers that no lens changes.

They are measured near the edge, where a galaxy has least light, and as ratios, so that neither the
depth of an exposure nor its units matter.
"""

from math import prod

import numpy as np

TEXTURE_NUMBERS = (
    "coarse values",
    "repeated values",
    "values at the floor",
    "noise correlation along x",
    "noise correlation along y",
    "repeated lines",
)
# The frame that is measured takes this part of the side, but a few pixels at least.
FRAME_SHARE = 1 / 8
MINIMUM_FRAME_PIXELS = 2
# Second neighbours are needed.
MINIMUM_SIDE = 3
# A line repeats another when so many of its pixels do, and when enough are not at the floor.
SHARE_OF_A_REPEATED_LINE = 0.9
LEAST_OF_A_LINE = 0.25
# A value of the border further from the sky is this far: how far does not matter then.
FARTHEST_SIGMAS = 20


def measure_textures(images: np.ndarray) -> np.ndarray:
    """Measure cutouts (B, bands, height, width): (B, bands, 6) float32, NaN where unknown.

    The numbers are those of TEXTURE_NUMBERS.
    """
    pixels = images.astype(np.float32)
    height, width = images.shape[-2:]
    if min(height, width) < MINIMUM_SIDE:
        return np.full((*images.shape[:2], len(TEXTURE_NUMBERS)), np.nan, dtype=np.float32)

    frame = pixels[..., _is_frame(height, width)]
    numbers = [
        _count_trailing_zeros(frame),
        _share_of_repeated(frame),
        _share_at_floor(frame),
        _noise_correlation(pixels),
        _noise_correlation(pixels.swapaxes(-1, -2)),
        _share_of_repeated_lines(pixels),
    ]
    return np.stack(numbers, axis=-1, dtype=np.float32, casting="unsafe")


def border_pixels(images: np.ndarray, sky: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of cutouts (B, bands, height, width): (B, numbers) float32.

    They are in units of the sky's rms above its level, which are `sky` (B, bands, 2).
    """
    height, width = images.shape[-2:]
    is_border = np.ones((height, width), dtype=bool)
    is_border[1:-1, 1:-1] = False
    level, rms = sky[..., :1], sky[..., 1:]
    sigmas = _divide(images[..., is_border] - level, rms)
    clipped = np.clip(sigmas, -FARTHEST_SIGMAS, FARTHEST_SIGMAS)
    return clipped.reshape(len(images), prod(clipped.shape[1:])).astype(np.float32)


def _frame_width(height: int, width: int) -> int:
    side = min(height, width)
    return min(max(int(side * FRAME_SHARE), MINIMUM_FRAME_PIXELS), side)


def _is_frame(height: int, width: int) -> np.ndarray:
    """Return which pixels are near the edge, (height, width)."""
    edge = _frame_width(height, width)
    is_frame = np.ones((height, width), dtype=bool)
    is_frame[edge:-edge, edge:-edge] = False
    return is_frame


def _count_trailing_zeros(values: np.ndarray) -> np.ndarray:
    """Return how many bits at the end of the mantissa are 0, the mean of (..., n) float32 values.

    Measured values have one; those that were once integers or float16 have many.
    """
    bits = np.ascontiguousarray(values).view(np.int32)
    below_lowest_one = (bits & -bits) - 1
    zeros = np.bitwise_count(below_lowest_one)
    is_number = values != 0
    sums = zeros.sum(axis=-1, where=is_number, dtype=np.float32)
    return _divide(sums, is_number.sum(axis=-1))


def _share_of_repeated(values: np.ndarray) -> np.ndarray:
    """Return the share of (..., n) values that another one is equal to: rounded or clipped."""
    ordered = np.sort(values, axis=-1)
    is_repeated = ordered[..., 1:] == ordered[..., :-1]
    return is_repeated.mean(axis=-1)


def _share_at_floor(values: np.ndarray) -> np.ndarray:
    """Return the share of (..., n) values that are the lowest: a sky that was clipped."""
    floor = values.min(axis=-1, keepdims=True)
    return (values == floor).mean(axis=-1)


def _noise_correlation(pixels: np.ndarray) -> np.ndarray:
    """Return how far the second neighbour in a row differs, in units of how far the first does.

    It is 1 for independent noise, as in von Neumann's ratio (1941, Ann. Math. Stat. 12, 367), and
    above 1 where neighbours share noise: pixels that were resampled, smoothed or compressed.
    """
    edge = _frame_width(*pixels.shape[-2:])
    strips = np.concatenate([pixels[..., :edge, :], pixels[..., -edge:, :]], axis=-2)
    first = abs(strips[..., 1:] - strips[..., :-1]).mean(axis=(-2, -1))
    second = abs(strips[..., 2:] - strips[..., :-2]).mean(axis=(-2, -1))
    return _divide(second, first)


def _share_of_repeated_lines(pixels: np.ndarray) -> np.ndarray:
    """Return the share of lines near an edge that the next line, or the next but one, repeats.

    So does padding, also by a mirror. Pixels at the floor do not count: a clipped sky is the same
    everywhere. A galaxy may be the same on both sides of its centre, so the middle is left out.
    """
    floor = pixels.min(axis=(-2, -1), keepdims=True)
    shares = []
    for lines in (pixels, pixels.swapaxes(-1, -2)):
        quarter = max(lines.shape[-2] // 4, MINIMUM_SIDE)
        for near_edge in (lines[..., :quarter, :], lines[..., -quarter:, :]):
            for step in (1, 2):
                here = near_edge[..., step:, :]
                beside = near_edge[..., :-step, :]
                is_telling = here != floor
                equal = ((here == beside) & is_telling).sum(axis=-1)
                telling = np.maximum(is_telling.sum(axis=-1), LEAST_OF_A_LINE * lines.shape[-1])
                shares.append((equal >= SHARE_OF_A_REPEATED_LINE * telling).mean(axis=-1))
    return np.max(shares, axis=0)


def _divide(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return quotients, NaN where divided by 0."""
    return np.divide(values, np.where(by == 0, np.nan, by))
