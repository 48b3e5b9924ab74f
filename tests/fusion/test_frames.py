"""Which tasks let another one run on top of their frames, and that it makes no difference to them."""

import sys
import threading
from functools import partial

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.feature_selection import RFECV
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV, cross_validate, permutation_test_score
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skpt import LinearRegressor, MLPClassifier
from skpt.fusion import frames, grouping, last_report
from skpt.fusion.rendezvous import Rendezvous, _local
from skpt.fusion.task_threads import TaskThreads
from tests.fusion.comparison import assert_no_thread_is_left, fused, within
from tests.fusion.test_rendezvous import check_graphs, fit

X = np.random.default_rng(0).standard_normal((30, 3))
y = X @ [1.0, -2.0, 0.5]


@pytest.fixture
def known_tests(monkeypatch):
    """Functions of tests count as those of a known library."""
    monkeypatch.setattr(frames, "_MODULES", (*frames._MODULES, "tests."))


@pytest.fixture
def on_top(monkeypatch):
    """The numbers of frames below tasks that began on top of others."""
    found = []
    run_above = Rendezvous._run_above

    def run(self, ticket, start, n_frames):
        found.append(n_frames)
        run_above(self, ticket, start, n_frames)

    monkeypatch.setattr(Rendezvous, "_run_above", run)
    return found


def in_backend(function):
    with parallel_config("skpt"):
        return function()


# ---------------------------------------------------------------- what frames say


def root(call):
    return call()


def asked():
    return frames.count_frames(root.__code__)


def in_while():
    found = 0
    while found == 0:
        found = asked()
    return found


def in_try_within_for():
    for _ in range(2):
        try:
            found = asked()
        finally:
            found = found or None
    return found


def before_parallel():
    found = asked()
    Parallel()([])
    return found


def after_parallel():
    Parallel()([])
    return asked()


def after_a_loop():
    for _ in range(2):
        pass
    return asked()


def before_a_loop():
    found = asked()
    for _ in range(2):
        pass
    return found


@pytest.mark.parametrize(
    ("function", "n_frames"),
    [
        (asked, 1),
        (lambda: asked(), 2),
        (after_a_loop, 2),
        (before_a_loop, 2),
        (in_while, None),
        (before_parallel, None),
        (after_parallel, 2),
        (in_try_within_for, None),
        (lambda: max([asked() or 0 for _ in range(1)]) or None, None),
        (lambda: sorted([1], key=lambda _: asked() or 0) and asked(), 2),
    ],
)
def test_frames_are_counted_unless_one_is_in_a_loop(known_tests, function, n_frames):
    assert root(function) == n_frames


def test_frames_of_other_libraries_are_not_known():
    assert root(asked) is None


class OwnScaler(StandardScaler):
    """Of the user's: it may do anything."""


def of_another_library(X):
    return X


of_another_library.__module__ = "numpyro.like"  # not numpy's, whatever it begins with


KNOWN = {
    "steps of scikit-learn": make_pipeline(StandardScaler(), PCA(2), LinearRegressor()),
    "a function of numpy": make_pipeline(FunctionTransformer(np.arcsinh), LinearRegressor()),
    "pipelines in each other": make_pipeline("passthrough", make_pipeline(StandardScaler(), LinearRegressor())),
    "columns": make_pipeline(make_column_transformer((StandardScaler(), [0])), LinearRegressor()),
    "a target": TransformedTargetRegressor(LinearRegressor(), func=np.arcsinh, inverse_func=np.sinh),
    "nothing": None,
}
UNKNOWN = {
    "an own step": make_pipeline(OwnScaler(), LinearRegressor()),
    "an own function": make_pipeline(FunctionTransformer(lambda X: X), LinearRegressor()),
    "a function of another library": make_pipeline(FunctionTransformer(of_another_library), LinearRegressor()),
    "a builtin function": make_pipeline(FunctionTransformer(abs), LinearRegressor()),
    "an own transformer of columns": make_pipeline(make_column_transformer((OwnScaler(), [0])), LinearRegressor()),
    "one in a union": make_pipeline(FeatureUnion([("own", OwnScaler())]), LinearRegressor()),
    "an own memory": make_pipeline(StandardScaler(), LinearRegressor(), memory=OwnScaler()),
    "an own transformer of the target": TransformedTargetRegressor(LinearRegressor(), transformer=OwnScaler()),
    "an own step for a target": TransformedTargetRegressor(make_pipeline(OwnScaler(), LinearRegressor())),
}


