from pathlib import Path

import numpy as np
from PIL import Image

from lens_hpc.analysis import figures, metrics


def test_the_roc_is_a_picture_with_a_curve(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], 100)
    scores = labels + rng.normal(size=200)
    figures.draw_roc(tmp_path / "roc.png", labels, scores, metrics.evaluate(labels, scores), "a title")
    with Image.open(tmp_path / "roc.png") as picture:
        assert picture.width > 1.5 * picture.height
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    blue = tuple(int(figures.BLUE[i : i + 2], 16) for i in (1, 3, 5))
    assert (pixels == blue).all(axis=1).sum() > 1000
