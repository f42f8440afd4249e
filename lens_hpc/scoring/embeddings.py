"""Where a trained model sees the rows of a split: near each other what it takes for alike."""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from lens_hpc.dataset.split import Split
from lens_hpc.layout import BEST
from lens_hpc.loading.samples import check_same_kind
from lens_hpc.model.trained import load_trained
from lens_hpc.scoring.batches import BatchScorer
from lens_hpc.scoring.finder import default_device

ROWS_AT_ONCE = 256


def embed_split(run: Path, split: Split, code: Collection[str] = ()) -> np.ndarray:
    """Return the vectors that the last layer of a run's best model sees, (N, D) float32.

    `code` names the packages that a model of one's own may come from. Raises UserError for a split
    of another kind than the run was trained on.
    """
    trained = load_trained(run / BEST, code)
    check_same_kind(split.manifest.kind, trained.manifest.kind, features=trained.sees_features)
    scorer = BatchScorer([trained], default_device())

    embedded = []
    for start in range(0, len(split), ROWS_AT_ONCE):
        rows = np.arange(start, min(start + ROWS_AT_ONCE, len(split)))
        split.check_blocks(rows)
        images, features = (split.take(name, rows) for name in ("images", "features"))
        embedded.append(scorer.embed(images, features))
        split.forget()
    return np.concatenate(embedded)
