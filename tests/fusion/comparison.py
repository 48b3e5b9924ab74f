"""Fits under the backend "skpt" beside the same fits without it: what the tests of fusion share."""

from __future__ import annotations

import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import pairwise

import joblib
import numpy as np
import pytest
import torch
from joblib import Parallel, delayed

from skpt.base import NetEstimator
from skpt.fusion import FusionReport, last_report
from skpt.fusion.layers import Bound, Now


def fused(work: Callable[[], object], **settings) -> tuple[object, FusionReport]:
    """Do some work under the backend; give what it gave, and the report of its last parallel call."""
    with joblib.parallel_config("skpt", **settings):
        result = work()
    return result, last_report()


def fit_alone_and_fused(make_fits: Callable[[], list[Callable[[], object]]], **settings) -> tuple[list, list, FusionReport]:
    """Carry out fits one after the other, and again as the tasks of one parallel call."""
    alone = [fit() for fit in make_fits()]
    together, report = fused(lambda: Parallel()(delayed(fit)() for fit in make_fits()), **settings)
    return alone, together, report


def one_that_fails_beside(train: Callable[[], object]) -> tuple[Callable, Callable]:
    """Give two tasks: one that trains, and before it one that fails when the other has begun."""
    began = threading.Event()

    def fails():
        began.wait(10)
        raise ZeroDivisionError

    def trains():
        began.set()
        return train()

    return fails, trains


def nets_within(thing: object) -> Iterator[NetEstimator]:
    """Find the fitted nets inside of estimators, of lists, tuples and dicts of them, in a fixed order."""
    if isinstance(thing, NetEstimator):
        if thing.initialized_:
            yield thing
    elif isinstance(thing, dict):
        for name in sorted(thing):
            yield from nets_within(thing[name])
    elif isinstance(thing, (list, tuple)) or (isinstance(thing, np.ndarray) and thing.dtype == object):
        for each in thing:
            yield from nets_within(each)
    elif hasattr(thing, "get_params"):
        yield from nets_within(vars(thing))


def assert_same_nets(alone: object, together: object, *, tolerance: float = 0.0) -> None:
    """Weights, buffers, losses and numbers of epochs are equal, to a tolerance relative to the largest of a tensor."""
    pairs = list(zip(nets_within(alone), nets_within(together), strict=True))
    assert pairs, "there are no fitted nets to compare"
    for one, other in pairs:
        assert one.n_iter_ == other.n_iter_
        assert one.best_epoch_ == other.best_epoch_
        state, other_state = one.module_.state_dict(), other.module_.state_dict()
        assert state.keys() == other_state.keys()
        for name in state.keys() - (unused_biases(one.module_) if tolerance else set()):
            assert_close(other_state[name], state[name], tolerance, name)
        for name in ("loss_curve_", "validation_curve_"):
            assert_close(torch.tensor(getattr(other, name)), torch.tensor(getattr(one, name)), tolerance, name)


def unused_biases(module: torch.nn.Module) -> set[str]:
    """Biases that batch normalisation takes out again, and its means of them.

    Their gradients are zero but for rounding, and Adam and its kin make steps of full length of such noise.
    """
    layers = list(module.named_children())
    names = set()
    for (name, layer), (next_name, next_layer) in pairwise(layers):
        if isinstance(layer, torch.nn.Linear) and isinstance(next_layer, torch.nn.BatchNorm1d):
            names |= {f"{name}.bias", f"{next_name}.running_mean"}
    return names


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float, name: str) -> None:
    """Equal, NaN at the same places; or within a tolerance relative to the largest entry."""
    if tolerance == 0.0:
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{name}: {m}")
    else:
        largest = float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * largest, msg=lambda m: f"{name}: {m}")


def results_without_times(cv_results: dict) -> dict:
    """What a search found, but for how long it took."""
    return {name: values for name, values in cv_results.items() if not name.endswith("_time")}


def described(values) -> str:
    """Their representation, without addresses in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(list(values)))


def assert_same_results(one, other, *, tolerance: float = 0.0) -> None:
    """Dictionaries of numbers and parameters, as `cv_results_` and `cross_validate` give them, are equal."""
    one, other = results_without_times(one), results_without_times(other)
    assert one.keys() == other.keys()
    for name, values in one.items():
        if name in ("estimator", "indices"):
            continue
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            np.testing.assert_allclose(other[name], values, rtol=0, atol=tolerance, err_msg=name)
        else:
            assert described(other[name]) == described(values), name


def within(seconds: float, work: Callable[[], object]) -> object:
    """Give what some work gives; fail with the stacks of all threads if it does not end in time."""
    outcome: Future = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError:
        if outcome.done():
            raise
        pytest.fail(f"no end after {seconds} s\n{stacks_of(threading.enumerate())}", pytrace=False)


def stacks_of(threads: list[threading.Thread]) -> str:
    """Where threads are."""
    frames = sys._current_frames()
    return "\n".join(f"--- {t.name}\n{''.join(traceback.format_stack(frames[t.ident]))}" for t in threads if t.ident in frames)


def assert_no_thread_is_left(seconds: float = 5.0) -> None:
    """Fusion has no thread; some seconds are for a busy machine."""
    deadline = time.perf_counter() + seconds
    while own_threads() and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert not own_threads(), stacks_of(own_threads())


def own_threads() -> list[threading.Thread]:
    """Threads of fusion that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("skpt-")]


def run_forward(layer, x, rows) -> Bound:
    """Bind a stacked layer to an input, and compute the outputs of some rows."""
    now = Now()
    now.rows = rows
    bound = layer.bind(x, now)
    _run(bound.forward)
    return bound


def run_backward(bound: Bound, g):
    """Compute the gradients by one of the outputs; give that of the input."""
    gx, calls = bound.backward(g)
    _run(calls)
    return gx


def _run(calls: list[Callable[[], object]]) -> None:
    """As a step of a stack does: OpenBLAS may compute with memory beside its matrices, and numpy warn of what is there."""
    with np.errstate(all="ignore"):
        for call in calls:
            call()
