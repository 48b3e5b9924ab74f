"""Processes beside this one that carry out calls.

Loky starts and kills them: without the user's main module, whose functions are sent by value. Its executor hands a call from
thread to thread until it is sent, which takes both processes 3 ms, where a whole search of few rows takes 30. Here who calls
writes to the worker at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from weakref import WeakSet

from joblib.externals.loky.backend import get_context
from joblib.externals.loky.backend.reduction import dumps
from joblib.externals.loky.backend.utils import kill_process_tree

__all__ = ["Worker", "claim", "prepare_by"]

# Seconds after which a worker without work ends; and after which, some earlier, it is not used any more.
_SECONDS_IDLE = 300.0
_SECONDS_USABLE = 270.0
# Seconds without work after which a worker collects garbage: what it has just carried out may hold large data.
_SECONDS_TO_COLLECT = 1.0

_END = b""  # a message that no call is


_preparations: list[Callable[[], object]] = []


def prepare_by(function: Callable[[], object]) -> None:
    """Let new workers call a function before they say that they are ready.

    Parameters
    ----------
    function : callable
        Without arguments, of a module that it can be imported from; what it raises is ignored.
    """
    _preparations.append(function)


class Worker:
    """A process that carries out calls, one at a time, and the thread that waits for its results.

    Attributes
    ----------
    at_work : Future
        Of the last call, done when the process takes the next one; at first of its start, which takes seconds.
    has_ended : bool
        Whether it takes none any more.
    unclaimed : Semaphore
        Counts what `claim` may take.
    """

    _all: WeakSet[Worker] = WeakSet()
    _resting: dict[int, list[Worker]] = {}  # by the process that they belong to
    _of_class = threading.Lock()

    def __init__(self):
        self.at_work: Future = Future()
        self._owner = os.getpid()
        self.has_ended, self._rests_since = False, 0.0
        self._lock = threading.Lock()
        self._connection, there = Pipe()
        loky = get_context("loky")
        self.unclaimed = loky.Semaphore(0)
        self._process = loky.Process(target=_serve, args=(there, self.unclaimed, _preparations), name="skpt-worker")
        try:
            self._process.start()
        except OSError as error:  # the system may have no more processes
            self.has_ended = True
            self.at_work.set_exception(error)
        else:
            self._all.add(self)
            threading.Thread(target=self._receive, name="results-of-a-worker", daemon=True).start()
        finally:
            there.close()

    @classmethod
    def take(cls, n_workers: int) -> list[Worker]:
        """Give workers that rest, and new ones where there are too few.

        Parameters
        ----------
        n_workers : int
            How many.

        Returns
        -------
        list of Worker
            No one else's until they `rest`.
        """
        taken = []
        with cls._of_class:
            resting = cls._resting.setdefault(os.getpid(), [])
            while resting and len(taken) < n_workers:
                worker = resting.pop()
                if time.monotonic() - worker._rests_since > _SECONDS_USABLE:
                    worker._end()
                elif not worker.has_ended:
                    taken.append(worker)
        return taken + [cls() for _ in range(n_workers - len(taken))]

    def submit(self, function: Callable, /, *args) -> Future:
        """Send a call to the process, which must have started and be without work.

        Parameters
        ----------
        function : callable
            What is called.
        *args
            Its arguments.

        Returns
        -------
        Future
            Of its result.

        Raises
        ------
        BrokenProcessPool
            If the process has ended.
        """
        future: Future = Future()
        try:
            message = dumps((function, args))
        except Exception as error:  # of whoever wants the result
            future.set_exception(error)
            return future
        with self._lock:
            try:
                if self.has_ended:
                    raise OSError("the process has ended")
                self._connection.send_bytes(message)
            except OSError as error:
                raise BrokenProcessPool("A worker process has ended.") from error
            self.at_work = future
        return future

    def offer(self, n_things: int) -> None:
        """Let so many things be claimed, by the process or by this one, and nothing of what was offered before.

        Parameters
        ----------
        n_things : int
            How many.
        """
        while self.unclaimed.acquire(block=False):
            pass
        for _ in range(n_things):
            self.unclaimed.release()

    def rest(self) -> None:
        """Wait for whoever takes it next."""
        self._rests_since = time.monotonic()
        with self._of_class:
            self._resting.setdefault(os.getpid(), []).append(self)

    def kill(self) -> None:
        """End the process, and those that it has started, whatever they do."""
        if not self.has_ended:
            kill_process_tree(self._process)

    def _end(self) -> None:
        """End the process, which has no work of anybody's."""
        if not self.at_work.done():
            self.kill()
        with self._lock, suppress(OSError):
            if not self.has_ended:
                self._connection.send_bytes(_END)

    def _receive(self) -> None:
        """Wait for what the process sends, until it has ended."""
        try:
            while True:
                message = self._connection.recv_bytes()
                with self._lock:  # who has sent the call has left its future here
                    future = self.at_work
                _deliver(message, future)
        except (EOFError, OSError):
            self._process.join(1.0)
        except BaseException:  # no memory for the results, say: then what comes next is not the beginning of a message
            kill_process_tree(self._process)
            raise
        finally:
            with self._lock:
                self.has_ended = True
                self._connection.close()
            if not self.at_work.done():
                self.at_work.set_exception(
                    BrokenProcessPool(
                        f"A worker process has ended in the middle of its work, with the exit code {self._process.exitcode}. "
                        "Where memory is short, the system ends processes (-9): ask for fewer by n_jobs."
                    )
                )


