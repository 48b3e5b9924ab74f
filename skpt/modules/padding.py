"""Sequences of unequal length in one tensor: the steps behind a sequence's end hold NaN in every feature."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["last_steps", "mean_over_steps", "split_padding"]


def split_padding(X: Tensor) -> tuple[Tensor, Tensor | None]:
    """Tell real steps from padding.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_timesteps, n_features)
        Sequences; a step is padding where all its features are NaN.

    Returns
    -------
    X : Tensor of shape (n_samples, n_timesteps, n_features)
        The same with zeros in place of padding.
    real : Tensor of bool of shape (n_samples, n_timesteps), or None
        Which steps are real. None where all are, which one sum over X tells.
    """
    if not math.isnan(float(X.detach().sum())):
        return X, None
    real = ~torch.isnan(X).all(2)
    if bool(real.all()):
        return X, None
    return torch.where(real.unsqueeze(2), X, 0.0), real


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


def last_steps(X: Tensor, real: Tensor | None) -> Tensor:
    """X at the last real step of each sequence.

    Parameters
    ----------
    X : Tensor of shape (n_samples, n_timesteps, n_features)
        Any numbers.
    real : Tensor of bool of shape (n_samples, n_timesteps), or None
        Which steps are real, the first ones of each sequence; None for all.

    Returns
    -------
    Tensor of shape (n_samples, n_features)
        The last steps.
    """
    if real is None:
        return X[:, -1]
    return X[torch.arange(len(X), device=X.device), real.sum(1) - 1]
