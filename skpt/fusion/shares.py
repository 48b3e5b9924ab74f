"""A parallel call whose tasks are shared out among several processes, of which the calling one is the first.

The tasks are dealt out into as many shares as there are processes. Whoever is free takes the next share: the calling process
at once, a worker process as soon as it runs, which takes seconds the first time. So a short search never waits for workers,
and a long one has them.
"""

from __future__ import annotations

import gc
import itertools
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch
from joblib import cpu_count
from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.backend import get_context

from skpt.fusion.contexts import CallersWarnings
from skpt.fusion.rendezvous import Cancelled, Rendezvous
from skpt.fusion.report import FusionReport, set_last_report
from skpt.fusion.task_threads import TaskThreads

__all__ = ["SharedCall"]

# The calls of this process that have shares, by a number: an executor may run shares in threads of this process.
_CALLS: WeakValueDictionary[tuple[int, int], SharedCall] = WeakValueDictionary()
_numbers = itertools.count()

# What the tasks of a worker process run in, one share after the other, by torch's number of threads, which each thread keeps.
_WORKERS_THREADS: dict[int, TaskThreads] = {}

# Seconds after which worker processes without work end.
_SECONDS_IDLE = 300
# Seconds that the calling process waits, before it begins with its own share, until the workers have theirs. Once it computes,
# the threads that send them hardly come to Python's lock.
_SECONDS_TO_BEGIN = 0.01


