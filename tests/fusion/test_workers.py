"""Worker processes: each result comes back, whatever happens to the process."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from joblib import Parallel, delayed

from skpt.estimators.preparation import fit_small_nets
from skpt.fusion import workers
from skpt.fusion.workers import Worker, claim
from tests.fusion.comparison import fused

pytestmark = pytest.mark.slow  # to start a process takes seconds


def get(worker, function, *args):
    return worker.submit(function, *args).result(60)


def wait_until(is_so):
    deadline = time.perf_counter() + 10
    while not is_so():
        assert time.perf_counter() < deadline
        time.sleep(0.01)


@pytest.fixture
def resting(monkeypatch):
    """No workers are left of other tests, and none of these for them."""
    of_processes: dict = {}
    monkeypatch.setattr(Worker, "_resting", of_processes)
    yield of_processes
    for worker in of_processes.get(os.getpid(), []):
        worker.kill()


@pytest.fixture
def worker(resting):
    (worker,) = Worker.take(1)
    worker.at_work.result(60)
    yield worker
    worker.kill()


class NotSent:
    """What cannot be pickled."""

    def __reduce__(self):
        raise ZeroDivisionError("not sent")


class NotRead:
    """What cannot be unpickled."""

    def __reduce__(self):
        return int, ("no number",)


def raise_not_sent():
    error = KeyError("of the call")
    error.thing = NotSent()
    raise error


def count_claims(seconds: float) -> int:
    n = 0
    while claim():
        n += 1
        time.sleep(seconds)
    return n


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text()


def test_calls_and_their_errors(worker):
    assert get(worker, os.getpid) == worker._process.pid != os.getpid()
    large = os.urandom(10_000_000)
    assert get(worker, lambda data: data[::-1], large) == large[::-1]
    with pytest.raises(ZeroDivisionError, match="division"):
        get(worker, divmod, 1, 0)
    with pytest.raises(SystemExit):
        get(worker, sys.exit, 3)
    with pytest.raises(ZeroDivisionError, match="not sent"):
        get(worker, len, NotSent())
    with pytest.raises(ZeroDivisionError, match="not sent"):
        get(worker, NotSent)
    with pytest.raises(ValueError, match="no number"):
        get(worker, repr, NotRead())
    with pytest.raises(ValueError, match="no number"):
        get(worker, NotRead)
    with pytest.raises(RuntimeError, match="of the call"):
        get(worker, raise_not_sent)
    assert get(worker, pow, 2, 5) == 32  # after all this


def test_each_thing_is_claimed_once(worker):
    for n_things in (0, 1, 200, 7):
        worker.offer(n_things)
        there = worker.submit(count_claims, 0.001)
        here = 0
        while worker.unclaimed.acquire(block=False):
            here += 1
            time.sleep(0.001)
        assert here + there.result(60) == n_things
    worker.offer(9)
    worker.offer(4)
    assert get(worker, count_claims, 0.0) == 4


def test_a_process_that_is_killed_says_so(worker):
    under_way = worker.submit(time.sleep, 60)
    time.sleep(0.2)
    os.kill(worker._process.pid, signal.SIGKILL)
    with pytest.raises(BrokenProcessPool, match=r"exit code -9"):
        under_way.result(10)
    assert worker.has_ended
    with pytest.raises(BrokenProcessPool):
        worker.submit(pow, 2, 5)


def test_a_worker_at_work_is_killed_with_all_that_it_has_started(worker):
    child = get(worker, lambda: subprocess.Popen(["sleep", "60"]).pid)
    under_way = worker.submit(time.sleep, 60)
    worker.kill()
    with pytest.raises(BrokenProcessPool):
        under_way.result(10)
    wait_until(lambda: not is_alive(child))


def test_ctrl_c_is_left_to_who_has_called(worker):
    os.kill(worker._process.pid, signal.SIGINT)
    under_way = worker.submit(time.sleep, 0.5)
    time.sleep(0.2)
    os.kill(worker._process.pid, signal.SIGINT)
    under_way.result(60)
    assert get(worker, pow, 2, 5) == 32


def raise_for_nothing():
    raise ZeroDivisionError


def set_marker():
    os.environ["SKPT_TEST_MARKER"] = "set"


def test_what_prepares_a_worker_is_called_first_and_cannot_keep_it_from_work(resting, monkeypatch):
    monkeypatch.setattr(workers, "_preparations", [raise_for_nothing, set_marker])
    (worker,) = Worker.take(1)
    worker.at_work.result(60)
    assert get(worker, os.getenv, "SKPT_TEST_MARKER") == "set"
    worker.kill()


def test_workers_fit_nets_before_they_are_ready(worker):
    """Else the first share would import and begin with everything."""
    for name in ("skpt.estimators.mlp", "sklearn.model_selection", "sklearn.metrics"):
        assert get(worker, lambda name: name in sys.modules, name)
    assert fit_small_nets in workers._preparations
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_small_nets()


def test_workers_that_rest_are_used_again(worker, monkeypatch):
    worker.rest()
    (again,) = Worker.take(1)
    assert again is worker
    worker.rest()
    monkeypatch.setattr(workers, "_SECONDS_USABLE", -1.0)  # as if it had rested for so long that it may end at any time
    (another,) = Worker.take(1)
    another.kill()
    assert another is not worker
    wait_until(lambda: worker.has_ended)
    assert worker._process.exitcode == 0
    monkeypatch.undo()
    worker.rest()
    (another,) = Worker.take(1)
    another.kill()
    assert another is not worker


def test_where_the_system_has_no_more_processes_nobody_waits(resting, monkeypatch):
    def start(process):
        raise OSError("no more processes")

    monkeypatch.setattr("joblib.externals.loky.backend.process.LokyProcess.start", start)
    (worker,) = Worker.take(1)
    with pytest.raises(OSError, match="no more processes"):
        worker.at_work.result(0)
    assert worker.has_ended
    assert fused(lambda: Parallel()(delayed(pow)(i, 2) for i in range(5)), n_jobs=2)[0] == [0, 1, 4, 9, 16]


def test_searches_wait_for_no_worker_and_use_it_as_soon_as_it_is_there(resting):
    def processes() -> set[int]:
        return set(fused(lambda: Parallel()(delayed(os.getpid)() for _ in range(60)), n_jobs=3)[0])

    assert processes() == {os.getpid()}
    two = resting[os.getpid()]
    assert len(two) == 2
    for worker in two:
        worker.at_work.result(60)

    def slowly() -> set[int]:
        def task():
            time.sleep(0.02)
            return os.getpid()

        return set(fused(lambda: Parallel()(delayed(task)() for _ in range(60)), n_jobs=3)[0])

    assert len(slowly()) == 3
    for worker in two:
        os.kill(worker._process.pid, signal.SIGKILL)
        wait_until(lambda worker=worker: worker.has_ended)
    assert slowly() <= {os.getpid(), *(worker._process.pid for worker in resting[os.getpid()])}


@pytest.mark.parametrize("state", ["starting", "resting", "at work"])
def test_a_process_that_ends_takes_its_workers_along(tmp_path, state):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import time
            from skpt.fusion.workers import Worker

            (worker,) = Worker.take(1)
            if {state!r} != "starting":
                worker.at_work.result(60)
            if {state!r} == "at work":
                worker.submit(time.sleep, 60)
            else:
                worker.rest()
            print(worker._process.pid, time.time(), flush=True)
            """
        )
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=50, check=True)
    pid, since = done.stdout.split()
    assert not done.stderr
    assert time.time() - float(since) < 5
    assert not Path(f"/proc/{pid}").exists()


def test_no_thread_is_left_of_a_worker_that_has_ended(worker):
    def threads() -> int:
        return sum(thread.name == "results-of-a-worker" for thread in threading.enumerate())

    before = threads()
    worker.kill()
    wait_until(lambda: worker.has_ended)
    wait_until(lambda: threads() == before - 1)
