"""Univariate series of the UCR archive: 13 sets with their published splits into training and test series."""

import csv
from pathlib import Path
from statistics import mean

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.accuracy import Task
from skpt import TCNClassifier

MARGIN = 0.03


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Series and classes of one file: a class, then the steps of a series, in each row."""
    rows = np.loadtxt(path, delimiter="\t")
    return rows[:, 1:], rows[:, 0].astype(int)


def published(path: Path, method: str) -> dict[str, float]:
    """A method's test accuracies by set, where it has one."""
    with path.open() as file:
        return {row["dataset"]: float(row[method]) for row in csv.DictReader(file) if row[method]}


def task(data: Path) -> Task:
    folder = data / "ucr_timeseries"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    sets = {
        name: [part for which in ("TRAIN", "TEST") for part in read(folder / name / f"{name}_{which}.tsv.gz")] for name in names
    }
    lstm_fcn, fcn, rocket = (published(folder / "published_accuracy.csv", each) for each in ("LSTM-FCN", "fcn", "ROCKET"))
    without_failed = [name for name in lstm_fcn if name != "Trace"]  # 0.25 there: a failed run of its authors
    of_tcn: dict[str, list[float]] = {name: [] for name in names}

    def score(estimator, name: str) -> float:
        X, y, X_test, y_test = sets[name]
        return float(estimator.fit(X, y).score(X_test, y_test))

    def tcn(seed: int) -> float:
        net = TCNClassifier(batch_size=16, max_epochs=200, lr=3e-3, lr_schedule="cosine", random_state=seed)
        for name, scores in of_tcn.items():
            scores.append(score(net, name))
        return mean(scores[-1] for scores in of_tcn.values())

    def of_all(estimator) -> float:
        return mean(score(estimator, name) for name in names)

    def to_reach(_) -> list[tuple[str, float, str, bool]]:
        rows = []
        for what, some in (("a published LSTM-FCN", lstm_fcn), ("one that did not fail", without_failed)):
            ours, theirs = mean(mean(of_tcn[name]) for name in some), mean(lstm_fcn[name] for name in some)
            wanted = f"at least {theirs - MARGIN:.4f} (LSTM-FCN {theirs:.4f}, FCN {mean(fcn[name] for name in some):.4f})"
            rows.append((f"TCNClassifier, {len(some)} sets with {what}", ours, wanted, ours >= theirs - MARGIN))
        return rows

    return Task(
        f"ucr_timeseries, mean over {len(names)} sets",
        "test accuracy",
        {"TCNClassifier": tcn},
        to_reach,
        {
            "logistic regression": lambda seed: of_all(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))),
            "nearest neighbour": lambda seed: of_all(KNeighborsClassifier(1)),
        },
        {"FCN": mean(fcn[name] for name in names), "ROCKET": mean(rocket[name] for name in names)},
    )
