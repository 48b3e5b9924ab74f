"""make_windows: the obvious loop, no copy, the columns to forecast, the times."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skpt.datasets import make_windows
from skpt.exceptions import InvalidInputError
from tests.discovery import ROOT


def memory_beneath(a):
    """The array that a view is of; numpy's strided views have a holder of it in between, which is no array."""
    while getattr(a, "base", None) is not None:
        a = a.base
    return a


@given(
    n_rows=st.integers(1, 60),
    n_features=st.integers(0, 3),
    length=st.integers(1, 12),
    horizon=st.integers(0, 5),
    stride=st.integers(1, 9),
    offset=st.integers(0, 4),
)
def test_windows_are_those_of_the_obvious_loop(n_rows, n_features, length, horizon, stride, offset):
    shape = (n_rows, n_features) if n_features else (n_rows,)
    series = np.arange(np.prod(shape)).reshape(shape)
    reach = length + (offset + horizon if horizon else 0)
    if reach > n_rows:
        with pytest.raises(InvalidInputError, match=rf"at least {reach} rows .* Got a series of {n_rows}\."):
            make_windows(series, length, horizon, stride, offset=offset)
        return
    starts = range(0, n_rows - reach + 1, stride)
    inputs = np.stack([series[i : i + length].reshape(length, -1) for i in starts])
    targets = np.stack([series[i + length + offset : i + length + offset + horizon] for i in starts])
    if not horizon:
        np.testing.assert_array_equal(make_windows(series, length, horizon, stride, offset=offset), inputs)
        return
    X, y, index = make_windows(series, length, horizon, stride, offset=offset, return_index=True)
    np.testing.assert_array_equal(X, inputs)
    np.testing.assert_array_equal(y, targets)
    np.testing.assert_array_equal(index, [i + length + offset for i in starts])
    assert X.dtype == y.dtype == series.dtype


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int16, bool])
@pytest.mark.parametrize("shape", [(50,), (50, 3)])
def test_windows_and_targets_are_views(dtype, shape):
    series = np.ones(shape, dtype=dtype)
    for part in make_windows(series, length=8, horizon=3, stride=2):
        assert memory_beneath(part) is series
        assert np.shares_memory(part, series)
        assert not part.flags.writeable  # windows overlap: a change of one would change others


def test_a_frame_of_one_dtype_and_its_columns_are_not_copied():
    frame = pd.DataFrame(np.arange(60.0).reshape(20, 3), columns=["load", "wind", "sun"])
    for target in [None, "wind", ["load"], ["load", "sun"], ["sun", "load"]]:
        X, y = make_windows(frame, length=4, target=target)
        assert np.shares_memory(X, frame.to_numpy()) and np.shares_memory(y, frame.to_numpy())
        columns = list(frame.columns) if target is None else target
        np.testing.assert_array_equal(y[:, 0], frame[columns].to_numpy()[4:])


def test_a_memory_map_stays_one(tmp_path):
    series = np.memmap(tmp_path / "series", dtype=np.float32, mode="w+", shape=(100, 2))
    X, y = make_windows(series, length=10)
    assert np.shares_memory(X, series) and np.shares_memory(y, series)


@pytest.mark.parametrize(
    ("target", "columns"),
    [
        (None, [0, 1, 2]),
        (1, 1),
        (-1, 2),
        ([0], [0]),
        ([0, 2], [0, 2]),
        ([2, 0], [2, 0]),
        ([2, 1, 0], [2, 1, 0]),
        ((0, 2, 1), [0, 2, 1]),
    ],
)
def test_target_chooses_columns(target, columns):
    series = np.arange(30.0).reshape(10, 3)
    X, y = make_windows(series, length=2, horizon=2, target=target)
    assert X.shape == (7, 2, 3)
    np.testing.assert_array_equal(y, np.stack([series[i + 2 : i + 4, columns] for i in range(7)]))


def test_the_only_column_of_a_flat_series_can_be_named():
    series = np.arange(6)
    np.testing.assert_array_equal(make_windows(series, 2, target=0)[1], make_windows(series, 2)[1])


