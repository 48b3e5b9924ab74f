"""Sequences of unequal length in one tensor: the steps behind a sequence's end hold NaN in every feature."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["last_steps", "mean_over_steps", "read_padding", "real_steps"]


def read_padding(X: Tensor) -> tuple[Tensor, Tensor | None]:
    """Read how long each sequence of a batch is, and put zeros where it is padded.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_timesteps, n_features)
        Sequences, the shorter ones padded at the end: a step whose features are all NaN is padding. Looked at is the
        last step alone, unless something is missing there.

    Returns
    -------
    X : Tensor of shape (n_samples, n_longest, n_features)
        Without NaN in the padding, and no longer than the longest sequence; as it was where nothing is padded.
    lengths : Tensor of int of shape (n_samples,) or None
        Number of steps of each sequence; None where nothing is padded.

    Raises
    ------
    ValueError
        If a sequence has no step at all.
    """
    if X[:, -1, 0].sum().isfinite():  # the quickest look that finds NaN
        return X, None
    step = torch.arange(1, X.shape[1] + 1, device=X.device)
    lengths = (step * X.isnan().all(2).logical_not()).amax(1)
    shortest, longest = (int(n) for n in lengths.aminmax())
    if shortest == longest == X.shape[1]:
        return X, None
    if not shortest:
        first = int((lengths == 0).nonzero()[0, 0])
        raise ValueError(
            f"A sequence must have at least one step that is not padding. Got NaN alone in sequence {first} of the batch. "
            "Leave such sequences out."
        )
    padding = step[:longest] > lengths[:, None]
    return X[:, :longest].masked_fill(padding[:, :, None], 0.0), lengths


def real_steps(lengths: Tensor | None, n_timesteps: int) -> Tensor | None:
    """Mark the steps that are no padding.

    Parameters
    ----------
    lengths : Tensor of int of shape (n_samples,) or None
        Number of steps of each sequence.
    n_timesteps : int
        Number of steps with padding.

    Returns
    -------
    Tensor of bool of shape (n_samples, n_timesteps), or None
        None where `lengths` is None: all steps are real.
    """
    return None if lengths is None else torch.arange(n_timesteps, device=lengths.device) < lengths[:, None]


def mean_over_steps(X: Tensor, real: Tensor | None) -> Tensor:
    """Mean of X over the real steps.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_timesteps, n_features)
        Finite numbers.
    real : Tensor of bool of shape (n_samples, n_timesteps), or None
        Which steps count; None for all.

    Returns
    -------
    Tensor of shape (n_samples, n_features)
        The means.
    """
    if real is None:
        return X.mean(1)
    return (X * real.unsqueeze(2)).sum(1) / real.sum(1, keepdim=True)


def last_steps(X: Tensor, lengths: Tensor | None) -> Tensor:
    """X at the last step of each sequence.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_timesteps, n_features)
        Any numbers.
    lengths : Tensor of int of shape (n_samples,) or None
        Number of steps of each sequence; None for all steps.

    Returns
    -------
    Tensor of shape (n_samples, n_features)
        The last steps.
    """
    return X[:, -1] if lengths is None else X[torch.arange(len(X), device=X.device), lengths - 1]
