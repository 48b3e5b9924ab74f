"""Tasks shared out among processes: whoever is free takes the next share, and none is lost."""

import multiprocessing
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from joblib import Parallel, delayed
from sklearn.base import clone

from skpt import MLPRegressor
from skpt.fusion import last_report, shares
from tests.fusion.comparison import assert_no_thread_is_left, fused, one_that_fails_beside, within
from tests.fusion.test_rendezvous import X, fit


class Worker:
    """As `workers.Worker`, but a thread, which is ready when it is told so, and claims as slowly as it is told."""

    def __init__(self, *, is_ready: bool = True, claims_after: float = 0.0, shares_out: bool = False):
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=f"worker {id(self)}")
        self.at_work: Future = Future()
        self.has_ended = False
        if is_ready:
            self.at_work.set_result(0)
        self.unclaimed = multiprocessing.Semaphore(0)
        self.claims_after, self.shares_out = claims_after, shares_out
        self.n_rests = self.n_killed = 0

    def offer(self, n_things: int) -> None:
        self.n_things = n_things if self.shares_out else 0  # of the others nothing can be taken away
        for _ in range(self.n_things):
            self.unclaimed.release()

    def claim(self) -> bool:
        time.sleep(self.claims_after)
        return not self.shares_out or self.unclaimed.acquire(block=False)

    def submit(self, function, *args) -> Future:
        return self.executor.submit(function, *args, claim=self.claim)

    def rest(self) -> None:
        self.n_rests += 1

    def kill(self) -> None:
        self.n_killed += 1


@pytest.fixture
def call_workers(monkeypatch):
    """Let a call take these workers, one after the other."""
    taken = []

    def use(*workers):
        waiting = list(workers)

        def take(n_workers):
            taken.append(n_workers)
            return [waiting.pop(0) for _ in range(n_workers)]

        monkeypatch.setattr(shares.Worker, "take", take)
        return taken

    yield use
    assert_no_thread_is_left()


def in_which_thread(i: int) -> tuple[int, str]:
    time.sleep(0.02)
    return i, threading.current_thread().name


def run_tasks(n_tasks: int, n_jobs: int = 2) -> list[str]:
    """Run some; give the names of their threads."""
    found, _ = within(30, lambda: fused(lambda: Parallel()(delayed(in_which_thread)(i) for i in range(n_tasks)), n_jobs=n_jobs))
    assert [i for i, _ in found] == list(range(n_tasks))
    return [name for _, name in found]


def is_of_worker(name: str) -> bool:
    return name.startswith("worker")


def test_the_calling_process_carries_a_share_and_each_worker_one(call_workers):
    workers = Worker(), Worker()
    taken = call_workers(*workers)
    names = run_tasks(10, n_jobs=3)
    assert taken == [2]
    assert sum(map(is_of_worker, names)) == 8
    assert len(set(names)) == 3
    assert [(worker.n_rests, worker.n_killed) for worker in workers] == [(1, 0)] * 2


def test_a_single_task_needs_no_worker(call_workers):
    assert not is_of_worker(run_tasks(1)[0])
    assert call_workers() == []


def test_who_waits_for_nothing_but_workers_that_never_come_does_all_alone(call_workers):
    worker = Worker(is_ready=False)
    call_workers(worker)
    assert not any(map(is_of_worker, run_tasks(6)))
    worker.at_work.set_result(0)  # too late; nothing is left to do
    assert worker.n_rests == 1


def test_a_worker_that_comes_later_takes_what_is_left(call_workers):
    worker = Worker(is_ready=False)
    call_workers(worker)

    def task(i):
        if i == 0:
            worker.at_work.set_result(0)
        return in_which_thread(i)[1]

    names, _ = within(30, lambda: fused(lambda: Parallel()(delayed(task)(i) for i in range(6)), n_jobs=2))
    assert sum(map(is_of_worker, names)) == 4


def test_a_worker_that_could_not_come_is_not_waited_for(call_workers):
    worker = Worker(is_ready=False)
    worker.has_ended = True
    worker.at_work.set_exception(OSError("no more processes"))
    call_workers(worker)
    assert not any(map(is_of_worker, run_tasks(6)))