@pytest.mark.parametrize("name", [*KNOWN, *UNKNOWN])
def test_which_compositions_are_known(name):
    assert frames._is_known({**KNOWN, **UNKNOWN}[name]) == (name in KNOWN)


def test_frames_of_a_thread_are_counted():
    def within(n_frames):
        return within(n_frames - 1) if n_frames else frames.depth()

    assert within(7) - within(0) == 7


def test_without_the_root_nothing_is_known(known_tests):
    assert asked() is None


@pytest.mark.parametrize(("limit", "most"), [(500, 200), (1000, 400), (100_000, 400)])
def test_most_of_pythons_room_for_frames_is_left(monkeypatch, limit, most):
    monkeypatch.setattr(sys, "getrecursionlimit", lambda: limit)
    assert frames.is_room_for(most)
    assert not frames.is_room_for(most + 1)


# ---------------------------------------------------------------- tasks on top of others


def test_a_search_takes_few_threads(monkeypatch, on_top):
    started = []
    run = TaskThreads.run
    monkeypatch.setattr(TaskThreads, "run", lambda self, function: (started.append(1), run(self, function))[1])
    search = GridSearchCV(LinearRegressor(max_epochs=2), {"lr": np.linspace(0.1, 0.2, 10).tolist()}, cv=3)
    fused(lambda: search.fit(X, y), inner_max_num_threads=1)
    assert last_report().n_jobs == 30
    assert [group.n_models for group in last_report().groups] == [30]
    assert len(started) <= 15  # most often three; more where this thread is slow to hand tasks over
    assert len(on_top) >= 15
    assert 50 < max(on_top) <= frames.MOST_FRAMES


def test_what_scores_has_frames_left(on_top):
    def from_within(n_frames, net, X, y):
        return from_within(n_frames - 1, net, X, y) if n_frames else net.score(X, y)

    search = GridSearchCV(
        LinearRegressor(max_epochs=2), {"lr": np.linspace(0.1, 0.2, 15).tolist()}, cv=3, scoring=partial(from_within, 400)
    )
    fused(lambda: search.fit(X, y), inner_max_num_threads=1)
    assert len(on_top) >= 15
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    "work",
    [
        lambda: RFECV(LinearRegressor(max_epochs=2), cv=3, importance_getter=lambda net: net.coef_).fit(X, y),
        lambda: permutation_test_score(LinearRegressor(max_epochs=2), X, y, cv=3, n_permutations=3),
        lambda: cross_validate(make_pipeline(OwnScaler(), LinearRegressor(max_epochs=2)), X, y, cv=3),
    ],
    ids=["features", "permutations", "a pipeline with a step of the user's"],
)
def test_who_may_fit_again_or_hold_something_has_a_thread(work, on_top):
    """Else the one on top would go through all its fits before another goes on, or wait for the one below."""
    _, report = fused(work, inner_max_num_threads=1)
    assert not on_top
    assert max(group.n_models for group in report.groups) >= 3


