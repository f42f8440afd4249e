"""Random numbers without a generator: each is a hash of (seed, epoch, draw, stream, position).

Nothing else decides a number, so neither the workers and processes nor the batch that a sample is
in change it, and an epoch can be resumed anywhere.

Each use of random numbers has a stream of its own. lens_hpc takes the streams below
`FIRST_FREE_STREAM`; an augmentation of your own takes one from there on.
"""

import numpy as np
import torch

FLIPS_AND_BLUR_STREAM = 0
EXTRAS_STREAM = 1
NOISE_STREAM = 2
FIRST_FREE_STREAM = 100

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
    key = torch.from_numpy(np.asarray(draws, dtype=np.int64)).to(device)
    for word in (stream, epoch, seed):
        hashed_word = _mix(torch.tensor(word + 1, device=device) * _GOLDEN_GAMMA)
        key = _mix(key + hashed_word)

    positions = torch.arange(1, count + 1, device=device)
    hashes = _mix(key[:, None] + positions * _GOLDEN_GAMMA)

    # A float64 holds 53 bits: the upper ones of the 64.
    return _shift_right(hashes, 11).double() * 2.0**-53


def normals(
    seed: int,
    epoch: int,
    draws: np.ndarray,
    count: int,
    stream: int = NOISE_STREAM,
    device: torch.device | None = None,
) -> torch.Tensor:
    """Return `count` standard normal random numbers for each of the draws, (B, count) float32.

    The method is that of Box & Muller (1958): two uniform numbers make two normal ones.
    """
    pairs = (count + 1) // 2
    numbers = uniforms(seed, epoch, draws, 2 * pairs, stream, device).float()
    first, second = numbers.chunk(2, dim=1)

    # Rounded to float32, a number may be 1, whose logarithm here would be infinite.
    radius = (-2 * torch.log1p(-first.clamp(max=1 - 2**-24))).sqrt()
    angle = 2 * np.pi * second

    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return both[:, :count]


def _mix(x: torch.Tensor) -> torch.Tensor:
    """Hash integers of 64 bits: the finalizer of SplitMix64."""
    x = (x ^ _shift_right(x, 30)) * _FIRST_FACTOR
    x = (x ^ _shift_right(x, 27)) * _SECOND_FACTOR
    return x ^ _shift_right(x, 31)


def _shift_right(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift the 64 bits of integers to the right as if they had no sign, which torch cannot."""
    return (x >> bits) & (2 ** (64 - bits) - 1)
