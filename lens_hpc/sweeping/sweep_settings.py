"""The settings of `lens-hpc sweep`."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from lens_hpc.settings import FilePath, Settings, leaves

NEVER_VARIED = ("run", "data.dataset", "train.best", "resume.allow", "code")
"""Settings that cannot vary: runs would not be told apart, or not be compared."""

OF_THE_SWEEP = ("run", "code")
"""Settings of training that a sweep chooses itself, or has under the same name."""


class Range(Settings):
    """The values that a setting may have: exactly one of uniform, log and choices."""

    is_one_value = True

    uniform: tuple[float, float] | None = None
    """[low, high], both included."""
    log: tuple[Annotated[float, Field(gt=0)], float] | None = None
    """[low, high], both included, uniform in the logarithm."""
    choices: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    """These values alone."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Range":
        given = [kind for kind in (self.uniform, self.log, self.choices) if kind is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of uniform, log and choices")
        if self.choices is None and self.ends[0] >= self.ends[1]:
            raise ValueError("the first of two numbers must be the lower one")
        if self.choices and any(self.choices.count(choice) > 1 for choice in self.choices):
            raise ValueError("choices must differ from each other")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Return the lowest and the highest number of a range that has no choices."""
        ends = self.uniform or self.log
        assert ends
        return ends


class SweepSettings(Settings):
    """Settings of `lens-hpc sweep`."""

    not_in_files: ClassVar[frozenset[str]] = frozenset({"code"})
    example: ClassVar[str] = """
config: configs/train/demo.yaml
output: sweeps/first
fixed:
  data.dataset: data/demo/shards
ranges:
  optim.lr: {log: [1.0e-4, 1.0e-2]}
  optim.weight_decay: {choices: [0, 1.0e-4, 1.0e-2]}
"""

    config: FilePath
    """File of settings of training that all runs begin with. The number that its `train.best` names
    is what the sweep makes better."""
    output: FilePath
    """Folder of the sweep. Started again with the same words, the sweep goes on there."""
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ from `config` in all runs, as in {train.epochs: 5}."""
    ranges: dict[str, Range] = Field(default_factory=dict)
    """Settings that vary, by dotted key, each with one of {uniform: [low, high]}, {log: [low,
    high]} and {choices: [...]}. None: to train one setting with several seeds or folds."""
    trials: PositiveInt = 20
    """Settings that are tried, over all tasks together. Of choices alone, no combination is tried
    twice."""
    seeds: PositiveInt = 1
    """Runs of each setting with different seeds, of which the mean counts."""
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Runs of each setting on so many divisions of the splits train and val, in whole groups: each
    row validates once, and the mean counts. null: on the splits as they are."""
    seed: NonNegativeInt = 0
    """Of the draws, and of the folds."""
    processes: PositiveInt = 1
    """Of each training, as of `lens-hpc train`."""
    code: tuple[str, ...] = Field(default=(), exclude=True)
    """Packages of your own that settings may name; nothing else is imported."""

    @field_validator("ranges", mode="before")
    @classmethod
    def _join_keys(cls, tree: Any) -> Any:
        """Let ranges.optim.lr=... of the command line mean the setting optim.lr."""
        return dict(_leaves(tree)) if isinstance(tree, Mapping) else tree

    @model_validator(mode="after")
    def _check_ranges(self) -> "SweepSettings":
        never = [*NEVER_VARIED, *["train.seed"] * (self.seeds > 1)]
        fixed = [key for key, _ in leaves(self.fixed)]
        problems = [f"fixed.{key}: is the sweep's own" for key in fixed if key in OF_THE_SWEEP]
        for key in self.ranges:
            if any(_overlap(key, one) for one in never):
                problems.append(f"ranges.{key}: must be the same in all runs")
            if any(_overlap(key, one) for one in fixed):
                problems.append(f"{key}: is fixed and has a range; give one")
            if any(_overlap(key, one) for one in self.ranges.keys() - {key}):
                problems.append(f"ranges.{key}: overlaps with another range; give one")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the range of each setting in a tree of groups."""
    for key, value in tree.items():
        is_group = isinstance(value, Mapping) and value
        if is_group and all(isinstance(one, Mapping) for one in value.values()):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _overlap(key: str, other: str) -> bool:
    """Whether two dotted keys are the same, or one is a group that the other lies in."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
