"""CoefficientPathDisplay: the data it holds, and that the picture shows them."""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_iris, make_regression
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skpt import LinearClassifier, LinearRegressor
from skpt.datasets import load_cars
from skpt.exceptions import InvalidInputError
from skpt.inspection import CoefficientPathDisplay
from skpt.training import RecordCoefficients


def net(estimator=LinearRegressor, **params):
    return estimator(max_epochs=5, random_state=0, callbacks=[RecordCoefficients()], **params)


@pytest.fixture
def cars():
    return load_cars(features=["wt", "hp"], return_X_y=True, as_frame=True)


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def dashed(ax):
    return [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--" and len(line.get_ydata())]


def test_lines_are_the_recorded_numbers(cars):
    fitted = net().fit(*cars)
    display = CoefficientPathDisplay.from_estimator(fitted)
    assert display.coef.shape == (5, 2) and display.intercept.shape == (5,)
    np.testing.assert_array_equal(display.coef[-1], fitted.coef_)
    np.testing.assert_array_equal(display.epochs, np.arange(1, 6))
    paths = [line.get_ydata() for line in display.lines_]
    np.testing.assert_array_equal(paths, [*display.coef.T, display.intercept])
    above, below = display.axes_
    assert labels(above) == ["wt", "hp"] and below.get_xlabel() == "epoch"
    assert dashed(above) == dashed(below) == []


@pytest.mark.parametrize("as_pair", [False, True])
def test_exact_values_are_dashed_lines(cars, as_pair):
    exact = LinearRegression().fit(*cars)
    given = (exact.coef_, exact.intercept_) if as_pair else exact
    display = CoefficientPathDisplay.from_estimator(net().fit(*cars), exact=given)
    above, below = display.axes_
    assert dashed(above) == pytest.approx(exact.coef_)
    assert dashed(below) == pytest.approx([37.227270], abs=1e-5)
    assert labels(above) == ["wt", "hp", "exact"]


def test_one_slope_takes_a_number(cars):
    X, y = cars
    display = CoefficientPathDisplay.from_estimator(net().fit(X[["wt"]], y), exact=(-5.344472, 37.285126))
    assert dashed(display.axes_[0]) == [-5.344472]


def test_several_outputs_and_classes_are_named():
    X, y = make_regression(40, 3, n_targets=2, random_state=0)
    display = CoefficientPathDisplay.from_estimator(net().fit(X, y), exact=LinearRegression().fit(X, y))
    assert display.coef.shape == (5, 2, 3) and len(display.lines_) == 8
    assert labels(display.axes_[0])[:4] == [*(f"output 0: feature {i}" for i in range(3)), "output 1: feature 0"]
    X, y = load_iris(return_X_y=True)
    display = CoefficientPathDisplay.from_estimator(net(LinearClassifier).fit(X, np.array(["a", "b", "c"])[y]))
    assert labels(display.axes_[1]) == ["a", "b", "c"]
    assert labels(display.axes_[0])[-1] == "others" and len(labels(display.axes_[0])) == 11


def test_pipelines_and_searches_show_what_is_in_them(cars):
    search = GridSearchCV(make_pipeline(StandardScaler(), net()), {"linearregressor__lr": [0.01, 0.02]}, cv=2).fit(*cars)
    display = CoefficientPathDisplay.from_estimator(search)
    np.testing.assert_array_equal(display.coef[-1], search.best_estimator_[-1].coef_)


def test_axes_of_the_caller_are_drawn_on(cars):
    fitted = net().fit(*cars)
    figure, ax = plt.subplots()
    display = CoefficientPathDisplay.from_estimator(fitted, ax=ax)
    assert list(display.axes_) == [ax] and display.figure_ is figure and len(display.lines_) == 3
    _, pair = plt.subplots(1, 2)
    assert list(display.plot(pair).axes_) == list(pair)


@pytest.mark.parametrize(
    ("exact", "complaint"),
    [
        (([1.0, 2.0, 3.0], 0.0), r"coefficients of shape \(2,\), as the estimator has. Got shape \(3,\)"),
        (([1.0, 2.0], [0.0, 1.0]), r"intercepts of shape \(\)"),
    ],
)
def test_exact_values_of_another_shape_are_refused(cars, exact, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        CoefficientPathDisplay.from_estimator(net().fit(*cars), exact=exact)


def test_without_a_record_the_error_says_how_to_get_one(cars):
    with pytest.raises(InvalidInputError, match=r"callbacks=\[RecordCoefficients\(\)\]"):
        CoefficientPathDisplay.from_estimator(LinearRegressor(max_epochs=2).fit(*cars))
    with pytest.raises(InvalidInputError, match="LinearRegression has no record"):
        CoefficientPathDisplay.from_estimator(LinearRegression().fit(*cars))
    with pytest.raises(NotFittedError):
        CoefficientPathDisplay.from_estimator(net())


def test_without_matplotlib_the_error_names_the_extra(cars, monkeypatch):
    fitted = net().fit(*cars)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"CoefficientPathDisplay.plot needs matplotlib.*skpt\[plot\]"):
        CoefficientPathDisplay.from_estimator(fitted)
