"""Does the code as it is now still read, resume and score what an earlier version made?

    python benchmarks/compatibility.py [old=5b7e5bb] [new=FOLDER] [model.backbone=NAME ...]

The old commit is checked out into a temporary folder. There it packs and audits a mock survey,
trains run A to its end, stops run B (the same training) in its second epoch, and evaluates A. Then
the code in FOLDER (by default, the checkout that this script is in)

1. verifies the dataset, and says what is in it;
2. continues a copy of B, which must end with the weights and the losses of A, to the bit;
3. evaluates a copy of A, which must give the metrics and the logits that the old code gave.

Every comparison is a line of a table, and the exit status is 1 when one of them differs. A key that
only the new code writes is named and allowed, and so is an interval or a calibration that differs:
these are estimates, which later versions make better (CHANGELOG.md says which). All runs on the
CPU, in one thread; settings of training, such as model.backbone, are passed to all of them.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
STOPPED = 85
BATCH_SIZE = 8
TRAINING = (
    "train.epochs=3",
    f"train.global_batch_size={BATCH_SIZE}",
    "optim.ema_decay=0.9",
    "checkpoint.every_steps=5",
)
# What a line of metrics.jsonl says about time, which no two trainings share.
TIMES = {"seconds", "cutouts_per_second", "waiting_for_data", "saving", "logging"}
# metrics.json names the run's folder, and the copy has another.
PLACES = {"runs"}
# Parts of the keys of metrics.json whose values are estimates: intervals, calibrated probabilities,
# and why there is too little for some.
ESTIMATES = ("_ci95", "_at_least", "probability_isotonic", "not_said")


class Row(NamedTuple):
    """A line of the table."""

    what: str
    same: bool
    detail: str

    def __str__(self) -> str:
        return f"{'same' if self.same else 'DIFFERS':<9}{self.what:<38}{self.detail}"


class Version:
    """One version of the package, called as its user would call it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

        # The interpreter may have lens_hpc installed from elsewhere, which would prove nothing.
        found = self.finish(self.start("-c", "import lens_hpc; print(lens_hpc.__file__)")).strip()
        if not Path(found).is_relative_to(self.folder):
            sys.exit(f"lens_hpc was imported from {found}, not from {self.folder}")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Python with this version."""
        own = {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=os.environ | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str], status: int = 0) -> str:
        """Wait for a process, and return its output; another exit status ends everything."""
        output = process.communicate()[0]
        if process.returncode != status:
            end = f"ended with {process.returncode} instead of {status}"
            sys.exit(f"{shlex.join(process.args)}\nin {self.folder} {end}:\n{output[-3000:]}")
        return output

    def lens_hpc(self, *arguments: str | Path) -> str:
        """Run `lens-hpc ARGUMENTS`, and return its output."""
        return self.finish(self.start("-m", "lens_hpc", *map(str, arguments)))


@contextmanager
def checkout(commit: str, folder: Path) -> Iterator[Version]:
    """Check a commit out into a new folder, and take it away afterwards."""
    git = ("git", "-C", str(ROOT), "worktree")
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield Version(folder)
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def train_line(folder: Path, run: str) -> tuple[str, ...]:
    """Arguments of the training: all runs have the same ones, but for their folder."""
    further = (argument for argument in sys.argv[1:] if "." in argument.split("=")[0])
    config = folder / "old" / "configs" / "train" / "demo.yaml"
    dataset = folder / "dataset"
    return (
        "train",
        str(config),
        f"run={folder / run}",
        f"data.dataset={dataset}",
        *TRAINING,
        *further,
    )


def make(old: Version, folder: Path) -> None:
    """Make the dataset, the runs A and B, their copies, and the evaluation of A."""
    survey, dataset = folder / "survey", folder / "dataset"
    old.lens_hpc("simulate", survey, "objects=400", "seed=0")
    old.lens_hpc("pack", survey / "recipe.yaml", f"source={survey}", f"output={dataset}")
    old.lens_hpc("audit", dataset)

    old.lens_hpc(*train_line(folder, "A"))
    stop_in_second_epoch(
        old, train_line(folder, "B"), folder / "B", epochs(folder / "A")[0]["step"]
    )

    # The new code works on copies, so that both versions' results are there to be compared.
    shutil.copytree(folder / "A", folder / "A-new")
    shutil.copytree(folder / "B", folder / "B-new")
    old.lens_hpc("evaluate", folder / "A", "split=test", "tta=none")


def stop_in_second_epoch(old: Version, line: tuple[str, ...], run: Path, epoch_steps: int) -> None:
    """Train until a checkpoint of the second epoch is there, and stop by a signal."""
    process = old.start("-m", "lens_hpc", *line)
    while saved_step(run) <= epoch_steps and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    old.finish(process, STOPPED)

    if len(epochs(run)) != 1:
        sys.exit("run B was too fast to be stopped in its second epoch; try again")


def saved_step(run: Path) -> int:
    """Step of the newest checkpoint, 0 without one."""
    names = (path.name.removeprefix("step-") for path in run.glob("checkpoints/step-*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


def epochs(run: Path) -> list[dict[str, Any]]:
    """What a run has recorded of each epoch."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def compare(new: Version, folder: Path) -> Iterator[Row]:
    """Use with the new code what the old code made; a row is told as soon as it is known."""
    dataset = folder / "dataset"
    yield Row("dataset: verify", True, new.lens_hpc("verify", dataset).strip().rpartition(": ")[2])
    yield Row("dataset: info", True, f"{len(new.lens_hpc('info', dataset).splitlines())} lines")

    before, after = folder / "A", folder / "B-new"
    new.lens_hpc(*train_line(folder, "B-new"))
    yield went_on(folder / "B", after)
    yield same_values("B continued: metrics.jsonl", epochs(before), epochs(after), TIMES)
    for file in ("final/model.safetensors", "best/model.safetensors"):
        yield same_tensors(f"B continued: {file}", before / file, after / file)

    new.lens_hpc("evaluate", folder / "A-new", "split=test", "tta=none")
    before, after = (folder / run / "evaluation" / "test" for run in ("A", "A-new"))
    metrics = (json.loads((each / "metrics.json").read_text()) for each in (before, after))
    yield same_values("A evaluated: metrics.json", *metrics, PLACES)
    yield same_logits("A evaluated: predictions.parquet", before, after)


