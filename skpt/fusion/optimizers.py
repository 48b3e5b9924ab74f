"""Optimizers that step the weights of many models at once, each at its own rates.

All weights of a stack lie in one long tensor, and so do their gradients: a step is a handful of operations on those,
however many layers and models there are. The formulas are those of torch.optim; the state is read from and given back to
each model's own torch optimizer, so training can go on alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, optim

from skpt.fusion.rounding import times

__all__ = ["STACKED_OPTIMIZERS", "StackedOptimizer", "shared_settings"]


class StackedOptimizer:
    """Base: what the optimizers have in common.

    Parameters
    ----------
    groups : list of dict
        The one parameter group of each model's torch optimizer.
    params, grads : Tensor of shape (n_numbers,)
        All weights and their gradients.
    spread : callable
        Turns one number per model into a number (if they are all equal) or a tensor of shape (n_numbers,).
    n_steps : int, default=0
        How many steps were made before.
    factors : float or Tensor of shape (n_numbers,), default=1.0
        What the learning rate is multiplied by.
    """

    state_names: tuple[str, ...] = ()
    per_model: tuple[str, ...] = ("lr", "weight_decay")

    def __init__(
        self, groups: list[dict], params: Tensor, grads: Tensor, spread: Callable, n_steps: int = 0, factors=1.0
    ):
        self.settings = groups[0]
        self.params, self.grads, self.spread = params, grads, spread
        self.n_steps, self.factors = n_steps, factors
        self.weight_decay = spread([group.get("weight_decay", 0.0) for group in groups])
        self.state: dict[str, Tensor] = {name: torch.zeros_like(params) for name in self.active_states()}
        self.scratch = torch.empty_like(params)
        self._rates: tuple[list[float], float | Tensor] = ([], 0.0)

    def active_states(self) -> tuple[str, ...]:
        """Name the state tensors, as torch's optimizer names them."""
        return self.state_names

    def rate(self, lrs: list[float], factor: float = 1.0) -> float | Tensor:
        """Give the learning rates times a factor."""
        if self._rates[0] != lrs:
            lr = self.spread(lrs)
            self._rates = list(lrs), self.factors * lr if isinstance(self.factors, Tensor) else lr
        lr = self._rates[1]
        return lr if factor == 1.0 else times(lr, factor)

    def decay(self) -> None:
        """Add the L2 penalty's gradient."""
        if isinstance(self.weight_decay, Tensor) or self.weight_decay:
            self.grads.add_(torch.mul(self.params, self.weight_decay, out=self.scratch))

    def step(self, lrs: list[float]) -> None:
        """Make one step.

        Parameters
        ----------
        lrs : list of float
            Learning rate of each model.
        """
        self.n_steps += 1
        self.update(lrs)

    def update(self, lrs: list[float]) -> None:
        """Change the weights."""
        raise NotImplementedError


class StackedSGD(StackedOptimizer):
    """``torch.optim.SGD``, with momentum, dampening and Nesterov's variant."""

    state_names = ("momentum_buffer",)

    def active_states(self) -> tuple[str, ...]:
        return self.state_names if self.settings["momentum"] else ()

    def update(self, lrs: list[float]) -> None:
        self.decay()
        step, momentum = self.grads, self.settings["momentum"]
        if momentum:
            buffer = self.state["momentum_buffer"]
            if self.n_steps == 1:
                buffer.copy_(step)
            else:
                buffer.mul_(momentum).add_(step, alpha=1 - self.settings["dampening"])
            step = step.add(buffer, alpha=momentum) if self.settings["nesterov"] else buffer
        self.params.sub_(torch.mul(step, self.rate(lrs), out=self.scratch))


