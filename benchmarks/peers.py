"""What the estimators are measured against: a hand-written loop, scikit-learn's MLP, skorch's net."""

import warnings
from itertools import pairwise

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier as SklearnMLPClassifier
from sklearn.neural_network import MLPRegressor as SklearnMLPRegressor
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn


class PlainMLP(nn.Module):
    """The network that a user of torch would write."""

    def __init__(self, n_features: int, hidden: tuple[int, ...], n_outputs: int):
        super().__init__()
        sizes = (n_features, *hidden)
        layers = [f(a, b) for a, b in pairwise(sizes) for f in (nn.Linear, lambda a, b: nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], n_outputs))

    def forward(self, X):
        return self.layers(X)


def plain_loop(X, y, module, criterion, *, batch_size: int, epochs: int, lr: float = 1e-3, optimizer=None):
    """The best loop that is written by hand: tensors in memory, randperm, index, forward, backward, fused Adam."""
    optimizer = optimizer or torch.optim.Adam(module.parameters(), lr=lr, fused=True)
    n_samples = len(X)
    module.train()
    for _ in range(epochs):
        order = torch.randperm(n_samples)
        for start in range(0, n_samples, batch_size):
            index = order[start : start + batch_size]
            optimizer.zero_grad()
            criterion(module(X[index]), y[index]).backward()
            optimizer.step()
    return module


def sklearn_mlp(classifier: bool, hidden, batch_size: int, epochs: int, lr: float = 1e-3, alpha: float = 0.0):
    """scikit-learn's MLP, made to run the given number of epochs."""
    cls = SklearnMLPClassifier if classifier else SklearnMLPRegressor
    return cls(
        hidden,
        batch_size=batch_size,
        max_iter=epochs,
        learning_rate_init=lr,
        alpha=alpha,
        n_iter_no_change=10**9,
        random_state=0,
    )


def skorch_net(
    classifier: bool, n_features: int, hidden, n_outputs: int, batch_size: int, epochs: int, lr: float = 1e-3, **further
):
    """skorch's net in its fastest plain form: no validation, nothing printed."""
    cls, criterion = (NeuralNetClassifier, nn.CrossEntropyLoss) if classifier else (NeuralNetRegressor, nn.MSELoss)
    settings = {
        "module__n_features": n_features,
        "module__hidden": tuple(hidden),
        "module__n_outputs": n_outputs,
        "criterion": criterion,
        "optimizer": torch.optim.Adam,
        "lr": lr,
        "batch_size": batch_size,
        "max_epochs": epochs,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
    }
    return cls(PlainMLP, **{**settings, **further})


def classes(n_samples: int, n_features: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features and classes by a noisy linear rule, as floats and integers of a user."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_samples, n_features))
    scores = X @ rng.standard_normal((n_features, n_classes)) + rng.standard_normal((n_samples, n_classes))
    return X, scores.argmax(axis=1)


def silently(run):
    """Wrap a callable so that scikit-learn's warning of too few epochs is not printed."""

    def quiet():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return run()

    return quiet
