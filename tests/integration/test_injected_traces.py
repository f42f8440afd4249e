"""Painting leaves no trace but arcs: with those masked, nothing tells painted hosts from others.

Each host that gets no arc gets the mask of another one's. An arc lies as its host does, so a mask
alone would tell whose it is: both hosts of a pair get their own mask and that of the other, where
the arc of the unpainted one would have been. What a wrong law leaves behind is found.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lens_hpc.auditing.shortcuts import measure_centres, measure_cutouts, measure_power
from lens_hpc.auditing.textures import measure_textures
from lens_hpc.dataset.shards import BLOCK_ROWS, RowBlock
from lens_hpc.packing.derived import SplitRows, write_dataset
from lens_hpc.packing.describing import DatasetFacts
from lens_hpc.packing.hosts import open_hosts
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.painting import Painter

pytestmark = pytest.mark.slow

SIDE = 33
PAINTED = 2_000
SEEDS = (0, 1)
"""Of the hosts, and of the injection."""
FAINTEST = 0.005
"""In sigmas of the sky: where the arc is fainter, its light is no trace. The sky level of a cutout,
the mean of 250 pixels, is known to 0.06, a tenth of which would move an AUC by 0.03."""
NO_TRACE = (0.47, 0.53)
"""An AUC of 0.5 from 2,000 of each class has a standard deviation of 0.009."""
PEDESTAL = 0.3
"""Share of an arc's light that a wrong PSF spreads over the cutout."""

RECIPE = InjectionRecipe.model_validate(
    {
        "psf": {"g": 0.6, "i": 0.5},
        "deflector": {"einstein_radius": {"uniform": [0.8, 1.2]}},
        "sources": {
            "z": {"fixed": 2.0},
            "magnitude": {"uniform": [22.0, 24.5]},
            "band": "g",
            "colors": {"i": {"normal": [-0.2, 0.3]}},
        },
        "seed": SEEDS[1],
    }
)


