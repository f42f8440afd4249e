"""How fast are cutouts made from mosaics, beside a bare gather and other ways?

    python benchmarks/predict.py [objects=8000] [side=6000] [repeats=5] [cutana=PYTHON]

Two tiles of `side` x `side` float32 pixels in three bands, plain and RICE, with `objects` cutouts
of 64 x 64 on them: objects per second of the processor's time, medians of interleaved repeats with
a warm page cache, and ratios. Then what a cold cache costs, and how much of the files is read for
ten objects. Last, all of it: cutting, finishing, normalising and scoring, as predict does, beside
the bare forward pass of the same network on batches that lie in memory: fewer objects on smaller
tiles, as many for each pixel.

The bare gather knows the pixels already: it maps each file and copies the cutouts of a batch by one
fancy index, bytes swapped. The bare loop over a compressed tile decompresses it once, by astropy,
and slices it. Cutout2D runs over files that are open and mapped, on a part of the objects.

Cutana (ESA) needs an environment of its own (python -m venv cutana; cutana/bin/pip install
cutana==0.4.0), whose interpreter is PYTHON. It runs on two workers, to Zarr, without a stretch;
what counts is the processor's time of its call, workers included, without its own import.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import torch
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from numpy.lib.stride_tricks import sliding_window_view
from pyarrow import parquet

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lens_hpc import config  # noqa: E402
from lens_hpc import settings as reading  # noqa: E402
from lens_hpc.model.build import build_model  # noqa: E402
from lens_hpc.model.trained import TrainedModel  # noqa: E402
from lens_hpc.packing.cutting import open_tile  # noqa: E402
from lens_hpc.packing.finished_cutouts import finished_batches  # noqa: E402
from lens_hpc.packing.packing import pack_survey  # noqa: E402
from lens_hpc.packing.recipe import PackSettings, Recipe  # noqa: E402
from lens_hpc.predicting.models import Models  # noqa: E402
from lens_hpc.predicting.opening import open_sorted, sort_survey  # noqa: E402
from lens_hpc.predicting.scoring_parts import PartScorer  # noqa: E402

TILES = ("a", "b")
BANDS = ("g", "r", "i")
SIZE = 64
BATCH_SIZE = 256
SCALE_ARCSEC = 0.2
MEMORY_BYTES = 1 << 30
CUTOUT2D_OBJECTS = 400
NETWORKS = ("resnet50", "demo")
SCORED_SIDE, SCORED_OBJECTS = 1500, 512
"""As dense as 8,000 objects on two tiles of 6,000 x 6,000 pixels."""
SCORING_BATCH = 64

CUTANA = """
import resource, sys
from cutana import Orchestrator, get_default_config

def seconds():
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    return sum(each.ru_utime + each.ru_stime for each in used)

if __name__ == "__main__":
    catalogue, output, size, bands = sys.argv[1:]
    bands = bands.split(",")
    config = get_default_config()
    config.source_catalogue, config.output_dir = catalogue, output
    config.target_resolution, config.max_workers = int(size), 2
    config.normalisation_method, config.apply_flux_conversion = "none", False
    config.selected_extensions = [{"name": band, "ext": "PRIMARY"} for band in bands]
    config.channel_weights = {band: [float(band == b) for b in bands] for band in bands}
    before = seconds()
    result = Orchestrator(config).run()
    assert result["status"] == "completed", result
    print(seconds() - before)
