"""Print one table of the test metrics of several runs: python benchmarks/compare.py RUN [RUN ...]."""

import json
import sys
from pathlib import Path

from lens_hpc import config


def main(runs: list[Path]) -> None:
    """One line a run, then where the figures lie."""
    print(f"\n{'inputs':<10} {'AUC':>7}  {'95% interval':<18} {'TPR0':>6} {'TPR10':>6} {'av. precision':>14}")
    for run in runs:
        inputs = config.load(config.Train, run / "best" / "config.yaml").model.inputs
        result = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
        low, high = result["auc_ci95"]
        interval = f"[{low:.4f}, {high:.4f}]"
        tpr10 = "-" if result["tpr10"] is None else f"{result['tpr10']:.3f}"
        shares = f"{result['tpr0']:>6.3f} {tpr10:>6} {result['average_precision']:>14.3f}"
        print(f"{inputs:<10} {result['auc']:>7.4f}  {interval:<18} {shares}")
    print(f"{result['n']:,} test samples, {result['n_lenses']:,} of them lenses. ROC curves:")
    print("\n".join(f"  {run}/evaluation/test/roc.png" for run in runs))


if __name__ == "__main__":
    main([Path(run) for run in sys.argv[1:]] or sys.exit(__doc__))
