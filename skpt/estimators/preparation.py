"""What a new worker process does before its first tasks."""

from __future__ import annotations

import warnings

import numpy as np
from joblib import parallel_config

from skpt.estimators.linear import LinearRegressor
from skpt.estimators.mlp import MLPClassifier

__all__ = ["fit_small_nets"]


def fit_small_nets() -> None:
    """Do what first calls take long for, 50 ms of a short search: import, begin with torch's libraries, learn bytecode."""
    from sklearn.model_selection import cross_validate  # takes a while, and who never has workers need not wait for it

    X = np.linspace(-1.0, 1.0, 64).reshape(32, 2)
    nets = LinearRegressor(optimizer="sgd", max_epochs=2), MLPClassifier((4,), max_epochs=2)
    with parallel_config("skpt"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for net, y in zip(nets, (X[:, 0], X[:, 0] > 0), strict=True):
            cross_validate(net.set_params(random_state=0), X, y, cv=16)
