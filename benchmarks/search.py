"""Whole searches under the backend "skpt", against skorch's net and scikit-learn's MLP in the same GridSearchCV."""

import argparse
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import joblib
import numpy as np
import torch
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from benchmarks.peers import classes, silently, sklearn_mlp, skorch_net
from benchmarks.timing import Timings, duration, interleave, machine, text_table
from skpt import LinearRegressor, MLPClassifier
from skpt.datasets import load_cars
from skpt.fusion import last_report

# Before each search: what the workers of the one before still do is over.
SECONDS_OF_REST = 0.5


@dataclass
class Row:
    """One search: ours and the peers' as callables, and the multiplications and additions of all its training steps."""

    name: str
    candidates: dict[str, Callable[[], object]]
    flops: float
    targets: dict[str, float]


def fit_new(search, X, y):
    """Fit a search that has not been fitted: the results of a fit before would be sent to the workers, too."""
    return clone(search).fit(X, y)


def fused(search, X, y, **settings):
    """Fit a new search under the backend."""
    with joblib.parallel_config("skpt", **settings):
        return fit_new(search, X, y)


def by_ours(search, X, y) -> dict[str, Callable[[], object]]:
    """Give the search under the backend in one process, and in two."""
    return {
        "skpt": silently(partial(fused, search, X, y)),
        "skpt, 2 jobs": silently(partial(fused, search, X, y, n_jobs=2)),
    }


def mlp_flops(sizes: tuple[int, ...], n_rows: float) -> float:
    """Forward, gradient of the weights and gradient of the inputs (not for the first layer) of so many rows."""
    products = [a * b for a, b in pairwise(sizes)]
    return 2.0 * n_rows * (3 * sum(products) - products[0])


def cars(batch_size: int) -> Row:
    """The course's search: 9 candidates, 3 folds, 32 rows."""
    X, y = load_cars(return_X_y=True, features=["wt"])
    grid = {"lr": [0.02, 0.05, 0.08], "max_epochs": [10, 200, 500]}
    ours = GridSearchCV(
        LinearRegressor(optimizer="sgd", batch_size=batch_size, random_state=0), grid, cv=3, scoring="r2", refit=True
    )
    net = skorch_net(False, 1, (), 1, batch_size, 10, lr=0.02, optimizer=torch.optim.SGD)
    X32, y32 = X.astype("f4"), y.astype("f4")[:, None]

    def skorch(n_jobs):
        return GridSearchCV(net, grid, cv=3, scoring="r2", n_jobs=n_jobs).fit(X32, y32)

    label = "full batch" if batch_size == -1 else f"batch {batch_size}"
    return Row(
        f"cars, {label}, 9 x 3",
        {
            **by_ours(ours, X, y),
            "skorch, 1 job": silently(partial(skorch, 1)),
            "skorch, 2 jobs": silently(partial(skorch, 2)),
        },
        0.0,
        {"skorch": 60.0},
    )


def digits() -> Row:
    """One hidden layer of 100 on the digits, 9 candidates, 5 folds."""
    X, y = load_digits(return_X_y=True)
    X = X / 16.0
    lrs, decays, epochs, batch_size = [1e-3, 3e-3, 1e-2], [0.0, 1e-4, 1e-2], 20, 32
    ours = GridSearchCV(
        MLPClassifier((100,), max_epochs=epochs, batch_size=batch_size, random_state=0),
        {"lr": lrs, "weight_decay": decays},
        cv=5,
    )
    skorch = GridSearchCV(
        skorch_net(True, 64, (100,), 10, batch_size, epochs),
        {"lr": lrs, "optimizer__weight_decay": decays},
        cv=5,
        n_jobs=2,
    )
    sklearn = GridSearchCV(
        sklearn_mlp(True, (100,), batch_size, epochs), {"learning_rate_init": lrs, "alpha": decays}, cv=5, n_jobs=2
    )
    return Row(
        "digits, 9 x 5",
        {
            **by_ours(ours, X, y),
            "skorch, 2 jobs": silently(partial(fit_new, skorch, X.astype("f4"), y)),
            "scikit-learn, 2 jobs": silently(partial(fit_new, sklearn, X, y)),
        },
        mlp_flops((64, 100, 10), epochs * len(X) * (45 * 0.8 + 1)),
        {"skorch": 25.0, "scikit-learn": 12.0},
    )


def large() -> Row:
    """20,000 rows, two hidden layers, 12 candidates, 3 folds."""
    X, y = classes(20000, 50, 2)
    grid = {"lr": [3e-4, 1e-3, 3e-3, 1e-2], "weight_decay": [0.0, 1e-4, 1e-2]}
    ours = GridSearchCV(
        MLPClassifier((256, 128), max_epochs=5, batch_size=256, criterion="cross_entropy", random_state=0), grid, cv=3
    )
    skorch = GridSearchCV(
        skorch_net(True, 50, (256, 128), 2, 256, 5),
        {"lr": grid["lr"], "optimizer__weight_decay": grid["weight_decay"]},
        cv=3,
        n_jobs=2,
    )
    return Row(
        "20,000 x 50, (256, 128), 12 x 3",
        {**by_ours(ours, X, y), "skorch, 2 jobs": silently(partial(fit_new, skorch, X.astype("f4"), y))},
        mlp_flops((50, 256, 128, 2), 5 * len(X) * (36 * 2 / 3 + 1)),
        {"skorch": 3.0},
    )


