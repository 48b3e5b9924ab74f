"""A parallel call whose tasks are shared out among several processes, of which the calling one is the first.

The tasks are dealt out into as many shares as there are processes. Whoever is free takes the next share: the calling process
at once, a worker process as soon as it runs, which takes seconds the first time. So a short search never waits for workers,
and a long one has them.

The calling process has the smallest share, and goes on with what workers have not begun, from the ends of theirs: it can,
because it has all tasks. Where training is little beside what tasks do otherwise, or where they do not meet, the faster
process has more of them in the end. (The cores of a virtual machine differ by half for tenths of seconds.) Otherwise each has
as many, because who begins many tasks soon, trains the larger stacks for long.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch
from joblib import cpu_count

from skpt.fusion.contexts import CallersWarnings
from skpt.fusion.rendezvous import Cancelled, Rendezvous
from skpt.fusion.report import FusionReport, set_last_report
from skpt.fusion.task_threads import TaskThreads
from skpt.fusion.workers import Worker, claim

__all__ = ["SharedCall"]

# The calls of this process that have shares, by a number: an executor may run shares in threads of this process.
_CALLS: WeakValueDictionary[tuple[int, int], SharedCall] = WeakValueDictionary()
_numbers = itertools.count()

# What the tasks of a worker process run in, one share after the other, by torch's number of threads, which each thread keeps.
_WORKERS_THREADS: dict[int, TaskThreads] = {}


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
        self.workers: list[Worker] = []
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
        self.collected: list[_Task] = []
        self.shares: deque[_Share] = deque()
        self.lent: list[_Share] = []  # carried by workers that may not have begun all of it
        self.n_even = 0  # how many tasks each process has if all have as many
        # Who could carry a share, besides this process.
        self.free: list[Executor | Worker] = [] if executor is None else [executor] * n_processes
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
        for worker in self.workers:
            worker.kill()

    def close(self) -> None:
        """End the call."""
        self.warnings.__exit__(None, None, None)
        if not self.cancelled:
            for worker in self.workers:
                worker.rest()
        self.report.seconds_total = time.perf_counter() - self.started
        set_last_report(self.report)

    # ------------------------------------------------------------------ shares

    def _deal_out(self) -> None:
        """Make shares of what was collected."""
        with self.changed:
            tasks, self.collected = self.collected, []
            n = self.n_processes
            if not tasks:
                return
            self.n_even = -(-len(tasks) // n)
            if self.executor is None:  # two thirds of an even share for this process
                every = (3 * n + 1) // 2
                self.shares.append(_Share(tasks[::every]))
                del tasks[::every]
                n -= 1
            self.shares.extend(_Share(some) for i in range(n) if (some := tasks[i::n]))

    def _is_over(self) -> bool:
        return self.has_failed or self.cancelled or not (self.shares or self.n_under_way)

    def _work(self) -> None:
        """Have shares carried, in this process too where no executor was given, until all are back or something failed."""
        while True:
            with self.changed:
                if self.executor is not None:
                    self._hand_over()
                share = None
                while not self._is_over() and (share := self._share_for_us()) is None:
                    self.changed.wait()
                if share is None:
                    return
            self._hand_over()
            self._carry_here(share)

    def _share_for_us(self) -> _Share | None:
        """Give this process a share, or a task that a worker has not begun; None if it is to wait."""
        if self.executor is not None:
            return None
        if self.shares:
            return self._take_share(self.shares.popleft)
        task = self._take_from_workers()
        return None if task is None else self._take_share(lambda: _Share([task]))

    def _take_share(self, take: Callable[[], _Share]) -> _Share:
        self.n_under_way += 1
        return take()

    def _hand_over(self) -> None:
        """Let whoever is free carry shares."""
        with self.changed:
            if self.executor is None and not self.workers and self.shares:
                self._call_workers(self.n_processes - 1)
            while self.free and self.shares and not self.cancelled:
                self._send(self.free.pop(), self._take_share(self.shares.pop))

    def _send(self, carrier: Executor | Worker, share: _Share) -> None:
        """Let somebody carry a share."""
        functions, is_ours = [func for func, _ in share.tasks], carrier is not self.executor
        if is_ours:
            carrier.offer(len(functions))
        most = self.n_even if is_ours else None
        try:
            carried = carrier.submit(_carry, functions, most, *self.settings, self.key, self.errors)
        except BrokenProcessPool:
            if not is_ours:
                raise
            self.n_under_way -= 1  # the worker has ended since the call before: another one in its place
            self.shares.append(share)
            self.workers.remove(carrier)
            self._call_workers(1)
        else:
            if is_ours:
                share.worker = carrier
                self.lent.append(share)
            carried.add_done_callback(lambda done: self._take_over(done, share, carrier))

    def _call_workers(self, n_workers: int) -> None:
        """Have workers, each of which is free as soon as it runs."""
        for worker in Worker.take(n_workers):
            self.workers.append(worker)
            if worker.at_work.done():
                self._welcome(worker)
            else:  # it has not started yet, or is told just now that all of its last share was taken from it
                worker.at_work.add_done_callback(lambda _, worker=worker: self._come(worker))

    def _welcome(self, worker: Worker) -> None:
        """A worker is ready, or could not begin."""
        with self.changed:
            if not worker.has_ended:
                self.free.append(worker)

    def _come(self, worker: Worker) -> None:
        self._welcome(worker)
        self._hand_over()

    def _carry_here(self, share: _Share) -> None:
        """Carry a share in this process, and then what workers have not begun of theirs."""
        own, taken = deque(share.tasks), []

        def take(rendezvous: Rendezvous) -> Callable | None:
            if own:
                task = own.popleft()
            elif len(taken) < self.n_even or rendezvous.trains_little():
                task = self._take_from_workers()
            else:
                task = None
            if task is None:
                return None
            taken.append(task)
            return task[0]

        functions = [func for each in (share, *self.lent) for func, _ in each.tasks]
        outcomes, report = _run(take, functions, *self.settings, self.key, self.errors)
        self._take_back(taken, outcomes, report)

    def _take_from_workers(self) -> _Task | None:
        """Take a task that a worker has and has not begun."""
        with self.changed:
            while self.lent:
                share = self.lent[-1]
                if share.worker.unclaimed.acquire(block=False):
                    task = share.tasks.pop()
                    if not share.tasks:  # nobody waits until the worker says so
                        self.n_under_way -= 1
                    return task
                self.lent.pop()
        return None

    def _take_over(self, done: Future, share: _Share, carrier: Executor | Worker) -> None:
        """Take the results of a share that somebody has carried; what has not been begun of it is a share of its own."""
        if self.cancelled:
            return
        with self.changed:
            try:
                outcomes, report = done.result()
            except BaseException as error:
                outcomes, report = [(False, error)] * len(share.tasks), FusionReport()
            self.free.append(carrier)
            if share in self.lent:
                self.lent.remove(share)
            begun, left = share.tasks[: len(outcomes)], share.tasks[len(outcomes) :]
            if left:
                self.shares.append(_Share(left))
        if share.tasks:  # else all were taken from it
            self._take_back(begun, outcomes, report)
        self._hand_over()

    def _take_back(self, tasks: list[_Task], outcomes: Sequence[_Outcome | None], report: FusionReport) -> None:
        """Give tasks their results."""
        self.report.merge(report)
        try:
            for (_, future), outcome in zip(tasks, outcomes, strict=True):
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


# A task, and what becomes of it: whether it has a result, and that or its error.
_Task = tuple[Callable, Future]
_Outcome = tuple[bool, object]


class _Share:
    """Tasks that one process carries, less those that the calling process has taken from it.

    Parameters
    ----------
    tasks : sequence of (callable, Future)
        Those that are left.
    """

    def __init__(self, tasks: Sequence[_Task]):
        self.tasks = list(tasks)
        self.worker: Worker | None = None


class _Next:
    """The next task of a process, whichever that is when its turn comes; the one after it is in the queue by then.

    Parameters
    ----------
    rendezvous : Rendezvous
        Where tasks run.
    take : callable
        Gives the next function for a rendezvous, None when there is no more.
    n_calls : int
        How many calls of joblib's a task is at most.
    """

    def __init__(self, rendezvous: Rendezvous, take: Callable[[Rendezvous], Callable | None], n_calls: int):
        self.rendezvous, self.take, self.n_calls = rendezvous, take, n_calls
        self.futures: list[Future] = []
        self.n_begun = 0

    def __len__(self) -> int:
        return self.n_calls

    def submit(self) -> None:
        """Get into the queue."""
        self.futures.append(self.rendezvous.submit(self))

    def __call__(self):
        function = self.take(self.rendezvous)
        if function is None:
            return None
        self.n_begun += 1
        self.submit()
        return function()

    def outcomes(self) -> list[_Outcome | None]:
        """Give what became of the tasks that were begun; None for those that were given up."""
        return [_outcome_of(future) for future in self.futures[: self.n_begun]]


def _carry(
    functions: list[Callable], n_even: int | None, *settings, claim: Callable[[], bool] = claim
) -> tuple[list[_Outcome | None], FusionReport]:
    """Run the tasks of a share, from the first on; if `n_even` is given, those that this process is the first to claim."""
    n_taken = 0

    def take(rendezvous: Rendezvous) -> Callable | None:
        nonlocal n_taken
        if n_taken == len(functions):
            return None
        if n_even is not None and ((n_taken >= n_even and not rendezvous.trains_little()) or not claim()):
            return None
        n_taken += 1
        return functions[n_taken - 1]

    return _run(take, functions, *settings)


def _run(
    take: Callable[[Rendezvous], Callable | None],
    functions: list[Callable],
    n_threads: int,
    memory_limit: int,
    key: tuple[int, int],
    errors: set[tuple],
) -> tuple[list[_Outcome | None], FusionReport]:
    """Run tasks here, which are some of `functions`; give their outcomes in the order of `take`, and a report."""
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
        following = _Next(rendezvous, take, max((len(f) if isinstance(f, Sized) else 1 for f in functions), default=1))
        following.submit()
        rendezvous.wait()
        outcomes = following.outcomes()
    finally:
        if call is not None:
            call.running_here.discard(rendezvous)
        report = rendezvous.close()
        torch.set_num_threads(before)
    return outcomes, report


def _outcome_of(future: Future) -> _Outcome | None:
    if not future.done() or isinstance(error := future.exception(), Cancelled):
        return None
    return (True, future.result()) if error is None else (False, error)
