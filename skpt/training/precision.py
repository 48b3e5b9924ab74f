"""Networks in single precision, whatever torch's default is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["single_precision"]

# What makes numbers of torch's default type where none is given; the last two only of Python's floats.
_OF_DEFAULT_TYPE = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.eye, torch.linspace}
_OF_GIVEN_TYPE = {torch.tensor, torch.full}


class _SinglePrecision(TorchFunctionMode):
    """Makes torch's functions give float32 where they would give the default type. Holds for one thread, as `torch.device`."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("dtype") is not None or not (func in _OF_DEFAULT_TYPE or func in _OF_GIVEN_TYPE):
            return func(*args, **kwargs)
        if func in _OF_DEFAULT_TYPE:
            return func(*args, **{**kwargs, "dtype": torch.float32})
        made: Tensor = func(*args, **kwargs)
        has_type = any(hasattr(arg, "dtype") for arg in args)
        return made.float() if made.is_floating_point() and not has_type else made


def single_precision() -> AbstractContextManager:
    """Give the context in which networks are made and trained in float32.

    Returns
    -------
    context manager
        One that does nothing where float32 is torch's default.
    """
    return nullcontext() if torch.get_default_dtype() == torch.float32 else _SinglePrecision()
