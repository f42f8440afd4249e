"""How fast are the rows of a survey sorted by tile, and in how much memory?

    python benchmarks/predict_rows.py [rows=1000000,10000000] [tiles=400] [files=8]

For each number of rows there is a catalogue of Parquet files, in random order over the sky, with an
id, a position, three features and two kept columns, and `tiles` tiles without pixels. What is
printed: rows per second of `sort_rows` in a process of its own, and per second of its processor's
time (without that of the process that looks whether a file is sound); its anonymous memory
(RssAnon) before, and the most of it; the size of what it wrote, and the time in which a tile is
read from that.
"""

import multiprocessing
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from lens_hpc.packing.recipe import Recipe  # noqa: E402
from lens_hpc.packing.survey_rows import SurveyRows, sort_rows  # noqa: E402

SIDE = 500
SCALE_DEGREES = 0.2 / 3600
SECONDS_BETWEEN_LOOKS = 0.02
FILE_ROWS = 1 << 17
RECIPE = {
    "name": "survey",
    "catalogue": "objects",
    "mosaics": {"path": "{tile}/{band}.fits"},
    "bands": ["g"],
    "size": [64, 64],
    "pixel_scale": 0.2,
    "units": "nJy",
    "columns": {"label": None, "features": ["mag", "size", "colour"], "keep": ["z", "field"]},
}


def main(*settings: str) -> None:
    """Print one line for each number of rows."""
    given = dict(setting.split("=") for setting in settings)
    tiles = int(given.get("tiles", 400))
    files = int(given.get("files", 8))
    print("rows        rows/s    rows/CPU-s  RssAnon before, peak  written    a tile is read in")
    for rows in map(int, given.get("rows", "1000000,10000000").split(",")):
        with tempfile.TemporaryDirectory() as name:
            make_tiles(Path(name), tiles)
            make_catalogue(Path(name), rows, files)
            # A process that has made nothing else: fork would share what this one holds.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context) as pool:
                print(pool.submit(measure, Path(name), rows).result(), flush=True)


def make_tiles(folder: Path, count: int) -> None:
    """Write the headers of tiles beside each other on the equator, and holes for their pixels."""
    for number in range(count):
        header = fits.Header({"SIMPLE": True, "BITPIX": -32, "NAXIS": 2})
        header["NAXIS1"] = header["NAXIS2"] = SIDE
        header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
        header["CRVAL1"], header["CRVAL2"] = 20 + number * SIDE * SCALE_DEGREES, 0.0
        header["CRPIX1"] = header["CRPIX2"] = SIDE / 2
        header["CDELT1"], header["CDELT2"] = -SCALE_DEGREES, SCALE_DEGREES

        file = folder / f"{number:05d}" / "g.fits"
        file.parent.mkdir()
        content = header.tostring().encode()
        file.write_bytes(content)
        pixels = SIDE * SIDE * 4
        os.truncate(file, len(content) + -(-pixels // 2880) * 2880)


def make_catalogue(folder: Path, rows: int, files: int) -> None:
    """Write a catalogue in random order over all tiles."""
    tiles = sum(1 for _ in folder.iterdir())
    (folder / "objects").mkdir()
    done = 0
    for number in range(files):
        rng = np.random.default_rng(number)
        with pq.ParquetWriter(folder / "objects" / f"{number}.parquet", schema()) as writer:
            end = rows * (number + 1) // files
            while done < end:
                count = min(FILE_ROWS, end - done)
                writer.write_table(random_rows(rng, done, count, tiles))
                done += count


def schema() -> pa.Schema:
    """Return the columns of the catalogue."""
    kinds = {"id": pa.string(), "ra": pa.float64(), "dec": pa.float64()}
    kinds |= dict.fromkeys(["mag", "size", "colour", "z"], pa.float32())
    return pa.schema(kinds | {"field": pa.string()})


def random_rows(rng: np.random.Generator, start: int, count: int, tiles: int) -> pa.Table:
    """Return rows anywhere on the tiles."""
    width = SIDE * SCALE_DEGREES
    columns = {
        "id": [f"survey-{start + number:012d}" for number in range(count)],
        "ra": rng.uniform(20, 20 + (tiles - 1) * width, count),
        "dec": rng.uniform(-0.49, 0.49, count) * width,
        "field": rng.choice(["north", "south"], count),
    }
    for name in ("mag", "size", "colour", "z"):
        columns[name] = rng.normal(20, 1, count)
    arrays = [pa.array(columns[field.name], field.type) for field in schema()]
    return pa.table(arrays, schema=schema())


def measure(folder: Path, rows: int) -> str:
    """Sort a catalogue and return a line about it."""
    before = anonymous_bytes()
    peak = [before]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            peak[0] = max(peak[0], anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    cpu_start = time.process_time()
    sort_rows(Recipe.model_validate(RECIPE), folder, folder / "sorted")
    seconds = time.perf_counter() - start
    cpu_seconds = time.process_time() - cpu_start
    done.set()
    watcher.join()

    survey = SurveyRows(folder / "sorted")
    assert sum(tile.objects for tile in survey.tiles) == rows
    start = time.perf_counter()
    for number in range(min(len(survey.tiles), 20)):
        survey.read(number)
    milliseconds = 1000 * (time.perf_counter() - start) / 20
    written = sum(file.stat().st_size for file in (folder / "sorted").iterdir())
    memory = f"{before / 1e6:.0f} MB, {peak[0] / 1e6:.0f} MB"
    size = f"{written / 1e6:,.0f} MB"
    return (
        f"{rows:<11,} {rows / seconds:<9,.0f} {rows / cpu_seconds:<11,.0f} {memory:<21} {size:<10} "
        f"{milliseconds:.1f} ms"
    )


def anonymous_bytes() -> int:
    """Return the anonymous memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main(*sys.argv[1:])
