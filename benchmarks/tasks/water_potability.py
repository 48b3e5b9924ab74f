"""Water potability: the 2,011 complete rows, ten stratified splits."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.accuracy import Task, at_least
from skpt import MLPClassifier


def task(data: Path) -> Task:
    (path,) = (data / "water_potability").glob("*.csv*")
    table = pd.read_csv(path).dropna()
    X, y = table.drop(columns="Potability").to_numpy(), table["Potability"].to_numpy()

    def over_splits(estimator) -> float:
        splits = StratifiedShuffleSplit(10, test_size=0.2, random_state=0)
        return float(np.mean(cross_val_score(estimator, X, y, cv=splits, error_score="raise")))

    def mlp(seed: int) -> float:
        return over_splits(
            MLPClassifier(
                (64, 32), dropout=0.2, weight_decay=1e-3, lr=2e-3, max_epochs=100, lr_schedule="cosine", random_state=seed
            )
        )

    return Task(
        f"water_potability, {len(X):,} complete rows, 10 stratified splits of 80/20",
        "mean accuracy",
        {"MLPClassifier": mlp},
        at_least("MLPClassifier", 0.67),
        {
            "logistic regression": lambda seed: over_splits(make_pipeline(StandardScaler(), LogisticRegression())),
            "random forest": lambda seed: over_splits(RandomForestClassifier(random_state=seed)),
        },
    )
