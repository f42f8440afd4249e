"""evaluate: score a split with a trained run, every sample once, and say how far the ranking can be trusted.

1. Weights, settings and training statistics come from RUN/best or RUN/final; several runs are one ensemble.
2. The run's validation split is scored first, to calibrate the probabilities on samples that are not tested on.
3. Each process scores its share of the split and writes it to a part; one process makes a whole of the parts.
4. RUN/evaluation/SPLIT gets predictions.parquet, metrics.json, calibration.json, figures/ and report.html, together or
   not at all.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from lens_hpc import UserError, config, files
from lens_hpc.analysis import calibration, report, results, rivals
from lens_hpc.analysis.calibration import Calibration
from lens_hpc.analysis.results import Results, Survey
from lens_hpc.analysis.rivals import Rival
from lens_hpc.analysis.verdict import manifest_crc32, read_audit
from lens_hpc.data.loader import Loader, Samples
from lens_hpc.data.reader import Split
from lens_hpc.engine import predictions, weights
from lens_hpc.engine.accelerator import make_accelerator
from lens_hpc.engine.score import OverViews, score, score_share
from lens_hpc.engine.weights import Trained
from lens_hpc.logs import logger


def run(folder: Path, words: list[str]) -> None:
    """Evaluate the run in `folder`, with the runs that `words` names before its settings, on all processes."""
    runs = [folder, *(Path(word) for word in words if "=" not in word)]
    settings = config.load(config.Evaluate, overrides=[word for word in words if "=" in word])
    members = [weights.load(weights.folder_of(each, settings.weights)) for each in runs]
    home = members[0].settings.data.dataset
    dataset = settings.dataset or home
    split = Split(dataset, settings.split)
    check_members(settings, runs, members, split)
    name = name_of(settings, runs)
    origin = {
        "runs": [str(each) for each in runs],
        "dataset": split.manifest.name,
        "dataset_crc32": manifest_crc32(dataset),
        **settings.model_dump(mode="json", include={"split", "weights", "tta"}),
    }
    compared = [rivals.read(each, each / "evaluation" / name_of(settings, [each]), origin) for each in settings.compare]
    finder = Finder(make_accelerator(), members, settings)  # in float32, whatever it was trained in: rounding ties
    fitted = calibrate(finder, home, split)
    rows, logits = finder.share(split)
    output = folder / "evaluation" / name
    with folder_for_all(finder.accelerator, output) as partial:
        predictions.write_part(partial, finder.accelerator.process_index, split, rows, logits, calibration.maps(fitted))
        finder.accelerator.wait_for_everyone()
        if finder.accelerator.is_main_process:
            scores = predictions.merge(partial, split)
            check_scores(scores.logits, split)
            survey = Survey(settings.prevalence, settings.survey_size, settings.completeness)
            found = results.evaluate(scores.labels, scores.logits, survey, scores.groups, fitted)
            for rival in compared:
                rival.compare(scores.labels, scores.logits)
            write_json(partial / "metrics.json", origin | found.as_dict())
            write_json(partial / "calibration.json", None if fitted is None else asdict(fitted))
            subject = report.Subject(folder, members[0].settings.model.inputs, origin, read_audit(dataset))
            report.write(partial, subject, found, compared, split, scores.labels, scores.logits)
            print(summary(output, found, compared))
    finder.accelerator.end_training()


def samples_for(member: Trained, split: Split) -> Samples:
    """A split as a model wants to see it."""
    sees_features = member.settings.model.inputs != "image"
    return Samples(split, member.manifest, member.settings.data.image_scale, features=sees_features)


def check_members(settings: config.Evaluate, runs: list[Path], members: list[Trained], split: Split) -> None:
    """UserError where a run may have been trained on what it is tested on, or cannot read it."""
    if len(runs) > 1 and settings.weights not in {"best", "final"}:
        raise UserError(f"weights = {settings.weights}: one FILE is not the weights of {len(runs)} runs")
    for run, member in zip(runs, members, strict=True):
        samples_for(member, split)
        if settings.dataset is None and member.manifest.splits != split.manifest.splits:
            raise UserError(
                f"{run}: was trained on other splits than {split.dataset} has now, so that samples of "
                f"{split.name} may be among those; to score them all the same, say dataset={split.dataset}"
            )


class Finder:
    """One trained model or several, which score together: the mean of their logits, and over the views of each."""

    def __init__(self, accelerator: Accelerator, members: list[Trained], settings: config.Evaluate) -> None:
        self.accelerator, self.members, self.settings = accelerator, members, settings
        self.models = [
            accelerator.prepare_model(
                OverViews(member.model, settings.tta, (member.manifest.height, member.manifest.width)),
                evaluation_mode=True,
            )
            for member in members
        ]

    def share(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Rows and logits of this process's share of a split."""
        pairs = zip(self.models, self._loaders(split), strict=True)
        parts = [score_share(self.accelerator, model, loader) for model, loader in pairs]
        return parts[0][0], np.mean([logits for _, logits in parts], axis=0)

    def whole(self, split: Split) -> np.ndarray:
        """Logits of a whole split, on every process."""
        pairs = zip(self.models, self._loaders(split), strict=True)
        return np.mean([score(self.accelerator, model, loader) for model, loader in pairs], axis=0)

    def _loaders(self, split: Split) -> Iterator[Loader]:
        for member in self.members:
            yield Loader(
                samples_for(member, split), self.settings.batch_size, self.settings.workers, self.accelerator.device
            )


