"""The joblib backend "skpt": fits of one parallel call train together.

scikit-learn hands the fits of a search, of a cross-validation or of an ensemble to joblib. Under this backend each of them
runs as a task of a `Rendezvous`. Only joblib's public interface for backends is used.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager

from joblib import cpu_count
from joblib.parallel import ParallelBackendBase, get_active_backend

from skpt.fusion.rendezvous import InnerCall, Rendezvous, current_rendezvous
from skpt.fusion.report import set_last_report
from skpt.fusion.shares import SharedCall

__all__ = ["FusedBackend"]

# How many tasks joblib hands over at once; more wait until some have ended.
WIDTH = 512
DEFAULT_MEMORY_LIMIT = 1 << 30


class FusedBackend(ParallelBackendBase):
    """Runs the tasks of a `joblib.Parallel` call so that their fits meet and train as stacks.

    Use it by ``with joblib.parallel_config("skpt"):``. With ``n_jobs`` of 2 or more in that call, so many processes, this one
    among them, each run a share of the tasks, with a rendezvous of their own; without it, or with 1 or -1, everything happens
    in this process, whatever ``n_jobs`` an estimator or a search has.

    Parameters
    ----------
    nesting_level : int, default=None
        How many parallel calls are around this one.
    inner_max_num_threads : int, default=None
        How many tasks run, and how many stacks train, at a time in a process. None takes the number of cores.
    executor : concurrent.futures.Executor, default=None
        Carries all shares of the tasks. None with several processes: this one carries one, our own workers the others.
    memory_limit : int, default=1073741824
        Bytes (1 GiB by default) that the stacks training at once may take together, besides the data.
    """

    default_n_jobs = -1
    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    supports_sharedmem = True
    uses_threads = True

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        executor: Executor | None = None,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
    ):
        super().__init__(nesting_level=nesting_level or 0, inner_max_num_threads=inner_max_num_threads)
        self.executor, self.memory_limit = executor, memory_limit

    def __reduce__(self):
        return FusedBackend, (self.nesting_level, self.inner_max_num_threads, None, self.memory_limit)

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Give how many tasks may be handed over at once; not a number of processes."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        return WIDTH

    def configure(self, n_jobs: int = 1, parallel=None, prefer=None, require=None, **settings) -> int:
        """Prepare for a call; see joblib."""
        self.parallel = parallel
        # Some of scikit-learn's ensembles ask for as many jobs as they have tasks: what the user asked for is in the context.
        _, asked = get_active_backend()
        asked = min(asked or 1, n_jobs or 1)
        self.n_processes = asked if asked >= 2 and require != "sharedmem" else 1
        return self.effective_n_jobs(n_jobs)

    def get_nested_backend(self):
        """Give the backend of parallel calls within the tasks: they meet at the same rendezvous."""
        nested = FusedBackend(self.nesting_level + 1, self.inner_max_num_threads, None, self.memory_limit)
        return nested, None

    def start_call(self) -> None:
        """Begin a parallel call; see joblib."""
        outer = current_rendezvous()
        # Joblib parses an expression by ast next, which in two threads at once may raise SystemError ("AST constructor
        # recursion depth mismatch", github.com/python/cpython/issues/106905; met in Python 3.11.7).
        if expression := re.fullmatch(r"(?:(\d+) ?\* ?)?n_jobs", str(self.parallel.pre_dispatch)):
            self.parallel.pre_dispatch = int(expression[1] or 1) * WIDTH
        # Joblib looks for results again and again, and sleeps 10 ms in between: where it may, the call itself waits for them.
        # Who wants results as they come, or only for so long, looks for them itself.
        waits = self.parallel.timeout is None and not self.parallel.return_generator
        if outer is not None:
            self._call = _NestedCall(outer)
        elif self.n_processes > 1 or self.executor is not None:
            n_processes = max(2, self.n_processes)
            self._call = SharedCall(
                self.executor, n_processes, self.inner_max_num_threads, self.memory_limit, waits=waits
            )
        else:
            self._call = _RootCall(self.inner_max_num_threads or cpu_count(), self.memory_limit, waits=waits)

    def submit(self, func: Callable, callback: Callable | None = None) -> Future:
        """Hand over a task; see joblib."""
        return self._call.submit(func, callback)

    def retrieve_result_callback(self, out: Future):
        """Give the result of a task, or raise its error."""
        return out.result()

    @contextmanager
    def retrieval_context(self) -> Iterator[None]:
        """All first tasks were handed over: now wait for results."""
        with self._call.waiting():
            yield

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Give up all tasks."""
        call = getattr(self, "_call", None)
        if call is not None:
            call.cancel()

    def stop_call(self) -> None:
        """End a parallel call; see joblib."""
        call, self._call = getattr(self, "_call", None), None
        if call is not None:
            call.close()


class _RootCall:
    """A call that is not within another one: it makes the rendezvous."""

    def __init__(self, n_threads: int, memory_limit: int, *, waits: bool):
        self.rendezvous = Rendezvous(n_threads, memory_limit, is_hosted=waits)
        self.waits = waits
        # scikit-learn's catch_warnings overlap in threads and may leave each other's filters behind.
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        self.dispatching = ExitStack()
        self.dispatching.enter_context(self.rendezvous.dispatching())

    def submit(self, func, callback) -> Future:
        return self.rendezvous.submit(func, callback)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self.dispatching.close()
        if self.waits:
            self.rendezvous.wait()
        yield

    def cancel(self) -> None:
        self.rendezvous.cancel()

    def close(self) -> None:
        self.dispatching.close()
        try:
            set_last_report(self.rendezvous.close())
        finally:
            self.warnings.__exit__(None, None, None)


class _NestedCall:
    """A call within a task: its tasks meet at the outer rendezvous."""

    def __init__(self, rendezvous: Rendezvous):
        self.rendezvous = rendezvous
        self.call = InnerCall()

    def submit(self, func, callback) -> Future:
        return self.rendezvous.submit(func, callback, self.call)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        with self.rendezvous.suspended(self.call):
            yield

    def cancel(self) -> None:
        """One inner call failed; the outer one decides what that means. Tasks under way end by themselves."""

    def close(self) -> None:
        pass
