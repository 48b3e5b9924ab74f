"""Recurrent estimators: what they can learn, sequences of unequal length, teacher forcing, scikit-learn's tools."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skpt import RNNClassifier, RNNRegressor, Seq2SeqRegressor
from skpt.exceptions import InvalidInputError

CELLS = ["lstm", "gru", "rnn"]
QUICK = {"hidden_size": 8, "max_epochs": 3, "lr": 0.02, "random_state": 0}


def waves(n_samples: int, n_steps: int, seed: int = 0) -> np.ndarray:
    """Sines of one frequency that start anywhere."""
    start = np.random.default_rng(seed).uniform(0, 2 * np.pi, size=(n_samples, 1))
    return np.sin(start + 0.5 * np.arange(n_steps))


def ragged(n_samples: int, n_features: int = 2, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.standard_normal((length, n_features)) for length in random.integers(3, 9, size=n_samples)]


def padded(X: list[np.ndarray], extra: int = 0) -> np.ndarray:
    longest = max(map(len, X)) + extra
    return np.stack([np.pad(x, ((0, longest - len(x)), (0, 0)), constant_values=np.nan) for x in X])


# ---------------------------------------------------------------------- what can be learnt


@pytest.mark.parametrize("cell", CELLS)
def test_what_came_last_is_learnt(cell):
    """A sum over the last steps: a number that depends on the order of the steps, and on nothing else."""
    X = np.random.default_rng(0).standard_normal((400, 10, 2))
    y = X[:, -2:, 0].sum(axis=1) - X[:, -1, 1]
    net = RNNRegressor(16, cell=cell, max_epochs=25, lr=0.02, random_state=0).fit(X[:300], y[:300])
    assert net.score(X[300:], y[300:]) > 0.9
    assert net.score(X[300:, ::-1], y[300:]) < 0.2


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_came_first_is_remembered(cell):
    random = np.random.default_rng(0)
    X = random.standard_normal((400, 8, 1))
    X[:, 0] = random.choice([-2, 0, 2], size=(400, 1))
    y = np.array(["low", "middle", "high"])[(X[:, 0, 0] / 2 + 1).astype(int)]
    net = RNNClassifier(16, cell=cell, max_epochs=30, lr=0.03, random_state=0).fit(X[:300], y[:300])
    assert net.score(X[300:], y[300:]) > 0.95


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_end_of_sequences_of_unequal_length_is_found(bidirectional):
    X = ragged(400, 1)
    y = np.array([x[-1, 0] > 0 for x in X])
    net = RNNClassifier(8, cell="gru", bidirectional=bidirectional, max_epochs=15, lr=0.03, random_state=0)
    assert net.fit(X[:300], y[:300]).score(X[300:], y[300:]) > 0.9


@pytest.mark.parametrize("teacher_forcing", [0.0, 0.5, 1.0])
def test_waves_go_on(teacher_forcing):
    series = waves(300, 20)
    X, y = series[:, :12], series[:, 12:]
    net = Seq2SeqRegressor(16, cell="gru", teacher_forcing=teacher_forcing, max_epochs=25, lr=0.02, random_state=0)
    assert net.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.9


def test_a_running_sum_is_given_beside_the_input():
    X = np.random.default_rng(0).standard_normal((300, 8, 2))
    y = np.stack([X[:, :, 0].cumsum(axis=1), X[:, :, 1]], axis=2)
    net = Seq2SeqRegressor(16, architecture="many_to_many", cell="gru", max_epochs=40, lr=0.02, random_state=0)
    assert net.fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.9
    assert net.predict(X).shape == y.shape


def test_a_row_becomes_a_sequence():
    random = np.random.default_rng(0)
    X = random.uniform(0.5, 1.5, size=(300, 2))
    y = X[:, :1] * np.sin(X[:, 1:] * np.arange(1, 7) / 2)
    net = Seq2SeqRegressor(16, architecture="one_to_many", cell="gru", max_epochs=40, lr=0.02, random_state=0)
    net.fit(X[:200], y[:200])
    assert net.score(X[200:], y[200:]) > 0.9
    np.testing.assert_array_equal(net.predict(X[:, None]), net.predict(X))


# ---------------------------------------------------------------------- unequal lengths


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_list_of_sequences_is_their_padded_array(cell, bidirectional):
    X, y = ragged(40), np.arange(40.0)
    net = RNNRegressor(**QUICK, cell=cell, bidirectional=bidirectional)
    by_list, by_array = clone(net).fit(X, y), clone(net).fit(padded(X), y)
    longer = clone(net).fit(padded(X, extra=3), y)
    expected = by_list.predict(X)
    np.testing.assert_array_equal(by_array.predict(padded(X)), expected)
    np.testing.assert_allclose(longer.predict(X), expected, rtol=1e-5)
    np.testing.assert_allclose(by_list.predict(padded(X, extra=2)), expected, rtol=1e-6)
    alone = np.concatenate([by_list.predict(x[None]) for x in X])
    np.testing.assert_allclose(alone, expected, rtol=1e-6)


@pytest.mark.parametrize("architecture", ["many_to_many", "encoder_decoder"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_sequences_become_sequences_whatever_they_are_padded_to(architecture, cell):
    X, y = ragged(40), np.random.default_rng(1).standard_normal((40, 3, 2))
    net = Seq2SeqRegressor(**QUICK, architecture=architecture, cell=cell).fit(X, y)
    together = net.predict(padded(X, extra=2))
    assert together.shape == y.shape
    np.testing.assert_allclose(np.concatenate([net.predict(x[None]) for x in X]), together, rtol=1e-6)


def test_other_lengths_than_those_of_training_are_predicted():
    X = np.random.default_rng(0).standard_normal((40, 6, 2))
    net = RNNClassifier(**QUICK).fit(X, X[:, -1, 0] > 0)
    assert net.input_shape_ == (6, 2) and net.n_features_in_ == 2
    assert net.predict(np.concatenate([X, X], axis=1)).shape == (40,)
    with pytest.raises(InvalidInputError, match="3 features a step, but RNNClassifier was fitted with 2"):
        net.predict(np.zeros((4, 6, 3)))


def test_a_table_has_one_feature_a_step():
    X = np.random.default_rng(0).standard_normal((40, 6))
    y = X[:, -1]
    net = RNNRegressor(**QUICK).fit(X, y)
    assert net.input_shape_ == (6, 1) and net.n_features_in_ == 6
    np.testing.assert_array_equal(net.predict(X), RNNRegressor(**QUICK).fit(X[:, :, None], y).predict(X[:, :, None]))


# ---------------------------------------------------------------------- y that is a sequence


@pytest.mark.parametrize("shape", [(30,), (30, 1), (30, 4), (30, 4, 1), (30, 4, 3)])
@pytest.mark.parametrize("architecture", ["encoder_decoder", "many_to_many", "one_to_many"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predictions_have_the_form_of_y(shape, architecture, dtype, tmp_path):
    random = np.random.default_rng(0)
    X, y = random.standard_normal((30, 5)), random.standard_normal(shape).astype(dtype)
    net = Seq2SeqRegressor(**QUICK, architecture=architecture).fit(X, y)
    predicted = net.predict(X)
    assert predicted.shape == shape and predicted.dtype == dtype
    assert net.target_.output_shape == (*shape[1:], 1, 1)[:2]
    net.save_params(tmp_path / "weights")
    again = Seq2SeqRegressor(**QUICK, architecture=architecture)
    again.load_params(tmp_path / "weights")
    np.testing.assert_array_equal(again.predict(X), predicted)


def test_an_output_has_one_scale_for_all_steps():
    random = np.random.default_rng(0)
    X = random.standard_normal((200, 4, 1))
    y = random.standard_normal((200, 5, 2)) * [1.0, 1000.0] + [0.0, 5000.0]
    weight = random.integers(1, 4, size=200).astype(float)
    net = Seq2SeqRegressor(**QUICK).fit(X, y, weight)
    rows = np.repeat(y, weight.astype(int), axis=0).reshape(-1, 2)
    np.testing.assert_allclose(net.target_.mean, rows.mean(axis=0))
    np.testing.assert_allclose(net.target_.scale, rows.std(axis=0))
    unscaled = Seq2SeqRegressor(**QUICK, standardize_target=False).fit(X, y[:, :, :1])
    assert unscaled.target_.mean == 0 and unscaled.target_.scale == 1


def test_the_score_is_that_of_flat_tables():
    random = np.random.default_rng(0)
    X, y = random.standard_normal((30, 4)), random.standard_normal((30, 3, 2))
    net = Seq2SeqRegressor(**QUICK).fit(X, y)
    residual = ((y - net.predict(X)) ** 2).sum(axis=0)
    total = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    assert net.score(X, y) == pytest.approx((1 - residual / total).mean())


@pytest.mark.parametrize(
    ("parameters", "X", "y", "message"),
    [
        ({}, (30, 4), (30, 2, 2, 2), r"\(n_samples, n_steps_out, n_outputs\).* Got \(30, 2, 2, 2\)"),
        ({"architecture": "many_to_many"}, (30, 4), (30, 5), "at least the 5 steps .* Got 4 steps in sequence 0"),
        ({"architecture": "one_to_many"}, (30, 4, 2), (30, 5), r"n_samples, 1, n_features\). Got \(30, 4, 2\)"),
    ],
)
def test_forms_that_cannot_be_used_are_errors_before_training(parameters, X, y, message):
    net = Seq2SeqRegressor(**QUICK, **parameters)
    with pytest.raises(InvalidInputError, match=message):
        net.fit(np.zeros(X), np.random.default_rng(0).standard_normal(y))
    assert not net.initialized_


def test_too_short_sequences_are_named_when_predicting_too():
    X, y = np.random.default_rng(0).standard_normal((2, 30, 6))
    net = Seq2SeqRegressor(**QUICK, architecture="many_to_many").fit(X, y)
    short = X.copy()
    short[7, 4:] = np.nan
    with pytest.raises(InvalidInputError, match="Got 4 steps in sequence 7"):
        net.predict(short)


def test_another_form_of_y_than_before_is_an_error():
    X, y = np.random.default_rng(0).standard_normal((2, 30, 6))
    net = Seq2SeqRegressor(**QUICK).fit(X, y)
    with pytest.raises(InvalidInputError, match=r"y of shape \(30, 3, 2\) .* 6 steps of 1 outputs"):
        net.partial_fit(X, y.reshape(30, 3, 2))


# ---------------------------------------------------------------------- teacher forcing, seeds


@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 1.5, 30)])
def test_teacher_forcing_changes_training_and_not_prediction(weight):
    series = waves(30, 12)
    X, y = series[:, :8], series[:, 8:]
    free, forced, half = (Seq2SeqRegressor(**QUICK, teacher_forcing=p).fit(X, y, weight) for p in (0.0, 1.0, 0.5))
    curves = [net.loss_curve_ for net in (free, forced, half)]
    assert not np.allclose(curves[0], curves[1]) and not np.allclose(curves[1], curves[2])
    forced.module_.load_state_dict(free.module_.state_dict())
    np.testing.assert_array_equal(forced.predict(X), free.predict(X))
    with torch.no_grad():  # the loss of the first step, where all rows are one batch
        expected = torch.nn.functional.mse_loss(*_first_outputs_and_targets(X, y, 1.0))
    first = Seq2SeqRegressor(**QUICK | {"max_epochs": 1}, teacher_forcing=1.0, batch_size=-1).fit(X, y)
    assert first.loss_curve_[0] == pytest.approx(float(expected), rel=1e-5)


def _first_outputs_and_targets(X, y, teacher_forcing: float):
    """What a network gives for all rows before it has learnt anything, while it is trained."""
    net = Seq2SeqRegressor(**QUICK, teacher_forcing=teacher_forcing).initialize(X, y)
    target = net.target_.encode(y)
    return net.module_.train()(torch.from_numpy(net.scaler_(X[:, :, None]).astype(np.float32)), target), target


@pytest.mark.parametrize("estimator", [RNNRegressor, RNNClassifier, Seq2SeqRegressor])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.usefixtures("global_generators_untouched")
def test_a_seed_fixes_weights_dropout_and_order(estimator, cell):
    X = np.random.default_rng(0).standard_normal((50, 6, 2))
    y = X[:, 0, 0] > 0 if estimator is RNNClassifier else X[:, :, 0]

    def weights(seed):
        parameters = {"num_layers": 2, "dropout": 0.3, "cell": cell, "hidden_layer_sizes": (4,)}
        parameters |= {"teacher_forcing": 0.5} if estimator is Seq2SeqRegressor else {}
        net = estimator(**{**QUICK, **parameters, "random_state": seed}).fit(X, y)
        return torch.cat([p.detach().ravel() for p in net.module_.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


# ---------------------------------------------------------------------- scikit-learn's tools


@pytest.mark.parametrize("estimator", [RNNRegressor, Seq2SeqRegressor])
def test_cells_and_sizes_are_searched_over_by_splits_of_time_in_a_pipeline(estimator):
    series = np.sin(0.3 * np.arange(90)) + 0.05 * np.random.default_rng(0).standard_normal(90)
    windows = np.lib.stride_tricks.sliding_window_view(series, 12)
    X, y = windows[:, :9, None], windows[:, 9:]
    if estimator is Seq2SeqRegressor:
        y = y[:, :, None]
    net = make_pipeline(FunctionTransformer(), estimator(max_epochs=4, lr=0.02, random_state=0))
    name = estimator.__name__.lower()
    grid = {f"{name}__cell": ["gru", "rnn"], f"{name}__hidden_size": [4, 8]}
    search = GridSearchCV(net, grid, cv=TimeSeriesSplit(2), error_score="raise").fit(X, y)
    assert search.cv_results_["mean_test_score"].shape == (4,)
    assert search.predict(X).shape == y.shape
    again = search.best_estimator_.fit(X, y).predict(X)
    np.testing.assert_array_equal(again, search.predict(X))


def test_lists_of_sequences_are_cross_validated():
    X = ragged(60)
    y = np.array([x[-1, 0] > 0 for x in X])
    scores = cross_val_score(RNNClassifier(**QUICK), X, y, cv=3, error_score="raise")
    assert scores.shape == (3,)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cell": "GRU"}, "'cell' parameter of RNNRegressor must be"),
        ({"hidden_size": 0}, "'hidden_size' parameter of RNNRegressor must be"),
        ({"num_layers": 1.5}, "'num_layers' parameter of RNNRegressor must be"),
        ({"hidden_layer_sizes": (4, 0)}, "'hidden_layer_sizes' parameter of RNNRegressor must hold integers"),
    ],
)
def test_parameters_that_make_no_sense_are_errors(parameters, message):
    with pytest.raises(ValueError, match=message):
        RNNRegressor(**parameters).fit(np.zeros((5, 3)), np.arange(5.0))
