"""Grades become one list: combined, matched with what is known, and ready to be trained on.

1. Items and grades are read; hidden items measure the graders, and are in no list.
2. The grades of each candidate are combined, and the survey is estimated from a random slice.
3. Objects of one place on the sky become one, which is known or new, and gets label and weight.
4. VETTED is written, whole or not at all: the list, what it comes of, pictures, the next dataset.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lens_hpc import files, layout
from lens_hpc.errors import UserError
from lens_hpc.grading.candidate_cutouts import open_candidates, read_cutouts
from lens_hpc.grading.combine_settings import CombineSettings
from lens_hpc.grading.combined import combine_grades
from lens_hpc.grading.contact_sheet import draw_contact_sheet
from lens_hpc.grading.generations import make_generation
from lens_hpc.grading.grade_files import check_not_cut, grade_files, read_grades
from lens_hpc.grading.graders import LENS_LETTERS, measure_graders
from lens_hpc.grading.grading_folder import Grading, open_grading
from lens_hpc.grading.list_files import write_list
from lens_hpc.grading.vetted_table import (
    add_training,
    as_list,
    join_duplicates,
    rank_candidates,
)
from lens_hpc.grading.vetting_record import make_record
from lens_hpc.grading.vetting_text import describe_vetting
from lens_hpc.grading.zooniverse import write_manifest, write_pictures
from lens_hpc.holding import held
from lens_hpc.reporting.pictures import scale_bar
from lens_hpc.reporting.recovery import read_known_lenses

PICTURES_AT_ONCE = 200


@dataclass(frozen=True, repr=False)
class Vetted:
    """A vetted list, as it lies on disk."""

    output: Path
    record: dict[str, Any]
    """What vetting.json holds."""
    graders: dict[str, Any]
    """What graders.json holds."""

    @property
    def dataset(self) -> Path | None:
        """The next generation's dataset, where there is one."""
        return self.output / layout.NEXT_DATASET if self.record["dataset"] else None

    @property
    def text(self) -> str:
        """What the terminal prints."""
        return describe_vetting(self.output, self.record, self.graders)

    def to_pandas(self) -> pd.DataFrame:
        """Read the list: a row a candidate, the best first."""
        return pd.read_parquet(self.output / f"{layout.GRADED}.parquet")

    def __repr__(self) -> str:
        return f"<Vetted: {self.text.partition(chr(10))[0]}>"


# ---- the way through ----


def combine(settings: CombineSettings) -> Vetted:
    """Combine all grades of a grading, and write the list in place of an older one.

    Raises UserError for what is wrong with the settings, the grading or its candidates.
    """
    output = files.final_name(settings.output)
    with held(output):
        return _combine(settings, output)


def _combine(settings: CombineSettings, output: Path) -> Vetted:
    grading = open_grading(settings.grading)
    _check_output(output, settings, grading.record.fingerprint)
    known = read_known_lenses(settings.known) if settings.known else None
    grades = _read_grades(grading, settings.files)

    combined = combine_grades(grades, grading.items, settings.prevalence)
    graded = rank_candidates(grading.items, combined)
    joined = join_duplicates(graded, known)
    table = add_training(joined, settings.targets, settings.contaminants)

    record = make_record(settings, grading, graded, table)
    graders = measure_graders(grades, grading.items)
    with files.whole_folder(output, replace=True) as folder:
        write_list(folder, layout.GRADED, as_list(table))
        _write_json(folder / layout.GRADERS, graders)
        _draw(folder, settings, grading, table)
        record["dataset"] = _write_dataset(folder, settings, grading, table)
        _write_json(folder / layout.VETTING, record)
    return Vetted(output, record, graders)


def _check_output(output: Path, settings: CombineSettings, fingerprint: str) -> None:
    """Raise UserError where the output holds what is to be read, or what is no list of this."""
    inputs = [*settings.sources, settings.known, settings.into]
    for path in filter(None, inputs):
        if path.resolve().is_relative_to(output.resolve()):
            raise UserError(
                f"output = {output}: holds {path}, and all of it would be replaced; name another "
                "folder"
            )
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    try:
        older = json.loads((output / layout.VETTING).read_text(encoding="utf-8"))
        is_of_this_grading = older["fingerprint"] == fingerprint
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"output = {output}: holds something else than a vetted list; name another folder"
        ) from error
    if not is_of_this_grading:
        raise UserError(
            f"output = {output}: holds the list of another grading, {older['grading']}; name "
            "another folder"
        )


def _read_grades(grading: Grading, others: tuple[Path, ...]) -> pd.DataFrame:
    """Read all grades. Raises UserError where there is none, or one of an unknown item."""
    paths = [*grade_files(grading.folder), *others]
    grades = read_grades(paths, grading.record.fingerprint)
    for path in others:
        check_not_cut(path)
    if grades.empty:
        raise UserError(
            f"{grading.folder}: nobody has graded anything yet; look at lens-hpc grade --help"
        )

    unknown = grades.loc[~grades["item"].isin(grading.items["item"]), ["item", "grader"]]
    if len(unknown):
        shown = ", ".join(f"{one.item} by {one.grader}" for one in unknown.head(5).itertuples())
        raise UserError(
            f"{grading.folder}: has no items of {len(unknown)} grades, such as {shown}; are they "
            "of another grading?"
        )
    return grades


# ---- writing ----


def _write_json(file: Path, content: Any) -> None:
    files.write_text(file, json.dumps(content, indent=1) + "\n")


def _draw(folder: Path, settings: CombineSettings, grading: Grading, table: pd.DataFrame) -> None:
    """Draw the contact sheet, and pictures for Zooniverse, as far as they are wanted."""
    lenses = table[table["grade"].isin(LENS_LETTERS)]
    if settings.sheet != "none" and len(lenses):
        split = open_candidates(grading)
        draw_contact_sheet(
            folder / f"{layout.CONTACT_SHEET}.{settings.sheet}",
            lenses,
            read=lambda rows: read_cutouts(split, rows),
            bands=split.manifest.bands,
            bar=scale_bar(split.manifest),
        )
    if settings.zooniverse:
        split = open_candidates(grading)
        (folder / layout.ZOONIVERSE).mkdir()
        write_manifest(folder, table)
        for start in range(0, len(table), PICTURES_AT_ONCE):
            rows = table.iloc[start : start + PICTURES_AT_ONCE]
            write_pictures(folder, rows, read_cutouts(split, rows), split.manifest.bands)


def _write_dataset(
    folder: Path, settings: CombineSettings, grading: Grading, table: pd.DataFrame
) -> dict[str, Any] | None:
    """Write the next generation's dataset, if one is wanted, and return its record."""
    if settings.into is None:
        return None
    return make_generation(
        dataset=settings.into,
        graded=table,
        candidates=open_candidates(grading),
        output=folder / layout.NEXT_DATASET,
        frozen=settings.frozen,
    )
