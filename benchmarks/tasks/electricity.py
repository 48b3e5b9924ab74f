"""Hourly load of one client: the next hour from the previous 96, the last 90 days for testing."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from benchmarks.accuracy import Task
from skpt import RNNRegressor

LENGTH, N_TEST = 96, 90 * 24


def task(data: Path) -> Task:
    table = pd.read_csv(data / "electricity_load_MT200" / "LD_MT200_hour.csv.gz")
    load = table["MT_200"].to_numpy("f4")
    load = (load - load[:-N_TEST].mean()) / load[:-N_TEST].std()
    # Each step has its load and the calendar of the hour after it, which is known in advance.
    series = np.column_stack([load[:-1], calendar(table["date"], table["hour"])[1:]])
    X = np.lib.stride_tricks.sliding_window_view(series, LENGTH, axis=0).transpose(0, 2, 1)
    y = load[LENGTH:]
    X, X_test = X[:-N_TEST], X[-N_TEST:]
    y, y_test = y[:-N_TEST], y[-N_TEST:]
    last, last_test = X[:, -1, 0], X_test[:, -1, 0]

    def error(predicted) -> float:
        return float(np.mean((np.ravel(predicted) - y_test) ** 2))

    def recurrent(cell: str, seed: int) -> float:
        # What is learnt is the change from the last hour.
        net = RNNRegressor(
            cell=cell, hidden_size=64, lr=5e-3, lr_schedule="one_cycle", max_epochs=15, batch_size=128, max_grad_norm=1.0,
            random_state=seed,
        )  # fmt: skip
        return error(net.fit(X, y - last).predict(X_test) + last_test)

    flat = [np.column_stack([each[:, :, 0], each[:, -1, 1:]]) for each in (X, X_test)]
    baselines = {
        "seasonal naive, 24 h": lambda seed: error(X_test[:, -24, 0]),
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


def calendar(date: pd.Series, hour: pd.Series) -> np.ndarray:
    """Where an hour stands in its day and its week."""
    day = pd.to_datetime(date).dt.dayofweek.to_numpy()
    in_day, in_week = 2 * np.pi * hour.to_numpy() / 24, 2 * np.pi * (24 * day + hour.to_numpy()) / 168
    columns = [np.sin(in_day), np.cos(in_day), np.sin(in_week), np.cos(in_week), day >= 5]
    return np.column_stack(columns).astype("f4")
