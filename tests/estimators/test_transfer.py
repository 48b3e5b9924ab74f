"""Transfer and fine-tuning, over every estimator: what is taken over, what is frozen, and at which rate the rest learns."""

import copy
import pickle
import re
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetRegressor
from skorch.callbacks import Callback
from torch import nn

from skpt import CNNRegressor, LinearClassifier, LinearRegressor, MLPClassifier, MLPRegressor
from skpt.exceptions import InvalidInputError, SkptWarning
from skpt.fusion import last_report
from skpt.modules import MLPModule
from skpt.training import SCHEDULES
from tests.configurations import CONFIGURATIONS, ESTIMATORS, make_data

each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
each_configuration = pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
each_way = pytest.mark.parametrize("way", ["stack", "ladder"])

DEEP = {"hidden_layer_sizes": (8, 6), "batch_norm": True, "dropout": 0.2, "batch_size": 16, "max_epochs": 4, "random_state": 0}
PLAIN = {"hidden_layer_sizes": (8, 6), "batch_size": 16, "max_epochs": 4, "random_state": 0}


def on(way, **parameters):
    """Parameters of a net that trains as a stack, or climbs skorch's ladder for a callback that does nothing."""
    return {**parameters, "callbacks": [("nothing", Callback())]} if way == "ladder" else parameters


def weights_of(net):
    return {name: tensor.clone() for name, tensor in net.module_.state_dict().items()}


def assert_same_weights(net, other, **tolerance):
    ours, theirs = weights_of(net), weights_of(other)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        says = f"{name}: {{}}".format
        torch.testing.assert_close(weight, theirs[name], **(tolerance or {"rtol": 0, "atol": 0}), msg=says)


def names(notes):
    return {each.name for each in notes}


def outputs(net, X):
    """What the network gives, in the user's own terms."""
    return net.predict_proba(X) if is_classifier(net) else net.predict(X)


def regression(n_samples=80, seed=0, shift=0.0):
    random = np.random.default_rng(seed)
    X = random.standard_normal((n_samples, 5)) * [1.0, 2.0, 0.5, 1.0, 1.0] + shift
    return X, X @ [1.0, -1.0, 2.0, 0.0, 0.5] + 0.1 * random.standard_normal(n_samples)


@pytest.fixture(scope="module")
def pretrained():
    return MLPRegressor(**{**PLAIN, "lr": 0.01, "max_epochs": 20}).fit(*regression())


@pytest.fixture(scope="module")
def deep():
    return MLPRegressor(**{**DEEP, "lr": 0.01, "max_epochs": 10}).fit(*regression())


# ---------------------------------------------------------------------- what is taken over


@each_estimator
def test_every_estimator_has_the_parameters(estimator):
    found = estimator().get_params()
    expected = {"pretrained": None, "pretrained_lr_factor": 1.0, "freeze": None, "unfreeze_after": None}
    assert {name: found.get(name, "missing") for name in expected} == expected


@each_configuration
@pytest.mark.parametrize("source", ["estimator", "frozen estimator", "torch file", "safetensors file"])
def test_a_net_starts_as_the_pretrained_one_ended(configuration, source, tmp_path):
    X, y = make_data(configuration.estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = configuration.make(max_epochs=2).fit(X, y)
    given = {"estimator": net, "frozen estimator": FrozenEstimator(net)}.get(source, tmp_path / "weights")
    if given == tmp_path / "weights":
        net.save_params(given, use_safetensors=source == "safetensors file")
    fresh = configuration.make(random_state=7, pretrained=given).initialize(X[:20], y[:20])
    assert_same_weights(fresh, net)
    np.testing.assert_array_equal(outputs(fresh, X), outputs(net, X))
    assert names(fresh.transfer_report_.loaded) == set(weights_of(net))
    assert not fresh.transfer_report_.new and not fresh.transfer_report_.unused
    assert "tensors taken over from " in str(fresh.transfer_report_)


@each_estimator
def test_without_a_pretrained_net_nothing_is_reported(estimator):
    X, y = make_data(estimator)
    assert estimator(random_state=0, max_epochs=1).fit(X, y).transfer_report_ is None


@each_estimator
def test_the_pretrained_net_is_not_changed(estimator):
    X, y = make_data(estimator)
    net = estimator(random_state=0, max_epochs=1).fit(X, y)
    before = weights_of(net)
    estimator(random_state=1, max_epochs=2, pretrained=net).fit(X, y)
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(net).items())
    assert all(p.requires_grad for p in net.module_.parameters())


