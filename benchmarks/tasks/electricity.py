"""Hourly load of one client: the next hour from the previous 96, the last 90 days for testing."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from benchmarks.accuracy import Task
from skpt import RNNRegressor
from skpt.datasets import make_windows

LENGTH, N_TEST = 96, 90 * 24


def task(data: Path) -> Task:
    load = pd.read_csv(data / "electricity_load_MT200" / "LD_MT200_hour.csv.gz")["MT_200"].to_numpy("f4")
    load = (load - load[:-N_TEST].mean()) / load[:-N_TEST].std()
    X, y = make_windows(load, LENGTH, 1)
    X, X_test = X[:-N_TEST], X[-N_TEST:]
    y, y_test = y[:-N_TEST].ravel(), y[-N_TEST:].ravel()

    def error(predicted) -> float:
        return float(np.mean((np.ravel(predicted) - y_test) ** 2))

    def recurrent(cell: str, seed: int) -> float:
        net = RNNRegressor(
            cell=cell, hidden_size=48, lr=5e-3, lr_schedule="one_cycle", max_epochs=8, batch_size=128, max_grad_norm=1.0,
            random_state=seed,
        )  # fmt: skip
        return error(net.fit(X, y).predict(X_test))

    flat = X.reshape(len(X), -1), X_test.reshape(len(X_test), -1)
    baselines = {
        "seasonal naive, 24 h": lambda seed: error(X_test.reshape(N_TEST, -1)[:, -24]),
        "Ridge on the same window": lambda seed: error(Ridge(1.0).fit(flat[0], y).predict(flat[1])),
    }

    def to_reach(scores: dict[str, float]) -> list[tuple[str, float, str, bool]]:
        wanted = 0.85 * min(scores[each] for each in baselines)
        return [(f"RNNRegressor, {c}", scores[f"RNNRegressor, {c}"], f"at most {wanted:.4f} (15 % below the better baseline)",
                 scores[f"RNNRegressor, {c}"] <= wanted) for c in ("lstm", "gru")]  # fmt: skip

    return Task(
        f"electricity_load_MT200, the next hour from the previous {LENGTH}, the last 90 days",
        "mean squared error, standardised",
        {f"RNNRegressor, {cell}": lambda seed, cell=cell: recurrent(cell, seed) for cell in ("lstm", "gru")},
        to_reach,
        baselines,
    )
