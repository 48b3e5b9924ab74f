"""Features: from the user's numbers, in any dtype, to float32 for a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse

from skpt.exceptions import InvalidInputError

__all__ = ["FeatureScaler", "columns_without_numbers", "to_float32"]


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
                mean = share @ X
                centred = X - mean
                var = share @ np.square(centred, out=centred)
                size = np.abs(mean)
        if not np.isfinite(var).all():
            raise InvalidInputError(_TOO_LARGE)
        scale = np.sqrt(np.maximum(var, 0.0))
        return cls(mean, np.where(scale > 100 * np.finfo(X.dtype).eps * size, scale, 1.0))

    def __call__(self, X):
        """Scale rows; float32 for dense X."""
        if sparse.issparse(X):
            return X.multiply(1.0 / self.scale).tocsr()
        scaled = X - self.mean.astype(X.dtype)
        scaled /= self.scale.astype(X.dtype)
        return scaled

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}


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


def to_float32(X):
    """Give X as a float32 tensor, or as a float32 CSR matrix.

    Parameters
    ----------
    X : ndarray or CSR matrix
        Finite numbers of any dtype.

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
        _check_finite(X)
    if not (X.flags.writeable and X.flags.c_contiguous):
        X = np.array(X, order="C")  # torch knows no read-only memory
    return torch.from_numpy(X)


def _check_finite(X: np.ndarray) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(X.sum(dtype=np.float64))
    if not finite:
        raise InvalidInputError(_TOO_LARGE)
