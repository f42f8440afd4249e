"""What a sweep has found: its table, its best settings, and what to say of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lens_hpc import files, layout
from lens_hpc import settings as reading
from lens_hpc.describing import show
from lens_hpc.sweeping.figures import Drawn, draw_sweep
from lens_hpc.sweeping.plan import PlannedRun
from lens_hpc.sweeping.space import Knob, settings_line
from lens_hpc.sweeping.study import DONE, FAILED, OPEN, Study, SweepTrial, is_minimised
from lens_hpc.sweeping.taking import Sweeping, validation_of
from lens_hpc.sweeping.trial_process import reason_of
from lens_hpc.training.best import TITLES, as_recorded
from lens_hpc.training.run_folder import is_finished

FEWEST_FOR_IMPORTANCE = 10
BEST_RUN = "best"


@dataclass(frozen=True)
class Sweep:
    """What became of a sweep so far."""

    folder: Path
    stopped: bool
    """Whether this task was asked to stop before all was done: the same line goes on."""
    table: pd.DataFrame
    """A row a run."""
    best: dict[str, Any]
    """The best values of the settings that vary, by dotted key; none before a trial is done."""
    text: str

    def __repr__(self) -> str:
        return f"Sweep {self.text}"


def write_results(sweeping: Sweeping, stopped: bool) -> Sweep:
    """Write the table, the picture and the best settings, as they are by now."""
    folder = sweeping.folder
    with sweeping.study_held() as study:
        trials = study.trials()
        table = _table(sweeping, trials)
        best = best_of(sweeping, trials)

        for written in (folder, folder / layout.RUNS):
            files.remove_partials(written)
        _write_table(folder, table)
        if best:
            _write_best(sweeping, trials, best, _importance(study, sweeping))

    text = _text(sweeping, trials, best)
    return Sweep(folder, stopped, table, best.settings if best else {}, text)


def _write_best(
    sweeping: Sweeping, trials: list[SweepTrial], best: SweepTrial, importance: dict[str, float]
) -> None:
    """Write the best settings, and the picture."""
    folder, space = sweeping.folder, sweeping.plan.space
    settings = space.settings({**best.settings, "run": folder / BEST_RUN})
    files.write_text(folder / layout.BEST_SETTINGS, reading.dump(settings))

    title = f"validation {TITLES[space.base.train.best]}"
    drawn = Drawn(space.knobs, trials, best, importance, title, is_minimised(space))
    with files.whole_file(folder / layout.SWEEP_FIGURE) as aside:
        aside.write_bytes(draw_sweep(drawn))


def best_of(sweeping: Sweeping, trials: list[SweepTrial]) -> SweepTrial | None:
    """Return the best trial; the earliest of equals."""
    done = [trial for trial in trials if trial.value is not None]
    sign = -1 if is_minimised(sweeping.plan.space) else 1
    return max(done, key=lambda trial: sign * (trial.value or 0.0), default=None)


def _importance(study: Study, sweeping: Sweeping) -> dict[str, float]:
    """Return what each setting explains, where there are settings and trials enough to tell."""
    done = sum(trial.state == DONE for trial in study.trials())
    if len(sweeping.plan.space.knobs) < 2 or done < FEWEST_FOR_IMPORTANCE:
        return {}
    return study.importance()


# ---- the table ----


def _table(sweeping: Sweeping, trials: list[SweepTrial]) -> pd.DataFrame:
    knobs = sweeping.plan.space.knobs
    rows = []
    for trial in trials:
        values = {knob.key: _in_cell(knob, trial.settings[knob.key]) for knob in knobs}
        for run in sweeping.plan.runs(trial.number, trial.settings):
            rows.append(_row(trial, values, run))
    return pd.DataFrame(rows)


def _row(trial: SweepTrial, values: dict[str, Any], run: PlannedRun) -> dict[str, Any]:
    """Return what the table says of a run."""
    is_done = is_finished(run.settings)
    failed = trial.state == FAILED and not is_done
    return {
        "trial": trial.number,
        "run": run.name,
        "status": DONE if is_done else trial.state,
        **values,
        "train.seed": run.settings.train.seed,
        "data.dataset": str(run.settings.data.dataset),
        "trial_value": trial.value,
        **as_recorded(validation_of(run)),
        "reason": reason_of(run) if failed else "",
    }


def _in_cell(knob: Knob, value: Any) -> Any:
    """Return a setting's value as its column has it: choices that are no numbers as texts."""
    numbers = [isinstance(one, int | float) for one in knob.range.choices or ()]
    return value if all(numbers) else show(value)


def _write_table(folder: Path, table: pd.DataFrame) -> None:
    csv, parquet = folder / f"{layout.SWEEP_TABLE}.csv", folder / f"{layout.SWEEP_TABLE}.parquet"
    with files.whole_file(csv) as aside:
        table.to_csv(aside, index=False)
    with files.whole_file(parquet) as aside:
        table.to_parquet(aside, index=False)


# ---- in words ----


def _text(sweeping: Sweeping, trials: list[SweepTrial], best: SweepTrial | None) -> str:
    """Say what was tried, and what is best."""
    states = [trial.state for trial in trials]
    lines = [
        f"{sweeping.folder}: {states.count(DONE)} of {sweeping.most_trials} trials done, "
        f"{states.count(FAILED)} failed"
    ]
    if OPEN in states or len(trials) < sweeping.most_trials:
        lines.append("  what is left, other tasks train, or the same line does, run again")
    if best:
        lines += _text_of_best(sweeping, best)
        lines += _text_of_chance(sweeping, best, states.count(DONE))
    return "\n".join(lines)


def _text_of_best(sweeping: Sweeping, best: SweepTrial) -> list[str]:
    by = sweeping.plan.space.base.train.best
    runs = sweeping.plan.runs(best.number, best.settings)
    values = [validation_of(run)[by] for run in runs]
    of_runs = ""
    if len(values) > 1:
        of_runs = (
            f" on average of {len(values)} runs, standard deviation {np.std(values, ddof=1):.4f}"
        )
    lines = [f"best: trial {best.number}, validation {TITLES[by]} {best.value:.4f}{of_runs}"]
    return lines + [f"  {settings_line(best.settings)}"] * bool(best.settings)


def _text_of_chance(sweeping: Sweeping, best: SweepTrial, done: int) -> list[str]:
    """Say what the best number is worth, and what to do with it."""
    folder = sweeping.folder
    lines = []
    if done > 1:
        lines.append(
            f"The best of {done} is also the luckiest: its validation number flatters it. Report "
            "one evaluation of this one on the test split, which no choice was made on:"
        )
    runs = sweeping.plan.runs(best.number, best.settings)
    if len(runs) > 1:
        lines.append(f"  lens-hpc train {folder / layout.BEST_SETTINGS}")
        return [*lines, f"  lens-hpc evaluate {folder / BEST_RUN}"]
    lines.append(f"  lens-hpc evaluate {runs[0].folder}")
    return [*lines, "How much of it is chance, a sweep with seeds=3 in another output tells."]
