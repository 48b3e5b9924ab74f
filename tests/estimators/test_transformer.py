"""Transformer estimators: sequences of unequal length, positions, and what attention can and a sum cannot."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from skpt import TransformerClassifier, TransformerRegressor
from skpt.exceptions import InvalidInputError

QUICK = {"d_model": 8, "n_heads": 2, "num_layers": 1, "dim_feedforward": 16, "max_epochs": 3, "lr": 0.01, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::skpt.exceptions.NotConvergedWarning")


def ragged(n_samples: int = 40, n_features: int = 2, longest: int = 9):
    random = np.random.default_rng(0)
    X = [random.standard_normal((n, n_features)) for n in random.integers(3, longest + 1, n_samples)]
    return X, np.array([x[:, 0].mean() for x in X])


def padded(X: list[np.ndarray], n_timesteps: int) -> np.ndarray:
    return np.stack([np.pad(x, ((0, n_timesteps - len(x)), (0, 0)), constant_values=np.nan) for x in X])


@pytest.mark.parametrize("pooling", ["mean", "class_token", "last"])
def test_a_list_of_sequences_is_what_padding_makes_of_it(pooling):
    X, y = ragged()
    net = TransformerRegressor(**QUICK, pooling=pooling).fit(X, y)
    same = TransformerRegressor(**QUICK, pooling=pooling).fit(padded(X, 9), y)
    longer = TransformerRegressor(**QUICK, pooling=pooling).fit(padded(X, 20), y)
    np.testing.assert_array_equal(net.predict(X), same.predict(X))
    np.testing.assert_allclose(net.predict(X), longer.predict(X), rtol=1e-4, atol=1e-5)
    each = np.concatenate([net.predict(x[None]) for x in X])
    np.testing.assert_allclose(net.predict(X), each, rtol=1e-6, atol=1e-6)


def test_features_are_standardised_by_real_steps():
    X, y = ragged()
    net = TransformerRegressor(**QUICK).fit(X, y)
    steps = np.concatenate(X)
    np.testing.assert_allclose(net.scaler_.mean.ravel(), steps.mean(axis=0))
    np.testing.assert_allclose(net.scaler_.scale.ravel(), steps.std(axis=0))


def test_learnt_positions_end_where_training_ended():
    X, y = ragged()
    net = TransformerRegressor(**QUICK, positional_encoding="learned").fit(X, y)
    assert net.module_.position.weight.shape == (9, 8)
    whole = net.predict(padded(X[:3], 9))
    np.testing.assert_allclose([net.predict(x[None])[0] for x in X[:3]], whole, rtol=1e-6, err_msg="shorter ones")
    with pytest.raises(InvalidInputError, match=r"X has sequences of 12 steps, but the longest that .* was fitted with has 9"):
        net.predict(padded(X[:3], 12))
    assert TransformerRegressor(**QUICK).fit(X, y).predict(padded(X[:3], 12)).shape == (3,)


def test_heads_must_divide_the_width():
    X, y = ragged()
    with pytest.raises(InvalidInputError, match=r"'n_heads' parameter .* must divide d_model=8\. Got 3"):
        TransformerRegressor(**{**QUICK, "n_heads": 3}).fit(X, y)


def test_it_learns_which_step_to_look_at():
    """The value of the marked step: no sum over the steps holds it, attention finds it."""
    random = np.random.default_rng(0)
    X = np.zeros((500, 10, 2))
    X[..., 0] = random.standard_normal((500, 10))
    marked = random.integers(0, 10, 500)
    X[np.arange(500), marked, 1] = 1.0
    y = X[np.arange(500), marked, 0]
    net = TransformerRegressor(pooling="class_token", dropout=0.0, max_epochs=15, lr=0.005, random_state=0)
    assert net.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.9


def test_every_parameter_can_be_searched_over():
    X, y = ragged()
    grid = {
        "pooling": ["mean", "class_token"],
        "positional_encoding": ["learned", None],
        "norm_first": [True, False],
    }
    search = GridSearchCV(TransformerClassifier(**QUICK), grid, cv=2, error_score="raise").fit(padded(X, 9), y > 0)
    assert set(search.best_params_) == set(grid)
    module = search.best_estimator_.module_
    assert hasattr(module, "class_token") == (search.best_params_["pooling"] == "class_token")
