"""The joblib backend "skpt" under scikit-learn's own tools: the same results, fits that meet, failures that stay their own."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin, clone, is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from skpt import LinearClassifier, LinearRegressor, MLPClassifier, MLPRegressor
from skpt.fusion import FusedBackend, last_report, shares
from skpt.fusion import backend as backend_module
from tests.configurations import make_data
from tests.fusion.comparison import (
    assert_no_thread_is_left,
    assert_same_nets,
    assert_same_results,
    described,
    fused,
    nets_within,
    one_that_fails_beside,
    within,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::skpt.exceptions.NotConvergedWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite:UserWarning"),
]

TOLERANCE = 1e-5
X, y = make_data(MLPRegressor, 48)
_, classes = make_data(MLPClassifier, 48)
Y = np.column_stack([y, y**2])


def regressor(**parameters):
    return MLPRegressor(**{"hidden_layer_sizes": (4,), "max_epochs": 3, "random_state": 0, **parameters})


def classifier(**parameters):
    return MLPClassifier(**{"hidden_layer_sizes": (4,), "max_epochs": 3, "random_state": 0, **parameters})


def bagging(n_estimators: int):
    return BaggingRegressor(regressor(), n_estimators=n_estimators, random_state=0)


FOREST = RandomForestClassifier(5, random_state=0)
GRID = {"lr": [0.01, 0.1]}
WORKS = {
    "GridSearchCV": lambda: GridSearchCV(regressor(), GRID, cv=3).fit(X, y),
    "RandomizedSearchCV": lambda: RandomizedSearchCV(
        classifier(), {"lr": [0.01, 0.1, 0.2], "weight_decay": [0.0, 0.1]}, n_iter=3, cv=3, random_state=0
    ).fit(X, classes),
    "HalvingGridSearchCV": lambda: HalvingGridSearchCV(
        regressor(), {"lr": [0.001, 0.01, 0.1]}, cv=2, min_resources=12, factor=2, random_state=0
    ).fit(X, y),
    "cross_validate": lambda: cross_validate(classifier(), X, classes, cv=4, return_estimator=True, return_train_score=True),
    "learning_curve": lambda: learning_curve(regressor(), X, y, cv=3, train_sizes=[0.5, 0.75, 1.0]),
    "validation_curve": lambda: validation_curve(
        classifier(), X, classes, param_name="weight_decay", param_range=[0.0, 0.1], cv=3
    ),
    "permutation_test_score": lambda: permutation_test_score(
        classifier(), X, classes, cv=3, n_permutations=5, random_state=0
    ),
    "BaggingRegressor": lambda: bagging(5).fit(X, y),
    "BaggingClassifier": lambda: BaggingClassifier(
        classifier(), n_estimators=5, max_features=0.8, random_state=0
    ).fit(X, classes),
    "StackingRegressor": lambda: StackingRegressor(
        [("a", regressor()), ("b", regressor(lr=0.1)), ("c", Ridge())], final_estimator=Ridge(), cv=3
    ).fit(X, y),
    "StackingClassifier": lambda: StackingClassifier(
        [("a", classifier()), ("b", classifier(lr=0.1)), ("c", LogisticRegression())], cv=3
    ).fit(X, classes),
    "VotingClassifier": lambda: VotingClassifier(
        [("a", classifier()), ("b", classifier(lr=0.1)), ("c", LogisticRegression())], voting="soft"
    ).fit(X, classes),
    "MultiOutputRegressor": lambda: MultiOutputRegressor(regressor()).fit(X, Y),
    "OneVsRestClassifier": lambda: OneVsRestClassifier(classifier()).fit(X, classes),
    "RFECV": lambda: RFECV(LinearRegressor(max_epochs=5, lr=0.05, random_state=0), cv=3).fit(X, y),
    "Pipeline": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), regressor()), {"mlpregressor__lr": [0.01, 0.1]}, cv=3
    ).fit(X, y),
    "TransformedTargetRegressor": lambda: GridSearchCV(
        TransformedTargetRegressor(regressor(), transformer=StandardScaler()), {"regressor__lr": [0.01, 0.1]}, cv=3
    ).fit(X, y),
    "nested": lambda: cross_val_score(GridSearchCV(regressor(), GRID, cv=2), X, y, cv=3),
    "nested twice": lambda: cross_validate(
        make_pipeline(
            StandardScaler(), GridSearchCV(bagging(3), {"estimator__lr": [0.1, 0.2]}, cv=2)
        ), X, y, cv=2, return_estimator=True
    ),
    "not ours in between": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()),
        {"logisticregression": [LogisticRegression(), classifier(), FOREST, classifier(lr=0.1)]},
        cv=3,
    ).fit(X, classes),
}  # fmt: skip


def assert_same(alone, together) -> None:
    """What one of scikit-learn's tools gives is the same, nets within it included."""
    if isinstance(alone, dict):
        assert_same_results(alone, together, tolerance=TOLERANCE)
    elif isinstance(alone, tuple | np.ndarray | float):
        for one, other in (
            zip(np.atleast_1d(alone), np.atleast_1d(together), strict=True)
            if isinstance(alone, np.ndarray)
            else zip(alone, together, strict=True)
        ):
            np.testing.assert_allclose(other, one, rtol=TOLERANCE, atol=TOLERANCE)
    else:
        if hasattr(alone, "cv_results_"):
            assert_same_results(alone.cv_results_, together.cv_results_, tolerance=TOLERANCE)
        if hasattr(alone, "best_params_"):
            assert described(alone.best_params_.items()) == described(together.best_params_.items())
        if is_classifier(alone):
            np.testing.assert_array_equal(alone.predict(X), together.predict(X))
        else:
            np.testing.assert_allclose(alone.predict(X), together.predict(X), rtol=TOLERANCE, atol=TOLERANCE)
    if any(True for _ in nets_within(alone)):
        assert_same_nets(alone, together, tolerance=TOLERANCE)


