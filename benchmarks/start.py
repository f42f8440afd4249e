"""How long a user waits before anything happens: medians over repeated processes.

    python benchmarks/start.py [repeats=9]

Prints the time of a bare `python -c pass`, of `import lens_hpc` beyond that, and of
`lens-hpc --help`, with the limits that we set.
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import lens_hpc": [sys.executable, "-c", "import lens_hpc"],
    "lens-hpc --help": [sys.executable, "-m", "lens_hpc", "--help"],
}
IMPORT_LIMIT_SECONDS = 0.2
HELP_LIMIT_SECONDS = 0.3


def seconds(command: list[str]) -> float:
    """Return how long one process takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> int:
    """Measure in turns, so that a busy moment of the machine meets all commands alike."""
    options = dict(word.split("=", 1) for word in sys.argv[1:])
    repeats = int(options.get("repeats", 9))

    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(repeats):
        for name, command in COMMANDS.items():
            times[name].append(seconds(command))

    bare, imported, helped = (statistics.median(values) for values in times.values())
    rows = (
        ("python -c pass", bare, None),
        ("import lens_hpc, beyond that", imported - bare, IMPORT_LIMIT_SECONDS),
        ("lens-hpc --help", helped, HELP_LIMIT_SECONDS),
    )
    for name, value, limit in rows:
        told = "" if limit is None else f"   limit {limit:.1f} s"
        print(f"{name:<30}{value:8.3f} s{told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
