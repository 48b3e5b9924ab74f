"""Multilayer perceptrons."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np

from skpt._compat import Interval, StrOptions
from skpt.base import NetClassifier, NetEstimator, NetRegressor
from skpt.exceptions import InvalidInputError
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
        sizes = np.atleast_1d(np.asarray(self.hidden_layer_sizes))
        if sizes.ndim != 1 or (sizes.size and (sizes.dtype.kind not in "iu" or (sizes < 1).any())):
            raise InvalidInputError(
                f"The 'hidden_layer_sizes' parameter of {type(self).__name__} must hold integers in the range [1, inf). Got "
                f"{self.hidden_layer_sizes!r} instead. Give one entry per hidden layer, for example (64, 32)."
            )

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

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default=(100,)
        Number of units of each hidden layer.
    activation : str or callable, default="relu"
        Nonlinearity of the hidden layers: "relu", "tanh", "sigmoid" (also "logistic"), "identity", "leaky_relu", "elu",
        "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardswish", "relu6", or a class of
        ``torch.nn.Module``.
    dropout : float in [0, 1), default=0.0
        Probability that a hidden unit is dropped in a training step.
    batch_norm : bool, default=False
        Whether the hidden layers are batch-normalised, before the activation.
    initialization : str, default="default"
        How the first weights are drawn: "default" (torch's), "kaiming_uniform", "kaiming_normal", "xavier_uniform",
        "xavier_normal", "orthogonal", "uniform", "normal" or "zeros".
    criterion : {"mse", "l1", "huber", "smooth_l1", "poisson_nll"}, class or instance, default="mse"
        Loss to minimise: a name, or a class of ``torch.nn.Module`` that takes (outputs, targets). Its own arguments are given
        as ``criterion__name``.
    optimizer : str or class, default="adam"
        Name of a class of ``torch.optim`` in lower case, or the class. Its own arguments are given as ``optimizer__name``,
        for example ``optimizer__momentum=0.9``.
    lr : float, default=1e-3
        Learning rate: length of a step. Larger is faster, until training diverges.
    max_epochs : int, default=200
        Number of passes over the training rows.
    batch_size : int or "auto", default="auto"
        Number of rows that a step is computed from; -1 takes all of them. "auto" takes 32, and from 4,096 rows on more, up
        to 256.
    shuffle : bool, default=True
        Whether the rows are put in a new order in each epoch. Unused where one batch holds them all.
    weight_decay : float, default=0.0
        Strength of the L2 penalty, as the optimizer applies it.
    lr_schedule : {"cosine", "plateau", "one_cycle", "step", "exponential", "linear"}, class or None, default=None
        How the learning rate changes while training: a name, or a class of ``torch.optim.lr_scheduler``. Its own arguments
        are given as ``lr_schedule__name``. None keeps it.
    max_grad_norm : float or None, default=None
        Largest norm of the gradient of all weights; a longer one is shortened to it. None leaves it.
    early_stopping : bool, default=False
        Whether training ends when the loss on a validation set no longer falls, and the best weights are restored. The set is
        X_val and y_val of `fit`, or else rows held out.
    validation_fraction : float in (0, 1), default=0.1
        Share of the rows held out for early stopping, by class for a classifier. Equal rows stay together. Unused without
        early stopping, and where X_val is given.
    n_iter_no_change : int, default=10
        Number of epochs without improvement after which early stopping ends training.
    tol : float, default=1e-4
        Fall of the validation loss that counts as an improvement.
    standardize_features : bool, default=True
        Whether every feature is centred and scaled inside, by the training rows. Sparse features are scaled only.
    standardize_target : bool, default=True
        Whether the target is centred and scaled inside; losses are then in units of its standard deviation.
    random_state : int, RandomState instance or None, default=None
        Fixes everything that is random: first weights, order of the rows, dropout, hold-out. No global generator is read or
        moved; None takes fresh entropy.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights that are there.
    verbose : int, default=0
        Whether a row is printed for each epoch.
    device : str, default="auto"
        Where to compute: "cpu", "cuda", ... "auto" takes a GPU where there is one.
    callbacks : list or None, default=None
        Callbacks of skorch, or (name, callback) pairs.
    iterator_train : callable or None, default=None
        Makes the iterable over training batches from a Dataset, for example ``torch.utils.data.DataLoader``; its arguments
        are given as ``iterator_train__name``. None keeps the rows in memory and takes no Python per row.
    **further
        Parameters of components by prefix (``optimizer__``, ``criterion__``, ``module__``, ``lr_schedule__``,
        ``iterator_train__``, ``callbacks__``), and skorch's `iterator_valid`, `compile` and `torch_load_kwargs`.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network: a `skpt.modules.MLPModule`.
    history_ : skorch.history.History
        Losses and times of every epoch; also `history`.
    n_iter_ : int
        Number of epochs trained.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean training loss of each epoch, measured while it trained, in the criterion's unit.
    validation_curve_ : ndarray of shape (n_iter_,)
        Loss on the validation set after each epoch; empty without one.
    best_epoch_ : int
        The epoch of the lowest validation loss (training loss without a validation set), counted from 1.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had names.

    Raises
    ------
    InvalidInputError
        By `fit`, if the data cannot be used; the estimator is as it was before.
    DivergedError
        By `fit`, if the loss turned NaN or infinite; the last finite weights are kept.

    See Also
    --------
    MLPClassifier : The same for classes.
    sklearn.neural_network.MLPRegressor : scikit-learn's own, on numpy.

    Notes
    -----
    An epoch costs O(n_samples * n_weights). Order of the rows, first weights and dropout are random, and fixed by
    `random_state`; whether a fit runs alone or in a fused search changes nothing.

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

    Parameters
    ----------
    hidden_layer_sizes : sequence of int, default=(100,)
        Number of units of each hidden layer.
    activation : str or callable, default="relu"
        Nonlinearity of the hidden layers: "relu", "tanh", "sigmoid" (also "logistic"), "identity", "leaky_relu", "elu",
        "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardswish", "relu6", or a class of
        ``torch.nn.Module``.
    dropout : float in [0, 1), default=0.0
        Probability that a hidden unit is dropped in a training step.
    batch_norm : bool, default=False
        Whether the hidden layers are batch-normalised, before the activation.
    initialization : str, default="default"
        How the first weights are drawn: "default" (torch's), "kaiming_uniform", "kaiming_normal", "xavier_uniform",
        "xavier_normal", "orthogonal", "uniform", "normal" or "zeros".
    criterion : {"auto", "cross_entropy", "bce", "multi_margin", "multilabel_soft_margin"}, class or instance, default="auto"
        Loss to minimise: a name, or a class of ``torch.nn.Module`` that takes (outputs, targets). Its own arguments are given
        as ``criterion__name``. "auto" takes "bce" for two classes and
        for several labels per row, "cross_entropy" otherwise.
    optimizer : str or class, default="adam"
        Name of a class of ``torch.optim`` in lower case, or the class. Its own arguments are given as ``optimizer__name``,
        for example ``optimizer__momentum=0.9``.
    lr : float, default=1e-3
        Learning rate: length of a step. Larger is faster, until training diverges.
    max_epochs : int, default=200
        Number of passes over the training rows.
    batch_size : int or "auto", default="auto"
        Number of rows that a step is computed from; -1 takes all of them. "auto" takes 32, and from 4,096 rows on more, up
        to 256.
    shuffle : bool, default=True
        Whether the rows are put in a new order in each epoch. Unused where one batch holds them all.
    weight_decay : float, default=0.0
        Strength of the L2 penalty, as the optimizer applies it.
    lr_schedule : {"cosine", "plateau", "one_cycle", "step", "exponential", "linear"}, class or None, default=None
        How the learning rate changes while training: a name, or a class of ``torch.optim.lr_scheduler``. Its own arguments
        are given as ``lr_schedule__name``. None keeps it.
    max_grad_norm : float or None, default=None
        Largest norm of the gradient of all weights; a longer one is shortened to it. None leaves it.
    early_stopping : bool, default=False
        Whether training ends when the loss on a validation set no longer falls, and the best weights are restored. The set is
        X_val and y_val of `fit`, or else rows held out.
    validation_fraction : float in (0, 1), default=0.1
        Share of the rows held out for early stopping, by class for a classifier. Equal rows stay together. Unused without
        early stopping, and where X_val is given.
    n_iter_no_change : int, default=10
        Number of epochs without improvement after which early stopping ends training.
    tol : float, default=1e-4
        Fall of the validation loss that counts as an improvement.
    standardize_features : bool, default=True
        Whether every feature is centred and scaled inside, by the training rows. Sparse features are scaled only.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss, as in scikit-learn.
    random_state : int, RandomState instance or None, default=None
        Fixes everything that is random: first weights, order of the rows, dropout, hold-out. No global generator is read or
        moved; None takes fresh entropy.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights that are there.
    verbose : int, default=0
        Whether a row is printed for each epoch.
    device : str, default="auto"
        Where to compute: "cpu", "cuda", ... "auto" takes a GPU where there is one.
    callbacks : list or None, default=None
        Callbacks of skorch, or (name, callback) pairs.
    iterator_train : callable or None, default=None
        Makes the iterable over training batches from a Dataset, for example ``torch.utils.data.DataLoader``; its arguments
        are given as ``iterator_train__name``. None keeps the rows in memory and takes no Python per row.
    **further
        Parameters of components by prefix (``optimizer__``, ``criterion__``, ``module__``, ``lr_schedule__``,
        ``iterator_train__``, ``callbacks__``), and skorch's `iterator_valid`, `compile` and `torch_load_kwargs`.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network: a `skpt.modules.MLPModule`.
    history_ : skorch.history.History
        Losses and times of every epoch; also `history`.
    n_iter_ : int
        Number of epochs trained.
    loss_curve_ : ndarray of shape (n_iter_,)
        Mean training loss of each epoch, measured while it trained, in the criterion's unit.
    validation_curve_ : ndarray of shape (n_iter_,)
        Loss on the validation set after each epoch; empty without one.
    best_epoch_ : int
        The epoch of the lowest validation loss (training loss without a validation set), counted from 1.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where X had names.
    classes_ : ndarray of shape (n_classes,)
        The class labels, sorted.

    Raises
    ------
    InvalidInputError
        By `fit`, if the data cannot be used; the estimator is as it was before.
    DivergedError
        By `fit`, if the loss turned NaN or infinite; the last finite weights are kept.

    See Also
    --------
    MLPRegressor : The same for numbers.
    sklearn.neural_network.MLPClassifier : scikit-learn's own, on numpy.

    Notes
    -----
    An epoch costs O(n_samples * n_weights). Order of the rows, first weights and dropout are random, and fixed by
    `random_state`; whether a fit runs alone or in a fused search changes nothing.

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
