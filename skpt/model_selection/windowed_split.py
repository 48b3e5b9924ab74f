"""Folds of windows by time, in which no window reaches from training into testing."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral

import numpy as np
from sklearn.model_selection import BaseCrossValidator

from skpt.exceptions import InvalidInputError

__all__ = ["WindowedTimeSeriesSplit"]


class WindowedTimeSeriesSplit(BaseCrossValidator):
    r"""Train on the past and test on what follows, for windows of one series.

    scikit-learn's ``TimeSeriesSplit`` counts samples. Where samples are windows that overlap, as `make_windows` cuts
    them, the last training windows hold rows, and even targets, of the first test windows, and the score is too good. This
    splitter knows which rows of the series a window touches, and leaves out those that cross the split.

    Test sets are consecutive windows, of equal number, at the end of the series, one after the other; each is tested by a
    model that was trained on what lies before it. In every fold

    .. math:: \max_{\text{train}} (\text{row touched}) < \\min_{\text{test}} (\text{row touched}),

    where a window touches its inputs and its targets (what lies between them by `offset` included). With
    ``share_history=True`` the right side counts the targets of the test windows alone.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 1.
    length : int
        Rows in a window, as given to `make_windows`; likewise the next three.
    horizon : int or None, default=1
        Rows of a window's targets. None or 0 where the windows have none, or a target that was not cut from the series.
    stride : int, default=1
        Rows from the start of one window to the start of the next.
    offset : int, default=0
        Rows between a window and its targets.
    share_history : bool, default=False
        Whether the inputs of test windows may reach back into the rows that were trained on. That is no leak: a forecast
        is made from the past, which may have been trained on; and fewer windows are left out. False keeps training and
        testing apart. Unused where there is no horizon.
    test_size : int, default=None
        Windows in each test set. None takes ``n_windows // (n_splits + 1)``.
    max_train_size : int, default=None
        The most windows in a training set; the last ones are kept. None takes all.
    gap : int, default=0
        Windows left out between training and testing besides those that cross.

    Raises
    ------
    InvalidInputError
        If a number is out of its range; by `split` if there are not enough windows.

    See Also
    --------
    skpt.datasets.make_windows : Cuts the windows.
    sklearn.model_selection.TimeSeriesSplit : The same for samples that do not overlap.

    Examples
    --------
    >>> import numpy as np
    >>> from skpt.datasets import make_windows
    >>> from skpt.model_selection import WindowedTimeSeriesSplit
    >>> X, y = make_windows(np.arange(20.0), length=3, horizon=1)
    >>> for train, test in WindowedTimeSeriesSplit(2, length=3, horizon=1).split(X):
    ...     print("rows", X[train].min(), "to", y[train].max(), "| rows", X[test].min(), "to", y[test].max())
    rows 0.0 to 6.0 | rows 7.0 to 14.0
    rows 0.0 to 11.0 | rows 12.0 to 19.0

    It goes wherever scikit-learn takes ``cv``:

    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV
    >>> cv = WindowedTimeSeriesSplit(2, length=3, horizon=1)
    >>> search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=cv).fit(X[:, :, 0], y)
    >>> search.best_params_
    {'alpha': 0.1}
    """

    def __init__(
        self,
        n_splits: int = 5,
        *,
        length: int,
        horizon: int | None = 1,
        stride: int = 1,
        offset: int = 0,
        share_history: bool = False,
        test_size: int | None = None,
        max_train_size: int | None = None,
        gap: int = 0,
    ):
        self.n_splits = _whole_number("n_splits", n_splits, 1)
        self.length = _whole_number("length", length, 1)
        self.horizon = horizon if horizon is None else _whole_number("horizon", horizon, 0)
        self.stride = _whole_number("stride", stride, 1)
        self.offset = _whole_number("offset", offset, 0)
        self.share_history = share_history
        self.test_size = test_size if test_size is None else _whole_number("test_size", test_size, 1)
        self.max_train_size = max_train_size if max_train_size is None else _whole_number("max_train_size", max_train_size, 1)
        self.gap = _whole_number("gap", gap, 0)

    def get_n_splits(self, X=None, y=None, groups=None) -> int:
        """Give the number of folds.

        Parameters
        ----------
        X, y, groups : object, default=None
            Unused.

        Returns
        -------
        int
            `n_splits`.
        """
        return self.n_splits

    def split(self, X, y=None, groups=None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give the windows of each fold.

        Parameters
        ----------
        X : array-like of shape (n_windows, ...)
            The windows, in the order of time, all of one series. Only their number is looked at.
        y, groups : object, default=None
            Unused.

        Yields
        ------
        train, test : ndarray of int
            Numbers of windows, ascending.

        Raises
        ------
        InvalidInputError
            If a fold would have no window to train on.
        """
        n_windows = X.shape[0] if hasattr(X, "shape") else len(X)
        test_size = self.test_size or n_windows // (self.n_splits + 1)
        left_out = self._crossing() + self.gap
        first = n_windows - self.n_splits * test_size
        if test_size < 1 or first - left_out < 1:
            raise InvalidInputError(
                f"{type(self).__name__} needs more windows: the first of n_splits={self.n_splits} folds has none to train on. "
                f"Got {n_windows} windows, of which each fold tests {test_size} and leaves out {left_out} that cross the split "
                "or are in the gap. Give a longer series, fewer splits, or test_size."
            )
        windows = np.arange(n_windows)
        for start in range(first, n_windows, test_size):
            train = windows[: start - left_out]
            yield train[-self.max_train_size :] if self.max_train_size else train, windows[start : start + test_size]

    def _crossing(self) -> int:
        """Count the windows before a test set that touch what is the test set's own."""
        horizon = self.horizon or 0
        last = self.length - 1 + (self.offset + horizon if horizon else 0)  # row touched, from a window's start
        own = self.length + self.offset if self.share_history and horizon else 0  # first row that is the test window's own
        # The k-th window before the first of the test set crosses where last - k * stride >= own.
        return max(0, (last - own) // self.stride)


def _whole_number(name: str, value, at_least: int) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool) and value >= at_least:
        return int(value)
    raise InvalidInputError(
        f"The {name!r} parameter of WindowedTimeSeriesSplit must be an int in the range [{at_least}, inf). Got {value!r} "
        "instead."
    )