@each_way
def test_training_starts_from_the_weights_taken_over(pretrained, way):
    """As a warm start does, but for the order of the rows: in one batch there is none."""
    X, y = regression()
    parameters = on(way, **{**PLAIN, "batch_size": -1, "optimizer": "sgd", "lr": 0.1})
    warm = copy.deepcopy(pretrained).set_params(**parameters, warm_start=True)
    warm.initialize_optimizer()
    warm.fit(X, y)
    tuned = MLPRegressor(**parameters, pretrained=pretrained).fit(X, y)
    assert_same_weights(warm, tuned, rtol=1e-5, atol=1e-6)


def test_the_first_weights_of_new_layers_are_those_of_the_seed(pretrained):
    X, y = regression()
    tuned = MLPRegressor(**{**PLAIN, "hidden_layer_sizes": (8, 9)}, pretrained=pretrained).initialize(X, y)
    alone = MLPRegressor(**{**PLAIN, "hidden_layer_sizes": (8, 9)}).initialize(X, y)
    assert torch.equal(tuned.module_.hidden_1.weight, pretrained.module_.hidden_1.weight)
    for name in ("hidden_2.weight", "output.bias"):
        assert torch.equal(weights_of(tuned)[name], weights_of(alone)[name])
    assert names(tuned.transfer_report_.new) == {"hidden_2.weight", "hidden_2.bias", "output.weight", "output.bias"}


class TestTheHead:
    """The last layer is taken over where the outputs mean the same."""

    def head_is_new(self, source, net, X, y):
        net.set_params(pretrained=source).initialize(X, y)
        assert "hidden_1.weight" in names(net.transfer_report_.loaded)
        new = names(net.transfer_report_.new)
        assert new in (set(), {"output.weight", "output.bias"})
        assert (new == set()) == torch.equal(net.module_.output.weight, source.module_.output.weight)
        return bool(new)

    @pytest.mark.parametrize(
        ("before", "after", "new"),
        [
            (["a", "b", "c"], ["a", "b", "c"], False),
            (["a", "b", "c"], ["a", "b", "d"], True),
            (["a", "b", "c"], ["a", "b"], True),
            (["a", "b"], ["a", "b"], False),
            (["a", "b"], ["b", "c"], True),
            ([0, 1], [0, 1], False),
            ([0, 1], [False, True], False),
            ([0, 1, 2], ["0", "1", "2"], True),
        ],
        ids=str,
    )
    def test_classes(self, before, after, new):
        X, _ = regression(60)
        source = MLPClassifier(**PLAIN).fit(X, np.array(before)[np.arange(60) % len(before)])
        target = np.array(after)[np.arange(60) % len(after)]
        assert self.head_is_new(source, MLPClassifier(**PLAIN), X, target) == new

    def test_numbers_and_classes_are_not_of_one_kind(self, pretrained):
        X, y = regression()
        classifier = MLPClassifier(**PLAIN).fit(X, y > 0)
        assert weights_of(classifier)["output.weight"].shape == weights_of(pretrained)["output.weight"].shape
        assert self.head_is_new(pretrained, MLPClassifier(**PLAIN), X, y > 0)
        assert self.head_is_new(classifier, MLPRegressor(**PLAIN), X, y)

    def test_numbers_of_outputs(self, pretrained):
        X, y = regression()
        assert self.head_is_new(pretrained, MLPRegressor(**PLAIN), X, np.column_stack([y, y]))
        assert not self.head_is_new(pretrained, MLPRegressor(**PLAIN), X, y[:, None])

    def test_log_odds_of_other_criteria_are_others(self):
        X, _ = regression(60)
        y = np.arange(60) % 3
        source = MLPClassifier(**PLAIN, criterion="bce").fit(X, y)
        assert self.head_is_new(source, MLPClassifier(**PLAIN, criterion="cross_entropy"), X, y)
        assert not self.head_is_new(source, MLPClassifier(**PLAIN, criterion="bce"), X, y)

    def test_classes_without_a_report_count_by_shape(self, tmp_path):
        X, _ = regression(60)
        source = MLPClassifier(**PLAIN).fit(X, np.arange(60) % 3)
        net = MLPClassifier(**PLAIN, pretrained=source.module_.state_dict()).initialize(X, np.arange(60) % 3 + 5)
        assert not net.transfer_report_.new

    def test_a_linear_head_is_taken_with_its_units_or_not_at_all(self):
        X, y = regression()
        source = LinearRegressor(random_state=0, max_epochs=20).fit(X, 100 * y + 1000)
        same = LinearRegressor(random_state=1, pretrained=source).initialize(X[:30], y[:30])
        np.testing.assert_allclose(same.coef_, source.coef_, rtol=1e-6)
        for other in ({"optimizer": "sgd"}, {"activation": "softplus"}):
            with pytest.raises(InvalidInputError, match=r"Nothing of LinearRegressor .*\n.*what belongs to it does not fit"):
                LinearRegressor(pretrained=source, **other).initialize(X, y)


