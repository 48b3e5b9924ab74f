"""A fit gives the same whatever it was trained with: scores, weights, classes, best parameters.

Bit by bit where every model's part of every tensor starts at a multiple of 64 bytes and fills whole vector registers: then
the matrix library and torch's loops compute it in company as they compute it alone. Elsewhere they may round the last bit
differently, and 1e-5 is promised.
"""

from contextlib import suppress
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, cross_validate

from skpt import LinearClassifier, LinearRegressor, MLPClassifier, MLPRegressor
from skpt.exceptions import DivergedError
from skpt.modules.layers import ACTIVATIONS, FeedForward
from tests.configurations import CONFIGURATIONS, make_data
from tests.fusion.comparison import assert_same_nets, assert_same_results, fit_alone_and_fused, fused

pytestmark = pytest.mark.filterwarnings("ignore::skpt.exceptions.NotConvergedWarning")

BIT_EQUAL, LAST_BIT = 0.0, 1e-5

OPTIMIZERS = {
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "optimizer__momentum": 0.9},
    "dampened": {"optimizer": "sgd", "optimizer__momentum": 0.9, "optimizer__dampening": 0.2},
    "nesterov": {"optimizer": "sgd", "optimizer__momentum": 0.9, "optimizer__nesterov": True},
    "adam": {"optimizer": "adam", "optimizer__betas": (0.8, 0.99)},
    "adamw": {"optimizer": "adamw"},
    "rmsprop": {"optimizer": "rmsprop"},
    "rmsprop_centered": {"optimizer": "rmsprop", "optimizer__centered": True, "optimizer__momentum": 0.5},
    "adagrad": {"optimizer": "adagrad", "optimizer__lr_decay": 0.1},
}
SCHEDULES = ["cosine", "plateau", "one_cycle", "step", "exponential", "linear"]
REGRESSION = ["mse", "l1", "huber", "smooth_l1", "poisson_nll"]
CLASSIFICATION = ["cross_entropy", "bce", "multi_margin", "multilabel_soft_margin"]
QUICK = {"lr": 0.01, "max_epochs": 3, "random_state": 0}
EARLY = {"early_stopping": True, "n_iter_no_change": 2, "max_epochs": 9}

CASES = {
    **{f"activation-{name}": (MLPRegressor, {"activation": name}) for name in ACTIVATIONS if name != "logistic"},
    **{f"optimizer-{name}": (MLPRegressor, settings) for name, settings in OPTIMIZERS.items()},
    **{f"schedule-{name}": (MLPRegressor, {"lr_schedule": name}) for name in SCHEDULES},
    **{f"criterion-{name}": (MLPRegressor, {"criterion": name}) for name in REGRESSION},
    **{f"criterion-{name}": (MLPClassifier, {"criterion": name}) for name in CLASSIFICATION},
    "label_smoothing": (MLPClassifier, {"criterion": "cross_entropy", "criterion__label_smoothing": 0.1}),
    "huber_delta": (MLPRegressor, {"criterion": "huber", "criterion__delta": 0.3}),
    "batch_norm": (MLPRegressor, {"batch_norm": True}),
    "dropout": (MLPRegressor, {"dropout": 0.3}),
    "batch_norm-dropout-full_batch": (MLPRegressor, {"batch_norm": True, "dropout": 0.3, "batch_size": -1}),
    "batch_of_one": (MLPRegressor, {"batch_size": 1, "max_epochs": 2}),
    "full_batch": (LinearRegressor, {"batch_size": -1}),
    "in_order": (MLPRegressor, {"shuffle": False}),
    "max_grad_norm": (MLPRegressor, {"max_grad_norm": 0.3}),
    "class_weight": (MLPClassifier, {"class_weight": "balanced"}),
    "class_weight-batch_norm": (MLPClassifier, {"class_weight": "balanced", "batch_norm": True}),
    "early_stopping": (MLPRegressor, EARLY),
    "early_stopping-batch_norm-plateau": (MLPClassifier, {**EARLY, "batch_norm": True, "lr_schedule": "plateau"}),
    "raw_features": (MLPRegressor, {"standardize_features": False, "standardize_target": False}),
    "linear_regressor": (LinearRegressor, {}),
    "linear_classifier": (LinearClassifier, {}),
}


# Features, hidden layers, rows in a batch, rows; and how equal fits of these sizes are.
SIZES = {"round": (32, (32, 32), 32, 64, BIT_EQUAL), "odd": (5, (7, 3), 9, 44, LAST_BIT)}


def sized_data(estimator: type, n_samples: int, n_features: int):
    X, y = make_data(estimator, n_samples)
    further = np.random.default_rng(1).standard_normal((n_samples, n_features - X.shape[1]))
    return np.column_stack([X, further]), y


