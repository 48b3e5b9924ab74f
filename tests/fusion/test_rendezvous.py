"""Tasks meet, train together and go on, whatever they do and in whatever order: no deadlock, no thread left."""

import logging
import os
import signal
import sys
import threading
import time
import warnings
from functools import partial

import numpy as np
import pytest
import sklearn
import torch
from joblib import Parallel, delayed
from sklearn.callback import ScoringMonitor
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback

import skpt.fusion.rendezvous as rendezvous_module
from skpt import LinearRegressor, MLPRegressor
from skpt.exceptions import DivergedError, NotConvergedWarning
from skpt.fusion import last_report
from skpt.fusion.rendezvous import Cancelled, Rendezvous, current_rendezvous
from tests.fusion.comparison import assert_no_thread_is_left, assert_same_nets, fit_alone_and_fused, fused, within

X = np.random.default_rng(0).standard_normal((16, 2))
y = X @ [1.0, -2.0]


def fit(seed: int = 0, **parameters):
    return LinearRegressor(**{"max_epochs": 2, "batch_size": -1, "random_state": seed, **parameters}).fit(X, y)


# ---------------------------------------------------------------- random task graphs


class Failed(Exception):
    """What a task of a graph raises."""


def run_task(seed: int, depth: int = 0) -> list:
    """Do some things one after the other, as drawn from a seed; give what came out of them."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(random.integers(0, 4)):
        match random.choice(["fit", "fit", "fit", "sleep", "nest", "nest and catch", "fail", "work"], p=[0.2] * 3 + [0.08] * 5):
            case "fit":
                found.append(fit(int(random.integers(100)), max_epochs=int(random.integers(1, 4))).coef_.tolist())
            case "sleep":
                time.sleep(random.uniform(0, 0.002))
            case "work":
                found.append(float(np.linalg.eigvalsh(np.eye(20)).sum()))
            case "fail":
                raise Failed
            case "nest":
                found.append(run_tasks(random.integers(1 << 30, size=random.integers(0, 4)), depth + 1))
            case "nest and catch":
                try:
                    found.append(run_tasks(random.integers(1 << 30, size=random.integers(0, 4)), depth + 1))
                except Failed:
                    found.append("failed")
    return found


def run_tasks(seeds, depth: int = 0) -> list:
    return [] if depth > 2 else Parallel()(delayed(run_task)(int(seed), depth) for seed in seeds)


def outcome_of(work) -> list | str:
    try:
        return work()
    except Failed:
        return "failed"


def check_graphs(seeds, least: float = 1.3) -> None:
    n_jobs = n_groups = 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        tasks = random.integers(1 << 30, size=random.integers(1, 7))
        n_threads = int(random.integers(1, 4))
        expected = outcome_of(partial(run_tasks, tasks))
        work = partial(
            outcome_of, lambda tasks=tasks, n=n_threads: fused(partial(run_tasks, tasks), inner_max_num_threads=n)[0]
        )
        assert within(60, work) == expected, f"graph {seed}"
        assert_no_thread_is_left()
        n_jobs, n_groups = n_jobs + last_report().n_jobs, n_groups + len(last_report().groups)
    assert n_jobs > least * n_groups, "the graphs were to fuse something"


def test_random_task_graphs():
    check_graphs(range(30))


@pytest.mark.slow
def test_a_thousand_random_task_graphs():
    check_graphs(range(1000, 2000))


# ---------------------------------------------------------------- single situations


def test_tasks_that_fit_several_times_or_never():
    def task(i):
        return [fit(seed).coef_.tolist() for seed in range(i)]

    found, report = within(30, lambda: fused(lambda: Parallel()(delayed(task)(i) for i in range(5))))
    assert found == [task(i) for i in range(5)]
    assert report.n_jobs == 10
    assert sorted((group.n_models for group in report.groups), reverse=True)[0] >= 2


def test_tasks_compute_in_one_thread_each():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        counts, _ = within(30, lambda: fused(lambda: Parallel()(delayed(torch.get_num_threads)() for _ in range(4))))
        assert counts == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_more_tasks_than_can_begin_at_a_time():
    found, report = within(
        60, lambda: fused(lambda: Parallel(pre_dispatch="all")(delayed(fit)(i % 3, max_epochs=1) for i in range(600)))
    )
    assert len(found) == report.n_jobs == 600
    assert sum(group.n_models for group in report.groups) == 600


def test_inner_tasks_begin_where_outer_ones_fill_all_places(monkeypatch):
    """Outer tasks wait for inner ones: they must make room for them, and the inner ones come before further outer ones."""
    monkeypatch.setattr(rendezvous_module, "FIRST_TASKS", 2)
    monkeypatch.setattr(rendezvous_module, "MOST_TASKS", 2)
    begun, most, lock = [], [], threading.Lock()

    def outer(i):
        with lock:
            begun.append(i)
            most.append(len(begun))
        found = [net.n_iter_ for net in Parallel()(delayed(fit)(seed) for seed in range(4))]
        with lock:
            begun.remove(i)
        return found

    found, _ = within(30, lambda: fused(lambda: Parallel()(delayed(outer)(i) for i in range(12)), inner_max_num_threads=1))
    assert found == [[2] * 4] * 12
    assert max(most) < 12


def test_a_task_is_active_again_as_soon_as_its_inner_tasks_are_done():
    """joblib looks for results every ten milliseconds only; nobody may train meanwhile without those that wait for them."""

    def outer(i):
        time.sleep(0.003 * i)  # so that each looks at times of its own
        Parallel()(delayed(fit)(seed) for seed in range(2))
        return fit(i)

    for _ in range(3):
        _, report = within(30, lambda: fused(lambda: Parallel()(delayed(outer)(i) for i in range(6))))
        assert [group.n_models for group in report.groups] == [12, 6]


def test_a_fit_in_a_thread_of_the_users_own_trains_alone():
    def task():
        found = []
        thread = threading.Thread(target=lambda: found.append(fit()))
        thread.start()
        thread.join()
        return found[0]

    (net,), report = within(30, lambda: fused(lambda: Parallel()([delayed(task)()])))
    assert_same_nets(fit(), net)
    assert report.n_jobs == 0


def test_a_task_that_fits_after_the_call_was_given_up_ends():
    """Nobody would train its job: it must not wait for that."""
    began, ended = threading.Event(), []

    def late():
        began.set()
        time.sleep(0.3)
        try:
            fit()
        except BaseException as error:
            ended.append(type(error))
            raise

    def fails():
        began.wait()
        raise Failed

    with pytest.raises(Failed):
        within(10, lambda: fused(lambda: Parallel()([delayed(late)(), delayed(fails)()]), inner_max_num_threads=2))
    assert ended == [Cancelled]
    assert_no_thread_is_left()


def test_tasks_that_an_inner_call_left_behind_end():
    def slow():
        time.sleep(0.2)
        fit()

    def fails():
        raise Failed

    def outer():
        with pytest.raises(Failed):
            Parallel()([delayed(slow)(), delayed(fails)()])
        return "went on"

    found, _ = within(10, lambda: fused(lambda: Parallel()([delayed(outer)()]), inner_max_num_threads=2))
    assert found == ["went on"]
    assert_no_thread_is_left()


def test_a_fit_of_its_own_ends_when_the_call_was_given_up():
    """Also one that is not stacked: nobody waits for its million epochs."""
    began = threading.Event()

    class Begins(Callback):
        def on_batch_end(self, net, **kwargs):
            began.set()

    def fails():
        began.wait(10)
        raise Failed

    with pytest.raises(Failed):
        tasks = [delayed(fit)(callbacks=[Begins()], max_epochs=10**6), delayed(fails)()]
        within(20, lambda: fused(lambda: Parallel()(tasks), inner_max_num_threads=2))
    assert_no_thread_is_left()


@pytest.mark.parametrize(
    "context", [partial(torch.autocast, "cpu", torch.bfloat16), partial(warnings.catch_warnings, record=True)]
)
def test_a_fit_within_a_context_ends_when_the_call_was_given_up(context):
    began = threading.Event()

    def trains():
        with context():
            began.set()
            fit(optimizer="adam", max_epochs=10**7)

    def fails():
        began.wait(10)
        time.sleep(0.2)
        raise Failed

    with pytest.raises(Failed):
        tasks = [delayed(trains)(), delayed(fails)()]
        within(20, lambda: fused(lambda: Parallel()(tasks), inner_max_num_threads=2))
    assert_no_thread_is_left()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_tasks_may_fit_while_they_hold_a_lock(n_threads):
    """They wait for each other, and would do so for ever if all had to hand in before any trains."""
    lock = threading.Lock()

    def task(seed):
        with lock:
            return fit(seed)

    expected = [fit(seed) for seed in range(3)]
    tasks = [delayed(task)(i) for i in range(3)]
    found, _ = within(30, lambda: fused(lambda: Parallel()(tasks), inner_max_num_threads=n_threads))
    for net, other in zip(found, expected, strict=True):
        assert_same_nets(net, other)
    assert_no_thread_is_left()


def test_a_task_may_wait_for_a_lock_after_its_fit():
    """The one that holds it was trained too, and waits for a turn."""
    lock, holds = threading.Lock(), threading.Event()

    def first():
        holds.wait(10)
        fit()
        with lock:
            return "first"

    def second():
        with lock:
            holds.set()
            fit()
            return "second"

    tasks = [delayed(second)(), delayed(first)()]
    found, _ = within(60, lambda: fused(lambda: Parallel()(tasks), inner_max_num_threads=1))
    assert found == ["second", "first"]
    assert_no_thread_is_left()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_tasks_may_have_tasks_of_their_own_while_they_hold_a_lock(n_threads):
    lock = threading.Lock()

    def task(seed):
        with lock:
            return [net.coef_[0] for net in Parallel()(delayed(fit)(seed + i) for i in range(2))]

    expected = [[fit(seed + i).coef_[0] for i in range(2)] for seed in range(3)]
    tasks = [delayed(task)(i) for i in range(3)]
    found, _ = within(60, lambda: fused(lambda: Parallel()(tasks), inner_max_num_threads=n_threads))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert_no_thread_is_left()


def test_tasks_that_sleep_do_not_let_more_run_than_there_are_threads():
    running, most = set(), []

    def task(i):
        if i == 0:
            time.sleep(1.5)  # as if it waited for a file: what waits meanwhile is trained without it
            return
        fit(i)
        running.add(i)
        most.append(len(running))
        time.sleep(0.02)
        running.remove(i)

    fused(lambda: Parallel()(delayed(task)(i) for i in range(30)), inner_max_num_threads=2)
    assert max(most[5:]) <= 3  # one more for each time that nothing seemed to go on


def test_the_thread_that_waits_for_tasks_runs_them():
    """Another one would be woken on another core, where the caches know nothing of it."""
    here = threading.get_ident()
    found, _ = fused(lambda: Parallel()(delayed(threading.get_ident)() for _ in range(50)), inner_max_num_threads=1)
    assert found == [here] * 50


def test_what_takes_long_runs_beside_others():
    all_run = threading.Barrier(3)
    within(30, lambda: fused(lambda: Parallel()(delayed(all_run.wait)(20) for _ in range(3)), inner_max_num_threads=3))


def test_an_interrupt_within_a_task_ends_the_call():
    """Ctrl-C reaches the user's own thread, which may be in the middle of a task."""
    ended = []

    def task(i):
        if i == 2:
            raise KeyboardInterrupt
        try:
            return fit(i)
        finally:
            ended.append(i)

    with pytest.raises(KeyboardInterrupt):
        within(30, lambda: fused(lambda: Parallel()(delayed(task)(i) for i in range(5)), inner_max_num_threads=1))
    assert set(ended) <= {0, 1, 3, 4}
    assert current_rendezvous() is None
    assert_no_thread_is_left()


