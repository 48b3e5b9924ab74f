"""Convolutional networks for sequences."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np

from skpt._compat import Interval, StrOptions
from skpt.base import NetClassifier, NetRegressor
from skpt.estimators._sequence import SequenceNet
from skpt.modules.layers import ACTIVATIONS, INITIALIZATIONS
from skpt.modules.tcn import ARCHITECTURES, NORMALIZATIONS, TCNModule

__all__ = ["TCNClassifier", "TCNRegressor"]


class _TCN(SequenceNet):
    """What both halves share: the network and its parameters."""

    module = TCNModule

    _own_constraints: dict = {
        "architecture": [StrOptions(set(ARCHITECTURES))],
        "channels": ["array-like", None],
        "kernel_size": ["array-like", Interval(Integral, 1, None, closed="left"), None],
        "normalization": [StrOptions({each for each in NORMALIZATIONS if each}), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
    }
    _own_texts: dict = {
        **SequenceNet._own_texts,
        "architecture": (
            '{"fcn", "resnet", "causal"}',
            'The network: "fcn" is a row of convolutions, "resnet" a row of residual blocks of convolutions, both averaged '
            'over the steps; "causal" is a row of residual blocks of dilated convolutions that see no later step, read at the '
            "last one.",
        ),
        "channels": (
            "sequence of int or None",
            'Number of channels of each convolution ("fcn") or residual block. None takes (64, 128, 64) for "fcn" and '
            "(32, 64, 64) for \"resnet\", half of the paper's, and (32, 32, 32, 32, 32) for \"causal\".",
        ),
        "kernel_size": (
            "int, sequence of int or None",
            'Number of steps that a convolution sees: one for all, or one for each convolution ("fcn", and within each block '
            '"resnet") or block ("causal"). None takes the paper\'s 8, 5, 3 for "fcn" (and 3 for more) and "resnet", and 3 for '
            '"causal", whose outputs see the last 1 + 2 * (kernel_size - 1) * (2**n_blocks - 1) steps.',
        ),
        "normalization": (
            '{"auto", "batch", "weight"} or None',
            'Batch normalisation behind each convolution, weight normalisation of each, or neither. "auto" takes the paper\'s: '
            '"batch" for "fcn" and "resnet", "weight" for "causal".',
        ),
        "dropout": (
            "float in [0, 1)",
            "Probability that a channel is dropped, in all steps, behind an activation in a training step.",
        ),
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        channels = ARCHITECTURES[self.architecture][0] if self.channels is None else self.channels
        self._check_integers("channels", channels, at_least_one=True, example="(64, 128, 64)")
        if self.kernel_size is not None:
            n_layers = np.size(channels)
            lengths = None if self.architecture == "resnet" else (1, n_layers)
            example = f"5 or {(8, 5, 3) if lengths is None else (5,) * n_layers}"
            self._check_integers("kernel_size", self.kernel_size, lengths=lengths, at_least_one=True, example=example)

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        arguments = {name: getattr(self, name) for name in self._own_constraints}
        if self.channels is not None:
            arguments["channels"] = tuple(int(n) for n in np.atleast_1d(self.channels))
        if self.kernel_size is not None:
            sizes = tuple(int(n) for n in np.atleast_1d(self.kernel_size))
            is_one = np.ndim(self.kernel_size) == 0 or (len(sizes) == 1 and self.architecture != "resnet")
            arguments["kernel_size"] = sizes[0] if is_one else sizes
        return arguments


class TCNRegressor(_TCN, NetRegressor):
    r"""Temporal convolutional network regression: numbers from sequences.

    Convolutions over the steps of a sequence find shapes wherever they are; the mean over the steps, or the last step, gives
    the outputs. Choose it for series where local shapes matter; it learns from few sequences, quickly. X has the shape
    (n_samples, n_timesteps, n_features), (n_samples, n_timesteps), or is a list of arrays of unequal length.

    See Also
    --------
    TCNClassifier : The same for classes.
    TransformerRegressor : Relations between distant steps.

    References
    ----------
    Wang, Z., Yan, W., Oates, T. (2017). Time series classification from scratch with deep neural networks: a strong baseline.
    arXiv:1611.06455 ("fcn", "resnet"). Bai, S., Kolter, J. Z., Koltun, V. (2018). An empirical evaluation of generic
    convolutional and recurrent networks for sequence modeling. arXiv:1803.01271 ("causal").

    Examples
    --------
    >>> import numpy as np
    >>> from skpt import TCNRegressor
    >>> random = np.random.default_rng(0)
    >>> speed = random.uniform(0.2, 1.0, 200)
    >>> X = np.sin(random.uniform(0, 6, (200, 1)) + speed[:, None] * np.arange(40))
    >>> net = TCNRegressor(channels=(16, 16), max_epochs=12, lr=0.01, random_state=0).fit(X, speed)
    >>> net.score(X, speed) > 0.9
    True
    """

    def __init__(
        self,
        architecture="fcn",
        *,
        channels=None,
        kernel_size=None,
        normalization="auto",
        dropout=0.0,
        activation="relu",
        initialization="default",
        criterion="mse",
        optimizer="adam",
        lr=2e-3,
        max_epochs=50,
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


class TCNClassifier(_TCN, NetClassifier):
    r"""Temporal convolutional network classification: classes of sequences.

    Convolutions over the steps of a sequence find shapes wherever they are; the mean over the steps, or the last step, gives
    the log-odds. Choose it for series where local shapes matter; it learns from few sequences, quickly. X has the shape
    (n_samples, n_timesteps, n_features), (n_samples, n_timesteps), or is a list of arrays of unequal length.

    See Also
    --------
    TCNRegressor : The same for numbers.
    TransformerClassifier : Relations between distant steps.

    References
    ----------
    Wang, Z., Yan, W., Oates, T. (2017). Time series classification from scratch with deep neural networks: a strong baseline.
    arXiv:1611.06455 ("fcn", "resnet"). Bai, S., Kolter, J. Z., Koltun, V. (2018). An empirical evaluation of generic
    convolutional and recurrent networks for sequence modeling. arXiv:1803.01271 ("causal").

    Examples
    --------
    >>> import numpy as np
    >>> from skpt import TCNClassifier
    >>> random = np.random.default_rng(0)
    >>> y = random.choice(["slow", "fast"], 100)
    >>> speed = np.where(y == "slow", 0.4, 0.7)
    >>> X = np.sin(random.uniform(0, 6, (100, 1)) + speed[:, None] * np.arange(40))
    >>> net = TCNClassifier(channels=(16, 16), max_epochs=12, lr=0.01, random_state=0).fit(X, y)
    >>> net.score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        architecture="fcn",
        *,
        channels=None,
        kernel_size=None,
        normalization="auto",
        dropout=0.0,
        activation="relu",
        initialization="default",
        criterion="auto",
        optimizer="adam",
        lr=2e-3,
        max_epochs=50,
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
