"""Sequences of unequal length as one array, padded with NaN at their ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skpt.exceptions import InvalidInputError

__all__ = ["check_padding", "is_list_of_sequences", "is_ragged", "pad_sequences"]


def is_ragged(X) -> bool:
    """Say whether X is a list of sequences, or an array of objects that are sequences, rather than a table.

    Parameters
    ----------
    X : object
        What the user gave.

    Returns
    -------
    bool
        True for arrays of shape (n_timesteps, n_features), and for arrays of shape (n_timesteps,) of unequal length.
    """
    if isinstance(X, np.ndarray):
        if X.dtype != object or X.ndim != 1:
            return False
    elif not isinstance(X, (list, tuple)):
        return False
    if not len(X) or any(isinstance(x, str) or not hasattr(x, "__len__") for x in X):
        return False
    return any(len(x) != len(X[0]) for x in X) or np.ndim(X[0]) == 2


def is_list_of_sequences(X) -> bool:
    """Say whether whoever reads sequences reads X as one after the other, whatever their lengths.

    Parameters
    ----------
    X : object
        What the user gave.

    Returns
    -------
    bool
        True where `is_ragged` is, and for arrays of shape (n_timesteps,) that happen to be of equal length. A list of lists
        of equal length is a table.
    """
    if isinstance(X, np.ndarray):
        is_list = X.dtype == object and X.ndim == 1
    else:
        is_list = isinstance(X, (list, tuple)) and all(hasattr(x, "dtype") for x in X)
    return (is_list and len(X) > 0 and all(np.ndim(x) == 1 for x in X)) or is_ragged(X)


def pad_sequences(X: Sequence) -> np.ndarray:
    """Put sequences of unequal length into one array, with NaN after the end of each.

    Parameters
    ----------
    X : sequence of array-like of shape (n_timesteps, n_features) or (n_timesteps,)
        The sequences; the number of features is the same in all.

    Returns
    -------
    ndarray of shape (n_samples, longest n_timesteps, n_features)
        float32 if all are float32, float64 otherwise. Sequences of shape (n_timesteps,) have one feature.

    Raises
    ------
    InvalidInputError
        If a sequence is empty, or has other features than the first.

    Examples
    --------
    >>> from skpt.training.sequences import pad_sequences
    >>> pad_sequences([[1.0, 2.0, 3.0], [4.0]])[:, :, 0]
    array([[ 1.,  2.,  3.],
           [ 4., nan, nan]])
    """
    arrays = [np.asarray(x) for x in X]
    for i, x in enumerate(arrays):
        if x.dtype.kind not in "biuf" or x.ndim not in (1, 2) or x.shape[1:] != arrays[0].shape[1:] or not x.size:
            raise InvalidInputError(
                "Each sequence in X must hold numbers, of shape (n_timesteps,) or (n_timesteps, n_features), with at least one "
                f"step and the features of the first, whose shape is {arrays[0].shape}. Got {x.dtype} of shape {x.shape} as "
                f"sequence {i}."
            )
    dtype = np.float32 if all(x.dtype == np.float32 for x in arrays) else np.float64
    n_features = arrays[0].shape[1] if arrays[0].ndim == 2 else 1
    padded = np.full((len(arrays), max(map(len, arrays)), n_features), np.nan, dtype=dtype)
    for row, x in zip(padded, arrays, strict=True):
        row[: len(x)] = x.reshape(len(x), n_features)
    return padded


def check_padding(X: np.ndarray) -> None:
    """Raise unless NaN stands for whole steps after the end of a sequence, and nowhere else.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_timesteps, n_features)
        The sequences.

    Raises
    ------
    InvalidInputError
        If a number is missing within a sequence, or a sequence has no step.
    """
    is_missing = np.isnan(X)
    if not is_missing.any():
        return
    is_padding = is_missing.all(axis=2)
    ends_early = (is_padding[:, :-1] & ~is_padding[:, 1:]).any(axis=1)
    wrong = (is_missing.any(axis=2) != is_padding).any(axis=1) | is_padding[:, 0] | ends_early
    if wrong.any():
        raise InvalidInputError(
            "Input X contains NaN. NaN is taken for padding where all features of the last steps of a sequence are NaN; got "
            f"NaN elsewhere in sequence {int(wrong.argmax())}. Fill in what is missing, for example by SimpleImputer or by "
            "pandas' interpolate, or leave such sequences out."
        )
