"""Optimizers that step the weights of many models at once, each at its own rates.

All weights of a stack lie in one long tensor, and so do their gradients: a step is a handful of operations on those,
however many layers and models there are. The formulas are those of torch.optim; the state is read from and given back to
each model's own torch optimizer, so training can go on alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, optim

from skpt._compat import fused_adam_, fused_adamw_
from skpt.fusion.layout import Layout
from skpt.fusion.rounding import times

__all__ = ["STACKED_OPTIMIZERS", "StackedOptimizer", "shared_settings"]

# Numbers of a model from which torch's fused kernels are called, once for the models of one rate: some 4 us a call, a
# quarter of the time for the numbers.
WORTH_A_CALL = 1000


class StackedOptimizer:
    """Base: what the optimizers have in common.

    Parameters
    ----------
    groups : list of dict
        The one parameter group of each model's torch optimizer.
    params, grads : Tensor of shape (n_numbers,)
        All weights and their gradients.
    layout : Layout
        How they are laid out; `in_pieces` where `goes_in_pieces` says so.
    n_steps : int, default=0
        How many steps were made before.
    factors : list of list of float, default=None
        What each model's learning rate is multiplied by for each weight. None for one everywhere.
    """

    state_names: tuple[str, ...] = ()
    per_model: tuple[str, ...] = ("lr", "weight_decay")

    def __init__(
        self,
        groups: list[dict],
        params: Tensor,
        grads: Tensor,
        layout: Layout,
        n_steps: int = 0,
        factors: Sequence[Sequence[float]] | None = None,
    ):
        self.settings = groups[0]
        self.params, self.grads, self.layout = params, grads, layout
        self.n_steps = n_steps
        self.factors = 1.0 if factors is None else layout.spread_by_weight(factors)
        self.weight_decay = layout.spread([group.get("weight_decay", 0.0) for group in groups])
        self.state: dict[str, Tensor] = {name: torch.zeros_like(params) for name in self.active_states()}
        self.scratch = torch.empty_like(params)
        self._rates: tuple[list[float], float | Tensor] = ([], 0.0)

    @classmethod
    def goes_in_pieces(cls, n_numbers: int, device: torch.device) -> bool:
        """Say whether a step handles the models of each rate by themselves. Of a model alone, never of its company.

        Parameters
        ----------
        n_numbers : int
            Weights of a model, all numbers together.
        device : torch.device
            Where they are.

        Returns
        -------
        bool
            Whether the layout must be `in_pieces`.
        """
        return False

    def active_states(self) -> tuple[str, ...]:
        """Name the state tensors, as torch's optimizer names them."""
        return self.state_names

    def rate(self, lrs: list[float], factor: float = 1.0) -> float | Tensor:
        """Give the learning rates times a factor."""
        if self._rates[0] != lrs:
            lr = self.layout.spread(lrs)
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
    """``torch.optim.Adam``; Kingma and Ba, arXiv:1412.6980. Large models are stepped by torch's own fused kernel."""

    state_names = ("exp_avg", "exp_avg_sq")
    kernel = staticmethod(fused_adam_)

    def __init__(self, groups, params, grads, layout, n_steps=0, factors=None):
        super().__init__(groups, params, grads, layout, n_steps, factors)
        n_models, n_weights = layout.n_models, len(layout.shapes)
        self._own = [  # what of a model's rates does not change while it trains: the decay, and each weight's factor
            (group.get("weight_decay", 0.0), tuple(of_model))
            for group, of_model in zip(groups, factors or [[1.0] * n_weights] * n_models, strict=True)
        ]
        self._n_steps = torch.zeros((), device=params.device)
        self._n_steps_array = self._n_steps.numpy() if params.device.type == "cpu" else None  # the same memory
        self._alike: list[int] = []
        self._calls_by_rate: list[tuple[int, float, Callable]] = []
        self._lrs: list[float] = []  # those that the calls are made for
        self._calls: list[Callable[[], None]] = []

    @classmethod
    def goes_in_pieces(cls, n_numbers: int, device: torch.device) -> bool:
        return device.type == "cpu" and n_numbers >= WORTH_A_CALL

    def update(self, lrs: list[float]) -> None:
        if self.layout.in_pieces:
            self.call_kernel(lrs)
        else:
            self.update_all(lrs)

    def update_all(self, lrs: list[float]) -> None:
        """Make a step by operations on all weights of all models."""
        self.decay()
        self.descend(lrs)

    def call_kernel(self, lrs: list[float]) -> None:
        """Make a step by torch's kernel, all weights of one rate and decay in a call."""
        if lrs != self._lrs:
            self._calls = self._calls_at(lrs)
            self._lrs = list(lrs)
        self._n_steps_array[...] = self.n_steps
        for call in self._calls:
            call()

    def _calls_at(self, lrs: list[float]) -> list[Callable[[], None]]:
        """Give what makes a step at these rates."""
        first: dict[tuple, int] = {}
        alike = [first.setdefault((lr, own), m) for m, (lr, own) in enumerate(zip(lrs, self._own, strict=True))]
        if alike != self._alike:
            self._alike, self._calls_by_rate = alike, self._prepare_calls(alike)
        return [partial(call, lr=lrs[m] * factor) for m, factor, call in self._calls_by_rate]

    def _prepare_calls(self, alike: list[int]) -> list[tuple[int, float, Callable]]:
        """Give a model, a factor of its rate, and the call that takes the rate, for each decay and rate there is.

        Parameters
        ----------
        alike : list of int
            For each model the first one that has its rates.

        Returns
        -------
        list of (int, float, callable)
            The calls.
        """
        tensors = [self.params, self.grads, *self.state.values()]
        in_lists: dict[tuple[int, float], list[list[Tensor]]] = {}
        for like, run in groupby(range(len(alike)), alike.__getitem__):
            first, *_ = members = list(run)
            factors = self._own[like][1]
            for factor in dict.fromkeys(factors):
                weights = [weight for weight, own in enumerate(factors) if own == factor]
                lists = in_lists.setdefault((like, factor), [[] for _ in tensors])
                for of_tensor, tensor in zip(lists, tensors, strict=True):
                    of_tensor += self.layout.pieces(tensor, weights, first, first + len(members))
        if len(in_lists) == 1:  # one call, and one tensor, for everything
            in_lists = {key: [[t] for t in tensors] for key in in_lists}
        beta1, beta2 = self.settings["betas"]
        shared = {"beta1": beta1, "beta2": beta2, "eps": self.settings["eps"], "amsgrad": False, "maximize": False}
        return [
            (
                like,
                factor,
                partial(
                    self.kernel,
                    *lists,
                    [],  # of amsgrad
                    [self._n_steps] * len(lists[0]),
                    weight_decay=self._own[like][0],
                    **shared,
                ),
            )
            for (like, factor), lists in in_lists.items()
        ]

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

    kernel = staticmethod(fused_adamw_)

    def update_all(self, lrs: list[float]) -> None:
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
