"""Tasks shared out among processes: whoever is free takes the next share, and none is lost."""

import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from joblib import Parallel, delayed

from skpt.fusion import last_report, shares
from tests.fusion.comparison import assert_no_thread_is_left, fused, one_that_fails_beside, within
from tests.fusion.test_rendezvous import fit


class Workers:
    """As `shares._Workers`, but of threads, which come when they are told to."""

    is_reused = False

    def __init__(self, n_workers: int, *, have_come: bool = True):
        self.executor = ThreadPoolExecutor(n_workers, thread_name_prefix="worker")
        self.coming = [Future() for _ in range(n_workers)]
        if have_come:
            self.come()
        self.n_resting = self.n_killed = 0

    def come(self) -> None:
        for coming in self.coming:
            coming.set_result(0)

    def rest(self) -> None:
        self.n_resting += 1

    def kill(self) -> None:
        self.n_killed += 1

    def forget_begun(self) -> None:
        pass

    def wait_until_begun(self, n_shares: int) -> None:
        pass


@pytest.fixture
def call_workers(monkeypatch):
    """Let a call take these workers, one after the other."""
    taken = []

    def use(*workers):
        waiting = list(workers)
        monkeypatch.setattr(shares._Workers, "take", classmethod(lambda cls, n: (taken.append(n), waiting.pop(0))[1]))
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
    workers = Workers(2)
    taken = call_workers(workers)
    names = run_tasks(9, n_jobs=3)
    assert taken == [2]
    assert sum(map(is_of_worker, names)) == 6
    assert len(set(names)) == 3
    assert (workers.n_resting, workers.n_killed) == (1, 0)


def test_a_single_task_needs_no_worker(call_workers):
    assert not is_of_worker(run_tasks(1)[0])
    assert call_workers() == []


def test_who_waits_for_nothing_but_workers_that_never_come_does_all_alone(call_workers):
    workers = Workers(1, have_come=False)
    call_workers(workers)
    assert not any(map(is_of_worker, run_tasks(6)))
    workers.come()  # too late; nothing is left to do
    assert workers.n_resting == 1


def test_a_worker_that_comes_later_takes_what_is_left(call_workers):
    workers = Workers(1, have_come=False)
    call_workers(workers)

    def task(i):
        if i == 0:
            workers.come()
        return in_which_thread(i)[1]

    names, _ = within(30, lambda: fused(lambda: Parallel()(delayed(task)(i) for i in range(6)), n_jobs=2))
    assert sum(map(is_of_worker, names)) == 3


def test_a_worker_that_could_not_come_is_not_waited_for(call_workers):
    workers = Workers(2, have_come=False)
    workers.coming[0].set_exception(OSError("no more processes"))
    workers.coming[1].cancel()
    call_workers(workers)
    assert not any(map(is_of_worker, run_tasks(6, n_jobs=3)))


def test_workers_that_died_in_between_are_replaced(call_workers):
    dead, alive = Workers(1), Workers(1)
    dead.is_reused = True
    dead.executor.shutdown()
    taken = call_workers(dead, alive)
    assert sum(map(is_of_worker, run_tasks(6))) == 3
    assert taken == [1, 1]


def test_a_worker_that_dies_with_its_share_is_an_error(call_workers):
    """It may have died of what it was given; who has called must not die of it too."""

    class Dies(ThreadPoolExecutor):
        def submit(self, *call):
            died = Future()
            died.set_exception(OSError("killed"))
            return died

    workers = Workers(1)
    workers.executor = Dies(1)
    call_workers(workers)
    with pytest.raises(OSError, match="killed"):
        run_tasks(6)
    assert workers.n_killed == 1


def test_a_failure_in_one_share_ends_the_others(call_workers):
    for order in (slice(None), slice(None, None, -1)):
        tasks = one_that_fails_beside(lambda: fit(optimizer="adam", max_epochs=10**7))[order]
        workers = Workers(1)
        call_workers(workers)
        start = time.perf_counter()
        with pytest.raises(ZeroDivisionError):
            within(30, lambda tasks=tasks: fused(lambda: Parallel()(delayed(task)() for task in tasks), n_jobs=2))
        workers.executor.shutdown()  # when its share has ended
        assert time.perf_counter() - start < 10
        assert not any(call.running_here for call in shares._CALLS.values())


def test_results_may_be_asked_for_as_they_come(call_workers):
    call_workers(Workers(1))
    found = within(
        30, lambda: fused(lambda: list(Parallel(return_as="generator")(delayed(pow)(i, 2) for i in range(9))), n_jobs=2)[0]
    )
    assert found == [i**2 for i in range(9)]


def test_the_report_is_of_all_shares(call_workers):
    call_workers(Workers(1))
    before = torch.get_num_threads()
    within(60, lambda: fused(lambda: Parallel()(delayed(fit)(seed) for seed in range(8)), n_jobs=2))
    report = last_report()
    assert report.n_jobs == 8
    assert [group.n_models for group in report.groups] == [4, 4]
    assert torch.get_num_threads() == before


@pytest.mark.slow  # to start workers takes seconds
def test_workers_are_waited_for_by_nobody_and_used_by_the_next_call():
    n_jobs = 3  # of which no other test has workers that rest
    assert (os.getpid(), n_jobs - 1) not in shares._Workers._resting

    def processes() -> set[int]:
        return set(fused(lambda: Parallel()(delayed(os.getpid)() for _ in range(30)), n_jobs=n_jobs)[0])

    assert processes() == {os.getpid()}
    (workers,) = shares._Workers._resting[os.getpid(), n_jobs - 1]
    for coming in workers.coming:
        coming.result(60)
    assert len(processes()) > 1
    workers._since -= shares._SECONDS_IDLE  # as if they had waited so long that loky may have ended them
    assert os.getpid() in processes()
    for coming in workers.coming:
        coming.result(60)
    workers.kill()
    assert processes() == {os.getpid()}  # by new ones, which have not come yet