class StackedAdam(StackedOptimizer):
    """``torch.optim.Adam``; Kingma and Ba, arXiv:1412.6980."""

    state_names = ("exp_avg", "exp_avg_sq")

    def update(self, lrs: list[float]) -> None:
        self.decay()
        self.descend(lrs)

    def descend(self, lrs: list[float]) -> None:
        """Move against the normalised mean gradient."""
        beta1, beta2 = self.settings["betas"]
        g, m, v, scratch = self.grads, self.state["exp_avg"], self.state["exp_avg_sq"], self.scratch
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        # lr / c1 * m / (sqrt(v / c2) + eps), with sqrt(c2) taken out of the fraction
        c1, c2 = 1 - beta1**self.n_steps, math.sqrt(1 - beta2**self.n_steps)
        torch.sqrt(v, out=scratch).add_(self.settings["eps"] * c2)
        torch.div(m, scratch, out=scratch).mul_(self.rate(lrs, c2 / c1))
        self.params.sub_(scratch)


class StackedAdamW(StackedAdam):
    """``torch.optim.AdamW``: weight decay apart from the gradient; Loshchilov and Hutter, arXiv:1711.05101."""

    def update(self, lrs: list[float]) -> None:
        if isinstance(self.weight_decay, Tensor) or self.weight_decay:
            torch.mul(self.params, self.rate(lrs), out=self.scratch).mul_(self.weight_decay)
            self.params.sub_(self.scratch)
        self.descend(lrs)


class StackedRMSprop(StackedOptimizer):
    """``torch.optim.RMSprop``, centred or not, with momentum or not."""

    state_names = ("square_avg", "momentum_buffer", "grad_avg")

    def active_states(self) -> tuple[str, ...]:
        settings = self.settings
        return ("square_avg", *(["momentum_buffer"] * bool(settings["momentum"])), *(["grad_avg"] * settings["centered"]))

    def update(self, lrs: list[float]) -> None:
        self.decay()
        g, settings, alpha = self.grads, self.settings, self.settings["alpha"]
        v = self.state["square_avg"].mul_(alpha).addcmul_(g, g, value=1 - alpha)
        if settings["centered"]:
            mean = self.state["grad_avg"].mul_(alpha).add_(g, alpha=1 - alpha)
            v = v.addcmul(mean, mean, value=-1)
        step = torch.div(g, torch.sqrt(v, out=self.scratch).add_(settings["eps"]), out=self.scratch)
        if settings["momentum"]:
            step = self.state["momentum_buffer"].mul_(settings["momentum"]).add_(step)
        self.params.sub_(torch.mul(step, self.rate(lrs), out=self.scratch))


class StackedAdagrad(StackedOptimizer):
    """``torch.optim.Adagrad``."""

    state_names = ("sum",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.state["sum"].fill_(self.settings["initial_accumulator_value"])

    def update(self, lrs: list[float]) -> None:
        self.decay()
        g, scratch = self.grads, self.scratch
        total = self.state["sum"].addcmul_(g, g, value=1)
        torch.div(g, torch.sqrt(total, out=scratch).add_(self.settings["eps"]), out=scratch)
        factor = 1 / (1 + (self.n_steps - 1) * self.settings["lr_decay"])
        self.params.sub_(scratch.mul_(self.rate(lrs, factor)))


STACKED_OPTIMIZERS: dict[type[optim.Optimizer], type[StackedOptimizer]] = {
    optim.SGD: StackedSGD,
    optim.Adam: StackedAdam,
    optim.AdamW: StackedAdamW,
    optim.RMSprop: StackedRMSprop,
    optim.Adagrad: StackedAdagrad,
}

# How torch carries a step out; it does not change the result.
_IRRELEVANT = {"params", "fused", "foreach", "capturable", "decoupled_weight_decay"}


def shared_settings(group: dict) -> tuple:
    """Give the settings of a parameter group that all models of a stack must share, as a hashable key."""
    own = _IRRELEVANT | set(StackedOptimizer.per_model) | {"initial_lr", "lr_factor"}
    return tuple(sorted((name, _hashable(value)) for name, value in group.items() if name not in own))


def _hashable(value):
    return tuple(value) if isinstance(value, list) else value
