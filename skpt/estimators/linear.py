"""Linear, logistic and softmax regression."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.optim import Adam

from skpt._compat import Interval, StrOptions
from skpt.base import NetClassifier, NetEstimator, NetRegressor
from skpt.modules.layers import ACTIVATIONS, INITIALIZATIONS
from skpt.modules.linear import LinearModule
from skpt.training.targets import NumericTarget

__all__ = ["LinearClassifier", "LinearRegressor"]

# Criteria whose outputs are in the target's own units.
_IN_TARGET_UNITS = (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss)


class _Linear(NetEstimator):
    """What both halves share: the network, its parameters, and its coefficients in the user's units."""

    module = LinearModule

    _own_constraints: dict = {
        "standardize_features": ["boolean", StrOptions({"auto"})],
        "fit_intercept": ["boolean"],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
    }

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        return {
            "bias": self.fit_intercept,
            "activation": self.activation,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "initialization": self.initialization,
        }

    def _find_optimizer(self) -> tuple[Any, dict[str, Any]]:
        return (Adam, {}) if self.optimizer == "auto" else super()._find_optimizer()

    def _schedule_name(self):
        return "cosine" if self.optimizer == "auto" and self.lr_schedule is None else self.lr_schedule

    def _wants_scaled_features(self) -> bool:
        return self.optimizer == "auto" if self.standardize_features == "auto" else self.standardize_features

    def _raw_coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Weights (n_outputs, n_features) and intercepts (n_outputs,) of the raw features."""
        check_is_fitted(self)
        weight, bias = (t.cpu().numpy() for t in self.module_.coefficients())
        if self.scaler_ is not None:
            weight = weight / self.scaler_.scale
            bias = bias - weight @ self.scaler_.mean
        return weight, bias


class LinearRegressor(_Linear, NetRegressor):
    r"""Linear regression by gradient descent.

    A weighted sum of the features. With the default criterion it approaches the least-squares solution of
    ``sklearn.linear_model.LinearRegression``; with others it gives least absolute deviations, Huber or Poisson regression. It
    minimises the mean over the rows of :math:`w_i\,\ell(y_i, x_i^\top\beta + \beta_0)`.

    Parameters
    ----------
    fit_intercept : bool, default=True
        Whether an intercept is learnt.
    activation : str or callable, default="identity"
        Function of the output, the inverse link of a generalised linear model: "identity", "softplus", "sigmoid", ... or a
        class of ``torch.nn.Module``.
    dropout : float in [0, 1), default=0.0
        Probability that a feature is dropped in a training step.
    batch_norm : bool, default=False
        Whether the features are batch-normalised first. `coef_` and `intercept_` take it in.
    optimizer : str or class, default="auto"
        Name of a class of ``torch.optim`` in lower case, or the class. Its own arguments are given as ``optimizer__name``,
        for example ``optimizer__momentum=0.9``. "auto" is "adam" with a
        "cosine" schedule, on standardised features, from the target's mean and in units of its spread: it approaches the exact
        solution on data of any scale.
    lr_schedule : {"cosine", "plateau", "one_cycle", "step", "exponential", "linear"}, class or None, default=None
        How the learning rate changes while training: a name, or a class of ``torch.optim.lr_scheduler``. Its own arguments
        are given as ``lr_schedule__name``. None keeps it, unless `optimizer` is "auto".
    standardize_features : bool or "auto", default="auto"
        Whether every feature is centred and scaled inside, by the training rows; `coef_` stays in raw units. Sparse features
        are scaled only. "auto" does so where `optimizer` is "auto"; with an optimizer of your choice the raw features are
        descended on, as in a textbook.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_outputs, n_features)
        Weights of the raw features, in units of y.
    intercept_ : float or ndarray of shape (n_outputs,)
        Prediction where all features are zero.

    See Also
    --------
    LinearClassifier : The same for classes.
    sklearn.linear_model.LinearRegression : The exact least-squares solution.

    Examples
    --------
    >>> from skpt import LinearRegressor
    >>> from skpt.datasets import load_cars
    >>> X, y = load_cars(return_X_y=True, features=["wt"])
    >>> net = LinearRegressor(random_state=0).fit(X, y)
    >>> net.coef_.round(1), round(net.intercept_, 1)
    (array([-5.3]), 37.3)
    """

    def __init__(
        self,
        *,
        fit_intercept=True,
        activation="identity",
        dropout=0.0,
        batch_norm=False,
        initialization="default",
        criterion="mse",
        optimizer="auto",
        lr=0.05,
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
        standardize_features="auto",
        standardize_target=False,
        random_state=None,
        warm_start=False,
        verbose=0,
        device="auto",
        callbacks=None,
        iterator_train=None,
        **further,
    ):
        self._store(locals())

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        arguments = super().module_arguments()
        if self._learns_in_target_units():
            ones = np.ones(self.target_.n_outputs)
            arguments["units"] = vars(self).get("_units", (ones, 0 * ones))
        return arguments

    def _head(self) -> set[str]:
        return super()._head() | {"units.scale", "units.offset"}

    def _learns_in_target_units(self) -> bool:
        """Whether the weights are learnt in units of the target's spread, which makes one learning rate fit any target."""
        in_units = self._find_criterion() in _IN_TARGET_UNITS
        return self.optimizer == "auto" and self.activation == "identity" and in_units

    def _learn_scales(self, data) -> None:
        super()._learn_scales(data)
        vars(self).pop("_units", None)
        if not self._learns_in_target_units():
            return
        encoded = self.target_.encode(data.y).double().numpy()
        spread = NumericTarget.from_y(encoded)
        spread.standardize(encoded, data.weight)
        self._units = spread.scale, spread.mean

    def _raw_coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        weight, bias = super()._raw_coefficients()
        return weight * self.target_.scale[:, None], bias * self.target_.scale + self.target_.mean

    @property
    def coef_(self) -> np.ndarray:
        """Weights of the raw features."""
        weight = self._raw_coefficients()[0]
        return weight[0] if self.target_.is_1d else weight

    @property
    def intercept_(self):
        """Prediction where all features are zero."""
        bias = self._raw_coefficients()[1]
        return float(bias[0]) if self.target_.is_1d else bias


