"""The operations of a function, recorded once and repeated without Python.

A step of a small network is some twenty calls of torch, each of some microseconds; called from Python they take as long again,
and wait for Python's lock after each while another thread runs. A `Recording` notes which operations a function calls, with
which tensors, and repeats them by the interpreter that torch has in C++, which does not hold the lock. They are the same
operations in the same order on the same memory: not a bit changes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
"""