class TestTheFeatures:
    """The first layer is taken over where it reads the same features."""

    def test_weights_beside_the_layer_that_reads_the_features_do_not_bring_their_scaling(self):
        class Token(MLPModule):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.token = nn.Parameter(torch.ones(3))

        class Net(MLPRegressor):
            module = Token

        pd = pytest.importorskip("pandas")
        X, y = regression()
        source = Net(**PLAIN).fit(pd.DataFrame(X, columns=list("abcde")), y)
        net = Net(**PLAIN, pretrained=source).initialize(pd.DataFrame(X + 1, columns=list("edcba")), y)
        assert next(iter(weights_of(net))) == "token" and "token" in names(net.transfer_report_.loaded)
        np.testing.assert_allclose(net.scaler_.mean, (X + 1).mean(axis=0))

    def test_another_number_of_features_starts_the_first_layer_anew(self, pretrained):
        X, y = regression()
        net = MLPRegressor(**PLAIN, pretrained=pretrained).initialize(X[:, :4], y)
        assert names(net.transfer_report_.new) == {"hidden_1.weight", "hidden_1.bias"}
        assert "(8, 5) there" in str(net.transfer_report_)
        np.testing.assert_allclose(net.scaler_.mean, X[:, :4].mean(axis=0))

    def test_other_names_start_the_first_layer_anew(self):
        pd = pytest.importorskip("pandas")
        X, y = regression()
        frame = pd.DataFrame(X, columns=list("abcde"))
        source = MLPRegressor(**PLAIN).fit(frame, y)
        same, turned, nameless = frame, frame[list("edcba")], X
        for X_new, new in ((same, set()), (turned, {"hidden_1.weight", "hidden_1.bias"}), (nameless, set())):
            net = MLPRegressor(**PLAIN, pretrained=source).initialize(X_new, y)
            assert names(net.transfer_report_.new) == new
            assert (net.scaler_.mean == source.scaler_.mean).all() == (not new)

    def test_pixels_of_other_names_start_the_first_layer_anew(self):
        pd = pytest.importorskip("pandas")
        random = np.random.default_rng(0)
        frame = pd.DataFrame(random.random((40, 6)), columns=list("abcdef"))
        parameters = {"channels": (2, 2), "image_shape": (2, 3), "max_epochs": 1, "random_state": 0}
        source = CNNRegressor(**parameters).fit(frame, random.random(40))
        for X, new in ((frame, set()), (frame[list("fedcba")], {"conv_1.weight", "conv_1.bias"}), (frame.to_numpy(), set())):
            report = CNNRegressor(**parameters, pretrained=source).initialize(X, random.random(40)).transfer_report_
            assert names(report.new) == new
            assert all(note.reason == "the features have other names" for note in report.new)

    @each_estimator
    def test_the_scaling_comes_with_the_first_layer(self, estimator):
        X, y = make_data(estimator)
        parameters = {"random_state": 0, "max_epochs": 1, "standardize_features": True}
        source = estimator(**parameters).fit(X, y)
        net = estimator(**parameters, pretrained=source).fit(X[:30] + 0.5, y[:30])
        scalers = [net.scaler_ or net.branches_[next(iter(net.branches_))].scaler_ for net in (net, source)]
        np.testing.assert_array_equal(scalers[0].mean, scalers[1].mean)
        assert f"features are scaled as for {estimator.__name__}" in net.transfer_report_.notes

    @pytest.mark.parametrize(
        ("theirs", "ours", "note"),
        [
            (True, True, "features are scaled as for MLPRegressor"),
            (False, True, "features are not scaled, as they were not for MLPRegressor"),
            (True, False, "features are not scaled, as they were for MLPRegressor: standardize_features is off"),
            (False, False, None),
        ],
    )
    def test_the_scaling_is_said(self, theirs, ours, note):
        X, y = regression()
        source = MLPRegressor(**PLAIN, standardize_features=theirs).fit(X, y)
        net = MLPRegressor(**PLAIN, standardize_features=ours, pretrained=source).initialize(X + 0.1, y)
        assert [each for each in net.transfer_report_.notes if "features" in each] == ([note] if note else [])
        assert (net.scaler_ is not None) == (theirs and ours)

    @pytest.mark.parametrize("theirs", [True, False])
    @pytest.mark.parametrize("ours", [True, False])
    def test_the_scale_of_the_target_comes_with_the_head(self, theirs, ours):
        X, y = regression()
        source = MLPRegressor(**PLAIN, standardize_target=theirs).fit(X, y)
        net = MLPRegressor(**PLAIN, standardize_target=ours, pretrained=source).initialize(X, 1.5 * y)
        np.testing.assert_array_equal(net.target_.scale, source.target_.scale if ours else 1.0)
        if theirs <= ours:
            np.testing.assert_array_equal(net.predict(X), source.predict(X))
        assert any("standardize_target is off" in note for note in net.transfer_report_.notes) == (theirs and not ours)

    def test_weights_of_unknown_origin_leave_the_scaling_to_the_new_rows(self, pretrained):
        X, y = regression(shift=3.0)
        net = MLPRegressor(**PLAIN, pretrained=pretrained.module_).initialize(X, y)
        assert [note.split(" by the new rows")[0] for note in net.transfer_report_.notes] == [
            "features are scaled",
            "the target is scaled",
        ]
        np.testing.assert_allclose(net.scaler_.mean, X.mean(axis=0))

    def test_data_of_another_magnitude_is_told(self, pretrained):
        X, y = regression()
        parameters = {**PLAIN, "max_epochs": 1, "pretrained": pretrained}
        with pytest.warns(SkptWarning, match="1 of 5 features are far from those of MLPRegressor") as record:
            MLPRegressor(**parameters).fit(X * [1, 100, 1, 1, 1], y)
        assert record[0].filename == __file__
        with pytest.warns(SkptWarning, match="1 of 1 outputs are far from those of MLPRegressor"):
            MLPRegressor(**parameters).fit(X, 1000 + y)

    def test_data_of_a_smaller_magnitude_is_told(self, pretrained):
        X, y = regression()
        parameters = {**PLAIN, "max_epochs": 1, "pretrained": pretrained}
        with pytest.warns(SkptWarning, match="5 of 5 features are far .* the standard deviation of number 0 is 0.001 instead"):
            MLPRegressor(**parameters).fit(X * 1e-3, y)
        with pytest.warns(SkptWarning, match="1 of 1 outputs are far .* the standard deviation of number 0 is 0.001 instead"):
            MLPRegressor(**parameters).fit(X, 1e-3 * y)
        images = np.random.default_rng(0).random((80, 6, 6))
        source = CNNRegressor((2,), max_epochs=1, random_state=0).fit(255 * images, y)
        with pytest.warns(SkptWarning, match="1 of 1 features are far from those of CNNRegressor"):
            CNNRegressor((2,), max_epochs=1, random_state=0, pretrained=source).fit(images, y)

    @pytest.mark.filterwarnings("error::skpt.exceptions.SkptWarning")
    @pytest.mark.filterwarnings("ignore::skpt.exceptions.NotConvergedWarning")
    def test_constant_features_are_not_far(self):
        X, y = regression(shift=1.0)
        constant = X.copy()
        constant[:, 1] = 1.0
        for old, new in ((X * [1, 20, 1, 1, 1], constant), (constant, X * [1, 0.01, 1, 1, 1])):
            source = MLPRegressor(**PLAIN).fit(old, y)
            MLPRegressor(**PLAIN, pretrained=source).fit(new, y)


