"""scikit-learn's callbacks hear of every epoch: alone, in a search, under the backend, and after a stack failed."""

import io
import threading
from collections import Counter

import numpy as np
import pytest
import rich
from rich.console import Console
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.model_selection import GridSearchCV

import skpt.fusion.rendezvous as rendezvous_module
from skpt import MLPRegressor
from tests.configurations import make_data
from tests.fusion.comparison import assert_no_thread_is_left, fused

X, y = make_data(MLPRegressor, 48)
N_EPOCHS = 3
OWN_RUNGS = {"optimizer": "lbfgs", "batch_size": -1}  # climbs the ladder


def net(**parameters):
    return MLPRegressor((4,), max_epochs=N_EPOCHS, random_state=0, **parameters)


def search(estimator):
    return GridSearchCV(estimator, {"lr": [0.01, 0.1]}, cv=2)


def fit(estimator, is_fused: bool):
    return fused(lambda: estimator.fit(X, y))[0] if is_fused else estimator.fit(X, y)


class Recorder:
    """Counts what it is told."""

    def __init__(self):
        self.events = Counter()
        self.lock = threading.Lock()

    def __deepcopy__(self, memo):
        return self

    def _count(self, *event):
        with self.lock:
            self.events[event] += 1

    def setup(self, estimator, context):
        self._count("setup")

    def teardown(self, estimator, context):
        self._count("teardown")

    def on_fit_task_begin(self, estimator, context):
        self._count("begin", context.task_name)

    def on_fit_task_end(self, estimator, context):
        self._count("end", context.task_name)


@pytest.mark.parametrize("parameters", [{}, OWN_RUNGS], ids=["stack", "ladder"])
@pytest.mark.parametrize("is_fused", [False, True])
def test_a_callback_hears_of_every_epoch(is_fused, parameters):
    recorder = Recorder()
    fit(search(net(**parameters).set_callbacks(recorder)), is_fused)
    n_fits = 2 * 2 + 1
    assert recorder.events == {
        ("setup",): n_fits,
        ("begin", "fit"): n_fits,
        ("begin", "epoch"): n_fits * N_EPOCHS,
        ("end", "epoch"): n_fits * N_EPOCHS,
        ("end", "fit"): n_fits,
        ("teardown",): n_fits,
    }


def test_no_epoch_is_told_twice_when_a_stack_failed(monkeypatch):
    train_stack = rendezvous_module.train_stack

    def fails_in_company(jobs, is_cancelled):
        steps = iter([False] * 4)
        train_stack(jobs, (lambda: next(steps)) if len(jobs) > 1 else is_cancelled)

    monkeypatch.setattr(rendezvous_module, "train_stack", fails_in_company)
    recorder = Recorder()
    found = fit(search(net().set_callbacks(recorder)), True)
    assert not np.isnan(found.cv_results_["mean_test_score"]).any()
    assert recorder.events[("end", "epoch")] == 5 * N_EPOCHS


class Fails(Recorder):
    """Raises at the end of the second epoch of the nets of one learning rate."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_fit_task_end(self, estimator, context):
        super().on_fit_task_end(estimator, context)
        if estimator.lr == 0.01 and context.task_name == "epoch" and context.task_id == 1:
            raise self.error("the callback failed")


@pytest.mark.parametrize("parameters", [{}, OWN_RUNGS], ids=["stack", "ladder"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning", "ignore:One or more of the test scores")
def test_what_a_callback_raises_is_the_failure_of_that_fit_alone(parameters):
    recorders = [Fails(ValueError) for _ in range(2)]
    alone, together = (
        fit(search(net(**parameters).set_callbacks(recorder)), is_fused) for is_fused, recorder in enumerate(recorders)
    )
    for found in (alone, together):
        assert np.isnan(found.cv_results_["mean_test_score"]).tolist() == [True, False]
    np.testing.assert_allclose(together.best_score_, alone.best_score_, rtol=1e-5)
    assert recorders[0].events == recorders[1].events


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_program_in_a_callback_ends_the_search(error, is_fused):
    with pytest.raises(error, match="the callback failed"):
        fit(search(net().set_callbacks(Fails(error))), is_fused)
    assert_no_thread_is_left()


@pytest.fixture
def screen(monkeypatch):
    """What rich draws."""
    drawn = io.StringIO()
    monkeypatch.setattr(rich, "_console", Console(file=drawn, width=200, force_terminal=True))
    return drawn


@pytest.mark.parametrize("is_fused", [False, True])
@pytest.mark.parametrize("of", ["net", "search"])
def test_progress_bars(of, is_fused, screen):
    estimator = net() if of == "net" else search(net())
    fit(estimator.set_callbacks(ProgressBar()), is_fused)
    last = screen.getvalue().replace("\x1b", "\n").splitlines()
    bars = {line.split("m", 1)[-1].strip() for line in last if "fit" in line}
    names = " ".join(bars)
    assert "MLPRegressor - fit" in names
    assert ("GridSearchCV - fit" in names) == (of == "search")
    assert "100%" in screen.getvalue()
    assert_no_thread_is_left()


def logged(monitor: ScoringMonitor) -> dict:
    return {row["task_id_path"]: row["r2"] for row in monitor.get_logs().data}


@pytest.mark.parametrize("parameters", [{}, OWN_RUNGS], ids=["stack", "ladder"])
def test_scores_of_every_epoch(parameters):
    monitors = [ScoringMonitor(scoring="r2") for _ in range(2)]
    alone, together = (
        fit(search(net(**parameters).set_callbacks(monitor)), is_fused) for is_fused, monitor in enumerate(monitors)
    )
    expected, scores = map(logged, monitors)
    assert scores.keys() == expected.keys()
    assert len(scores) == 5 * (N_EPOCHS + 1)
    np.testing.assert_allclose([scores[path] for path in expected], list(expected.values()), rtol=1e-5)
    best = alone.best_estimator_.score(X, y)
    assert scores[(0, 1)] == pytest.approx(best)  # the refit as a whole, and its last epoch
    assert scores[(0, 1, N_EPOCHS - 1)] == pytest.approx(best)
    assert together.best_params_ == alone.best_params_


def test_an_epochs_scores_are_those_of_a_fit_that_ends_there():
    monitor = ScoringMonitor(scoring="r2")
    net().set_callbacks(monitor).fit(X, y)
    scores = logged(monitor)
    for n_epochs in range(1, N_EPOCHS + 1):
        assert scores[(0, n_epochs - 1)] == pytest.approx(net().set_params(max_epochs=n_epochs).fit(X, y).score(X, y))