# ---------------------------------------------------------------- scikit-learn's tools


@pytest.mark.parametrize("name", WORKS)
def test_gives_the_same_and_trains_together(name, global_generators_untouched):
    alone = WORKS[name]()
    together, report = fused(WORKS[name])
    assert_same(alone, together)
    if name != "HalvingGridSearchCV":  # its last call may have a single candidate
        assert sum(group.n_models for group in report.groups) == report.n_jobs >= 2
        assert max(group.n_models for group in report.groups) >= 2, report
    assert not report.not_fused
    assert_no_thread_is_left()


def test_all_fits_of_a_nested_search_meet():
    _, report = fused(WORKS["nested"], inner_max_num_threads=1)
    assert report.n_jobs == 3 * (2 * 2 + 1)
    assert [group.n_models for group in report.groups] == [12, 3]


@pytest.mark.parametrize("pre_dispatch", ["n_jobs", "2*n_jobs", 7, "all"])
def test_tasks_do_not_have_joblib_parse_an_expression(monkeypatch, pre_dispatch):
    # ast.parse in two threads at once may fail in Python 3.11
    monkeypatch.setattr("joblib.parallel.eval_expr", lambda expression: pytest.fail(expression))
    with joblib.parallel_config("skpt"):
        parallel = joblib.Parallel(pre_dispatch=pre_dispatch)
        assert parallel(joblib.delayed(abs)(-i) for i in range(20)) == list(range(20))
        cross_val_score(GridSearchCV(regressor(), GRID, cv=2, pre_dispatch=pre_dispatch), X, y, cv=3)


def test_each_halving_is_fused():
    reports = []

    class Watched(FusedBackend):
        def stop_call(self):
            super().stop_call()
            reports.append(last_report())

    with joblib.parallel_config(Watched()):
        WORKS["HalvingGridSearchCV"]()
    assert [report.n_jobs for report in reports[:2]] == [6, 4]
    assert all(max(group.n_models for group in report.groups) >= 2 for report in reports[:2])


# ---------------------------------------------------------------- worker processes


def check_search_in_workers(**settings):
    search = GridSearchCV(make_pipeline(StandardScaler(), regressor()), {"mlpregressor__lr": [0.01, 0.05, 0.1]}, cv=4)
    alone = clone(search).fit(X, y)
    together, report = fused(lambda: clone(search).fit(X, y), **settings)
    assert_same(alone, together)
    assert report.n_jobs == 12
    assert sum(group.n_models for group in report.groups) == 12
    assert max(group.n_models for group in report.groups) >= 2


def test_worker_processes():
    check_search_in_workers(n_jobs=2)


