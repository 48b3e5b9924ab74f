"""Multilayer perceptrons."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np

from skpt._compat import Interval, StrOptions
from skpt.base import NetClassifier, NetEstimator, NetRegressor
from skpt.modules.layers import ACTIVATIONS, INITIALIZATIONS
from skpt.modules.mlp import MLPModule

__all__ = ["MLPClassifier", "MLPRegressor"]


class _MLP(NetEstimator):
    """What both halves share: the network and its parameters."""

    module = MLPModule

    _own_constraints: dict = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        self._check_integers("hidden_layer_sizes", self.hidden_layer_sizes, example="(64, 32), one entry per hidden layer")

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        return {
            "hidden_layer_sizes": tuple(int(n) for n in np.atleast_1d(self.hidden_layer_sizes)),
            "activation": self.activation,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "initialization": self.initialization,
        }


class MLPRegressor(_MLP, NetRegressor):
    r"""Multilayer perceptron regression.

    Fully connected layers with a nonlinearity between them, fitted by gradient descent. Choose it where a linear model leaves
    structure in the residuals and rows are many more than features. It minimises the mean over the rows of
    :math:`w_i\,\ell(y_i, f(x_i))` with weights :math:`w_i` and the criterion :math:`\ell`.

    See Also
    --------
    MLPClassifier : The same for classes.
    sklearn.neural_network.MLPRegressor : scikit-learn's own, on numpy.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from skpt import MLPRegressor
    >>> X, y = make_regression(n_samples=200, n_features=5, random_state=0)
    >>> MLPRegressor(max_epochs=50, lr=0.01, random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        *,
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        initialization="default",
        criterion="mse",
        optimizer="adam",
        lr=1e-3,
        max_epochs=200,
        batch_size="auto",
        shuffle=True,
        weight_decay=0.0,
        lr_schedule=None,
        max_grad_norm=None,
        pretrained=None,
        pretrained_lr_factor=1.0,
        freeze=None,
        unfreeze_after=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        standardize_features=True,
        standardize_target=True,
        random_state=None,
        warm_start=False,
        verbose=0,
        device="auto",
        callbacks=None,
        iterator_train=None,
        **further,
    ):
        self._store(locals())


class MLPClassifier(_MLP, NetClassifier):
    r"""Multilayer perceptron classification.

    Fully connected layers with a nonlinearity between them, fitted by gradient descent, whose outputs are log-odds. Choose it
    where classes are not separated by planes. It minimises the mean over the rows of :math:`w_i\,\ell(y_i, f(x_i))` with
    weights :math:`w_i` and the criterion :math:`\ell`.

    See Also
    --------
    MLPRegressor : The same for numbers.
    sklearn.neural_network.MLPClassifier : scikit-learn's own, on numpy.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from skpt import MLPClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> MLPClassifier(max_epochs=50, lr=0.01, random_state=0).fit(X, y).score(X, y) > 0.95
    True
    """

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        *,
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        initialization="default",
        criterion="auto",
        optimizer="adam",
        lr=1e-3,
        max_epochs=200,
        batch_size="auto",
        shuffle=True,
        weight_decay=0.0,
        lr_schedule=None,
        max_grad_norm=None,
        pretrained=None,
        pretrained_lr_factor=1.0,
        freeze=None,
        unfreeze_after=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        standardize_features=True,
        class_weight=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        device="auto",
        callbacks=None,
        iterator_train=None,
        **further,
    ):
        self._store(locals())
