"""pack: a catalogue and its images become HDF5 shards and a manifest.

1. The catalogue is checked as a whole; every row gets its split; the rows of a split are shuffled over the whole split
   and cut into shards. That is the plan, a function of recipe and source alone.
2. Shards are written in OUTPUT.partial by any number of processes and tasks. A finished shard leaves a note of what it
   was made from, so that a later start keeps it.
3. Whoever finishes the last shard writes the manifest and renames the folder to OUTPUT.
"""

import csv
import io
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from lens_hpc import UserError, __version__, config, files, logs
from lens_hpc.data import shards
from lens_hpc.data.images import BadCutoutError
from lens_hpc.data.plan import MOST_LISTED, NOTES, Plan, Shard, check_features, make_plan, recipe_of, refusal
from lens_hpc.workers import make_pool


def run(recipe_file: Path, overrides: list[str]) -> None:
    """Pack the recipe's catalogue and images in source= into the dataset output=, or go on doing so."""
    settings = config.load(config.Pack, recipe_file, overrides)
    plan = make_plan(settings)
    if settings.dry_run:
        print(dry_run(plan))
    elif settings.output.exists() and not is_empty(settings.output):
        leave_as_it_is(plan)
    else:
        write_shards(plan)
        finish(plan)


# ---- the shards -------------------------------------------------------------------------------------------------

MANIFEST = "manifest.json"
LONGEST_SOURCE = 32
REJECTED = "rejected.csv"

_plan: Plan
_done: Any


def write_shards(plan: Plan) -> None:
    """Write this task's share of the shards that are not there yet. UserError for bad rows, when they are errors."""
    settings = plan.settings
    files.make_folder(plan.folder / NOTES)
    missing = [shard for shard in plan.shards[settings.task :: settings.tasks] if read_note(plan, shard) is None]
    missing.sort(key=lambda shard: -len(shard.rows))
    kept = len(plan.shards[settings.task :: settings.tasks]) - len(missing)
    if kept:
        logs.logger.info("%s: %d shards are there already", plan.folder, kept)
    bad: dict[int, str] = {}
    try:
        for reasons in pack_all(plan, missing):
            bad |= reasons
            if len(bad) >= MOST_LISTED and settings.on_bad == "error":
                break
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"{plan.folder}: cannot be written: {reason}; make room or choose another output, and run the same line "
            "again: shards that are complete are kept"
        ) from error
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was killed, perhaps for want of memory; run the same line again, with fewer processes: "
            "shards that are complete are kept"
        ) from error
    if bad and settings.on_bad == "error":
        shutil.rmtree(plan.folder)
        raise refusal(settings, bad, plan.rows)


def pack_all(plan: Plan, missing: list[Shard]) -> Iterator[dict[int, str]]:
    """Pack shards in worker processes; yield the bad rows of each as it is done."""
    global _plan, _done
    _plan, _done = plan, multiprocessing.Value("q", 0)
    total = sum(len(shard.rows) for shard in missing)
    progress = logs.Progress(total, "pack", "rows")
    row_megabytes = int(np.prod(plan.cutouts.shape or 0)) * np.dtype(plan.settings.dtype).itemsize / 1e6

    def show() -> None:
        progress.update(_done.value - progress.done, **{"MB/s": f"{progress.rate() * row_megabytes:,.0f}"})

    workers = min(plan.settings.processes, len(missing))
    if workers <= 1:
        for shard in missing:
            yield pack_shard(plan, shard)
            show()
        progress.close()
        return
    # forked workers share the catalogue and begin at once
    with make_pool(workers, "fork") as pool:
        waiting: set[Future[dict[int, str]]] = {pool.submit(_pack_in_worker, shard) for shard in missing}
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                show()
                yield from (task.result() for task in finished)
        finally:
            pool.shutdown(cancel_futures=True)
    progress.close()


def _pack_in_worker(shard: Shard) -> dict[int, str]:
    return pack_shard(_plan, shard)


