"""Whole messages of the real commands: what people get wrong in their first hour."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from lens_hpc import cli, verbs
from tests.conftest import SMALL_MODEL, write_survey
from tests.integration.commands import lens_hpc

MISSING = (
    "lens-hpc: train: 1 problem in the settings from a.yaml:\n"
    "  data.dataset: missing (folder of the packed dataset); give data.dataset=... or write it "
    "into a.yaml\n"
)
EACH_VERB_WITH_A_TYPO = """
import sys
from lens_hpc.cli import main

for line in sys.argv[1:]:
    if main(line.split()) != 2:
        sys.exit(line + ": was not refused")
loaded = {"torch", "timm", "accelerate", "matplotlib", "sklearn"} & sys.modules.keys()
sys.exit(f"imported: {sorted(loaded)}" if loaded else 0)
"""


def test_settings_are_checked_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("run: r\n")
    lines = ["train a.yaml", "train a.yaml --epochs 3"]
    for verb in verbs.names():
        targets = "a.yaml " * verbs.header(verb).target.count(" ") + "a.yaml"
        lines.append(f"{verb} {targets.replace('[', '')} no_such_setting=1")
    done = subprocess.run(
        [sys.executable, "-c", EACH_VERB_WITH_A_TYPO, *lines],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    refused = re.findall(r"^lens-hpc: (\w+): \d problem", done.stderr, re.MULTILINE)
    assert {*refused} == {*verbs.names()}


@pytest.mark.slow
def test_the_command_says_the_same_with_a_launcher_and_without(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("run: r\n")
    alone = lens_hpc("train", "a.yaml", cwd=tmp_path)
    assert (alone.returncode, alone.stderr, alone.stdout) == (2, MISSING, "")

    started = lens_hpc("train", "a.yaml", "processes=2", cwd=tmp_path)
    assert (started.returncode, started.stderr, started.stdout) == (2, MISSING, "")

    launched = lens_hpc("train", "a.yaml", processes=2, cwd=tmp_path)
    assert launched.returncode == 1  # the launcher's own
    assert launched.stderr.count(MISSING) == 1
    assert launched.stderr.count("data.dataset: missing") == 1


@pytest.mark.slow
def test_a_finished_run_says_how_to_train_on(dataset: Path, tmp_path: Path) -> None:
    tree = {
        "run": "r",
        "data": {"dataset": str(dataset), "workers": 0},
        "augment": {"engine": "torch"},
        "model": SMALL_MODEL,
        "train": {"epochs": 1, "global_batch_size": 8},
    }
    (tmp_path / "a.yaml").write_text(json.dumps(tree))
    assert lens_hpc("train", "a.yaml", cwd=tmp_path).returncode == 0
    more = lens_hpc("train", "a.yaml", "train.epochs=2", cwd=tmp_path)
    assert (more.returncode, more.stderr) == (
        2,
        "lens-hpc: train: run = r: has finished with other settings; to train on from its weights, "
        "begin another run: model.weights=r run=NEW\n  train.epochs: 1 there, 2 here\n",
    )
    # The advice can be followed.
    advice = ("train.epochs=2", "model.weights=r", "run=NEW")
    assert lens_hpc("train", "a.yaml", *advice, cwd=tmp_path).returncode == 0


# ---- packing, in this process: it is the same command ----


def refusal(survey: Path, capsys: pytest.CaptureFixture[str], *settings: str) -> list[str]:
    """Message of a packing that ends with 2, by its lines, without the survey's folder."""
    output = survey.with_name("never")
    where = (f"source={survey}", f"output={output}", "processes=1")
    assert cli.main(["pack", f"{survey}/recipe.yaml", *where, *settings]) == 2
    assert not output.exists()
    return capsys.readouterr().err.replace(str(survey), "SURVEY").splitlines()


def test_a_path_pattern_that_fits_no_file_is_told_once(
    survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(survey, capsys, "images=cutouts/{id}.npy") == [
        "lens-hpc: pack: SURVEY: none of the 40 rows has its file, such as cutouts/obj0.npy of id "
        "obj0. There is no folder 'cutouts' in SURVEY; but obj0.npy is there: mend the folders in "
        "images"
    ]


def test_a_folder_that_some_rows_miss_is_named_beside_three_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    survey = write_survey(tmp_path / "s", field=["a", "b"] * 20)
    (survey / "a").mkdir()
    for row in range(0, 40, 2):
        (survey / f"obj{row}.npy").rename(survey / "a" / f"obj{row}.npy")
    assert refusal(survey, capsys, "images={field}/{id}.npy") == [
        "lens-hpc: pack: SURVEY/catalogue.csv: 20 of 40 rows cannot be packed:",
        "  row 2, id obj1: b/obj1.npy: there is no such file",
        "  row 4, id obj3: b/obj3.npy: there is no such file",
        "  row 6, id obj5: b/obj5.npy: there is no such file",
        "  and 17 rows more for the same reason",
        "  There is no folder 'b' in SURVEY; but obj1.npy is there: mend the folders in images",
        "Mend them, or pack the others with on_bad=skip",
    ]


def test_labels_that_are_words_are_told_to_be_a_condition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    survey = write_survey(tmp_path / "s", is_lens=["lens", "galaxy"] * 20)
    assert refusal(survey, capsys) == [
        "lens-hpc: pack: SURVEY/catalogue.csv: 40 of 40 rows cannot be packed:",
        "  all of them for one reason, as row 1: is_lens = 'lens' is not 0, 1 or empty; a "
        "condition makes labels of words, such as columns.label: is_lens == 'lens'",
        "Mend them, or pack the others with on_bad=skip",
    ]
    # The advice can be followed.
    advice = "columns.label=is_lens == 'lens'"
    where = (f"source={survey}", f"output={tmp_path}/d", "processes=1", "dry_run=true")
    assert cli.main(["pack", f"{survey}/recipe.yaml", *where, advice]) == 0
    assert "14 lenses" in capsys.readouterr().out


def test_a_recipe_without_a_line_for_the_label_is_told_what_to_say(
    survey: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = survey / "catalogue.csv"
    table.write_text(table.read_text().replace("is_lens", "class", 1))
    recipe = survey / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("label: is_lens, ", ""))
    assert refusal(survey, capsys) == [
        "lens-hpc: pack: catalogue.csv: no column 'is_lens' (columns.label); it has: id, class, "
        "radius, colour. Name the right columns in the recipe; if there are no labels, say "
        "columns.label: null"
    ]


def test_damaged_images_are_told_in_our_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    survey = write_survey(tmp_path / "s", rows=40)
    for row in range(40):
        pixels = np.load(survey / f"obj{row}.npy")
        fits.writeto(survey / f"obj{row}.fits", pixels)
    (survey / "obj3.fits").write_bytes((survey / "obj3.fits").read_bytes()[:3000])
    (survey / "obj5.fits").write_bytes(b"<html>")
    said = "cannot be read as an image"
    assert refusal(survey, capsys, "images={id}.fits") == [
        "lens-hpc: pack: SURVEY/catalogue.csv: 2 of 40 rows cannot be packed:",
        f"  row 4, id obj3: SURVEY/obj3.fits: {said}: it is cut off",
        f"  row 6, id obj5: SURVEY/obj5.fits: {said}: it is no FITS file: it begins with '<html>'",
        "Mend them, or pack the others with on_bad=skip",
    ]