def test_an_interrupt_of_training_ends_the_call(monkeypatch):
    def interrupted(jobs, is_cancelled):
        raise KeyboardInterrupt

    monkeypatch.setattr(rendezvous_module, "train_stack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        within(30, lambda: fused(lambda: Parallel()(delayed(fit)(i) for i in range(5))))
    assert_no_thread_is_left()


def test_who_calls_from_deep_within_has_room_for_few_tasks_on_top():
    def from_within(n_frames):
        if n_frames:
            return from_within(n_frames - 1)
        search = GridSearchCV(LinearRegressor(max_epochs=2), {"lr": [0.1, 0.2, 0.3] * 10}, cv=2)
        return fused(lambda: search.fit(X, y), inner_max_num_threads=1)[0]

    assert within(60, lambda: from_within(sys.getrecursionlimit() - 250)).best_score_ <= 1


def test_what_trains_for_all_is_not_in_the_context_of_the_last(global_generators_untouched):
    """The task that is the last to hand in trains; what it has set for itself is not for the others."""

    def attempt(i):
        with np.errstate(all="raise"), torch.no_grad():
            return fit(i, optimizer="sgd", lr=0.4, max_epochs=20) if i else fit(i, lr=1e30, optimizer="sgd", max_epochs=50)

    def outcome(i):
        try:
            return attempt(i)
        except DivergedError as error:
            return str(error)

    alone = [outcome(i) for i in range(3)]
    together, report = fused(lambda: Parallel()(delayed(outcome)(i) for i in range(3)), inner_max_num_threads=1)
    assert alone[0] == together[0] and "diverged" in alone[0]
    assert_same_nets(alone[1:], together[1:])
    assert report.n_jobs == 3


def test_tasks_that_never_wait_share_a_thread():
    """To start one takes longer than a small task."""
    all_are_there = threading.Event()

    def first():
        all_are_there.wait(10)
        return threading.get_ident()

    rendezvous = Rendezvous(n_threads=1, memory_limit=1 << 30)
    with rendezvous.dispatching():
        futures = [rendezvous.submit(first), *(rendezvous.submit(threading.get_ident) for _ in range(100))]
        all_are_there.set()
    assert len({future.result(10) for future in futures}) == 1
    rendezvous.close()
    assert_no_thread_is_left()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_process_forked_from_a_task_trains_alone():
    def task():
        child = os.fork()
        if child == 0:
            try:
                fit()
                os._exit(7)
            finally:
                os._exit(1)
        for _ in range(200):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "it waited for ever"

    found, _ = fused(lambda: Parallel()([delayed(task)()]))
    assert found == [7]


def test_what_waits_is_told_that_the_call_was_given_up():
    rendezvous = Rendezvous(n_threads=1, memory_limit=1 << 30)
    with rendezvous.dispatching():  # so that nothing trains
        future = rendezvous.submit(fit)
        time.sleep(0.1)
        assert not future.done()
        rendezvous.cancel()
        with pytest.raises(Cancelled):
            future.result(5)
    rendezvous.close()
    assert_no_thread_is_left()


def test_the_rendezvous_is_known_to_its_tasks_alone():
    rendezvous = Rendezvous(n_threads=1, memory_limit=1 << 30)
    assert rendezvous.submit(current_rendezvous).result(5) is rendezvous
    assert current_rendezvous() is None
    rendezvous.close()


def test_at_most_so_many_tasks_run_at_a_time():
    running, most = set(), []

    def task(i):
        running.add(i)
        most.append(len(running))
        time.sleep(0.005)
        running.remove(i)

    fused(lambda: Parallel()(delayed(task)(i) for i in range(10)), inner_max_num_threads=3)
    assert max(most) == 3


@pytest.mark.parametrize(
    "context",
    [partial(torch.autocast, "cpu", torch.bfloat16), partial(torch.device, "cpu"), torch.inference_mode],
    ids=["autocast", "device", "inference mode"],
)
def test_who_computes_in_a_context_of_torch_trains_at_once(context, caplog):
    def attempt(i):
        net = MLPRegressor((8,), max_epochs=3, batch_size=8, random_state=i)
        if i % 2 == 0:
            return net.fit(X, y)
        with context():
            try:
                return net.fit(X, y)
            except RuntimeError as error:
                return str(error)

    alone = [attempt(i) for i in range(4)]
    with caplog.at_level(logging.DEBUG, "skpt"):
        together, report = within(30, lambda: fused(lambda: Parallel()(delayed(attempt)(i) for i in range(4))))
    assert report.n_jobs == 2
    assert_same_nets(alone, together)
    assert [net for net in alone if isinstance(net, str)] == [net for net in together if isinstance(net, str)]
    assert report.not_fused == {"a context of torch's": 2}
    assert caplog.text.count("MLPRegressor is not stacked with others: a context of torch's") == 2


@pytest.mark.parametrize(
    "context",
    [
        partial(torch.autocast, "cpu", dtype=torch.bfloat16),
        partial(torch.device, "meta"),
        torch.no_grad,
        torch.inference_mode,
        partial(np.errstate, divide="raise"),
        partial(sklearn.config_context, assume_finite=True),
    ],
)
def test_what_the_caller_has_set_holds_in_its_tasks(context):
    def settings():
        return (
            torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
            torch.empty(0).device,
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            np.geterr(),
            sklearn.get_config()["assume_finite"],
        )

    def nested():
        return Parallel()(delayed(settings)() for _ in range(2))

    outside = settings()
    with context():
        expected = settings()
        found, _ = fused(lambda: Parallel()(delayed(nested)() for _ in range(3)))
    assert expected != outside
    assert found == [[expected] * 2] * 3
    assert settings() == outside
    assert fused(lambda: Parallel()([delayed(settings)()]))[0] == [outside]


@pytest.mark.parametrize("record", [False, True])
def test_who_catches_warnings_does_so_for_its_own_fit(record):
    """Python's filters are the process's: who waited within them would change them for all others."""

    def attempt(i):
        if i != 1:
            return fit(lr=1e-3, max_epochs=30, optimizer="sgd")
        with warnings.catch_warnings(record=record) as caught:
            warnings.simplefilter("always" if record else "error")
            try:
                fit(lr=1e-3, max_epochs=30, optimizer="sgd")
            except NotConvergedWarning as warning:
                return [type(warning)]
            return [each.category for each in caught]

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Parallel()(delayed(attempt)(i) for i in range(4))

    found, report = fused(run, inner_max_num_threads=1)
    assert found[1] == [NotConvergedWarning]
    assert all(isinstance(net, LinearRegressor) for i, net in enumerate(found) if i != 1)
    assert report.not_fused == {"a context of warnings": 1} and report.n_jobs == 3


def test_torchs_default_precision_changes_nothing():
    expected = [fit(seed) for seed in range(3)]
    torch.set_default_dtype(torch.float64)
    try:
        found, report = fused(lambda: Parallel()(delayed(fit)(seed) for seed in range(3)))
    finally:
        torch.set_default_dtype(torch.float32)
    assert report.n_jobs == 3 and not report.not_fused
    for net, other in zip(found, expected, strict=True):
        assert_same_nets(net, other)


def test_epochs_are_told_under_the_settings_of_the_fit():
    seen = []

    class Looks(ScoringMonitor):
        def on_fit_task_end(self, estimator, context, **kwargs):
            seen.append(sklearn.get_config()["assume_finite"])

    nets = [MLPRegressor((4,), max_epochs=2, random_state=i).set_callbacks(Looks(scoring="r2")) for i in range(3)]
    with sklearn.config_context(assume_finite=True):
        fused(lambda: Parallel()(delayed(net.fit)(X, y) for net in nets))
    assert len(seen) == 3 * 3 and all(seen)


# ---------------------------------------------------------------- stacks that fail


def fails_in_company(monkeypatch, error: Exception, *, after_steps: int, lonely_lr: float | None = None) -> None:
    """Let stacks of several models fail in their midst; and that of one with a certain learning rate too."""
    train_stack = rendezvous_module.train_stack

    def train_or_fail(jobs, is_cancelled):
        left = [after_steps]

        def count_down():
            left[0] -= 1
            if left[0] < 0 and (len(jobs) > 1 or jobs[0].optimizer.param_groups[0]["lr"] == lonely_lr):
                raise error
            return is_cancelled()

        train_stack(jobs, count_down)

    monkeypatch.setattr(rendezvous_module, "train_stack", train_or_fail)


@pytest.mark.parametrize("after_steps", [0, 3, 7])
def test_a_stack_without_memory_trains_one_by_one_from_the_beginning(monkeypatch, caplog, after_steps):
    def fits():
        def one(seed):
            net = MLPRegressor(
                (8,), dropout=0.2, batch_norm=True, max_epochs=4 + seed, batch_size=8, random_state=seed, early_stopping=True,
                lr_schedule="exponential",
            )  # fmt: skip
            return net.fit(X, y)

        return [partial(one, seed) for seed in range(3)]

    fails_in_company(monkeypatch, MemoryError("too much"), after_steps=after_steps)
    with caplog.at_level(logging.DEBUG, "skpt"):
        alone, together, report = fit_alone_and_fused(fits, inner_max_num_threads=1)
    assert_same_nets(alone, together)
    assert [group.n_models for group in report.groups] == [1, 1, 1]
    assert "a stack of 3 failed (MemoryError('too much')); its models train one by one" in caplog.text
    for one, other in zip(alone, together, strict=True):  # training goes on the same too
        assert_same_nets(one.partial_fit(X, y), other.partial_fit(X, y))


def test_who_fails_alone_too_fails_alone(monkeypatch):
    fails_in_company(monkeypatch, RuntimeError("no memory"), after_steps=1, lonely_lr=0.25)

    def attempt(lr):
        try:
            return fit(lr=lr, max_epochs=200)
        except RuntimeError as error:
            return str(error)

    found, _ = fused(lambda: Parallel()(delayed(attempt)(lr) for lr in (0.1, 0.25, 0.3)), inner_max_num_threads=1)
    assert found[1] == "no memory"
    assert_same_nets([fit(lr=0.1, max_epochs=200), fit(lr=0.3, max_epochs=200)], [found[0], found[2]])


def test_a_fault_of_ours_leaves_no_task_waiting(monkeypatch, caplog):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(rendezvous_module, "make_groups", broken)
    with pytest.raises(RuntimeError, match="training failed: ZeroDivisionError"):
        within(10, lambda: fused(lambda: Parallel()(delayed(fit)(seed) for seed in range(3))))
    assert "a stack failed" in caplog.text
    assert_no_thread_is_left()


def test_the_number_of_threads_of_torch_is_put_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fused(lambda: Parallel()(delayed(fit)(seed) for seed in range(3)))
        seen = [torch.get_num_threads()]
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))  # each thread has its own copy
        later.start()
        later.join()
        assert seen == [2, 2]
    finally:
        torch.set_num_threads(before)
