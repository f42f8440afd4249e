"""The name of every file of a dataset and of a run.

DATASET/manifest.json                     what is inside: shards, checksums, statistics, recipe
DATASET/audit.json                        what the audit found, where there was one
DATASET/rejected.csv                      rows of the source that were left out, and why
DATASET/columns.parquet                   columns that the recipe keeps beside the data, by id
DATASET/truth.parquet                     what simulations and injections know, by id
DATASET/injection.png                     painted arcs beside known ones, where arcs were painted
DATASET/injection_sheet.png               some of them: host, arc and sum
DATASET/train/shard-00000.h5              the rows of a split, in shards

RUN/config.yaml                           settings
RUN/manifest.json                         manifest of the dataset that the run is trained on
RUN/environment.json                      what ran where
RUN/metrics.jsonl                         a line an epoch
RUN/nonfinite.json                        samples of the step in which the loss was no number
RUN/logs/rank-0.log                       what each process said
RUN/tensorboard/, wandb/ and mlflow/      the same metrics for trackers, and pictures
RUN/trackers.json and tracked.txt         what these call the run, and up to which step they know it
RUN/checkpoints/step-00001000/state.pt    all that a run needs to go on
RUN/checkpoints/step-00001000/complete.json
RUN/best/ and RUN/final/                  model.safetensors, config.yaml, manifest.json,
                                          calibration.json, training_rows.parquet
RUN/evaluation/test/                      metrics.json, calibration.json, predictions.parquet,
                                          report.html, figures/, and trained_on.csv where rows were,
                                          recovery.csv where known lenses were looked for
RUN/completeness/NAME/                    completeness.json, cells.parquet, trials.parquet,
                                          hosts.parquet, figures/
RUN/completeness/.NAME.parts/             scores of trials, until all are there: to go on with

PREDICTION/prediction.json                models, recipe and settings that the scores come of
PREDICTION/scores/tile-NAME.parquet       the score of each object of a tile, a shard, or some rows
PREDICTION/summary.json                   written last: what was scored, and by what
PREDICTION/candidates/                    the highest scores, as a packed dataset
PREDICTION/.rows/                         the rows of the catalogue, sorted by tile: to go on with

GRADING/grading.json                      candidates, settings and counts of what is graded
GRADING/items.parquet                     what is graded, in the order in which it is shown
GRADING/grades/GRADER.jsonl               a line a grade, never rewritten

EXPORT/README.md                          the model card
EXPORT/model.safetensors                  as in RUN/best, with config.yaml, manifest.json,
                                          calibration.json and training_rows.parquet
EXPORT/model.onnx and model.pt2           from stored values to logits, for ONNX Runtime and PyTorch
EXPORT/model.json                         bands, units, features, ...: what these files say, too
EXPORT/figures/                           those of the evaluations that the card shows

VETTED/graded.parquet, .csv and .fits     the candidates of a grading, the best first
VETTED/graders.json                       how good graders are, and how well they agree
VETTED/contact_sheet.pdf or .png          grades A and B
VETTED/zooniverse.csv and zooniverse/     manifest and pictures for volunteers
VETTED/dataset/                           the next generation's dataset
VETTED/vetting.json                       counts, estimates for the survey, and where all comes from

SWEEP/sweep.yaml and base.yaml            what is swept, and the settings that all runs begin with
SWEEP/study.journal                       the trials, as Optuna's journal has them
SWEEP/folds/0/                            a dataset for each fold, where there are folds
SWEEP/trials/0007/                        the run of a trial, or 0007-seed-1-fold-0/
SWEEP/trials/0007.yaml and 0007.log       its settings, and what its training said
SWEEP/trials.parquet and trials.csv       a row a run: settings, status and validation
SWEEP/best.yaml and sweep.png             the best settings, and a picture of all

While it is written, .NAME.painting beside an injected dataset holds what is painted already, until
the dataset is there.

While it is written, .NAME.lock beside a dataset, a survey or an evaluation, and RUN/.lock, tell by
whom.
"""

from pathlib import Path

# Both a dataset and a run have one.
MANIFEST = "manifest.json"

# ---- a dataset ----

AUDIT = "audit.json"
REJECTED = "rejected.csv"
KEPT_COLUMNS = "columns.parquet"
TRUTH = "truth.parquet"
INJECTION_FIGURE = "injection.png"
INJECTION_SHEET = "injection_sheet.png"


def shard_file(split: str, number: int) -> str:
    """Name of a shard, relative to its dataset."""
    return f"{split}/shard-{number:05d}.h5"


# ---- a run ----

LOCK = ".lock"
CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS_LOG = "metrics.jsonl"
NONFINITE = "nonfinite.json"
LOGS = "logs"
TENSORBOARD = "tensorboard"
MLFLOW = "mlflow"
TRACKERS = "trackers.json"
TRACKED = "tracked.txt"

BEST, FINAL = "best", "final"
WEIGHTS = "model.safetensors"
CALIBRATION = "calibration.json"
TRAINING_ROWS = "training_rows.parquet"

CHECKPOINTS = "checkpoints"
CHECKPOINT_PREFIX = "step-"
CHECKPOINT_STATE, CHECKPOINT_COMPLETE = "state.pt", "complete.json"

METRICS = "metrics.json"
PREDICTIONS = "predictions.parquet"
TRAINED_ON = "trained_on.csv"
RECOVERY = "recovery.csv"
REPORT = "report.html"
FIGURES = "figures"

COMPLETENESS = "completeness.json"
CELLS = "cells.parquet"
TRIALS = "trials.parquet"
HOST_SCORES = "hosts.parquet"


# ---- the prediction of a survey ----

PREDICTION = "prediction.json"
SCORES = "scores"
SUMMARY = "summary.json"
CANDIDATES = "candidates"
SURVEY_ROWS = ".rows"

# ---- an exported model ----

CARD = "README.md"
ONNX_MODEL, TORCH_MODEL = "model.onnx", "model.pt2"
DESCRIPTION = "model.json"

# ---- the grading of candidates ----

GRADING = "grading.json"
ITEMS = "items.parquet"
GRADES = "grades"

# ---- the vetted list ----

GRADED = "graded"
GRADERS = "graders.json"
CONTACT_SHEET = "contact_sheet"
ZOONIVERSE = "zooniverse"
NEXT_DATASET = "dataset"
VETTING = "vetting.json"

# ---- a sweep ----

SWEEP = "sweep.yaml"
BASE = "base.yaml"
STUDY = "study.journal"
FOLDS = "folds"
RUNS = "trials"
SWEEP_TABLE = "trials"
SWEEP_FIGURE = "sweep.png"
BEST_SETTINGS = "best.yaml"


def scores_file(output: Path, part: str) -> Path:
    """File with the scores of a part of a survey."""
    return output / SCORES / f"{part}.parquet"


def grades_file(grading: Path, grader: str) -> Path:
    """File with the grades that one person gave."""
    return grading / GRADES / f"{grader}.jsonl"


# ---- names in a run ----


def rank_log(run: Path, rank: int) -> Path:
    """Log of one process of a run."""
    return run / LOGS / f"rank-{rank}.log"


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    """Folder of the checkpoint after so many optimizer steps."""
    return checkpoints / f"{CHECKPOINT_PREFIX}{step:08d}"


def evaluation_folder(run: Path, name: str) -> Path:
    """Folder of one evaluation of a run; its name begins with the split."""
    return run / "evaluation" / name


def completeness_folder(run: Path, name: str) -> Path:
    """Folder of one selection function of a run."""
    return run / "completeness" / name