def test_a_net_of_skorchs_gives_its_rows_as_it_took_them():
    X, y = regression()
    module = {"module__n_features": 5, "module__n_outputs": 1, "module__hidden_layer_sizes": (8, 6)}
    source = NeuralNetRegressor(MLPModule, max_epochs=2, train_split=None, verbose=0, **module)
    source.fit(X.astype(np.float32), y.astype(np.float32)[:, None])
    net = MLPRegressor(**PLAIN, pretrained=source).initialize(X, y)
    np.testing.assert_allclose(net.predict(X), source.predict(X.astype(np.float32)).ravel(), rtol=1e-4, atol=1e-5)
    assert net.scaler_ is None


# ---------------------------------------------------------------------- frozen layers


def bodies(configuration, X, y):
    """Names of the layers before the head; empty where there is none."""
    net = configuration.make().initialize(X, y)
    layers, head = ({layer_of(name) for name in each} for each in (dict(net.module_.named_parameters()), net._head()))
    return tuple(sorted(layers - head))


def layer_of(name):
    """The layer that weights belong to; weights beside all layers are one."""
    return name.rpartition(".")[0] or name


@each_configuration
@each_way
def test_frozen_layers_keep_weights_and_statistics(configuration, way):
    X, y = make_data(configuration.estimator)
    freeze = bodies(configuration, X, y)
    if not freeze:
        with pytest.raises(InvalidInputError, match="nothing is left to train"):
            configuration.make(freeze="output").fit(X, y)
        return
    parameters = on(way, max_epochs=3, batch_size=16, early_stopping=False)
    first = weights_of(configuration.make(**parameters).initialize(X, y))
    net = configuration.make(**parameters, freeze=freeze).fit(X, y)
    for name, weight in weights_of(net).items():
        # The first thing that a decoder is given is zero, and there is one step.
        changes = layer_of(name) not in (*freeze, "units") and name != "decoder.weight_ih_l0"
        assert torch.equal(weight, first[name]) != changes, name
    assert {n for n, p in net.module_.named_parameters() if not p.requires_grad} == set(net.frozen_.weights)


