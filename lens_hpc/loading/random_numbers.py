"""Random numbers without a generator: each is a hash of (seed, epoch, draw, stream, position).

Nothing else decides a number, so neither the workers and processes nor the batch that a sample is
in change it, and an epoch can be resumed anywhere.

Each use of random numbers has a stream of its own. lens_hpc takes the streams below
`FIRST_FREE_STREAM`; an augmentation of your own takes one from there on.
"""

import numpy as np
import torch

from lens_hpc.loading.memory import copy_to

FLIPS_AND_BLUR_STREAM = 0
EXTRAS_STREAM = 1
NOISE_STREAM = 2
FIRST_FREE_STREAM = 100

_UNIT = 2.0**-53
"""A hash of 53 bits times this is in [0, 1)."""

# The constants of SplitMix64 (Steele, Lea & Flood 2014), as signed numbers of 64 bits.
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_FIRST_FACTOR = 0xBF58476D1CE4E5B9 - 2**64
_SECOND_FACTOR = 0x94D049BB133111EB - 2**64


def uniforms(
    seed: int,
    epoch: int,
    draws: np.ndarray,
    count: int,
    stream: int = FLIPS_AND_BLUR_STREAM,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Return `count` uniform random numbers in [0, 1) for each of the draws, (B, count) float64."""
    keys = draw_keys(seed, epoch, draws, stream)
    if device:
        keys = copy_to(keys, device)
    return _hashes(keys, count).double().mul_(_UNIT)


def normals(
    seed: int,
    epoch: int,
    draws: np.ndarray,
    count: int,
    stream: int = NOISE_STREAM,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Return `count` standard normal random numbers for each of the draws, (B, count) float32."""
    keys = draw_keys(seed, epoch, draws, stream)
    if device:
        keys = copy_to(keys, device)
    return normals_of_keys(keys, count)


def normals_of_keys(keys: torch.Tensor, count: int) -> torch.Tensor:
    """Return what `normals` does, (B, count) float32, for the `draw_keys` (B,) of the draws.

    The method is that of Box & Muller (1958): two uniform numbers make two normal ones. All is done
    on the device of the keys, in as few operations as it takes.
    """
    pairs = (count + 1) // 2
    hashes = _hashes(keys, 2 * pairs)
    first = hashes[:, :pairs].float()
    second = hashes[:, pairs:].float()

    # Rounded to float32, a uniform number may be 1, whose logarithm here would be infinite.
    radius = first.mul_(-_UNIT).clamp_(min=2**-24 - 1).log1p_().mul_(-2).sqrt_()
    angle = second.mul_(2 * np.pi * _UNIT)

    both = torch.cat([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=1)
    return both[:, :count]


def draw_keys(seed: int, epoch: int, draws: np.ndarray, stream: int) -> torch.Tensor:
    """Return numbers (B,) int64 on the CPU from which all numbers of the draws follow."""
    keys = torch.from_numpy(np.asarray(draws, dtype=np.int64))
    for word in (stream, epoch, seed):
        hashed_word = _mix(torch.tensor(word + 1) * _GOLDEN_GAMMA)
        keys = _mix(keys + hashed_word)
    return keys


def _hashes(keys: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` hashes of 53 bits for each key, (B, count) int64."""
    positions = torch.arange(1, count + 1, device=keys.device).mul_(_GOLDEN_GAMMA)
    hashes = _mix(keys[:, None] + positions)

    # A float64 holds 53 bits: the upper ones of the 64.
    return _shift_right(hashes, 11)


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Hash integers of 64 bits in place: the finalizer of SplitMix64."""
    x ^= _shift_right(x, 30)
    x *= _FIRST_FACTOR
    x ^= _shift_right(x, 27)
    x *= _SECOND_FACTOR
    x ^= _shift_right(x, 31)
    return x


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift the 64 bits of integers to the right as if they had no sign, which torch cannot."""
    return (x >> bits).bitwise_and_(2 ** (64 - bits) - 1)
