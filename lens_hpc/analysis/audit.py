"""The audit of a dataset: what could let a classifier look good without finding lenses.

Each finding has a verdict. `leak`: a result on this dataset would not be believed. `look`: there may be a good reason,
which somebody should know. `fine`: nothing was found.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.special import chdtrc

from lens_hpc import config, logs
from lens_hpc.analysis import duplicates, shortcuts
from lens_hpc.analysis.shortcuts import ENOUGH_ROWS, OF_THE_EXPOSURE, OF_THE_OBJECT, Power
from lens_hpc.analysis.verdict import VERDICTS, Audit, Finding, manifest_crc32, some
from lens_hpc.data.reader import Split
from lens_hpc.data.shards import crc32_of_each, read_manifest

# AUC, surely passed (lower end of the interval), of (look, leak). Catalogues and galaxies may well tell something about
# lenses; the exposure, the sky and the file have no business to.
MOST_OF_THE_OBJECT = (0.85, 0.95)
MOST_OF_THE_EXPOSURE = (0.7, 0.8)
# A ranking that is all but perfect leaks, however few samples there are to prove it.
PERFECT = 0.999
# What all of one class have, at most so many of the other may have, or it does not tell them apart.
RARELY = 0.9
MISSING_DIFFERENCE = 0.05
SIGMAS = 4
BYTES_AT_ONCE = 1 << 24


# ---- the samples ------------------------------------------------------------------------------------------------


class Samples:
    """The rows of all splits, one behind the other."""

    def __init__(self, splits: list[Split], quick: bool) -> None:
        self.splits, self.manifest, self.quick = splits, splits[0].manifest, quick
        self.starts = np.cumsum([0, *(len(split) for split in splits)])
        self.split_of = np.repeat(np.arange(len(splits)), [len(split) for split in splits])
        self.labels, self.features = self._column("labels"), self._column("features")
        texts = np.concatenate([split.texts("groups") for split in splits]) if self.manifest.grouped else None
        self.groups = None if texts is None else np.unique(texts, return_inverse=True)[1]
        self.known = self.labels >= 0

    def __len__(self) -> int:
        return len(self.labels)

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate([split.take(name, np.arange(len(split))) for split in self.splits])

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Cutouts of any rows."""
        out = np.empty((len(rows), *self.splits[0].shape("images")), self.splits[0].dtype("images"))
        for number, split in enumerate(self.splits):
            here = self.split_of[rows] == number
            out[here] = split.take("images", rows[here] - self.starts[number])
        return out

    def name(self, row: int) -> str:
        """Id and split."""
        split = self.splits[self.split_of[row]]
        return f"{split.ids(np.array([row - self.starts[self.split_of[row]]]))[0]} ({split.name})"

    def power(self, numbers: np.ndarray) -> Power | None:
        """How well numbers of all rows tell the labelled ones' classes."""
        labels, numbers = self.labels[self.known], numbers[self.known]
        if self.quick:
            return shortcuts.power_of_rank(labels, numbers)
        return shortcuts.power(labels, numbers, None if self.groups is None else self.groups[self.known])


def audit(dataset: Path, quick: bool = False) -> Audit | None:
    """Look at everything, or only at what needs neither images nor training; None for a dataset of one class."""
    splits = [Split(dataset, name) for name in read_manifest(dataset).splits]
    if not any(split.record.lenses for split in splits) or not any(split.record.non_lenses for split in splits):
        return None
    samples = Samples(splits, quick)
    findings = [class_balance(samples), groups(samples), *features(samples)]
    if not quick:
        findings += of_images(samples)
    return Audit(
        dataset=samples.manifest.name,
        manifest_crc32=manifest_crc32(dataset),
        rows=len(samples),
        findings=tuple(findings),
    )


# ---- checks without images --------------------------------------------------------------------------------------


