"""Where tasks meet: each waits with its job until none can go on, and then all jobs train together.

A *task* is a thread that runs what scikit-learn handed to joblib. It is *active* while it runs or could run. It stops being
active when it hands in a job and waits for it, when it waits for tasks of its own (a search within a search), and when it
ends. When nothing is active and jobs are waiting, they are grouped and trained, and their tasks go on.

At most `n_threads` active tasks run at a time, the others wait for their turn: more would only fight for Python's lock. And
as long as what tasks do is brief, one at a time is enough: two would fight for it already.

The system moves a thread that it wakes to another core, where the caches know nothing of it, so as little as possible happens
in other threads. Most tasks fit once. When such a one hands in a short job, the next one begins on top of its frames, in the
same thread, and so on; when all are trained, the one on top goes on first. `skpt.fusion.frames` says for which tasks nobody
can wait because of it. A long job's task has its thread to itself: if it diverges, it can go on at once. The task that is the
last to hand in trains for all. And the thread that waits for the tasks, the user's own, is the first to run some.
"""

from __future__ import annotations

import contextvars
import copy
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sized
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial

import torch
from torch import Tensor

from skpt._compat import n_function_modes
from skpt.fusion.contexts import CallersContext, CallersWarnings
from skpt.fusion.frames import count_frames, depth, is_room_for
from skpt.fusion.grouping import describe, is_short, make_groups, seconds_of_arithmetic
from skpt.fusion.report import FusionReport, Group
from skpt.fusion.stack import train_stack
from skpt.fusion.task_threads import TaskThreads
from skpt.training.job import TrainingJob
from skpt.training.memory import with_room_for_frames
from skpt.training.precision import single_precision
from skpt.training.sources import RowSource
from skpt.training.threads import one_thread

__all__ = ["Cancelled", "InnerCall", "Rendezvous", "current_rendezvous"]

_log = logging.getLogger("skpt")
_local = threading.local()

# Tasks that run or wait at a time, each with its own rows; further ones wait in a queue. The first is for as long as no job
# has said how large its rows are.
FIRST_TASKS = 64
MOST_TASKS = 256
# A task's rows as the user's slice in double precision and as the network's float32.
_COPIES_OF_ROWS = 3
# Seconds that the end of a call waits for tasks that were given up.
_GRACE = 1.0
# A fit that diverged need not wait for those that it was stacked with.
_SECONDS_BETWEEN_LOOKS = 0.1
# Tasks that wait for something other than their training, a lock that a waiting task holds say, would do so for ever: where
# nothing has changed for so long, and not even this share of it was spent computing, more tasks may run, and what waits is
# trained without the others.
_SECONDS_STILL = 0.5
_SHARE_STILL = 0.05
# Training is little beside what tasks take without it: so many times what is estimated of its products alone.
_ADDS_LITTLE = 4.0
# What a task does without waiting is brief, and after how long without a task that has got anywhere somebody looks.
_SECONDS_BRIEF = 0.003
_SECONDS_BETWEEN_STEPS = 0.02


class Cancelled(BaseException):
    """The call that a task belongs to was given up. No `Exception`, so that nobody takes it for a failed fit."""


def current_rendezvous() -> Rendezvous | None:
    """Give the rendezvous that the running thread is a task of, or None."""
    rendezvous = getattr(_local, "rendezvous", None)
    # A process that was forked from a task has its memory, and none of the other threads.
    return rendezvous if rendezvous is None or rendezvous.process == os.getpid() else None


class _Ticket:
    """A job that waits, and whose task waits for it."""

    def __init__(self, job: TrainingJob):
        self.job = job
        self.is_done = False
        self.is_below = False  # under the frames of other tasks
        self.gate = _closed_gate()


def _closed_gate() -> threading.Lock:
    """Give what one task waits at: cheaper than a condition, which would wake all."""
    gate = threading.Lock()
    gate.acquire()
    return gate


