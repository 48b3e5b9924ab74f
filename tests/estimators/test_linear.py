"""The linear estimators: the course's numbers, closed forms, scikit-learn's shapes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.datasets import load_breast_cancer, load_iris, make_regression
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, QuantileRegressor

from skpt import LinearClassifier, LinearRegressor
from skpt.datasets import load_cars, make_straight_line

# epoch -> mean absolute error on the 40 training points, and on the 10 test points after the epoch
COURSE_LOSSES = {
    0: (0.5551779866218567, 0.5739762187004089),
    50: (0.023886386305093765, 0.04784906655550003),
    100: (0.006215679459273815, 0.014086711220443249),
    120: (0.0012645035749301314, 0.013801807537674904),
}


def course_net(max_epochs):
    return LinearRegressor(
        random_state=42, criterion="l1", optimizer="sgd", lr=0.01, batch_size=-1, shuffle=False, max_epochs=max_epochs
    )


class TestStraightLine:
    def test_starts_where_torch_starts(self):
        X, y = make_straight_line(return_X_y=True)
        net = course_net(1).initialize(X[:40], y[:40])
        assert_allclose([net.coef_[0], net.intercept_], [0.7645, 0.8300], atol=5e-5)

    def test_losses_of_the_course(self):
        X, y = make_straight_line(return_X_y=True)
        net = course_net(121).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
        for epoch, (train, test) in COURSE_LOSSES.items():
            assert_allclose([net.loss_curve_[epoch], net.validation_curve_[epoch]], [train, test], atol=1e-6)

    def test_ends_at_the_line(self):
        X, y = make_straight_line(return_X_y=True)
        net = course_net(1000).fit(X[:40], y[:40])
        assert_allclose([net.coef_[0], net.intercept_], [0.6968, 0.3025], atol=5e-5)


class TestCars:
    EXACT = (-5.344472, 37.285126)

    def test_gradient_descent_reaches_least_squares(self):
        X, y = load_cars(return_X_y=True, features=["wt"])
        exact = LinearRegression().fit(X, y)
        assert_allclose([exact.coef_[0], exact.intercept_], self.EXACT, atol=5e-7)
        plain = LinearRegressor(optimizer="sgd", lr=0.07, max_epochs=4000, batch_size=-1, random_state=0).fit(X, y)
        assert_allclose([plain.coef_[0], plain.intercept_], self.EXACT, rtol=1e-4)

    def test_defaults_reach_least_squares(self):
        X, y = load_cars(return_X_y=True, features=["wt"])
        net = LinearRegressor(random_state=0).fit(X, y)
        assert_allclose([net.coef_[0], net.intercept_], self.EXACT, rtol=1e-3)

    @pytest.mark.parametrize("batch_size", [1, 2, -1])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_batches_of_any_size_come_near(self, batch_size, shuffle):
        X, y = load_cars(return_X_y=True, features=["wt"])
        lr = 0.05 if batch_size == -1 else 0.005
        net = LinearRegressor(
            optimizer="sgd", lr=lr, max_epochs=2000, batch_size=batch_size, shuffle=shuffle, random_state=0
        ).fit(X, y)
        assert net.score(X, y) == pytest.approx(LinearRegression().fit(X, y).score(X, y), abs=0.02)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_default_finds_the_exact_solution_in_any_unit(scale, offset):
    X, y = make_regression(n_samples=300, n_features=5, noise=5.0, random_state=0)
    X, y = X * [1, 10, 100, 1e3, 1e-3] + offset * np.array([0, 1, 0, 1, 0]), (y + offset) * scale
    # Not scikit-learn's LinearRegression here: its tol drops features that are small beside others.
    Z = (X - X.mean(0)) / X.std(0)
    exact = np.linalg.lstsq(Z, y - y.mean(), rcond=None)[0]
    net = LinearRegressor(random_state=0).fit(X, y)
    assert_allclose(net.predict(X), Z @ exact + y.mean(), atol=2e-3 * y.std())
    assert_allclose(net.coef_ * X.std(0), exact, atol=2e-3 * y.std())


def test_prediction_is_the_linear_function_of_coef_and_intercept():
    X, y = make_regression(n_samples=100, n_features=4, n_targets=2, noise=1.0, random_state=0)
    for y_ in (y, y[:, 0]):
        net = LinearRegressor(batch_norm=True, standardize_target=True, max_epochs=5, random_state=0).fit(X, y_)
        assert_allclose(net.predict(X), X @ net.coef_.T + net.intercept_, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_batch_normalisation_converges_at_ordinary_rates(momentum):
    """A gain before the weights would be redundant with them, and both would run away."""
    X, y = make_regression(200, 10, noise=10, random_state=0)
    net = LinearRegressor(batch_norm=True, optimizer="sgd", optimizer__momentum=momentum, lr=0.01, random_state=0)
    assert net.fit(X, y).score(X, y) > 0.98
    assert_allclose(net.coef_, LinearRegression().fit(X, y).coef_, atol=0.1 * np.abs(net.coef_).max())


def test_shapes_are_those_of_scikit_learn():
    X, y = make_regression(n_samples=60, n_features=3, n_targets=2, random_state=0)
    for y_ in (y, y[:, 0], y[:, :1]):
        net, peer = LinearRegressor(max_epochs=2, random_state=0).fit(X, y_), LinearRegression().fit(X, y_)
        assert net.coef_.shape == peer.coef_.shape
        assert np.shape(net.intercept_) == np.shape(peer.intercept_)
    for load in (load_iris, load_breast_cancer):
        X, y = load(return_X_y=True)
        for criterion in ("auto", "cross_entropy"):
            net = LinearClassifier(criterion=criterion, max_epochs=2, random_state=0).fit(X, y)
            peer = LogisticRegression(max_iter=1000).fit(X / X.max(0), y)
            assert net.coef_.shape == peer.coef_.shape
            assert net.intercept_.shape == peer.intercept_.shape


def test_log_odds_are_the_linear_function():
    X, y = load_breast_cancer(return_X_y=True)
    net = LinearClassifier(max_epochs=20, random_state=0).fit(X, y)
    assert_allclose(net.decision_function(X), X @ net.coef_[0] + net.intercept_[0], rtol=1e-9, atol=1e-9)
    assert_allclose(net.predict_proba(X)[:, 1], 1 / (1 + np.exp(-net.decision_function(X))), rtol=1e-12)


def test_penalised_logistic_regression_agrees_with_scikit_learn():
    """Both minimise the mean log loss plus alpha / 2 of the squared weights; scikit-learn spares the intercept."""
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    alpha = 0.1
    peer = LogisticRegression(C=1 / (alpha * len(X)), max_iter=5000, tol=1e-10, fit_intercept=False).fit(X, y)
    net = LinearClassifier(
        optimizer="lbfgs",
        lr=1.0,
        max_epochs=30,
        batch_size=-1,
        fit_intercept=False,
        random_state=0,
        optimizer__line_search_fn="strong_wolfe",
    )
    net.get_loss = penalised(net, alpha)
    net.fit(X, y)
    assert_allclose(net.coef_, peer.coef_, atol=2e-3)


def penalised(net, alpha):
    plain = type(net).get_loss

    def get_loss(y_pred, y_true, X=None, training=False):
        return plain(net, y_pred, y_true) + alpha / 2 * net.module_.output.weight.square().sum()

    return get_loss


def test_l1_is_median_regression():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2))
    y = X @ [2.0, -1.0] + rng.standard_t(1.5, 200)
    peer = QuantileRegressor(alpha=0).fit(X, y)
    net = LinearRegressor(criterion="l1", max_epochs=500, random_state=0).fit(X, y)
    assert_allclose(net.coef_, peer.coef_, atol=0.05)


def test_poisson_has_a_logarithmic_link():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 2))
    y = rng.poisson(np.exp(X @ [0.5, -0.3] + 1.0))
    net = LinearRegressor(criterion="poisson_nll", max_epochs=50, random_state=0).fit(X, y)
    assert_allclose([*net.coef_, net.intercept_], [0.5, -0.3, 1.0], atol=0.05)
    peer = PoissonRegressor(alpha=0).fit(X, y)
    assert_allclose(net.predict(X), peer.predict(X), rtol=0.05)
