"""make_straight_line: the course's points, the line, the noise."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skpt.datasets import make_straight_line
from skpt.exceptions import InvalidInputError

FLOAT32_STEP = 2**-24  # half the distance of float32 numbers below 2: what one rounding can cost


def test_default_is_the_courses_line():
    X, y = make_straight_line()
    course_X = torch.arange(0, 1, 0.02).unsqueeze(1)
    course_y = 0.7 * course_X + 0.3
    assert X.shape == tuple(course_X.shape) == (50, 1)
    np.testing.assert_allclose(X, course_X.numpy(), rtol=0, atol=FLOAT32_STEP)
    np.testing.assert_allclose(y, course_y[:, 0].numpy(), rtol=0, atol=2 * FLOAT32_STEP)


finite = st.floats(-1e3, 1e3)


@given(n_samples=st.integers(1, 200), slope=finite, intercept=finite, start=finite, width=st.floats(1e-3, 1e3))
def test_points_are_evenly_spaced_on_the_line(n_samples, slope, intercept, start, width):
    stop = start + width
    X, y = make_straight_line(n_samples, slope=slope, intercept=intercept, start=start, stop=stop)
    assert X.shape == (n_samples, 1) and y.shape == (n_samples,)
    assert X.dtype == y.dtype == np.float64
    assert X[0, 0] == start and X[-1, 0] < stop
    np.testing.assert_allclose(np.diff(X[:, 0]), (stop - start) / n_samples, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(y, slope * X[:, 0] + intercept, rtol=1e-12)


def test_noise_is_normal_around_the_line():
    n_samples, noise = 40_000, 0.5
    X, y = make_straight_line(n_samples, noise=noise, random_state=0)
    residual = (y - (0.7 * X[:, 0] + 0.3)) / noise
    # Moments of a standard normal, within four standard errors.
    assert abs(residual.mean()) < 4 / np.sqrt(n_samples)
    assert abs(residual.var() - 1) < 4 * np.sqrt(2 / n_samples)
    assert abs((residual**4).mean() - 3) < 4 * np.sqrt(96 / n_samples)


@pytest.mark.usefixtures("global_generators_untouched")
def test_random_state_fixes_the_noise():
    def noisy(random_state):
        return make_straight_line(noise=1.0, random_state=random_state)[1]

    np.testing.assert_array_equal(noisy(3), noisy(3))
    np.testing.assert_array_equal(noisy(3), noisy(np.int64(3)))
    np.testing.assert_array_equal(noisy(3), noisy(np.random.default_rng(3)))
    np.testing.assert_array_equal(noisy(np.random.RandomState(3)), noisy(np.random.RandomState(3)))
    assert (noisy(3) != noisy(4)).all()
    assert (noisy(None) != noisy(None)).all()
    generator = np.random.default_rng(3)
    assert (noisy(generator) != noisy(generator)).all()


def test_as_frame_gives_named_pandas_objects():
    X, y = make_straight_line(as_frame=True)
    assert isinstance(X, pd.DataFrame) and list(X.columns) == ["x"]
    assert isinstance(y, pd.Series) and y.name == "y"
    expected_X, expected_y = make_straight_line()
    np.testing.assert_array_equal(X, expected_X)
    np.testing.assert_array_equal(y, expected_y)


@pytest.mark.parametrize("as_frame", [False, True])
def test_bunch_instead_of_a_pair(as_frame):
    X, y = make_straight_line(7, noise=0.1, random_state=1)
    line = make_straight_line(7, noise=0.1, random_state=1, return_X_y=False, as_frame=as_frame)
    np.testing.assert_array_equal(line.data, X)
    np.testing.assert_array_equal(line.target, y)
    assert line.feature_names == ["x"] and line.target_names == ["y"]
    assert (line.frame is not None) == as_frame
    assert "7 evenly spaced points of y = 0.7 x + 0.3" in line.DESCR


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("n_samples", 0, "must be an int in the range [1, inf)"),
        ("n_samples", 2.5, "must be an int in the range [1, inf)"),
        ("n_samples", True, "must be an int in the range [1, inf)"),
        ("slope", np.nan, "must be a finite number"),
        ("intercept", "0.3", "must be a finite number"),
        ("start", -np.inf, "must be a finite number"),
        ("start", False, "must be a finite number"),
        ("noise", -0.1, "must be in the range [0, inf)"),
        ("stop", 0.0, "must be greater than start=0.0"),
        ("random_state", -1, "must be an int in the range [0, inf), a Generator"),
        ("random_state", "seed", "must be an int in the range [0, inf), a Generator"),
    ],
)
def test_numbers_that_cannot_be_used_are_named(name, value, rule):
    arguments = {"noise": 1.0, name: value}
    message = f"The {name!r} parameter of make_straight_line {rule}"
    with pytest.raises(InvalidInputError, match=re.escape(message)) as error:
        make_straight_line(**arguments)
    assert f"Got {value!r} instead." in str(error.value)