def pack_shard(plan: Plan, shard: Shard) -> dict[int, str]:
    """Write one shard and its note; return the reasons of its bad rows, which it leaves out."""
    file = plan.folder / shard.file
    files.make_folder(file.parent)
    rows, bad = shard.rows, dict[int, str]()
    facts: dict[str, Any] = {"fingerprint": shard.fingerprint, "record": None, "image_max": 0.0, "image_crc32": []}
    while len(rows):
        found = dict[int, str]()
        with files.whole_file(file) as partial:
            blocks = read_blocks(plan, rows, found, facts)
            attributes = {**attributes_of(plan.settings), "split": shard.split, "file": shard.file}
            checksums, facts["image_crc32"] = shards.write_shard(
                partial, len(rows), blocks, attributes, plan.settings.compression
            )
        bad |= found
        if not found:
            record = shards.describe_shard(plan.folder, file, len(rows), checksums)
            facts["record"] = record.model_dump(mode="json")
            break
        file.unlink()
        if plan.settings.on_bad == "error":
            return bad
        rows = np.array([row for row in rows if row not in found], dtype=np.int64)
    facts["bad"] = {str(row): reason for row, reason in bad.items()}
    files.write_text(plan.note(shard), json.dumps(facts))
    return bad


def read_blocks(plan: Plan, rows: np.ndarray, bad: dict[int, str], facts: dict[str, Any]) -> Iterator[shards.Rows]:
    """Blocks of rows, read and checked. A bad row is noted, and leaves a dark cutout in a file that will not stay."""
    shape = plan.cutouts.shape
    assert shape is not None
    for start in range(0, len(rows), shards.BLOCK_ROWS):
        part = rows[start : start + shards.BLOCK_ROWS]
        pixels, sources = np.zeros((len(part), *shape), plan.settings.dtype), [""] * len(part)
        for place, row in enumerate(part):
            try:
                pixels[place], sources[place] = plan.cutouts.with_source(row)
            except BadCutoutError as error:
                bad[int(row)] = str(error)
        facts["image_max"] = max(facts["image_max"], float(pixels.max()))
        told = shards.encode(np.array(sources), LONGEST_SOURCE)
        features, labels, ids, groups = (c[part] for c in (plan.rows.features, plan.rows.labels, plan.ids, plan.groups))
        yield shards.Rows(pixels, features, labels, ids, groups, told)
        with _done.get_lock():
            _done.value += len(part)


def attributes_of(settings: config.Pack) -> dict[str, object]:
    """What every shard says of itself."""
    scale = settings.pixel_scale
    return {
        "schema_version": shards.SCHEMA_VERSION,
        "name": settings.name,
        "bands": list(settings.bands),
        "features": list(settings.columns.features),
        "pixel_scale_arcsec": min(scale.values()) if isinstance(scale, dict) else scale,
        "units": settings.units,
    }


def read_note(plan: Plan, shard: Shard) -> dict[str, Any] | None:
    """The note of a shard that is complete and made from the same recipe and source; None otherwise."""
    try:
        facts: dict[str, Any] = json.loads(plan.note(shard).read_text(encoding="utf-8"))
        record = facts["record"]  # none where all rows were bad
        whole = record is None or (plan.folder / shard.file).stat().st_size == record["bytes"]
    except (OSError, ValueError):
        return None
    return facts if whole and facts["fingerprint"] == shard.fingerprint else None


# ---- the end ----------------------------------------------------------------------------------------------------


def finish(plan: Plan) -> None:
    """Write the manifest and give the dataset its name, when all shards of all tasks are there."""
    notes = [read_note(plan, shard) for shard in plan.shards]
    output = plan.settings.output
    if (output / MANIFEST).exists():  # another task was the last
        return
    if any(note is None for note in notes):
        logs.logger.info("%d of %d shards are still with other tasks", notes.count(None), len(notes))
        return
    complete = [note for note in notes if note is not None]
    bad = plan.rows.bad | {int(row): reason for note in complete for row, reason in note["bad"].items()}
    manifest = make_manifest(plan, complete, bad)
    try:  # two tasks may both believe that they are the last: they do the same, and one is too late
        remove_strays(plan)
        publish(plan, REJECTED, rejected_text(plan, bad) if bad else None)
        publish(plan, MANIFEST, manifest.model_dump_json(indent=1) + "\n")
        plan.folder.rename(output)
    except FileNotFoundError:
        if not (output / MANIFEST).exists():
            raise
        return
    files.sync(output.parent)
    shutil.rmtree(output / NOTES)
    print(summary(output, manifest))
    print(first_audit(output))