def random() -> Row:
    """Hidden sizes, activations, dropout and lr at random on breast cancer, 60 candidates, 5 folds."""
    X, y = load_breast_cancer(return_X_y=True)
    space = {
        "hidden_layer_sizes": [(32,), (64,), (64, 32)],
        "activation": ["relu", "tanh"],
        "dropout": [0.0, 0.1, 0.3],
        "lr": loguniform(1e-3, 1e-1),
    }
    ours = make_pipeline(StandardScaler(), MLPClassifier(max_epochs=30, batch_size=32, random_state=0))
    ours = RandomizedSearchCV(ours, {f"mlpclassifier__{k}": v for k, v in space.items()}, n_iter=60, cv=5, random_state=0)
    sklearn = make_pipeline(StandardScaler(), sklearn_mlp(True, (32,), 32, 30))
    sklearn_space = {
        "mlpclassifier__hidden_layer_sizes": space["hidden_layer_sizes"],
        "mlpclassifier__activation": space["activation"],
        "mlpclassifier__alpha": [0.0, 1e-4, 1e-2],
        "mlpclassifier__learning_rate_init": space["lr"],
    }
    sklearn = RandomizedSearchCV(sklearn, sklearn_space, n_iter=60, cv=5, random_state=0, n_jobs=2)
    return Row(
        "breast cancer, random 60 x 5",
        {**by_ours(ours, X, y), "scikit-learn, 2 jobs": silently(partial(fit_new, sklearn, X, y))},
        0.0,
        {},
    )


ROWS = {
    "cars_full": partial(cars, -1),
    "cars_2": partial(cars, 2),
    "digits": digits,
    "large": large,
    "random": random,
}


def peak_flops(multiply: Callable, n_threads: int = 2, n_models: int = 64, size: int = 96, repeats: int = 5) -> float:
    """Multiplications and additions a second of products in float32, each thread its own, the best of some tries."""
    factors = [tuple(torch.randn(n_models, size, size) for _ in range(3)) for _ in range(n_threads)]

    def work(a, b, out):
        for _ in range(50):
            multiply(a, b, out)

    def together():
        list(pool.map(lambda three: work(*three), factors))

    with ThreadPoolExecutor(n_threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        timings = interleave({"products": together}, repeats)
    return n_threads * 50 * 2.0 * n_models * size**3 / timings.minimum("products")


def by_torch(a, b, out):
    torch.bmm(a, b, out=out)


def by_numpy(a, b, out):
    np.matmul(a.numpy(), b.numpy(), out=out.numpy())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks search", description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"which searches (default: all of {', '.join(ROWS)})")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (default: 3)")
    parser.add_argument("--report", action="store_true", help="print what each of our searches did")
    arguments = parser.parse_args(argv)
    print(machine())
    peaks = [peak_flops(by_torch), peak_flops(by_numpy)]
    print(f"peak of batched float32 products, all cores together: {peaks[0] / 1e9:.0f} GFLOP/s by torch.bmm, ", end="")
    cores = [library["architecture"] for library in threadpool_info() if library["internal_api"] == "openblas"]
    print(f"{peaks[1] / 1e9:.0f} by numpy.matmul (OpenBLAS for {', '.join(sorted(set(cores))) or 'nothing'})")
    if core := os.environ.get("OPENBLAS_CORETYPE"):
        print(f"OPENBLAS_CORETYPE={core} chooses numpy's kernels. For those of this processor: env -u OPENBLAS_CORETYPE ...")
    table = []
    for name in arguments.rows or ROWS:
        row = ROWS[name]()
        timings = interleave(row.candidates, arguments.repeats, warmup=2, rest=SECONDS_OF_REST)
        table += _lines(row, timings, peaks)
        if arguments.report:
            row.candidates["skpt"]()
            print(f"{row.name}: {last_report()}")
    print(text_table(["search", "who", "median", "times skpt", "times 2 jobs", "to reach", "of the limits"], table))
    return 0


def _lines(row: Row, timings: Timings, peaks: list[float]) -> list[list[str]]:
    lines = []
    for name in timings.seconds:
        is_ours = name.startswith("skpt")
        ratios = ["" if is_ours else f"{timings.ratio(name, to=ours):.1f}" for ours in ("skpt", "skpt, 2 jobs")]
        target = next((v for k, v in row.targets.items() if name.startswith(k)), None)
        of_limits = ", ".join(f"{timings.median(name) * peak / row.flops:.1f}" for peak in peaks if row.flops and is_ours)
        first = "" if lines else row.name
        lines.append([first, name, duration(timings.median(name)), *ratios, "" if target is None else f"{target:g}", of_limits])
    return lines
