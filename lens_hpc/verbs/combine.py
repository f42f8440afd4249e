"""combine: make one list of what all graders said of candidates."""

from typing import TYPE_CHECKING

from lens_hpc.grading.combine_settings import CombineSettings as Settings

if TYPE_CHECKING:
    from lens_hpc.grading.vetted import Vetted

TARGET = "GRADING [GRADES.jsonl ...]"
TARGET_SETTING = "sources"
EXTRA = "grade"
SUMMARY = (
    "Combine the grades of all graders of GRADING, and those that its page saved in files, into "
    "one list: OUTPUT gets graded.parquet, .csv and .fits, a contact sheet, what the graders are "
    "worth, and with into=DATASET the next generation to train on."
)
EXAMPLE = "lens-hpc combine data/demo/grading output=data/demo/vetted into=data/demo/shards"


def run(settings: Settings) -> "Vetted":
    """Combine the grades; the list replaces an older one when it is complete."""
    from lens_hpc.grading.vetted import combine  # imports pandas and matplotlib

    return combine(settings)


def text(vetted: "Vetted") -> str:
    """Say what the graders found, what they are worth, and where everything is."""
    return vetted.text
