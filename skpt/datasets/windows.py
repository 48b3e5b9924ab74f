"""Windows of a time series, as views of it."""

from __future__ import annotations

from numbers import Integral

import numpy as np
from pandas.api.types import is_numeric_dtype

from skpt.exceptions import InvalidInputError, nearest_name

__all__ = ["make_windows"]


def make_windows(
    series,
    length: int,
    horizon: int | None = 1,
    stride: int = 1,
    *,
    target=None,
    offset: int = 0,
    return_index: bool = False,
):
    """Cut a time series into windows and what follows each of them, without copying it.

    A network for sequences learns from many short pieces of one long series: the last 96 values go in, the next 4 come
    out. Window `i` holds the rows ``i * stride`` to ``i * stride + length - 1``; its targets are the `horizon` rows that
    follow, after `offset` rows between them. Windows overlap where `stride` is less than `length`, and all of them are
    read-only views of the one series: a million of them take no memory of their own.

    Parameters
    ----------
    series : array-like, Series or DataFrame of shape (n_timesteps,) or (n_timesteps, n_features)
        Numbers of any kind, in the order of time, at even distances. The index of pandas objects is no feature.
    length : int
        Rows in a window, at least 1.
    horizon : int or None, default=1
        Rows to forecast, at least 1. None or 0 gives windows alone.
    stride : int, default=1
        Rows from the start of one window to the start of the next, at least 1.
    target : str, int or list of those, default=None
        Columns to forecast: names of a DataFrame's, numbers of an array's. They stay features as well: what is known of
        them is in the window. None takes all columns. Unused where `horizon` is None or 0.
    offset : int, default=0
        Rows between the end of a window and the first row of its targets, at least 0.
    return_index : bool, default=False
        Whether to return also the time of each window.

    Returns
    -------
    X : ndarray of shape (n_windows, length, n_features)
        The windows, read-only views of the series in its own dtype. ``n_features`` is 1 for a series of one dimension.
    y : ndarray of shape (n_windows, horizon) or (n_windows, horizon, n_outputs)
        The targets, read-only views too; two dimensions where the series has one or `target` is a single column. Only if
        there is a horizon. A list as `target` whose columns are not evenly spaced is copied, once: (n_timesteps,
        n_outputs).
    index : Index or ndarray of shape (n_windows,)
        The time of each window's first target, or of its last row where there is no horizon: from the index of a pandas
        object, row numbers otherwise. Only if `return_index` is True.

    Raises
    ------
    InvalidInputError
        If a number is out of its range, a column is not there, the series holds no numbers or is shorter than one window
        and its targets.

    See Also
    --------
    skpt.model_selection.WindowedTimeSeriesSplit : Folds in which no window reaches from training into testing.

    Notes
    -----
    There are ``(n_timesteps - length - offset - horizon) // stride + 1`` windows. Estimators of skpt train on such views
    without copying them whole; most others make a copy, `length` times as large as the series. A DataFrame whose columns
    differ in dtype is copied once, because it has no array of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from skpt.datasets import make_windows
    >>> series = np.arange(10)
    >>> X, y = make_windows(series, length=4, horizon=2, stride=2)
    >>> X[:, :, 0]
    array([[0, 1, 2, 3],
           [2, 3, 4, 5],
           [4, 5, 6, 7]])
    >>> y
    array([[4, 5],
           [6, 7],
           [8, 9]])
    >>> np.shares_memory(X, series)
    True
    """
    length = _whole_number("length", length, at_least=1)
    horizon = 0 if horizon is None else _whole_number("horizon", horizon, at_least=0)
    stride = _whole_number("stride", stride, at_least=1)
    offset = _whole_number("offset", offset, at_least=0)
    values = _numbers(series)
    reach = length + (offset + horizon if horizon else 0)
    if len(values) < reach:
        raise InvalidInputError(
            f"make_windows needs at least {reach} rows for one window (length={length}"
            + (f", offset={offset}, horizon={horizon}" if horizon else "")
            + f"). Got a series of {len(values)}. Give a longer series or shorter windows."
        )
    n_windows = (len(values) - reach) // stride + 1

    def views(columns: np.ndarray, first: int, n_rows: int) -> np.ndarray:
        """Pieces of `n_rows` rows, the first of them at row `first`: (n_windows, n_rows, ...)."""
        pieces = np.lib.stride_tricks.sliding_window_view(columns[first:], n_rows, axis=0)[::stride][:n_windows]
        return np.moveaxis(pieces, -1, 1)

    result = [views(values.reshape(len(values), -1), 0, length)]
    if horizon:
        result.append(views(_target_columns(values, series, target), length + offset, horizon))
    if return_index:
        times = getattr(series, "index", None)
        times = np.arange(len(values)) if times is None or callable(times) else times
        result.append(times[length + offset if horizon else length - 1 :][::stride][:n_windows])
    return result[0] if len(result) == 1 else tuple(result)


