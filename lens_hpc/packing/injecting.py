"""inject: lensed sources painted on the galaxies of a packed dataset make a new one.

1. The hosts are found, and those that get an arc are drawn (`hosts`).
2. They are painted in parts by any number of processes, beside the output; what is complete stays
   there for the next start (`painted_parts`).
3. The arcs are compared with known lenses (`injection_gate`), and the dataset is written whole or
   not at all (`injected_rows`, `derived`).
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.compute as pc

from lens_hpc import files, layout
from lens_hpc.dataset.manifest import Manifest, read_manifest
from lens_hpc.dataset.verdict import manifest_crc32
from lens_hpc.errors import UserError
from lens_hpc.packing.derived import SplitRows, write_dataset
from lens_hpc.packing.describing import DatasetFacts
from lens_hpc.packing.hosts import HostDataset, open_hosts
from lens_hpc.packing.injected_rows import (
    arrange,
    blocks_of,
    check_names,
    kept_table,
    truth_table,
)
from lens_hpc.packing.injection_gate import Gate, judge, read_known
from lens_hpc.packing.injection_recipe import InjectionRecipe
from lens_hpc.packing.painted_parts import (
    ARC_MASK,
    HOST_ID,
    PaintedPart,
    PaintJob,
    make_parts,
    paint_parts,
    painted_pixels,
    read_truth,
)
from lens_hpc.packing.photometric_calibration import calibration
from lens_hpc.packing.psf_stamps import stamp_checksums
from lens_hpc.packing.source_galaxies import check_galaxies, galaxies_crc32
from lens_hpc.packing.summary import describe_dataset

INJECTION = "injection"
"""What the manifest's recipe calls the injection."""
GATE = ("known", "gate")
"""Settings that look at what is painted, and change none of it."""
LEAST_SNR = 3.0
"""Nobody sees an arc whose signal-to-noise is smaller than this in each band."""
PAINTING = ".painting"
"""Ending of the hidden folder beside the output that holds what is painted already."""


@dataclass(frozen=True)
class Injected:
    """What became of an injection."""

    output: Path
    """Folder of the new dataset."""
    manifest: Manifest
    gate: Gate
    """The arcs beside known lenses, or beside none."""
    painted: int
    """How many hosts got an arc."""
    text: str
    """What the terminal prints."""

    def __repr__(self) -> str:
        return f"<Injected {self.output}: {self.painted:,} hosts with an arc>"


def inject(dataset: Path, output: Path, recipe: InjectionRecipe, processes: int) -> Injected:
    """Paint arcs on the hosts of a packed dataset, or go on doing so, and write the new one.

    The caller holds `output`. The number of worker processes changes nothing but the time. Raises
    UserError where recipe, hosts or output are at fault, and where the gate refuses the arcs.
    """
    hosts = open_hosts(dataset, recipe)
    check_names(hosts, recipe)
    calibration(recipe, hosts.manifest)
    check_galaxies(recipe, hosts.manifest)
    known = read_known(recipe.known, hosts.manifest.bands) if recipe.known else None

    parts = make_parts(hosts, recipe)
    record = _record(hosts, recipe, parts)
    folder = output.with_name(f".{output.name}{PAINTING}")
    if output.exists():
        _check_injected_already(output, record)
    else:
        files.make_folder(folder)
        job = PaintJob(recipe, dataset, folder, _fingerprint(record))
        paint_parts(job, parts, processes)
        _publish(job, hosts, parts, output, record, known)

    shutil.rmtree(folder, ignore_errors=True)
    return _read_again(output, hosts, known)


# ---- of what the result is a function ----


def _record(
    hosts: HostDataset, recipe: InjectionRecipe, parts: list[PaintedPart]
) -> dict[str, Any]:
    """Return what the manifest says of an injection, as JSON would read it back."""
    catalogues = (catalogue for part in parts for catalogue in part.catalogue)
    return {
        "hosts": hosts.manifest.name,
        "hosts_crc32": manifest_crc32(hosts.dataset),
        "recipe": recipe.model_dump(mode="json"),
        "stamps_crc32": stamp_checksums(recipe.psf, hosts.manifest.bands, catalogues),
        "galaxies_crc32": galaxies_crc32(recipe.sources),
    }


