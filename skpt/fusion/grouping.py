"""Which jobs train together, and how many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from skpt.fusion.stack import group_key
from skpt.training.job import TrainingJob
from skpt.training.optimizers import optimizer_class

__all__ = ["describe", "is_short", "make_groups", "memory_per_model", "seconds_of_arithmetic"]

# Numbers per weight that a step touches: weight, gradient, two states of the optimizer, scratch, the copy of the last epoch.
_COPIES = 6

# Bytes and models of a stack: so many share a step's fixed cost, some 50 us and the waits for Python's lock, that it weighs
# little beside the arithmetic. More would only take memory.
_MOST_BYTES = 16_000_000
_MOST_MODELS = 64

# What a step of a model alone costs besides its arithmetic, operations a second of this, and what is short.
_SECONDS_A_STEP = 5e-5
_SPEED = 1e11
_SHORT = 0.1

# Multiplications of a step of a stack from which its models are better shared out among threads: below, the threads would
# wait for Python's lock more than they compute.
_WORTH_A_THREAD = 10_000_000


def _multiplications(job: TrainingJob) -> int:
    n_rows = min(job.train.batch_size, len(job.train.y))
    return 3 * n_rows * job.n_weights


def is_short(job: TrainingJob) -> bool:
    """Say whether a job would take a tenth of a second or less if it trained alone.

    Parameters
    ----------
    job : TrainingJob
        What is to be trained.

    Returns
    -------
    bool
        By an estimate: so much for each step, and for its arithmetic.
    """
    return job.max_epochs * len(job.train) * _SECONDS_A_STEP + seconds_of_arithmetic(job) <= _SHORT


def seconds_of_arithmetic(job: TrainingJob) -> float:
    """Estimate the seconds that a job adds to the training of a stack.

    Parameters
    ----------
    job : TrainingJob
        What is to be trained.

    Returns
    -------
    float
        Of its products alone.
    """
    return job.max_epochs * len(job.train) * 2.0 * _multiplications(job) / _SPEED


def memory_per_model(job: TrainingJob) -> int:
    """Bytes that one model of a stack takes besides its rows, about."""
    widths = sum(p.shape[0] for p in job.weights if p.ndim == 2)
    n_rows = min(job.train.batch_size, len(job.train.y))
    return 4 * (_COPIES * job.n_weights + 4 * n_rows * (widths + job.train.X.shape[1]))


def make_groups(jobs: Sequence[TrainingJob], n_threads: int, memory_limit: int) -> list[list[TrainingJob]]:
    """Divide jobs into stacks.

    Jobs of one `group_key` are spread evenly over as many stacks as keep each to some megabytes; where a step is more than
    its fixed cost, over so many that each thread has as many.

    Parameters
    ----------
    jobs : sequence of TrainingJob
        Jobs that can be stacked.
    n_threads : int
        How many stacks train at once.
    memory_limit : int
        Bytes that the stacks training at once may take together.

    Returns
    -------
    list of list of TrainingJob
        The stacks, the most work first.
    """
    by_key: dict[object, list[TrainingJob]] = {}
    for job in jobs:
        by_key.setdefault(group_key(job), []).append(job)
    groups = []
    for members in by_key.values():
        # Models with as many epochs leave together; those of one rate are stepped together.
        members = sorted(members, key=lambda job: (-job.max_epochs, *_rates(job)))
        size = memory_per_model(members[0])
        most = max(1, min(_MOST_MODELS, _MOST_BYTES // size, memory_limit // (n_threads * size)))
        n_groups = -(-len(members) // most)
        if len(members) * _multiplications(members[0]) >= _WORTH_A_THREAD:
            n_groups = min(-(-n_groups // n_threads) * n_threads, len(members))
        groups += _share_out(members, n_groups)
    return sorted(groups, key=_work, reverse=True)


def _rates(job: TrainingJob) -> tuple[float, float]:
    group = job.optimizer.param_groups[0]
    return group["lr"], group.get("weight_decay", 0.0)


def _share_out(members: Sequence[TrainingJob], n_groups: int) -> list[list[TrainingJob]]:
    """Give each group as many models of each number of epochs, to one or so, and neighbours where that leaves a choice."""
    groups: list[list[TrainingJob]] = [[] for _ in range(n_groups)]
    n_before = 0
    for _, alike in groupby(members, key=lambda job: job.max_epochs):
        alike = list(alike)
        each, more = divmod(len(alike), n_groups)
        for i in range(n_groups):  # who got one more the last time comes last now
            n = each + (i < more)
            groups[(n_before + i) % n_groups] += alike[:n]
            alike = alike[n:]
        n_before += more
    return groups


def _work(group: Sequence[TrainingJob]) -> float:
    return sum(job.max_epochs * len(job.train.y) * memory_per_model(job) for job in group)


def describe(job: TrainingJob) -> str:
    """Say in one line what the models of a job's group look like."""
    sizes = [job.train.X.shape[1], *(p.shape[0] for p in job.weights if p.ndim == 2)]
    return (
        f"{type(job.module).__name__} {'-'.join(map(str, sizes))}, {optimizer_class(job.optimizer).__name__}, "
        f"{len(job.train)} batches of {job.train.batch_size} rows"
    )
