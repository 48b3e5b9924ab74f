"""LossCurveDisplay: the data it holds, and that the picture shows them."""

import sys
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.neural_network import MLPClassifier as ReferenceMLP
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skpt import MLPClassifier
from skpt.exceptions import InvalidInputError
from skpt.inspection import LossCurveDisplay


@pytest.fixture(scope="module")
def moons():
    return make_moons(200, noise=0.3, random_state=0)


def net(**params):
    return MLPClassifier(**{"hidden_layer_sizes": (8,), "max_epochs": 12, "lr": 0.05, "random_state": 0, **params})


def test_lines_are_the_curves_and_the_best_epoch_is_marked(moons):
    fitted = net(early_stopping=True).fit(*moons)
    display = LossCurveDisplay.from_estimator(fitted)
    train, valid = (line.get_ydata() for line in display.lines_)
    np.testing.assert_array_equal(train, fitted.loss_curve_)
    np.testing.assert_array_equal(valid, fitted.validation_curve_)
    marked = display.ax_.lines[-1].get_xydata()
    np.testing.assert_array_equal(marked, [[fitted.best_epoch_, fitted.validation_curve_.min()]])
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == ["training", "validation", f"best epoch: {fitted.best_epoch_}"]
    assert display.ax_.get_ylabel() == "loss (BCEWithLogitsLoss)"


def test_without_validation_there_is_one_line_and_no_mark(moons):
    display = LossCurveDisplay.from_estimator(net().fit(*moons))
    assert display.valid_loss is None and len(display.ax_.lines) == 1


def test_epochs_without_validation_before_those_with_it(moons):
    fitted = net(warm_start=True, max_epochs=3).fit(*moons)
    fitted.fit(*moons, X_val=moons[0][:50], y_val=moons[1][:50])
    display = LossCurveDisplay.from_estimator(fitted)
    np.testing.assert_array_equal(display.lines_[0].get_xdata(), np.arange(1, 7))
    np.testing.assert_array_equal(display.lines_[1].get_xdata(), [4, 5, 6])
    assert display.ax_.lines[-1].get_xdata()[0] == fitted.best_epoch_ > 3


def test_pipelines_and_scikit_learns_mlp_are_drawn_too(moons):
    pipeline = make_pipeline(StandardScaler(), net()).fit(*moons)
    assert len(LossCurveDisplay.from_estimator(pipeline).train_loss) == 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = ReferenceMLP(max_iter=7, random_state=0).fit(*moons)
    assert len(LossCurveDisplay.from_estimator(reference).train_loss) == 7


def test_axes_of_the_caller_are_drawn_on(moons):
    figure, ax = plt.subplots()
    display = LossCurveDisplay.from_estimator(net().fit(*moons), ax=ax)
    assert display.ax_ is ax and display.figure_ is figure


def test_estimator_that_remembers_no_epochs_is_refused(moons, tmp_path):
    net().fit(*moons).save_params(tmp_path / "weights.pt")
    loaded = net()
    loaded.load_params(tmp_path / "weights.pt")
    with pytest.raises(InvalidInputError, match=r"needs an estimator with loss_curve_. This MLPClassifier has none"):
        LossCurveDisplay.from_estimator(loaded)


def test_without_matplotlib_the_error_names_the_extra(moons, monkeypatch):
    fitted = net().fit(*moons)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"LossCurveDisplay.plot needs matplotlib.*skpt\[plot\]"):
        LossCurveDisplay.from_estimator(fitted)
