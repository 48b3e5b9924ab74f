"""Plain dicts of arrays in scikit-learn's functions, and nothing else that changes for whoever uses narwhals."""

import subprocess
import sys
from collections import OrderedDict, defaultdict

import joblib
import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingRegressor, VotingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    RandomizedSearchCV,
    cross_val_predict,
    cross_validate,
    learning_curve,
    permutation_test_score,
    train_test_split,
    validation_curve,
)
from sklearn.utils import resample, shuffle
from skorch.helper import SliceDict

from skpt import DenseBranch, MultiInputRegressor, MultiTaskEstimator
from skpt.exceptions import InvalidInputError
from skpt.narwhals_plugin import is_dict_of_arrays, is_native

RANDOM = np.random.default_rng(0)
X = {"left": RANDOM.standard_normal((40, 2)), "right": RANDOM.standard_normal((40, 3)), "year": RANDOM.standard_normal(40)}
Y = X["left"][:, 0] + X["right"].sum(axis=1)


def build(**settings) -> MultiInputRegressor:
    branches = [("left", DenseBranch(4), "left"), ("right", DenseBranch(4), "right"), ("year", DenseBranch(2), "year")]
    return MultiInputRegressor(branches, (4,), **{"max_epochs": 3, "lr": 0.01, "random_state": 0, **settings})


@pytest.mark.parametrize(
    "backend", [None, {"backend": "skpt"}, {"backend": "skpt", "n_jobs": 2}, {"backend": "loky", "n_jobs": 2}], ids=str
)
def test_cross_validation(backend):
    expected = cross_validate(build(), SliceDict(**X), Y, cv=3, error_score="raise")["test_score"]
    with joblib.parallel_config(**backend or {"backend": "sequential"}):
        scores = cross_validate(build(), X, Y, cv=3, error_score="raise")["test_score"]
    np.testing.assert_array_equal(scores, expected)


def test_searches():
    grid = {"lr": [0.001, 0.1], "left__n_units": [2, 3]}
    search = GridSearchCV(build(), grid, cv=2, error_score="raise").fit(X, Y)
    expected = GridSearchCV(build(), grid, cv=2, error_score="raise").fit(SliceDict(**X), Y)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(search.predict(X), expected.predict(SliceDict(**X)))
    assert search.score(X, Y) == expected.score(SliceDict(**X), Y)
    RandomizedSearchCV(build(), grid, n_iter=2, cv=2, error_score="raise", random_state=0).fit(X, Y)


def test_whatever_takes_rows():
    train, test, y_train, y_test = train_test_split(X, Y, random_state=0)
    assert type(train) is dict
    for name in X:
        together = np.concatenate([train[name], test[name]])
        order = [int(np.flatnonzero(np.concatenate([y_train, y_test])[i] == Y)[0]) for i in range(len(Y))]
        np.testing.assert_array_equal(together, X[name][order])
    assert cross_val_predict(build(), X, Y, cv=GroupKFold(2), groups=np.arange(40) % 4).shape == Y.shape
    assert np.isfinite(learning_curve(build(), X, Y, cv=2, shuffle=True, random_state=0)[2]).all()
    assert np.isfinite(validation_curve(build(), X, Y, param_name="lr", param_range=[0.01, 0.1], cv=2)[1]).all()
    assert np.isfinite(permutation_test_score(build(), X, Y, cv=2, n_permutations=2, random_state=0)[1]).all()
    assert VotingRegressor([("a", build()), ("b", build(lr=0.1))]).fit(X, Y).predict(X).shape == Y.shape


@pytest.mark.parametrize("kind", ["tensors", "frames", "sparse", "lists"])
def test_kinds_of_arrays(kind):
    change = {
        "tensors": lambda a: torch.from_numpy(a).float(),
        "frames": lambda a: pd.DataFrame(a) if a.ndim == 2 else pd.Series(a),
        "sparse": lambda a: sparse.csr_matrix(a) if a.ndim == 2 else a,
        "lists": lambda a: a.tolist() if a.ndim == 1 else a,
    }[kind]
    given = {name: change(a) for name, a in X.items()}
    assert is_dict_of_arrays(given)

    def rows(index):
        return {name: change(a[index]) for name, a in X.items()}

    halves = np.arange(20), np.arange(20, 40)
    expected = [build().fit(rows(b), Y[b]).score(rows(a), Y[a]) for a, b in (halves, halves[::-1])]
    scores = cross_validate(build(), given, Y, cv=2, error_score="raise")["test_score"]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        {"a": np.zeros((3, 2)), "b": 5},
        {"a": np.zeros((3, 2)), "b": np.float64(5)},
        {"a": {"b": np.zeros((3, 2))}},
        {},
        SliceDict(a=np.zeros((3, 2))),
    ],
    ids=lambda other: f"{type(other).__name__} {str(other)[:20]}",
)
def test_other_dicts_are_not_taken(other):
    assert not is_dict_of_arrays(other)