class LinearClassifier(_Linear, NetClassifier):
    r"""Logistic and softmax regression by gradient descent.

    A weighted sum of the features gives the log-odds of each class: logistic regression for two classes, softmax regression
    for more, and one logistic regression per label for several labels per row. It minimises the mean over the rows of
    :math:`w_i\,\ell(y_i, x_i^\top\beta + \beta_0)`.

    Parameters
    ----------
    fit_intercept : bool, default=True
        Whether an intercept is learnt.
    activation : str or callable, default="identity"
        Function of the output, the inverse link of a generalised linear model: "identity", "softplus", "sigmoid", ... or a
        class of ``torch.nn.Module``.
    dropout : float in [0, 1), default=0.0
        Probability that a feature is dropped in a training step.
    batch_norm : bool, default=False
        Whether the features are batch-normalised first. `coef_` and `intercept_` take it in.
    optimizer : str or class, default="auto"
        Name of a class of ``torch.optim`` in lower case, or the class. Its own arguments are given as ``optimizer__name``,
        for example ``optimizer__momentum=0.9``. "auto" is "adam" with a
        "cosine" schedule, on standardised features.
    lr_schedule : {"cosine", "plateau", "one_cycle", "step", "exponential", "linear"}, class or None, default=None
        How the learning rate changes while training: a name, or a class of ``torch.optim.lr_scheduler``. Its own arguments
        are given as ``lr_schedule__name``. None keeps it, unless `optimizer` is "auto".
    standardize_features : bool or "auto", default="auto"
        Whether every feature is centred and scaled inside, by the training rows; `coef_` stays in raw units. Sparse features
        are scaled only. "auto" does so where `optimizer` is "auto"; with an optimizer of your choice the raw features are
        descended on, as in a textbook.

    Attributes
    ----------
    coef_ : ndarray of shape (1, n_features) or (n_classes, n_features)
        Weights of the raw features in the log-odds; one row for two classes.
    intercept_ : ndarray of shape (1,) or (n_classes,)
        Log-odds where all features are zero.

    See Also
    --------
    LinearRegressor : The same for numbers.
    sklearn.linear_model.LogisticRegression : The exact penalised solution.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skpt import LinearClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> net = LinearClassifier(random_state=0).fit(X, y)
    >>> net.score(X, y) > 0.95, net.coef_.shape
    (True, (3, 4))
    """

    def __init__(
        self,
        *,
        fit_intercept=True,
        activation="identity",
        dropout=0.0,
        batch_norm=False,
        initialization="default",
        criterion="auto",
        optimizer="auto",
        lr=0.01,
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
        standardize_features="auto",
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

    def _raw_coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        weight, bias = super()._raw_coefficients()
        if self.target_.takes_index and len(weight) == 2:  # only the difference of two log-odds matters
            return weight[1:] - weight[:1], bias[1:] - bias[:1]
        return weight, bias

    @property
    def coef_(self) -> np.ndarray:
        """Weights of the raw features in the log-odds."""
        return self._raw_coefficients()[0]

    @property
    def intercept_(self) -> np.ndarray:
        """Log-odds where all features are zero."""
        return self._raw_coefficients()[1]
