"""The monitor: best epoch, early stopping, divergence, and when training was too short."""

import math
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from skpt.exceptions import DivergedError, NotConvergedWarning
from skpt.training.monitor import Monitor, check_finite, warn_if_still_falling, warn_if_useless

losses = st.lists(st.floats(0, 10), min_size=1, max_size=40)


@given(train=losses, valid=st.lists(st.floats(0, 10), min_size=40, max_size=40))
def test_the_best_epoch_is_the_first_of_the_lowest_loss(train, valid):
    by_train, by_valid = Monitor(), Monitor()
    for a, b in zip(train, valid, strict=False):
        is_best = [by_train.update(a, None)[0], by_valid.update(a, b)[0]]
        assert is_best == [by_train.best_epoch == len(by_train.train_loss), by_valid.best_epoch == len(by_valid.train_loss)]
    assert by_train.best_epoch == np.argmin(train) + 1
    assert by_valid.best_epoch == np.argmin(valid[: len(train)]) + 1
    assert by_train.valid_loss == [] and by_valid.valid_loss == valid[: len(train)]
    assert by_train.train_loss == by_valid.train_loss == train


@given(train=losses, cut=st.integers(0, 40))
def test_several_epochs_at_once_are_the_same(train, cut):
    one_by_one, at_once = Monitor(), Monitor()
    for loss in train:
        one_by_one.update(loss, None)
    at_once.extend(train[:cut], 0.0)
    at_once.extend(train[cut:], 0.0)
    for name in ("train_loss", "best_epoch", "best_loss", "seconds"):
        assert getattr(at_once, name) == getattr(one_by_one, name)


def stopping_epoch(valid, n_iter_no_change, tol):
    """Early stopping as it is documented, without state: None if training goes to its end."""
    for epoch in range(1, len(valid) + 1):
        reference, stale = math.inf, 0
        for loss in valid[:epoch]:
            reference, stale = (loss, 0) if loss < reference - tol else (reference, stale + 1)
        if stale >= n_iter_no_change:
            return epoch
    return None


@given(valid=losses, n_iter_no_change=st.integers(1, 5), tol=st.sampled_from([0.0, 0.01, 1.0]))
def test_training_stops_after_so_many_epochs_without_improvement(valid, n_iter_no_change, tol):
    monitor, patient = (Monitor(stopping, n_iter_no_change, tol) for stopping in (True, False))
    stopped = [monitor.update(1.0, loss)[1] for loss in valid]
    expected = stopping_epoch(valid, n_iter_no_change, tol)
    assert (stopped.index(True) + 1 if any(stopped) else None) == expected
    assert not any(patient.update(1.0, loss)[1] for loss in valid)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("lr", [0.5, 100.0])
def test_divergence_names_epoch_batch_and_a_smaller_rate(bad, lr):
    message = rf"the training loss became {bad} in epoch 7, batch 3, with lr={lr:g}\. Try .* lr={min(lr / 10, 0.1):g}"
    with pytest.raises(DivergedError, match=message) as caught:
        check_finite([1.0, 2.0, bad, 1.0], 7, lr, "Net")
    error = caught.value
    assert (error.epoch, error.batch, error.lr) == (7, 3, lr)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.epoch, again.batch, again.lr) == (str(error), 7, 3, lr)
    check_finite([1.0, 1e300, -5.0], 1, 0.1)


def warns(losses) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_still_falling(list(losses), 0.1, "Net")
    for each in caught:
        assert issubclass(each.category, NotConvergedWarning) and issubclass(each.category, ConvergenceWarning)
        assert f"after {len(losses)} epochs with lr=0.1" in str(each.message)
    return bool(caught)


@pytest.mark.parametrize("n_epochs", [20, 50, 200, 1000])
def test_an_exponential_approach_warns_below_half_its_time_constant(n_epochs):
    epochs = np.arange(n_epochs)
    for share in (0.01, 0.1, 0.3):
        assert warns(3 + np.exp(-share * epochs / n_epochs))
    for share in (0.7, 1, 3, 10, 100):
        assert not warns(3 + np.exp(-share * epochs / n_epochs))


def test_a_straight_fall_warns_whatever_its_noise():
    noise = np.random.default_rng(0).standard_normal(200)
    for size in (0.0, 0.001, 0.01):
        assert warns(np.linspace(2, 1, 200) + size * noise)


@pytest.mark.parametrize("n_epochs", [20, 60, 200])
def test_noise_is_no_reason_to_warn(n_epochs):
    """Dropout and small batches make a loss that has converged jump: three standard errors once in some hundred fits."""
    random = np.random.default_rng(0)
    n_warnings = sum(warns(1 + 0.1 * random.standard_normal(n_epochs)) for _ in range(300))
    assert n_warnings <= 3
    n_warnings = sum(warns(1 + np.exp(-np.arange(n_epochs) / 4) + 0.1 * random.standard_normal(n_epochs)) for _ in range(300))
    assert n_warnings <= 3


def test_a_hump_is_no_reason_to_warn():
    hump = np.r_[np.linspace(0.3, 0.02, 40), np.linspace(0.02, 0.2, 20), np.linspace(0.2, 0.01, 20), np.full(40, 0.01)]
    assert not warns(hump)


def test_a_dip_at_the_end_is_no_reason_to_warn():
    losses = 1 + np.exp(-np.arange(200) / 20)
    losses[-10:] -= 0.3
    assert not warns(losses)


def test_a_rise_and_few_epochs_never_warn():
    assert not warns(np.linspace(1, 2, 100))
    assert not warns(np.linspace(2, 1, 19))
    assert not warns(np.ones(100))
    assert not warns([])


@pytest.mark.parametrize(("loss", "of_zeros", "expected"), [(11, 1, True), (9, 1, False), (1, 0, False), (0.5, -1, False)])
def test_a_model_far_worse_than_zeros_warns(loss, of_zeros, expected):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_if_useless(loss, of_zeros, 0.1, "Net")
    assert [issubclass(each.category, NotConvergedWarning) for each in caught] == [True] * expected
