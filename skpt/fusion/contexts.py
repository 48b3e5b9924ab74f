"""What holds for one thread alone: settings that a fused call must take along to its tasks, and contexts of torch's."""

from __future__ import annotations

import contextvars
import threading
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import sklearn
import torch

from skpt._compat import n_function_modes, who_shows_warnings

__all__ = ["CallersContext", "CallersWarnings", "is_within_context_of_torch"]

_DEVICES = ("cpu", "cuda")

T = TypeVar("T")


class CallersContext:
    """What holds in the thread that makes this.

    Context variables (numpy's errstate is one), scikit-learn's configuration, and torch's autocast, default device and
    gradient mode.
    """

    def __init__(self):
        self.thread = threading.get_ident()
        self.variables = contextvars.copy_context()
        self.config = sklearn.get_config()
        self.autocast = [
            (device, torch.get_autocast_dtype(device), torch.is_autocast_cache_enabled())
            for device in _DEVICES
            if torch.is_autocast_enabled(device)
        ]
        self.device = torch.get_default_device() if n_function_modes() else None
        self.is_inference, self.needs_grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(self, function: Callable[[], T]) -> T:
        """Call a function in any thread as if it were called in that one.

        Parameters
        ----------
        function : callable
            Without arguments.

        Returns
        -------
        object
            What it returns.
        """
        return self.variables.copy().run(self._run, function)  # a copy: tasks run at once

    def _run(self, function: Callable[[], T]) -> T:
        if threading.get_ident() == self.thread:  # the rest holds there, or what is around the call has changed it
            return function()
        with ExitStack() as stack:
            stack.enter_context(sklearn.config_context(**self.config))
            for device, dtype, cached in self.autocast:
                stack.enter_context(torch.autocast(device, dtype=dtype, cache_enabled=cached))
            if self.device is not None:
                stack.enter_context(self.device)
            if self.is_inference:
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(self.needs_grad))
            return function()


class CallersWarnings:
    """What becomes of warnings in the thread that makes this."""

    def __init__(self):
        self.errors, self.shown_by = _errors(), who_shows_warnings()
        self._same: list[tuple] = list(warnings.filters)  # as they were when last looked at, and no others make errors

    def differ_now(self) -> bool:
        """Say whether a warning would be recorded or raised now that would not have been then.

        Python keeps filters for the whole process: who waits within ``catch_warnings`` changes them for others.
        """
        if who_shows_warnings() is not self.shown_by:
            return True
        if warnings.filters == self._same:
            return False
        filters = list(warnings.filters)
        differ = not _errors() <= self.errors
        if not differ:
            self._same = filters
        return differ


def _errors() -> set[tuple]:
    """The filters that make errors, and how many come after each: new ones come first."""
    filters = list(warnings.filters)
    return {(len(filters) - i, *map(str, entry)) for i, entry in enumerate(filters) if entry[0] == "error"}


def is_within_context_of_torch() -> bool:
    """Say whether the running thread computes otherwise than as usual: by autocast, in inference mode or for a device.

    Returns
    -------
    bool
        What trains in such a context must do so in this thread.
    """
    n_own = torch.get_default_dtype() != torch.float32  # then a fit is within `single_precision`
    if torch.is_inference_mode_enabled() or n_function_modes() > n_own:
        return True
    return any(map(torch.is_autocast_enabled, _DEVICES))