def class_balance(samples: Samples) -> Finding:
    """Are both classes in every split, equally frequent?"""
    counts = np.array([[split.record.lenses, split.record.non_lenses] for split in samples.splits])
    shares = [
        f"{split.name} {lenses / max(lenses + others, 1):.2%} of {lenses + others:,}"
        for split, (lenses, others) in zip(samples.splits, counts, strict=True)
    ]
    found = "lenses: " + ", ".join(shares)
    if not counts.all():
        return Finding(verdict="look", check="class balance", found=f"a split lacks a class; {found}")
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    by_chance = chdtrc(len(counts) - 1, (np.square(counts - expected) / expected).sum()) if len(counts) > 1 else 1.0
    differ = bool(by_chance < 1e-3)
    return Finding(
        verdict="look" if differ else "fine",
        check="class balance",
        found="the splits differ; " * differ + found,
    )


def groups(samples: Samples) -> Finding:
    """Is any group in two splits?"""
    check = "groups across splits"
    if not samples.manifest.grouped:
        return Finding(verdict="fine", check=check, found="the dataset has no groups")
    parts = [set(np.unique(split.texts("groups")).tolist()) for split in samples.splits]
    times = Counter(group for part in parts for group in part)
    across = sorted(group for group, number in times.items() if number > 1)
    if not across:
        return Finding(verdict="fine", check=check, found=f"each of {len(times):,} groups is in one split alone")
    return Finding(
        verdict="leak", check=check, found=f"{len(across):,} of {len(times):,} are in several: {some(across)}"
    )


def features(samples: Samples) -> Iterator[Finding]:
    """Can the catalogue alone tell the label, all of it together or one feature?"""
    if not samples.manifest.features:
        yield Finding(verdict="fine", check="features", found="the dataset has none")
        return
    if not samples.quick:
        yield _judge("features together", samples.power(samples.features), MOST_OF_THE_OBJECT)
    lenses, others = (samples.features[samples.labels == label] for label in (1, 0))
    for number, name in enumerate(samples.manifest.features):
        yield one_feature(
            f"feature {name}", lenses[:, number], others[:, number], samples.power(samples.features[:, number])
        )


def one_feature(check: str, lenses: np.ndarray, others: np.ndarray, power: Power | None) -> Finding:
    """Its power, and whether it is constant or missing in one class."""
    told = "" if power is None else f"; {power}"
    for word, here, there in (("non-lens", others, lenses), ("lens", lenses, others)):
        values = here[~np.isnan(here)]
        if len(values) < ENOUGH_ROWS or (values != values[0]).any():
            continue
        elsewhere = there[~np.isnan(there)]
        if len(elsewhere) and (elsewhere == values[0]).mean() < RARELY:
            return Finding(verdict="leak", check=check, found=f"is {values[0]:g} for every {word}{told}")
        if (elsewhere == values[0]).all() and len(values) + len(elsewhere) == len(here) + len(there):
            return Finding(verdict="look", check=check, found=f"is {values[0]:g} for all: it says nothing")
    both = np.concatenate([lenses, others])
    missing = {"lens": np.isnan(lenses).mean(), "non-lens": np.isnan(others).mean()}
    share = np.isnan(both).mean()
    noise = np.sqrt(share * (1 - share) * (1 / max(len(lenses), 1) + 1 / max(len(others), 1)))
    difference = abs(missing["lens"] - missing["non-lens"])
    rates = f"missing for {missing['lens']:.1%} of the lenses and {missing['non-lens']:.1%} of the non-lenses"
    if 1.0 in missing.values() and difference > 1 - RARELY and min(len(lenses), len(others)) >= ENOUGH_ROWS:
        return Finding(verdict="leak", check=check, found=rates + told)
    judged = _judge(check, power, MOST_OF_THE_OBJECT)
    if judged.verdict == "fine" and difference > max(MISSING_DIFFERENCE, SIGMAS * noise):
        return Finding(verdict="look", check=check, found=rates + told)
    return judged


# ---- checks of the images ---------------------------------------------------------------------------------------


