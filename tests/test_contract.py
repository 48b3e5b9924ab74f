"""What every estimator promises, DESIGN section 3: one test a promise, over every estimator, in DESIGN's order."""

import copy
import inspect
import io
import pickle
import random
import re
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight, get_tags
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, EpochScoring, LRScheduler, ProgressBar
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skpt import MLPClassifier, MultiTaskEstimator, Seq2SeqRegressor, TransformerClassifier
from skpt.estimators.multi_input import BranchedNet
from skpt.exceptions import DivergedError, InvalidInputError, NotSizedError, UnknownParameterError
from skpt.fusion.optimizers import StackedOptimizer
from skpt.modules import ACTIVATIONS, INITIALIZATIONS, FeedForward, JoinedModule
from skpt.training import CLASSIFICATION_CRITERIA, REGRESSION_CRITERIA, SCHEDULES, batches
from skpt.training.fields import Fields
from tests.configurations import CONFIGURATIONS, ESTIMATORS, make_data

CLASSIFIERS = [each for each in ESTIMATORS if is_classifier(each())]
# What has several tasks is of neither type for scikit-learn; of one column of numbers it promises what a regressor does.
REGRESSORS = [each for each in ESTIMATORS if not is_classifier(each())]

# Those of tables take sparse X, and a network of a user's own that takes rows; those of images and sequences do not.
TABULAR = [each for each in ESTIMATORS if get_tags(each()).input_tags.sparse]
OTHERS = [each for each in ESTIMATORS if each not in TABULAR]

FEED_FORWARD = [each for each in ESTIMATORS if issubclass(each.module, FeedForward)]  # quick learners, trained as stacks
TO_SEQUENCES = [Seq2SeqRegressor]  # y may have a third dimension

each_tabular = pytest.mark.parametrize("estimator", TABULAR)
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
each_classifier = pytest.mark.parametrize("estimator", CLASSIFIERS)
each_regressor = pytest.mark.parametrize("estimator", REGRESSORS)
each_configuration = pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)


def quick(estimator, **parameters):
    """A net that trains for a moment, on several batches, by one learning rate."""
    return estimator(**{"random_state": 0, "max_epochs": 4, "batch_size": 16, "lr_schedule": None, **parameters})


def learning_rate(estimator) -> float:
    """A rate at which some tens of epochs are enough; attention does not learn at the one of the others."""
    return 0.005 if estimator is TransformerClassifier else 0.05


def weights_of(net) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy().copy() for name, tensor in net.module_.state_dict().items()}


def output_name(net, kind="weight") -> str:
    """What the last layer's weights are called: ``output.weight``, or a longer name in a head of several."""
    return [name for name in net.module_.state_dict() if name.endswith(f"output.{kind}")][-1]


def output_weight(net) -> np.ndarray:
    return weights_of(net)[output_name(net)]


def encoded(net, y) -> torch.Tensor:
    """The targets that a net makes of y; one that has several tasks knows y by its task."""
    return net.target_.encode(Fields({"y": y}) if isinstance(net, MultiTaskEstimator) else y)


def described(net) -> dict[str, str]:
    """Its parameters as text: copies of branches are not the same objects."""
    return {name: repr(value) for name, value in net.get_params().items()}


def assert_same_weights(net, other):
    """Bit for bit."""
    assert weights_of(net).keys() == weights_of(other).keys()
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight, weights_of(other)[name], err_msg=name)


def assert_close_weights(net, other, rtol):
    """Relative to the largest weight of a tensor; of one that starts at zero, to next to nothing."""
    for name, weight in weights_of(net).items():
        atol = rtol * max(np.abs(weight).max(), 1e-12)
        np.testing.assert_allclose(weights_of(other)[name], weight, rtol=0, atol=atol, err_msg=name)


def known(configuration, **parameters):
    """Those of the parameters that the estimator has."""
    return {name: value for name, value in parameters.items() if name in configuration.make().get_params()}


def alone(net):
    """The same net, made to climb skorch's ladder by a callback that does nothing."""
    return clone(net).set_params(callbacks=[("nothing", Callback())])


# ---------------------------------------------------------------------- is a skorch net


@each_estimator
def test_is_a_skorch_net(estimator):
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, y)
    assert isinstance(net, NeuralNet)
    assert isinstance(net, NeuralNetClassifier) is is_classifier(net)
    assert isinstance(net, NeuralNetRegressor) is is_regressor(net)
    assert isinstance(net.module_, nn.Module)
    assert isinstance(net.criterion_, nn.Module)
    assert isinstance(net.optimizer_, torch.optim.Optimizer)
    assert net.history is net.history_ and len(net.history) == 4
    assert all(train_loss > 0 for train_loss in net.history[:, "train_loss"])
    assert all(duration >= 0 for duration in net.history[:, "dur"])


@pytest.fixture
def double_by_default():
    before = torch.get_default_dtype()
    yield lambda: torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(before)


@each_estimator
@pytest.mark.parametrize("ladder", [False, True])
def test_torchs_default_precision_changes_nothing(estimator, ladder, double_by_default, tmp_path):
    """Libraries of Gaussian processes ask for float64 for the whole program."""
    X, y = make_data(estimator)
    callbacks = [("nothing", Callback())] if ladder else None
    net = quick(estimator, callbacks=callbacks).fit(X, y)
    expected, outputs = net.predict(X), net.forward(X).numpy()
    double_by_default()
    same = quick(estimator, callbacks=callbacks).fit(X, y)
    close = {"rtol": 1e-5, "atol": 1e-5 * np.abs(outputs).max()}
    np.testing.assert_allclose(same.forward(X).numpy(), outputs, **close)
    np.testing.assert_array_equal(net.predict(X), expected)
    same.partial_fit(X, y).save_params(tmp_path / "weights")
    fresh = quick(estimator)
    fresh.load_params(tmp_path / "weights")
    np.testing.assert_array_equal(fresh.predict(X), same.predict(X))
    np.testing.assert_allclose(fresh.forward(X).numpy(), same.forward(X).numpy())
    fresh.initialize()
    assert all(p.dtype == torch.float32 for p in fresh.module_.parameters())
    assert torch.get_default_dtype() == torch.float64


@each_classifier
def test_a_parameter_may_be_set_to_a_module_by_hand(estimator):
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, y)
    net.criterion = nn.CrossEntropyLoss(reduction="none")
    if "augment" in net.get_params():
        net.augment = nn.Identity()
    net.fit(X, y)
    assert net.criterion_ is net.criterion
    assert "criterion" in net.get_params() and clone(net).fit(X, y).n_iter_ == net.n_iter_


@each_estimator
def test_threads_may_predict_at_once(estimator):
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, y)
    expected, weights = net.predict(X), weights_of(net)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(net.predict, [X] * 24))
    assert all(np.array_equal(each, expected) for each in found)
    assert all(isinstance(p, nn.Parameter) and p.dtype == torch.float32 for p in net.module_.parameters())
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight, weights[name])
    net.partial_fit(X, y)


@each_estimator
def test_forward_gives_the_networks_outputs(estimator):
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, y)
    outputs = net.forward(X)
    assert isinstance(outputs, torch.Tensor) and not outputs.requires_grad
    assert outputs.flatten(1).shape == (len(X), 3 if is_classifier(net) else 1)
    np.testing.assert_array_equal(net.target_.decode(outputs.numpy()), net.predict(X)) if is_classifier(net) else (
        np.testing.assert_allclose(net.target_.decode(outputs.numpy()), net.predict(X), rtol=1e-4, atol=1e-5)
    )
    assert net.forward(X, training=True).requires_grad
    assert not net.module_.training


@each_estimator
def test_initialize_with_data_builds_without_training(estimator):
    X, y = make_data(estimator)
    net = quick(estimator).initialize(X, y)
    assert net.predict(X).shape == y.shape
    assert len(net.history) == 0
    fitted = quick(estimator, lr=1e-30).fit(X, y)
    fitted.module_.load_state_dict(dict(net.module_.named_buffers()), strict=False)  # statistics are learnt without a rate
    assert_close_weights(net, fitted, rtol=1e-7)


@each_estimator
def test_initialize_without_sizes_says_how_to_get_them(estimator):
    with pytest.raises(NotSizedError, match=r"Call fit, load_params, or initialize\(X, y\)"):
        estimator().initialize()
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, y)
    first = weights_of(quick(estimator).initialize(X, y))
    assert weights_of(net.initialize()).keys() == first.keys()


@each_estimator
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function", "forward", "save_params"])
def test_nothing_works_before_fit(estimator, method):
    net = estimator()
    if not hasattr(estimator, method) or (method == "predict_proba" and not is_classifier(net)):
        assert not hasattr(net, method)
        return
    with pytest.raises(NotFittedError):
        getattr(net, method)(np.zeros((2, 5)))


@each_estimator
def test_optimizer_parameters_reach_the_optimizer(estimator):
    X, y = make_data(estimator)
    net = quick(estimator, optimizer="sgd", lr=0.003, weight_decay=0.25, optimizer__momentum=0.75).fit(X, y)
    (group,) = net.optimizer_.param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.003, 0.25, 0.75)
    net.set_params(lr=0.002, optimizer__momentum=0.5)
    assert (group["lr"], group["momentum"]) == (0.002, 0.5)


@each_estimator
def test_parameter_groups_have_settings_of_their_own(estimator):
    X, y = make_data(estimator)
    free = quick(estimator, optimizer="sgd", optimizer__param_groups=[("*.weight", {"lr": 0.01})]).fit(X, y)
    assert len(free.optimizer_.param_groups) == 2
    bias = output_name(free, "bias")
    held = quick(estimator, optimizer="sgd", optimizer__param_groups=[(bias, {"lr": 0.0})]).fit(X, y)
    first = weights_of(quick(estimator).initialize(X, y))
    np.testing.assert_array_equal(weights_of(held)[bias], first[bias])
    with pytest.raises(InvalidInputError, match=f"'{bias}_' in optimizer__param_groups of .* Did you mean '{bias}'"):
        quick(estimator, optimizer__param_groups=[(f"{bias}_", {"lr": 0.0})]).fit(X, y)
    changed = (output_weight(held) != first[output_name(held)]).mean()
    assert changed == 1 if estimator in FEED_FORWARD else changed > 0.5  # a unit of the others may never be active


@each_estimator
def test_verbose_prints_a_table(estimator, capsys):
    X, y = make_data(estimator)
    quick(estimator, verbose=0).fit(X, y)
    assert capsys.readouterr().out == ""
    net = quick(estimator, verbose=1, early_stopping=True).fit(X, y)
    heads, _, *rows = capsys.readouterr().out.splitlines()
    assert heads.split() == ["epoch", "train_loss", "valid_loss", "dur"]
    assert [int(row.split()[0]) for row in rows] == [1, 2, 3, 4]
    without_colour = [re.sub(r"\x1b\[\d+m", "", row).split() for row in rows]
    np.testing.assert_allclose([float(row[1]) for row in without_colour], net.loss_curve_, atol=1e-4)


@each_classifier
def test_epoch_scoring_sees_the_users_labels(estimator):
    X, y = make_data(estimator)
    callbacks = [
        ("train_acc", EpochScoring("accuracy", name="train_acc", on_train=True, lower_is_better=False)),
        ("valid_f1", EpochScoring("f1_macro", name="valid_f1", lower_is_better=False)),
    ]
    net = quick(estimator, callbacks=callbacks, early_stopping=True, lr=0.05).fit(X, y)
    assert len(net.history[:, "valid_f1"]) == 4
    whole = quick(estimator, callbacks=callbacks[:1], lr=0.05).fit(X, y)
    # Of encoded labels none would be right.
    assert whole.history[-1, "train_acc"] == whole.score(X, y) > (0.5 if estimator in FEED_FORWARD else 0.3)


