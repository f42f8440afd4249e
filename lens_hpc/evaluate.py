"""evaluate: score a split with a trained run, every sample once, and say how good the ranking is.

1. Weights, settings and training statistics come from RUN/best or RUN/final.
2. All processes score their share; the scores are gathered by row.
3. RUN/evaluation/SPLIT gets predictions.parquet, metrics.json and roc.png, together or not at all.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lens_hpc import config, files
from lens_hpc.analysis import figures
from lens_hpc.analysis.metrics import Metrics
from lens_hpc.analysis.metrics import evaluate as measure
from lens_hpc.data.loader import Loader, Samples
from lens_hpc.data.reader import Split
from lens_hpc.engine import weights
from lens_hpc.engine.accelerator import make_accelerator
from lens_hpc.engine.dataset import check_labels
from lens_hpc.engine.score import score


def run(folder: Path, overrides: list[str]) -> None:
    """Evaluate the run in `folder` on as many processes as the launcher started."""
    settings = config.load(config.Evaluate, overrides=overrides)
    trained = weights.load(folder / settings.weights)
    dataset = settings.dataset or trained.settings.data.dataset
    split = Split(dataset, settings.split)
    check_labels(dataset, split.manifest, settings.split)
    accelerator = make_accelerator()  # in float32, whatever it was trained in: rounding would tie scores
    model = accelerator.prepare_model(trained.model, evaluation_mode=True)
    samples = Samples(split, trained.manifest, trained.settings.data.image_scale)
    logits = score(accelerator, model, Loader(samples, settings.batch_size, settings.workers, accelerator.device))
    if accelerator.is_main_process:
        output = folder / "evaluation" / name_of(settings)
        origin = {"split": settings.split, "weights": settings.weights, "dataset": split.manifest.name}
        result = write_evaluation(output, split, logits, origin)
        print(summary(output, result))
    accelerator.end_training()


def name_of(settings: config.Evaluate) -> str:
    """SPLIT, and what else is not the default, so that evaluations do not replace each other."""
    other = [] if settings.dataset is None else [settings.dataset.resolve().name]
    return "-".join([settings.split, *other, *([settings.weights] if settings.weights != "best" else [])])


def write_evaluation(output: Path, split: Split, logits: np.ndarray, origin: dict[str, str]) -> Metrics:
    """Write predictions, metrics and figure into `output`, in place of the same evaluation made earlier."""
    predictions = tabulate(split, logits)
    labels = predictions["label"].to_numpy()
    result = measure(labels, logits)
    with files.whole_folder(output, replace=True) as partial:
        predictions.to_parquet(partial / "predictions.parquet", index=False)
        (partial / "metrics.json").write_text(json.dumps(origin | result.as_dict(), indent=1) + "\n", encoding="utf-8")
        title = f"{output.parents[1].name} on {origin['dataset']}, {origin['split']}"
        figures.draw_roc(partial / "roc.png", labels, logits, result, title)
    return result


def tabulate(split: Split, logits: np.ndarray) -> pd.DataFrame:
    """One row a sample of the split, in its order."""
    rows = np.arange(len(split))
    return pd.DataFrame(
        {
            "id": split.ids(),
            "index": rows,
            "label": split.take("labels", rows),
            "logit": logits,
            "probability": 1 / (1 + np.exp(-logits.astype(np.float64))),
        }
    )


def summary(output: Path, result: Metrics) -> str:
    """The metrics, for the terminal."""
    low, high = result.auc_ci95
    tpr10 = "fewer than 10 non-lenses" if result.tpr10 is None else f"{result.tpr10:.3f}"
    return (
        f"{result.n:,} samples, {result.n_lenses:,} lenses\n"
        f"  AUC                {result.auc:.4f}  95% interval [{low:.4f}, {high:.4f}]\n"
        f"  TPR0               {result.tpr0:.3f}\n"
        f"  TPR10              {tpr10}\n"
        f"  average precision  {result.average_precision:.3f}\n"
        f"predictions.parquet, metrics.json and roc.png are in {output}"
    )
