"""Torch's threads: taken down to one while the work is too small to share, and put back."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from skpt.training.job import TrainingJob

__all__ = ["all_threads", "is_worth_sharing", "one_thread", "threads_for"]

# Multiplications of a step from which a second thread pays (about 2 ms on one core).
WORTH_SHARING = 100_000_000

_lock = threading.Lock()
_local = threading.local()
_n_inside = 0
_count_outside = 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone; may be nested and entered by several threads.

    Torch's count is each thread's own. A new thread starts with the count that was set last in any, so one that starts
    while another is inside takes its one: it is given the count from before instead.
    """
    global _n_inside, _count_outside
    if getattr(_local, "is_inside", False):
        yield
        return
    with _lock:
        count = torch.get_num_threads()
        if _n_inside == 0:
            _count_outside = count
        elif count == 1:
            count = _count_outside
        _n_inside += 1
        if count != 1:
            torch.set_num_threads(1)
    _local.is_inside = True
    try:
        yield
    finally:
        _local.is_inside = False
        with _lock:
            _n_inside -= 1
            if count != 1:
                torch.set_num_threads(count)


@contextmanager
def all_threads() -> Iterator[None]:
    """Let torch share work out as it did outside of `one_thread`, where the calling thread is inside."""
    if not getattr(_local, "is_inside", False):
        yield
        return
    count = torch.get_num_threads()
    torch.set_num_threads(_count_outside)
    _local.is_inside = False
    try:
        yield
    finally:
        _local.is_inside = True
        torch.set_num_threads(count)


def is_worth_sharing(n_multiplications: int, device: torch.device) -> bool:
    """Say whether work is so large that torch's threads should share it.

    Parameters
    ----------
    n_multiplications : int
        About how many there are.
    device : torch.device
        Where they are done.

    Returns
    -------
    bool
        False for small work on a CPU: it takes no longer in one thread, and many times longer in several where other
        processes keep the cores busy, because each of them waits for the last.
    """
    return device.type != "cpu" or n_multiplications >= WORTH_SHARING


def threads_for(job: TrainingJob) -> AbstractContextManager:
    """Give the context in which a job's steps run fastest: small steps on a CPU do not share their work.

    Large steps do, also in a task of a fused call: a sum rounds otherwise when more threads share it, and a fit's numbers
    must not depend on how it was called.

    Parameters
    ----------
    job : TrainingJob
        What is trained.

    Returns
    -------
    context manager
        `one_thread` or `all_threads`.
    """
    # A weight meets each pixel of an image and each step of a sequence.
    shape = job.train.X.shape
    n_positions = math.prod(shape[2:]) if len(shape) == 4 else math.prod(shape[1:-1])
    work = 3 * min(job.train.batch_size, len(job.train.y)) * job.n_weights * n_positions
    return all_threads() if is_worth_sharing(work, job.train.y.device) else one_thread()