@each_regressor
def test_epoch_scoring_sees_the_users_numbers(estimator):
    X, y = make_data(estimator)
    scoring = EpochScoring("neg_root_mean_squared_error", name="train_rmse", on_train=True, lower_is_better=False)
    net = quick(estimator, callbacks=[scoring]).fit(X, 1000 + 100 * y)
    rmse = np.sqrt(np.mean((net.predict(X) - 1000 - 100 * y) ** 2))
    assert net.history[-1, "train_rmse"] == pytest.approx(-rmse)


@each_estimator
def test_skorchs_early_stopping_callback_stops(estimator):
    X, y = make_data(estimator)
    net = quick(estimator, callbacks=[EarlyStopping(monitor="train_loss", patience=2, threshold=10.0)], max_epochs=50)
    assert net.fit(X, y).n_iter_ == 3


@each_estimator
def test_checkpoint_callback_saves_and_loads(estimator, tmp_path):
    X, y = make_data(estimator)
    checkpoint = Checkpoint(monitor="train_loss_best", f_params="params.pt", dirname=tmp_path)
    net = quick(estimator, callbacks=[checkpoint]).fit(X, y)
    assert (tmp_path / "params.pt").exists()
    fresh = quick(estimator)
    fresh.load_params(f_params=tmp_path / "params.pt")
    assert net.history[-1, "train_loss_best"], "the last epoch should have been the best"
    assert_same_weights(net, fresh)
    again = quick(estimator)
    again.load_params(checkpoint=checkpoint)
    assert_same_weights(net, again)
    assert len(again.history) == 4
    by_best = Checkpoint(monitor="valid_loss_best", dirname=tmp_path, fn_prefix="best_", load_best=True)
    net = quick(estimator, callbacks=[by_best], lr=0.05, optimizer="adam", max_epochs=10).fit(X, y, X_val=-X, y_val=y)
    assert net.best_epoch_ < 10
    by_parameter = quick(estimator, lr=0.05, optimizer="adam", max_epochs=10, early_stopping=True).fit(X, y, X_val=-X, y_val=y)
    assert_close_weights(by_parameter, net, rtol=1e-4)


@each_estimator
def test_learning_rate_callback_works_as_the_parameter(estimator):
    X, y = make_data(estimator)
    parameters = {"optimizer": "sgd", "lr": 0.01}
    by_callback = quick(estimator, callbacks=[LRScheduler("ExponentialLR", gamma=0.5)], **parameters).fit(X, y)
    by_parameter = quick(estimator, lr_schedule="exponential", lr_schedule__gamma=0.5, **parameters).fit(X, y)
    assert_close_weights(by_parameter, by_callback, rtol=1e-5)
    assert by_callback.optimizer_.param_groups[0]["lr"] == by_parameter.optimizer_.param_groups[0]["lr"] == 0.01 / 16


@each_estimator
def test_progress_bar_callback_works(estimator, capsys):
    pytest.importorskip("tqdm")
    X, y = make_data(estimator)
    net = quick(estimator, callbacks=[ProgressBar(detect_notebook=False)]).fit(X, y)
    assert net.n_iter_ == 4
    assert "it/s" in capsys.readouterr().err


@each_estimator
def test_a_data_loader_of_the_users_gives_the_batches(estimator):
    X, y = make_data(estimator)
    parameters = {"shuffle": False, "iterator_train__drop_last": False}
    net = quick(estimator, iterator_train=DataLoader, **parameters).fit(X, y)
    assert_close_weights(quick(estimator, shuffle=False).fit(X, y), net, rtol=1e-4)
    weight = np.arange(1.0, len(y) + 1)
    net = quick(estimator, iterator_train=DataLoader, iterator_valid=DataLoader, **parameters)
    net.fit(X, y, sample_weight=weight, X_val=X, y_val=y)
    plain = quick(estimator, shuffle=False).fit(X, y, sample_weight=weight, X_val=X, y_val=y)
    assert_close_weights(plain, net, rtol=1e-4)
    np.testing.assert_allclose(net.validation_curve_, plain.validation_curve_, rtol=1e-4)


@each_estimator
def test_a_shuffling_data_loader_follows_the_seed(estimator):
    X, y = make_data(estimator)
    nets = [quick(estimator, iterator_train=DataLoader, random_state=seed).fit(X, y) for seed in (0, 0, 1)]
    assert_same_weights(*nets[:2])
    assert (output_weight(nets[0]) != output_weight(nets[2])).any()


@each_estimator
def test_a_torch_dataset_may_be_fitted_and_predicted(estimator):
    X, y = make_data(estimator)
    codes = np.unique(y, return_inverse=True)[1] if is_classifier(estimator()) else y
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(codes))
    net = quick(estimator).fit(dataset)
    plain = quick(estimator).fit(X, codes)
    assert_same_weights(plain, net)
    np.testing.assert_array_equal(net.predict(dataset), plain.predict(X))
    again = quick(estimator).partial_fit(dataset)
    assert_same_weights(quick(estimator).partial_fit(X, codes), again)


class TwoBranches(nn.Module):
    """A network that is no stack of layers and draws from torch's global generator."""

    def __init__(self, n_features, n_outputs, d_hidden=7, squeeze=False):
        super().__init__()
        self.straight = nn.Linear(n_features, n_outputs)
        self.bent = nn.Sequential(nn.Linear(n_features, d_hidden), nn.Tanh(), nn.Dropout(0.1), nn.Linear(d_hidden, n_outputs))
        self.squeeze = squeeze

    def forward(self, X):
        outputs = self.straight(X) + self.bent(X)
        return outputs.squeeze(1) if self.squeeze else outputs


class AfterBranches(TwoBranches):
    """The same, of what the branches of an estimator's X give."""

    def __init__(self, n_features, n_outputs, d_hidden=7, squeeze=False, branches=None, trunk=None):
        super().__init__(n_features, sum(n_outputs.values()) if trunk else n_outputs, d_hidden, squeeze)
        self.before = trunk or JoinedModule(branches)

    def forward(self, X):
        return super().forward(self.before(X))


def with_own_network(estimator):
    class Own(estimator):
        module = AfterBranches if issubclass(estimator, BranchedNet) else TwoBranches

        def module_arguments(self):
            return {}

    return Own


@each_tabular
@pytest.mark.usefixtures("global_generators_untouched")
def test_a_subclass_may_have_its_own_network(estimator):
    X, y = make_data(estimator, 200)
    own = with_own_network(estimator)
    net = quick(own, max_epochs=30, lr=0.02, module__d_hidden=5).fit(X, y)
    assert isinstance(net.module_, TwoBranches) and net.module_.bent[0].out_features == 5
    assert net.score(X, y) > 0.8
    assert_same_weights(net, clone(net).fit(X, y))
    with pytest.raises(UnknownParameterError, match="Did you mean 'd_hidden'"):
        quick(own, module__d_hiden=5).fit(X, y)


@pytest.mark.parametrize("estimator", [each for each in REGRESSORS if each in TABULAR])
def test_outputs_that_would_broadcast_against_y_are_an_error(estimator):
    X, y = make_data(estimator)
    with pytest.raises(InvalidInputError, match="shape"):
        quick(with_own_network(estimator), module__squeeze=True).fit(X, y)


@each_estimator
def test_a_subclass_may_replace_the_loss(estimator):
    class Penalized(estimator):
        def get_loss(self, y_pred, y_true, X=None, training=False):
            loss = super().get_loss(y_pred, y_true, X=X, training=training)
            return loss + 100 * sum(p.square().sum() for p in self.module_.parameters())

    X, y = make_data(estimator)
    penalized = quick(Penalized, optimizer="sgd", lr=0.001, max_epochs=15).fit(X, y)
    plain = quick(estimator, optimizer="sgd", lr=0.001, max_epochs=15).fit(X, y)
    size, plain_size = (sum(p.detach().square().sum().item() for p in net.module_.parameters()) for net in (penalized, plain))
    assert size < 0.05 * plain_size


@each_estimator
def test_a_subclass_may_replace_the_training_step(estimator):
    class Counting(estimator):
        def train_step(self, batch, **fit_params):
            self.n_steps_ = getattr(self, "n_steps_", 0) + 1
            return super().train_step(batch, **fit_params)

    X, y = make_data(estimator)
    net = quick(Counting).fit(X, y)
    assert net.n_steps_ == 4 * 4
    assert_close_weights(quick(estimator).fit(X, y), net, rtol=1e-4)


# ---------------------------------------------------------------------- is a scikit-learn estimator


@each_estimator
def test_the_constructor_is_explicit_and_only_stores(estimator):
    parameters = inspect.signature(estimator).parameters
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters.values())
    defaults = {name: p.default for name, p in parameters.items()}
    assert inspect.Parameter.empty not in defaults.values()
    markers = {name: object() for name in parameters}
    assert vars(estimator(**markers)) == markers
    assert vars(estimator()) == estimator().get_params() == defaults
    further = {"optimizer__momentum": object(), "module__bias": object(), "compile": object()}
    assert vars(estimator(**further)) == {**defaults, **further}


PREFIXED = {
    "optimizer__weight_decay": 0.1,
    "criterion__reduction": "none",
    "module__bias": False,
    "lr_schedule__gamma": 0.5,
    "iterator_train__num_workers": 0,
    "iterator_valid__batch_size": 3,
}


@each_estimator
def test_a_copy_is_as_scikit_learn_makes_it(estimator):
    """Also where it is made without asking scikit-learn."""
    X, y = make_data(estimator)
    given = {"lr": 0.02, "random_state": 3, "freeze": ["hidden_*"], "optimizer__momentum": 0.5}
    for n_given in range(len(given) + 1):
        net = quick(estimator).set_params(**dict(list(given.items())[:n_given]))
        copied, expected = clone(net), BaseEstimator.__sklearn_clone__(net)
        assert type(copied) is estimator and copied is not net
        assert described(copied) == described(expected)
        assert vars(copied).keys() == vars(expected).keys()
        assert net.freeze is None or copied.freeze is not net.freeze
        copied.set_params(lr=7.0)
        assert net.lr != 7.0
    fitted = quick(estimator).fit(X, y)
    assert vars(clone(fitted)).keys() - {"_cloned_from"} == vars(quick(estimator)).keys()


def test_what_can_be_changed_is_copied_too():
    sizes = [3, 2]
    copied = clone(MLPClassifier(sizes))
    assert copied.hidden_layer_sizes == sizes
    assert copied.hidden_layer_sizes is not sizes


def test_a_copy_of_a_subclass_is_made_by_its_constructor():
    made = []

    class Own(MLPClassifier):
        def __init__(self, hidden_layer_sizes=(4,)):
            made.append(self)
            super().__init__(hidden_layer_sizes)

    net = Own()
    assert clone(net) is made[1]


@each_estimator
def test_prefixed_parameters_are_parameters(estimator):
    net = estimator(**PREFIXED)
    assert PREFIXED.items() <= net.get_params().items()
    assert clone(net).get_params() == net.get_params()
    later = estimator().set_params(**PREFIXED)
    assert later.get_params() == net.get_params()
    assert all(f"{name}={value!r}" in repr(net) for name, value in PREFIXED.items())


