"""ETTh1: hourly load and temperature of a transformer station, seven channels, the next 96 hours."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge

from benchmarks.accuracy import Task, at_most
from skpt import LinearRegressor

LENGTH, HORIZON = 336, 96
MONTH = 30 * 24


def task(data: Path) -> Task:
    values = pd.read_csv(data / "forecast_ETTh1" / "ETTh1.csv.gz").iloc[:, 1:].to_numpy()
    # The usual protocol: 12, 4 and 4 months; each channel in units of its spread over the first 12.
    train = values[: 12 * MONTH]
    values = ((values - train.mean(axis=0)) / train.std(axis=0)).astype("f4")

    def windows(start: int, stop: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """Each channel a row of its own, relative to its last value; targets within [start, stop)."""
        part = values[start - LENGTH : stop]
        both = np.lib.stride_tricks.sliding_window_view(part, LENGTH + HORIZON, axis=0)[::stride]
        both = both.reshape(-1, LENGTH + HORIZON)
        both = both - both[:, LENGTH - 1 : LENGTH]
        return both[:, :LENGTH], both[:, LENGTH:]

    X, y = windows(LENGTH, 12 * MONTH, 4)
    X_test, y_test = windows(16 * MONTH, 20 * MONTH, 1)

    def error(predicted: np.ndarray) -> float:
        return float(np.mean((predicted - y_test) ** 2))

    def linear(seed: int) -> float:
        net = LinearRegressor(criterion="huber", lr=2e-3, batch_size=256, max_epochs=20, random_state=seed)
        return error(net.fit(X, y).predict(X_test))

    return Task(
        f"forecast_ETTh1, horizon 96 from the previous {LENGTH} hours, the last 4 months",
        "mean squared error, standardised",
        {"LinearRegressor, Huber": linear},
        at_most("LinearRegressor, Huber", 0.378),
        {
            "the last value": lambda seed: error(np.zeros_like(y_test)),
            "Ridge": lambda seed: error(Ridge(1.0).fit(X, y).predict(X_test)),
        },
        {"N-HiTS": 0.378, "TiDE": 0.375},
    )
