"""The real CFHTLS survey, where it lies beside the checkout, with the shipped configs."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lens_hpc.dataset.split import Split
from tests.integration.commands import done

ROOT = Path(__file__).parents[2]
SURVEY = ROOT.parent / "shared" / "data" / "cfhtls_spacewarps"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SURVEY.is_dir(), reason=f"{SURVEY} is not there"),
]


def test_it_packs_trains_and_evaluates(tmp_path: Path) -> None:
    recipe, config = (
        ROOT / "configs/pack/cfhtls_spacewarps.yaml",
        ROOT / "configs/train/cfhtls.yaml",
    )
    done("pack", str(recipe), f"source={SURVEY}", "output=data/cfhtls", cwd=tmp_path)
    groups = pd.read_csv(SURVEY / "catalogue.csv").set_index("id")["group"]
    members = [
        set(groups[Split(tmp_path / "data/cfhtls", name).ids()])
        for name in ("train", "val", "test")
    ]
    assert sum(len(part) for part in members) == groups.nunique()
    assert done("audit", "data/cfhtls", cwd=tmp_path).endswith("verdict: look\n")
    done("train", str(config), "train.epochs=2", processes=2, cwd=tmp_path)
    done("evaluate", "runs/cfhtls", processes=2, cwd=tmp_path)
    result = json.loads((tmp_path / "runs/cfhtls/evaluation/test/metrics.json").read_text())
    assert result["n"] == len(Split(tmp_path / "data/cfhtls", "test"))