@each_estimator
def test_prefixed_parameters_can_be_searched_over(estimator):
    search = search_over_momentum(quick(estimator, optimizer="sgd", max_epochs=15), [1e-5, 0.005], make_data(estimator))
    assert search.best_params_["net__lr"] == 0.005
    slow, slow_with_momentum, fast, fast_with_momentum = search.cv_results_["mean_test_score"]
    assert slow != slow_with_momentum and fast != fast_with_momentum, "the momentum reached the optimizer"


@pytest.mark.parametrize("estimator", FEED_FORWARD)
def test_a_search_finds_the_momentum_that_learns_faster(estimator):
    search = search_over_momentum(quick(estimator, optimizer="sgd"), [1e-4, 0.02], make_data(estimator), scoring=None)
    assert search.best_params_ == {"net__optimizer__momentum": 0.9, "net__lr": 0.02}


def search_over_momentum(net, lrs, data, **settings) -> GridSearchCV:
    """Search without and with momentum, at each learning rate."""
    grid = {"net__lr": lrs, "net__optimizer__momentum": [0.0, 0.9]}
    settings = {"scoring": "neg_log_loss" if is_classifier(net) else "r2", **settings}
    pipeline = Pipeline([("scale", StandardScaler()), ("net", net)])
    return GridSearchCV(pipeline, grid, cv=2, error_score="raise", **settings).fit(*data)


@each_estimator
def test_callbacks_parameters_are_parameters(estimator):
    net = quick(estimator, callbacks=[("stop", EarlyStopping(monitor="train_loss", patience=7))])
    assert net.get_params()["callbacks__stop__patience"] == 7
    assert "callbacks__stop__patience" not in net.get_params(deep=False)
    X, y = make_data(estimator)
    net.set_params(callbacks__stop__patience=2, callbacks__stop__threshold=10.0, max_epochs=50)
    assert net.fit(X, y).n_iter_ == 3


MISSPELT = [
    ("max_epoch", "max_epochs"),
    ("learning_rate", None),
    ("random_sate", "random_state"),
    ("optimiser__momentum", "optimizer__momentum"),
    ("hidden_layer_size", None),
    ("lr_shedule__gamma", "lr_schedule__gamma"),
]


@each_estimator
@pytest.mark.parametrize(("name", "nearest"), MISSPELT)
def test_a_misspelt_parameter_names_the_nearest(estimator, name, nearest):
    message = rf"Invalid parameter '{name}' for estimator {estimator.__name__}\. "
    message += rf"Did you mean '{nearest}'\?" if nearest else "(Did you mean|Known are)"
    with pytest.raises(UnknownParameterError, match=message):
        estimator(**{name: 1})
    net = estimator()
    before = vars(net).copy()
    with pytest.raises(ValueError, match=message):
        net.set_params(lr=0.5, **{name: 1})
    assert vars(net) == before, "nothing is set where one name is wrong"


