import itertools
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lens_hpc.config import Augment
from lens_hpc.errors import UserError
from lens_hpc.loading.augmentation import ENGINES, make_augmentation
from lens_hpc.loading.augmentation_base import Augmentation
from lens_hpc.loading.torch_augmentation import TorchAugmentation

OFF = {"hflip": 0.0, "vflip": 0.0, "blur": 0.0}
EXTRAS = {"rotate90": 0.5, "shift": 3, "noise": 0.1}


def augmented(
    settings: Augment, images: np.ndarray, draws: np.ndarray, epoch: int = 0, seed: int = 0
) -> np.ndarray:
    batch = torch.from_numpy(images.copy())
    make_augmentation(settings, seed)(batch, epoch, draws)
    return batch.numpy()


def repeated(image: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat(image[None], times, axis=0), np.arange(times)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("extras", [{}, EXTRAS])
def test_a_sample_depends_on_seed_epoch_and_draw_alone(
    image: np.ndarray, engine: str, extras: dict
) -> None:
    settings = Augment(engine=engine, hflip=0.5, vflip=0.5, blur=0.5, **extras)
    images, draws = repeated(image, 40)
    results = augmented(settings, images, draws, epoch=2, seed=3)

    # Whatever the batch that it is in.
    for part in (np.array([7]), np.array([39, 3, 11]), np.arange(5, 30)):
        of_part = augmented(settings, images[part], part, epoch=2, seed=3)
        np.testing.assert_array_equal(of_part, results[part])

    assert not np.array_equal(augmented(settings, images, draws, epoch=3, seed=3), results)
    assert not np.array_equal(augmented(settings, images, draws, epoch=2, seed=4), results)
    assert len(np.unique(results.reshape(40, -1), axis=0)) > 15


@pytest.mark.parametrize("engine", ENGINES)
def test_flips_are_flips(image: np.ndarray, engine: str) -> None:
    images, draws = image[None], np.array([0])
    flipped = augmented(Augment(engine=engine, **OFF | {"hflip": 1.0}), images, draws)[0]
    np.testing.assert_allclose(flipped, image[:, :, ::-1], atol=1e-5)
    flipped = augmented(Augment(engine=engine, **OFF | {"vflip": 1.0}), images, draws)[0]
    np.testing.assert_allclose(flipped, image[:, ::-1], atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_blur_keeps_the_sky_below_zero_and_a_constant_cutout(
    image: np.ndarray, engine: str
) -> None:
    settings = Augment(engine=engine, **OFF | {"blur": 1.0})
    results = augmented(settings, *repeated(image, 50))
    assert (results.min(axis=(1, 2, 3)) < -0.2).all()

    constant = np.full((1, 8, 8), 0.7, dtype=np.float32)
    results = augmented(settings, *repeated(constant, 20))
    np.testing.assert_allclose(results, 0.7, atol=1e-6)


def test_both_engines_draw_from_the_same_distribution() -> None:
    """Moments of a delta function, of a flip's side and of a blurred pixel, over 6,000 draws."""
    delta = np.zeros((1, 9, 9), dtype=np.float32)
    delta[0, 4, 4] = 1.0
    delta[0, 0, 0] = -1.0
    images, draws = repeated(delta, 6000)
    ours = augmented(Augment(engine="torch"), images, draws)[:, 0]
    theirs = augmented(Augment(engine="albumentations"), images, draws)[:, 0]

    for moment in (np.mean, np.var):
        np.testing.assert_allclose(moment(ours, axis=0), moment(theirs, axis=0), atol=0.025)

    def corners(results: np.ndarray) -> list[float]:
        return [(results[:, y, x] < -0.5).mean() for y in (0, 8) for x in (0, 8)]

    def blurred(results: np.ndarray) -> float:
        return (results[:, 4, 4] < 0.999).mean()

    np.testing.assert_allclose(corners(ours), corners(theirs), atol=0.025)
    assert blurred(ours) == pytest.approx(blurred(theirs), abs=0.025)


def test_rotations_are_by_each_number_of_quarter_turns(image: np.ndarray) -> None:
    settings = Augment(engine="torch", **OFF, rotate90=1.0)
    turned = augmented(settings, *repeated(image, 60))
    turns = [np.rot90(image, k, (1, 2)) for k in (1, 2, 3)]
    found = np.array([[np.array_equal(result, turn) for turn in turns] for result in turned])
    assert found.sum(axis=1).tolist() == [1] * 60
    assert found.any(axis=0).all()


def test_shifts_are_by_each_number_of_pixels(image: np.ndarray) -> None:
    moved = augmented(Augment(engine="torch", **OFF, shift=2), *repeated(image, 200))
    inner = (slice(None), slice(4, -4), slice(4, -4))
    found = set()
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            expected = np.roll(image, (dy, dx), (1, 2))[inner]
            if any(np.array_equal(result[inner], expected) for result in moved):
                found.add((dy, dx))
    assert len(found) == 25


def test_noise_is_of_its_standard_deviation_and_independent(image: np.ndarray) -> None:
    settings = Augment(engine="torch", **OFF, noise=0.1)
    noise = augmented(settings, *repeated(image, 50)) - image
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs(noise.mean()) < 0.001
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15


def test_what_does_not_fit_the_cutout_is_refused() -> None:
    for settings, height, message in (
        (Augment(rotate90=0.5), 8, "rotate90 needs square cutouts, these are 8 x 9 px"),
        (Augment(shift=8), 8, "shift = 8: these cutouts are only 8 x 9 px"),
        (Augment(), 3, "augment.blur: needs more than 3 px, these cutouts are 3 x 9"),
    ):
        with pytest.raises(UserError, match=message):
            make_augmentation(settings, 0).check(height, 9)


# ---- drawn ahead, for a GPU ----


@pytest.mark.parametrize("bands", [1, 3])
@pytest.mark.parametrize(("flips", "blur"), list(itertools.product((0.0, 0.5), (0.0, 0.5, 1.0))))
def test_what_is_drawn_ahead_changes_a_batch_as_a_call_does(
    bands: int, flips: float, blur: float
) -> None:
    rng = np.random.default_rng(0)
    for rotate90, shift, noise in itertools.product((0.0, 0.5), (0, 3, 15), (0.0, 0.1)):
        settings = Augment(
            engine="torch",
            hflip=flips,
            vflip=flips,
            blur=blur,
            rotate90=rotate90,
            shift=shift,
            noise=noise,
        )
        augmentation = make_augmentation(settings, 3)
        for draws in (np.arange(30), np.array([2**40])):
            images = rng.random((len(draws), bands, 16, 16), dtype=np.float32)
            called = torch.from_numpy(images.copy())
            augmentation(called, 2, draws)
            applied = torch.from_numpy(images)
            augmentation.apply(applied, augmentation.draw(2, draws, (bands, 16, 16)))
            torch.testing.assert_close(applied, called, rtol=0, atol=1e-6)


def test_all_that_is_drawn_ahead_has_a_shape_that_settings_and_batch_size_decide() -> None:
    augmentation = make_augmentation(Augment(engine="torch", **EXTRAS), 0)
    found = [augmentation.draw(epoch, np.arange(9) + epoch, (3, 8, 8)) for epoch in range(5)]
    shapes = [{name: (one.shape, one.dtype) for name, one in drawn.items()} for drawn in found]
    assert all(each == shapes[0] for each in shapes)
    assert {shape[0] for shape, _ in shapes[0].values()} == {9}


def test_who_draws_ahead_is_told_by_what_a_class_writes() -> None:
    def nothing(*_: object) -> None: ...

    draws = type("Draws", (TorchAugmentation,), {"apply": nothing})
    kinds = {
        Augmentation: False,
        TorchAugmentation: True,
        ENGINES["albumentations"]: False,
        type("Checks", (TorchAugmentation,), {"check": nothing}): True,
        type("OnlyDraws", (TorchAugmentation,), {"draw": nothing}): True,
        type("Calls", (TorchAugmentation,), {"__call__": nothing}): False,
        type("Flips", (TorchAugmentation,), {"flip_and_blur": nothing}): False,
        draws: True,
        type("Both", (TorchAugmentation,), {"__call__": nothing, "apply": nothing}): True,
        type("CallsOnTop", (draws,), {"__call__": nothing}): False,
    }
    assert {kind: kind.draws_ahead for kind in kinds} == kinds


# ---- engines by name ----


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(UserError, match="tork: unknown; valid: albumentations, torch"):
        make_augmentation(Augment.model_construct(engine="tork"), 0)
    with pytest.raises(UserError, match=r"add code=\[elsewhere\]"):
        make_augmentation(Augment(engine="elsewhere.augment.Mine"), 0)


def test_the_settings_know_every_engine() -> None:
    for engine in ENGINES:
        assert Augment(engine=engine).engine == engine


def test_every_engine_can_be_sent_to_another_process(image: np.ndarray) -> None:
    images, draws = repeated(image, 8)
    for engine in ENGINES:
        augmentation = make_augmentation(Augment(engine=engine, **EXTRAS), 1)
        results = []
        for each in (augmentation, pickle.loads(pickle.dumps(augmentation))):
            batch = torch.from_numpy(images.copy())
            each(batch, 0, draws)
            results.append(batch)
        assert torch.equal(*results)


OWN_ENGINE = """
from lens_hpc.loading.augmentation_base import Augmentation

class Doubled(Augmentation):
    def flip_and_blur(self, images, epoch, draws):
        images *= 2
"""


def test_an_engine_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: np.ndarray
) -> None:
    (tmp_path / "engine_of_a_test.py").write_text(OWN_ENGINE)
    monkeypatch.syspath_prepend(tmp_path)
    settings = Augment(engine="engine_of_a_test.Doubled", shift=8)
    augmentation = make_augmentation(settings, 0, ["engine_of_a_test"])
    assert not augmentation.is_slow
    with pytest.raises(UserError, match=r"augment.shift = 8"):  # the extras are there, too
        augmentation.check(8, 8)

    images = torch.from_numpy(image[None].copy())
    augmentation.flip_and_blur(images, 0, np.array([0]))
    np.testing.assert_array_equal(images[0], 2 * image)


# ---- what an import and a use leave behind ----

IN_A_NEW_PROCESS = """
import os
import numpy as np, torch, cv2
before = dict(os.environ)
threads = cv2.getNumThreads()
from lens_hpc.config import Augment
from lens_hpc.loading.augmentation import make_augmentation
assert dict(os.environ) == before
make_augmentation(Augment(), 0)(torch.zeros(1, 1, 8, 8), 0, np.array([0]))
import albumentations
assert dict(os.environ) == before
assert cv2.getNumThreads() == threads
"""


@pytest.mark.slow
@pytest.mark.parametrize("variable", [None, "0"])
def test_environment_and_threads_are_left_as_they_were(variable: str | None) -> None:
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": variable or ""}
    if variable is None:
        del environment["NO_ALBUMENTATIONS_UPDATE"]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
