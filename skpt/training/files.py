"""Tensors in files: written whole or not at all, read without running code."""

from __future__ import annotations

import io
import os

import torch
from safetensors.torch import load, save
from torch import Tensor

from skpt.exceptions import InvalidInputError

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(state: dict[str, Tensor], f, use_safetensors: bool) -> None:
    """Write tensors.

    Parameters
    ----------
    state : dict of str to Tensor
        What to write.
    f : path or binary file
        Where to. A path gets its content in one step: whoever is interrupted keeps the old file.
    use_safetensors : bool
        The format: safetensors, or torch's.
    """
    state = {name: t.detach().cpu().contiguous() for name, t in state.items()}
    if use_safetensors:
        content = save(state)
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    if not isinstance(f, (str, os.PathLike)):
        f.write(content)
        return
    temporary = f"{os.fspath(f)}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, f)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def read_tensors(f, use_safetensors: bool) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote, onto the CPU.

    Parameters
    ----------
    f : path or binary file
        Where from.
    use_safetensors : bool
        The format.

    Returns
    -------
    dict of str to Tensor
        The tensors.

    Raises
    ------
    InvalidInputError
        If the content is not of that format.
    """
    if isinstance(f, (str, os.PathLike)):
        with open(f, "rb") as file:
            content = file.read()
    else:
        content = f.read()
    try:
        if use_safetensors:
            return load(content)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        kind, other = ("safetensors", "torch") if use_safetensors else ("torch", "safetensors")
        raise InvalidInputError(
            f"The file of weights must be one of {kind}. Reading {f!r} as such failed with {type(error).__name__}. If it is "
            f"one of {other}, pass use_safetensors={not use_safetensors}."
        ) from error
