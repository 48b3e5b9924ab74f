"""Which rows are the same, and which are held out: decided by their content, not by their place or number.

A fit with integer sample weights must equal a fit with repeated rows. So equal rows are never split between training and
validation, and where one batch holds all rows, equal rows become one row of their summed weight, in an order that does
not depend on how they came.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from skpt.training.fields import Fields

__all__ = ["equal_rows", "hold_out", "merge_equal_rows"]

# Rows that are mixed at a time, and the most numbers that these may have, 8 MB; it takes some ten times as much.
_ROWS_AT_ONCE = 1024
_NUMBERS_AT_ONCE = 1 << 20


def equal_rows(X, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find rows with the same X and y.

    Parameters
    ----------
    X : ndarray, CSR matrix, RowSource or Fields of shape (n_samples, ...)
        The inputs.
    y : ndarray or Fields of shape (n_samples, ...)
        The targets.

    Returns
    -------
    first : ndarray of int
        One row of each kind, in an order given by content alone.
    kind : ndarray of int, shape (n_samples,)
        The position in `first` of each row's kind.
    """
    if _is_small(X) and _is_small(y):  # the candidates of a search have the same rows in each fold
        key = X.shape, X.dtype, X.tobytes(), y.shape, y.dtype, y.tobytes()
        if (found := _FOUND.get(key)) is None:
            if len(_FOUND) >= _MOST_FOUND:
                _FOUND.clear()
            found = _FOUND[key] = _equal_rows(X, y)
            for numbers in found:
                numbers.setflags(write=False)
        return found
    return _equal_rows(X, y)


# The equal rows of small arrays, by their content.
_FOUND: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}
_MOST_FOUND = 64
_SMALL = 1 << 14  # bytes


def _is_small(a) -> bool:
    return type(a) is np.ndarray and a.nbytes <= _SMALL and a.dtype != object


def _equal_rows(X, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keys = np.concatenate([_row_bytes(y), _row_hashes(X).view(np.uint8)], axis=1)
    rows = np.ascontiguousarray(keys).view(np.dtype((np.void, keys.shape[1]))).ravel()
    _, first, kind = np.unique(rows, return_index=True, return_inverse=True)
    return first, kind


def _row_hashes(X) -> np.ndarray:
    """Hashes of the rows, (n_samples, 2): the same for equal numbers, dense or sparse, of any dtype.

    Each number is mixed with a salt of its column. Whole numbers add up to the same in any order, and a zero adds nothing.
    """
    n_samples = X.shape[0]
    if isinstance(X, Fields):
        # The same numbers in another field are another row.
        return sum((_mix(_row_hashes(part) + np.uint64(i)) for i, (_, part) in enumerate(X.items())), np.uint64(0))
    n_numbers = math.prod(X.shape[1:])
    salt, zero = _salts(n_numbers) if n_numbers <= 4096 else _salts.__wrapped__(n_numbers)
    if sparse.issparse(X):
        X = X.tocsr()
        if not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        numbers, salt, zero = X.data, salt[X.indices], zero[X.indices]
        totals = np.zeros((len(numbers) + 1, 2), dtype=np.uint64)
        np.cumsum(_mixed(numbers, salt, zero), axis=0, out=totals[1:])
        return totals[X.indptr[1:]] - totals[X.indptr[:-1]]
    hashes = np.empty((n_samples, 2), dtype=np.uint64)
    n_rows = max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // max(1, len(salt))))
    for start in range(0, n_samples, n_rows):
        part = slice(start, start + n_rows)
        some = X[part]
        if isinstance(some, Fields):  # of a source
            hashes[part] = _row_hashes(some)
        else:
            hashes[part] = _mixed(some.reshape(len(hashes[part]), -1), salt, zero).sum(axis=1)
    return hashes


@lru_cache(maxsize=64)
def _salts(n_numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """Give the salt of each column, and what it makes of a zero."""
    salt = np.random.default_rng(0).integers(2**64, size=n_numbers, dtype=np.uint64)
    return salt, _mix(salt)


def _mixed(numbers: np.ndarray, salt: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Two whole numbers for each number; zeros for zero."""
    bits = (numbers.astype(np.float64) + 0.0).view(np.uint64)  # no negative zero
    mixed = _mix(bits ^ salt)
    return np.stack([mixed - zero, _mix(mixed) - _mix(zero)], axis=-1)


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64: changes half of the bits whatever bit of z changes."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _row_bytes(a: np.ndarray | Fields) -> np.ndarray:
    """The rows of y as bytes; the same for equal numbers of any dtype."""
    if isinstance(a, Fields):
        return np.concatenate([_row_bytes(part) for _, part in a.items()], axis=1)
    a = a.reshape(len(a), -1)
    if a.dtype.kind in "biuf":
        a = a.astype(np.float64) + 0.0  # no negative zero
    elif a.dtype.kind not in "SU":
        known = ~pd.isna(a)
        codes = np.full(a.shape, -1)  # of missing labels, which have no order
        codes[known] = np.unique(a[known], return_inverse=True)[1]
        a = codes
    return np.ascontiguousarray(a).view(np.uint8).reshape(len(a), -1)


def merge_equal_rows(X, y: np.ndarray, weight: np.ndarray | None):
    """Make equal rows one row of their summed weight, in an order given by content alone.

    Parameters
    ----------
    X : ndarray, CSR matrix or Fields of shape (n_samples, ...)
        The inputs.
    y : ndarray or Fields of shape (n_samples, ...)
        The targets.
    weight : ndarray of shape (n_samples,) or None
        Sample weights; None counts as ones.

    Returns
    -------
    X, y, weight
        The same, shorter where rows were equal. `weight` is None where it would be constant.
    """
    first, kind = equal_rows(X, y)
    weight = np.bincount(kind, weights=weight, minlength=len(first))
    return X[first], y[first], None if np.all(weight == weight[0]) else weight


def hold_out(X, y, weight, fraction: float, strata, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Choose the rows that validate.

    Parameters
    ----------
    X, y : array-like
        All rows.
    weight : ndarray of shape (n_samples,) or None
        Sample weights: the fraction is one of the weight.
    fraction : float in (0, 1)
        How much is held out.
    strata : ndarray of shape (n_samples,) or None
        Classes whose shares are kept. Every class with at least two kinds of rows keeps one in training.
    generator : torch.Generator
        Moved by one draw.

    Returns
    -------
    train, valid : ndarray of int
        Row numbers, ascending. Equal rows are on the same side.
    """
    first, kind = equal_rows(X, y)
    weight = np.bincount(kind, weights=weight, minlength=len(first))
    order = torch.randperm(len(first), generator=generator).numpy()
    held = np.zeros(len(first), dtype=bool)
    groups = np.zeros(len(first), dtype=int) if strata is None else strata[first]
    for group in np.unique(groups):
        members = order[groups[order] == group]
        held[members[_lightest_prefix(weight[members], fraction)]] = True
    if not held.any():
        held[order[0]] = True
    valid = held[kind]
    return np.flatnonzero(~valid), np.flatnonzero(valid)


def _lightest_prefix(weight: np.ndarray, fraction: float) -> slice:
    """The prefix whose weight is nearest to the fraction; never all."""
    total = np.cumsum(weight)
    n = int(np.argmin(np.abs(np.concatenate([[0.0], total]) - fraction * total[-1])))
    return slice(0, min(n, len(weight) - 1))
