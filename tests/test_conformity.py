"""What a scikit-learn user does on an ordinary day, and what must then happen.

The rows of ``../shared/conformity`` (see tests/conformity) that no other test holds, over every estimator of its factory.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier
from sklearn.compose import make_column_transformer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from skorch.callbacks import EarlyStopping
from skorch.helper import SliceDataset
from torch.utils.data import TensorDataset

from skpt import LinearRegressor, MLPRegressor
from skpt.exceptions import DivergedError, InvalidInputError, NotConvergedWarning, UnknownParameterError
from tests.conformity.factory import make

NAMES = list(make())
REGRESSORS = [name for name in NAMES if name.endswith("Regressor")]
COLUMNS = list("abcdefgh")


def rows(n_samples=300):
    """Eight features, four of which matter, and the numbers that follow from them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_samples, 8))
    return X, X @ [1.5, -2.0, 1.0, 0.5, 0, 0, 0, 0] + 0.1 * rng.normal(size=n_samples)


def target_for(estimator, y):
    return (y > 0).astype(int) if is_classifier(estimator) else y


@pytest.fixture(params=NAMES)
def case(request):
    """An estimator, X, and a target of its kind."""
    estimator = make()[request.param]
    X, y = rows()
    return estimator, X, target_for(estimator, y)


@pytest.mark.usefixtures("global_generators_untouched")
def test_fit_leaves_the_process_as_it_was(case, tmp_path, monkeypatch):
    estimator, X, y = case
    monkeypatch.chdir(tmp_path)

    def process():
        return torch.get_num_threads(), torch.get_default_dtype(), dict(os.environ), list(warnings.filters), os.listdir()

    torch.optim.SGD([torch.zeros(1)])  # torch's own late imports set a variable of the environment
    before = process()
    estimator.fit(X, y).predict(X)
    assert process() == before


def test_fit_is_quiet(case, capfd):
    estimator, X, y = case
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(X, y).predict(X)
    assert [str(each.message) for each in caught] == []
    assert capfd.readouterr() == ("", "")


def test_refit_on_another_shape_starts_anew(case):
    estimator, X, y = case
    estimator.fit(X, y)
    Z, z = X[:200, :5], np.digitize(X[:200, 0], [-0.5, 0.5]) if is_classifier(estimator) else X[:200, :2]
    again, anew = estimator.fit(Z, z), make()[type(estimator).__name__].fit(Z, z)
    np.testing.assert_array_equal(again.predict(Z), anew.predict(Z))


def test_columns_in_another_order_are_refused(case):
    estimator, X, y = case
    frame = pd.DataFrame(X, columns=COLUMNS)
    estimator.fit(frame, y)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame[COLUMNS[::-1]])


def test_unscaled_features_need_no_scaler(case):
    estimator, X, y = case
    Z = X * [1e3, 1, 1e-3, 1, 1e4, 1, 1, 1] + [1e4, 0, 5, 0, 0, 0, 0, 0]
    assert estimator.fit(Z, y).score(Z, y) > 0.95


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_target_of_large_scale(name):
    X, y = rows()
    y = y * 1e4 + 1e6
    assert make()[name].fit(X, y).score(X, y) > 0.95


@pytest.mark.parametrize("column", ["text", "category", "date"])
def test_a_table_with_other_columns_than_numbers_is_refused_by_name(case, column):
    estimator, X, y = case
    frame = pd.DataFrame(X, columns=COLUMNS)
    frame["h"] = {
        "text": np.array(["u", "v"], dtype=object)[y.astype(int) % 2],
        "category": pd.Categorical(np.array(["u", "v"])[y.astype(int) % 2]),
        "date": pd.date_range("2020-01-01", periods=len(X)),
    }[column]
    with pytest.raises(InvalidInputError, match=r"in the columns \['h'\]. Encode them"):
        estimator.fit(frame, y)
    numbers = frame[COLUMNS[:-1]].assign(h=0.0)
    with pytest.raises(InvalidInputError, match=r"in the columns \['h'\]"):
        estimator.fit(numbers, y).predict(frame)


def test_the_remedy_for_text_columns_works(case):
    """What the error above proposes; with a category that was never seen, too."""
    estimator, X, y = case
    frame = pd.DataFrame(X, columns=COLUMNS).assign(h=np.where(X[:, 7] > 0, "u", "v"))
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["h"]), remainder="passthrough")
    pipeline = make_pipeline(encode, estimator).fit(frame, y)
    assert pipeline.score(frame, y) > 0.95
    assert np.isfinite(pipeline.predict(frame.assign(h="never seen"))).all()


@pytest.mark.parametrize("lr", [1e6, 1e30])
def test_a_learning_rate_that_is_far_too_large_is_never_silent(case, lr):
    """An error that leaves finite weights, or a warning where the numbers stayed finite."""
    estimator, X, y = case
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            estimator.set_params(lr=lr).fit(X, y)
        except DivergedError as error:
            assert error.lr == lr
            messages = [str(error)]
        else:
            messages = [str(each.message) for each in caught if each.category is NotConvergedWarning]
    if messages or estimator.loss_curve_[-1] > 1:  # on a separable problem such steps may end at a loss of 0
        (message,) = messages
        assert re.search("diverged|fits badly", message) and "for example lr=0.1" in message
    assert np.isfinite(estimator.predict(X)).all()