@pytest.mark.parametrize("container", [pd.Series, lambda values, index: pd.DataFrame({"load": values}, index=index)])
def test_times_come_from_the_index(container):
    times = pd.date_range("2024-01-01", periods=20, freq="15min")
    series = container(np.arange(20.0), index=times)
    X, y, index = make_windows(series, length=4, horizon=2, stride=3, offset=1, return_index=True)
    assert isinstance(index, pd.DatetimeIndex)
    assert list(index) == [times[int(first)] for first in y.reshape(len(y), -1)[:, 0]]
    X, index = make_windows(series, length=4, horizon=None, return_index=True)
    assert list(index) == [times[int(last)] for last in X[:, -1, 0]]


def test_lists_are_taken():
    X, y = make_windows([1, 2, 3, 4], 2)
    np.testing.assert_array_equal(X[:, :, 0], [[1, 2], [2, 3]])
    np.testing.assert_array_equal(y, [[3], [4]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "'length' parameter of make_windows must be an int in the range [1, inf). Got 0"),
        ({"length": 2.0}, "Got 2.0"),
        ({"length": True}, "Got True"),
        ({"stride": 0}, "'stride'"),
        ({"horizon": -1}, "'horizon' parameter of make_windows must be an int in the range [0, inf)"),
        ({"offset": -1}, "'offset'"),
        ({"length": 9, "horizon": 2}, "at least 11 rows for one window (length=9, offset=0, horizon=2). Got a series of 10."),
        ({"length": 11, "horizon": None}, "at least 11 rows for one window (length=11). Got"),
        ({"target": 2}, "names 2, which is no column. Its columns are 0 to 1."),
        ({"target": -3}, "names -3"),
        ({"target": "load"}, "names 'load'"),
        ({"target": []}, "at least one column"),
        ({"series": np.zeros((4, 2, 2))}, "of shape (4, 2, 2)"),
        ({"series": np.zeros((10, 0))}, "of shape (10, 0)"),
        ({"series": np.array(["a"] * 10)}, "make_windows needs numbers. Got a ndarray of dtype <U1"),
        ({"series": pd.DataFrame({"a": range(10), "b": "x"})}, "Got a DataFrame of dtype object"),
        ({"series": pd.DataFrame({"load": range(10)}), "target": "laod"}, "'laod', which is no column. Did you mean 'load'?"),
    ],
)
def test_what_cannot_be_used_is_said(arguments, message):
    arguments = {"series": np.zeros((10, 2)), "length": 2, **arguments}
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        make_windows(**arguments)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; ru_maxrss begins with the parent's in a child")
def test_four_years_of_quarter_hours_take_the_memory_of_the_series():
    """140,256 rows of 20 columns are 22 MB; their windows of 96 would be 2.1 GB."""
    program = (
        "import re, numpy as np; from skpt.datasets import make_windows\n"
        "def peak(): return 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "make_windows(np.ones((200, 20)), 96)\n"
        "before = peak(); series = np.ones((4 * 365 * 96 + 96, 20)); X, y = make_windows(series, 96, 4)\n"
        "assert X.shape == (140157, 96, 20) and y.shape == (140157, 4, 20)\n"
        "print((peak() - before) / series.nbytes)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.5 < float(run.stdout) <= 1.2


def test_pandas_own_numbers_are_numbers():
    frame = pd.DataFrame({"a": [0.5, 1.5, None, 3.0], "b": [1, 2, 3, 4], "c": [True, False, True, True]})
    expected = make_windows(frame.astype(float), 2, horizon=None)
    for like in (frame, frame.convert_dtypes(), frame.astype({"b": "Int64"})):
        np.testing.assert_array_equal(make_windows(like, 2, horizon=None), expected)
    series = frame["b"].convert_dtypes()
    np.testing.assert_array_equal(make_windows(series, 2, horizon=None)[:, :, 0], [[1, 2], [2, 3], [3, 4]])
    for like in (frame["b"].astype(str), frame.astype({"b": str}), frame.assign(b=pd.Timestamp("2020-01-01"))):
        with pytest.raises(InvalidInputError, match="make_windows needs numbers"):
            make_windows(like, 2)
