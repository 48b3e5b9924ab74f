"""Tensors in files: written whole or not at all, read without running code."""

from __future__ import annotations

import io
import json
import os
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from skpt.exceptions import InvalidInputError

__all__ = ["join_learnt", "read_tensors", "split_learnt", "write_tensors"]

_LEARNT_KEY = "skpt.estimator"  # what an estimator learnt besides weights, as JSON bytes beside the weights
_BEGINNINGS_OF_TORCH = (b"PK", b"\x80")  # a zip, or a pickle of old


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


def read_tensors(f, use_safetensors: bool | None = None) -> dict[str, Tensor]:
    """Read what `write_tensors` wrote, onto the CPU.

    Parameters
    ----------
    f : path or binary file
        Where from.
    use_safetensors : bool, default=None
        The format; None takes the one that the content begins like.

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
    if use_safetensors is None:
        use_safetensors = _begins_like_safetensors(content) or not content.startswith(_BEGINNINGS_OF_TORCH)
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


def _begins_like_safetensors(content: bytes) -> bool:
    """Whether it begins with the length of a JSON header, and that header: the length's first byte may be any, b"P" too."""
    return content[8:9] == b"{" and int.from_bytes(content[:8], "little") <= len(content) - 8


def join_learnt(state: dict[str, Tensor], learnt: dict[str, Any]) -> dict[str, Tensor]:
    """Give weights with what an estimator learnt besides, for one file.

    Parameters
    ----------
    state : dict of str to Tensor
        The weights.
    learnt : dict
        JSON types.

    Returns
    -------
    dict of str to Tensor
        What `split_learnt` takes apart again.
    """
    return {**state, _LEARNT_KEY: torch.frombuffer(bytearray(json.dumps(learnt).encode()), dtype=torch.uint8)}


def split_learnt(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Give the weights of a file, and what the estimator learnt besides.

    Parameters
    ----------
    state : dict of str to Tensor
        What a file holds.

    Returns
    -------
    state : dict of str to Tensor
        The weights.
    learnt : dict or None
        JSON types; None where the file holds weights alone.
    """
    if not isinstance(state, dict) or _LEARNT_KEY not in state:
        return state, None
    state = dict(state)
    return state, json.loads(bytes(state.pop(_LEARNT_KEY).tolist()))