class Masked(NamedTuple):
    """Cutouts with and without arcs, in pairs of one mask. (N, bands, height, width) each."""

    painted: np.ndarray
    unpainted: np.ndarray
    mask: np.ndarray
    """(N, 1, height, width) bool: where the arc of either host of a pair is or would be."""
    flux: np.ndarray
    """Of each arc, (N, bands)."""

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the cutouts without their masked pixels, 2 N of them, and their labels."""
        pairs = np.concatenate([self.painted, self.unpainted])
        masks = np.concatenate([self.mask, self.mask])
        labels = np.repeat([1, 0], len(self.painted))
        return np.where(masks, np.float32(0), pairs), labels


def draw_hosts(count: int) -> np.ndarray:
    """Draw galaxies with neighbours on a noisy sky of sigma 1, (count, 2, SIDE, SIDE) float32."""
    rng = np.random.default_rng(SEEDS[0])
    images = rng.normal(size=(count, 2, SIDE, SIDE))
    places = np.stack([rng.uniform(-0.5, 0.5, (count, 2)), rng.uniform(-15, 15, (count, 2))])
    colours = np.array([1.0, 2.5])[:, None, None]

    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    for number, image in enumerate(images):
        for (x0, y0), brightest in zip(places[:, number], (30, 10), strict=True):
            q, phi = rng.uniform(0.6, 1), rng.uniform(0, np.pi)
            along = np.cos(phi) * (x - x0) + np.sin(phi) * (y - y0)
            across = np.cos(phi) * (y - y0) - np.sin(phi) * (x - x0)
            radius = np.hypot(along * np.sqrt(q), across / np.sqrt(q))
            peak = brightest * rng.lognormal(0, 0.4)
            image += colours * peak * np.exp(-radius / rng.uniform(3, 5))
    return images.astype(np.float32)


def write_hosts(folder: Path, images: np.ndarray) -> Path:
    """Write hosts as a packed dataset of one split."""
    count = len(images)
    blocks = []
    for start in range(0, count, BLOCK_ROWS):
        block = images[start : start + BLOCK_ROWS]
        rows = len(block)
        texts = np.full(rows, b"")
        columns = {
            "features": np.empty((rows, 0), dtype=np.float32),
            "labels": np.zeros(rows, dtype=np.int8),
            "ids": np.array([f"host{start + row:04d}" for row in range(rows)], dtype=bytes),
        }
        blocks.append(RowBlock(images=block, groups=texts, sources=texts, **columns))

    facts = DatasetFacts(
        name="hosts",
        bands=("g", "i"),
        height=SIDE,
        width=SIDE,
        dtype="float32",
        pixel_scale_arcsec=0.2,
        units="counts",
        features=(),
        recipe={},
        zero_point={"g": 27.0, "i": 27.0},
        gain={"g": 4.0, "i": 4.0},
    )
    write_dataset(folder, facts, {"train": SplitRows(count, blocks)})
    return folder


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Masked:
    """As inject draws hosts and paints them."""
    folder = write_hosts(tmp_path_factory.mktemp("hosts") / "d", draw_hosts(2 * PAINTED))
    hosts = open_hosts(folder, RECIPE)
    split = hosts.splits["train"]
    painter = Painter(RECIPE, hosts.manifest)
    images = split.reader.take("images", np.arange(2 * PAINTED))

    results = [painter.paint(images[row], split.ids[row], {}) for row in range(2 * PAINTED)]
    masks = np.array([(result.arc > FAINTEST).any(axis=0, keepdims=True) for result in results])
    painted = [results[row] for row in np.flatnonzero(split.is_drawn)]
    assert len(painted) == PAINTED
    return Masked(
        painted=np.array([result.pixels for result in painted]),
        unpainted=images[~split.is_drawn],
        mask=masks[split.is_drawn] | masks[~split.is_drawn],
        flux=np.array([result.arc.sum(axis=(1, 2)) for result in painted]),
    )


def telling(masked: Masked) -> dict[str, float]:
    """Return the AUC of each of the audit's numbers, of all together, and of the pixels."""
    images, labels = masked.images()
    # Both of a pair have the same mask: whoever learns from one of them must not judge the other.
    pairs = np.tile(np.arange(len(labels) // 2), 2)
    numbers = [measure_cutouts(images), measure_textures(images)]
    table = np.concatenate([part.reshape(len(labels), -1) for part in numbers], axis=1)
    table = np.hstack([table, measure_centres(images)])
    seen = {f"number {place}": column for place, column in enumerate(table.T)}
    seen["all numbers"] = table
    # Pixels in groups of three by three, of which boosted trees take those that tell most.
    groups = images.reshape(len(labels), 2, SIDE // 3, 3, SIDE // 3, 3).mean(axis=(3, 5))
    seen["pixels"] = groups.reshape(len(labels), -1)

    aucs = {}
    for name, values in seen.items():
        if np.unique(values).size > 1:
            power = measure_power(labels, values, pairs)
            assert power is not None
            aucs[name] = power.auc
    return aucs


def test_where_arcs_are_masked_nothing_tells_who_was_painted(masked: Masked) -> None:
    aucs = telling(masked)
    assert len(aucs) >= 20
    low, high = NO_TRACE
    assert {name: auc for name, auc in aucs.items() if not low <= auc <= high} == {}


def test_the_masks_leave_much_of_the_cutout(masked: Masked) -> None:
    assert 0.1 < masked.mask.mean() < 0.65
    changed = masked.painted[:, :, 0, 0]
    assert len(np.unique(changed)) > PAINTED


def test_noise_that_is_added_everywhere_is_found(masked: Masked) -> None:
    noise = np.random.default_rng(2).normal(0, 0.3, masked.painted.shape)
    noisy = (masked.painted + noise).astype(np.float32)
    assert max(telling(masked._replace(painted=noisy)).values()) > NO_TRACE[1]


def test_hosts_that_were_chosen_brighter_are_found(masked: Masked) -> None:
    def brighter_of_two(images: np.ndarray) -> np.ndarray:
        flux = np.where(masked.mask, 0, images).sum(axis=(1, 2, 3))
        half = len(flux) // 2
        return np.where(flux[:half] > flux[half:], np.arange(half), np.arange(half) + half)

    chosen = brighter_of_two(masked.painted)
    half = len(chosen)
    wrong = Masked(
        masked.painted[chosen], masked.unpainted[:half], masked.mask[chosen], masked.flux
    )
    assert max(telling(wrong).values()) > NO_TRACE[1]


def test_a_psf_on_a_pedestal_is_found(masked: Masked) -> None:
    # Some of the light of each arc lies all over the cutout, where no star's light does.
    pedestal = PEDESTAL * masked.flux[:, :, None, None] / SIDE**2
    wrong = masked._replace(painted=(masked.painted + pedestal).astype(np.float32))
    assert max(telling(wrong).values()) > NO_TRACE[1]
