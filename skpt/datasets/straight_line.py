"""Points of a straight line."""

from __future__ import annotations

from math import isfinite
from numbers import Integral, Real

import numpy as np

from skpt.datasets._bunch import hand_out
from skpt.exceptions import InvalidInputError

__all__ = ["make_straight_line"]


def make_straight_line(
    n_samples: int = 50,
    *,
    slope: float = 0.7,
    intercept: float = 0.3,
    start: float = 0.0,
    stop: float = 1.0,
    noise: float = 0.0,
    random_state: int | np.random.Generator | np.random.RandomState | None = None,
    return_X_y: bool = True,
    as_frame: bool = False,
):
    r"""Evenly spaced points of a straight line, with normal noise where wanted (regression).

    The data set on which the course teaches the training loop: one feature, a slope and an intercept that are known, so
    that one sees at once whether a model has learnt them. The points are

    .. math:: x_i = start + i \cdot (stop - start) / n, \quad y_i = slope \cdot x_i + intercept + noise \cdot z_i,

    with `n` for `n_samples`, `i` from 0 to `n - 1` and `z` standard normal. The defaults are the course's 50 points
    ``torch.arange(0, 1, 0.02)``.

    Parameters
    ----------
    n_samples : int, default=50
        Number of points, at least 1.
    slope : float, default=0.7
        Change of y where x grows by one.
    intercept : float, default=0.3
        y where x is 0.
    start : float, default=0.0
        The first x.
    stop : float, default=1.0
        End of the range of x, which is not a point itself. Greater than `start`.
    noise : float, default=0.0
        Standard deviation of the normal noise that is added to y.
    random_state : int, Generator, RandomState or None, default=None
        Where the noise comes from. An int gives the same noise at each call, None another one each time; numpy's global
        generator is not used. Unused where `noise` is 0.
    return_X_y : bool, default=True
        Whether to return ``(X, y)``, as scikit-learn's ``make_*`` functions do, instead of a Bunch.
    as_frame : bool, default=False
        Whether X and y are a DataFrame with the column 'x' and a Series named 'y' instead of arrays.

    Returns
    -------
    X : {ndarray, DataFrame} of shape (n_samples, 1)
        The points' x, ascending, float64.
    y : {ndarray, Series} of shape (n_samples,)
        The points' y, float64.

    data : :class:`~sklearn.utils.Bunch` if `return_X_y` is False
        Dictionary-like object, with `data`, `target`, `frame` (None unless `as_frame` is True), `feature_names`,
        `target_names` and `DESCR`.

    Raises
    ------
    InvalidInputError
        Where a number is not finite or outside its range, or `random_state` is of another kind.

    See Also
    --------
    load_cars : A line through real data.
    sklearn.datasets.make_regression : Random linear problems with many features.

    Examples
    --------
    >>> from skpt.datasets import make_straight_line
    >>> X, y = make_straight_line()
    >>> X_train, X_test, y_train, y_test = X[:40], X[40:], y[:40], y[40:]
    >>> X_train.shape, y_train.shape
    ((40, 1), (40,))
    >>> y[:3]
    array([0.3  , 0.314, 0.328])
    """
    if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
        raise _wrong(
            "n_samples", "an int in the range [1, inf)", n_samples, "Give the number of points, for example 50."
        )
    for name, value in {"slope": slope, "intercept": intercept, "start": start, "stop": stop, "noise": noise}.items():
        if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value):
            raise _wrong(name, "a finite number", value, "Give a float, for example 0.5.")
    if noise < 0:
        raise _wrong("noise", "in the range [0, inf)", noise, "Give the standard deviation, for example 0.1.")
    if not start < stop:
        raise _wrong("stop", f"greater than start={start}", stop, f"Give a greater one, for example {start + 1}.")

    X = np.linspace(start, stop, n_samples, endpoint=False, dtype=np.float64).reshape(-1, 1)
    y = float(slope) * X[:, 0] + float(intercept)
    if noise:
        y += _generator(random_state).normal(scale=noise, size=n_samples)
    return hand_out(
        X,
        y,
        feature_names=["x"],
        target_name="y",
        return_X_y=return_X_y,
        as_frame=as_frame,
        DESCR=(
            f"Straight line: {n_samples} evenly spaced points of y = {slope} x + {intercept}, x in [{start}, {stop}), "
            f"with normal noise of standard deviation {noise}.\n"
        ),
    )


def _generator(random_state) -> np.random.Generator | np.random.RandomState:
    """Return a generator of the caller's own; never numpy's global one, which scikit-learn takes for None."""
    if isinstance(random_state, np.random.Generator | np.random.RandomState):
        return random_state
    if random_state is None or (isinstance(random_state, Integral) and random_state >= 0):
        return np.random.default_rng(random_state)
    raise _wrong(
        "random_state", "an int in the range [0, inf), a Generator, a RandomState or None", random_state, "Give an int."
    )


def _wrong(name: str, rule: str, received: object, remedy: str) -> InvalidInputError:
    return InvalidInputError(
        f"The {name!r} parameter of make_straight_line must be {rule}. Got {received!r} instead. {remedy}"
    )
