"""From which score on a lens counts as found."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lens_hpc.errors import UserError
from lens_hpc.metrics import non_lenses_needed, threshold_of_rate


@dataclass(frozen=True)
class Cut:
    """A score, or the share of galaxies without a lens that may lie above it."""

    logit: float | None = None
    rate: float | None = None
    inspected: int | None = None
    """So many objects of a survey are inspected: lenses are so rare that nearly all are none."""
    survey_size: int = 0
    """Objects of that survey."""

    @property
    def wanted_rate(self) -> float | None:
        """The share of the hosts, as they are, that may be selected; None for a given score."""
        if self.inspected is not None:
            return self.inspected / self.survey_size
        return self.rate

    def check(self, hosts: Path, count: int) -> None:
        """Raise UserError where there are too few hosts to know the score of a rate."""
        rate = self.wanted_rate
        if rate is not None and count < non_lenses_needed(rate):
            raise UserError(
                f"{hosts}: {count:,} hosts do not tell the score that a share of {rate:.3g} of "
                f"them exceeds, which needs {non_lenses_needed(rate):,}; give more hosts, a "
                f"higher rate (fpr={10 / max(count, 20):.2g}), or the score itself, threshold=..."
            )

    def find(self, host_logits: np.ndarray) -> float:
        """Return the score from which on a lens is found, given those of the hosts (H,)."""
        if self.logit is not None:
            return self.logit
        assert self.wanted_rate is not None
        return threshold_of_rate(host_logits, self.wanted_rate)

    def __str__(self) -> str:
        if self.logit is not None:
            return "as given"
        if self.inspected is not None:
            return (
                f"at which {self.inspected:,} of {self.survey_size:,} objects would be inspected, "
                "if they were like these hosts"
            )
        return f"at a false positive rate of {self.rate:g} among these hosts"
