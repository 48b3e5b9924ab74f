"""Torch's threads: taken down to one while the work is too small to share, and put back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from skpt.modules.layers import FeedForward
from skpt.training.job import TrainingJob

__all__ = ["one_thread", "threads_for"]

# Multiplications of a step from which a second thread pays (about 2 ms on one core).
WORTH_SHARING = 100_000_000

_lock = threading.Lock()
_depth = 0
_before = 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone; may be nested and entered by several threads.

    The count is torch's own, for the whole process, so other threads are affected as long as any is inside.
    """
    global _depth, _before
    with _lock:
        if _depth == 0:
            _before = torch.get_num_threads()
            if _before != 1:
                torch.set_num_threads(1)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _before != 1:
                torch.set_num_threads(_before)


def threads_for(job: TrainingJob) -> AbstractContextManager:
    """Give the context in which a job's steps run fastest: small steps of dense layers on a CPU do not share their work.

    Parameters
    ----------
    job : TrainingJob
        What is trained.

    Returns
    -------
    context manager
        `one_thread`, or one that does nothing.
    """
    n_weights = sum(p.numel() for p in job.module.parameters())
    work = 3 * min(job.train.batch_size, len(job.train.y)) * n_weights
    is_small = isinstance(job.module, FeedForward) and job.train.y.device.type == "cpu" and work < WORTH_SHARING
    return one_thread() if is_small else nullcontext()
