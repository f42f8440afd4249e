"""Are pixels linear fluxes, or were they made to be looked at?"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lens_hpc.errors import UserError

FEWEST_CUTOUTS = 8
"""Of fewer, it is not asked whether their maxima are the same."""
VALUES_OF_8_BITS = 256
PIXELS_A_VALUE = 4
"""A cutout is judged by its different values only if it has so many pixels for each of them."""


def refuse_pictures(dataset: Path, cutouts: Sequence[np.ndarray], consequence: str) -> None:
    """Raise UserError where cutouts of a dataset were made to be looked at.

    `consequence` is what cannot be done with such pixels.
    """
    reason = "have 8 bits" if cutouts[0].dtype == np.uint8 else reason_against_fluxes(cutouts)
    if reason:
        raise UserError(
            f"{dataset}: its pixels {reason}, so they are no linear fluxes, and {consequence}; "
            "pack fluxes, or insist with pixels=assume_linear, which the manifest then tells"
        )


def reason_against_fluxes(cutouts: Sequence[np.ndarray]) -> str:
    """Say why pixels cannot be fluxes; an empty text where nothing speaks against it."""
    most_values = max(len(np.unique(cutout)) for cutout in cutouts)
    is_large = cutouts[0].size >= PIXELS_A_VALUE * VALUES_OF_8_BITS
    if is_large and most_values <= VALUES_OF_8_BITS:
        return f"have at most {most_values} different values a cutout, as pictures of 8 bits have"

    peaks = [float(cutout.max()) for cutout in cutouts]
    commonest = max(set(peaks), key=peaks.count)
    if len(peaks) >= FEWEST_CUTOUTS and peaks.count(commonest) > len(peaks) / 2:
        return f"end at {commonest:g} in most cutouts, as those of stretched pictures do"
    return ""
