"""Schedules: the rates of `LearningRate` are those that torch's scheduler gives a real optimizer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skorch.callbacks import Callback, LRScheduler
from torch import nn, optim
from torch.optim import lr_scheduler

from skpt import MLPRegressor
from skpt.exceptions import UnknownParameterError
from skpt.training import SCHEDULES
from skpt.training.schedules import LearningRate, find_schedule
from tests.configurations import make_data


def find(schedule, monitor="train_loss", n_epochs=9, n_batches=4, lr=0.1, **params):
    return find_schedule(schedule, params, lr=lr, n_epochs=n_epochs, n_batches=n_batches, monitor=monitor)


def rates_of_torch(schedule, lr, losses, n_batches):
    """What a real optimizer's rates are, driven by torch's own scheduler."""
    optimizer = optim.Adam([nn.Parameter(torch.ones(2))], lr=lr)
    scheduler = schedule.policy(optimizer, **schedule.params)
    rates = []
    for loss in losses:
        for _ in range(n_batches):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if schedule.step_every == "batch":
                scheduler.step()
        if schedule.step_every == "epoch":
            scheduler.step(loss) if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else scheduler.step()
    return rates


@pytest.mark.parametrize("name", SCHEDULES)
@given(
    lr=st.floats(1e-4, 1.0),
    losses=st.lists(st.floats(0.1, 10), min_size=1, max_size=15),
    n_batches=st.integers(1, 5),
)
def test_rates_are_those_of_torchs_scheduler(name, lr, losses, n_batches):
    schedule = find(name, lr=lr, n_epochs=len(losses), n_batches=n_batches)
    rate, rates = LearningRate(lr, schedule), []
    for loss in losses:
        for _ in range(n_batches):
            rates.append(rate.lr)
            rate.after_batch()
        rate.after_epoch(loss, None)
    assert rates == rates_of_torch(schedule, lr, losses, n_batches)


def test_without_a_schedule_the_rate_stays():
    rate = LearningRate(0.3, find(None))
    for _ in range(3):
        rate.after_batch()
        rate.after_epoch(1.0, 1.0)
    assert rate.lr == 0.3


@pytest.mark.parametrize(("monitor", "n_changes"), [("train_loss", 0), ("valid_loss", 1)])
def test_a_plateau_is_judged_by_the_monitored_loss(monitor, n_changes):
    rate, rates = LearningRate(1.0, find("plateau", monitor=monitor, patience=2)), set()
    for epoch in range(5):
        rate.after_epoch(1.0 - 0.1 * epoch, 1.0)
        rates.add(rate.lr)
    assert len(rates) - 1 == n_changes


@pytest.mark.parametrize(
    ("name", "n_epochs", "last"),
    [("cosine", 9, 0.0), ("linear", 9, 0.001), ("exponential", 9, 0.1 * 0.95**9), ("step", 9, 1e-4), ("one_cycle", 9, 4e-7)],
)
def test_the_defaults_end_where_they_should(name, n_epochs, last):
    rate = LearningRate(0.1, find(name, n_epochs=n_epochs))
    for _ in range(n_epochs):
        for _ in range(4):
            before_last_step = rate.lr
            rate.after_batch()
        rate.after_epoch(1.0, None)
    assert (rate.lr if name != "one_cycle" else before_last_step) == pytest.approx(last, rel=0.02, abs=1e-12)


def test_arguments_of_the_users_replace_the_defaults():
    assert find("step", step_size=2, gamma=0.5).params == {"step_size": 2, "gamma": 0.5}
    assert find("one_cycle", max_lr=1.0).params["max_lr"] == 1.0
    assert find("cosine", step_every="batch").step_every == "batch"
    by_class = find(lr_scheduler.StepLR, step_size=3)
    assert (by_class.policy, by_class.params, by_class.step_every) == (lr_scheduler.StepLR, {"step_size": 3}, "epoch")
    assert find("plateau", monitor="valid_loss").monitor == "valid_loss"


def test_what_is_unknown_is_an_error_with_the_nearest():
    with pytest.raises(ValueError, match=r"must be one of \['cosine', .*Got 'cosin'.*Did you mean 'cosine'"):
        find("cosin")
    with pytest.raises(UnknownParameterError, match=r"StepLR has no parameter 'gama'\. Did you mean 'gamma'"):
        find("step", gama=0.5)
    with pytest.raises(UnknownParameterError, match="has no parameter 'optimizer'"):
        find("step", optimizer=None)
    with pytest.raises(UnknownParameterError, match="lr_schedule__gamma was given, but lr_schedule is None"):
        find(None, gamma=0.5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_skorchs_callback_is_given_the_same(name):
    schedule = find(name)
    callback = schedule.callback()
    assert isinstance(callback, LRScheduler)
    assert callback.policy is schedule.policy and callback.step_every == schedule.step_every
    anew = {} if schedule.policy is lr_scheduler.ReduceLROnPlateau else {"last_epoch": -1}
    assert callback.kwargs == {**anew, **schedule.params}


@pytest.mark.parametrize("schedule", ["cosine", "plateau", "one_cycle", lr_scheduler.StepLR])
def test_a_schedule_begins_anew_with_each_fit_whoever_trains(schedule):
    """By skorch's callback on its ladder, as in a stack; with a new rate where it was set in between."""
    X, y = make_data(MLPRegressor)
    parameters = {"lr_schedule": schedule, "max_epochs": 4, "warm_start": True, "random_state": 0}
    if schedule is lr_scheduler.StepLR:
        parameters["lr_schedule__step_size"] = 2
    nets = []
    for callbacks in (None, [Callback()]):
        net = MLPRegressor(callbacks=callbacks, **parameters)
        nets.append(net.fit(X, y).fit(X, y).set_params(lr=0.01).fit(X, y))
    assert nets[0].loss_curve_ == pytest.approx(nets[1].loss_curve_, rel=1e-4)
    assert nets[0].optimizer_.param_groups[0]["lr"] == pytest.approx(nets[1].optimizer_.param_groups[0]["lr"])
