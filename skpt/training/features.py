"""Features: from the user's numbers, in any dtype, to float32 for a network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import sparse

from skpt.exceptions import InvalidInputError

__all__ = [
    "FeatureScaler",
    "as_bytes",
    "as_numbers",
    "as_tensor",
    "columns_without_numbers",
    "is_plain",
    "size_in_units_of",
    "spread_in_units_of",
    "to_float32",
]


class FeatureScaler:
    """Centres and scales every feature, in double precision, before it becomes float32.

    A sparse matrix is scaled and not centred, so that it stays sparse. A constant feature keeps the scale one.

    Parameters
    ----------
    mean, scale : array-like of shape (n_features,)
        What is taken off and divided by.
    """

    def __init__(self, mean, scale):
        self.mean, self.scale = np.asarray(mean, dtype=np.float64), np.asarray(scale, dtype=np.float64)
        self._on_device: tuple[torch.Tensor, ...] | None = None  # both as a batch takes them; made once

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what lies on a device that another machine may lack."""
        return {**vars(self), "_on_device": None}

    @classmethod
    def from_rows(cls, X, weight: np.ndarray | None) -> FeatureScaler:
        """Learn from the training rows, (n_samples, n_features).

        Raises
        ------
        InvalidInputError
            If the numbers are so large that their squares are not finite.
        """
        share = np.full(X.shape[0], 1.0 / X.shape[0]) if weight is None else weight / weight.sum()
        with np.errstate(over="ignore", invalid="ignore"):
            if sparse.issparse(X):
                mean = np.zeros(X.shape[1])
                centre = share @ X
                var = share @ X.astype(np.float64).power(2) - centre**2
                size = np.abs(centre)
            else:
                # Some rows at a time, in memory or not: the sums are the same, and little is copied.
                parts = _parts(X)
                mean = sum(share[part] @ X[part] for part in parts)
                var = 0.0
                for part in parts:
                    centred = X[part] - mean
                    var = var + share[part] @ np.square(centred, out=centred)
                size = np.abs(mean)
        if not np.isfinite(var).all():
            raise InvalidInputError(_TOO_LARGE)
        return cls(mean, _usable_scale(var, size, X.dtype))

    @classmethod
    def from_places(cls, X: np.ndarray, weight: np.ndarray | None, axis: int) -> FeatureScaler:
        """Learn one mean and one scale for each index of an axis, over rows, pixels and steps; NaN is left out.

        Parameters
        ----------
        X : ndarray of shape (n_samples, ...)
            Numbers; bytes count as parts of 255.
        weight : ndarray of shape (n_samples,) or None
            Weights of the rows.
        axis : int
            The axis of the features or channels.

        Returns
        -------
        FeatureScaler
            With `mean` and `scale` of a shape that goes with the rows of X.

        Raises
        ------
        InvalidInputError
            If the numbers are so large that their squares are not finite.
        """
        others = tuple(i for i in range(X.ndim) if i != axis)
        shape = [1] * (X.ndim - 1)
        shape[axis - 1] = X.shape[axis]
        # A first guess of the mean, of few rows where they do, makes the sums of squares exact enough; one pass is left.
        parts = _parts(X)
        some = X[parts[0]]
        for few in (some[:64], some):
            first = as_numbers(few, np.float64)
            is_known = np.isfinite(first)
            n_known = is_known.sum(axis=others, keepdims=True)
            if n_known.all():
                break
        total = sums = squares = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            guess = first.sum(axis=others, keepdims=True, where=is_known) / np.maximum(n_known, 1)
            for rows in parts:
                part = as_numbers(X[rows], np.float64) - guess
                share = np.ones(len(part)) if weight is None else weight[rows]
                of_part = _sum_of_features(part, share, axis)
                if np.isnan(of_part).any():
                    missing = np.isnan(part)
                    total = total + _sum_of_features((~missing).astype(np.float64), share, axis)
                    part = np.nan_to_num(part, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
                    of_part = _sum_of_features(part, share, axis)
                else:
                    total = total + share.sum() * (part[0].size // X.shape[axis])
                sums = sums + of_part
                squares = squares + _sum_of_features(np.square(part, out=part), share, axis)
            centre = sums / np.maximum(total, np.finfo(np.float64).tiny)
            var = squares / np.maximum(total, np.finfo(np.float64).tiny) - centre**2
        if not np.isfinite(var).all():
            raise InvalidInputError(_TOO_LARGE)
        mean = guess.ravel() + centre
        dtype = X.dtype if X.dtype.kind == "f" else np.float64
        return cls(mean.reshape(shape), _usable_scale(var, np.abs(mean), dtype).reshape(shape))

    def of_batch(self, X: torch.Tensor) -> torch.Tensor:
        """Scale a batch of dense rows where it is, in its own dtype."""
        if self._on_device is None or (self._on_device[0].dtype, self._on_device[0].device) != (X.dtype, X.device):
            self._on_device = tuple(torch.as_tensor(a, dtype=X.dtype, device=X.device) for a in (self.mean, self.scale))
        mean, scale = self._on_device
        return (X - mean) / scale

    def __call__(self, X, dtype=None):
        """Scale rows; dense X is computed with in its own dtype, and keeps it if none is given.

        Raises
        ------
        InvalidInputError
            If a number does not fit `dtype`.
        """
        if sparse.issparse(X):
            return X.multiply(1.0 / self.scale).tocsr()
        mean, scale = self.mean.astype(X.dtype), self.scale.astype(X.dtype)
        if dtype is None or X.dtype == dtype:
            scaled = X - mean
            scaled /= scale
            return scaled
        scaled = np.empty(X.shape, dtype)
        with np.errstate(over="ignore"):
            for part in _parts(X):  # nothing as large as X is made besides
                some = X[part] - mean
                scaled[part] = np.divide(some, scale, out=some)
        _check_finite(scaled)
        return scaled

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}


def size_in_units_of(mean, scale, other_mean, other_scale) -> np.ndarray:
    """Give the root mean square of columns, after another's mean was taken off and its scale divided by.

    Parameters
    ----------
    mean, scale : ndarray
        Of the columns; a scale of exactly one stands for a constant.
    other_mean, other_scale : ndarray
        The other's.

    Returns
    -------
    ndarray
        About one where both are alike.
    """
    spread = np.where(scale == 1.0, 0.0, scale)
    return np.hypot(spread, mean - other_mean) / other_scale


def spread_in_units_of(scale, other_scale) -> np.ndarray:
    """Give the standard deviation of columns in units of another's; one where either is a constant, which has no unit.

    Parameters
    ----------
    scale, other_scale : ndarray
        Of the columns, and the other's; exactly one stands for a constant.

    Returns
    -------
    ndarray
        About one where both are alike.
    """
    return np.where((scale == 1.0) | (other_scale == 1.0), 1.0, scale / other_scale)


def _sum_of_features(part: np.ndarray, share: np.ndarray, axis: int) -> np.ndarray:
    """Sum (n_samples, ...) by shares of the rows over all axes but one."""
    n_features = part.shape[axis]
    if axis == part.ndim - 1:
        n_places = part[0].size // n_features
        return np.repeat(share, n_places) @ part.reshape(-1, n_features)
    return share @ np.moveaxis(part, axis, 1).reshape(len(part), n_features, -1).sum(2)


def _parts(X) -> list[slice]:
    """Divide rows into parts of `_NUMBERS_AT_ONCE`."""
    n_rows = max(1, _NUMBERS_AT_ONCE // max(1, math.prod(X.shape[1:])))
    return [slice(start, start + n_rows) for start in range(0, X.shape[0], n_rows)]


def _usable_scale(var: np.ndarray, size: np.ndarray, dtype) -> np.ndarray:
    """The standard deviation; one where it is no more than rounding of numbers of this size."""
    scale = np.sqrt(np.maximum(var, 0.0))
    # The sums are in double precision: numbers that come in half differ by more than their own rounding.
    eps = min(np.finfo(dtype).eps, np.finfo(np.float32).eps)
    return np.where(scale > 100 * eps * size, scale, 1.0)


def as_bytes(X: np.ndarray, owner: str) -> np.ndarray:
    """Give images to a net that was fitted with bytes: integers as bytes, booleans and numbers within [0, 1] as they are.

    Parameters
    ----------
    X : ndarray
        Finite numbers of any dtype.
    owner : str
        Whose X it is, for messages.

    Returns
    -------
    ndarray
        X itself where there is nothing to change.

    Raises
    ------
    InvalidInputError
        If integers are no bytes, or others are not within [0, 1].
    """
    if X.dtype == np.uint8 or X.dtype.kind == "b" or not X.size:
        return X
    is_whole = X.dtype.kind in "iu"
    least, most, largest = X.min(), X.max(), 255 if is_whole else 1
    if least < 0 or most > largest:
        raise InvalidInputError(
            f"{owner} was fitted with bytes, which it scales to [0, 1]: X must hold uint8, integers in the range [0, 255] or "
            f"floats in the range [0, 1]. Got {X.dtype} from {least:.6g} to {most:.6g}. Pass uint8, or numbers divided by 255."
        )
    return X.astype(np.uint8) if is_whole else X


def as_numbers(X: np.ndarray, dtype, white: int = 255) -> np.ndarray:
    """Give X in a floating dtype; bytes, as of images, become parts of 255.

    Parameters
    ----------
    X : ndarray
        Numbers of any dtype.
    dtype : numpy.dtype
        A floating one.
    white : int, default=255
        What bytes are divided by.

    Returns
    -------
    ndarray
        X itself where it has the dtype.
    """
    numbers = X.astype(dtype, copy=False)
    return numbers / dtype(white) if X.dtype == np.uint8 else numbers


# Numbers that are read in double precision at a time: 1 MB, which stays in the cache.
_NUMBERS_AT_ONCE = 1 << 17

_TOO_LARGE = "Input X contains infinity or a value too large for dtype('float32'). Scale X, or remove such values."


def columns_without_numbers(X) -> list:
    """Name the columns of a DataFrame that cannot be read as numbers: texts, categories, dates.

    Parameters
    ----------
    X : object
        What the user gave.

    Returns
    -------
    list
        Column names; empty where X is no DataFrame.
    """
    if not (hasattr(X, "columns") and hasattr(X, "dtypes")):
        return []

    def holds_numbers(name) -> bool:
        column = np.asarray(X[name])
        try:
            return column.dtype.kind in "biufc" or (column.dtype.kind != "M" and bool(column.astype(np.float64).ndim))
        except (TypeError, ValueError):
            return False

    return [name for name in X.columns if not holds_numbers(name)]


_FLOATS = (np.dtype(np.float64), np.dtype(np.float32))


def is_plain(a, ndim: int, *, integers: bool = False) -> bool:
    """Whether it is an array of finite floating-point numbers, with one at least.

    Parameters
    ----------
    a : object
        What the user gave.
    ndim : int
        Number of dimensions that it must have.
    integers : bool, default=False
        Whether integers and booleans are as good.

    Returns
    -------
    bool
        True if there is nothing to check and nothing to convert.
    """
    if type(a) is not np.ndarray or a.ndim != ndim or not a.size:
        return False
    if a.dtype not in _FLOATS:
        return integers and a.dtype.kind in "biu"
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(a.sum(dtype=np.float64)))


def to_float32(X, *, allow_nan: bool = False):
    """Give X as a float32 tensor, or as a float32 CSR matrix.

    Parameters
    ----------
    X : ndarray or CSR matrix
        Finite numbers of any dtype.
    allow_nan : bool, default=False
        Whether NaN stays NaN.

    Returns
    -------
    Tensor or CSR matrix
        It shares memory with X where X is float32 already; it is never written to.

    Raises
    ------
    InvalidInputError
        If a number does not fit float32.
    """
    if sparse.issparse(X):
        with np.errstate(over="ignore"):
            X = X.tocsr().astype(np.float32)
        _check_finite(X.data)
        return X
    if X.dtype != np.float32:
        with np.errstate(over="ignore"):
            X = X.astype(np.float32)
        _check_finite(np.nan_to_num(X, nan=0.0, posinf=np.inf, neginf=-np.inf) if allow_nan else X)
    return as_tensor(X)


def as_tensor(X: np.ndarray) -> torch.Tensor:
    """Give an array as a tensor of its dtype.

    Parameters
    ----------
    X : ndarray
        Numbers.

    Returns
    -------
    Tensor
        It shares memory with X where X is contiguous and can be written to.
    """
    if not (X.flags.writeable and X.flags.c_contiguous):
        X = np.array(X, order="C")  # torch knows no read-only memory
    return torch.from_numpy(X)


def _check_finite(X: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(X.sum(dtype=np.float64))
    if not finite:
        raise InvalidInputError(_TOO_LARGE)
