"""Hourly load of one client: the next hour from the previous 96, the last 90 days for testing."""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.linear_model import Ridge

from benchmarks.accuracy import Task
from skpt import RNNRegressor

LENGTH, N_TEST = 96, 90 * 24
# These settings and the form of the sequences were chosen on the 90 days before those for testing.
SETTINGS = {
    "hidden_size": 64,
    "dropout": 0.1,
    "lr": 5e-3,
    "lr_schedule": "one_cycle",
    "max_epochs": 15,
    "batch_size": 128,
    "max_grad_norm": 1.0,
}


def task(data: Path) -> Task:
    table = pd.read_csv(data / "electricity_load_MT200" / "LD_MT200_hour.csv.gz")
    load = table["MT_200"].to_numpy("f4")
    load = (load - load[:-N_TEST].mean()) / load[:-N_TEST].std()
    window, y = sliding_window_view(load[:-1], LENGTH), load[LENGTH:]
    last = window[:, -1]
    # The calendar of the hour after each step: that of the hour to foretell is known in advance.
    following = sliding_window_view(calendar(table["date"], table["hour"])[1:], LENGTH, axis=0).transpose(0, 2, 1)
    X, flat = sequences(window, following), np.column_stack([window, following[:, -1]])

    def error(predicted) -> float:
        return float(np.mean((np.ravel(predicted) - y[-N_TEST:]) ** 2))

    def recurrent(cell: str, seed: int) -> float:
        # What is learnt is the change from the last hour.
        net = RNNRegressor(cell=cell, **SETTINGS, random_state=seed).fit(X[:-N_TEST], (y - last)[:-N_TEST])
        return error(net.predict(X[-N_TEST:]) + last[-N_TEST:])

    baselines = {
        "seasonal naive, 24 h": lambda seed: error(window[-N_TEST:, -24]),
        "Ridge on the same window": lambda seed: error(Ridge(1.0).fit(flat[:-N_TEST], y[:-N_TEST]).predict(flat[-N_TEST:])),
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


def sequences(window: np.ndarray, following: np.ndarray) -> np.ndarray:
    """The last 24 hours of each window, (n, 24, 10), with what the window knows of the same hours of the days before.

    Each step has its load, the same less the last load of the window, the loads 24, 48 and 72 hours before the hour after it,
    less that too, and the calendar of the hour after it.
    """
    change = window - window[:, -1:]
    before = [change[:, LENGTH - 23 - hours : LENGTH + 1 - hours] for hours in (24, 48, 72)]
    loads = np.stack([window[:, -24:], change[:, -24:], *before], axis=2)
    return np.concatenate([loads, following[:, -24:]], axis=2)


def calendar(date: pd.Series, hour: pd.Series) -> np.ndarray:
    """Where an hour stands in its day and its week."""
    day = pd.to_datetime(date).dt.dayofweek.to_numpy()
    in_day, in_week = 2 * np.pi * hour.to_numpy() / 24, 2 * np.pi * (24 * day + hour.to_numpy()) / 168
    columns = [np.sin(in_day), np.cos(in_day), np.sin(in_week), np.cos(in_week), day >= 5]
    return np.column_stack(columns).astype("f4")