class _Start:
    """A task that has not begun; called, it does so in a thread of its own."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        function: Callable[[], object],
        future: Future,
        callback,
        call: InnerCall | None,
        *,
        is_single: bool,
    ):
        self.rendezvous, self.function, self.future, self.callback, self.call = rendezvous, function, future, callback, call
        self.is_single = is_single  # not several calls one after the other

    def take(self) -> tuple:
        """Give what is to be run, and forget it: the thread remembers what it began with."""
        taken = self.function, self.future, self.callback
        self.function = self.future = self.callback = None
        return taken

    def __call__(self) -> None:
        self.rendezvous._start_thread(self)


class _Look:
    """Asked by a stack whether to stop: lets the tasks of jobs that have failed go on, while the others train."""

    def __init__(self, rendezvous: Rendezvous, tickets: list[_Ticket]):
        self.rendezvous, self.tickets = rendezvous, tickets
        self.next_time = 0.0

    def __call__(self) -> bool:
        now = time.perf_counter()
        if now > self.next_time:
            self.next_time = now + _SECONDS_BETWEEN_LOOKS
            failed = [ticket for ticket in self.tickets if ticket.job.error is not None and not ticket.is_done]
            if failed:
                self.rendezvous._release(failed)
        return self.rendezvous.cancelled or self.rendezvous.is_ending


class InnerCall:
    """A parallel call of a task's own. The task is not active while it waits, and is again as soon as all is done."""

    def __init__(self):
        self.context = CallersContext()
        self.n_pending = 0
        self.is_awaited = False
        self.is_over = threading.Event()  # all is done, or something failed


class _Beginning:
    """What training changes in a job, as it was when the job was handed in."""

    def __init__(self, job: TrainingJob):
        self.job = job
        self.tensors = [*job.weights, *job.module.buffers()]
        self.values = [t.detach().clone() for t in self.tensors]
        self.noisy = [layer for layer in job.module if vars(layer).get("generator") is not None]
        self.masks = [copy.copy(getattr(layer, "masks", None)) for layer in self.noisy]
        generators = {id(g): g for g in (job.train.generator, *(layer.generator for layer in self.noisy)) if g is not None}
        self.generators = [(generator, generator.get_state()) for generator in generators.values()]
        self.groups = [group.copy() for group in job.optimizer.param_groups]
        self.states = [copy.deepcopy(state) if (state := job.optimizer.state.get(p)) else {} for p in self._weights()]
        self.monitor = {name: value[:] if isinstance(value, list) else value for name, value in vars(job.monitor).items()}

    def _weights(self) -> list[Tensor]:
        return [p for group in self.job.optimizer.param_groups for p in group["params"]]

    @torch.no_grad()
    def restore(self) -> None:
        """Make the job as it was."""
        for t, before in zip(self.tensors, self.values, strict=True):
            t.copy_(before)
        for layer, masks in zip(self.noisy, self.masks, strict=True):
            layer.masks = masks
        for generator, before in self.generators:
            generator.set_state(before)
        self.job.optimizer.state.clear()
        self.job.optimizer.state.update((p, state) for p, state in zip(self._weights(), self.states, strict=True) if state)
        for group, before in zip(self.job.optimizer.param_groups, self.groups, strict=True):
            group.update(before)
        vars(self.job.monitor).update(self.monitor)


