"""Trials painted on their hosts, part by part, in worker processes."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from lens_hpc.errors import UserError
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.painting import ArcTrial, Painter
from lens_hpc.selection.grid import Trials
from lens_hpc.selection.hosts import HostReader, Hosts
from lens_hpc.workers import make_pool

PARTS_AHEAD = 2
"""So many parts of each worker may wait to be scored."""


class PaintedTrials(NamedTuple):
    """B painted trials."""

    images: np.ndarray
    """(B, bands, height, width), as the dataset's."""
    masks: np.ndarray
    """(B, height, width) bool: where the arc stands out."""
    truth: list[dict[str, Any]]


def paint_trials(
    painter: Painter, reader: HostReader, trials: Trials, numbers: np.ndarray
) -> PaintedTrials:
    """Paint the trials of these numbers. Raises UserError for a host that cannot be painted."""
    hosts = reader.hosts
    of_trials = trials.host[numbers]
    cutouts = reader.read("images", of_trials)
    painted = []
    for cutout, host, number in zip(cutouts, of_trials, numbers.tolist(), strict=True):
        trial = ArcTrial(
            number=number,
            einstein_radius=float(trials.einstein_radius[number]),
            source_magnitude=float(trials.source_magnitude[number]),
        )
        name = str(hosts.ids[host])
        try:
            painted.append(painter.paint(cutout, name, hosts.painted_by[host], trial))
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    return PaintedTrials(
        images=np.stack([one.pixels for one in painted]),
        masks=np.stack([one.mask for one in painted]),
        truth=[one.truth for one in painted],
    )


# ---- worker processes ----


@dataclass(frozen=True)
class Painting:
    """All that a worker process needs to paint."""

    recipe: InjectionRecipe
    hosts: Hosts
    trials: Trials

    def parts(self, numbers: Sequence[np.ndarray], processes: int) -> Iterator[PaintedTrials]:
        """Yield the painted parts of these trials, in their order.

        Every process paints with one thread, so that pixels do not depend on their number.
        """
        with make_pool(processes, "spawn", _begin, self) as pool:
            try:
                ahead: deque[Future[PaintedTrials]] = deque()
                for part in numbers:
                    ahead.append(pool.submit(_paint, part))
                    if len(ahead) >= PARTS_AHEAD * processes:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                # After an error in one part, the others are not waited for.
                pool.shutdown(cancel_futures=True)


class _Worker(NamedTuple):
    painter: Painter
    reader: HostReader
    trials: Trials


_of_this_process: list[_Worker] = []


def _begin(painting: Painting) -> None:
    torch.set_num_threads(1)
    reader = HostReader(painting.hosts)
    painter = Painter(painting.recipe, reader.dataset.manifest)
    _of_this_process.append(_Worker(painter, reader, painting.trials))


def _paint(numbers: np.ndarray) -> PaintedTrials:
    worker = _of_this_process[0]
    return paint_trials(worker.painter, worker.reader, worker.trials, numbers)
