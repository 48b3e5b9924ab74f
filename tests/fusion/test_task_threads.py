"""Threads run functions, and are kept where that is asked for."""

import os
import threading
import time
import weakref
from functools import partial

import pytest
import torch

from skpt.fusion import shares, task_threads
from skpt.fusion.rendezvous import Rendezvous
from skpt.fusion.task_threads import TaskThreads
from skpt.training.threads import all_threads
from tests.fusion.comparison import own_threads
from tests.fusion.test_rendezvous import fit


def run_and_wait(threads: TaskThreads, n_times: int = 1) -> list[int]:
    """The threads in which functions ran, one after the other."""
    found = []
    for _ in range(n_times):
        done = threading.Event()
        threads.run(lambda done=done: (found.append(threading.get_ident()), done.set()))
        assert done.wait(10)
        time.sleep(0.02)  # until the thread has nothing to do
    return found


@pytest.fixture
def kept():
    """Threads that are kept, until the end of the test."""
    threads = TaskThreads(kept=True)
    yield threads
    threads.kept = False
    run_and_wait(threads, len(threads._idle))


def test_a_thread_ends_with_its_function():
    threads = TaskThreads()
    run_and_wait(threads)
    threads.join(10)
    assert not own_threads()


def test_a_kept_thread_runs_the_next_function(kept):
    assert len(set(run_and_wait(kept, 3))) == 1
    kept.join(0)  # does not wait for its end


def test_as_many_are_kept_as_are_worth_it(kept, monkeypatch):
    monkeypatch.setattr(task_threads, "MOST_KEPT", 2)
    gate = threading.Event()
    for _ in range(5):
        kept.run(gate.wait)
    gate.set()
    deadline = time.perf_counter() + 10
    while len(own_threads()) > 2 and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert len(own_threads()) == len(kept._idle) == 2


def test_a_kept_thread_holds_nothing(kept):
    class Data:
        pass

    data = Data()
    seen = weakref.ref(data)
    kept.run(partial(id, data))
    del data
    deadline = time.perf_counter() + 10
    while seen() is not None and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert seen() is None


def test_calls_in_a_row_share_kept_threads(kept):
    for _ in range(3):
        rendezvous = Rendezvous(n_threads=1, memory_limit=1 << 30, threads=kept)
        with rendezvous.dispatching():
            futures = [rendezvous.submit(partial(fit, seed)) for seed in range(4)]
        assert [future.result(30).n_iter_ for future in futures] == [2] * 4
        assert rendezvous.close().n_jobs == 4
    assert 1 <= len(own_threads()) <= 4
    assert len(kept._idle) == len(own_threads())


def test_kept_threads_compute_as_the_share_is_told(monkeypatch):
    """A thread keeps torch's number of threads: a share of another number has threads of its own."""
    pools: dict = {}
    monkeypatch.setattr(shares, "_WORKERS_THREADS", pools)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def count():
        with all_threads():
            return torch.get_num_threads()

    try:
        for n_threads in (1, 2, 1):
            outcomes, _ = shares._carry([count] * 3, None, n_threads, 1 << 30, (0, -1), set())
            assert outcomes == [(True, n_threads)] * 3
        assert sorted(pools) == [1, 2]
    finally:
        for threads in pools.values():
            threads.kept = False
            run_and_wait(threads, len(threads._idle))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_has_threads_of_its_own(kept):
    run_and_wait(kept)
    child = os.fork()
    if not child:
        os._exit(0 if run_and_wait(kept) else 1)
    assert os.waitpid(child, 0)[1] == 0
