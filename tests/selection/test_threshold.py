from pathlib import Path

import numpy as np
import pytest

from lens_hpc.errors import UserError
from lens_hpc.selection.threshold import Cut

LOGITS = np.arange(1000, dtype=np.float32)


def test_a_rate_is_that_of_the_hosts_as_they_are() -> None:
    threshold = Cut(rate=0.01).find(LOGITS)
    assert (threshold <= LOGITS).sum() == 10
    assert Cut(inspected=5000, survey_size=500_000).find(LOGITS) == threshold
    assert Cut(logit=-3.5).find(LOGITS) == -3.5


def test_too_few_hosts_do_not_tell_a_rate() -> None:
    Cut(rate=0.01).check(Path("hosts"), 1000)
    Cut(logit=2.0).check(Path("hosts"), 1)
    with pytest.raises(UserError, match="which needs 1,000; give more hosts, a higher rate"):
        Cut(rate=0.01).check(Path("hosts"), 999)
