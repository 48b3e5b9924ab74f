"""Optimizers by name: every one that torch has; and Adam's steps without what surrounds them.

A stack only reads an optimizer's settings and keeps its state, so torch's own need not exist until somebody asks for it
(`PendingOptimizer`): the first one of a process makes torch import its compiler, which takes a second or two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn, optim

from skpt._compat import foreach_add_, fused_adam_, fused_adamw_, hooks_of_all_optimizers
from skpt.exceptions import nearest_name
from skpt.training.arguments import check_arguments

__all__ = ["OPTIMIZERS", "PendingOptimizer", "QuickAdam", "build_optimizer", "find_optimizer", "optimizer_class"]

OPTIMIZERS: dict[str, type[optim.Optimizer]] = {
    name.lower(): cls
    for name, cls in vars(optim).items()
    if isinstance(cls, type) and issubclass(cls, optim.Optimizer) and cls is not optim.Optimizer
}

# One kernel for the whole step; torch leaves the choice to the caller on a CPU.
_FUSED = (optim.Adam, optim.AdamW, optim.SGD, optim.Adagrad)

# Those whose whole is a group of settings and a state of each weight.
_MAY_WAIT = (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad)


class PendingOptimizer:
    """One of torch's optimizers that is not built yet: its class, its groups of settings, and its state.

    Parameters
    ----------
    cls : class
        Which one.
    params : list of nn.Parameter
        What it is to step.
    arguments : dict
        Its keyword arguments.

    Attributes
    ----------
    param_groups : list of dict
        One group with all settings, as the optimizer would have it; it may be divided.
    state : dict of Tensor to dict
        What the optimizer would remember of each weight.

    Raises
    ------
    ValueError
        By torch, if a setting is out of range.
    """

    def __init__(self, cls: type[optim.Optimizer], params: list[nn.Parameter], arguments: dict[str, Any]):
        self.cls, self.arguments = cls, arguments
        try:
            settings = _settings(cls, **arguments)
        except TypeError:  # of an argument that cannot be remembered, such as a list
            settings = _settings.__wrapped__(cls, **arguments)
        self.param_groups = [{"params": params, **settings}]
        self.state: dict[nn.Parameter, dict[str, Any]] = {}

    def build(self) -> optim.Optimizer:
        """Give torch's optimizer with these settings and this state."""
        optimizer = self.cls([p for group in self.param_groups for p in group["params"]], **self.arguments)
        optimizer.param_groups[:] = self.param_groups
        optimizer.state.update(self.state)
        return optimizer


@lru_cache(maxsize=256, typed=True)
def _settings(cls: type[optim.Optimizer], **arguments) -> dict[str, Any]:
    """Give the settings that torch's constructor makes of arguments, checked by it."""

    class Settings(cls):
        def add_param_group(self, param_group: dict) -> None:
            """Take none."""

    return Settings([{"params": []}], **arguments).defaults


def optimizer_class(optimizer: optim.Optimizer | PendingOptimizer) -> type[optim.Optimizer]:
    """Give the class of an optimizer, built or not."""
    return optimizer.cls if isinstance(optimizer, PendingOptimizer) else type(optimizer)


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


def build_optimizer(optimizer, groups: Iterable, params: Mapping) -> optim.Optimizer | PendingOptimizer:
    """Build an optimizer over parameter groups, or leave that for later where there is one plain group.

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
    torch.optim.Optimizer or PendingOptimizer
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
    if optimizer in _MAY_WAIT and len(groups) == 1 and isinstance(groups[0], dict) and groups[0].keys() == {"params"}:
        return PendingOptimizer(optimizer, list(groups[0]["params"]), params)
    return optimizer(groups, **params)


# What an optimizer of torch's calls or reads besides its groups and states.
_CALLED = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks", "grad_scale", "found_inf")


def _is_watched(optimizer: optim.Optimizer) -> bool:
    """Whether somebody is called when an optimizer makes a step, or has a word in it."""
    return any(hooks_of_all_optimizers) or any(getattr(optimizer, name, None) for name in _CALLED)


class QuickAdam:
    """Steps torch's Adam or AdamW by its fused operation alone.

    ``optimizer.step()`` gathers weights, gradients and states, checks them and sorts them by device at each step, which takes
    as long as a small network's layers. Here that is done by torch in the first step, and again when other weights have a
    gradient. Weights, states and settings are the optimizer's own.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        One that `suits`; nobody else changes its states or groups meanwhile, as they may between two epochs. Settings, such
        as the learning rate, may change.
    """

    def __init__(self, optimizer: optim.Optimizer):
        self.optimizer = optimizer
        self.params: list[nn.Parameter] = [p for group in optimizer.param_groups for p in group["params"]]
        self._with_gradient: list[bool] = []
        self._gathered: list[tuple[Callable, dict[str, Any], list[nn.Parameter], list[list[Tensor]]]] = []

    @staticmethod
    def suits(optimizer) -> bool:
        """Say whether an optimizer does nothing in a step but the fused operation on weights of one device and type."""
        step = vars(optimizer).get("step")  # torch's schedules wrap it, to know whether it was called
        is_wrapped = step is not None and not hasattr(step, "_wrapped_by_lr_sched")
        if type(optimizer) not in (optim.Adam, optim.AdamW) or is_wrapped or _is_watched(optimizer):
            return False
        groups = optimizer.param_groups
        return (
            all(group["fused"] and not (group["capturable"] or group["differentiable"]) for group in groups)
            and all(isinstance(number, (int, float)) for group in groups for number in (group["lr"], *group["betas"]))
            and len({(p.device, p.dtype) for group in groups for p in group["params"]}) == 1
        )

    def zero_grad(self) -> None:
        """Take the gradients off."""
        for p in self.params:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Make one step."""
        with_gradient = [p.grad is not None for p in self.params]
        if with_gradient != self._with_gradient or _is_watched(self.optimizer):
            self.optimizer.step()
            self._gather(with_gradient)
            return
        for kernel, group, params, (steps, means, squares, largest) in self._gathered:
            foreach_add_(steps, 1)
            kernel(
                params,
                [p.grad for p in params],
                means,
                squares,
                largest,
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=group["amsgrad"],
                maximize=group["maximize"],
                grad_scale=None,
                found_inf=None,
            )

    def _gather(self, with_gradient: list[bool]) -> None:
        self._with_gradient, self._gathered = with_gradient, []
        for group in self.optimizer.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            names = ("step", "exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * group["amsgrad"])
            states = [[self.optimizer.state[p][name] for p in params] for name in names]
            is_decoupled = type(self.optimizer) is optim.AdamW or group.get("decoupled_weight_decay", False)
            if params:
                self._gathered.append((fused_adamw_ if is_decoupled else fused_adam_, group, params, [*states, []][:4]))


def _all_floating(groups: Iterable) -> bool:
    tensors = (p for group in groups for p in (group["params"] if isinstance(group, dict) else [group]))
    return all(isinstance(p, nn.Parameter) and p.is_floating_point() for p in tensors)