INTERRUPTED = """
import json, sys, time
import numpy as np
from skorch.callbacks import Callback
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from tests.conformity.factory import make
from tests.test_conformity import rows, target_for

X, y = rows(3000)
nets = make()
nets["with a callback"] = make()["MLPClassifier"].set_params(callbacks=[Callback()])
nets["in a search"] = GridSearchCV(make()["MLPClassifier"], {"lr": [0.01, 0.001]}, cv=2, refit=False)
for name, net in nets.items():
    z = target_for(net, y)
    clone(net).fit(X[:40], z[:40])  # whatever is imported late is there
    net.set_params(**{"estimator__max_epochs" if name == "in a search" else "max_epochs": 10**6})
    outcome = {"name": name}
    print("START", flush=True)
    try:
        net.fit(X, z)
        outcome["fit"] = "returned"
    except KeyboardInterrupt:
        outcome["fit"] = "KeyboardInterrupt"
    outcome["raised"] = time.time()
    if name != "in a search":
        outcome["score"] = net.score(X, z)
        outcome["epochs"] = net.n_iter_
        outcome["rows"] = len(net.history), len(net.loss_curve_)
    print(json.dumps(outcome), flush=True)
"""


def test_ctrl_c_ends_a_fit_at_once_and_leaves_a_model_that_predicts():
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True)
    outcomes = []
    try:
        while child.stdout.readline() == "START\n":
            time.sleep(0.5)
            sent = time.time()
            child.send_signal(signal.SIGINT)
            outcomes.append(json.loads(child.stdout.readline()) | {"sent": sent})
    finally:
        child.kill()
        child.stdout.close()
        child.wait()
    assert [each["name"] for each in outcomes] == [*NAMES, "with a callback", "in a search"]
    for each in outcomes:
        assert each["fit"] == "KeyboardInterrupt", each
        assert each["raised"] - each["sent"] < 2.0, each
        if each["name"] != "in a search":
            assert each["score"] > 0.9 and each["rows"] == [each["epochs"]] * 2 and each["epochs"] > 0, each


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"activation": "rleu"}, "Got 'rleu' instead. Did you mean 'relu'?"),
        ({"initialization": "xavier_unifrom"}, "Did you mean 'xavier_uniform'?"),
        ({"optimizer": "adm"}, "Did you mean 'adam'?"),
        ({"lr_schedule": "cosin"}, "Did you mean 'cosine'?"),
        ({"device": "gpu"}, "The 'device' parameter must be 'auto', 'cpu' or another device"),
    ],
)
def test_a_misspelt_value_is_told_what_was_meant(case, params, complaint):
    estimator, X, y = case
    with pytest.raises(ValueError, match=re.escape(complaint)):
        estimator.set_params(**params).fit(X, y)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("max_iter", "max_epochs"), ("learning_rate_init", "lr"), ("alpha", "weight_decay"), ("momentum", "optimizer__momentum")],
)
def test_a_name_of_another_library_is_told_ours(case, name, meant):
    with pytest.raises(UnknownParameterError, match=f"Invalid parameter '{name}' .* Did you mean '{meant}'?"):
        case[0].set_params(**{name: 1})


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("dtype", [str, object])
def test_a_regressor_reads_numbers_of_text_and_refuses_words(name, dtype):
    X, y = rows(50)
    as_numbers = make()[name].fit(X, y).predict(X)
    np.testing.assert_array_equal(make()[name].fit(X, y.astype(str).astype(dtype)).predict(X), as_numbers)
    with pytest.raises(InvalidInputError, match=r"needs numbers in y. Got text, for example 'low'"):
        make()[name].fit(X, np.where(y > 0, "high", "low").astype(dtype)[np.argsort(y)])


def test_a_function_is_no_activation_and_no_criterion_but_a_layer_is_one():
    X, y = rows(50)
    net = MLPRegressor(max_epochs=3, random_state=0)
    by_class = clone(net).set_params(activation=torch.nn.Tanh).fit(X, y)
    by_instance = clone(net).set_params(activation=torch.nn.Tanh()).fit(X, y)
    np.testing.assert_array_equal(by_instance.predict(X), by_class.predict(X))
    with pytest.raises(ValueError, match=r"activation must be one of .* or a class of torch.nn.Module"):
        clone(net).set_params(activation=torch.tanh).fit(X, y)
    with pytest.raises(ValueError, match="'criterion' parameter must be a name, a class"):
        clone(net).set_params(criterion=torch.nn.functional.mse_loss).fit(X, y)


def test_datasets_go_through_cross_validation_in_skorchs_slices():
    X, y = (a.astype(np.float32) for a in rows(60))
    dataset = TensorDataset(torch.tensor(X), torch.tensor(y))
    sliced = cross_val_score(LinearRegressor(random_state=0), SliceDataset(dataset), SliceDataset(dataset, 1), cv=3)
    np.testing.assert_allclose(sliced, cross_val_score(LinearRegressor(random_state=0), X, y, cv=3), rtol=1e-6)


def test_a_callback_that_watches_validation_without_any_is_refused(case):
    """skorch holds rows out of its own accord, so that its users expect a valid_loss; skpt never does."""
    estimator, X, y = case
    estimator.set_params(max_epochs=5, callbacks=[EarlyStopping(patience=2)])
    with pytest.raises(InvalidInputError, match="'EarlyStopping' watches 'valid_loss', and there is no validation set"):
        estimator.fit(X, y)
    assert estimator.fit(X, y, X_val=X, y_val=y).n_iter_ <= 5
