"""The threads that tasks run in."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

__all__ = ["TaskThreads"]

# Threads that wait for the next function, at most.
MOST_KEPT = 64


class TaskThreads:
    """Runs functions in threads of their own.

    Parameters
    ----------
    kept : bool, default=False
        Whether a thread whose function has ended waits for another one instead of ending: to start one takes 0.1 ms, and who
        starts it waits until it runs. For processes that do nothing else, because the threads stay as long as theirs does.
    """

    def __init__(self, *, kept: bool = False):
        self.kept = kept
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[_TaskThread] = []

    def run(self, function: Callable[[], None]) -> None:
        """Call a function in a thread.

        Parameters
        ----------
        function : callable
            Without arguments.
        """
        if self._process != os.getpid():  # a fork has this memory, and none of the threads
            self.__init__(kept=self.kept)
        with self._lock:
            thread = self._idle.pop() if self._idle else None
        if thread is None:
            thread = _TaskThread(self, function)
            thread.start()
        else:
            thread.go_on(function)

    def join(self, seconds: float) -> None:
        """Wait until the threads have ended, unless they are kept.

        Parameters
        ----------
        seconds : float
            At most.
        """
        deadline = time.perf_counter() + seconds
        for thread in () if self.kept else threading.enumerate():
            if isinstance(thread, _TaskThread) and thread.threads is self and thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.perf_counter()))

    def _keep(self, thread: _TaskThread) -> bool:
        """Take a thread that has nothing to do, unless it is to end."""
        with self._lock:
            is_kept = self.kept and len(self._idle) < MOST_KEPT
            if is_kept:
                self._idle.append(thread)
        return is_kept


class _TaskThread(threading.Thread):
    def __init__(self, threads: TaskThreads, function: Callable[[], None]):
        super().__init__(name="skpt-task", daemon=True)
        self.threads, self._function = threads, function
        self._gate = threading.Lock()
        self._gate.acquire()

    def go_on(self, function: Callable[[], None]) -> None:
        """Call another function; the one before has ended."""
        self._function = function
        self._gate.release()

    def run(self) -> None:
        """Call functions until there is to be no further one."""
        while True:
            function, self._function = self._function, None
            function()
            del function  # a thread that waits must not hold data
            if not self.threads._keep(self):
                return
            self._gate.acquire()