def test_a_worker_that_died_in_between_is_replaced(call_workers):
    dead, alive = Worker(), Worker()

    def submit(*call):
        raise BrokenProcessPool

    dead.submit = submit
    taken = call_workers(dead, alive)
    assert sum(map(is_of_worker, run_tasks(6))) == 4
    assert taken == [1, 1]


def test_a_worker_that_dies_with_its_share_is_an_error(call_workers):
    """It may have died of what it was given; who has called must not die of it too."""
    worker = Worker()
    died: Future = Future()
    died.set_exception(OSError("killed"))
    worker.submit = lambda *call: died
    call_workers(worker)
    with pytest.raises(OSError, match="killed"):
        run_tasks(6)
    assert worker.n_killed == 1


def test_who_is_faster_has_more_of_the_tasks(call_workers):
    worker = Worker(claims_after=0.1, shares_out=True)
    call_workers(worker)
    names = run_tasks(30)
    assert 1 <= sum(map(is_of_worker, names)) <= 10


def test_a_worker_of_which_all_was_taken_is_not_waited_for(call_workers):
    """Its process may have been put to sleep, and nobody needs what it would say."""
    worker = Worker(claims_after=3.0, shares_out=True)
    call_workers(worker)
    start = time.perf_counter()
    assert not any(map(is_of_worker, run_tasks(12)))
    assert time.perf_counter() - start < 2.5
    assert worker.n_rests == 1
    worker.executor.shutdown()


@given(
    st.integers(1, 40),
    st.integers(2, 4),
    st.lists(st.sampled_from([0.0, 0.0, 0.001, 0.01]), min_size=3, max_size=3),
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.004]), min_size=40, max_size=40),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_task_runs_once_whoever_takes_it(call_workers, n_tasks, n_jobs, claims_after, seconds):
    workers = [Worker(claims_after=s, shares_out=True) for s in claims_after]
    call_workers(*workers, *(Worker() for _ in range(3)))
    run: list[int] = []

    def task(i):
        time.sleep(seconds[i])
        run.append(i)
        return -i

    found, _ = within(30, lambda: fused(lambda: Parallel()(delayed(task)(i) for i in range(n_tasks)), n_jobs=n_jobs))
    for worker in workers:
        worker.executor.shutdown()
    assert found == [-i for i in range(n_tasks)]
    assert sorted(run) == list(range(n_tasks))


def test_where_training_takes_longest_no_stack_has_more_than_its_part(call_workers):
    """Who begins more tasks for being faster would train the larger stack for long."""
    call_workers(Worker(claims_after=0.02, shares_out=True))
    net = MLPRegressor((128, 128), max_epochs=200, batch_size=8)
    fits = [delayed(clone(net).set_params(random_state=seed).fit)(X, X[:, 0]) for seed in range(12)]
    report = within(120, lambda: fused(lambda: Parallel()(fits), n_jobs=2))[1]
    assert max(group.n_models for group in report.groups) == 6


def test_a_failure_in_one_share_ends_the_others(call_workers):
    for order in (slice(None), slice(None, None, -1)):
        tasks = one_that_fails_beside(lambda: fit(optimizer="adam", max_epochs=10**7))[order]
        worker = Worker()
        call_workers(worker)
        start = time.perf_counter()
        with pytest.raises(ZeroDivisionError):
            within(30, lambda tasks=tasks: fused(lambda: Parallel()(delayed(task)() for task in tasks), n_jobs=2))
        worker.executor.shutdown()  # when its share has ended
        assert time.perf_counter() - start < 10
        assert not any(call.running_here for call in shares._CALLS.values())


def test_results_may_be_asked_for_as_they_come(call_workers):
    call_workers(Worker())
    found = within(
        30, lambda: fused(lambda: list(Parallel(return_as="generator")(delayed(pow)(i, 2) for i in range(9))), n_jobs=2)[0]
    )
    assert found == [i**2 for i in range(9)]


def test_the_report_is_of_all_shares(call_workers):
    call_workers(Worker())
    before = torch.get_num_threads()
    within(60, lambda: fused(lambda: Parallel()(delayed(fit)(seed) for seed in range(8)), n_jobs=2))
    report = last_report()
    assert report.n_jobs == 8
    assert sorted(group.n_models for group in report.groups) == [3, 5]
    assert torch.get_num_threads() == before
