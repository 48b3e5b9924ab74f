"""Peak memory of training on windows of a series and on a mapped file larger than memory may be, each in its own process."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.processes import in_a_process
from benchmarks.timing import duration, machine, text_table

GIB = 1 << 30

BEGINNING = """
import json, sys, time, warnings
import numpy as np
from benchmarks.processes import peak_rss
from skpt import MLPRegressor
from skpt.datasets import make_windows
warnings.simplefilter("ignore")
net = MLPRegressor((16,), max_epochs=1, batch_size=256, random_state=0)
"""

# Fixed costs (torch, scikit-learn, a network and its batches) are those of a tenth of the series.
WINDOWS = """
n_rows, n_columns, length = map(int, sys.argv[1:])
series = np.zeros((n_rows, n_columns))
for start in range(0, n_rows, 1000):
    part = series[start : start + 1000]
    part[:] = np.sin(np.arange(start, start + len(part))[:, None] / np.linspace(5, 50, n_columns))
X, y = make_windows(series, length, target=0)
start = time.perf_counter()
net.fit(X.reshape(len(X), -1), y[:, 0])  # length rows lie one behind the other: flat windows are views too
print(json.dumps([series.nbytes, peak_rss(), time.perf_counter() - start]))
"""

MAPPED = """
path, n_rows, n_columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
X = np.memmap(path, dtype=np.float32, mode="r", shape=(n_rows, n_columns))
y = np.load(path + ".npy")
start = time.perf_counter()
net.fit(X, y)
print(json.dumps([X.nbytes, peak_rss(), time.perf_counter() - start]))
"""


def growth_with_windows(n_years: float, n_columns: int, length: int) -> tuple[int, float, float]:
    """Bytes of a series of quarters of an hour, how much each of its bytes costs, seconds of the fit."""
    n_rows = round(n_years * 365.25 * 96)
    small, small_peak, _ = in_a_process(BEGINNING + WINDOWS, n_rows // 10, n_columns, length)
    n_bytes, peak, seconds = in_a_process(BEGINNING + WINDOWS, n_rows, n_columns, length)
    return n_bytes, (peak - small_peak) / (n_bytes - small), seconds


def write_rows(path: Path, n_rows: int, n_columns: int) -> None:
    """A file of float32 rows that takes little of the disk: one row in 32 holds numbers, the others are zero."""
    import numpy as np

    rng = np.random.default_rng(0)
    weight = rng.normal(size=n_columns).astype(np.float32)
    y = np.zeros(n_rows, dtype=np.float32)
    with path.open("wb") as file:
        file.truncate(4 * n_rows * n_columns)
        for i in range(0, n_rows, 32):
            row = rng.normal(size=n_columns).astype(np.float32)
            file.seek(4 * i * n_columns)
            file.write(row.tobytes())
            y[i] = row @ weight
    np.save(f"{path}.npy", y)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks memory", description=__doc__)
    parser.add_argument("--years", type=float, default=4, help="length of the series (default: 4)")
    parser.add_argument("--columns", type=int, default=64, help="columns of the series (default: 64)")
    parser.add_argument("--gib", type=float, default=4, help="size of the mapped file, sparse on disk (default: 4)")
    arguments = parser.parse_args(argv)
    print(machine())
    rows = []
    n_bytes, growth, seconds = growth_with_windows(arguments.years, arguments.columns, 96)
    case = f"windows of 96 of {arguments.years:g} years of 15 minutes, {arguments.columns} columns, {n_bytes / 1e6:.0f} MB"
    rows.append([case, f"{growth:.2f} of the series", "1.2", duration(seconds)])
    n_rows = round(arguments.gib * GIB) // 4096
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        write_rows(path, n_rows, 1024)
        n_bytes, peak, seconds = in_a_process(BEGINNING + MAPPED, path, n_rows, 1024)
    rows.append([f"mapped file of {n_bytes / GIB:g} GiB", f"{peak / 1e9:.2f} GB at the peak", "1 GB", duration(seconds)])
    print(text_table(["one epoch of an MLP", "measured", "limit", "fit"], rows))
    return 0