def went_on(stopped: Path, continued: Path) -> Row:
    """Tell whether the second epoch was gone on with: one begun anew gives the same bits, too."""
    step, (first, second, *_) = saved_step(stopped), epochs(continued)
    trained = round(second["cutouts_per_second"] * second["seconds"])
    rest = (second["step"] - step) * BATCH_SIZE

    # The first epoch is still the old code's, with its times.
    same = [first] == epochs(stopped) and trained == rest
    detail = f"{trained} cutouts of the {rest} that epoch 2 had left after step {step}"
    return Row("B continued: from its checkpoint", same, detail)


def same_tensors(what: str, before: Path, after: Path) -> Row:
    """Compare two files of weights, to the bit."""
    with safe_open(before, "np") as old, safe_open(after, "np") as new:
        names = {*old.keys(), *new.keys()}
        both = {*old.keys()} & {*new.keys()}
        equal = {name for name in both if bits(old.get_tensor(name)) == bits(new.get_tensor(name))}
        epoch = new.metadata()["epoch"]
    wrong = "".join(f"; other: {name}" for name in sorted(names - equal)[:3])
    return Row(
        what, equal == names, f"{len(equal)} of {len(names)} tensors, of epoch {epoch}{wrong}"
    )


def bits(tensor: np.ndarray) -> tuple[np.dtype, tuple[int, ...], bytes]:
    """All that makes a tensor what it is."""
    return tensor.dtype, tensor.shape, tensor.tobytes()


def same_values(what: str, before: Any, after: Any, ignored: set[str]) -> Row:
    """Compare two trees of plain values; the new one may have more keys."""
    old, new = (dict(leaves(tree, ignored)) for tree in (before, after))
    both = old.keys() & new.keys()
    numbers = [key for key in both if {type(old[key]), type(new[key])} <= {int, float}]

    # Texts and nulls count as well: a metric that is no longer said is a difference.
    other = {key for key in both if old[key] != new[key]}
    estimated = {key for key in other if any(part in key for part in ESTIMATES)}
    other -= estimated
    added, missing = new.keys() - old.keys(), old.keys() - new.keys()
    told = {"new": added, "estimated anew": estimated, "missing": missing, "other": other}

    differences = (abs(old[key] - new[key]) for key in numbers if key not in estimated)
    detail = f"{len(numbers)} numbers, largest difference {max(differences, default=0):g}"
    detail += "".join(f"; {kind}: {', '.join(sorted(keys))}" for kind, keys in told.items() if keys)
    return Row(what, not missing and not other, detail)


def leaves(tree: Any, ignored: set[str], path: str = "") -> Iterator[tuple[str, Any]]:
    """List the values in mappings and lists, each with its dotted path."""
    if not isinstance(tree, dict | list):
        yield path, tree
        return
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if key not in ignored:
            yield from leaves(value, ignored, f"{path}.{key}".removeprefix("."))


def same_logits(what: str, before: Path, after: Path) -> Row:
    """Compare the scores of two evaluations, cutout by cutout."""
    tables = (pd.read_parquet(each / "predictions.parquet") for each in (before, after))
    old, new = (table.set_index("id")["logit"].sort_index() for table in tables)
    if not old.index.equals(new.index):
        return Row(what, False, f"other cutouts: {len(old)} before, {len(new)} now")
    detail = f"{len(old)} logits, largest difference {(old - new).abs().max():g}"
    return Row(what, old.equals(new), detail)


def main(commit: str, new_folder: Path) -> int:
    """Print the table, and return the exit status."""
    with tempfile.TemporaryDirectory() as name, checkout(commit, Path(name) / "old") as old:
        new = Version(new_folder)
        print(f"made by {commit}, used by {new.folder}", flush=True)
        make(old, Path(name))

        same = True
        for row in compare(new, Path(name)):
            print(row, flush=True)
            same = same and row.same
    return 0 if same else 1


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[1:])
    sys.exit(main(options.get("old", "5b7e5bb"), Path(options.get("new", ROOT))))
