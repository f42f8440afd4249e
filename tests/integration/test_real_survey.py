"""The real CFHTLS survey, where it lies beside the checkout, with the shipped configs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
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
    known = list_known_lenses(tmp_path / "known.csv")
    done("evaluate", "runs/cfhtls", "known=known.csv", processes=2, cwd=tmp_path)
    evaluation = tmp_path / "runs/cfhtls/evaluation/test"
    result = json.loads((evaluation / "metrics.json").read_text())
    test = Split(tmp_path / "data/cfhtls", "test")
    assert result["n"] == len(test)
    assert_broken_down_by_origin(result, test, (evaluation / "report.html").read_text())

    recovered = pd.read_csv(evaluation / "recovery.csv")
    assert set(recovered["id"]) == known & set(test.ids())
    assert (recovered["name"] == recovered["id"]).all()


def list_known_lenses(file: Path) -> set[str]:
    """Write the lenses of the catalogue as lenscat lists them, and return their ids."""
    catalogue = pd.read_csv(SURVEY / "catalogue.csv")
    lenses = catalogue[(catalogue["is_lens"] == 1) & catalogue["ra"].notna()]
    columns = {"id": "name", "ra": "RA [deg]", "dec": "DEC [deg]", "redshift": "zlens"}
    lenses.rename(columns=columns)[list(columns.values())].to_csv(file, index=False)
    return set(lenses["id"])


def assert_broken_down_by_origin(result: dict[str, Any], test: Split, page: str) -> None:
    """Field stamps are told apart with ease, candidates are not: each has its own numbers."""
    labels = test.take("labels", np.arange(len(test)))
    counts = pd.crosstab(test.kept_columns()["origin"].to_numpy(), labels)
    parts = {part["value"]: part for part in result["breakdown"]["origin"]}
    assert set(parts) == set(counts.index)
    for origin, part in parts.items():
        assert part["n_lenses"] == counts[1][origin]
        assert part["n_non_lenses"] == counts[0][origin]

    low, high = parts["candidate"]["auc_ci95"]
    assert low < parts["candidate"]["auc"] < high
    assert parts["dudfield"]["against"] == "all lenses"
    false_alarms = parts["candidate"]["false_alarms_at_completeness_0.5"]
    low, high = false_alarms["share_ci95"]
    assert low <= false_alarms["share"] <= high

    _, _, section = page.partition("<h2>By origin</h2>")
    table, _, _ = section.partition("</table>")
    for origin, part in parts.items():
        assert f">{origin}<" in table
        assert f"{part['auc']:.4f}" in table
    low, high = parts["candidate"]["auc_ci95"]
    assert f"{low:.4f}" in table
    assert f"{high:.4f}" in table