def make_manifest(plan: Plan, notes: list[dict[str, Any]], bad: dict[int, str]) -> shards.Manifest:
    """What the dataset holds, and the recipe that made it."""
    settings, shape = plan.settings, plan.cutouts.shape
    assert shape is not None
    records: dict[str, shards.SplitRecord] = {}
    packed: dict[str, np.ndarray] = {}
    for split in dict.fromkeys(shard.split for shard in plan.shards):
        pairs = [(shard, note) for shard, note in zip(plan.shards, notes, strict=True) if shard.split == split]
        rows = np.concatenate([shard.rows for shard, _ in pairs])
        packed[split] = rows = rows[~np.isin(rows, list(bad))]
        if not len(rows):
            raise refusal(settings, bad, plan.rows)
        labels = plan.rows.labels[rows]
        records[split] = shards.SplitRecord(
            rows=len(rows),
            lenses=int((labels == 1).sum()),
            non_lenses=int((labels == 0).sum()),
            unlabelled=int((labels == -1).sum()),
            shards=tuple(shards.ShardRecord.model_validate(note["record"]) for _, note in pairs if note["record"]),
        )
    check_features(settings, plan.rows, packed)  # again: rows may have been rejected for their images
    image_max = max(
        (note["image_max"] for s, note in zip(plan.shards, notes, strict=True) if s.split == "train"), default=0
    )
    attributes = attributes_of(settings)
    return shards.Manifest(
        schema_version=shards.SCHEMA_VERSION,
        name=settings.name,
        bands=settings.bands,
        height=shape[1],
        width=shape[2],
        dtype=settings.dtype,
        pixel_scale_arcsec=attributes["pixel_scale_arcsec"],
        resampled=tuple(
            band for band, factor in zip(settings.bands, plan.cutouts.coarseness or (), strict=False) if factor > 1
        ),
        units=settings.units,
        features=settings.columns.features,
        grouped=settings.columns.group is not None,
        seed=settings.seed,
        block_rows=shards.BLOCK_ROWS,
        statistics=statistics_of(plan.rows.features[packed["train"]], image_max) if "train" in packed else None,
        splits=records,
        rejected=len(bad),
        duplicates_across_splits=count_duplicates(plan, notes),
        recipe=recipe_of(settings),
        created_by=f"lens_hpc {__version__}",
    )


def statistics_of(features: np.ndarray, image_max: float) -> shards.Statistics:
    """Statistics of training, (N, F) features, missing ones left out."""
    low, high, median = (
        tuple(function(features, axis=0).tolist()) for function in (np.nanmin, np.nanmax, np.nanmedian)
    )
    return shards.Statistics(feature_min=low, feature_max=high, feature_median=median, image_max=image_max)


def count_duplicates(plan: Plan, notes: list[dict[str, Any]]) -> int:
    """Number of cutouts that are identical to one in another split; a warning names the first of them."""
    counts = [len(note["image_crc32"]) for note in notes]
    codes = np.concatenate([np.array(note["image_crc32"], dtype=np.uint32) for note in notes])
    shard_of, row_of = np.repeat(np.arange(len(notes)), counts), np.concatenate([np.arange(n) for n in counts])
    order = np.argsort(codes, kind="stable")
    names = []
    for here in np.flatnonzero(codes[order][1:] == codes[order][:-1]):
        one, other = ((plan.shards[shard_of[place]], int(row_of[place])) for place in order[here : here + 2])
        if one[0].split == other[0].split:
            continue
        (image, name), (twin, twin_name) = (
            shards.read_row(plan.folder / shard.file, row) for shard, row in (one, other)
        )
        if np.array_equal(image, twin):
            names.append(f"{name} ({one[0].split}) and {twin_name} ({other[0].split})")
    if names:
        logs.logger.warning(
            "%d cutouts are identical to one in another split: %s%s; keep them together with columns.group",
            len(names), "; ".join(names[:3]), " ..." * (len(names) > 3),
        )  # fmt: skip
    return len(names)