@each_way
def test_dropout_goes_on_in_frozen_layers(way):
    X, y = regression()
    parameters = {**PLAIN, "freeze": "hidden_*"}
    with_dropout, without = (MLPRegressor(**on(way, **parameters), dropout=p).fit(X, y) for p in (0.5, 0.0))
    assert not torch.equal(with_dropout.module_.output.weight, without.module_.output.weight)


@pytest.mark.parametrize(
    "freeze", ["hidden_1", "hidden_*", ("hidden_1", "batch_norm_1"), "batch_norm_*", "*.bias", ["output"], "*_2"], ids=str
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_a_stack_and_the_ladder_freeze_the_same(freeze, optimizer, deep):
    X, y = regression(seed=1)
    parameters = {**DEEP, "freeze": freeze, "optimizer": optimizer, "lr": 0.01, "weight_decay": 0.01, "pretrained": deep}
    parameters["pretrained_lr_factor"] = 0.5
    stacked, climbed = (MLPRegressor(**on(way, **parameters)).fit(X, y) for way in ("stack", "ladder"))
    assert_same_weights(stacked, climbed, rtol=1e-3, atol=1e-4)


@each_way
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adadelta"])
def test_layers_are_unfrozen_after_some_epochs(way, optimizer, deep):
    """As if training had been stopped there, and gone on without anything frozen."""
    X, y = regression()
    lr = 1.0 if optimizer == "adadelta" else 0.01
    parameters = on(way, **{**DEEP, "freeze": ("hidden_*", "batch_norm_*"), "optimizer": optimizer, "lr": lr})
    first = weights_of(MLPRegressor(**parameters).initialize(X, y))
    whole = MLPRegressor(**parameters, unfreeze_after=2).fit(X, y)
    stopped = MLPRegressor(**{**parameters, "max_epochs": 2}).fit(X, y)
    for name in ("hidden_1.weight", "batch_norm_2.running_mean"):
        assert torch.equal(weights_of(stopped)[name], first[name])
        assert not torch.equal(weights_of(whole)[name], first[name])
    stopped.set_params(warm_start=True, freeze=None).fit(X, y)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if way == "stack" else {}  # where a stack goes first, and the ladder after it
    assert_same_weights(whole, stopped, **tolerance)
    np.testing.assert_allclose(whole.loss_curve_, stopped.loss_curve_, rtol=1e-4)
    assert all(p.requires_grad for p in whole.module_.parameters()) and not whole.frozen_


def test_lbfgs_takes_frozen_layers():
    X, y = regression()
    parameters = {**PLAIN, "optimizer": "lbfgs", "lr": 0.1, "batch_size": -1, "freeze": "hidden_*"}
    first, frozen = MLPRegressor(**parameters).initialize(X, y), MLPRegressor(**parameters).fit(X, y)
    unfrozen = MLPRegressor(**parameters, unfreeze_after=2).fit(X, y)
    assert torch.equal(first.module_.hidden_1.weight, frozen.module_.hidden_1.weight)
    assert not torch.equal(first.module_.hidden_1.weight, unfrozen.module_.hidden_1.weight)


@pytest.mark.parametrize("calls", ["fit", "partial_fit", "warm fits"])
def test_epochs_until_unfreezing_are_counted_over_all_calls(calls):
    X, y = regression()
    parameters = {**PLAIN, "freeze": "hidden_1", "unfreeze_after": 2, "optimizer": "sgd", "lr": 0.1}
    whole = MLPRegressor(**{**parameters, "max_epochs": 4}).fit(X, y)
    net = MLPRegressor(**parameters)
    if calls == "fit":
        net.set_params(max_epochs=4).fit(X, y)
    elif calls == "partial_fit":
        for _ in range(4):
            net.partial_fit(X, y)
    else:
        net.set_params(max_epochs=1, warm_start=True)
        for _ in range(4):
            net.fit(X, y)
    assert_same_weights(net, whole, rtol=1e-5, atol=1e-6)


def test_a_fit_that_starts_anew_knows_nothing_of_what_was_frozen():
    X, y = regression()
    net = MLPRegressor(**DEEP, freeze="batch_norm_2").fit(X, y)
    assert net.frozen_.statistics == ("batch_norm_2",)
    net.set_params(freeze=None, hidden_layer_sizes=(8,)).initialize(X, y)
    assert not net.frozen_ and net.forward(X, training=True).requires_grad


def test_layers_are_frozen_anew_by_each_fit():
    X, y = regression()
    net = MLPRegressor(**PLAIN, warm_start=True).fit(X, y)
    before = weights_of(net)
    net.set_params(freeze="hidden_1").fit(X, y)
    assert torch.equal(net.module_.hidden_1.weight, before["hidden_1.weight"])
    before = weights_of(net)
    net.set_params(freeze="hidden_2").fit(X, y)
    assert torch.equal(net.module_.hidden_2.weight, before["hidden_2.weight"])
    assert not torch.equal(net.module_.hidden_1.weight, before["hidden_1.weight"])
    assert net.frozen_.weights == ("hidden_2.weight", "hidden_2.bias")


def test_early_stopping_restores_the_best_weights_and_leaves_frozen_ones(deep):
    X, y = regression(120)
    net = MLPRegressor(
        **{**DEEP, "max_epochs": 40, "lr": 0.05},
        pretrained=deep,
        freeze=("hidden_1", "batch_norm_1"),
        early_stopping=True,
        n_iter_no_change=3,
    ).fit(X, y)
    assert net.n_iter_ < 40
    for name in ("hidden_1.weight", "batch_norm_1.weight", "batch_norm_1.running_var"):
        assert torch.equal(weights_of(net)[name], weights_of(deep)[name])


# ---------------------------------------------------------------------- learning rates


@each_way
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta"])
def test_at_rate_zero_loaded_layers_stay(way, optimizer, pretrained):
    X, _ = regression()
    y = np.arange(len(X)) % 3
    parameters = {**PLAIN, "optimizer": optimizer, "weight_decay": 0.1, "pretrained": pretrained}
    net = MLPClassifier(**on(way, **parameters), pretrained_lr_factor=0.0).fit(X, y)
    first = weights_of(MLPClassifier(**PLAIN).initialize(X, y))
    for name, weight in weights_of(net).items():
        expected = first if name.startswith("output") else weights_of(pretrained)
        assert torch.equal(weight, expected[name]) != name.startswith("output"), name


@each_way
@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
def test_a_factor_for_all_layers_is_a_smaller_rate(way, schedule, pretrained):
    X, y = regression(seed=1)
    parameters = on(way, **{**PLAIN, "optimizer": "sgd", "optimizer__momentum": 0.9, "lr_schedule": schedule})
    by_factor = MLPRegressor(**parameters, pretrained=pretrained, lr=0.2, pretrained_lr_factor=0.1).fit(X, y)
    by_rate = MLPRegressor(**parameters, pretrained=pretrained, lr=0.02).fit(X, y)
    assert_same_weights(by_factor, by_rate, rtol=1e-4, atol=1e-5)
    (new, loaded), (only,) = by_factor.optimizer_.param_groups, by_rate.optimizer_.param_groups
    assert loaded["lr"] == pytest.approx(only["lr"], rel=1e-6) and new["lr"] == pytest.approx(10 * only["lr"], rel=1e-6)


def test_groups_of_the_users_own_keep_their_rates(pretrained):
    X, y = regression()
    groups = [("*.bias", {"lr": 0.5})]
    net = MLPRegressor(**PLAIN, pretrained=pretrained, pretrained_lr_factor=0.1, optimizer__param_groups=groups, lr=0.2)
    net.initialize(X, y)
    assert [group["lr"] for group in net.optimizer_.param_groups] == pytest.approx([0.5, 0.05, 0.2, 0.02])


def test_a_rate_that_is_set_reaches_all_layers_in_their_share(pretrained):
    X, y = regression()
    net = MLPRegressor(**PLAIN, pretrained=pretrained, pretrained_lr_factor=0.1, warm_start=True, lr_schedule="step")
    net.fit(X, np.column_stack([y, y]))
    net.set_params(lr=0.5)
    assert [group["lr"] for group in net.optimizer_.param_groups] == pytest.approx([0.5, 0.05])
    net.set_params(pretrained_lr_factor=0.2, lr_schedule=None).partial_fit(X, np.column_stack([y, y]))
    assert [group["lr"] for group in net.optimizer_.param_groups] == pytest.approx([0.5, 0.1])
    net.set_params(pretrained_lr_factor=1.0).partial_fit(X, np.column_stack([y, y]))
    assert [group["lr"] for group in net.optimizer_.param_groups] == pytest.approx([0.5])


# ---------------------------------------------------------------------- searches, copies, files


def test_a_clone_has_the_same_pretrained_net_fitted(pretrained):
    for given in (pretrained, pretrained.module_, pretrained.module_.state_dict(), FrozenEstimator(pretrained), "path"):
        net = MLPRegressor(pretrained=given, lr=0.5, optimizer__momentum=0.5)
        copied = clone(make_pipeline(StandardScaler(), clone(net)))[-1]
        assert copied.pretrained is given
        assert not copied.initialized_ and copied is not net
        assert {**copied.get_params(), "pretrained": None} == {**net.get_params(), "pretrained": None}
        assert not [name for name in net.get_params(deep=True) if name.startswith("pretrained__")]


def test_the_clone_of_a_fitted_net_is_a_parameter_as_the_net_itself(pretrained):
    copied = clone(pretrained)
    assert not copied.initialized_
    net = MLPRegressor().set_params(pretrained=copied)
    assert net.pretrained is pretrained
    unfitted = MLPRegressor()
    assert net.set_params(pretrained=unfitted).pretrained is unfitted
    assert net.set_params(pretrained=clone(unfitted)).pretrained is not unfitted
    assert pickle.loads(pickle.dumps(copied))._cloned_from is None
    assert copied.set_params(**{k: v for k, v in pretrained.get_params().items()}).fit(*regression()).initialized_


@pytest.mark.parametrize("backend", ["none", "skpt"])
def test_everything_can_be_searched_over(pretrained, backend, tmp_path):
    X, y = regression(60, seed=1)
    pretrained.save_params(tmp_path / "weights")
    grid = {
        "mlpregressor__pretrained": [None, pretrained, FrozenEstimator(pretrained), str(tmp_path / "weights")],
        "mlpregressor__pretrained_lr_factor": [0.1, 1.0],
        "mlpregressor__freeze": [None, "hidden_1"],
    }
    pipeline = make_pipeline(StandardScaler(with_std=False), MLPRegressor(**{**PLAIN, "max_epochs": 2}))

    def search():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return GridSearchCV(pipeline, grid, cv=2).fit(X, y)

    if backend == "none":
        found = search()
    else:
        with joblib.parallel_config("skpt"):
            found = search()
        alone = search()
        np.testing.assert_allclose(found.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"], rtol=1e-5)
        assert not last_report().not_fused and last_report().n_jobs == 2 * 16
    by_source = {}
    for parameters, score in zip(found.cv_results_["params"], found.cv_results_["mean_test_score"], strict=True):
        source = parameters["mlpregressor__pretrained"]
        by_source.setdefault("none" if source is None else type(source).__name__, []).append(score)
    assert min(by_source["MLPRegressor"]) > max(by_source["none"])
    np.testing.assert_allclose(by_source["FrozenEstimator"], by_source["MLPRegressor"], rtol=1e-6)
    np.testing.assert_allclose(by_source["str"], by_source["MLPRegressor"], rtol=1e-6)
    best = found.best_estimator_[-1]
    assert best.transfer_report_ is not None
    assert best.pretrained is not pretrained or best.pretrained.initialized_
    best.fit(X, y)


def test_a_search_gives_the_pretrained_net_to_every_fold(pretrained):
    X, y = regression(60, seed=1)
    tuned, alone = MLPRegressor(**PLAIN, pretrained=pretrained), MLPRegressor(**PLAIN)
    assert cross_val_score(tuned, X, y, cv=3).min() > cross_val_score(alone, X, y, cv=3).max()
    in_another_process = pickle.loads(pickle.dumps(tuned))
    np.testing.assert_array_equal(cross_val_score(in_another_process, X, y, cv=3), cross_val_score(tuned, X, y, cv=3))


def test_what_is_unfrozen_while_it_trains_is_not_stacked_and_says_why():
    X, y = regression(60)
    net = MLPRegressor(**PLAIN, freeze="hidden_1")
    with joblib.parallel_config("skpt"):
        cross_val_score(net.set_params(unfreeze_after=9), X, y, cv=3)
        assert not last_report().not_fused
        cross_val_score(net.set_params(unfreeze_after=2), X, y, cv=3)
    assert last_report().not_fused == {"layers that are unfrozen while it trains": 3}


@pytest.mark.parametrize("way", ["pickle", "deepcopy", "torch file", "safetensors file"])
def test_a_copy_trains_on_the_same(pretrained, way, tmp_path):
    X, _ = regression()
    y = np.arange(len(X)) % 3
    parameters = {**PLAIN, "pretrained_lr_factor": 0.1, "freeze": "hidden_1", "optimizer": "sgd", "batch_size": -1, "lr": 0.1}
    net = MLPClassifier(**parameters, pretrained=pretrained, warm_start=True).fit(X, y)
    if way == "pickle":
        copied = pickle.loads(pickle.dumps(net))
    elif way == "deepcopy":
        copied = copy.deepcopy(net)
    else:
        net.save_params(tmp_path / "weights", use_safetensors=way.startswith("safe"))
        copied = MLPClassifier(**parameters, warm_start=True)
        copied.load_params(tmp_path / "weights", use_safetensors=way.startswith("safe"))
    assert copied.transfer_report_ == net.transfer_report_
    assert [len(g["params"]) for g in copied.optimizer_.param_groups] == [2, 4]
    before = weights_of(copied)
    for each in (net, copied):
        each.partial_fit(X, y)
    assert_same_weights(copied, net, rtol=1e-6, atol=1e-7)
    assert torch.equal(copied.module_.hidden_1.weight, before["hidden_1.weight"])


def test_a_file_of_before_has_no_report(pretrained, tmp_path, monkeypatch):
    learnt = {name: value for name, value in pretrained._learnt_to_dict().items() if name != "transfer"}
    monkeypatch.setattr(MLPRegressor, "_learnt_to_dict", lambda self: learnt)
    pretrained.save_params(tmp_path / "weights")
    monkeypatch.undo()
    net = MLPRegressor(**PLAIN)
    net.load_params(tmp_path / "weights")
    assert net.transfer_report_ is None
    np.testing.assert_array_equal(net.predict(regression()[0]), pretrained.predict(regression()[0]))


def test_a_later_fit_of_a_warm_start_goes_on_from_its_own_weights(pretrained):
    X, y = regression()
    net = MLPRegressor(**PLAIN, warm_start=True, pretrained=pretrained).fit(X, y)
    report, before = net.transfer_report_, weights_of(net)
    net.set_params(lr=1e-30).fit(X, y)
    assert_same_weights(net, net.set_params(lr=1e-30).partial_fit(X, y))
    for name, weight in weights_of(net).items():
        torch.testing.assert_close(weight, before[name])
    assert net.transfer_report_ is report
    net.set_params(warm_start=False, pretrained=None, lr=1e-3).fit(X, y)
    assert net.transfer_report_ is None
    assert_same_weights(net, MLPRegressor(**PLAIN).fit(X, y))


# ---------------------------------------------------------------------- errors


def unfitted():
    return MLPRegressor()


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"freeze": "hiden_1"}, InvalidInputError, "'hiden_1' of MLPRegressor matches no layer .* Did you mean 'hidden_1'"),
        ({"freeze": "*"}, InvalidInputError, "nothing is left to train"),
        ({"freeze": ("hidden_1", 3)}, InvalidInputError, "must hold patterns"),
        ({"freeze": 3}, ValueError, "'freeze' parameter of MLPRegressor must be an instance of 'str'"),
        ({"pretrained": unfitted}, InvalidInputError, "Got MLPRegressor, which is not fitted"),
        ({"pretrained": 3}, ValueError, "'pretrained' parameter of MLPRegressor must be"),
        ({"pretrained": "/no/such/file"}, FileNotFoundError, "no/such/file"),
        ({"pretrained": {"a": torch.ones(3)}}, InvalidInputError, r"(?s)Nothing of the state dict fits .*hidden_1.*unused  a "),
        ({"pretrained": nn.Linear(3, 2)}, InvalidInputError, "Nothing of Linear fits"),
        ({"pretrained_lr_factor": -1.0}, ValueError, "'pretrained_lr_factor' parameter of MLPRegressor must be a float"),
        ({"unfreeze_after": 0}, ValueError, "'unfreeze_after' parameter of MLPRegressor must be an int"),
    ],
    ids=lambda each: re.sub(" at 0x[0-9a-f]+", "", str(each)),
)
def test_what_makes_no_sense_is_an_error_and_changes_nothing(parameters, error, message, fitted):
    X, y = regression()
    net = MLPRegressor(**PLAIN)
    if fitted:
        net.fit(X, y)
    net.set_params(**{name: value() if value is unfitted else value for name, value in parameters.items()})
    before, weights = vars(net).copy(), weights_of(net) if fitted else None
    with pytest.raises(error, match=message):
        net.fit(X, y)
    assert vars(net) == before
    if fitted:
        assert all(torch.equal(t, weights[name]) for name, t in weights_of(net).items())
        net.predict(X)


