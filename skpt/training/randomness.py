"""Random numbers of a fit: generators of its own, one per purpose.

The global generators of torch and numpy are neither read nor moved. A network that is not ours and draws from torch's
global generator is run inside `borrowed_global_generator`, which gives the generator back as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from sklearn.utils import check_random_state

__all__ = ["RandomStreams", "borrowed_global_generator", "draw_seed"]


def draw_seed(random_state) -> int:
    """Give the seed that a scikit-learn `random_state` stands for.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState or None
        An int is its own seed; a RandomState gives its next number; None gives fresh entropy of the operating system, so
        that numpy's global generator is not moved.

    Returns
    -------
    int
        A number in [0, 2**32).
    """
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, (int, np.integer)):
        if not 0 <= random_state < 2**32:
            check_random_state(random_state)  # scikit-learn's error for a number out of range
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


@lru_cache(maxsize=256)
def _stream_seeds(seed: int) -> tuple[int, ...]:
    """Give the seeds of a fit's generators."""
    return seed, *(int(s) >> 1 for s in np.random.SeedSequence(seed).generate_state(3, np.uint64))


class RandomStreams:
    """The generators of one estimator.

    Parameters
    ----------
    seed : int
        What everything follows from.

    Attributes
    ----------
    weights : torch.Generator
        First weights. Seeded with `seed` itself, so that a network starts where ``torch.manual_seed(seed)`` starts it.
    order : torch.Generator
        Order of the rows in each epoch.
    noise : torch.Generator
        Dropout and every other noise while training.
    split : torch.Generator
        Which rows are held out.
    """

    NAMES = ("weights", "order", "noise", "split")

    def __init__(self, seed: int):
        self.seed = seed

    def __getattr__(self, name: str) -> torch.Generator:
        # A generator is made when it is first asked for: few fits need them all.
        if name not in self.NAMES:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        generator = torch.Generator().manual_seed(_stream_seeds(self.seed)[self.NAMES.index(name)])
        return vars(self).setdefault(name, generator)

    def __getstate__(self) -> dict:
        # Those that nobody has asked for yet follow from the seed.
        made = {name: generator.get_state().numpy() for name, generator in vars(self).items() if name in self.NAMES}
        return {"seed": self.seed, **made}

    def __setstate__(self, state: dict) -> None:
        self.seed = state["seed"]
        for name in set(self.NAMES) & set(state):
            generator = torch.Generator()
            generator.set_state(torch.from_numpy(state[name].copy()))
            setattr(self, name, generator)


_GLOBAL_GENERATOR = threading.RLock()


@contextmanager
def borrowed_global_generator(generator: torch.Generator) -> Iterator[None]:
    """Let code that draws from torch's global generators draw from `generator` instead.

    The global state is put back afterwards, and `generator` moves on. One thread at a time.

    Parameters
    ----------
    generator : torch.Generator
        Gives the seed.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with _GLOBAL_GENERATOR, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