def _fingerprint(record: dict[str, Any]) -> str:
    """Return a text for all that painted pixels are a function of: not of what they must pass."""
    recipe = {key: value for key, value in record["recipe"].items() if key not in GATE}
    return hashlib.sha256(json.dumps(record | {"recipe": recipe}).encode()).hexdigest()


def _check_injected_already(output: Path, record: dict[str, Any]) -> None:
    """Raise UserError unless the output is this very dataset."""
    if not (output / layout.MANIFEST).is_file():
        raise UserError(
            f"output = {output}: holds something else than a dataset; name another folder"
        )

    there = read_manifest(output).recipe.get(INJECTION)
    if there != json.loads(json.dumps(record)):
        raise UserError(
            f"output = {output}: holds another dataset, of another recipe or of other hosts; name "
            "another folder"
        )


# ---- the dataset ----


def _publish(
    job: PaintJob,
    hosts: HostDataset,
    parts: list[PaintedPart],
    output: Path,
    record: dict[str, Any],
    known: pd.DataFrame | None,
) -> None:
    """Write the dataset, unless the gate refuses what was painted."""
    recipe = job.recipe
    able = read_truth(job, parts)
    if ARC_MASK not in able.column_names:
        raise UserError(
            "none of the hosts that were drawn can be a lens: they are too light, or too far away, "
            "for deflector.within, or no source lies behind them; choose heavier ones, or change "
            "sources.z"
        )
    arcs = able.filter(pc.is_valid(able[ARC_MASK]))
    if recipe.known:
        gate = judge(arcs.to_pandas(), known, hosts.manifest.bands)
        gate.enforce(recipe.known, recipe.gate)

    lens_ids = able[HOST_ID].to_pylist()
    splits = {}
    for name, split in hosts.splits.items():
        arranged = arrange(split, lens_ids, recipe)
        if len(arranged.rows):
            splits[name] = arranged

    # The parts are in the order of the splits.
    pixels = painted_pixels(job, parts)
    write_dataset(
        output,
        _facts(hosts.manifest, record),
        {name: SplitRows(len(rows.rows), blocks_of(rows, pixels)) for name, rows in splits.items()},
        kept=kept_table(hosts, splits),
        truth=truth_table(arcs, recipe),
    )


def _facts(manifest: Manifest, record: dict[str, Any]) -> DatasetFacts:
    """Return what the new dataset says of itself: what its hosts say, and how it was painted."""
    carried = {field.name: getattr(manifest, field.name) for field in fields(DatasetFacts)}
    recipe = manifest.recipe | {INJECTION: record}
    return DatasetFacts(**(carried | {"recipe": recipe}))


def _read_again(output: Path, hosts: HostDataset, known: pd.DataFrame | None) -> Injected:
    """Return what lies in a finished output."""
    manifest = read_manifest(output)
    truth = pd.read_parquet(output / layout.TRUTH)
    gate = judge(truth, known, manifest.bands)

    drawn = sum(int(split.is_drawn.sum()) for split in hosts.splits.values())
    lines = [describe_dataset(output, manifest)]
    lines.append(f"  {len(truth):,} of {hosts.total():,} hosts have an arc: see {layout.TRUTH}")
    if len(truth) < drawn:
        lines.append(
            f"  {drawn - len(truth):,} hosts that were drawn are too light, or too far away, to be "
            "lenses: choose heavier ones (where), so that lens and non-lens are of one law"
        )
    unseen = _count_unseen(truth, manifest.bands)
    if unseen:
        lines.append(
            f"  {unseen:,} arcs are lost in the noise (S/N below {LEAST_SNR:g} in each band), and "
            "are labelled lenses all the same: look at sources.magnitude, or leave them out"
        )
    lines += [f"  {line}" for line in gate.lines()]
    return Injected(output, manifest, gate, len(truth), "\n".join(lines))


def _count_unseen(truth: pd.DataFrame, bands: Sequence[str]) -> int:
    brightest = truth[[f"arc_snr_{band}" for band in bands]].max(axis=1)
    return int((brightest < LEAST_SNR).sum())