def test_the_net_itself_is_no_pretrained_net():
    X, y = regression()
    net = MLPRegressor(**PLAIN).fit(X, y)
    with pytest.raises(InvalidInputError, match=r"must be another net\. Set warm_start=True"):
        net.set_params(pretrained=net).fit(X, y)


def test_lbfgs_has_one_rate(pretrained):
    X, y = regression()
    net = MLPRegressor(**PLAIN, pretrained=pretrained, optimizer="lbfgs", lr=0.1)
    net.fit(X, y)
    with pytest.raises(InvalidInputError, match="LBFGS has one learning rate for all weights"):
        net.set_params(pretrained_lr_factor=0.5).fit(X, y)


def test_classifiers_take_over_from_each_other_as_regressors_do():
    X, _ = regression(60)
    y = np.arange(60) % 3
    source = LinearClassifier(random_state=0, max_epochs=5).fit(X, y)
    same = LinearClassifier(random_state=1, pretrained=source).initialize(X, y)
    np.testing.assert_array_equal(same.predict_proba(X), source.predict_proba(X))
    with pytest.raises(InvalidInputError, match=r"Nothing of LinearClassifier .*\n.*the target is another"):
        LinearClassifier(pretrained=source).initialize(X, y + 1)
    assert not is_regressor(source)
