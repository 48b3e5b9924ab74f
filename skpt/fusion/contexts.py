"""Contexts of torch's that hold for one thread, and that a stack, which trains in another one, would not be in."""

from __future__ import annotations

import torch

from skpt._compat import n_function_modes

__all__ = ["is_within_context_of_torch"]


def is_within_context_of_torch() -> bool:
    """Say whether the running thread computes otherwise than as usual: by autocast, in inference mode or for a device.

    Returns
    -------
    bool
        What trains in such a context must do so in this thread.
    """
    if torch.is_inference_mode_enabled() or n_function_modes():
        return True
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