def test_tasks_that_are_handed_over_while_others_are_under_way(monkeypatch):
    monkeypatch.setattr(backend_module, "WIDTH", 2)
    with ThreadPoolExecutor(2) as executor:
        found, _ = fused(lambda: Parallel()(delayed(pow)(i, 2) for i in range(41)), executor=executor)
    assert found == [i**2 for i in range(41)]


@pytest.mark.slow
def test_an_executor_of_processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
        check_search_in_workers(n_jobs=2, executor=executor)


def test_an_executor_of_threads():
    before = torch.get_num_threads()
    with ThreadPoolExecutor(2) as executor:
        check_search_in_workers(executor=executor)
    assert torch.get_num_threads() == before


def test_shares_in_threads_of_an_executor_end_when_the_call_is_given_up():
    fails, trains = one_that_fails_beside(lambda: regressor(max_epochs=10**7).fit(X, y))
    tasks = [delayed(fails)(), delayed(trains)()]  # one for each share
    with ThreadPoolExecutor(2) as executor, pytest.raises(ZeroDivisionError):
        within(30, lambda: fused(lambda: Parallel()(tasks), executor=executor))
    assert not any(call.running_here for call in shares._CALLS.values())
    assert_no_thread_is_left()


@pytest.mark.slow  # new worker processes take seconds
def test_worker_processes_are_not_those_of_joblib():
    search = GridSearchCV(regressor(), {"lr": [0.01, 0.1]}, cv=2)
    fused(lambda: search.fit(X, y), n_jobs=2)
    assert Parallel(n_jobs=2)(delayed(pow)(i, 2) for i in range(4)) == [0, 1, 4, 9]
    workers = set()
    deadline = time.perf_counter() + 60
    while not workers and time.perf_counter() < deadline:  # they come when they are ready
        workers = {*fused(lambda: Parallel()([delayed(os.getpid)()] * 4), n_jobs=2)[0]} - {os.getpid()}
    (worker,) = workers
    os.kill(worker, signal.SIGKILL)  # as the system does where memory is short
    time.sleep(1)
    fused(lambda: search.fit(X, y), n_jobs=2)


def test_failures_in_worker_processes_stay_their_own():
    search = GridSearchCV(regressor(), {"lr": [0.01, -1.0, 0.1]}, cv=2, error_score=np.nan)
    with pytest.warns(match="2 fits failed out of a total of 6"):
        found, _ = fused(lambda: search.fit(X, y), n_jobs=2)
    np.testing.assert_array_equal(np.isnan(found.cv_results_["mean_test_score"]), [False, True, False])


