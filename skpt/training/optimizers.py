"""Optimizers by name: every one that torch has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn, optim

from skpt.exceptions import nearest_name
from skpt.training.arguments import check_arguments

__all__ = ["OPTIMIZERS", "build_optimizer", "find_optimizer"]

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    name.lower(): cls
    for name, cls in vars(optim).items()
    if isinstance(cls, type) and issubclass(cls, optim.Optimizer) and cls is not optim.Optimizer
}

# One kernel for the whole step; torch leaves the choice to the caller on a CPU.
_FUSED = (optim.Adam, optim.AdamW, optim.SGD, optim.Adagrad)


def find_optimizer(optimizer: str | type[optim.Optimizer]) -> type[optim.Optimizer]:
    """Give the class that a name stands for.

    Parameters
    ----------
    optimizer : str or class
        The class's name in lower case, such as "adam", or the class itself (anything callable as one).

    Returns
    -------
    class
        The optimizer's class.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer.lower() not in OPTIMIZERS:
        raise ValueError(
            f"The 'optimizer' parameter must be one of {sorted(OPTIMIZERS)} or a class of torch.optim.Optimizer. "
            f"Got {optimizer!r} instead.{nearest_name(optimizer, OPTIMIZERS, listed=True)}"
        )
    return OPTIMIZERS[optimizer.lower()]


def build_optimizer(optimizer, groups: Iterable, params: Mapping) -> optim.Optimizer:
    """Build an optimizer over parameter groups.

    Parameters
    ----------
    optimizer : class
        What `find_optimizer` gave.
    groups : iterable
        Parameters or parameter groups, as torch takes them.
    params : mapping
        Keyword arguments: lr and the user's ``optimizer__*``.

    Returns
    -------
    torch.optim.Optimizer
        The optimizer.

    Raises
    ------
    UnknownParameterError
        If the optimizer has no such parameter.
    """
    params = dict(params)
    check_arguments(optimizer, params, "optimizer", but=frozenset({"params"}))
    groups = list(groups)
    plain = not (params.keys() & {"fused", "foreach", "differentiable", "capturable"})
    if optimizer in _FUSED and plain and _all_floating(groups):
        params["fused"] = True
    return optimizer(groups, **params)


def _all_floating(groups: Iterable) -> bool:
    tensors = (p for group in groups for p in (group["params"] if isinstance(group, dict) else [group]))
    return all(isinstance(p, nn.Parameter) and p.is_floating_point() for p in tensors)
