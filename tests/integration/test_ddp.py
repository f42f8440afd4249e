"""DistributedDataParallel on two CPU ranks, whatever the backbone."""

from pathlib import Path

import pytest
import timm

from tests.conftest import pack_survey, write_survey
from tests.integration.commands import forked

OWN = "train_every_family.Experts"
SCRIPT = Path(__file__).with_name("train_every_family.py")


@pytest.mark.slow
def test_every_family_trains_under_ddp(tmp_path: Path) -> None:
    """Many leave parts of timm's head unused, for which DDP would wait at the second step."""
    dataset = pack_survey(write_survey(tmp_path / "s", rows=40, size=64), tmp_path / "d")
    result = forked(str(dataset), processes=2, program=(str(SCRIPT),))
    assert result.returncode == 0, result.stderr[-3000:]

    lines = [line for line in result.stdout.splitlines() if line.startswith(("test_", OWN))]
    assert len(lines) == 2 * len([*timm.list_models("test_*"), OWN])
    assert not [line for line in lines if not line.endswith(" ok")]