def of_images(samples: Samples) -> Iterator[Finding]:
    """Can one number of an image tell the label? Which cutouts are there twice?"""
    numbers, fingerprints, checksums = look_at_images(samples)
    sources = np.concatenate([split.texts("sources") for split in samples.splits])
    kinds, codes = np.unique(sources, return_inverse=True)
    if len(kinds) > 1:
        yield _judge("type and size of the file", samples.power(codes.astype(np.float32)), MOST_OF_THE_EXPOSURE)
    else:
        yield Finding(verdict="fine", check="type and size of the file", found=f"the same for all: {kinds[0]}")
    for place, name in enumerate((*OF_THE_OBJECT, *OF_THE_EXPOSURE)):
        limits = MOST_OF_THE_OBJECT if name in OF_THE_OBJECT else MOST_OF_THE_EXPOSURE
        for band, values in zip(samples.manifest.bands, numbers[:, :, place].T, strict=True):
            if len(np.unique(values)) > 1:
                yield _judge(f"{name} in {band}", samples.power(values), limits)
    pairs, left_out = duplicates.find(fingerprints, checksums, samples.images)
    yield from twice(samples, pairs)
    if left_out:
        found = f"{left_out:,} pairs that may be alike were not compared, as there are too many: cutouts without noise"
        yield Finding(verdict="look", check="near-duplicates", found=found)


def look_at_images(samples: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Numbers, fingerprints and checksums of all cutouts, read once, by one thread a core."""
    progress = logs.Progress(len(samples), "audit", "cutouts")

    row_bytes = int(np.prod(samples.splits[0].shape("images"))) * 4
    at_once = int(np.clip(BYTES_AT_ONCE // row_bytes, 1, 256))

    def look(start: int) -> tuple[np.ndarray, ...]:
        images = samples.images(np.arange(start, min(start + at_once, len(samples))))
        return shortcuts.measure(images), duplicates.fingerprint(images), crc32_of_each(images)

    parts = []
    with ThreadPoolExecutor(config.usable_cpus()) as pool:
        for part in pool.map(look, range(0, len(samples), at_once)):
            parts.append(part)
            progress.update(len(part[2]))
    progress.close()
    numbers, fingerprints, sums = zip(*parts, strict=True)
    return np.concatenate(numbers), np.concatenate(fingerprints), np.concatenate(sums)


def twice(samples: Samples, pairs: list[duplicates.Pair]) -> Iterator[Finding]:
    """Duplicates across splits are a leak; those that are only similar, or within a split, are worth a look."""
    told: tuple[tuple[str, str, Callable[[duplicates.Pair], bool]], ...] = (
        ("duplicates across splits", "leak", lambda p: p.exact and _across(samples, p)),
        ("near-duplicates across splits", "look", lambda p: not p.exact and _across(samples, p)),
        ("duplicates within a split", "look", lambda p: not _across(samples, p)),
        ("duplicates with two labels", "look", lambda p: set(samples.labels[[p.one, p.other]]) == {0, 1}),
    )
    for check, verdict, belongs in told:
        names = [f"{samples.name(pair.one)} and {samples.name(pair.other)}" for pair in pairs if belongs(pair)]
        if names:
            yield Finding(
                verdict=verdict, check=check, found=f"{len(names):,} pairs, turned or mirrored: {some(names)}"
            )
        else:
            yield Finding(verdict="fine", check=check, found="none, also turned or mirrored")


def _across(samples: Samples, pair: duplicates.Pair) -> bool:
    return bool(samples.split_of[pair.one] != samples.split_of[pair.other])


def _judge(check: str, power: Power | None, most: tuple[float, float]) -> Finding:
    if power is None:
        return Finding(verdict="look", check=check, found="too few lenses or non-lenses to tell")
    verdict = "leak" if power.auc >= PERFECT else VERDICTS[sum(power.ci95[0] >= limit for limit in most)]
    return Finding(verdict=verdict, check=check, found=str(power))
