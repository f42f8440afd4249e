"""Augmentation of training batches, in place: the author's flips and AdvancedBlur, and extras.

Two engines draw the author's three from the same distribution: albumentations, a cutout at a time,
and torch, which draws for a batch at a time and changes it where it lies (on the CPU, OpenCV does
that). Every random number depends on (seed, epoch, draw) alone (see random_numbers.py), so that
workers, processes and the batch that a sample is in change no pixel.

How to add an engine: docs/how-to/augmentation.md.
"""

from collections.abc import Collection

from lens_hpc import config
from lens_hpc.extensions import find_object
from lens_hpc.loading.albumentations_augmentation import AlbumentationsAugmentation
from lens_hpc.loading.augmentation_base import Augmentation
from lens_hpc.loading.torch_augmentation import TorchAugmentation

ENGINES: dict[str, type[Augmentation]] = {
    "albumentations": AlbumentationsAugmentation,
    "torch": TorchAugmentation,
}
"""What `augment.engine` may be, beside the name of a class of the user's own."""


def make_augmentation(
    settings: config.Augment, seed: int, code: Collection[str] = ()
) -> Augmentation:
    """Make the augmentation that `augment.engine` names, of our own or of a package in `code`.

    Raises UserError when there is none of that name, or when its package is not allowed.
    """
    engine = find_object("augment.engine", settings.engine, ENGINES, code)
    return engine(settings, seed)