@pytest.mark.slow  # it ends the workers, and new ones take seconds
def test_error_score_raise_in_worker_processes():
    search = GridSearchCV(regressor(), {"lr": [0.01, -1.0, 0.1]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match="lr"):
        fused(lambda: search.fit(X, y), n_jobs=2)


# ---------------------------------------------------------------- what is not stacked


class OwnActivation(torch.nn.Module):
    def forward(self, X):
        return torch.sin(X)


class OwnStep(MLPRegressor):
    def train_step(self, batch, **fit_params):
        return super().train_step(batch, **fit_params)


class Nothing(Callback):
    def on_epoch_end(self, net, **kwargs):
        pass


NOT_STACKED = {
    "a layer of class OwnActivation": regressor(activation=OwnActivation),
    "methods of its own: train_step": OwnStep((4,), max_epochs=3, random_state=0),
    "callbacks of the user's": regressor(callbacks=[Nothing()]),
    "the optimizer LBFGS": regressor(optimizer="lbfgs", lr=0.1, batch_size=-1),
}


@pytest.mark.parametrize("reason", NOT_STACKED)
def test_what_cannot_be_stacked_trains_within_the_same_search(reason, caplog, global_generators_untouched):
    search = GridSearchCV(
        make_pipeline(regressor()), {"mlpregressor": [regressor(), NOT_STACKED[reason], regressor(lr=0.1)]}, cv=3
    )
    alone = clone(search).fit(X, y)
    with caplog.at_level(logging.DEBUG, "skpt"):
        together, report = fused(lambda: clone(search).fit(X, y))
    assert_same(alone, together)
    assert report.n_jobs == 6
    assert dict(report.not_fused) == {reason: 3}
    assert f"is not stacked: {reason}" in caplog.text


def test_sparse_rows_train_within_the_same_search(caplog):
    S = sparse.csr_array(np.where(np.abs(X) > 0.5, X, 0.0))
    with caplog.at_level(logging.DEBUG, "skpt"):
        together, report = fused(lambda: GridSearchCV(regressor(), GRID, cv=3).fit(S, y))
    assert_same_results(GridSearchCV(regressor(), GRID, cv=3).fit(S, y).cv_results_, together.cv_results_, tolerance=TOLERANCE)
    assert report.n_jobs == 0
    assert sum(report.not_fused.values()) == 6
    assert "MLPRegressor is not stacked: inputs that are not dense rows" in caplog.text


# ---------------------------------------------------------------- failures


def search_with(bad: dict | None, **settings):
    """Six good candidates, with a bad one in their midst or without."""
    candidates = [{"lr": [lr], "random_state": [seed]} for lr in (0.01, 0.02, 0.03) for seed in (0, 1)]
    if bad is not None:
        candidates.insert(3, {name: [value] for name, value in bad.items()})
    return GridSearchCV(regressor(optimizer="sgd", max_epochs=6), candidates, cv=2, **{"error_score": np.nan, **settings})


BAD = {
    "diverges": {"lr": 1e30},
    "wrong parameter": {"lr": -1.0},
    "misspelt optimizer argument": {"optimizer__momentun": 0.9},
    "no memory for its weights": {"hidden_layer_sizes": (1 << 22, 1 << 22)},
}


@pytest.mark.parametrize("name", BAD)
def test_a_failing_candidate_leaves_the_others_untouched(name, global_generators_untouched):
    expected, _ = fused(lambda: search_with(None).fit(X, y), inner_max_num_threads=1)
    with pytest.warns(match="2 fits failed out of a total of 14"):
        found, report = fused(lambda: search_with(BAD[name]).fit(X, y), inner_max_num_threads=1)
    failed = np.arange(7) == 3
    for key, values in expected.cv_results_.items():
        if key.endswith("test_score") and not key.startswith("rank"):
            assert np.isnan(found.cv_results_[key][3])
            np.testing.assert_allclose(found.cv_results_[key][~failed], values, rtol=TOLERANCE, err_msg=key)
    assert found.best_params_ == expected.best_params_
    assert_same_nets(expected.best_estimator_, found.best_estimator_)
    assert max(group.n_models for group in report.groups) >= 2
    assert_no_thread_is_left()


@pytest.mark.parametrize("name", BAD)
def test_error_score_raise(name):
    filters, threads = list(warnings.filters), torch.get_num_threads()
    with pytest.raises((ValueError, RuntimeError, TypeError, ArithmeticError)):
        fused(lambda: search_with(BAD[name], error_score="raise").fit(X, y))
    assert_no_thread_is_left()
    assert list(warnings.filters) == filters
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["diverges", "wrong parameter"])
def test_error_score_raise_does_not_wait_for_the_others(name):
    search = search_with(BAD[name], error_score="raise").set_params(estimator__max_epochs=10_000_000)
    began = time.perf_counter()
    with pytest.raises((ValueError, ArithmeticError), match="lr"):
        within(60, lambda: fused(lambda: search.fit(X, y), inner_max_num_threads=1))
    assert time.perf_counter() - began < 10
    assert_no_thread_is_left()


class Slow(RegressorMixin, BaseEstimator):
    """Fails while others train."""

    def fit(self, X, y):
        regressor(max_epochs=1).fit(X, y)
        raise ArithmeticError("late")


def test_the_process_is_as_it_was_after_a_search(global_generators_untouched):
    filters, shown, n_threads = warnings.filters, warnings.showwarning, torch.get_num_threads()
    content = list(filters)
    fused(WORKS["not ours in between"])
    with pytest.raises(ArithmeticError):
        fused(lambda: cross_validate(Slow(), X, y, cv=3, error_score="raise"))
    assert warnings.filters is filters
    assert list(warnings.filters) == content
    assert warnings.showwarning is shown
    assert torch.get_num_threads() == n_threads
    assert_no_thread_is_left()


