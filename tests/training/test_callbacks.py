"""RecordCoefficients: what it writes is what the estimator had, epoch by epoch."""

import json

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, make_regression

from skpt import LinearClassifier, LinearRegressor, MLPRegressor
from skpt.datasets import load_cars
from skpt.exceptions import InvalidInputError
from skpt.training import RecordCoefficients


def recorded(net, X, y):
    return clone(net).set_params(callbacks=[RecordCoefficients()]).fit(X, y)


@pytest.mark.parametrize(
    ("net", "data"),
    [
        (LinearRegressor(max_epochs=4, optimizer="adam", random_state=0), load_cars(return_X_y=True)),
        (LinearRegressor(max_epochs=4, optimizer="adam", random_state=0, batch_norm=True), load_cars(return_X_y=True)),
        (LinearRegressor(max_epochs=4, optimizer="adam", random_state=0), make_regression(60, 3, n_targets=2, random_state=0)),
        (LinearClassifier(max_epochs=4, optimizer="adam", random_state=0), load_iris(return_X_y=True)),
    ],
)
def test_record_of_an_epoch_is_what_so_many_epochs_give(net, data):
    history = recorded(net, *data).history
    for n_epochs in (1, 2, 4):
        shorter = clone(net).set_params(max_epochs=n_epochs).fit(*data)
        np.testing.assert_allclose(history[n_epochs - 1, "coef"], shorter.coef_, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(history[n_epochs - 1, "intercept"], shorter.intercept_, rtol=1e-4, atol=1e-6)


def test_record_is_plain_json(tmp_path):
    net = recorded(LinearRegressor(max_epochs=2, random_state=0), *load_cars(return_X_y=True))
    net.history.to_file(tmp_path / "history.json")
    rows = json.loads((tmp_path / "history.json").read_text("utf-8"))
    assert [row["coef"] for row in rows] == net.history[:, "coef"]
    assert [row["intercept"] for row in rows] == net.history[:, "intercept"]


def test_slope_and_intercept_of_the_cars_arrive_at_least_squares():
    net = recorded(LinearRegressor(random_state=0), *load_cars(features=["wt"], return_X_y=True))
    assert net.history[-1, "coef"] == pytest.approx([-5.344472], rel=1e-3)
    assert net.history[-1, "intercept"] == pytest.approx(37.285126, rel=1e-3)


def test_printed_table_has_one_slope_and_no_row_of_many(capsys):
    net = LinearRegressor(max_epochs=2, verbose=1, random_state=0)
    recorded(net, *load_cars(features=["wt"], return_X_y=True))
    assert "coef" in capsys.readouterr().out
    recorded(net, *load_cars(return_X_y=True))
    out = capsys.readouterr().out
    assert "coef" not in out and "intercept" in out


def test_estimator_without_coefficients_is_refused():
    with pytest.raises(InvalidInputError, match=r"needs an estimator with coef_ and intercept_. Got MLPRegressor"):
        recorded(MLPRegressor(max_epochs=2), *load_cars(return_X_y=True))