def fits_of(estimator: type, parameters: dict, sizes: str):
    """Six fits of different seeds, learning rates, decays, lengths, rows and numbers of rows; every other with weights."""
    n_features, hidden_layer_sizes, batch_size, n_samples, _ = SIZES[sizes]
    X, y = sized_data(estimator, n_samples, n_features)
    if parameters.get("criterion") == "poisson_nll":
        y = np.exp(0.1 * y)
    if issubclass(estimator, (MLPRegressor, MLPClassifier)):
        parameters = {"hidden_layer_sizes": hidden_layer_sizes, **parameters}
    parameters = {**QUICK, "batch_size": batch_size, **parameters}

    def fit(i: int):
        net = estimator(**parameters).set_params(
            random_state=i // 2,
            lr=0.01 * (i + 1),
            weight_decay=[0.0, 0.01, 0.1][i % 3],
            max_epochs=parameters["max_epochs"] + i % 2,
        )
        rows = slice(0 if net.batch_size == 1 else i, None)  # else their numbers of steps differ
        return net.fit(X[rows], y[rows], np.linspace(0.5, 2.0, len(X[rows])) if i % 2 else None)

    return lambda: [partial(fit, i) for i in range(6)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_one_stack_gives_what_fits_alone_give(name, sizes):
    estimator, parameters = CASES[name]
    alone, together, report = fit_alone_and_fused(fits_of(estimator, parameters, sizes), inner_max_num_threads=1)
    assert report.n_jobs == 6
    assert not report.not_fused
    assert max(group.n_models for group in report.groups) >= 4, report
    assert_same_nets(alone, together, tolerance=SIZES[sizes][-1])


def test_training_goes_on_alone_as_it_would_have():
    """What is not in the weights: state of the optimizer, generators of order and dropout."""
    make = fits_of(MLPRegressor, {"dropout": 0.3, "batch_norm": True}, "round")
    alone, together, _ = fit_alone_and_fused(make, inner_max_num_threads=1)
    X, y = sized_data(MLPRegressor, 64, 32)
    for nets in (alone, together):
        for net in nets:
            net.partial_fit(X, y)
    assert_same_nets(alone, together)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_cross_validation_of_the_common_list(configuration):
    X, y = make_data(configuration.estimator, 50)
    estimator = configuration.make()
    estimator.set_params(max_epochs=min(10, estimator.max_epochs))

    def work():
        return cross_validate(estimator, X, y, cv=3, return_estimator=True, error_score="raise")

    alone = work()
    together, report = fused(work)
    assert report.n_jobs + report.not_fused.total() == 3
    assert bool(report.not_fused) is not issubclass(estimator.module, FeedForward), report
    assert_same_nets(alone["estimator"], together["estimator"], tolerance=LAST_BIT)
    assert_same_results(alone, together, tolerance=LAST_BIT)
    for one, other in zip(alone["estimator"], together["estimator"], strict=True):
        if is_classifier(estimator):
            np.testing.assert_array_equal(one.predict(X), other.predict(X))
        else:
            np.testing.assert_allclose(one.predict(X), other.predict(X), rtol=LAST_BIT, atol=LAST_BIT)


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (LinearRegressor, {"lr": [0.02, 0.1], "max_epochs": [2, 5], "weight_decay": [0.0, 0.1]}),
        (MLPRegressor, {"hidden_layer_sizes": [(4,), (3, 2)], "optimizer": ["sgd", "adam"], "random_state": [0, 1]}),
        (MLPRegressor, {"activation": ["relu", "leaky_relu"], "dropout": [0.0, 0.2], "batch_norm": [False, True]}),
        (MLPClassifier, {"lr": [0.01, 0.1], "class_weight": [None, "balanced"], "early_stopping": [False, True]}),
        (LinearClassifier, {"lr": [0.01, 0.1], "lr_schedule": [None, "cosine"], "batch_size": [8, -1]}),
    ],
)
def test_grid_search(estimator, grid):
    X, y = make_data(estimator, 48)
    small = {"hidden_layer_sizes": (4,)} if "MLP" in estimator.__name__ else {}
    search = GridSearchCV(estimator(**QUICK, **small), grid, cv=3, error_score="raise", return_train_score=True)
    alone = clone(search).fit(X, y)
    together, _ = fused(lambda: clone(search).fit(X, y))
    assert_same_results(alone.cv_results_, together.cv_results_, tolerance=LAST_BIT)
    assert alone.best_params_ == together.best_params_
    assert alone.best_index_ == together.best_index_
    assert_same_nets(alone.best_estimator_, together.best_estimator_, tolerance=LAST_BIT)
    if is_classifier(alone):
        np.testing.assert_array_equal(alone.predict(X), together.predict(X))


