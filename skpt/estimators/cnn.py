"""Convolutional networks for images."""

from __future__ import annotations

import math
import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skpt._compat import Interval, StrOptions
from skpt.base import NetClassifier, NetEstimator, NetRegressor
from skpt.exceptions import InvalidInputError
from skpt.modules.cnn import CNNModule
from skpt.modules.layers import ACTIVATIONS, INITIALIZATIONS
from skpt.training.features import FeatureScaler, as_numbers, to_float32
from skpt.training.randomness import borrowed_global_generator

__all__ = ["CNNClassifier", "CNNRegressor"]


class _CNN(NetEstimator):
    """What both halves share: the network, its parameters, and how images are read."""

    module = CNNModule
    _takes_sparse = False
    _most_dimensions = 4

    _own_constraints: dict = {
        "channels": ["array-like"],
        "kernel_size": ["array-like", Interval(Integral, 1, None, closed="left")],
        "pool_size": ["array-like", Interval(Integral, 1, None, closed="left")],
        "padding": [StrOptions({"same", "valid"}), Interval(Integral, 0, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "conv_dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
        "image_shape": ["array-like", None],
        "augment": [callable, None],
    }
    _own_texts: dict = {
        "channels": ("sequence of int", "Number of channels that each block of convolution, activation and pooling gives."),
        "kernel_size": ("int or pair of int", "Height and width of the kernels."),
        "pool_size": (
            "int or pair of int",
            "Height and width that the max-pooling after each convolution takes together; 1 leaves it out.",
        ),
        "padding": (
            '{"same", "valid"} or int',
            'Zeros around an image: as many as keep its size, none ("valid"), or a number.',
        ),
        "hidden_layer_sizes": (
            "sequence of int",
            "Number of units of each fully connected layer between the blocks and the output.",
        ),
        "dropout": (
            "float in [0, 1)",
            "Probability that a unit of a fully connected hidden layer is dropped in a training step.",
        ),
        "conv_dropout": ("float in [0, 1)", "Probability that a number is dropped after each block in a training step."),
        "batch_norm": ("bool", "Whether blocks and hidden layers are batch-normalised, before the activation."),
        "image_shape": (
            "tuple of int or None",
            "(n_channels, height, width), or (height, width), of the images in a flat X of shape (n_samples, n_pixels). None "
            "reads a flat X as one row of pixels. Unused where X has the dimensions of images.",
        ),
        "augment": (
            "callable or None",
            "Changes a training batch at random: takes and gives a float32 tensor of shape (n, n_channels, height, width), in "
            "[0, 1] where X holds bytes. For example an augmentation of kornia. What it draws from torch's global generator "
            "follows from `random_state`.",
        ),
        "standardize_features": (
            "bool",
            "Whether every channel is centred and scaled inside, by the training images.",
        ),
    }
    _own_attribute_texts = {
        "input_shape_": ("tuple of int", "(n_channels, height, width) of an image."),
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        self._check_integers("channels", self.channels, at_least_one=True, example="(32, 64)")
        self._check_integers("hidden_layer_sizes", self.hidden_layer_sizes, example="(128,)")
        for name in ("kernel_size", "pool_size"):
            self._check_integers(name, getattr(self, name), lengths=(1, 2), example="3 or (3, 5)")
        if self.image_shape is not None:
            self._check_integers("image_shape", self.image_shape, lengths=(2, 3), example="(1, 28, 28)")

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        return {
            "channels": _integers(self.channels),
            "kernel_size": _one_or_pair(self.kernel_size),
            "pool_size": _one_or_pair(self.pool_size),
            "padding": self.padding,
            "hidden_layer_sizes": _integers(self.hidden_layer_sizes),
            "activation": self.activation,
            "dropout": self.dropout,
            "conv_dropout": self.conv_dropout,
            "batch_norm": self.batch_norm,
            "initialization": self.initialization,
        }

    def _size_arguments(self) -> dict[str, Any]:
        return {"image_shape": self.input_shape_, "n_outputs": self.target_.n_outputs}

    def _n_positions(self) -> int:
        return math.prod(self.input_shape_[1:])

    # ------------------------------------------------------------------ reading images

    def _read_options(self) -> dict[str, Any]:
        return {**super()._read_options(), "dtype": "numeric"}  # bytes stay bytes

    def _shaped(self, X, *, reset: bool):
        owner = type(self).__name__
        if X.ndim == 2:
            shape = (1, 1, X.shape[1])
            if self.image_shape is not None:
                *channels, height, width = _integers(self.image_shape)
                shape = (*(channels or (1,)), height, width)
            if math.prod(shape) != X.shape[1]:
                raise InvalidInputError(
                    f"A flat X of {owner} must have the {math.prod(shape)} columns of image_shape={self.image_shape!r}. Got "
                    f"{X.shape[1]} columns."
                )
        elif X.ndim in (3, 4):
            shape = (1, *X.shape[1:]) if X.ndim == 3 else X.shape[1:]
        else:
            raise InvalidInputError(
                f"X of {owner} must have the shape (n_samples, n_channels, height, width), (n_samples, height, width) or "
                f"(n_samples, n_pixels). Got {X.shape}."
            )
        if 0 in shape:
            raise InvalidInputError(f"The images in X of {owner} must have at least one pixel. Got the shape {X.shape}.")
        X = X.reshape(len(X), *shape)
        if reset:
            if X.shape[3] in (1, 3, 4) and X.shape[1] > 4 and X.shape[2] > 1:
                warnings.warn(
                    f"X of shape {X.shape} is read as (n_samples, n_channels, height, width): {shape[0]} channels. If the "
                    "channels come last, pass np.moveaxis(X, -1, 1).",
                    UserWarning,
                    stacklevel=2,
                )
            self.input_shape_ = tuple(int(n) for n in shape)
            self.n_features_in_ = math.prod(self.input_shape_)
        elif shape != self.input_shape_:
            raise InvalidInputError(
                f"X has images of shape {shape}, but {owner} was fitted with {self.input_shape_} (n_channels, height, width)."
            )
        return X

    def _scaler_of(self, data) -> FeatureScaler:
        return FeatureScaler.from_places(data.X, data.weight, axis=1)

    def _encode_X(self, X):
        return torch.from_numpy(np.ascontiguousarray(X)) if X.dtype == np.uint8 else to_float32(X)

    def _scaled(self, X, dtype=None):
        return super()._scaled(as_numbers(X, np.float64), dtype)

    def _augmented(self, x: Tensor) -> Tensor:
        if self.augment is None:
            return x
        x = _as_float(x)
        with borrowed_global_generator(self.streams_.noise):
            augmented = self.augment(x)
        if not isinstance(augmented, Tensor) or augmented.shape != x.shape:
            got = tuple(augmented.shape) if isinstance(augmented, Tensor) else type(augmented).__name__
            raise InvalidInputError(f"augment must give a tensor of the shape that it takes, {tuple(x.shape)}. Got {got}.")
        return augmented

    def _encode_batch(self, x: Tensor) -> Tensor:
        x = _as_float(x)
        return x if self.scaler_ is None else self.scaler_.of_batch(x)


class CNNRegressor(_CNN, NetRegressor):
    r"""Convolutional network regression: numbers from images.

    Blocks of convolution, activation and max-pooling, then fully connected layers, fitted by gradient descent (LeCun, Bottou,
    Bengio and Haffner, 1998). Choose it where what matters is local and may be anywhere in the picture. X has the shape
    (n_samples, n_channels, height, width), (n_samples, height, width), or (n_samples, n_pixels) with `image_shape`. Bytes are
    scaled to [0, 1], and kept as bytes until a batch is made.

    See Also
    --------
    CNNClassifier : The same for classes.
    MLPRegressor : Without a notion of place.

    References
    ----------
    LeCun, Y., Bottou, L., Bengio, Y., Haffner, P. (1998). Gradient-based learning applied to document recognition.
    Proceedings of the IEEE, 86(11).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skpt import CNNRegressor
    >>> digits = load_digits()
    >>> ink = digits.images.sum(axis=(1, 2))
    >>> net = CNNRegressor((8,), hidden_layer_sizes=(16,), max_epochs=4, lr=0.01, random_state=0)
    >>> net.fit(digits.images, ink).score(digits.images, ink) > 0.85
    True
    """

    def __init__(
        self,
        channels=(32, 64),
        kernel_size=3,
        *,
        pool_size=2,
        padding="same",
        hidden_layer_sizes=(128,),
        activation="relu",
        dropout=0.0,
        conv_dropout=0.0,
        batch_norm=False,
        initialization="default",
        image_shape=None,
        augment=None,
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


class CNNClassifier(_CNN, NetClassifier):
    r"""Convolutional network classification: classes of images.

    Blocks of convolution, activation and max-pooling, then fully connected layers, whose outputs are log-odds (LeCun, Bottou,
    Bengio and Haffner, 1998). Choose it where what matters is local and may be anywhere in the picture. X has the shape
    (n_samples, n_channels, height, width), (n_samples, height, width), or (n_samples, n_pixels) with `image_shape`. Bytes are
    scaled to [0, 1], and kept as bytes until a batch is made.

    See Also
    --------
    CNNRegressor : The same for numbers.
    MLPClassifier : Without a notion of place.

    References
    ----------
    LeCun, Y., Bottou, L., Bengio, Y., Haffner, P. (1998). Gradient-based learning applied to document recognition.
    Proceedings of the IEEE, 86(11).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skpt import CNNClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> net = CNNClassifier((8,), hidden_layer_sizes=(16,), image_shape=(8, 8), max_epochs=4, lr=0.01, random_state=0)
    >>> net.fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) > 0.85
    True
    """

    def __init__(
        self,
        channels=(32, 64),
        kernel_size=3,
        *,
        pool_size=2,
        padding="same",
        hidden_layer_sizes=(128,),
        activation="relu",
        dropout=0.0,
        conv_dropout=0.0,
        batch_norm=False,
        initialization="default",
        image_shape=None,
        augment=None,
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


def _as_float(x: Tensor) -> Tensor:
    """Bytes as parts of 255; floating numbers as they are."""
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def _integers(sizes) -> tuple[int, ...]:
    return tuple(int(n) for n in np.atleast_1d(sizes))


def _one_or_pair(size) -> int | tuple[int, ...]:
    return int(size) if np.ndim(size) == 0 else _integers(size)