@each_estimator
@pytest.mark.parametrize(
    ("parameters", "nearest"),
    [
        ({"optimizer__momentun": 0.9, "optimizer": "sgd"}, "momentum"),
        ({"optimizer__beta": (0.9, 0.9), "optimizer": "adam"}, "betas"),
        ({"criterion__reductoin": "none"}, "reduction"),
        ({"module__initialisation": "zeros"}, "initialization"),
        ({"lr_schedule": "exponential", "lr_schedule__gama": 0.9}, "gamma"),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else each,
)
def test_a_misspelt_parameter_of_a_component_names_the_nearest(estimator, parameters, nearest):
    X, y = make_data(estimator)
    net = quick(estimator, **parameters)
    before = vars(net).copy()
    with pytest.raises(UnknownParameterError, match=f"Did you mean '{nearest}'"):
        net.fit(X, y)
    assert vars(net) == before


# ---------------------------------------------------------------------- sizes come from the data


@each_estimator
def test_sizes_names_and_classes_are_learnt(estimator):
    X, y = make_data(estimator)
    net = quick(estimator).fit(pd.DataFrame(X, columns=list("abcde")), y)
    assert net.n_features_in_ == 5
    assert net.feature_names_in_.tolist() == list("abcde")
    n_outputs = 1
    if is_classifier(net):
        assert net.classes_.tolist() == ["high", "low", "middle"]
        n_outputs = 3
    assert len(output_weight(net)) == n_outputs
    net.fit(X[:, :3], y)
    assert net.n_features_in_ == 3 and not hasattr(net, "feature_names_in_")
    with pytest.raises(ValueError, match="X has 5 features, but"):
        net.predict(X)


# ---------------------------------------------------------------------- X


X_FORMS = {
    "float32": np.float32,
    "float16": np.float16,
    "int64": np.int64,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": bool,
    "object": object,
    "list": np.ndarray.tolist,
    "fortran order": np.asfortranarray,
    "every second row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "reversed view": lambda X: np.ascontiguousarray(X[:, ::-1])[:, ::-1],
    "DataFrame": pd.DataFrame,
    "DataFrame of Int64": lambda X: pd.DataFrame(X).astype("Int64"),
    "DataFrame of Float32": lambda X: pd.DataFrame(X).astype("Float32"),
    "DataFrame of boolean": lambda X: pd.DataFrame(X).astype("boolean"),
    "DataFrame of mixed dtypes": lambda X: pd.DataFrame(X).astype({0: "Int8", 1: "bool", 2: "float32", 3: "Float64"}),
    "tensor of float64": torch.from_numpy,
    "tensor of float32": lambda X: torch.from_numpy(X).float(),
    "tensor of int32": lambda X: torch.from_numpy(X).int(),
    "tensor of bool": lambda X: torch.from_numpy(X).bool(),
    "tensor of bfloat16": lambda X: torch.from_numpy(X).bfloat16(),
    "tensor with gradients": lambda X: torch.from_numpy(X).requires_grad_(),
}


@each_estimator
@pytest.mark.parametrize("form", X_FORMS)
def test_x_may_have_any_form_and_dtype(estimator, form):
    X, y = make_data(estimator)
    X = (X > 0).astype(np.float64)  # numbers that every dtype holds
    convert = X_FORMS[form] if not isinstance(X_FORMS[form], type) or form == "DataFrame" else lambda X: X.astype(X_FORMS[form])
    plain = quick(estimator).fit(X, y)
    net = quick(estimator).fit(convert(X), y)
    assert_close_weights(plain, net, rtol=1e-5)
    if is_classifier(net):
        np.testing.assert_allclose(net.predict_proba(convert(X)), plain.predict_proba(X), atol=1e-5)
    else:
        np.testing.assert_allclose(net.predict(convert(X)), plain.predict(X), rtol=1e-4, atol=1e-5)


SPARSE_FORMS = ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"]


@pytest.fixture(params=["small batches made dense", "all batches sparse"])
def sparse_batches(request, monkeypatch):
    """Both ways in which the rows of a batch reach a network."""
    if request.param == "all batches sparse":
        monkeypatch.setattr(batches, "DENSE_NUMBERS", 0)


def make_sparse_data(estimator, n_samples=60):
    random = np.random.default_rng(0)
    X = random.standard_normal((n_samples, 30)) * (random.random((n_samples, 30)) < 0.2)
    X[5] = 0  # a row without entries
    return X, make_data(estimator, n_samples)[1]


def raw(estimator, **parameters):
    """A net whose features are not scaled: sparse ones cannot be centred."""
    return quick(estimator, **{"standardize_features": False, "lr": 0.01, "optimizer": "sgd", **parameters})


@each_tabular
@pytest.mark.parametrize("form", SPARSE_FORMS)
@pytest.mark.parametrize("container", ["matrix", "array"])
@pytest.mark.usefixtures("sparse_batches")
def test_sparse_x_gives_what_dense_x_gives(estimator, form, container):
    X, y = make_sparse_data(estimator)
    as_sparse = getattr(sparse, f"{form}_{container}")
    dense = raw(estimator).fit(X, y)
    net = raw(estimator).fit(as_sparse(X), y)
    assert_close_weights(dense, net, rtol=1e-5)
    np.testing.assert_allclose(net.forward(as_sparse(X)), dense.forward(X), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(net.predict(as_sparse(X)), net.predict(X)) if is_classifier(net) else (
        np.testing.assert_allclose(net.predict(as_sparse(X)), net.predict(X), rtol=1e-10, atol=1e-10)
    )


@each_tabular
@pytest.mark.parametrize(
    "parameters",
    [
        {"early_stopping": True},
        {"dropout": 0.3},
        {"batch_norm": True},
        {"optimizer": "adam", "weight_decay": 0.1},
        {"batch_size": -1},
        {"lr_schedule": "one_cycle"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("sparse_batches")
def test_sparse_x_gives_what_dense_x_gives_whatever_the_parameters(estimator, parameters):
    X, y = make_sparse_data(estimator)
    weight = np.linspace(0.5, 2, len(y))
    dense = raw(estimator, **parameters).fit(X, y, sample_weight=weight)
    net = raw(estimator, **parameters).fit(sparse.csr_array(X), y, sample_weight=weight)
    assert_close_weights(dense, net, rtol=1e-5)
    np.testing.assert_allclose(net.loss_curve_, dense.loss_curve_, rtol=1e-5)
    np.testing.assert_allclose(net.validation_curve_, dense.validation_curve_, rtol=1e-5)


@pytest.mark.parametrize("estimator", OTHERS)
@pytest.mark.parametrize("fitted", [False, True])
def test_sparse_x_is_refused_where_rows_are_no_tables(estimator, fitted):
    X, y = make_data(estimator)
    net = quick(estimator)
    if fitted:
        net.fit(X, y)
        assert_unchanged_by(net, TypeError, lambda: net.predict(sparse.csr_array(X)), "Sparse data was passed")
    assert_unchanged_by(net, TypeError, lambda: net.fit(sparse.csr_array(X), y), "Sparse data was passed")


@each_tabular
def test_sparse_features_are_scaled_by_default(estimator):
    X, y = make_sparse_data(estimator)
    net = quick(estimator).fit(sparse.csr_array(X), y)
    rescaled = quick(estimator).fit(sparse.csr_array(X * np.geomspace(1e-3, 1e3, X.shape[1])), y)
    assert_close_weights(net, rescaled, rtol=1e-4)


@each_tabular
@pytest.mark.parametrize("parameters", [{}, {"dropout": 0.3}, {"batch_norm": True}], ids=str)
def test_sparse_x_is_never_densified_whole(estimator, parameters, monkeypatch):
    """Dense, these rows would take 0.4 GB as float32."""
    n_samples, n_features, batch_size = 1_000, 100_000, 200
    random = np.random.default_rng(0)
    coordinates = (random.integers(n_samples, size=10_000), random.integers(n_features, size=10_000))
    X = sparse.csr_array((np.ones(10_000), coordinates), shape=(n_samples, n_features))
    y = np.where(X @ np.ones(n_features) > 1.5, "many", "few") if is_classifier(estimator()) else X @ np.ones(n_features)

    def guarded(method):
        def densify(self, *args, **kwargs):
            assert self.shape[0] <= batch_size, f"{self.shape} densified"
            return method(self, *args, **kwargs)

        return densify

    for container in (sparse.csr_array, sparse.csc_array, sparse.coo_array):
        for name in ("toarray", "todense"):
            monkeypatch.setattr(container, name, guarded(getattr(container, name)))
    monkeypatch.setattr(torch.Tensor, "to_dense", guarded(torch.Tensor.to_dense))
    small = {"hidden_layer_sizes": (2,)} if "hidden_layer_sizes" in estimator().get_params() else {}
    net = quick(estimator, max_epochs=1, batch_size=batch_size, **small, **parameters)
    tracemalloc.start()
    try:
        net.fit(X, y).predict(X)
        assert len(net.forward(X)) == n_samples
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


@each_estimator
def test_a_row_is_predicted_independently_of_the_others(estimator):
    X, y = make_data(estimator, 200)
    net = quick(estimator).fit(X, y)
    predict = net.predict_proba if is_classifier(net) else net.predict
    together = predict(X)
    one_by_one = np.concatenate([predict(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(one_by_one, together, rtol=1e-12, atol=1e-12)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_allclose(predict(X[order]), together[order], rtol=1e-12, atol=1e-12)


@each_configuration
def test_inputs_are_not_modified_and_may_be_read_only(configuration):
    X, y = make_data(configuration.estimator)
    X, weight = X.astype(np.float32), np.linspace(0.5, 2, len(y))
    inputs = X, y, weight, X[:9].copy(), y[:9].copy()
    before = [each.copy() for each in inputs]
    for each in inputs:
        each.setflags(write=False)
    X, y, weight, X_val, y_val = inputs
    net = configuration.make(max_epochs=3)
    net.fit(X, y, sample_weight=weight, X_val=X_val, y_val=y_val)
    net.partial_fit(X, y).predict(X)
    for each, copied in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(each, copied)
    if not get_tags(configuration.make()).input_tags.sparse:
        return
    frozen = sparse.csr_array(X)
    for part in (frozen.data, frozen.indices, frozen.indptr):
        part.setflags(write=False)
    configuration.make(max_epochs=3).fit(frozen, y).predict(frozen)


# ---------------------------------------------------------------------- y


@each_regressor
@pytest.mark.parametrize("shape", [(60,), (60, 1), (60, 3)])
def test_predictions_have_the_shape_of_y(estimator, shape):
    X, y = make_data(estimator)
    y = y if len(shape) == 1 else np.column_stack([y * (k + 1) for k in range(shape[1])])
    net = quick(estimator).fit(X, y)
    assert net.predict(X).shape == shape
    assert net.predict(X[:1]).shape == (1, *shape[1:])
    assert net.partial_fit(X, y).predict(X).shape == shape


@each_regressor
def test_a_column_and_a_row_of_numbers_give_the_same_fit(estimator):
    X, y = make_data(estimator)
    flat, column = quick(estimator).fit(X, y), quick(estimator).fit(X, y[:, None])
    assert_same_weights(flat, column)
    np.testing.assert_array_equal(column.predict(X), flat.predict(X)[:, None])


@each_regressor
@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "int8", "uint8", "bool", "object", "Int64", "Float64"]
)
def test_y_may_have_any_dtype(estimator, dtype):
    X, y = make_data(estimator)
    y = (y > 0).astype(np.float64)
    if dtype == "bool" and estimator is MultiTaskEstimator:  # whose tasks are read off y: booleans are classes
        assert quick(estimator).fit(X, y > 0).predict(X).dtype == bool
        return
    net = quick(estimator).fit(X, pd.Series(y).astype(dtype))
    assert net.predict(X).dtype == (np.float32 if dtype == "float32" else np.float64)
    np.testing.assert_allclose(net.predict(X), quick(estimator).fit(X, y).predict(X), rtol=1e-5, atol=1e-5)


LABELS = {
    "str": np.array(["no", "perhaps", "yes"]),
    "object": np.array(["no", "perhaps", "yes"], dtype=object),
    "int": np.array([3, 5, 10]),
    "negative": np.array([-1, 0, 1]),
    "int8": np.array([-128, 0, 127], dtype=np.int8),
    "uint64": np.array([0, 1, 2**63], dtype=np.uint64),
    "float": np.array([-1.0, 0.0, 2.0]),
    "bool": np.array([False, True]),
    "two str": np.array(["a", "b"]),
    "two int": np.array([-7, 7]),
}


@each_classifier
@pytest.mark.parametrize("kind", LABELS)
def test_labels_may_be_of_any_kind(estimator, kind):
    labels = LABELS[kind]
    X, y = make_data(estimator, 100)
    index = np.unique(y, return_inverse=True)[1] % len(labels)
    net = quick(estimator, max_epochs=15, lr=0.05).fit(X, labels[index])
    assert net.classes_.dtype == labels.dtype and net.classes_.tolist() == labels.tolist()
    predicted = net.predict(X)
    assert predicted.dtype == labels.dtype and predicted.shape == (100,)
    assert set(predicted.tolist()) <= set(labels.tolist())
    same = quick(estimator, max_epochs=15, lr=0.05).fit(X, index)
    assert_same_weights(net, same)
    np.testing.assert_array_equal(predicted, labels[same.predict(X)])
    probabilities = net.predict_proba(X)
    assert probabilities.shape == (100, len(labels))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(labels[probabilities.argmax(axis=1)], predicted)
    decision = net.decision_function(X)
    by_decision = (decision > 0).astype(int) if len(labels) == 2 else decision.argmax(axis=1)
    np.testing.assert_array_equal(labels[by_decision], predicted)
    assert net.score(X, labels[index]) == np.mean(labels[index] == predicted)
    if kind == "uint64":
        return  # scikit-learn's metrics warn of numbers that are no int64
    for y in (labels[index], labels[index].tolist(), pd.Series(labels[index])):
        assert net.score(X, y) == accuracy_score(y, predicted)
    weight = np.linspace(0, 1, 100)
    assert net.score(X, labels[index], weight) == accuracy_score(labels[index], predicted, sample_weight=weight)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        net.score(X, labels[index][:-1])


@each_classifier
@pytest.mark.parametrize("dtype", ["category", "str", "object"])
def test_labels_may_be_a_pandas_series(estimator, dtype):
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, pd.Series(y).astype(dtype))
    assert_same_weights(quick(estimator).fit(X, y), net)
    np.testing.assert_array_equal(net.classes_.astype(str), ["high", "low", "middle"])


@each_classifier
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array, pd.DataFrame])
def test_several_labels_per_row(estimator, container):
    X, _ = make_data(estimator, 200)
    y = np.column_stack([X[:, 0] > 0, X[:, 1] > 1, X[:, 0] + X[:, 4] > 0]).astype(int)
    net = quick(estimator, max_epochs=30, lr=learning_rate(estimator)).fit(X, container(y))
    predicted, probabilities = net.predict(X), net.predict_proba(X)
    assert predicted.shape == probabilities.shape == net.decision_function(X).shape == y.shape
    assert (predicted == y).mean() > 0.9
    np.testing.assert_array_equal(predicted, probabilities > 0.5)
    assert net.classes_.tolist() == [0, 1, 2]
    separate = [quick(estimator).fit(X, y[:, k]).n_features_in_ for k in range(3)]
    assert separate == [5, 5, 5]


@each_classifier
def test_several_labels_need_a_criterion_for_indicators(estimator):
    X, _ = make_data(estimator)
    y = (X[:, :3] > 0).astype(int)
    with pytest.raises(InvalidInputError, match="criterion that takes indicators, such as 'bce'"):
        quick(estimator, criterion="cross_entropy").fit(X, y)
    with pytest.raises(InvalidInputError, match="use MultiOutputClassifier"):
        quick(estimator).fit(X, (X[:, :3] * 2).round().astype(int))


@each_classifier
@pytest.mark.parametrize("criterion", ["bce", "cross_entropy"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_each_criterion_takes_any_number_of_classes(estimator, criterion, n_classes):
    X, y = make_data(estimator, 200)
    y = y if n_classes == 3 else np.where(y == "middle", "low", y)
    net = quick(estimator, max_epochs=30, lr=learning_rate(estimator), criterion=criterion).fit(X, y)
    assert net.score(X, y) > 0.85
    np.testing.assert_allclose(net.predict_proba(X).sum(axis=1), 1)


@each_estimator
def test_shapes_of_y_that_would_broadcast_are_errors(estimator):
    X, y = make_data(estimator)
    third = [] if estimator in TO_SEQUENCES else [np.stack([y[:, None]] * 2, axis=2)]
    for bad in (y[:1], y[None, :], y[:-1], *third):
        with pytest.raises(ValueError, match=r"."):
            quick(estimator).fit(X, bad)
    net = quick(estimator).fit(X, y)
    two_columns = np.column_stack([y, y])
    for refit in (net.partial_fit, quick(estimator, warm_start=True).fit(X, y).fit):
        with pytest.raises(ValueError, match=r"outputs|form|one column"):
            refit(X, two_columns)
    with pytest.raises(ValueError, match=r"outputs|form|one column"):
        quick(estimator).fit(X, y, X_val=X, y_val=two_columns)


# ---------------------------------------------------------------------- fit(X, y, sample_weight, X_val, y_val)


@each_configuration
def test_sample_weights_enter_the_loss(configuration):
    X, y = make_data(configuration.estimator)
    weight = np.linspace(0, 2, len(y))
    parameters = known(configuration, max_epochs=3, early_stopping=False, dropout=0.0, class_weight=None, batch_size=-1)
    net = configuration.make(**parameters).fit(X, y, sample_weight=weight)
    first = configuration.make(**parameters | {"lr": 1e-30}).fit(X, y, sample_weight=weight)
    first.module_.train()
    rows = weight > 0
    targets = encoded(net, y[rows])
    inputs, share = net._encode_X(net._read_X(X[rows])), torch.from_numpy(weight[rows] / weight.sum()).float()
    weights = (share,) if getattr(first.module_, "takes_sample_weight", False) else ()
    with torch.no_grad():
        losses = first.criterion_(first.module_(first._encode_batch(inputs), *weights), targets).reshape(len(share), -1).mean(1)
    assert net.loss_curve_[0] == pytest.approx(float(losses @ share), rel=1e-5)


@settings(max_examples=15)
@given(weights=st.lists(st.integers(0, 4), min_size=24, max_size=24).filter(lambda w: sum(n > 0 for n in w[:12]) > 3))
@each_configuration
def test_integer_weights_equal_repeated_rows(configuration, weights):
    """Exactly, where one batch holds all rows; else the batches differ."""
    X, y = make_data(configuration.estimator, 24)
    if is_classifier(configuration.estimator()):
        y = np.where(np.arange(24) % 2, "a", "b")
    weights = np.array([*weights[:-2], 1, 1])
    parameters = {"max_epochs": 5, "batch_size": -1}
    weighted = configuration.make(**parameters).fit(X, y, sample_weight=weights)
    repeated = configuration.make(**parameters).fit(np.repeat(X, weights, axis=0), np.repeat(y, weights))
    if configuration.make().early_stopping:  # the sums of the validation loss are rounded differently
        np.testing.assert_allclose(repeated.validation_curve_, weighted.validation_curve_, rtol=1e-5)
    else:
        assert_same_weights(weighted, repeated)
        predict = "predict_proba" if is_classifier(weighted) else "predict"
        np.testing.assert_array_equal(getattr(weighted, predict)(X), getattr(repeated, predict)(X))


@each_configuration
def test_the_scale_of_the_weights_does_not_matter(configuration):
    X, y = make_data(configuration.estimator)
    weight = np.random.default_rng(1).uniform(0.1, 2, len(y))
    net, doubled, large = (
        configuration.make(max_epochs=3).fit(X, y, sample_weight=weight * scale) for scale in (1, 2, 1e6 / 3)
    )
    assert_same_weights(net, doubled)
    assert_close_weights(net, large, rtol=1e-4)
    plain, constant = (configuration.make(max_epochs=3).fit(X, y, sample_weight=w) for w in (None, np.full(len(y), 7.3)))
    assert_same_weights(plain, constant)


@each_configuration
def test_a_weight_of_zero_is_no_row(configuration):
    X, y = make_data(configuration.estimator)
    without = configuration.make(max_epochs=3).fit(X[:40], y[:40])
    net = configuration.make(max_epochs=3).fit(X, y, sample_weight=np.repeat([1, 0], [40, 20]))
    assert_same_weights(without, net)
    with pytest.raises(ValueError, match="at least one non-zero number"):
        configuration.make().fit(X, y, sample_weight=np.zeros(len(y)))


@each_estimator
@pytest.mark.parametrize("weight", [np.ones(59), np.full(60, np.nan), np.full(60, -1.0), np.ones((60, 2)), ["a"] * 60])
def test_weights_that_make_no_sense_are_errors(estimator, weight):
    X, y = make_data(estimator)
    with pytest.raises(ValueError, match=r"[Ss]ample.weight|could not convert"):
        quick(estimator).fit(X, y, sample_weight=weight)


def unscaled(estimator, **parameters):
    """A net whose features are not scaled: the scales follow sample weights, and not class weights."""
    return quick(estimator, standardize_features=False, **parameters)


@each_classifier
def test_class_weights_are_sample_weights(estimator):
    X, y = make_data(estimator)
    y = np.where(np.arange(len(y)) < 10, "low", y)
    by_class = {"low": 0.5, "high": 3.0, "middle": 1.25}
    net = unscaled(estimator, class_weight=by_class).fit(X, y)
    assert_same_weights(unscaled(estimator).fit(X, y, sample_weight=[by_class[label] for label in y]), net)
    balanced = unscaled(estimator, class_weight="balanced").fit(X, y)
    assert_same_weights(unscaled(estimator).fit(X, y, sample_weight=compute_sample_weight("balanced", y)), balanced)
    weight = np.linspace(0.5, 2, len(y))
    both = unscaled(estimator, class_weight=by_class).fit(X, y, sample_weight=weight)
    product = unscaled(estimator).fit(X, y, sample_weight=weight * [by_class[label] for label in y])
    assert_close_weights(product, both, rtol=1e-6)


@each_classifier
def test_class_weights_of_several_labels_multiply(estimator):
    X, _ = make_data(estimator)
    y = (X[:, :3] > 0.3).astype(int)
    net = unscaled(estimator, class_weight="balanced").fit(X, y)
    assert_close_weights(unscaled(estimator).fit(X, y, sample_weight=compute_sample_weight("balanced", y)), net, rtol=1e-6)
    with pytest.raises(InvalidInputError, match="class_weight must be 'balanced' or None"):
        unscaled(estimator, class_weight={0: 1.0}).fit(X, y)


def validation_loss(net, X, y) -> float:
    """By torch's criterion, from the outputs."""
    with torch.no_grad():
        losses = net.criterion_(net.forward(X), encoded(net, y))
    return float(losses.mean())


@each_configuration
def test_a_validation_set_may_be_given(configuration):
    X, y = make_data(configuration.estimator, 90)
    X, X_val, y, y_val = X[:60], X[60:], y[:60], y[60:]
    net = configuration.make(max_epochs=6, early_stopping=False).fit(X, y, X_val=X_val, y_val=y_val)
    assert len(net.validation_curve_) == 6
    class_weight = net.get_params().get("class_weight")
    if class_weight is None:
        assert validation_loss(net, X_val, y_val) == pytest.approx(net.validation_curve_[-1], rel=1e-5)
    else:
        weight = compute_sample_weight(class_weight, y_val)
        losses = net.criterion_(net.forward(X_val), encoded(net, y_val)).detach().numpy()
        assert np.average(losses, weights=weight) == pytest.approx(net.validation_curve_[-1], rel=1e-5)
    without = configuration.make(max_epochs=6, early_stopping=False).fit(X, y)
    assert_same_weights(net, without)
    assert without.validation_curve_.shape == (0,)
    for half in ({"X_val": X_val}, {"y_val": y_val}):
        with pytest.raises(InvalidInputError, match="X_val and y_val must be given together"):
            configuration.make().fit(X, y, **half)


@each_estimator
def test_the_best_weights_are_kept(estimator):
    X, y = make_data(estimator, 90)
    X_val = X[60:] + 3 * np.random.default_rng(0).standard_normal((30, 5))
    steady = {"optimizer": "adam", "lr": 0.05, "standardize_features": True}
    net = quick(estimator, max_epochs=60, early_stopping=True, n_iter_no_change=5, **steady)
    net.fit(X[:60], y[:60], X_val=X_val, y_val=y[60:])
    assert net.n_iter_ < 60
    assert net.validation_curve_[-1] > net.validation_curve_.min()
    assert validation_loss(net, X_val, y[60:]) == pytest.approx(net.validation_curve_.min(), rel=1e-5)
    assert net.best_epoch_ == net.validation_curve_.argmin() + 1
    until_best = quick(estimator, max_epochs=net.best_epoch_, **steady).fit(X[:60], y[:60])
    assert_same_weights(until_best, net)


@each_estimator
def test_early_stopping_counts_epochs_without_improvement(estimator):
    X, y = make_data(estimator)
    parameters = {"max_epochs": 30, "early_stopping": True, "n_iter_no_change": 3}
    assert quick(estimator, tol=1e9, **parameters).fit(X, y).n_iter_ == 4
    net = quick(estimator, tol=0.0, lr=1e-9, optimizer="sgd", **parameters).fit(X, y)
    assert net.n_iter_ <= 30


@each_estimator
def test_early_stopping_holds_out_the_fraction_and_trains_on_the_rest(estimator):
    X, y = make_data(estimator, 100)
    sizes = []

    class Watching(estimator):
        def _make_job(self, data, valid, max_epochs, *, new):
            sizes.append((data.number.tolist(), valid.number.tolist()))
            return super()._make_job(data, valid, max_epochs, new=new)

    for seed in (0, 0, 1):
        quick(Watching, early_stopping=True, validation_fraction=0.3, random_state=seed).fit(X, y)
    for train, valid in sizes:
        assert sorted(train + valid) == list(range(100))
        assert len(valid) == pytest.approx(30, abs=1)
        if is_classifier(estimator()):
            shares = [np.mean(y[valid] == label) for label in np.unique(y)]
            np.testing.assert_allclose(shares, [np.mean(y == label) for label in np.unique(y)], atol=0.03)
    assert sizes[0] == sizes[1] != sizes[2]


@each_configuration
def test_nothing_is_held_out_unless_asked_for(configuration):
    """The first loss of a full batch is that of all rows with the first weights."""
    X, y = make_data(configuration.estimator)
    plain = {"early_stopping": False, "dropout": 0.0, "batch_norm": False, "normalization": None}
    parameters = known(configuration, **plain, class_weight=None, loss_scaling=None)
    net = configuration.make(**parameters | {"max_epochs": 1, "batch_size": -1}).fit(X, y)
    start = configuration.make(**parameters).initialize(X, y)
    assert validation_loss(start, X, y) == pytest.approx(net.loss_curve_[0], rel=1e-5)


@each_estimator
def test_metadata_routing_carries_weights_and_validation_sets(estimator):
    X, y = make_data(estimator, 90)
    X, X_val, y, y_val = 100 * X[:60], 100 * X[60:], y[:60], y[60:]
    weight = np.linspace(0.5, 2, 60)
    by_hand = StandardScaler().fit(X)
    expected = quick(estimator, standardize_features=False)
    expected.fit(by_hand.transform(X), y, sample_weight=weight, X_val=by_hand.transform(X_val), y_val=y_val)
    with sklearn.config_context(enable_metadata_routing=True):
        net = quick(estimator, standardize_features=False)
        net.set_fit_request(sample_weight=True, X_val=True, y_val=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = Pipeline([("scale", scaler), ("net", net)], transform_input=["X_val"])
        pipeline.fit(X, y, sample_weight=weight, X_val=X_val, y_val=y_val)
    np.testing.assert_allclose(pipeline[-1].validation_curve_, expected.validation_curve_, rtol=1e-6)
    assert_close_weights(expected, pipeline[-1], rtol=1e-6)


# ---------------------------------------------------------------------- partial_fit, warm_start


def steady(configuration, **parameters):
    """A net whose learning rate stays as it is: a schedule starts anew with each call."""
    if configuration.make().optimizer == "auto":
        parameters = {"optimizer": "adam", "standardize_features": True, **parameters}
    return configuration.make(lr_schedule=None, batch_size=16, **parameters)


@each_configuration
def test_partial_fit_trains_one_epoch_a_call(configuration):
    """As many calls as epochs give the weights that fit gives, bit for bit."""
    X, y = make_data(configuration.estimator)
    fitted = steady(configuration, max_epochs=5, early_stopping=False).fit(X, y)
    net = steady(configuration, max_epochs=5)
    for epoch in range(1, 6):
        assert net.partial_fit(X, y).n_iter_ == epoch
    assert_same_weights(fitted, net)
    np.testing.assert_array_equal(net.loss_curve_, fitted.loss_curve_)


@each_classifier
def test_partial_fit_takes_all_classes_first(estimator):
    X, y = make_data(estimator)
    first = y != "middle"
    net = quick(estimator).partial_fit(X[first], y[first], classes=["middle", "low", "high"])
    assert net.classes_.tolist() == ["high", "low", "middle"]
    net.partial_fit(X[~first], y[~first])
    assert net.n_iter_ == 2
    with pytest.raises(InvalidInputError, match=r"labels that are not in classes: \['other'\]"):
        net.partial_fit(X, np.where(first, y, "other"))
    with pytest.raises(InvalidInputError, match="labels that are not in classes"):
        quick(estimator).partial_fit(X, y, classes=["low", "high"])
    only_one = quick(estimator).partial_fit(X[:3], ["low"] * 3, classes=["low", "high"])
    assert only_one.predict(X).shape == (60,)


@each_estimator
def test_partial_fit_takes_weights_and_sets_of_any_size(estimator):
    X, y = make_data(estimator)
    net = quick(estimator)
    for rows in (slice(0, 60), slice(0, 20), slice(5, 6), slice(0, 33)):
        net.partial_fit(X[rows], y[rows], **({"classes": np.unique(y)} if is_classifier(net) and not net.initialized_ else {}))
    before = weights_of(net)
    net.partial_fit(X, y, sample_weight=np.linspace(0, 2, 60))
    assert net.n_iter_ == 5
    assert (output_weight(net) != before[output_name(net)]).any()
    with pytest.raises(ValueError, match="X has 4 features"):
        net.partial_fit(X[:, :4], y)


@each_configuration
def test_warm_start_goes_on(configuration):
    X, y = make_data(configuration.estimator)
    whole = steady(configuration, max_epochs=6, early_stopping=False).fit(X, y)
    net = steady(configuration, max_epochs=2, early_stopping=False, warm_start=True).fit(X, y)
    net.set_params(max_epochs=4).fit(X, y)
    assert net.n_iter_ == 6
    np.testing.assert_array_equal(net.loss_curve_, whole.loss_curve_)
    assert_same_weights(whole, net)
    with pytest.raises(ValueError, match="X has 4 features"):
        net.fit(X[:, :4], y)


@each_configuration
def test_a_second_fit_starts_anew(configuration):
    X, y = make_data(configuration.estimator)
    once = configuration.make(max_epochs=3).fit(X, y)
    net = configuration.make(max_epochs=3).fit(X[:30, :3], y[:30])
    net.fit(X, y)
    assert net.n_iter_ == 3 and net.loss_curve_.shape == (3,)
    assert_same_weights(once, net)


# ---------------------------------------------------------------------- seeds


@each_configuration
@pytest.mark.usefixtures("global_generators_untouched")
def test_a_seed_fixes_everything(configuration):
    X, y = make_data(configuration.estimator)
    one, same, other = (configuration.make(max_epochs=4, random_state=seed).fit(X, y) for seed in (3, 3, 4))
    assert_same_weights(one, same)
    assert (output_weight(one) != output_weight(other)).all()
    numpy_int = configuration.make(max_epochs=4, random_state=np.int64(3)).fit(X, y)
    assert_same_weights(one, numpy_int)
    state, again = np.random.RandomState(5), np.random.RandomState(5)
    by_state = configuration.make(max_epochs=4, random_state=state).fit(X, y)
    assert_same_weights(by_state, configuration.make(max_epochs=4, random_state=again).fit(X, y))
    next_of_state = configuration.make(max_epochs=4, random_state=state).fit(X, y)
    assert (output_weight(by_state) != output_weight(next_of_state)).all()


@each_configuration
@pytest.mark.usefixtures("global_generators_untouched")
def test_without_a_seed_every_fit_differs(configuration):
    X, y = make_data(configuration.estimator)
    one, other = (configuration.make(max_epochs=2, random_state=None).fit(X, y) for _ in range(2))
    assert (output_weight(one) != output_weight(other)).all()


def with_own_loss(estimator):
    class Own(estimator):
        def get_loss(self, *args, **kwargs):
            return super().get_loss(*args, **kwargs)

    return Own


NETWORKS = {"stacked": lambda estimator: estimator, "own network": with_own_network, "own loss": with_own_loss}


@pytest.mark.parametrize(
    ("estimator", "network"), [(e, n) for e in ESTIMATORS for n in NETWORKS if n != "own network" or e in TABULAR]
)
def test_the_global_generators_are_neither_read_nor_moved(estimator, network):
    X, y = make_data(estimator)
    own = NETWORKS[network](estimator)
    noise = {} if network == "own network" else {"dropout": 0.3}
    nets = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        expected = random.Random(seed).random(), np.random.RandomState(seed).rand(), torch.Generator().manual_seed(seed)
        nets.append(quick(own, early_stopping=True, **noise).fit(X, y).partial_fit(X, y))
        nets[-1].predict(X)
        drawn = random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002
        assert drawn[:2] == expected[:2]
        assert torch.equal(drawn[2], torch.rand(3, generator=expected[2]))
    assert_same_weights(*nets)


OPTIMIZERS_OF_THE_STACK = {
    "sgd": {},
    "sgd momentum": {"optimizer__momentum": 0.9},
    "sgd nesterov": {"optimizer__momentum": 0.9, "optimizer__nesterov": True, "weight_decay": 0.1},
    "sgd dampening": {"optimizer__momentum": 0.9, "optimizer__dampening": 0.3},
    "adam": {"weight_decay": 0.1},
    "adam betas": {"optimizer__betas": (0.5, 0.9), "optimizer__eps": 1e-3},
    "adamw": {"weight_decay": 0.1},
    "rmsprop": {"optimizer__alpha": 0.9},
    "rmsprop centered": {"optimizer__centered": True, "optimizer__momentum": 0.5, "weight_decay": 0.1},
    "adagrad": {"optimizer__lr_decay": 0.01, "optimizer__initial_accumulator_value": 0.1, "weight_decay": 0.1},
}


def both_ways(estimator, rtol=1e-4, **parameters):
    """Assert that a net trains the same as a stack and by skorch's ladder."""
    X, y = make_data(estimator)
    if parameters.get("criterion") == "poisson_nll":
        y = np.exp(0.1 * y)  # as rates are, and no negative number is
    weight = np.linspace(0.5, 2, len(y))
    for arguments in ({}, {"sample_weight": weight, "X_val": X[::2], "y_val": y[::2]}):
        stacked = quick(estimator, **parameters)
        assert stacked._why_alone() is None
        stacked.fit(X, y, **arguments)
        climbed = alone(stacked).fit(X, y, **arguments)
        assert_close_weights(stacked, climbed, rtol)
        np.testing.assert_allclose(climbed.loss_curve_, stacked.loss_curve_, rtol=rtol)
        np.testing.assert_allclose(climbed.validation_curve_, stacked.validation_curve_, rtol=rtol)
        assert climbed.best_epoch_ == stacked.best_epoch_


@each_configuration
def test_a_stack_and_the_ladder_train_the_same(configuration):
    both_ways(configuration.estimator, **{**configuration.parameters, "max_epochs": 4})


@each_tabular
@pytest.mark.parametrize("optimizer", OPTIMIZERS_OF_THE_STACK)
def test_a_stack_and_the_ladder_train_the_same_by_each_optimizer(estimator, optimizer):
    both_ways(estimator, optimizer=optimizer.split()[0], lr=0.01, **OPTIMIZERS_OF_THE_STACK[optimizer])


@each_tabular
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_stack_and_the_ladder_train_the_same_with_each_activation(estimator, activation):
    both_ways(estimator, activation=activation, optimizer="sgd", lr=0.01, standardize_features=True)


@pytest.mark.parametrize(
    ("estimator", "criterion"),
    [(each, criterion) for each in REGRESSORS for criterion in REGRESSION_CRITERIA]
    + [(each, criterion) for each in CLASSIFIERS for criterion in CLASSIFICATION_CRITERIA],
)
def test_a_stack_and_the_ladder_train_the_same_by_each_criterion(estimator, criterion):
    both_ways(estimator, criterion=criterion, optimizer="sgd", lr=0.01, standardize_features=True)


@each_tabular
@pytest.mark.parametrize(
    "parameters",
    [
        {"dropout": 0.4},
        {"batch_norm": True},
        {"batch_norm": True, "dropout": 0.4, "batch_size": 59},
        {"max_grad_norm": 0.1},
        {"shuffle": False},
        {"batch_size": -1},
        {"batch_size": 1},
        {"batch_size": 60},
        {"batch_size": 1000},
        {"early_stopping": True, "n_iter_no_change": 2, "tol": 0.1, "max_epochs": 15},
        *({"lr_schedule": name, "max_epochs": 12} for name in SCHEDULES),
        {"lr_schedule": torch.optim.lr_scheduler.CyclicLR, "lr_schedule__base_lr": 1e-3, "lr_schedule__max_lr": 1e-2}
        | {"lr_schedule__cycle_momentum": False, "lr_schedule__step_every": "batch"},
        *({"initialization": name} for name in INITIALIZATIONS),
    ],
    ids=lambda parameters: " ".join(f"{name}={value}" for name, value in parameters.items()),
)
def test_a_stack_and_the_ladder_train_the_same_whatever_the_parameters(estimator, parameters):
    both_ways(estimator, **parameters)


# ---------------------------------------------------------------------- device


@each_estimator
@pytest.mark.parametrize("device", ["auto", "cpu", torch.device("cpu")])
def test_the_device_is_found_or_given(estimator, device):
    X, y = make_data(estimator)
    net = quick(estimator, device=device).fit(X, y)
    assert net.device == device
    expected = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    assert net.device_.type == expected
    assert all(p.device.type == expected for p in net.module_.parameters())


@each_estimator
def test_an_unknown_device_is_an_error(estimator):
    X, y = make_data(estimator)
    with pytest.raises((RuntimeError, ValueError), match="device"):
        quick(estimator, device="abacus").fit(X, y)


@each_configuration
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_computes_what_a_cpu_computes(configuration):
    X, y = make_data(configuration.estimator)
    parameters = known(configuration, max_epochs=3, dropout=0.0)
    on_cpu = configuration.make(**parameters, device="cpu").fit(X, y)
    on_gpu = configuration.make(**parameters, device="cuda").fit(X, y)
    assert next(on_gpu.module_.parameters()).device.type == "cuda"
    assert_close_weights(on_cpu, on_gpu, rtol=1e-3)
    back = pickle.loads(pickle.dumps(on_gpu))
    np.testing.assert_array_equal(back.predict(X), on_gpu.predict(X))
    configuration.make(max_epochs=3, device="cuda").fit(X, y).partial_fit(X, y)


# ---------------------------------------------------------------------- names: fitted attributes


@each_configuration
def test_fitted_attributes_tell_of_the_training(configuration):
    X, y = make_data(configuration.estimator)
    net = configuration.make(max_epochs=7, early_stopping=False).fit(X, y)
    assert net.n_iter_ == 7
    assert net.loss_curve_.shape == (7,) and net.loss_curve_.dtype == np.float64
    assert net.validation_curve_.shape == (0,)
    assert net.best_epoch_ == net.loss_curve_.argmin() + 1
    np.testing.assert_array_equal(net.loss_curve_, net.history[:, "train_loss"])
    assert net.loss_curve_[-1] < net.loss_curve_[0]
    net.fit(X, y, X_val=X, y_val=y)
    assert net.validation_curve_.shape == (7,)
    assert net.best_epoch_ == net.validation_curve_.argmin() + 1
    np.testing.assert_array_equal(net.validation_curve_, net.history[:, "valid_loss"])
    assert [row["epoch"] for row in net.history] == [1, 2, 3, 4, 5, 6, 7]


@each_estimator
def test_the_loss_curve_is_the_mean_over_rows(estimator):
    """With a learning rate of next to nothing, batches of unequal size add up to the loss of all rows."""
    X, y = make_data(estimator, 50)
    net = quick(estimator, batch_size=16, lr=1e-30, optimizer="sgd", max_epochs=1)
    if "normalization" in vars(net):
        net.set_params(normalization=None)  # each batch by its own statistics, there
    net.fit(X, y)
    assert net.loss_curve_[0] == pytest.approx(validation_loss(net, X, y), rel=1e-5)
    climbed = alone(net).fit(X, y)
    assert climbed.loss_curve_[0] == pytest.approx(validation_loss(net, X, y), rel=1e-5)


# ---------------------------------------------------------------------- copies and files


def through_joblib(net):
    file = io.BytesIO()
    joblib.dump(net, file)
    file.seek(0)
    return joblib.load(file)


COPIES = {"pickle": lambda net: pickle.loads(pickle.dumps(net)), "joblib": through_joblib, "deepcopy": copy.deepcopy}


@each_configuration
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_predicts_the_same_and_trains_on_the_same(configuration, way):
    X, y = make_data(configuration.estimator)
    net = configuration.make(max_epochs=3, batch_size=16).fit(X, y)
    same = COPIES[way](net)
    np.testing.assert_array_equal(same.predict(X), net.predict(X))
    assert described(same) == described(net)
    assert_same_weights(net, same)
    for _ in range(2):
        net.partial_fit(X, y)
        same.partial_fit(X, y)
    assert_same_weights(net, same)
    assert_same_weights(clone(net).fit(X, y), same.fit(X, y))


@each_estimator
@pytest.mark.parametrize("parameters", [{"dropout": 0.3}, {"optimizer": "adagrad"}, {"optimizer": "lbfgs", "batch_size": -1}])
def test_a_copy_of_a_net_on_the_ladder_trains_on_the_same(estimator, parameters):
    X, y = make_data(estimator)
    net = alone(quick(estimator, **parameters, lr=0.01)).fit(X, y)
    same = pickle.loads(pickle.dumps(net))
    assert_same_weights(net.partial_fit(X, y), same.partial_fit(X, y))


@each_configuration
def test_an_unfitted_net_can_be_copied(configuration):
    for copied in (way(configuration.make()) for way in COPIES.values()):
        assert described(copied) == described(configuration.make())
        assert not copied.__sklearn_is_fitted__()


@each_configuration
@pytest.mark.parametrize("use_safetensors", [False, True])
@pytest.mark.parametrize("target", ["path", "str", "file"])
def test_saved_weights_predict_in_a_fresh_net(configuration, use_safetensors, target, tmp_path):
    X, y = make_data(configuration.estimator)
    frame = pd.DataFrame(X, columns=list("abcde"))
    y = y if is_classifier(configuration.estimator()) else 1000 + 50 * y
    net = configuration.make(max_epochs=3).fit(frame, y)
    path = {"path": tmp_path / "weights", "str": str(tmp_path / "weights"), "file": io.BytesIO()}[target]
    net.save_params(f_params=path, use_safetensors=use_safetensors)
    if target == "file":
        path.seek(0)
    fresh = configuration.make(max_epochs=3)
    fresh.load_params(f_params=path, use_safetensors=use_safetensors)
    np.testing.assert_array_equal(fresh.predict(frame), net.predict(frame))
    assert fresh.feature_names_in_.tolist() == list("abcde") and fresh.n_features_in_ == 5
    if is_classifier(net):
        assert fresh.classes_.dtype == net.classes_.dtype and fresh.classes_.tolist() == net.classes_.tolist()
    fresh.partial_fit(frame, y).fit(frame, y)
    assert_same_weights(net, fresh)


@each_classifier
@pytest.mark.parametrize("kind", LABELS)
def test_saved_classes_keep_their_kind(estimator, kind, tmp_path):
    X, _ = make_data(estimator)
    net = quick(estimator).fit(X, LABELS[kind][np.arange(60) % len(LABELS[kind])])
    net.save_params(f_params=tmp_path / "weights")
    fresh = quick(estimator)
    fresh.load_params(f_params=tmp_path / "weights")
    assert fresh.predict(X).dtype == LABELS[kind].dtype
    np.testing.assert_array_equal(fresh.predict(X), net.predict(X))


@each_estimator
def test_loaded_weights_replace_those_of_a_fitted_net(estimator, tmp_path):
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, y)
    net.save_params(f_params=tmp_path / "weights")
    fitted = quick(estimator, random_state=1).fit(X[:, :3], y)
    fitted.load_params(f_params=tmp_path / "weights")
    assert_same_weights(net, fitted)
    np.testing.assert_array_equal(fitted.predict(X), net.predict(X))


@each_estimator
def test_weights_may_be_saved_and_loaded_by_skorchs_other_name(estimator, tmp_path):
    net = quick(estimator).fit(*make_data(estimator))
    net.save_params(f_module=tmp_path / "weights")
    fresh = quick(estimator)
    fresh.load_params(f_module=tmp_path / "weights")
    assert_same_weights(net, fresh)


@each_estimator
def test_states_of_optimizer_and_history_are_saved_too(estimator, tmp_path):
    X, y = make_data(estimator)
    net = quick(estimator, optimizer="adam").fit(X, y)
    files = {name: tmp_path / name for name in ("f_params", "f_optimizer", "f_criterion", "f_history")}
    net.save_params(**files)
    fresh = quick(estimator, optimizer="adam")
    fresh.load_params(**files)
    assert len(fresh.history) == 4
    assert fresh.device == "auto"
    states = [list(each.optimizer_.state.values()) for each in (net, fresh)]
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in zip(*states, strict=True))


def generators_of(net) -> dict[str, np.ndarray]:
    """Give the states of all generators of an estimator that has any."""
    streams = vars(net).get("streams_")
    return {} if streams is None else {name: getattr(streams, name).get_state().numpy() for name in streams.NAMES}


def assert_unchanged_by(net, error, call, match=None):
    """Assert that a call fails with a clear error and leaves no trace in an estimator."""
    before = vars(net).copy()
    weights = weights_of(net) if net.initialized_ else None
    generators = generators_of(net)
    with pytest.raises(error, match=match) as caught:
        call()
    assert vars(net).keys() == before.keys()
    assert all(vars(net)[name] is value for name, value in before.items())
    if weights is not None:
        assert not net.module_.training
        for name, weight in weights_of(net).items():
            np.testing.assert_array_equal(weight, weights[name])
    for name, state in generators_of(net).items():
        np.testing.assert_array_equal(state, generators[name], err_msg=f"generator {name}")
    assert len(str(caught.value)) > 15, "an error says what is wrong"


@each_estimator
@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("use_safetensors", [False, True])
def test_a_file_that_does_not_fit_changes_nothing(estimator, fitted, use_safetensors, tmp_path):
    X, y = make_data(estimator)
    good = tmp_path / "good"
    quick(estimator).fit(X, y).save_params(f_params=good, use_safetensors=use_safetensors)
    of_another_network = {"fit_intercept": False, "hidden_layer_sizes": 3, "channels": (3,), "d_model": 12}
    name = next(name for name in of_another_network if name in vars(estimator()))
    net = quick(estimator, **{name: of_another_network[name]})
    if fitted:
        net.fit(X, y)

    def load(path, **kwargs):
        return lambda: net.load_params(f_params=path, **{"use_safetensors": use_safetensors, **kwargs})

    assert_unchanged_by(net, InvalidInputError, load(good), "weights do not fit the network of")
    message = f"must be one of {'safetensors' if use_safetensors else 'torch'}"
    for name, content in {
        "truncated": good.read_bytes()[:-200],
        "header alone": good.read_bytes()[:20],
        "empty": b"",
        "text": b"no weights at all" * 10,
    }.items():
        (tmp_path / name).write_bytes(content)
        assert_unchanged_by(net, InvalidInputError, load(tmp_path / name), message)
    assert_unchanged_by(net, InvalidInputError, load(good, use_safetensors=not use_safetensors), "pass use_safetensors=")
    other = next(each for each in ESTIMATORS if each is not estimator)
    quick(other).fit(*make_data(other)).save_params(f_params=tmp_path / "other", use_safetensors=use_safetensors)
    message = f"saved by {other.__name__}, not by {estimator.__name__}"
    assert_unchanged_by(net, InvalidInputError, load(tmp_path / "other"), message)
    assert_unchanged_by(net, OSError, load(tmp_path / "missing"), "missing")


class Exploding:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return (pytest.fail, ("a file of weights ran code",))


@each_estimator
def test_a_file_of_weights_runs_no_code(estimator, tmp_path):
    torch.save({"output.weight": Exploding()}, tmp_path / "weights")
    net = quick(estimator).fit(*make_data(estimator))
    assert_unchanged_by(net, InvalidInputError, lambda: net.load_params(f_params=tmp_path / "weights"))


@each_estimator
def test_plain_weights_of_torch_can_be_loaded_where_sizes_are_known(estimator, tmp_path):
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, y)
    torch.save(net.module_.state_dict(), tmp_path / "weights")
    with pytest.raises(NotSizedError, match="weights alone"):
        quick(estimator).load_params(f_params=tmp_path / "weights")
    sized = quick(estimator, random_state=1).initialize(X, y)
    sized.load_params(f_params=tmp_path / "weights")
    assert_same_weights(net, sized)


# ---------------------------------------------------------------------- errors, before training starts


def with_entry(value):
    def spoil(X):
        X = X.copy()
        X[3, 2] = value
        return X

    return spoil


BAD_X = {
    "NaN": (with_entry(np.nan), "NaN"),
    "infinity": (with_entry(np.inf), "infinity"),
    "minus infinity": (with_entry(-np.inf), "infinity"),
    "1e300": (with_entry(1e300), "infinity or a value too large"),
    "one dimension": (lambda X: X[:, 0], "Expected 2D array, got 1D array"),
    "three dimensions": (lambda X: X[:, :, None], "with dim 3"),
    "no rows": (lambda X: X[:0], r"0 sample\(s\)"),
    "no columns": (lambda X: X[:, :0], r"0 feature\(s\)"),
    "too few rows": (lambda X: X[:-1], "inconsistent numbers of samples"),
    "words": (lambda X: np.full(X.shape, "word"), "could not convert|dtype|non-numeric"),
    "complex": (lambda X: X + 1j, "Complex data not supported"),
    "sparse NaN": (lambda X: sparse.csr_array(with_entry(np.nan)(X)), "NaN"),
    "sparse 1e300": (lambda X: sparse.csr_array(with_entry(1e300)(X)), "infinity or a value too large"),
}


TABLES_ALONE = ("three dimensions", "sparse NaN", "sparse 1e300")


@pytest.mark.parametrize(
    ("estimator", "kind"), [(e, k) for e in ESTIMATORS for k in BAD_X if k not in TABLES_ALONE or e in TABULAR]
)
@pytest.mark.parametrize("fitted", [False, True])
def test_x_that_cannot_be_used_is_an_error_before_training(estimator, fitted, kind):
    spoil, message = BAD_X[kind]
    X, y = make_data(estimator)
    nets = [quick(estimator), quick(estimator, early_stopping=True, warm_start=True)]
    for net in nets:
        if fitted:
            net.fit(X, y)
        assert_unchanged_by(net, ValueError, lambda net=net: net.fit(spoil(X), y), message)
        assert_unchanged_by(net, ValueError, lambda net=net: net.partial_fit(spoil(X), y), message)
        if kind != "no columns":
            assert_unchanged_by(net, ValueError, lambda net=net: net.fit(X, y, X_val=spoil(X), y_val=y), message)
        if fitted and kind not in ("too few rows", "1e300", "sparse 1e300"):  # prediction is in double precision
            assert_unchanged_by(net, ValueError, lambda net=net: net.predict(spoil(X)), message)


class FailsInEpoch(Callback):
    """Raises at the end of the first batch of an epoch."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise RuntimeError(f"a callback failed in epoch {self.epoch}")


@each_estimator
@pytest.mark.parametrize("fitted", [False, True])
def test_a_fit_that_fails_in_its_first_epoch_changes_nothing(estimator, fitted):
    """Random weights are nothing to predict by; whoever has learnt for an epoch keeps what was learnt."""
    X, y = make_data(estimator)
    net = quick(estimator)
    if fitted:
        net.fit(X, y)
    net.set_params(callbacks=[("fails", FailsInEpoch(1))])
    for call in (net.fit, net.partial_fit) if not fitted else (net.fit,):
        assert_unchanged_by(net, RuntimeError, lambda call=call: call(X, y), "failed in epoch 1")
    if not fitted:
        with pytest.raises(NotFittedError):
            net.predict(X)
    net.set_params(callbacks=[("fails", FailsInEpoch(3))])
    with pytest.raises(RuntimeError, match="failed in epoch 3"):
        net.fit(X, y)
    assert net.n_iter_ == 2
    assert len(net.predict(X)) == len(X)


@each_estimator
def test_lists_are_as_good_as_arrays_for_callbacks(estimator):
    X, y = make_data(estimator)
    lengths = []

    def score(net, dataset, y=None):
        lengths.append((len(dataset), len(net.predict(dataset))))
        return 0.0

    callbacks = [("score", EpochScoring(score, use_caching=False, name="scored"))]
    nets = [
        quick(estimator, callbacks=callbacks, early_stopping=True).fit(rows, labels)
        for rows, labels in ((X, y), (X.tolist(), list(y)))
    ]
    assert_same_weights(*nets)
    assert len(lengths) == 8 and len(set(lengths)) == 1 and lengths[0][0] == lengths[0][1] < len(X)


BAD_Y = {
    "NaN": (lambda y: np.array([*y[:-1], np.nan], dtype=object), r"NaN|nan"),
    "infinity": (lambda y: np.r_[np.arange(len(y) - 1) % 3, np.inf], "infinity"),
    "None": (lambda y: None, "requires y to be passed"),
    "no rows": (lambda y: y[:0], "inconsistent numbers of samples|minimum of 1"),
    "too many rows": (lambda y: [*y, *y], "inconsistent numbers of samples"),
    "three dimensions": (lambda y: np.zeros((60, 2, 2)), "dim 3"),
}


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(
    ("estimator", "kind"),
    [(e, k) for e in ESTIMATORS for k in BAD_Y if k != "three dimensions" or e not in TO_SEQUENCES],
)
def test_y_that_cannot_be_used_is_an_error_before_training(estimator, fitted, kind):
    spoil, message = BAD_Y[kind]
    X, y = make_data(estimator)
    net = quick(estimator)
    if fitted:
        net.fit(X, y)
    assert_unchanged_by(net, ValueError, lambda: net.fit(X, spoil(y)), message)


@each_regressor
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_counts_are_predicted_as_rates(estimator, n_outputs, tmp_path):
    X, y = make_data(estimator)
    rate = np.exp(3.0 + (y - y.mean()) / y.std())
    counts = np.random.default_rng(0).poisson(rate if n_outputs == 1 else np.c_[rate, 1000 * rate])
    parameters = {"criterion": "poisson_nll", "max_epochs": 60, "lr": learning_rate(estimator)}
    net = quick(estimator, **parameters).fit(X, counts)
    predicted = np.asarray(net.predict(X)).reshape(counts.shape)
    assert (predicted > 0).all()
    outputs = net.forward(X).numpy().reshape(counts.shape)
    np.testing.assert_allclose(predicted, np.exp(outputs.astype(float)), rtol=1e-4)
    if n_outputs == 1:
        assert np.corrcoef(predicted, counts)[0, 1] > 0.5
        assert 0.7 < predicted.mean() / counts.mean() < 1.4
    net.save_params(tmp_path / "weights")
    fresh = quick(estimator, **parameters)
    fresh.load_params(tmp_path / "weights")
    np.testing.assert_array_equal(net.predict(X), fresh.predict(X))
    for again in (net.fit, net.partial_fit, lambda X, y: net.fit(X, counts, X_val=X, y_val=y), fresh.partial_fit):
        with pytest.raises(InvalidInputError, match="y must not be negative"):
            again(X, counts - 1000)
    older = copy.deepcopy(quick(estimator).fit(X, y))
    for target in getattr(older.target_, "targets", {"y": older.target_}).values():
        del target.__dict__["log_link"], target.__dict__["of_counts"]  # as in a pickle of before there were counts
    assert np.array_equal(older.predict(X), quick(estimator).fit(X, y).predict(X))


@each_regressor
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 1e40])
def test_numbers_that_do_not_fit_float32_are_errors_in_y(estimator, value):
    X, y = make_data(estimator)
    net = quick(estimator).fit(X, y)
    for bad in (np.r_[y[:-1], value], np.c_[y, np.r_[y[:-1], value]]):
        if estimator().standardize_target and value == 1e40:
            continue  # standardised, it fits
        assert_unchanged_by(net, ValueError, lambda bad=bad: net.fit(X, bad), "NaN|infinity")
        assert_unchanged_by(
            net, ValueError, lambda bad=bad: net.fit(X, y, X_val=X, y_val=bad), "NaN|infinity|too large|outputs"
        )


@each_classifier
@pytest.mark.parametrize("y", [np.zeros(60), np.full(60, "only"), np.r_[[1] * 59, 2]], ids=["zeros", "words", "weightless"])
def test_one_class_is_an_error(estimator, y):
    X, _ = make_data(estimator)
    weight = np.r_[np.ones(59), 0]
    net = quick(estimator)
    assert_unchanged_by(
        net, ValueError, lambda: net.fit(X, y, sample_weight=weight), "at least two classes in y. Got one class"
    )


@each_classifier
def test_numbers_are_no_classes(estimator):
    X, _ = make_data(estimator)
    net = quick(estimator)
    assert_unchanged_by(net, ValueError, lambda: net.fit(X, X[:, 0]), "Unknown label type: continuous")


BAD_PARAMETERS = [
    ("criterion", "cros_entropy", "'criterion' parameter"),
    ("criterion", "ms", "'criterion' parameter"),
    ("optimizer", "admw", "Did you mean 'adamw'"),
    ("activation", "rellu", "activation"),
    ("lr_schedule", "cosin", "Did you mean 'cosine'"),
    ("initialization", "kaiming", "initialization"),
    ("lr", 0, "lr"),
    ("lr", "fast", "lr"),
    ("max_epochs", 0, "max_epochs"),
    ("max_epochs", 2.5, "max_epochs"),
    ("batch_size", 0, "batch_size"),
    ("batch_size", "large", "batch_size"),
    ("dropout", 1.0, "dropout"),
    ("weight_decay", -1, "weight_decay"),
    ("validation_fraction", 1.0, "validation_fraction"),
    ("n_iter_no_change", 0, "n_iter_no_change"),
    ("tol", -1.0, "tol"),
    ("max_grad_norm", 0.0, "max_grad_norm"),
    ("random_state", "seed", "random_state"),
    ("random_state", -1, "random_state|between 0|Seed"),
    ("shuffle", "yes", "shuffle"),
    ("callbacks", "none", "callbacks"),
    ("hidden_layer_sizes", (64, 0), "hidden_layer_sizes"),
    ("hidden_layer_sizes", (2.5,), "hidden_layer_sizes"),
    ("class_weight", "balance", "class_weight"),
    ("class_weight", {"nobody": 2}, "class_weight|class label|classes"),
    ("standardize_target", "yes", "standardize_target"),
]


@each_estimator
@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize(("name", "value", "message"), BAD_PARAMETERS, ids=[f"{n}={v}" for n, v, _ in BAD_PARAMETERS])
def test_a_parameter_that_makes_no_sense_is_an_error_before_training(estimator, fitted, name, value, message):
    X, y = make_data(estimator)
    net = quick(estimator)
    if name not in net.get_params():
        with pytest.raises(UnknownParameterError, match=name):
            net.set_params(**{name: value})
        return
    if fitted:
        net.fit(X, y)
    net.set_params(**{name: value})
    assert_unchanged_by(net, ValueError, lambda: net.fit(X, y), message)
    if fitted:
        assert net.predict(X).shape == y.shape


# ---------------------------------------------------------------------- errors while training


WAYS = {"stacked": lambda net: net, "ladder": alone}


@each_estimator
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("batch_size", [16, -1])
def test_divergence_is_told_and_leaves_finite_weights(estimator, way, batch_size):
    X, y = make_data(estimator)
    numbers = is_classifier(estimator()) and {"criterion": nn.MSELoss}
    net = WAYS[way](quick(estimator, optimizer="sgd", lr=1e6, max_epochs=100, batch_size=batch_size, **numbers or {}))
    with pytest.raises(DivergedError, match=r"epoch \d+, batch \d+, with lr=1e\+06.*lr=0\.1") as caught:
        net.fit(X, y)
    error = caught.value
    assert isinstance(error, FloatingPointError)
    assert 1 <= error.epoch <= 100 and 1 <= error.batch <= 4 and error.lr == 1e6
    assert all(np.isfinite(weight).all() for weight in weights_of(net).values())
    assert net.n_iter_ == error.epoch - 1 == len(net.loss_curve_)
    assert np.isfinite(net.loss_curve_).all()
    assert np.isfinite(net.predict_proba(X) if is_classifier(net) else net.predict(X)).all()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    finite = clone(net).set_params(max_epochs=max(1, error.epoch - 1))
    if error.epoch > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it fits badly
            assert_same_weights(finite.fit(X, y), net)
    else:  # training goes on with a smaller learning rate
        assert net.set_params(lr=1e-3).partial_fit(X, y).n_iter_ == 1


def interrupted_in(epoch, monkeypatch, net, X, y):
    """Fit, with a Ctrl-C in the second batch of an epoch."""
    calls = {"n": 0}
    n_before = (epoch - 1) * 4 + 1
    is_stacked = issubclass(net.module, FeedForward) and not net.callbacks
    owner, name = (StackedOptimizer, "step") if is_stacked else (type(net), "get_loss")
    step = getattr(owner, name)

    def pressed(self, *args, **kwargs):
        calls["n"] += 1
        if calls["n"] > n_before:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, pressed)
        with pytest.raises(KeyboardInterrupt):
            net.fit(X, y)


@each_estimator
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_is_raised_and_the_net_predicts(estimator, way, monkeypatch):
    X, y = make_data(estimator)
    net = WAYS[way](quick(estimator, max_epochs=10))
    interrupted_in(3, monkeypatch, net, X, y)
    assert net.n_iter_ == len(net.loss_curve_) <= 2  # a stack takes note of several short epochs at once
    assert net.predict(X).shape == y.shape
    assert not net.module_.training
    whole = WAYS[way](quick(estimator, max_epochs=10)).fit(X, y)
    np.testing.assert_array_equal(net.loss_curve_, whole.loss_curve_[: net.n_iter_])
    first = weights_of(quick(estimator).initialize(X, y))
    trained = weights_of(WAYS[way](quick(estimator, max_epochs=2)).fit(X, y))
    name = output_name(net)
    moved, expected = (np.abs(w[name] - first[name]).max() for w in (weights_of(net), trained))
    assert moved > 0.5 * expected, "what was learnt before the interrupt is kept"
    net.partial_fit(X, y)
    assert_same_weights(clone(net).fit(X, y), net.fit(X, y))


class Stopping(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


class Interrupted(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            self.wait()

    def wait(self):
        raise KeyboardInterrupt


@each_estimator
def test_a_callback_stops_by_the_interrupt_as_in_skorch(estimator):
    X, y = make_data(estimator)
    assert quick(estimator, callbacks=[Stopping]).fit(X, y).n_iter_ == 2
    net = quick(estimator, callbacks=[Interrupted])
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y)
    assert net.n_iter_ == 2 and net.predict(X).shape == y.shape


# ---------------------------------------------------------------------- threads


@each_configuration
@pytest.mark.parametrize("way", WAYS)
def test_the_number_of_torchs_threads_is_put_back(configuration, way):
    X, y = make_data(configuration.estimator)
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            net = WAYS[way](configuration.make(max_epochs=2))
            net.fit(X, y).predict(X)
            assert torch.get_num_threads() == n_threads
            if not is_classifier(net):
                with pytest.raises(DivergedError):
                    clone(net).set_params(optimizer="sgd", lr=1e10, max_epochs=99, max_grad_norm=None).fit(X, 1e9 * y)
                assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("estimator", "way"),
    [(e, w) for e in ESTIMATORS for w in [*WAYS, "own network"] if w != "own network" or e in TABULAR],
)
def test_fits_in_threads_are_what_they_are_alone(estimator, way):
    X, y = make_data(estimator)

    def fit(seed):
        if way == "own network":
            return quick(with_own_network(estimator), random_state=seed, max_epochs=6).fit(X, y)
        return WAYS[way](quick(estimator, random_state=seed, max_epochs=6, dropout=0.2)).fit(X, y)

    one_by_one = [fit(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(fit, range(8)))
    for a, b in zip(one_by_one, together, strict=True):
        assert_same_weights(a, b)
    assert threading.active_count() < 20


@each_estimator
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # by torch's compiler
def test_what_is_compiled_predicts(estimator):
    X, y = make_data(estimator)
    alone, compiled = quick(estimator).fit(X, y), quick(estimator, compile=True, compile__backend="eager").fit(X, y)
    np.testing.assert_allclose(compiled.forward(X), alone.forward(X), rtol=1e-3, atol=1e-4)
    assert compiled.predict(X).shape == alone.predict(X).shape
