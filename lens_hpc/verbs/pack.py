"""pack: a catalogue and its images become HDF5 shards and a manifest."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lens_hpc.packing.recipe import PackSettings as Settings

if TYPE_CHECKING:
    from lens_hpc.packing.packing import Packed

TARGET = "RECIPE"
EXTRA = "pack"
SUMMARY = (
    "Pack a catalogue and its images into HDF5 shards and a manifest, "
    "as the recipe file describes them."
)
EXAMPLE = (
    "lens-hpc pack data/demo/survey/recipe.yaml source=data/demo/survey output=data/demo/shards"
)


def run(settings: Settings) -> "Packed":
    """Pack the recipe's catalogue and images in source= into the dataset output=, or go on.

    A dataset that is new gets a quick audit, which needs a few seconds.
    """
    from lens_hpc.packing.packing import pack_survey  # imports pandas

    packed = pack_survey(settings)
    if not packed.is_new:
        return packed
    return replace(packed, text=f"{packed.text}\n{_audit_line(packed.output)}")


def text(packed: "Packed") -> str:
    """Say what was packed, a line for each split."""
    return packed.text


def _audit_line(dataset: Path) -> str:
    """Say in one line what can be found out at once."""
    from lens_hpc.auditing.audit import audit_dataset

    audit = audit_dataset(dataset, quick=True)
    if audit is None:
        return "  not audited: only lenses and non-lenses together can give the label away"
    return (
        f"  audit at first sight: {audit.verdict} ({audit.reasons}); "
        f"with images and all: lens-hpc audit {dataset}"
    )