@atexit.register
def _end_all() -> None:
    """End all workers: Python waits for them at its own end, and nobody else does any more."""
    resting = Worker._resting.pop(os.getpid(), [])
    for worker in Worker._all:
        if worker in resting:
            worker._end()
        elif worker._owner == os.getpid():
            worker.kill()


def _deliver(message: bytes, future: Future) -> None:
    try:
        has_result, result = pickle.loads(message)
    except Exception as error:
        has_result, result = False, error
    if has_result:
        future.set_result(result)
    else:
        future.set_exception(result)


# ---------------------------------------------------------------------- in the worker


_unclaimed = None


def claim() -> bool:
    """Take one of the things that were offered to this process; in a process that is no worker, all may be taken.

    Returns
    -------
    bool
        Whether there was one.
    """
    return _unclaimed is None or _unclaimed.acquire(block=False)


def _serve(connection: Connection, unclaimed, preparations: list[Callable[[], object]]) -> None:
    """Carry out calls until nobody has any."""
    global _unclaimed
    _unclaimed = unclaimed
    signal.signal(signal.SIGINT, _leave_it_to_the_caller)
    for prepare in preparations:
        with suppress(Exception):
            prepare()
    gc.collect()
    gc.freeze()  # what was imported is no garbage, and would be looked through with each large collection
    with suppress(EOFError, OSError):  # the calling process has ended
        connection.send_bytes(dumps((True, os.getpid())))
        while _has_message(connection) and (message := connection.recv_bytes()) != _END:
            connection.send_bytes(_carry_out(message))


def _leave_it_to_the_caller(number, frame) -> None:
    """Ctrl-C goes to all processes, and who gives a call up kills those that are at work."""


def _has_message(connection: Connection) -> bool:
    if connection.poll(_SECONDS_TO_COLLECT):
        return True
    gc.collect()
    return connection.poll(_SECONDS_IDLE)


def _carry_out(message: bytes):
    """Do what a message asks for; give the answer."""
    try:
        function, args = pickle.loads(message)
        return dumps((True, function(*args)))
    except BaseException as error:
        try:
            return dumps((False, error))
        except Exception:
            return dumps((False, RuntimeError(f"a call in a worker process failed: {error!r}")))