@pytest.mark.parametrize(
    "net",
    [
        make_pipeline(StandardScaler(), LinearRegressor(max_epochs=2, random_state=0)),
        TransformedTargetRegressor(make_pipeline(StandardScaler(), LinearRegressor(max_epochs=2, random_state=0))),
    ],
    ids=["a pipeline", "a target"],
)
def test_compositions_of_known_libraries_are_on_top_of_each_other(net, on_top):
    expected = cross_validate(net, X, y, cv=5)["test_score"]
    found, report = fused(lambda: cross_validate(net, X, y, cv=5)["test_score"], inner_max_num_threads=1)
    assert len(on_top) == 4
    assert [group.n_models for group in report.groups] == [5]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_pipeline_may_take_in_one_step_what_another_gives_back():
    """A task on top would wait for the one below to give it back."""
    places = threading.Semaphore(1)

    class Takes(OwnScaler):
        def fit(self, X, y=None):
            places.acquire()
            return super().fit(X, y)

    class GivesBack(LinearRegressor):
        def fit(self, X, y=None):
            try:
                return super().fit(X, y)
            finally:
                places.release()

    net = make_pipeline(Takes(), GivesBack(max_epochs=2))
    within(60, lambda: fused(lambda: cross_validate(net, X, y, cv=3, error_score="raise"), inner_max_num_threads=1))


def test_who_computes_in_a_context_of_torch_has_a_thread(on_top):
    """What runs on top would be in it too: a fit is in one where torch's default is double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        _, report = fused(lambda: cross_validate(LinearRegressor(max_epochs=2), X, y, cv=4), inner_max_num_threads=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert not on_top and not report.not_fused
    assert [group.n_models for group in report.groups] == [4]


def test_who_will_have_tasks_of_its_own_has_a_thread(on_top):
    """This one fits, and then all its folds at once; those of all must meet."""
    net = TunedThresholdClassifierCV(MLPClassifier((4,), max_epochs=2), cv=2)
    _, report = fused(lambda: cross_validate(net, X, y > 0, cv=3), inner_max_num_threads=1)
    assert [group.n_models for group in report.groups] == [3, 6]


def test_only_tasks_of_the_same_call_are_on_top_of_each_other(monkeypatch):
    """A search's tasks must not wait for those of another one, which would go on alone."""
    calls = []
    run_above = Rendezvous._run_above

    def run(self, ticket, start, n_frames):
        calls.append((_local.task.call, start.call))
        run_above(self, ticket, start, n_frames)

    monkeypatch.setattr(Rendezvous, "_run_above", run)
    search = GridSearchCV(LinearRegressor(max_epochs=2), {"lr": [0.1, 0.2, 0.3]}, cv=2)
    _, report = fused(lambda: cross_validate(search, X, y, cv=4), inner_max_num_threads=1)
    assert calls and all(below is above for below, above in calls)
    assert [group.n_models for group in report.groups] == [24, 4]


def test_inner_tasks_begin_where_all_places_are_taken_by_tasks_below(known_tests, on_top):
    """Those below end after the one that waits for the inner ones, and so make no room for them."""
    all_are_there = threading.Event()

    def single():
        all_are_there.wait(10)
        return fit().n_iter_

    def outer():
        return [net.n_iter_ for net in Parallel()(delayed(fit)(seed) for seed in range(3))]

    rendezvous = Rendezvous(n_threads=1, memory_limit=1)  # two tasks at a time, as soon as the first has handed in
    with rendezvous.dispatching():
        futures = [rendezvous.submit(single) for _ in range(4)]
        futures.append(rendezvous.submit(partial(in_backend, outer)))
        all_are_there.set()
    assert within(30, lambda: [future.result() for future in futures]) == [2, 2, 2, 2, [2, 2, 2]]
    assert len(on_top) >= 4
    rendezvous.close()
    assert_no_thread_is_left()


def test_whose_training_takes_long_has_a_thread(monkeypatch, on_top):
    monkeypatch.setattr(grouping, "_SHORT", 1e-5)
    fused(lambda: cross_validate(LinearRegressor(max_epochs=2), X, y, cv=3), inner_max_num_threads=1)
    assert not on_top