def calibrate(finder: Finder, home: Path, tested: Split) -> Calibration | None:
    """The calibration by the run's own validation split; None, with a warning, where that cannot be."""
    try:
        validation = Split(home, "val")
    except UserError as error:
        logger.warning("probabilities are not calibrated: %s", error)
        return None
    if tested.name == "val" and tested.manifest.splits == validation.manifest.splits:
        return None  # what was fitted to a split says nothing about it
    if validation.manifest.splits != finder.members[0].manifest.splits:
        logger.warning("probabilities are not calibrated: %s was packed anew since the run was trained", home)
        return None
    logits = finder.whole(validation)
    check_scores(logits, validation)
    return calibration.fit(validation.take("labels", np.arange(len(validation))), logits)


def check_scores(logits: np.ndarray, split: Split) -> None:
    """UserError for scores that are no numbers."""
    wrong = np.flatnonzero(~np.isfinite(logits))
    if len(wrong):
        raise UserError(
            f"{len(wrong):,} of {len(logits):,} scores are no numbers, the first of {', '.join(split.ids(wrong[:5]))}: "
            "the weights are damaged, or those pixels are beyond what the run was trained on"
        )


@contextmanager
def folder_for_all(accelerator: Accelerator, path: Path) -> Iterator[Path]:
    """A folder that all processes write to; it becomes `path` when the first of them is done."""
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(files.whole_folder(path, replace=True))
        accelerator.wait_for_everyone()
        yield files.partial(path)


def name_of(settings: config.Evaluate, runs: list[Path]) -> str:
    """SPLIT, and what else is not the default, so that evaluations do not replace each other."""
    other = []
    if settings.dataset is not None:
        other.append(f"{settings.dataset.resolve().name}-{manifest_crc32(settings.dataset)[:4]}")
    if settings.weights in {"best", "final"}:
        other += ["final"] * (settings.weights == "final")
    else:
        other.append("-".join(weights.folder_of(runs[0], settings.weights).resolve().parts[-2:]))
    if settings.tta != "none":
        other.append(settings.tta)
    return "-".join([settings.split, *other, *(f"with-{each.resolve().name}" for each in runs[1:])])


def write_json(file: Path, tree: object) -> None:
    """Readable, and the same for the same values."""
    file.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


SHOWN = {"auc": "AUC", "tpr0": "TPR0", "tpr10": "TPR10", "average_precision": "average precision"}


def summary(output: Path, found: Results, compared: list[Rival]) -> str:
    """The metrics, for the terminal."""
    lines = [f"{found.n:,} samples, {found.n_lenses:,} lenses"]
    for name, shown in SHOWN.items():
        quantity = found.quantities[name]
        value = quantity.why_not if quantity.value is None else f"{quantity.value:.4f}"
        interval = f"  95% interval [{quantity.ci95[0]:.4f}, {quantity.ci95[1]:.4f}]" if quantity.ci95 else ""
        lines.append(f"  {shown:<18} {value}{interval}")
    for rival in compared:
        lines.append(f"  {rival}")
    return "\n".join([*lines, f"report.html, metrics.json, predictions.parquet and figures/ are in {output}"])
