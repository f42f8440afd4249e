import pytest

from lens_hpc import settings
from lens_hpc.errors import UserError
from lens_hpc.verbs.evaluate import Settings


@pytest.mark.parametrize(
    ("said", "arms"),
    [
        (["compare=[a, runs/b]"], {"a": ["a"], "runs/b": ["runs/b"]}),
        (["compare={image: [a, b], features: [c]}"], {"image": ["a", "b"], "features": ["c"]}),
        (
            ["compare.image=[a, b]", "compare.features=[c]"],
            {"image": ["a", "b"], "features": ["c"]},
        ),
        ([], {}),
    ],
)
def test_arms_may_have_names(said: list[str], arms: dict[str, list[str]]) -> None:
    found = settings.load(Settings, None, ["runs=[r]", *said]).compare
    assert {name: [str(run) for run in runs] for name, runs in found.items()} == arms


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("compare=a", "compare: must be runs, as in [a, b], or arms of them, {NAME: [a, b], ...}"),
        ("compare={image: a}", "compare.image = a: must be a list; write [a]"),
        ("compare={image: []}", "compare.image = []: must have at least 1 value"),
        ("arm=a", "arm = a: must be a list; write [a]"),
    ],
)
def test_what_is_no_arm_is_told(said: str, told: str) -> None:
    with pytest.raises(UserError) as raised:
        settings.load(Settings, None, ["runs=[r]", said])
    assert str(raised.value).startswith(
        f"1 problem in the settings from the command line:\n  {told}"
    )


def test_arms_are_named_one_by_one_from_python() -> None:
    values = {"runs": ["r"], "compare.image": ["a", "b"], "compare.features": ["c"]}
    found = settings.load(Settings, None, values=values).compare
    assert {name: [str(run) for run in runs] for name, runs in found.items()} == {
        "image": ["a", "b"],
        "features": ["c"],
    }
