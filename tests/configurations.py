"""Every public estimator in several configurations, and data that each can be fitted on: what the common tests walk.

A new estimator is added here and nowhere else. The first configuration of each is the default but for the seed; the
others train for fewer epochs at a larger rate, so that walking them is quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from skpt import (
    CNNBranch,
    CNNClassifier,
    CNNRegressor,
    DenseBranch,
    LinearClassifier,
    LinearRegressor,
    MLPClassifier,
    MLPRegressor,
    MultiInputClassifier,
    MultiInputRegressor,
    MultiTaskEstimator,
    RNNClassifier,
    RNNRegressor,
    Seq2SeqRegressor,
    TCNClassifier,
    TCNRegressor,
    TransformerClassifier,
    TransformerRegressor,
)

_QUICK_SGD = {"optimizer": "sgd", "lr": 0.1, "early_stopping": True, "standardize_features": True}
_QUICK_DEEP = {"dropout": 0.2, "batch_norm": True, "lr": 0.02, "max_epochs": 80}
_BALANCED = {"class_weight": "balanced"}
_SMALL_RNN = {"hidden_size": 16, "lr": 0.03, "max_epochs": 60, "max_grad_norm": 1.0}
_DEEP_RNN = {"hidden_size": 8, "num_layers": 2, "bidirectional": True, "dropout": 0.1, "lr": 0.05, "max_epochs": 40}
_SMALL_CNN = {"channels": (8, 8), "hidden_layer_sizes": (16,), "max_epochs": 60}
_LEARNED_TRANSFORMER = {
    "d_model": 16,
    "num_layers": 1,
    "positional_encoding": "learned",
    "pooling": "class_token",
    "optimizer": "adamw",
    "lr": 0.02,
    "max_epochs": 25,
}
_LAST_TRANSFORMER = {
    "d_model": 16,
    "num_layers": 1,
    "dropout": 0.0,
    "pooling": "last",
    "norm_first": False,
    "lr": 0.01,
    "max_epochs": 40,
    "early_stopping": True,
}
_RESIDUAL_TCN = {"architecture": "resnet", "channels": (8, 8), "kernel_size": (4, 3), "lr": 0.02, "max_epochs": 20}
_CAUSAL_TCN = {"architecture": "causal", "channels": (16, 16), "dropout": 0.1, "lr": 0.02, "max_epochs": 25}


def first_half(X) -> slice:
    """The columns of one branch, whatever their number."""
    return slice((X.shape[1] + 1) // 2)


def last_half(X) -> slice:
    """The columns of the other; both have the one in the middle, and an only one."""
    return slice(X.shape[1] // 2, None)


_TWO_DENSE = [("left", DenseBranch(16), first_half), ("right", DenseBranch(16, (16,)), last_half)]
_ROW_AND_TABLE = [("row", CNNBranch(16, (4,)), None), ("table", DenseBranch(16, batch_norm=True), last_half)]

PARAMETERS: dict[type, dict[str, dict[str, Any]]] = {
    LinearRegressor: {
        "default": {},
        "sgd": {**_QUICK_SGD, "lr": 0.01},
        "deep": {**_QUICK_DEEP, "standardize_target": True},
    },
    LinearClassifier: {
        "default": {},
        "sgd": _QUICK_SGD,
        "deep": {**_QUICK_DEEP, **_BALANCED},
    },
    MLPRegressor: {
        "default": {},
        "sgd": _QUICK_SGD,
        "deep": {**_QUICK_DEEP, "lr": 0.05, "hidden_layer_sizes": (32, 16)},
    },
    MLPClassifier: {
        "default": {},
        "sgd": _QUICK_SGD,
        "deep": {**_QUICK_DEEP, **_BALANCED, "lr": 0.05, "hidden_layer_sizes": (32, 16)},
    },
    CNNRegressor: {
        "default": {},
        "sgd": {**_QUICK_SGD, "channels": (8,), "hidden_layer_sizes": (16,), "lr": 0.01, "max_grad_norm": 1.0},
        "deep": {**_QUICK_DEEP, **_SMALL_CNN},
    },
    CNNClassifier: {
        "default": {},
        "sgd": {**_QUICK_SGD, "channels": (8,), "hidden_layer_sizes": (16,)},
        "deep": {**_QUICK_DEEP, **_BALANCED, **_SMALL_CNN},
    },
    RNNRegressor: {
        "default": {},
        "sgd": {**_QUICK_SGD, **_SMALL_RNN, "cell": "rnn", "lr": 0.1},
        "deep": {**_DEEP_RNN, "cell": "gru"},
    },
    RNNClassifier: {
        "default": {},
        "sgd": {**_QUICK_SGD, **_SMALL_RNN, "cell": "gru"},
        "deep": {**_DEEP_RNN, **_BALANCED, "cell": "lstm"},
    },
    Seq2SeqRegressor: {
        "default": {},
        "sgd": {**_QUICK_SGD, **_SMALL_RNN, "cell": "rnn", "architecture": "one_to_many"},
        "deep": {**_DEEP_RNN, "cell": "gru", "architecture": "many_to_many", "max_epochs": 60},
        "forced": {"cell": "gru", "hidden_size": 16, "teacher_forcing": 0.5, "lr": 0.03, "max_epochs": 30},
    },
    MultiInputRegressor: {
        "default": {},
        "sgd": {**_QUICK_SGD, "lr": 0.01, "branches": _TWO_DENSE, "hidden_layer_sizes": (16,)},
        "deep": {**_QUICK_DEEP, "branches": _ROW_AND_TABLE, "hidden_layer_sizes": (16,)},
    },
    MultiInputClassifier: {
        "default": {},
        "sgd": {**_QUICK_SGD, "branches": _TWO_DENSE, "hidden_layer_sizes": (16,)},
        "deep": {**_QUICK_DEEP, **_BALANCED, "branches": _ROW_AND_TABLE, "hidden_layer_sizes": (16,)},
    },
    MultiTaskEstimator: {
        "default": {},
        "sgd": {**_QUICK_SGD, "lr": 0.01, "trunk": _TWO_DENSE, "loss_scaling": "batch_max"},
        "deep": {**_QUICK_DEEP, "trunk": CNNBranch(16, (4,)), "loss_scaling": "uncertainty", "hidden_layer_sizes": (16,)},
    },
    TCNRegressor: {
        "default": {},
        "resnet": _RESIDUAL_TCN,
        "causal": {**_CAUSAL_TCN, "early_stopping": True},
    },
    TCNClassifier: {
        "default": {},
        "resnet": {**_RESIDUAL_TCN, **_BALANCED},
        "causal": {**_CAUSAL_TCN, "early_stopping": True},
    },
    TransformerRegressor: {
        "default": {},
        "learned": _LEARNED_TRANSFORMER,
        "last": _LAST_TRANSFORMER,
    },
    TransformerClassifier: {
        "default": {},
        "learned": {**_LEARNED_TRANSFORMER, **_BALANCED},
        "last": _LAST_TRANSFORMER,
    },
}
ESTIMATORS = list(PARAMETERS)


@dataclass(frozen=True)
class Configuration:
    """One way to set up one estimator."""

    estimator: type
    name: str
    parameters: dict[str, Any] = field(repr=False)

    def make(self, **parameters):
        """Give a fresh estimator; parameters given here win."""
        return self.estimator(**{"random_state": 0, **self.parameters, **parameters})

    def __str__(self):
        return f"{self.estimator.__name__}-{self.name}"


CONFIGURATIONS = [
    Configuration(estimator, name, parameters) for estimator, named in PARAMETERS.items() for name, parameters in named.items()
]


def make_data(estimator: type, n_samples: int = 60, *, random_state: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give X and y that an estimator can learn: numbers, or three classes whose labels are strings."""
    random = np.random.default_rng(random_state)
    X = random.standard_normal((n_samples, 5)) * [1.0, 2.0, 0.5, 1.0, 1.0] + [0.0, 1.0, 0.0, -1.0, 0.0]
    score = X @ [1.0, -1.0, 2.0, 0.0, 0.5] + 0.1 * random.standard_normal(n_samples)
    if is_classifier(estimator()):
        return X, np.array(["high", "low", "middle"])[np.searchsorted(np.quantile(score, [1 / 3, 2 / 3]), score)]
    return X, score
