"""Batches on a GPU: copied, normalised and augmented there while the caller computes.

Nothing here waits for the GPU. All work is on a stream of its own, whose kernels go before those of
training when both have some, and a batch takes two copies: one of its images, one of all the rest.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from lens_hpc.loading.memory import PackedTensors, first_samples
from lens_hpc.loading.samples import Samples

HIGH_PRIORITY = -1


@dataclass
class _Place:
    """Memory on the GPU for one batch."""

    stored: torch.Tensor
    """(B, bands, height, width), as they come from the CPU."""
    images: torch.Tensor
    """The same as float32: the same tensor, where they come so."""
    rest: PackedTensors
    free_again: torch.cuda.Event
    """When this has happened, the caller needs the batch here no more."""


class GpuBatches:
    """Brings batches to a GPU, into two places in turn: one that is used, one for the next batch.

    `images` and `rest` are memory on the CPU as batches will come from.
    """

    def __init__(
        self, samples: Samples, images: torch.Tensor, rest: PackedTensors, device: torch.device
    ) -> None:
        self.samples = samples
        self.device = device
        self.stream = torch.cuda.Stream(  # type: ignore[no-untyped-call]
            device, priority=HIGH_PRIORITY
        )
        self._places = deque(self._make_place(images, rest) for _ in range(2))

    def bring(
        self,
        images: torch.Tensor,
        rest: PackedTensors,
        epoch: int,
        draws: np.ndarray,
        prepared: bool,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.cuda.Event]:
        """Return the batch of these draws on the GPU, valid until the next one is brought.

        It is normalised and augmented there, unless it is `prepared`. The caller's stream waits for
        that; when the event has happened, the memory on the CPU may be filled again.
        """
        callers_stream = torch.cuda.current_stream(self.device)
        place, previous_place = self._places
        self._places.reverse()

        # Whoever asks for the next batch has launched all that uses the previous one.
        previous_place.free_again = callers_stream.record_event()

        with torch.cuda.stream(self.stream):
            self.stream.wait_event(place.free_again)
            count = len(draws)
            stored = first_samples(place.stored, count)
            stored.copy_(first_samples(images, count), non_blocking=True)
            place.rest.whole.copy_(rest.whole, non_blocking=True)
            # A thread that waits for this event sleeps meanwhile.
            copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            copied.record(self.stream)

            images_there = first_samples(place.images, count)
            if place.images is not place.stored:
                images_there.copy_(stored)
            rest_there = place.rest.first(count)
            if not prepared:
                self.samples.prepare_drawn(images_there, rest_there, epoch, draws)

        callers_stream.wait_stream(self.stream)
        return images_there, rest_there, copied

    def _make_place(self, images: torch.Tensor, rest: PackedTensors) -> _Place:
        stored = torch.empty(images.shape, dtype=images.dtype, device=self.device)
        as_float32 = stored
        if stored.dtype != torch.float32:
            as_float32 = torch.empty(images.shape, device=self.device)

        # The memory may be that of a tensor that the caller's stream is not yet done with.
        now = torch.cuda.current_stream(self.device).record_event()
        return _Place(stored, as_float32, PackedTensors(rest.tensors, self.device), now)