"""

Positions = dict[str, np.ndarray]
"""Tile: right ascension and declination of its objects, (N, 2)."""


def make_header(side: int, tile: str) -> fits.Header:
    """Return the world coordinates of a tile; the tiles do not overlap."""
    header = fits.Header()
    centre = (150 + 2 * TILES.index(tile), 2.0)
    for axis, name in ((1, "RA---TAN"), (2, "DEC--TAN")):
        header[f"CTYPE{axis}"], header[f"CUNIT{axis}"] = name, "deg"
        header[f"CRVAL{axis}"], header[f"CRPIX{axis}"] = centre[axis - 1], (side + 1) / 2
    header["CDELT1"], header["CDELT2"] = -SCALE_ARCSEC / 3600, SCALE_ARCSEC / 3600
    header["RADESYS"] = "ICRS"
    return header


def write_survey(folder: Path, side: int) -> None:
    """Write the tiles, plain and compressed."""
    rng = np.random.default_rng(0)
    for tile in TILES:
        header = make_header(side, tile)
        for band in BANDS:
            pixels = rng.standard_normal((side, side), np.float32)
            fits.PrimaryHDU(pixels, header).writeto(folder / f"{tile}_{band}.fits")
            rice = fits.CompImageHDU(pixels, header, compression_type="RICE_1")
            fits.HDUList([fits.PrimaryHDU(), rice]).writeto(folder / f"{tile}_{band}.fits.fz")


def draw_positions(side: int, objects: int) -> Positions:
    """Return positions all over the tiles, at no edge."""
    rng = np.random.default_rng(1)
    positions = {}
    for tile in TILES:
        pixels = rng.uniform(SIZE, side - SIZE, (objects // len(TILES), 2))
        positions[tile] = WCS(make_header(side, tile)).all_pix2world(pixels, 0)
    return positions


def file_of(folder: Path, tile: str, band: str, ending: str) -> Path:
    """Return the mosaic of a tile and band."""
    return folder / f"{tile}_{band}.{ending}"


# ---- the ways ----


RECIPE = {
    "name": "benchmark",
    "catalogue": "catalogue.parquet",
    "mosaics": {"path": "{tile:[ab]}_{band}.fits"},
    "bands": BANDS,
    "size": [SIZE, SIZE],
    "pixel_scale": SCALE_ARCSEC,
    "units": "counts",
}


def cut(folder: Path, positions: Positions, ending: str) -> int:
    """Cut as predict and pack do; return how many."""
    recipe = Recipe.model_validate(RECIPE)
    done = 0
    for tile, places in positions.items():
        paths = [file_of(folder, tile, band, ending) for band in BANDS]
        with open_tile(recipe, paths, MEMORY_BYTES) as opened:
            for batch in opened.cut(places, BATCH_SIZE):
                done += len(batch.pixels)
    return done


def cut_and_finish(folder: Path, positions: Positions) -> int:
    """Cut as predict does, and look at what was cut."""
    recipe = Recipe.model_validate(RECIPE)
    done = 0
    for tile, places in positions.items():
        files = [file_of(folder, tile, band, "fits").name for band in BANDS]
        finished = finished_batches(recipe, folder, files, places, BATCH_SIZE, MEMORY_BYTES, {})
        for batch in finished:
            done += len(batch.pixels)
    return done


def gather_bare(folder: Path, starts: dict[str, np.ndarray], side: int) -> int:
    """Copy the cutouts of known pixels out of mapped files."""
    done = 0
    for tile, places in starts.items():
        images = []
        for band in BANDS:
            path = file_of(folder, tile, band, "fits")
            offset = path.stat().st_size // 2880 * 2880
            offset -= -(-side * side * 4 // 2880) * 2880
            mapped = np.memmap(path, ">f4", "r", offset, (side, side))
            images.append(sliding_window_view(np.asarray(mapped), (SIZE, SIZE)))
        for begin in range(0, len(places), BATCH_SIZE):
            column, row = places[begin : begin + BATCH_SIZE].T
            batch = np.empty((len(row), len(BANDS), SIZE, SIZE), np.float32)
            for number, image in enumerate(images):
                batch[:, number] = image[row, column]
            done += len(batch)
    return done


def decompress_and_slice(folder: Path, starts: dict[str, np.ndarray]) -> int:
    """Decompress each mosaic once, and slice the cutouts of known pixels."""
    done = 0
    for tile, places in starts.items():
        cutouts = np.empty((len(places), len(BANDS), SIZE, SIZE), np.float32)
        for number, band in enumerate(BANDS):
            with fits.open(file_of(folder, tile, band, "fits.fz"), memmap=False) as hdus:
                pixels = hdus[1].data
            for place, (column, row) in enumerate(places.tolist()):
                cutouts[place, number] = pixels[row : row + SIZE, column : column + SIZE]
        done += len(cutouts)
    return done


def loop_cutout2d(folder: Path, positions: Positions) -> int:
    """Make a part of the cutouts one by one, by astropy."""
    done = 0
    for tile, places in positions.items():
        with ExitStack() as stack:
            images = []
            for band in BANDS:
                path = file_of(folder, tile, band, "fits")
                hdu = stack.enter_context(fits.open(path, memmap=True))[0]
                images.append((hdu.data, WCS(hdu.header)))
            part = SkyCoord(*places[: CUTOUT2D_OBJECTS // len(TILES)].T, unit="deg")
            for place in part:
                for data, wcs in images:
                    Cutout2D(data, place, SIZE, wcs).data.astype(np.float32)
                done += 1
    return done


def rate_of_cutana(python: str, folder: Path, positions: Positions) -> float:
    """Return the objects per second of the processor's time that Cutana makes."""
    lines = ["SourceID,RA,Dec,diameter_pixel,fits_file_paths"]
    for tile, places in positions.items():
        files = [str(file_of(folder, tile, band, "fits")) for band in BANDS]
        for ra, dec in places.tolist():
            lines.append(f'{tile}{len(lines)},{ra},{dec},{SIZE},"{files}"')

    with tempfile.TemporaryDirectory() as name:
        catalogue, program = Path(name) / "catalogue.csv", Path(name) / "run.py"
        catalogue.write_text("\n".join(lines) + "\n")
        program.write_text(CUTANA)
        words = [python, program, catalogue, Path(name) / "out", str(SIZE), ",".join(BANDS)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    return (len(lines) - 1) / float(done.stdout.split()[-1])


def first_pixels(side: int, positions: Positions) -> dict[str, np.ndarray]:
    """Return column and row where each cutout begins, for the ways that know them."""
    starts = {}
    for tile, places in positions.items():
        pixels = WCS(make_header(side, tile)).all_world2pix(places, 0)
        starts[tile] = np.ceil(pixels - SIZE / 2).astype(int)
    return starts


# ---- measuring ----


def rate(way: Callable[[], int]) -> float:
    """Return objects per second of the processor's time."""
    began = time.process_time()
    done = way()
    return done / (time.process_time() - began)


def forget_pages(folder: Path) -> None:
    """Ask the system to drop the files from its page cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read() -> int:
    """Return how many bytes this process has fetched from disks so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def measure(folder: Path, side: int, positions: Positions, repeats: int) -> dict[str, float]:
    """Print and return the median rate of each way."""
    starts = first_pixels(side, positions)
    ways: dict[str, Callable[[], int]] = {
        "bare mapped gather": lambda: gather_bare(folder, starts, side),
        "cut, plain": lambda: cut(folder, positions, "fits"),
        "cut and finished, plain": lambda: cut_and_finish(folder, positions),
        "Cutout2D loop": lambda: loop_cutout2d(folder, positions),
        "decompress and slice, RICE": lambda: decompress_and_slice(folder, starts),
        "cut, RICE": lambda: cut(folder, positions, "fits.fz"),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(repeats + 1):
        for name, way in ways.items():
            measured = rate(way)
            if round_number:  # the first warms the cache
                rates[name].append(measured)

    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, median in medians.items():
        print(f"{name:<34}{median:>10,.0f} objects per CPU-second")
    return medians


def print_ratios(medians: dict[str, float]) -> None:
    """Print the ratios that must hold."""
    bare, plain, finished, loop, sliced, rice = medians.values()
    print(f"cut / bare mapped gather          {plain / bare:>10.2f}   (at least 0.7)")
    print(f"cut and finished / cut            {finished / plain:>10.2f}")
    print(f"cut / Cutout2D loop               {plain / loop:>10.1f}   (at least 30)")
    print(f"cut RICE / decompress and slice   {rice / sliced:>10.2f}   (at least 0.8)")


def measure_cold(folder: Path, positions: Positions) -> None:
    """Print what a cold cache costs, and what is read for a few objects."""
    few = {tile: places[:10] for tile, places in positions.items()}
    for name, places in (("all objects", positions), ("ten objects a tile", few)):
        for ending in ("fits", "fits.fz"):
            forget_pages(folder)
            before, began = bytes_read(), time.perf_counter()
            cut(folder, places, ending)
            seconds = time.perf_counter() - began
            megabytes = (bytes_read() - before) / 1e6
            size = sum(path.stat().st_size for path in _files(folder, ending)) / 1e6
            print(
                f"cold, {name:<20}{ending:<8}{seconds:>8.2f} s{megabytes:>10.1f} MB read of "
                f"{size:,.0f} MB"
            )


def _files(folder: Path, ending: str) -> Iterator[Path]:
    for tile in TILES:
        for band in BANDS:
            yield file_of(folder, tile, band, ending)


# ---- scoring ----


def train_settings(folder: Path, network: str) -> config.Train:
    """Return the settings of a network: a ResNet50 with our head, or the demo's."""
    if network == "demo":
        return reading.load(
            config.Train, ROOT / "configs" / "train" / "demo.yaml", [f"run={folder}"]
        )
    model = {"backbone": network, "weights": "none", "inputs": "image"}
    return config.Train.model_validate({"run": folder, "data": {"dataset": folder}, "model": model})


def make_scorer(folder: Path, network: str, positions: Positions) -> PartScorer:
    """Return what scores the objects as predict does, by a network as it was drawn."""
    places = np.concatenate(list(positions.values()))
    count = len(places)
    names = [f"o{number}" for number in range(count)]
    table = {"id": names, "ra": places[:, 0], "dec": places[:, 1]}
    table["is_lens"] = np.arange(count) % 2
    table["size"] = np.random.default_rng(2).normal(size=count)
    parquet.write_table(pa.table(table), folder / RECIPE["catalogue"])

    own = folder / network
    columns = {"label": "is_lens", "features": ["size"]}
    places_of = {"source": folder, "output": own / "packed"}
    recipe = PackSettings.model_validate(RECIPE | places_of | {"columns": columns})
    manifest = pack_survey(recipe).manifest
    settings = train_settings(own, network)
    trained = TrainedModel(build_model(settings.model, manifest), settings, manifest, own, {})

    unlabelled = recipe.columns.model_copy(update={"label": None})
    survey_recipe = recipe.model_copy(update={"columns": unlabelled})
    sort_survey(survey_recipe, own)
    models = Models([trained], None, [])
    return PartScorer(
        survey=open_sorted(survey_recipe, own),
        models=models,
        score=models.scorer(torch.device("cpu"), "none"),
        batch_size=SCORING_BATCH,
        prevalence=None,
    )


def score_all(scorer: PartScorer) -> int:
    """Score a survey as predict does."""
    parts = range(len(scorer.survey.parts))
    return sum(np.isfinite(work.logits).sum() for work in scorer.run(parts, lambda count: None))


@torch.inference_mode()
def forward_all(scorer: PartScorer) -> int:
    """Let the network see as many batches that lie in memory."""
    [trained] = scorer.models.members
    images = torch.randn(SCORING_BATCH, len(BANDS), SIZE, SIZE)
    features = torch.zeros(SCORING_BATCH, 1)
    network = trained.model.eval()
    batches = SCORED_OBJECTS // SCORING_BATCH
    for _ in range(batches):
        network(images, features)
    return batches * SCORING_BATCH


def measure_scoring(folder: Path, repeats: int) -> None:
    """Print what all of predict costs beside the forward pass alone."""
    torch.set_num_threads(1)
    write_survey(folder, SCORED_SIDE)
    positions = draw_positions(SCORED_SIDE, SCORED_OBJECTS)
    for network in NETWORKS:
        measure_network(make_scorer(folder, network, positions), network, repeats)


def measure_network(scorer: PartScorer, network: str, repeats: int) -> None:
    """Print what all of predict costs with one network beside its forward pass alone."""
    bare, whole = [], []
    for round_number in range(repeats + 1):
        bare_rate = rate(lambda: forward_all(scorer))
        whole_rate = rate(lambda: score_all(scorer))
        if round_number:
            bare.append(bare_rate)
            whole.append(whole_rate)

    forward, scored = statistics.median(bare), statistics.median(whole)
    print(f"{network + ', forward pass alone':<34}{forward:>10,.0f} objects per CPU-second")
    print(f"{network + ', cut and scored':<34}{scored:>10,.0f} objects per CPU-second")
    limit = "   (at least 0.95)" if network == "resnet50" else ""
    print(f"{network + ', cut and scored / forward':<34}{scored / forward:>10.2f}{limit}")


def main() -> None:
    """Read the settings and print the table."""
    settings = {"objects": 8000, "side": 6000, "repeats": 5}
    cutana = None
    for word in sys.argv[1:]:
        name, _, value = word.partition("=")
        if name == "cutana":
            cutana = value
        elif name in settings:
            settings[name] = int(value)
        else:
            sys.exit(__doc__)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_survey(folder, settings["side"])
        positions = draw_positions(settings["side"], settings["objects"])
        medians = measure(folder, settings["side"], positions, settings["repeats"])
        print_ratios(medians)
        if cutana is not None:
            others = rate_of_cutana(cutana, folder, positions)
            print(f"Cutana{others:>38,.0f} objects per CPU-second")
            ratio = medians["cut, plain"] / others
            print(f"cut / Cutana                      {ratio:>10.1f}   (at least 30)")
        measure_cold(folder, positions)
    with tempfile.TemporaryDirectory() as name:
        measure_scoring(Path(name), settings["repeats"])


if __name__ == "__main__":
    main()
