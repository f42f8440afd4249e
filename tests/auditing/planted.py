"""A survey in which a test plants what an audit must find."""

from pathlib import Path

import numpy as np
import pandas as pd

from lens_hpc import verbs
from lens_hpc.dataset.verdict import read_audit
from tests.conftest import call, pack_survey

ROWS = 600
RECIPE = """
name: planted
catalogue: catalogue.csv
stack: images.npy
columns: {id: id, label: is_lens, features: [mag, colour]}
bands: [g, r]
pixel_scale: 0.2
units: counts
"""

LEAK_STATUS = 3


class PlantedSurvey:
    """Noise around a galaxy each; the features tell a little, as they do in the sky."""

    def __init__(self, size: int = 24, sky: float = 10) -> None:
        rng = np.random.default_rng(0)
        numbers = np.arange(ROWS)
        self.labels = numbers % 2

        y, x = np.indices((size, size)) - (size - 1) / 2
        light = np.exp(-np.hypot(x, y) / 3) * rng.uniform(5, 50, (ROWS, 2, 1, 1))
        noise = rng.normal(sky, 1, (ROWS, 2, size, size))
        self.images = (light + noise).astype(np.float32)

        last_digits = numbers % 10
        train_or_val = np.where(last_digits < 6, "train", "val")
        self.table = pd.DataFrame(
            {
                "id": [f"o{number}" for number in numbers],
                "is_lens": self.labels,
                "mag": rng.normal(self.labels / 2, 1),
                "colour": rng.normal(size=ROWS),
                "field": [f"f{number // 4}" for number in numbers],
                "split": np.where(last_digits < 8, train_or_val, "test"),
            }
        )

    def pack(self, folder: Path, *overrides: str) -> Path:
        """Write the survey, and pack it."""
        folder.mkdir()
        np.save(folder / "images.npy", self.images)
        self.table.to_csv(folder / "catalogue.csv", index=False)
        (folder / "recipe.yaml").write_text(RECIPE)
        return pack_survey(folder, folder / "d", *overrides)


def findings(dataset: Path, status: int) -> dict[str, tuple[str, str]]:
    """Audit a dataset as the terminal does; return (verdict, found) of each check, as kept."""
    audited = call("audit", dataset)
    assert verbs.module("audit").status(audited) == status
    kept = read_audit(dataset)
    assert kept == audited.audit
    return {finding.check: (finding.verdict, finding.found) for finding in kept.findings}


def leaks(found: dict[str, tuple[str, str]]) -> set[str]:
    """Return the checks that found a leak."""
    return {check for check, (verdict, _) in found.items() if verdict == "leak"}
