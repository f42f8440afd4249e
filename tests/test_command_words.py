"""Words as other programs have them, told as they are written here."""

from pathlib import Path

import pytest

from lens_hpc import cli
from lens_hpc.command_words import split_arguments

NO_DASHES = "settings have neither dashes nor blanks: write {} in place of {}"
NO_SETTING = "{}: is no setting; settings are key=value: lens-hpc {} --help lists them"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train a.yaml --train.epochs=3", NO_DASHES.format("train.epochs=3", "--train.epochs=3")),
        ("train a.yaml --epochs 3", NO_DASHES.format("train.epochs=3", "--epochs 3")),
        (
            "train a.yaml --epochs 3 --lr=1e-4 run=r",
            NO_DASHES.format("train.epochs=3 optim.lr=1e-4", "--epochs 3 --lr=1e-4"),
        ),
        ("train a.yaml --tf32 run=r", NO_DASHES.format("train.tf32=true", "--tf32")),
        (
            "train a.yaml --weight-decay 1",
            NO_DASHES.format("optim.weight_decay=1", "--weight-decay 1"),
        ),
        ("train a.yaml --processes 2", NO_DASHES.format("processes=2", "--processes 2")),
        ("train a.yaml -e 3", NO_SETTING.format("-e 3", "train")),
        ("train a.yaml -v", NO_SETTING.format("-v", "train")),
        ("train a.yaml train.epochs = 3", NO_DASHES.format("train.epochs=3", "train.epochs = 3")),
        ("train a.yaml train.epochs =3", NO_DASHES.format("train.epochs=3", "train.epochs =3")),
        ("train a.yaml train.epochs= 3", NO_DASHES.format("train.epochs=3", "train.epochs= 3")),
        ("train a.yaml train.epochs 3", NO_DASHES.format("train.epochs=3", "train.epochs 3")),
        ("train a.yaml train.epochs: 3", NO_DASHES.format("train.epochs=3", "train.epochs: 3")),
        ("train --config a.yaml", "CONFIG stands first, without a flag: lens-hpc train a.yaml ..."),
        ("info --dataset d", "DATASET stands first, without a flag: lens-hpc info d ..."),
        ("evaluate r --split val", NO_DASHES.format("split=val", "--split val")),
        ("train a.yaml r", "takes one CONFIG, not 2: a.yaml r; a setting is key=value"),
    ],
)
def test_what_is_written_in_another_way_is_told(
    line: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *_ = words = line.split()
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"lens-hpc: {verb}: {told}\n"


def test_a_negative_number_and_a_file_of_a_settings_name_are_no_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output").mkdir()
    cli.main(["predict", "run", "output", "source"])
    cli.main(["completeness", "run", "output", "threshold=-3"])
    said = capsys.readouterr().err
    assert "neither dashes nor blanks" not in said
    assert "output: missing (folder of the scores); give output=..." in said


def test_words_are_parted_into_files_and_settings(tmp_path: Path) -> None:
    odd = tmp_path / "a=b"
    odd.touch()
    assert split_arguments([str(odd), "c=d"]) == ([odd], ["c=d"])
    assert split_arguments(["a", "b", "c=d"]) == ([Path("a"), Path("b")], ["c=d"])