class Batch(list):
    """Calls one after the other, as joblib puts them together where there are thousands."""

    def __call__(self):
        return [call() for call in self]


@pytest.mark.parametrize("n_calls", [1, 2])
def test_who_makes_several_calls_has_a_thread(monkeypatch, known_tests, on_top, n_calls):
    monkeypatch.setattr(frames, "_may_fit_again", lambda code, place: False)
    all_are_there = threading.Event()
    rendezvous = Rendezvous(n_threads=1, memory_limit=1 << 30)
    with rendezvous.dispatching():
        futures = [rendezvous.submit(Batch([lambda: all_are_there.wait(10) and fit()] * n_calls)) for _ in range(3)]
        all_are_there.set()
    assert [len(future.result(30)) for future in futures] == [n_calls] * 3
    assert bool(on_top) == (n_calls == 1)
    rendezvous.close()


def test_a_failure_on_top_is_not_that_of_the_one_below(known_tests, on_top):
    def task(seed):
        if seed == 2:
            raise ArithmeticError(seed)
        return fit(seed).coef_.tolist()

    def outcome(seed):
        try:
            return task(seed)
        except ArithmeticError as error:
            return str(error)

    found, _ = within(30, lambda: fused(lambda: Parallel()(delayed(outcome)(i) for i in range(5)), inner_max_num_threads=1))
    assert found == [outcome(seed) for seed in range(5)]
    with pytest.raises(ArithmeticError):
        within(30, lambda: fused(lambda: Parallel()(delayed(task)(i) for i in range(5)), inner_max_num_threads=1))
    assert_no_thread_is_left()


def test_threads_of_tasks_below_are_their_own_again(known_tests, on_top):
    """A task goes on in the thread that it began in, after those that ran on top of it."""

    all_are_there = threading.Event()

    def task(seed):
        before = threading.get_ident(), _local.task, _local.n_frames
        all_are_there.wait(10)
        fit(seed)
        assert (threading.get_ident(), _local.task, _local.n_frames) == before
        return threading.get_ident()

    rendezvous = Rendezvous(n_threads=1, memory_limit=1 << 30)
    with rendezvous.dispatching():
        futures = [rendezvous.submit(partial(task, seed)) for seed in range(6)]
        all_are_there.set()
    found = [future.result(30) for future in futures]
    assert len(set(found)) == 1
    assert len(on_top) == 5
    rendezvous.close()
    assert rendezvous._n_active == rendezvous._n_running == rendezvous._n_started == rendezvous._n_busy == 0


def test_an_error_of_a_callback_reaches_nobody_elses_fit(known_tests, on_top, caplog):
    def fails(future):
        raise ArithmeticError("of a callback")

    all_are_there = threading.Event()
    rendezvous = Rendezvous(n_threads=1, memory_limit=1 << 30)
    with rendezvous.dispatching():
        first = rendezvous.submit(lambda: all_are_there.wait(10) and fit(0))
        futures = [first, rendezvous.submit(lambda: fit(1), callback=fails)]
        all_are_there.set()
    assert [future.result(30).n_iter_ for future in futures] == [2, 2]
    rendezvous.close()
    assert_no_thread_is_left()
    assert len(on_top) == 1
    assert "a task could not be ended" in caplog.text


def test_random_task_graphs_on_top_of_each_other(monkeypatch, known_tests, on_top):
    """Whatever tasks do: also those that fit several times or have tasks of their own."""
    monkeypatch.setattr(frames, "_may_fit_again", lambda code, place: False)
    check_graphs(range(3000, 3030), least=1.0)
    assert on_top


@pytest.mark.slow
def test_several_hundred_random_task_graphs_on_top_of_each_other(monkeypatch, known_tests, on_top):
    monkeypatch.setattr(frames, "_may_fit_again", lambda code, place: False)
    check_graphs(range(4000, 4400), least=1.0)
    assert len(on_top) > 100
