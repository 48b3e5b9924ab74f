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
from skpt.training.features import FeatureScaler, as_bytes, as_numbers, as_tensor, to_float32
from skpt.training.randomness import borrowed_global_generator
from skpt.training.sources import RowSource
from skpt.training.transfer import unwrapped

__all__ = ["CNNClassifier", "CNNRegressor"]


class _CNN(NetEstimator):
    """What both halves share: the network, its parameters, and how images are read."""

    module = CNNModule
    _takes_sparse = False
    _most_dimensions = 4

    pixel_range_ = None  # not known: of a file or pickle from before it was learnt

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
        "pixel_range_": (
            '{"bytes", "unit", "other"} or None',
            'What the training images held: bytes, other numbers within [0, 1] ("unit"), or any. None in a net that an '
            "earlier version saved.",
        ),
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        self._check_integers("channels", self.channels, at_least_one=True, example="(32, 64)")
        self._check_integers("hidden_layer_sizes", self.hidden_layer_sizes, example="(128,)")
        for name in ("kernel_size", "pool_size"):
            self._check_integers(name, getattr(self, name), lengths=(1, 2), example="3 or (3, 5)")
        if isinstance(self.padding, bool):  # an Integral to Python, and not to torch
            raise InvalidInputError(
                f"The 'padding' parameter of {type(self).__name__} must be 'same', 'valid' or an int in the range [0, inf). "
                f"Got {self.padding!r} instead. Give 'same' for as many zeros as keep the size of an image, 'valid' for none."
            )
        if self.image_shape is not None:
            self._check_integers("image_shape", self.image_shape, lengths=(2, 3), example="(1, 28, 28)")

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        return {
            "channels": _integers(self.channels),
            "kernel_size": _one_or_pair(self.kernel_size),
            "pool_size": _one_or_pair(self.pool_size),
            "padding": self.padding if isinstance(self.padding, str) else int(self.padding),
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

    def _sized_by(self, name: str) -> set[str]:
        if name != "n_features":
            return super()._sized_by(name)
        return {next(iter(unwrapped(self.module_).state_dict()))}  # of the layer that reads the pixels

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
            self.pixel_range_ = _range_of(X)
        elif shape != self.input_shape_:
            raise InvalidInputError(
                f"X has images of shape {shape}, but {owner} was fitted with {self.input_shape_} (n_channels, height, width)."
            )
        return X

    def _scaler_of(self, data) -> FeatureScaler:
        if not isinstance(data.X, RowSource):
            return FeatureScaler.from_places(data.X, data.weight, axis=1)
        ranges = []

        def note(part):
            ranges.append(_range_of(part))
            return part

        # Of rows that are read when needed the check of X may have seen the first alone; this pass sees all.
        scaler = FeatureScaler.from_places(data.X.mapped(note), data.weight, axis=1)
        self.pixel_range_ = "other" if "other" in ranges else ranges[0]
        return scaler

    @property
    def _white(self) -> int:
        """What a byte is divided by."""
        return 1 if self.pixel_range_ == "other" else 255

    def _as_fitted(self, X: np.ndarray) -> np.ndarray:
        """Give checked images as bytes where fit saw bytes and these are integers; the same numbers mean the same."""
        return as_bytes(X, type(self).__name__) if self.pixel_range_ == "bytes" else X

    def _encode_X(self, X):
        X = self._as_fitted(X)
        return as_tensor(X) if X.dtype == np.uint8 else to_float32(X)

    def _scaled(self, X, dtype=None):
        return super()._scaled(as_numbers(self._as_fitted(X), np.float64, self._white), dtype)

    def _augmented(self, x: Tensor) -> Tensor:
        if self.augment is None:
            return x
        # A batch of floats may be a view of the training rows, and of the user's X: augment may work in place.
        x = self._as_float(x) if x.dtype == torch.uint8 else x.clone()
        shape, dtype = tuple(x.shape), x.dtype
        with borrowed_global_generator(self.streams_.noise):
            augmented = self.augment(x)
        if not isinstance(augmented, Tensor) or augmented.shape != shape:
            got = tuple(augmented.shape) if isinstance(augmented, Tensor) else type(augmented).__name__
            raise InvalidInputError(f"augment must give a tensor of the shape that it takes, {shape}. Got {got}.")
        if not augmented.is_floating_point():
            raise InvalidInputError(
                f"augment must give a tensor of the dtype that it takes, {dtype}. Got {augmented.dtype}. Let it end with "
                "batch.float(), in the range that it took."
            )
        return augmented.to(dtype)

    def _as_float(self, x: Tensor) -> Tensor:
        """Bytes as floats, in the unit of the training images; floating numbers as they are."""
        return x.float().div_(self._white) if x.dtype == torch.uint8 else x

    def _encode_batch(self, x: Tensor) -> Tensor:
        x = self._as_float(x)
        return x if self.scaler_ is None else self.scaler_.of_batch(x)

    # ------------------------------------------------------------------ saving

    def _inputs_to_dict(self) -> dict[str, Any]:
        return {**super()._inputs_to_dict(), "pixel_range": self.pixel_range_}

    def _inputs_from_dict(self, learnt: dict[str, Any]) -> None:
        super()._inputs_from_dict(learnt)
        self.pixel_range_ = learnt.get("pixel_range")


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

    Notes
    -----
    What the training images held says what later ones mean: after bytes (uint8), integers of any dtype are bytes too, and
    floats must lie in [0, 1]. After other numbers, bytes are divided by 255 where all training numbers lay in [0, 1], and
    taken as they are where one did not.

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

    Notes
    -----
    What the training images held says what later ones mean: after bytes (uint8), integers of any dtype are bytes too, and
    floats must lie in [0, 1]. After other numbers, bytes are divided by 255 where all training numbers lay in [0, 1], and
    taken as they are where one did not.

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


def _range_of(X: np.ndarray) -> str:
    """Name what images hold, as `pixel_range_` does."""
    if X.dtype == np.uint8:
        return "bytes"
    return "unit" if X.min() >= 0 and X.max() <= 1 else "other"


def _integers(sizes) -> tuple[int, ...]:
    return tuple(int(n) for n in np.atleast_1d(sizes))


def _one_or_pair(size) -> int | tuple[int, ...]:
    sizes = _integers(size)
    return sizes[0] if len(sizes) == 1 else sizes
