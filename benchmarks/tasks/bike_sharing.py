"""Bike sharing, hourly: casual and registered riders as two numbers, and whether the hour is a busy one as a class."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split

from benchmarks.accuracy import Task
from skpt import DenseBranch, MultiTaskEstimator

BUSY = 300  # riders an hour


def task(data: Path) -> Task:
    table = pd.read_csv(data / "bike_sharing_hour" / "hour.csv.gz")
    numbers = table[["temp", "atemp", "hum", "windspeed", "yr", "holiday", "workingday"]]
    classes = pd.get_dummies(table[["season", "mnth", "hr", "weekday", "weathersit"]].astype(str), dtype=float)
    X = pd.concat([numbers, classes], axis=1)
    riders = np.log1p(table[["casual", "registered"]])
    y = riders.assign(busy=np.where(table["cnt"] > BUSY, "busy", "quiet"))
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.2, random_state=0)

    def ours(seed: int) -> dict[str, float]:
        net = MultiTaskEstimator(
            {"casual": "regression", "registered": "regression", "busy": "classification"},
            DenseBranch(64, hidden_layer_sizes=(128,)),
            loss_scaling="uncertainty",
            lr=3e-3,
            lr_schedule="cosine",
            max_epochs=40,
            batch_size=128,
            random_state=seed,
        )
        return scores_of(net.fit(X, y).predict(X_test))

    def scores_of(predicted) -> dict[str, float]:
        return {
            **{name: r2_score(y_test[name], predicted[name]) for name in ("casual", "registered")},
            "busy": accuracy_score(y_test["busy"], predicted["busy"]),
        }

    baselines = {
        **{
            f"Ridge: {name}": lambda seed, name=name: r2_score(y_test[name], Ridge().fit(X, y[name]).predict(X_test))
            for name in ("casual", "registered")
        },
        "logistic regression: busy": lambda seed: (
            LogisticRegression(max_iter=1000).fit(X, y["busy"]).score(X_test, y_test["busy"])
        ),
    }

    def to_reach(scores: dict[str, float]) -> list[tuple[str, float, str, bool]]:
        pairs = {"casual": "Ridge: casual", "registered": "Ridge: registered", "busy": "logistic regression: busy"}
        return [
            (f"MultiTaskEstimator: {name}", scores[f"MultiTaskEstimator: {name}"], f"above {scores[other]:.4f} ({other})",
             scores[f"MultiTaskEstimator: {name}"] > scores[other])
            for name, other in pairs.items()
        ]  # fmt: skip

    return Task(
        "bike_sharing_hour, a random fifth for testing",
        "R2 of the logarithms of riders, accuracy of busy hours",
        {"MultiTaskEstimator": ours},
        to_reach,
        baselines,
    )