def test_several_metrics_and_several_outputs():
    X, y = make_data(MLPRegressor, 48)
    Y = np.column_stack([y, y**2])
    search = GridSearchCV(
        MLPRegressor((4,), **QUICK), {"lr": [0.01, 0.1]}, cv=3, scoring=["r2", "neg_mean_absolute_error"], refit="r2"
    )
    alone, (together, _) = clone(search).fit(X, Y), fused(lambda: clone(search).fit(X, Y))
    assert_same_results(alone.cv_results_, together.cv_results_, tolerance=LAST_BIT)
    assert_same_nets(alone.best_estimator_, together.best_estimator_, tolerance=LAST_BIT)


def test_several_labels_per_row():
    X, _ = make_data(MLPClassifier, 48)
    Y = (X[:, :3] > 0).astype(int)
    alone, together, report = fit_alone_and_fused(
        lambda: [lambda seed=seed: MLPClassifier((4,), max_epochs=3, random_state=seed).fit(X, Y) for seed in range(4)]
    )
    assert max(group.n_models for group in report.groups) >= 2
    assert_same_nets(alone, together, tolerance=LAST_BIT)


def test_wide_stacks():
    """Layers as wide as real ones, where matrix products use other kernels than for tiny ones."""
    X = np.random.default_rng(0).standard_normal((300, 64))
    y = np.digitize(X[:, 0], [-1, 0, 1])

    def fits():
        return [
            lambda seed=seed: MLPClassifier((100, 50), max_epochs=2, batch_size=32, random_state=seed).fit(X[seed:], y[seed:])
            for seed in range(9)
        ]

    alone, together, _ = fit_alone_and_fused(fits, inner_max_num_threads=1)
    assert_same_nets(alone, together, tolerance=LAST_BIT)


# What all models of a drawn group have in common, and what each has of its own.
shared = st.fixed_dictionaries(
    {
        "hidden_layer_sizes": st.sampled_from([(), (1,), (6,), (5, 3)]),
        "activation": st.sampled_from(["relu", "leaky_relu", "identity", "softsign"]),
        "batch_norm": st.booleans(),
        "batch_size": st.sampled_from([1, 5, 16, -1]),
        "max_grad_norm": st.sampled_from([None, 0.5]),
    }
)
own = st.fixed_dictionaries(
    {
        "lr": st.floats(1e-4, 0.1),
        "weight_decay": st.sampled_from([0.0, 1e-3, 0.1]),
        "max_epochs": st.integers(1, 6),
        "random_state": st.integers(0, 5),
        "early_stopping": st.booleans(),
        "n_iter_no_change": st.integers(1, 3),
        "shuffle": st.booleans(),
        "lr_schedule": st.sampled_from([None, "cosine", "plateau", "one_cycle"]),
        "dropout": st.sampled_from([0.0, 0.1, 0.5]),
        "standardize_features": st.booleans(),
    }
)


@settings(max_examples=25, phases=(Phase.explicit, Phase.generate, Phase.shrink))
@given(
    shared,
    st.sampled_from(sorted(OPTIMIZERS)),
    st.lists(st.tuples(own, st.integers(8, 40), st.booleans()), min_size=2, max_size=6),
    st.booleans(),
)
def test_drawn_groups(common, optimizer, models, classify):
    """Whatever is fused with whatever: nothing changes."""
    estimator = MLPClassifier if classify else MLPRegressor
    X, y = make_data(estimator, 60)
    y = np.concatenate([np.unique(y), y[len(np.unique(y)) :]]) if classify else y  # every class in every part

    def fit(each, n, weighted):
        net = estimator(**common, **OPTIMIZERS[optimizer], **each)
        with suppress(DivergedError):  # alone and together
            net.fit(X[:n], y[:n], np.linspace(0.2, 2.0, n) if weighted else None)
        return net

    def fits():
        return [partial(fit, *model) for model in models]

    alone, together, report = fit_alone_and_fused(fits, inner_max_num_threads=1)
    assert report.n_jobs == len(models)
    assert_same_nets(alone, together, tolerance=LAST_BIT)


def test_a_model_alone_and_in_company_is_the_same_to_the_last_digit_of_its_predictions():
    X, _ = sized_data(MLPRegressor, 64, 32)
    alone, together, _ = fit_alone_and_fused(fits_of(MLPRegressor, {}, "round"))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.predict(X), other.predict(X))
        assert torch.equal(one.forward(X), other.forward(X))