class SharedCall:
    """A call whose tasks several processes run, each with a rendezvous of its own.

    Parameters
    ----------
    executor : concurrent.futures.Executor or None
        Carries all shares. None for worker processes of our own, one less than `n_processes`, beside this process.
    n_processes : int
        Into how many shares tasks are dealt out.
    n_threads : int or None
        How many tasks run, and how many stacks train, at a time in a process. None takes its part of the cores.
    memory_limit : int
        Bytes that the stacks training at once in a process may take together.
    waits : bool
        Whether the call is over when `waiting` has begun.
    """

    def __init__(
        self, executor: Executor | None, n_processes: int, n_threads: int | None, memory_limit: int, *, waits: bool
    ):
        self.executor, self.n_processes, self.waits = executor, n_processes, waits
        self.workers: _Workers | None = None
        self.settings = (n_threads or max(1, cpu_count() // n_processes), memory_limit)
        self.key = (os.getpid(), next(_numbers))
        self.running_here: set[Rendezvous] = set()
        _CALLS[self.key] = self
        self.errors = CallersWarnings().errors
        # scikit-learn's catch_warnings overlap in threads and may leave each other's filters behind.
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        self.report = FusionReport()
        self.started = time.perf_counter()
        self.changed = threading.Condition(threading.RLock())
        self.collected: _Share = []
        self.shares: deque[_Share] = deque()
        self.n_free = 0 if executor is None else n_processes  # who could carry a share, besides this process
        self.n_under_way = 0
        self.has_failed = self.cancelled = False

    def submit(self, func: Callable, callback: Callable | None) -> Future:
        """Take a task."""
        future: Future = Future()
        if callback is not None:
            future.add_done_callback(callback)
        with self.changed:
            self.collected.append((func, future))
        return future

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """All first tasks were taken: now they run."""
        self._deal_out()
        if self.waits:
            self._work()
        else:
            threading.Thread(target=self._work, name="skpt-share", daemon=True).start()
        yield

    def cancel(self) -> None:
        """Give up all tasks."""
        with self.changed:
            self.cancelled = True
            self.changed.notify_all()
        self._cancel_here()
        if self.workers is not None:
            self.workers.kill()

    def close(self) -> None:
        """End the call."""
        self.warnings.__exit__(None, None, None)
        if self.workers is not None and not self.cancelled:
            self.workers.rest()
        self.report.seconds_total = time.perf_counter() - self.started
        set_last_report(self.report)

    # ------------------------------------------------------------------ shares

    def _deal_out(self) -> None:
        """Make shares of what was collected."""
        with self.changed:
            tasks, self.collected = self.collected, []
            self.shares.extend(filter(None, (tasks[i :: self.n_processes] for i in range(self.n_processes))))

    def _is_over(self) -> bool:
        return self.has_failed or self.cancelled or not (self.shares or self.n_under_way)

    def _work(self) -> None:
        """Have shares carried, in this process too where no executor was given, until all are back or something failed."""
        while True:
            with self.changed:
                if self.executor is not None:
                    self._hand_over()
                self.changed.wait_for(lambda: self._is_over() or (self.executor is None and self.shares))
                if self._is_over():
                    return
                share = self._take_share(self.shares.popleft)
            self._hand_over()
            self._carry_here(share)

    def _take_share(self, take: Callable[[], _Share]) -> _Share:
        self.n_under_way += 1
        return take()

    def _hand_over(self) -> None:
        """Let whoever is free carry shares."""
        with self.changed:
            if self.executor is None and self.workers is None and self.shares:
                self._call_workers()
            n_before = self.n_under_way
            if self.workers is not None:
                self.workers.forget_begun()
            while self.n_free and self.shares and not self.cancelled:
                self.n_free -= 1
                share = self._take_share(self.shares.pop)
                try:
                    executor = self.executor or self.workers.executor
                    carried = executor.submit(_run_share, [func for func, _ in share], *self.settings, self.key, self.errors)
                except RuntimeError:  # a worker has died since the call before
                    self.n_under_way -= 1
                    self.shares.append(share)
                    if self.executor is not None or not self.workers.is_reused:
                        raise
                    self._call_workers()
                else:
                    carried.add_done_callback(lambda done, share=share: self._take_over(done, share))
            n_sent = self.n_under_way - n_before
        if self.executor is None and n_sent:
            self.workers.wait_until_begun(n_sent)

    def _call_workers(self) -> None:
        """Take workers, and count those that run; the others as they come."""
        self.workers, self.n_free = _Workers.take(self.n_processes - 1), 0
        for coming in self.workers.coming:
            if coming.done():
                self.n_free += _has_come(coming)
            else:
                coming.add_done_callback(self._welcome)

    def _welcome(self, coming: Future) -> None:
        """A worker runs, or has ended before."""
        with self.changed:
            self.n_free += _has_come(coming)
        self._hand_over()

    def _carry_here(self, share: _Share) -> None:
        outcomes, report = _run_share([func for func, _ in share], *self.settings, self.key, self.errors)
        self._take_back(share, outcomes, report)

    def _take_over(self, done: Future, share: _Share) -> None:
        """Take the results of a share that somebody has carried."""
        if self.cancelled:
            return
        try:
            outcomes, report = done.result()
        except BaseException as error:
            outcomes, report = [(False, error)] * len(share), FusionReport()
        with self.changed:
            self.n_free += 1
        self._take_back(share, outcomes, report)
        self._hand_over()

    def _take_back(self, share: _Share, outcomes: Sequence[tuple[bool, object] | None], report: FusionReport) -> None:
        """Give the tasks of a share their results."""
        self.report.merge(report)
        try:
            for (_, future), outcome in zip(share, outcomes, strict=True):
                if outcome is None:  # given up, because another one has failed
                    self.has_failed = True
                elif outcome[0]:
                    future.set_result(outcome[1])
                else:
                    self.has_failed = True
                    future.set_exception(outcome[1])
            self._deal_out()
        finally:
            with self.changed:
                self.n_under_way -= 1
                self.changed.notify_all()
        if self.has_failed:
            self._cancel_here()

    def _cancel_here(self) -> None:
        for rendezvous in list(self.running_here):
            rendezvous.cancel()


# Tasks, and what becomes of each.
_Share = list[tuple[Callable, Future]]


def _has_come(coming: Future) -> bool:
    return not coming.cancelled() and coming.exception() is None


class _Workers:
    """Worker processes. They are not loky's reusable ones, which joblib takes for its own and a call given up would kill.

    Parameters
    ----------
    n_processes : int
        How many.
    """

    _resting: dict[tuple[int, int], list[_Workers]] = {}  # by the process that they belong to and their number

    def __init__(self, n_processes: int):
        self.n_processes, self.is_reused = n_processes, False
        self._begun = get_context("loky").Semaphore(0)
        self.executor = ProcessPoolExecutor(
            n_processes, timeout=_SECONDS_IDLE, initializer=_begin_worker, initargs=(self._begun,)
        )
        self._call()

    def _call(self) -> None:
        self.coming = [self.executor.submit(os.getpid) for _ in range(self.n_processes)]  # each done when a worker runs

    @classmethod
    def take(cls, n_processes: int) -> _Workers:
        """Give workers of an earlier call, which may be dead by now, or new ones."""
        resting = cls._resting.get((os.getpid(), n_processes))
        if not resting:
            return cls(n_processes)
        workers = resting.pop()
        workers.is_reused = True
        if time.monotonic() - workers._since > 0.9 * _SECONDS_IDLE:  # others are started in their place
            try:
                workers._call()
            except RuntimeError:
                return cls.take(n_processes)
        return workers

    def rest(self) -> None:
        """Wait for the next call."""
        self._since = time.monotonic()
        self._resting.setdefault((os.getpid(), self.n_processes), []).append(self)

    def kill(self) -> None:
        """End them whatever they do."""
        self.executor.shutdown(wait=False, kill_workers=True)

    def forget_begun(self) -> None:
        """Shares that have arrived were handed over before."""
        while self._begun.acquire(block=False):
            pass

    def wait_until_begun(self, n_shares: int) -> None:
        """Wait a little until shares that were handed over just now have arrived."""
        deadline = time.perf_counter() + _SECONDS_TO_BEGIN
        while n_shares and self._begun.acquire(timeout=max(0.0, deadline - time.perf_counter())):
            n_shares -= 1


_begun = None  # in a worker, what tells that a share has arrived


def _begin_worker(begun) -> None:
    """Prepare a worker process: take what was imported out of the collections that loky makes after calls, 0.2 s each."""
    global _begun
    _begun = begun
    gc.collect()
    gc.freeze()


def _run_share(
    functions: list[Callable], n_threads: int, memory_limit: int, key: tuple[int, int], errors: set[tuple]
) -> tuple[list[tuple[bool, object] | None], FusionReport]:
    """Run tasks in a worker process, or in this one; give outcomes, None for what was given up, and a report."""
    if _begun is not None:
        _begun.release()
    before = torch.get_num_threads()
    if os.environ.get("OMP_NUM_THREADS") is None:
        torch.set_num_threads(n_threads)
    call, threads = _CALLS.get(key), None
    if call is None:  # in a process of its own
        threads = _WORKERS_THREADS.setdefault(torch.get_num_threads(), TaskThreads(kept=True))
    rendezvous = Rendezvous(n_threads, memory_limit, threads, is_hosted=True)
    rendezvous.warnings.errors |= errors  # scikit-learn sets the caller's filters in its tasks
    if call is not None:
        call.running_here.add(rendezvous)
        if call.cancelled or call.has_failed:
            rendezvous.cancel()
    try:
        with rendezvous.dispatching():
            futures = [rendezvous.submit(function) for function in functions]
        rendezvous.wait()  # once, and not for one after the other
        outcomes = [_outcome_of(future) for future in futures]
    finally:
        if call is not None:
            call.running_here.discard(rendezvous)
        report = rendezvous.close()
        torch.set_num_threads(before)
    return outcomes, report


def _outcome_of(future: Future) -> tuple[bool, object] | None:
    if not future.done() or isinstance(error := future.exception(), Cancelled):
        return None
    return (True, future.result()) if error is None else (False, error)
