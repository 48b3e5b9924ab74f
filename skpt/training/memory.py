"""Memory that a step gives back stays with the process, for the next step."""

from __future__ import annotations

from functools import cache

import torch

__all__ = ["keep_freed_memory"]

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
