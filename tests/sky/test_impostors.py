import numpy as np
import pytest

from lens_hpc.sky.impostors import NON_LENSES, draw_non_lens


def test_every_class_of_non_lens_is_drawn() -> None:
    rng = np.random.default_rng(2)
    drawn = [draw_non_lens(rng) for _ in range(100)]
    assert {name for name, _ in drawn} == set(NON_LENSES)
    assert all(scene.lens is None for _, scene in drawn)
    assert sum(impostor.share for impostor in NON_LENSES.values()) == pytest.approx(1)
