"""Memory that a step gives back stays with the process, for the next step; that of what it calls, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

__all__ = ["keep_freed_memory", "with_room_for_frames"]

# Words of a frame that is larger than the pieces in which CPython gets memory for frames, of 2,048 words: it begins a piece of
# its own, of 8,192.
_WORDS = 4096

_Function = TypeVar("_Function", bound=Callable)

# The largest block, 32 MB, by which glibc's malloc learns (DEFAULT_MMAP_THRESHOLD_MAX of 64-bit systems), less what it needs
# itself and for torch's alignment.
_LARGEST_LEARNT_FROM = (32 << 20) - 8192


@cache
def keep_freed_memory() -> None:
    """Have malloc keep up to 64 MB that were freed; once per process.

    What a training step frees, glibc gives back to the system at once, and gets it back page by page, each made zero: that
    took more than half of the time of an LSTM's steps. From which size on it does so, it learns from the blocks that were
    freed (mallopt(3): "dynamic mmap threshold"), as in any process that freed an array of 32 MB once. So this frees one,
    which was never written to and takes no memory. Where malloc is another, or was told by ``MALLOC_TRIM_THRESHOLD_``,
    nothing changes.
    """
    torch.empty(_LARGEST_LEARNT_FROM, dtype=torch.uint8, device="cpu")


def with_room_for_frames(function: _Function) -> _Function:
    """Decorate a function whose loops call others, so that none of these calls needs memory from the system.

    CPython keeps the frames of Python's functions in pieces of 16 KB. A call that is the first in a new piece gets it from the
    system, and gives it back when it returns; in a loop, each time again. Where the pieces end depends on how deep the caller
    is: at some depths a fit took 1.7 times as long. The decorated function begins a piece that has 31 KB left for those it
    calls.

    Parameters
    ----------
    function : function
        One in Python.

    Returns
    -------
    function
        The same one, changed in place.
    """
    function.__code__ = function.__code__.replace(co_stacksize=_WORDS)
    return function