def remove_strays(plan: Plan) -> None:
    """Delete what a start with another recipe, or one that was killed, left beside the shards."""
    wanted = {plan.folder / shard.file for shard in plan.shards}
    for folder in (path for path in plan.folder.iterdir() if path.is_dir() and path.name != NOTES):
        for path in set(folder.iterdir()) - wanted:
            path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def publish(plan: Plan, name: str, text: str | None) -> None:
    """Put a file into the dataset by one rename, from a name that no other task uses; no text: no file."""
    if text is None:
        (plan.folder / name).unlink(missing_ok=True)
        return
    own = plan.folder / NOTES / f"{plan.settings.task}-{name}"
    files.write_text(own, text)
    own.replace(plan.folder / name)


def rejected_text(plan: Plan, bad: dict[int, str]) -> str:
    """rejected.csv: row of the catalogue (from 1), id and reason of each row left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "id", "reason"])
    writer.writerows([row + 1, plan.rows.ids[row], bad[row]] for row in sorted(bad))
    return text.getvalue()


def is_empty(folder: Path) -> bool:
    """A folder that the user has made for us."""
    return folder.is_dir() and not any(folder.iterdir())


def leave_as_it_is(plan: Plan) -> None:
    """The output is there: say so when it is this very dataset; UserError otherwise."""
    output = plan.settings.output
    if not (output / MANIFEST).is_file():
        raise UserError(f"output = {output}: already holds something else than a dataset; name another folder")
    manifest = shards.read_manifest(output)
    if manifest.recipe != json.loads(json.dumps(recipe_of(plan.settings))):
        raise UserError(f"output = {output}: already holds another dataset, {manifest.name}; name another folder")
    packed, now = sum(split.rows for split in manifest.splits.values()) + manifest.rejected, len(plan.rows.ids)
    if packed != now:
        raise UserError(
            f"output = {output}: was packed from {packed:,} rows, and the source has {now:,} now; name another folder"
        )
    shutil.rmtree(output / NOTES, ignore_errors=True)
    print(f"{output} is packed already. {summary(output, manifest)}")


def dry_run(plan: Plan) -> str:
    """What would be packed."""
    lines = [
        f"would pack {len(plan.rows.ids):,} rows, {len(plan.rows.bad):,} of them rejected, into {plan.settings.output}"
    ]
    shape = plan.cutouts.shape
    row_bytes = int(np.prod(shape or 0)) * np.dtype(plan.settings.dtype).itemsize
    for split in dict.fromkeys(shard.split for shard in plan.shards):
        pieces = [shard.rows for shard in plan.shards if shard.split == split]
        labels = plan.rows.labels[np.concatenate(pieces)]
        counts = [int((labels == label).sum()) for label in (1, 0, -1)]
        lines.append(_line(split, len(labels), counts, len(pieces), len(labels) * row_bytes))
    lines.append(f"  a cutout is {shape} (bands, height, width), stored as {plan.settings.dtype}")
    return "\n".join(lines)


def summary(output: Path, manifest: shards.Manifest) -> str:
    """What was packed, a line a split."""
    lines = [str(output)]
    for name, record in manifest.splits.items():
        counts = [record.lenses, record.non_lenses, record.unlabelled]
        size = sum(shard.bytes for shard in record.shards)
        lines.append(_line(name, record.rows, counts, len(record.shards), size))
    if manifest.rejected:
        lines.append(f"  {manifest.rejected:,} rows were left out: see rejected.csv")
    return "\n".join(lines)


def first_audit(output: Path) -> str:
    """One line on what can be said at once."""
    from lens_hpc.analysis.audit import audit  # takes longer to import than a small survey takes to pack

    found = audit(output, quick=True)
    if found is None:
        return "  not audited: only lenses and non-lenses together can give the label away"
    return f"  audit at first sight: {found.verdict} ({found.reasons}); with images and all: lens-hpc audit {output}"


def _line(split: str, rows: int, counts: list[int], pieces: int, size: int) -> str:
    words = zip(counts, ("lenses", "non-lenses", "unlabelled"), strict=True)
    classes = ", ".join(f"{count:,} {word}" for count, word in words if count or word == "lenses")
    return f"  {split:<8} {rows:>10,} rows: {classes}; {pieces} shard{'s' * (pieces > 1)}, {size / 1e6:,.1f} MB"
