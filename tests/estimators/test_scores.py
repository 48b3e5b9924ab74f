"""The defaults: within 0.01 of scikit-learn's counterparts on scaled features."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier as SklearnMLPClassifier
from sklearn.neural_network import MLPRegressor as SklearnMLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skpt import LinearClassifier, LinearRegressor, MLPClassifier, MLPRegressor


def california_like():
    """Skewed, collinear features, a few extreme rows, a nonlinear target with a ceiling: as a census gives them."""
    rng = np.random.default_rng(0)
    n = 2000
    income = rng.lognormal(1.2, 0.5, n)
    rooms = rng.lognormal(1.6, 0.4, n)
    bedrooms = 0.2 * rooms + rng.normal(0, 0.05, n)
    people = rng.lognormal(7, 0.8, n)
    latitude = rng.choice([34.0, 37.5], n) + rng.normal(0, 0.6, n)
    longitude = -85 - latitude + rng.normal(0, 0.5, n)
    price = 0.45 * income - 0.1 * rooms + 0.8 * bedrooms - 0.3 * np.abs(latitude - 35.5) + rng.normal(0, 0.4, n)
    return np.c_[income, rooms, bedrooms, people, latitude, longitude], np.clip(price, None, 4.5)


REGRESSION = {"diabetes": lambda: load_diabetes(return_X_y=True), "california-like": california_like}
CLASSIFICATION = {
    f.__name__.removeprefix("load_"): (lambda f=f: f(return_X_y=True))
    for f in (load_iris, load_wine, load_breast_cancer, load_digits)
}


def mean_score(estimator, X, y, cv):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return cross_val_score(make_pipeline(StandardScaler(), estimator), X, y, cv=cv, error_score="raise").mean()


@pytest.mark.parametrize("name", REGRESSION)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(LinearRegressor, LinearRegression()), (MLPRegressor, SklearnMLPRegressor(random_state=0))],
    ids=["linear", "mlp"],
)
@pytest.mark.slow
def test_regressors(name, ours, theirs):
    X, y = REGRESSION[name]()
    cv = KFold(5, shuffle=True, random_state=0)
    score, reference = mean_score(ours(random_state=0), X, y, cv), mean_score(theirs, X, y, cv)
    assert score > reference - 0.01, f"R2 {score:.4f} against {reference:.4f}"


@pytest.mark.parametrize("name", CLASSIFICATION)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(LinearClassifier, LogisticRegression(max_iter=1000)), (MLPClassifier, SklearnMLPClassifier(random_state=0))],
    ids=["linear", "mlp"],
)
@pytest.mark.slow
def test_classifiers(name, ours, theirs):
    X, y = CLASSIFICATION[name]()
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    score, reference = mean_score(ours(random_state=0), X, y, cv), mean_score(theirs, X, y, cv)
    assert score > reference - 0.01, f"accuracy {score:.4f} against {reference:.4f}"