def test_arrays_and_lists_of_any_kind():
    steps = [np.zeros((3, 2)), np.zeros((4, 2))]
    of_objects = np.empty(2, dtype=object)
    of_objects[:] = steps
    around = []
    around.append(around)
    for values in (steps, of_objects, np.zeros(2), ["a", "b"], np.array(["a", "b"]), around, [], torch.zeros(2)):
        assert is_dict_of_arrays({"some": values, "age": np.zeros(2)})


def test_labels_of_several_tasks():
    y = {"number": Y, "sign": np.where(Y > 0, "plus", "minus")}
    net = MultiTaskEstimator({"number": "regression", "sign": "classification"}, max_epochs=3, random_state=0)
    table = np.concatenate([X["left"], X["right"]], axis=1)
    scores = cross_validate(net, table, y, cv=3, error_score="raise")["test_score"]
    np.testing.assert_array_equal(scores, cross_validate(net, table, pd.DataFrame(y), cv=3)["test_score"])
    assert GridSearchCV(net, {"lr": [0.001, 0.1]}, cv=2, error_score="raise").fit(table, y).score(table, y) > 0


def test_dicts_of_any_class():
    expected = cross_validate(build(), X, Y, cv=2, error_score="raise")["test_score"]
    for given in (OrderedDict(X), defaultdict(list, X)):
        np.testing.assert_array_equal(cross_validate(build(), given, Y, cv=2, error_score="raise")["test_score"], expected)


def test_only_scikit_learn_is_answered_and_only_where_it_takes_rows():
    assert not is_native(X)  # plotly asks so, for dicts that it can draw itself
    assert nw.from_native(X, pass_through=True) is X
    with pytest.raises(TypeError, match="Unsupported dataframe type"):
        nw.from_native(X)
    for function in (shuffle, resample):  # they take the number of keys for that of rows
        with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[3, 40\]"):
            function(X, Y)
    with pytest.raises(TypeError, match="not 'dict'"):
        HistGradientBoostingRegressor().fit(X, Y)


def test_unequal_numbers_of_rows_are_named():
    with pytest.raises(InvalidInputError, match=r"same number of rows.*'left': 40, 'right': 40, 'year': 39"):
        cross_validate(build(), {**X, "year": X["year"][:39]}, Y)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[40, 39\]"):
        cross_validate(build(), X, Y[:39])


def test_masks_of_rows_are_refused_by_name():
    mask = np.arange(40) < 20
    with pytest.raises(InvalidInputError, match="flatnonzero"):
        cross_validate(build(), X, Y, cv=[(mask, ~mask)])


def test_who_takes_no_dict_says_what_it_said_before():
    with pytest.raises(ValueError, match="Expected 2D array, got scalar array instead"):
        LinearRegression().fit(X, Y)


def test_narwhals_reads_frames_as_before():
    frame = pd.DataFrame({"a": [1, 2, 3]})
    assert nw.from_native(frame)[[0, 2]].to_native().equals(frame.iloc[[0, 2]])
    with pytest.raises(TypeError, match="Unsupported dataframe type"):
        nw.from_native({"a": np.zeros(3)})


def test_without_estimators_of_skpt_nothing_is_imported_and_nothing_taken():
    program = (
        "import sys, numpy as np\n"
        "from sklearn.linear_model import LinearRegression\n"
        "from sklearn.model_selection import train_test_split\n"
        "LinearRegression().fit(np.eye(3), np.ones(3))\n"
        "try:\n"
        "    train_test_split({'a': np.zeros((9, 2)), 'b': np.zeros((9, 2))}, np.zeros(9))\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print(*sorted({'torch', 'skorch', 'skpt.base'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "Found input variables with inconsistent numbers of samples: [2, 9]\n\n"
