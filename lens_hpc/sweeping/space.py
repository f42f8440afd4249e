"""What a sweep varies: checked against the settings of training before anything starts."""

import json
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lens_hpc import config
from lens_hpc import settings as reading
from lens_hpc.describing import show
from lens_hpc.errors import UserError
from lens_hpc.sweeping.sweep_settings import Range, SweepSettings

SETTINGS_TRIED = 100
"""Drawn before the start: what a range allows, a rule over several settings may not."""


class Knob(NamedTuple):
    """A setting that varies."""

    key: str
    """Dotted."""
    range: Range
    is_whole: bool
    """Whether its numbers are whole ones."""

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the choices in JSON, as Optuna has them; none for a range of numbers."""
        return tuple(json.dumps(choice) for choice in self.range.choices or ())

    def value_of(self, drawn: Any) -> Any:
        """Return the setting's value that something drawn stands for."""
        return json.loads(drawn) if self.range.choices else drawn

    def draw(self, rng: random.Random) -> Any:
        """Draw a value without regard to any other."""
        if self.range.choices:
            return rng.choice(self.range.choices)
        low, high = self.range.ends
        if self.is_whole:
            return rng.randint(int(low), int(high))
        if self.range.log:
            return math.exp(rng.uniform(math.log(low), math.log(high)))
        return rng.uniform(low, high)


@dataclass(frozen=True)
class Space:
    """The settings that all runs begin with, and what varies."""

    base: config.Train
    knobs: tuple[Knob, ...]

    def settings(self, values: Mapping[str, Any]) -> config.Train:
        """Return settings of training with some values, by dotted keys.

        Raises UserError for those that are not valid.
        """
        return _with_values(self.base, values)

    @property
    def combinations(self) -> int | None:
        """Return how many there are of the choices of all knobs; None where one is a range."""
        if not all(knob.choices for knob in self.knobs):
            return None
        return math.prod(len(knob.choices) for knob in self.knobs)


def read_space(settings: SweepSettings) -> Space:
    """Read what a sweep begins with, and check its ranges.

    Raises UserError with all problems of the ranges at once.
    """
    begun = settings.fixed | {"run": settings.output, "code": list(settings.code)}
    base = reading.load(config.Train, settings.config, values=begun, source="fixed")

    _check_values(base, settings.ranges)
    kinds = {key: _is_whole(base, key, one) for key, one in settings.ranges.items()}
    wrong = [key for key, is_whole in kinds.items() if is_whole is None]
    if wrong:
        listed = "\n".join(f"  {key}: is no number; give its choices" for key in wrong)
        raise UserError(f"ranges:\n{listed}")

    knobs = [Knob(key, one, bool(kinds[key])) for key, one in settings.ranges.items()]
    space = Space(base, tuple(knobs))
    _try_draws(space, settings.seed)
    return space


def _check_values(base: config.Train, ranges: Mapping[str, Range]) -> None:
    """Raise UserError for each end and each choice that training would refuse."""
    values = {key: one.choices or one.ends for key, one in ranges.items()}
    problems: dict[tuple[str, str], str] = {}
    for number in range(max(map(len, values.values()), default=0)):
        each = {key: some[min(number, len(some) - 1)] for key, some in values.items()}
        try:
            _with_values(base, each)
        except UserError as error:
            for line in str(error).splitlines()[1:] or [str(error)]:
                # Both ends have the same problem where the setting is unknown.
                subject, _, reason = line.partition(": ")
                problems.setdefault((subject.partition(" = ")[0], reason), line)
    if problems:
        told = ["ranges do not fit the settings of training:", *problems.values()]
        raise UserError("\n".join(told))


def _is_whole(base: config.Train, key: str, one: Range) -> bool | None:
    """Say whether a range is of whole numbers; None where the setting is no number."""
    if one.choices:
        return False
    value: Any = _with_values(base, {key: one.ends[0]})
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return isinstance(value, int)


def _try_draws(space: Space, seed: int) -> None:
    """Raise UserError where settings are not valid together, though each is."""
    rng = random.Random(seed)
    for _ in range(SETTINGS_TRIED):
        values = {knob.key: knob.draw(rng) for knob in space.knobs}
        try:
            space.settings(values)
        except UserError as error:
            problems = str(error).splitlines()[1:]
            told = [
                "ranges hold what is not valid, such as",
                f"  {settings_line(values)}:",
                *problems,
            ]
            raise UserError("\n".join(told)) from error


def _with_values(base: config.Train, values: Mapping[str, Any]) -> config.Train:
    begun = base.model_dump(mode="json") | {"code": list(base.code)}
    return reading.load(config.Train, values={**begun, **values}, source="ranges")


def settings_line(values: Mapping[str, Any]) -> str:
    """Return settings in one line, numbers with as many digits as matter."""
    return "  ".join(f"{key} {shown_value(value)}" for key, value in values.items())


def shown_value(value: Any) -> str:
    """Return the value of a setting with as many digits as matter."""
    return f"{value:.3g}" if isinstance(value, float) else show(value)
