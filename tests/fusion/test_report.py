"""What a fused call says of itself: how many jobs, in which stacks, what was not fused and why, where the time went."""

import time
from collections import Counter

import joblib
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import GridSearchCV, cross_validate

from skpt import MLPRegressor
from skpt.fusion import FusionReport, last_report
from skpt.fusion.report import Group
from tests.configurations import make_data
from tests.fusion.comparison import fused

X, y = make_data(MLPRegressor, 48)


def net(**parameters):
    return MLPRegressor(**{"hidden_layer_sizes": (4,), "max_epochs": 2, "random_state": 0, **parameters})


def test_jobs_and_stacks_add_up():
    grid = {"hidden_layer_sizes": [(4,), (5, 3)], "lr": [0.01, 0.1], "optimizer": ["sgd", "adam"]}
    _, report = fused(lambda: GridSearchCV(net(), grid, cv=3, refit=False).fit(X, y), inner_max_num_threads=1)
    assert report.n_jobs == 24
    assert sorted(group.n_models for group in report.groups) == [6, 6, 6, 6]
    assert {group.description.split(",")[0] for group in report.groups} == {"MLPModule 5-4-1", "MLPModule 5-5-3-1"}
    assert Counter(group.description.split(", ")[1] for group in report.groups) == {"SGD": 2, "Adam": 2}
    assert not report.not_fused


def test_what_was_not_fused_is_counted_by_reason():
    grid = [{"optimizer": ["lbfgs"], "batch_size": [-1], "lr": [0.1, 0.2]}, {"lr": [0.01]}]
    _, report = fused(lambda: GridSearchCV(net(), grid, cv=3, refit=False).fit(X, y))
    assert report.n_jobs == 3
    assert report.not_fused == {"the optimizer LBFGS": 6}


class Sleeps(RegressorMixin, BaseEstimator):
    """Half a second besides training."""

    def fit(self, X, y):
        time.sleep(0.5)
        self.net_ = net(max_epochs=60, batch_size=4, lr=1e-5).fit(X, y)
        return self

    def predict(self, X):
        return self.net_.predict(X)


@pytest.mark.filterwarnings("ignore::skpt.exceptions.NotConvergedWarning")
@pytest.mark.parametrize("settings", [{}, {"inner_max_num_threads": 1}, {"n_jobs": 2}])
def test_seconds_add_up(settings):
    began = time.perf_counter()
    _, report = fused(lambda: cross_validate(Sleeps(), X, y, cv=2), **settings)
    seconds = time.perf_counter() - began
    assert 0 < report.seconds_training < report.seconds_total <= seconds
    assert report.seconds_elsewhere > 0.4
    assert report.seconds_training + report.seconds_elsewhere == pytest.approx(report.seconds_total)
    longest = max(group.seconds for group in report.groups)
    assert longest <= report.seconds_training * 1.01
    assert report.seconds_training <= sum(group.seconds for group in report.groups) + 0.2


def test_one_report_for_the_outermost_call():
    fused(lambda: cross_validate(GridSearchCV(net(), {"lr": [0.01, 0.1]}, cv=2), X, y, cv=2))
    assert last_report().n_jobs == 2 * (2 * 2 + 1)


def test_a_fit_outside_of_parallel_calls_leaves_the_report_as_it_was():
    _, report = fused(lambda: cross_validate(net(), X, y, cv=2))
    with joblib.parallel_config("skpt"):
        net().fit(X, y)
    net(optimizer="lbfgs", batch_size=-1).fit(X, y)
    assert last_report() is report


def test_a_failed_call_is_reported_too():
    with pytest.raises(ValueError, match="lr"):
        fused(lambda: cross_validate(net(lr=-1.0), X, y, cv=2, error_score="raise"))
    assert last_report().n_jobs == 0


def test_reports_of_processes_are_put_together():
    report = FusionReport(2, [Group(2, 1.0, "a")], Counter(x=1), seconds_training=1.0)
    report.merge(FusionReport(3, [Group(3, 2.0, "b")], Counter(x=1, y=2), seconds_training=2.0))
    assert report == FusionReport(5, [Group(2, 1.0, "a"), Group(3, 2.0, "b")], Counter(x=2, y=2), seconds_training=2.0)


def test_it_can_be_read():
    report = FusionReport(5, [Group(4, 1.5, "MLPModule 5-4-1")], Counter({"a layer of class Own": 2}), 1.5, 2.0)
    assert str(report).splitlines() == [
        "5 fits in 1 stacks, 2 not fused; 1.500 s in training, 0.500 s elsewhere",
        "     4 models     1.500 s  MLPModule 5-4-1",
        "     2 not fused: a layer of class Own",
    ]
