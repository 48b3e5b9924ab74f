"""How a fused search grows with the number of candidates: seconds and memory, each size in processes of its own."""

import argparse
from statistics import median

from benchmarks.processes import in_a_process
from benchmarks.timing import duration, machine, text_table

SIZES = (1, 4, 16, 64, 256)

PROGRAM = """
import json, sys, time, warnings
import joblib, numpy as np
from benchmarks.processes import peak_rss
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skpt import MLPClassifier
warnings.simplefilter("ignore")
n_candidates, limit = int(sys.argv[1]), int(sys.argv[2])
X, y = load_digits(return_X_y=True)
net = MLPClassifier((100,), max_epochs=20, batch_size=32, random_state=0)
with joblib.parallel_config("skpt"):
    GridSearchCV(net.set_params(max_epochs=1), {"lr": [1e-3, 1e-2]}, cv=2).fit(X / 16, y)
before = peak_rss()
search = GridSearchCV(net.set_params(max_epochs=20), {"lr": np.geomspace(1e-4, 1e-2, n_candidates)}, cv=5, refit=False)
start = time.perf_counter()
with joblib.parallel_config("skpt", memory_limit=limit):
    search.fit(X / 16, y)
seconds = time.perf_counter() - start
print(json.dumps([seconds, before, peak_rss()]))
"""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks search_growth", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help=f"candidates (default: {SIZES})")
    parser.add_argument("--memory-limit", type=int, default=2 << 30, help="bytes, the backend's memory_limit")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of all sizes by turns, whose medians count (default: 5)")
    arguments = parser.parse_args(argv)
    print(machine())
    runs = {size: [] for size in arguments.sizes}
    for _ in range(arguments.repeats):
        for size, of_size in runs.items():
            of_size.append(in_a_process(PROGRAM, size, arguments.memory_limit))
    rows = []
    for size, of_size in runs.items():
        seconds, before, after = map(median, zip(*of_size, strict=True))
        own, peak = (f"{n / (1 << 20):.0f} MiB" for n in (after - before, after))
        rows.append([str(size), duration(seconds), duration(seconds / size), peak, own])
    print(text_table(["candidates x 5 folds", "seconds", "per candidate", "peak RSS", "of it the search's"], rows))
    return 0