def _numbers(series) -> np.ndarray:
    """Give the series as an array of one or two dimensions that shares its memory where it can."""
    values = series.to_numpy() if hasattr(series, "to_numpy") else np.asarray(series)
    if values.dtype == object and all(map(is_numeric_dtype, np.ravel(getattr(series, "dtypes", object)))):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)  # pandas' own dtypes, whose numbers may be missing
    if values.ndim not in (1, 2) or 0 in values.shape[1:]:
        raise InvalidInputError(
            "make_windows needs a series of shape (n_timesteps,) or (n_timesteps, n_features). Got an array of shape "
            f"{values.shape}. Give the rows of time along the first axis."
        )
    if values.dtype.kind not in "biuf":
        raise InvalidInputError(
            f"make_windows needs numbers. Got a {type(series).__name__} of dtype {values.dtype}. Encode or leave out the "
            "columns that hold anything else; dates belong into the index."
        )
    return values


def _target_columns(values: np.ndarray, series, target) -> np.ndarray:
    """Give the columns to forecast: one dimension for a single one."""
    if target is None:
        return values
    names = list(series.columns) if hasattr(series, "columns") else list(range(values.reshape(len(values), -1).shape[1]))
    wanted = list(target) if isinstance(target, (list, tuple, np.ndarray)) else [target]
    negative = not hasattr(series, "columns")
    numbers = []
    for name in wanted:
        if name in names:
            numbers.append(names.index(name))
        elif negative and isinstance(name, Integral) and -len(names) <= name < 0:
            numbers.append(len(names) + int(name))
        else:
            hint = nearest_name(name, [n for n in names if isinstance(n, str)]) if isinstance(name, str) else ""
            hint = hint if hasattr(series, "columns") else f" Its columns are 0 to {len(names) - 1}."
            raise InvalidInputError(f"The 'target' parameter of make_windows names {name!r}, which is no column.{hint}")
    if not numbers:
        raise InvalidInputError(
            "The 'target' parameter of make_windows must name at least one column. Got an empty list. Give None for all "
            "columns, or horizon=None for windows alone."
        )
    table = values.reshape(len(values), -1)
    if not isinstance(target, (list, tuple, np.ndarray)):
        return table[:, numbers[0]]
    steps = set(np.diff(numbers).tolist())
    if len(steps) > 1 or 0 in steps:
        return table[:, numbers]
    step = steps.pop() if steps else 1
    stop = numbers[-1] + step
    return table[:, numbers[0] : stop if stop >= 0 else None : step]


def _whole_number(name: str, value, at_least: int) -> int:
    if isinstance(value, Integral) and not isinstance(value, bool) and value >= at_least:
        return int(value)
    raise InvalidInputError(
        f"The {name!r} parameter of make_windows must be an int in the range [{at_least}, inf). Got {value!r} instead. It "
        "counts rows of the series."
    )
