"""WindowedTimeSeriesSplit: no window crosses a split, and none is left out without need."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score

from skpt import LinearRegressor
from skpt.datasets import make_windows
from skpt.exceptions import InvalidInputError
from skpt.model_selection import WindowedTimeSeriesSplit

shapes = {
    "length": st.integers(1, 12),
    "horizon": st.integers(0, 5),
    "stride": st.integers(1, 9),
    "offset": st.integers(0, 4),
}


@given(
    n_rows=st.integers(1, 200),
    n_splits=st.integers(1, 5),
    share_history=st.booleans(),
    gap=st.integers(0, 3),
    max_train_size=st.none() | st.integers(1, 10),
    test_size=st.none() | st.integers(1, 10),
    **shapes,
)
def test_no_window_crosses_a_split(n_rows, n_splits, share_history, gap, max_train_size, test_size, **shape):
    """The windows of a series of row numbers say themselves which rows they touch."""
    horizon = shape["horizon"]
    assume(n_rows >= shape["length"] + (shape["offset"] + horizon if horizon else 0))
    made = make_windows(np.arange(n_rows), **shape)
    inputs, targets = made if horizon else (made, np.empty((len(made), 0), dtype=int))
    inputs = inputs[:, :, 0]
    touched = np.concatenate([inputs, targets], axis=1)
    own = targets if share_history and horizon else touched
    cv = WindowedTimeSeriesSplit(
        n_splits, share_history=share_history, gap=gap, max_train_size=max_train_size, test_size=test_size, **shape
    )
    try:
        folds = list(cv.split(inputs))
    except InvalidInputError:
        n_windows, size = len(inputs), test_size or len(inputs) // (n_splits + 1)
        first = n_windows - n_splits * size
        usable = [i for i in range(max(first, 0)) if size and touched[i].max() < own[first].min()]
        assert len(usable) <= gap  # nothing was left to train on
        return
    assert len(folds) == cv.get_n_splits() == n_splits
    tested = np.concatenate([test for _, test in folds])
    np.testing.assert_array_equal(tested, np.arange(len(inputs))[-len(tested) :])
    for train, test in folds:
        assert touched[train].max() < own[test].min()
        fits = [i for i in range(test[0]) if touched[i].max() < own[test].min()]
        fits = fits[: len(fits) - gap] if gap else fits
        np.testing.assert_array_equal(train, fits[-max_train_size:] if max_train_size else fits)
        assert len(test) == (test_size or len(inputs) // (n_splits + 1))


@pytest.mark.parametrize("arguments", [{}, {"test_size": 3}, {"max_train_size": 5}, {"gap": 2}])
def test_samples_that_do_not_overlap_are_split_as_scikit_learn_does(arguments):
    X = np.zeros((31, 1))
    ours = WindowedTimeSeriesSplit(4, length=1, horizon=None, **arguments).split(X)
    for mine, theirs in zip(ours, TimeSeriesSplit(4, **arguments).split(X), strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])
        np.testing.assert_array_equal(mine[1], theirs[1])


def test_history_that_is_shared_spares_windows():
    X, _ = make_windows(np.arange(100), 10, 2)
    apart = next(WindowedTimeSeriesSplit(3, length=10, horizon=2).split(X))[0]
    shared = next(WindowedTimeSeriesSplit(3, length=10, horizon=2, share_history=True).split(X))[0]
    assert len(shared) - len(apart) == 10


def test_leaks_that_scikit_learns_splitter_lets_through_are_stopped():
    """A target that is noise, smoothed over the horizon: only who has seen the test rows can forecast it."""
    noise = np.random.default_rng(0).normal(size=120)
    X, y = make_windows(noise, length=8, horizon=8)
    for cv, leaks in [(TimeSeriesSplit(3), True), (WindowedTimeSeriesSplit(3, length=8, horizon=8), False)]:
        for train, test in cv.split(X):
            seen = np.isin(y[test], np.concatenate([X[train].ravel(), y[train].ravel()]))
            assert seen.any() == leaks


def test_it_is_a_cv_for_scikit_learn():
    X, y = make_windows(np.sin(np.arange(200) / 5), length=6, horizon=2)
    X = X[:, :, 0]
    cv = WindowedTimeSeriesSplit(3, length=6, horizon=2)
    assert repr(cv).startswith("WindowedTimeSeriesSplit(gap=0, horizon=2, length=6")
    scores = cross_val_score(LinearRegressor(max_epochs=1, random_state=0), X, y, cv=cv)
    assert scores.shape == (3,) and np.isfinite(scores).all()
    search = GridSearchCV(Ridge(), {"alpha": [1e-3, 1e3]}, cv=cv).fit(X, y)
    assert search.n_splits_ == 3 and search.best_params_ == {"alpha": 1e-3}
    clone(search)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_splits": 0}, "'n_splits' parameter of WindowedTimeSeriesSplit must be an int in the range [1, inf). Got 0"),
        ({"length": 0}, "'length'"),
        ({"horizon": -1}, "'horizon'"),
        ({"stride": 0.5}, "'stride'"),
        ({"offset": None}, "'offset'"),
        ({"test_size": 0}, "'test_size'"),
        ({"max_train_size": 0}, "'max_train_size'"),
        ({"gap": -1}, "'gap'"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        WindowedTimeSeriesSplit(**{"length": 3, **arguments})


def test_too_few_windows_are_counted():
    X = np.zeros((20, 10, 1))
    with pytest.raises(InvalidInputError, match="Got 20 windows, of which each fold tests 3 and leaves out 10"):
        next(WindowedTimeSeriesSplit(5, length=10, horizon=1).split(X))