def test_overlapping_records_of_warnings_do_not_swallow_later_ones():
    """catch_warnings puts back what it found, which in threads may be another's: the call puts back what was there."""

    def task(i):
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            time.sleep(0.002 * (i % 3))
            regressor(max_epochs=1).fit(X, y)

    fused(lambda: joblib.Parallel()(joblib.delayed(task)(i) for i in range(8)))
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


# ---------------------------------------------------------------- Ctrl-C

INTERRUPTED = """
    import os, threading, time, warnings
    import joblib, numpy as np, torch
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from skpt import MLPRegressor

    class OwnStep(MLPRegressor):
        def train_step(self, batch, **fit_params):
            return super().train_step(batch, **fit_params)

    def children():
        found = []
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{{task}}/children") as f:
                found += f.read().split()
        return found

    if __name__ == "__main__":
        X = np.random.default_rng(0).standard_normal((64, 4))
        {net}((8,), max_epochs=1, random_state=0).fit(X, X[:, 0])  # torch imports a lot for its first optimizer
        filters, n_threads = list(warnings.filters), torch.get_num_threads()
        net = {net}((8,), max_epochs=10_000_000, random_state=0)
        try:
            with joblib.parallel_config("skpt", n_jobs={n_jobs}):
                print("ready", flush=True)
                search = GridSearchCV(net, {{"lr": [1e-4, 2e-4, 3e-4]}}, cv=2)
                {work}
        except KeyboardInterrupt:
            began = time.time()
            left = [t.name for t in threading.enumerate() if t.name.startswith("skpt-")]
            assert not left, left
            assert list(warnings.filters) == filters
            assert torch.get_num_threads() == n_threads
            print("interrupted", *children(), flush=True)
"""


@pytest.mark.parametrize(
    ("net", "work", "n_jobs"),
    [
        ("MLPRegressor", "search.fit(X, X[:, 0])", None),
        ("MLPRegressor", "cross_val_score(search, X, X[:, 0], cv=2)", None),
        pytest.param("MLPRegressor", "search.fit(X, X[:, 0])", 2, marks=pytest.mark.slow),
    ],
    ids=["search", "nested", "processes"],
)
def test_ctrl_c_ends_a_search(tmp_path, net, work, n_jobs):
    script = tmp_path / "search.py"
    script.write_text(textwrap.dedent(INTERRUPTED.format(net=net, work=work, n_jobs=n_jobs)))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            time.sleep(1.0 if n_jobs is None else 10.0)
            assert process.poll() is None, process.stderr.read()
            process.send_signal(signal.SIGINT)
            began = time.perf_counter()
            line = process.stdout.readline()
            seconds = time.perf_counter() - began
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert line.startswith("interrupted"), errors
    assert process.returncode == 0, errors
    assert seconds < 5, seconds  # idle: 0.1
    deadline = time.perf_counter() + 2
    while left := [pid for pid in line.split()[1:] if os.path.exists(f"/proc/{pid}")]:
        assert time.perf_counter() < deadline, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
        time.sleep(0.05)


# ---------------------------------------------------------------- settings


def test_a_memory_limit_keeps_stacks_small():
    def sizes(**settings):
        _, report = fused(
            lambda: cross_validate(MLPRegressor((64, 64), max_epochs=1, random_state=0), X, y, cv=12),
            inner_max_num_threads=1,
            **settings,
        )
        return [group.n_models for group in report.groups]

    assert max(sizes()) > 4
    assert sum(sizes(memory_limit=600_000)) == 12
    assert max(sizes(memory_limit=600_000)) <= 4
    assert sizes(memory_limit=1) == [1] * 12


def test_n_jobs_of_zero_is_an_error():
    with pytest.raises(ValueError, match="n_jobs == 0"), joblib.parallel_config("skpt", n_jobs=0):
        cross_validate(regressor(), X, y, cv=2)


@pytest.mark.parametrize("verbose", [0, 1])
def test_verbose_nets_print_as_alone(capsys, verbose):
    fused(lambda: cross_validate(regressor(verbose=verbose), X, y, cv=2))
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.split()[:1] in (["1"], ["2"], ["3"])]) == 6 * verbose


def test_linear_classifiers_learn_under_the_backend():
    score, _ = fused(lambda: cross_val_score(LinearClassifier(lr=0.1, max_epochs=50, random_state=0), X, classes, cv=3).mean())
    assert score > 0.6