class Rendezvous:
    """The meeting point of one parallel call and of all calls within it.

    Parameters
    ----------
    n_threads : int
        How many tasks run at a time, and how many stacks train at a time.
    memory_limit : int
        Bytes that the stacks training at once may take together.
    threads : TaskThreads, default=None
        What tasks run in. None for threads that end with them.
    is_hosted : bool, default=False
        Whether no task begins before somebody waits for them, in whose thread the first ones run.
    """

    def __init__(
        self, n_threads: int, memory_limit: int, threads: TaskThreads | None = None, *, is_hosted: bool = False
    ):
        self.n_threads, self.memory_limit = n_threads, memory_limit
        self._threads = TaskThreads() if threads is None else threads
        self._n_busy = 0  # threads that run its tasks
        self._context = CallersContext()
        self._is_hosted = is_hosted
        self._host_is_free = False
        self._hosted: _Start | None = None  # what the thread that waits for the tasks is to run next
        self._n_at_once = 0 if is_hosted else n_threads  # tasks that run at a time
        self._is_training = False
        self.report = FusionReport()
        self.cancelled = False
        self._changed = threading.Condition()
        self._n_active = 0
        self._n_running = 0
        self._turns: deque[Callable[[], None]] = deque()  # give theirs to tasks that wait for it, the first first
        self._n_started = 0
        self._n_stuck = 0  # of them, those that are trained and wait for others on top of their frames
        self._n_unfinished = 0
        self._has_failed = False
        self._most_started = FIRST_TASKS
        self._queue: deque[Callable[[], None]] = deque()
        self._waiting: list[_Ticket] = []
        self._seconds_of_arithmetic = 0.0  # that the jobs so far add to stacks
        self._closed = False
        self.is_ending = False  # somebody wants to end the program
        self.process = os.getpid()
        self.warnings = CallersWarnings()
        self._started = time.perf_counter()
        self._coordinator = threading.Thread(target=self._coordinate, name="skpt-rendezvous", daemon=True)
        self._coordinator.start()

    # ------------------------------------------------------------------ tasks

    def submit(
        self,
        function: Callable[[], object],
        callback: Callable[[Future], None] | None = None,
        call: InnerCall | None = None,
    ) -> Future:
        """Run a function as a task.

        Parameters
        ----------
        function : callable
            Without arguments.
        callback : callable, default=None
            Called with the future when it has ended, by the task itself, which is still active then.
        call : InnerCall, default=None
            The call that the task belongs to, where another task made it.

        Returns
        -------
        concurrent.futures.Future
            Its outcome.
        """
        future: Future = Future()
        is_single = len(function) == 1 if isinstance(function, Sized) else True  # joblib's batches have a length
        context = self._context if call is None else call.context
        start = _Start(self, partial(context.run, function), future, callback, call, is_single=is_single)
        with self._changed:
            self._n_unfinished += 1
            if call is not None:
                call.n_pending += 1
                call.is_over.clear()
            if self._has_place():
                self._admit(start)
            else:
                self._queue.append(start)
        return future

    def _has_place(self) -> bool:
        """Whether a further task may begin. Those that are stuck make no room for what the ones on top of them wait for."""
        return self.cancelled or self._n_started - self._n_stuck < self._most_started

    def _admit(self, start: Callable[[], None]) -> None:
        """Let a task begin as soon as it has its turn."""
        self._n_active += 1
        self._n_started += 1
        self._grant(start)

    def _start_thread(self, start: _Start) -> None:
        """Run a task in another thread: in the one that waits for the tasks, if it has nothing to do."""
        if self._host_is_free:
            self._hosted, self._host_is_free = start, False
            self._changed.notify_all()
        else:
            self._threads.run(partial(self._run, start))
        self._n_busy += 1

    def _run(self, start: _Start | None) -> None:
        """Run a task, and then those that have not begun when their turn comes: to start a thread takes 0.1 ms."""
        _local.rendezvous, _local.n_frames, _local.since = self, depth(), time.perf_counter()
        try:
            with one_thread():  # as many tasks run at a time as there are threads
                while start is not None:
                    start = self._run_one(start)
        finally:
            _local.rendezvous = _local.task = None
            with self._changed:
                self._n_busy -= 1
                if self._closed:
                    self._changed.notify_all()

    @with_room_for_frames
    def _run_one(self, task: _Start, below: _Ticket | None = None, like: _Start | None = None) -> _Start | None:
        """Run a task; give the one that has its turn next, if it has not begun and may run in its place.

        On top of the frames of a task that waits with the ticket `below`, that is one `like` that task.
        """
        _local.task, call = task, task.call
        function, future, callback = task.take()
        is_over = False
        try:
            try:
                self._begin_turn()
                result = function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            # The call is to hear of what it was given up for, and not of this.
            if callback is not None and (call is not None or not isinstance(future.exception(), Cancelled)):
                callback(future)
            is_over = True
        finally:
            self._note_pause()
            with self._changed:
                self._n_unfinished -= 1
                has_failed = future.exception() is not None
                self._has_failed |= has_failed and call is None
                if call is not None:
                    call.n_pending -= 1
                    if call.n_pending == 0:
                        self._end_waiting(call)
                    if call.n_pending == 0 or has_failed:
                        call.is_over.set()
                self._n_active -= 1
                following = self._take_start(like) if is_over else None
                if following is None and not (below is not None and self._surface(below)):
                    self._give_turn()
                self._stop_started()
                self._tell_coordinator()
                if self._n_unfinished == 0 or has_failed:
                    self._changed.notify_all()
                if self._has_failed and self._is_hosted:
                    self.cancel()  # who waits for the tasks may be in the middle of one
        return following

    def _surface(self, ticket: _Ticket) -> bool:
        """Nothing is on top of a ticket's task any more; say whether it goes on in the turn of the one that ended."""
        ticket.is_below = False
        if not ticket.is_done:
            return False
        self._n_stuck -= 1
        self._n_active += 1
        keeps_turn = getattr(_local, "runs", False) and self._n_running <= self._n_at_once
        if keeps_turn:
            _local.runs = False
            ticket.gate.release()
        else:
            self._grant(ticket.gate.release)
        return keeps_turn

    def _take_start(self, like: _Start | None = None) -> _Start | None:
        """Take the task whose turn is next, and that has not begun, into the running thread, which keeps its turn.

        Only one of the same call as another task, where that is given.
        """
        may_go_on = getattr(_local, "runs", False) and self._n_running <= self._n_at_once
        if not may_go_on or not self._turns or not isinstance(self._turns[0], _Start):
            return None
        if like is not None and self._turns[0].call is not like.call:
            return None
        _local.runs = False
        return self._turns.popleft()

    def wait(self) -> None:
        """Wait until all tasks have ended, or one has failed; where the rendezvous is hosted, run tasks meanwhile."""
        start = None
        try:
            while (start := self._wait_for_task()) is not None:
                self._run(start)
        finally:
            with self._changed:
                start, self._hosted, self._host_is_free = self._hosted, None, False
                if start is not None:  # somebody has interrupted
                    self._threads.run(partial(self._run, start))

    def _wait_for_task(self) -> _Start | None:
        """Wait until there is a task to run in this thread; give None where there will be none."""
        with self._changed:
            self._host_is_free = self._is_hosted
            self._let_run(1)
            while self._n_unfinished and not self._has_failed and not self.cancelled and self._hosted is None:
                self._changed.wait(_SECONDS_BETWEEN_LOOKS)
            start, self._hosted = self._hosted, None
            return start

    def _let_run(self, n_tasks: int) -> None:
        """Let at least so many tasks run at a time from now on."""
        self._n_at_once = max(self._n_at_once, n_tasks)
        while self._turns and self._n_running < self._n_at_once:
            self._grant_next()

    def _note_pause(self) -> None:
        """The running task ends or waits: if what it did was not brief, other ones may run beside the next."""
        if self._n_at_once < self.n_threads and time.perf_counter() - _local.since > _SECONDS_BRIEF:
            with self._changed:
                self._let_run(self.n_threads)

    def _end_waiting(self, call: InnerCall) -> None:
        """The task that waits for this call is active again, though it may take a while to notice."""
        if call.is_awaited:
            call.is_awaited = False
            self._n_active += 1

    def _stop_started(self) -> None:
        """A thread ended or waits for tasks of its own."""
        self._n_started -= 1
        self._start_queued()

    def _start_queued(self) -> None:
        """Start tasks from the queue, the latest first: those of inner calls, which outer ones wait for."""
        while self._queue and self._has_place():
            self._admit(self._queue.pop())

    def _limit_tasks(self, job: TrainingJob) -> None:
        """Let as many tasks begin as have room for their rows."""
        X = job.train.X
        n_bytes = 0 if isinstance(X, RowSource) else _COPIES_OF_ROWS * X.nelement() * X.element_size()
        most = max(2 * self.n_threads, min(MOST_TASKS, self.memory_limit // max(1, n_bytes)))
        self._most_started = most if self.report.n_jobs == 1 else min(self._most_started, most)
        self._start_queued()

    def _grant(self, wake: Callable[[], None]) -> None:
        """Wake a task, which has its turn then, as soon as fewer than `n_threads` run."""
        if self.cancelled:
            wake()
        elif self._n_running < self._n_at_once:
            self._n_running += 1
            wake()
        else:
            self._turns.append(wake)

    def _begin_turn(self) -> None:
        """The running task was woken."""
        if self.cancelled:
            raise Cancelled
        _local.runs, _local.since = True, time.perf_counter()

    def _take_turn(self) -> None:
        """Wait until fewer than `n_threads` tasks run."""
        gate = _closed_gate()
        with self._changed:
            self._grant(gate.release)
        gate.acquire()
        self._begin_turn()

    def _give_turn(self) -> None:
        if not getattr(_local, "runs", False):
            return
        _local.runs = False
        self._n_running -= 1
        if self._turns and self._n_running < self._n_at_once:
            self._grant_next()

    def _grant_next(self) -> None:
        self._n_running += 1
        self._turns.popleft()()

    def _tell_coordinator(self) -> None:
        """Wake who waits for a change, if there may be something to train."""
        if self._n_active == 0:
            self._changed.notify_all()

    def _take_tickets(self, *, without_others: bool = False) -> list[_Ticket]:
        """Take what is to be trained, if all wait for it, or without the others; whoever takes it must train it."""
        if self._is_training or self.cancelled or self._closed or (self._n_active and not without_others):
            return []
        tickets, self._waiting = self._waiting, []
        self._is_training = bool(tickets)
        return tickets

    @contextmanager
    def dispatching(self) -> Iterator[None]:
        """Nothing trains while tasks are still being handed in."""
        with self._changed:
            self._n_active += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_active -= 1
                self._tell_coordinator()

    @contextmanager
    def suspended(self, call: InnerCall) -> Iterator[None]:
        """The running task waits for tasks of its own."""
        with self._changed:
            if call.n_pending:
                call.is_awaited = True
                self._n_active -= 1
            self._give_turn()
            self._stop_started()
            self._tell_coordinator()
            is_over = call.n_pending == 0
        try:
            while not (is_over or self.cancelled):
                is_over = call.is_over.wait(_SECONDS_BETWEEN_LOOKS)
            yield
        finally:
            with self._changed:
                self._end_waiting(call)
                self._n_started += 1
            if not self.cancelled:
                self._take_turn()

    def train(self, job: TrainingJob) -> None:
        """Hand a job in, and wait until it is trained.

        Parameters
        ----------
        job : TrainingJob
            Changed in place. A failure is left in ``job.error``.

        Raises
        ------
        Cancelled
            If the call was given up.
        """
        self._note_pause()
        ticket = _Ticket(job)
        if job.after_epoch is not None:
            job.after_epoch = partial(CallersContext().run, job.after_epoch)  # another thread will call it
        n_frames = self._count_frames() if is_short(job) else 0
        with self._changed:
            if self.cancelled:  # nobody trains any more
                raise Cancelled
            self.report.n_jobs += 1
            self._seconds_of_arithmetic += seconds_of_arithmetic(job)
            self._limit_tasks(job)
            self._waiting.append(ticket)
            self._n_active -= 1
            tickets: list[_Ticket] = []
            start = self._take_start(_local.task) if n_frames else None
            if start is None:
                self._give_turn()
                tickets = self._take_tickets()
            else:
                ticket.is_below = True
        if start is not None:
            self._run_above(ticket, start, n_frames)
            with self._changed:  # the last one on top may have had nothing to hand in
                tickets = [] if ticket.is_done else self._take_tickets()
        if tickets:
            contextvars.Context().run(self._train_all, tickets)  # what this task has set is not for the others
        while not ticket.gate.acquire(timeout=_GRACE):
            self.check()  # if whoever was to train has been interrupted
        self._begin_turn()

    def _count_frames(self) -> int:
        """Count the frames of the running task and of those below it; zero if no other may run on top of them."""
        if not (self._turns and _local.task.is_single) or n_function_modes():  # the next one would be in this one's contexts
            return 0
        n_frames = count_frames(self._run_one.__code__)
        if n_frames is None:
            return 0
        n_frames += _local.n_frames
        return n_frames if is_room_for(n_frames) else 0

    def _run_above(self, ticket: _Ticket, start: _Start | None, n_frames: int) -> None:
        """Run tasks on top of the one that waits: no thread is started, and none wakes on a core that must be warmed up."""
        task, below = _local.task, _local.n_frames
        _local.n_frames = n_frames
        try:
            while start is not None:
                start = self._run_one(start, ticket, task)
        except KeyboardInterrupt:  # in the user's own thread
            raise
        except BaseException:  # a callback's, which would have ended a thread of its own
            _log.exception("a task could not be ended")
        finally:
            _local.task, _local.n_frames = task, below
            if ticket.is_below:  # the last one on top could not be ended
                with self._changed:
                    self._surface(ticket)

    def trains_little(self) -> bool:
        """Say whether a further task takes its time, and its training next to none.

        Returns
        -------
        bool
            By what tasks have taken so far, and an estimate of what each of their jobs adds to a stack.
        """
        seconds = time.perf_counter() - self._started - self.report.seconds_training
        return _ADDS_LITTLE * self._seconds_of_arithmetic < seconds

    def check(self) -> None:
        """Raise `Cancelled` if the call was given up: for a fit that trains in its own thread."""
        if self.cancelled:
            raise Cancelled

    def note_alone(self, reason: str) -> None:
        """Take note of a fit that trains the ordinary way."""
        with self._changed:
            self.report.not_fused[reason] += 1

    # ------------------------------------------------------------------ training

    def _coordinate(self) -> None:
        """Train what no task trains, and look after tasks that get nowhere."""
        while tickets := self._wait_for_tickets():
            self._train_all(tickets)

    def _wait_for_tickets(self) -> list[_Ticket]:
        """Wait until something is to be trained; give nothing at the end."""
        with self._changed:
            state = None
            while not (self._closed or self.cancelled):
                if tickets := self._take_tickets():
                    return tickets
                before, state = state, self._state()
                if before is not None and self._is_still(before, state):
                    for _ in range(min(self.n_threads, len(self._turns))):  # those that run may wait for these
                        self._grant_next()
                    if tickets := self._take_tickets(without_others=True):
                        return tickets
                seconds = _SECONDS_STILL
                if 0 < self._n_at_once < self.n_threads and not self._is_training:
                    if before is not None and self._is_unchanged(before, state, _SECONDS_BETWEEN_STEPS):
                        self._let_run(self.n_threads)
                    seconds = _SECONDS_BETWEEN_STEPS
                self._changed.wait(seconds)
            tickets, self._waiting = self._waiting, []
            self._release(tickets)
            return []

    def _state(self) -> tuple[tuple, float, float]:
        """What changes where tasks go on, the seconds that this process has computed, and the time."""
        return (self.report.n_jobs, self._n_unfinished, self._n_active), time.process_time(), time.perf_counter()

    @staticmethod
    def _is_unchanged(before: tuple[tuple, float, float], now: tuple[tuple, float, float], seconds: float) -> bool:
        """Whether nothing has changed for about so many seconds."""
        return now[0] == before[0] and now[2] - before[2] >= 0.9 * seconds

    @classmethod
    def _is_still(cls, before: tuple[tuple, float, float], now: tuple[tuple, float, float]) -> bool:
        """Whether nothing has changed, and next to nothing was computed."""
        computed, seconds = now[1] - before[1], now[2] - before[2]
        return cls._is_unchanged(before, now, _SECONDS_STILL) and computed < _SHARE_STILL * seconds

    def _release(self, tickets: list[_Ticket]) -> None:
        with self._changed:
            for ticket in tickets:
                if not ticket.is_done:
                    ticket.is_done = True
                    if ticket.is_below:
                        self._n_stuck += 1
                    else:
                        self._n_active += 1
                        self._grant(ticket.gate.release)
            self._start_queued()

    def _train_all(self, tickets: list[_Ticket]) -> None:
        started = time.perf_counter()
        by_job = {id(ticket.job): ticket for ticket in tickets}
        try:
            groups = make_groups([ticket.job for ticket in tickets], self.n_threads, self.memory_limit)
            self._train_groups([[by_job[id(job)] for job in group] for group in groups])
        except BaseException as error:  # a fault of ours must not leave tasks waiting for ever
            _log.exception("a stack failed")
            ends_all = not isinstance(error, Exception)  # as if the user had interrupted
            for ticket in by_job.values():
                if ticket.job.error is None:
                    ticket.job.error = error if ends_all else RuntimeError(f"training failed: {error!r}")
        self.report.seconds_training += time.perf_counter() - started
        with self._changed:
            self._is_training = False
            self._release(tickets)
            self._tell_coordinator()

    def _train_groups(self, groups: list[list[_Ticket]]) -> None:
        """Train stacks, `n_threads` at a time, one of them in this thread."""
        queue, errors = deque(groups), []

        def work() -> None:
            try:
                while True:
                    try:
                        group = queue.popleft()
                    except IndexError:
                        return
                    self._train_group(group)
            except BaseException as error:
                errors.append(error)
                queue.clear()
                self.is_ending |= not isinstance(error, Exception)

        others = []
        with suppress(RuntimeError):  # the system may have no more threads: this one is enough
            for _ in range(min(self.n_threads, len(groups)) - 1):
                others.append(threading.Thread(target=work, name="skpt-trainer", daemon=True))
                others[-1].start()
        others = [thread for thread in others if thread.ident is not None]
        work()
        for thread in others:
            thread.join()
        if errors:
            raise errors[0]

    def _train_group(self, tickets: list[_Ticket]) -> None:
        started = time.perf_counter()
        group = [ticket.job for ticket in tickets]
        beginnings = [_Beginning(job) for job in group] if len(group) > 1 else []
        failed = False
        try:
            with one_thread(), single_precision():
                train_stack(group, is_cancelled=_Look(self, tickets))
        except Exception as error:
            if beginnings:
                _log.debug("a stack of %d failed (%r); its models train one by one", len(group), error)
            else:
                group[0].error = group[0].error or error
            failed = True
        if failed and beginnings:  # for want of memory say, which is free again out here: whoever can train alone does
            for ticket, beginning in zip(tickets, beginnings, strict=True):
                if ticket.job.error is None:  # who has failed has done so by itself, and its task may have gone on
                    beginning.restore()
                    self._train_group([ticket])
            return
        seconds = time.perf_counter() - started
        group_report = Group(len(group), seconds, describe(group[0]))
        _log.debug("stack of %d models, %.3f s: %s", len(group), seconds, group_report.description)
        with self._changed:
            self.report.groups.append(group_report)

    # ------------------------------------------------------------------ the end

    def cancel(self) -> None:
        """Give up: tasks that wait raise `Cancelled`, stacks end after their step."""
        with self._changed:
            self.cancelled = True
            while self._turns:
                self._turns.popleft()()
            self._start_queued()  # to end at once: an outer task may wait for them
            self._changed.notify_all()

    def close(self) -> FusionReport:
        """End, when all tasks have ended or were cancelled.

        Returns
        -------
        FusionReport
            What was done.
        """
        self._closed = True
        self.cancel()  # an inner call that failed may have left tasks whose results nobody takes
        self._coordinator.join()
        self._join_tasks()
        self.report.seconds_total = time.perf_counter() - self._started
        return self.report

    def _join_tasks(self) -> None:
        """Wait for tasks that are ending; one that is in the middle of something else cannot be stopped."""
        deadline = time.perf_counter() + _GRACE
        with self._changed:
            self._changed.wait_for(lambda: self._n_busy == 0, _GRACE)
        self._threads.join(max(0.0, deadline - time.perf_counter()))
