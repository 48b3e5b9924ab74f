"""Learning-rate schedules by name, as skorch's ``LRScheduler`` and as a plain sequence of rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from skorch.callbacks import LRScheduler
from torch.optim import SGD, lr_scheduler

from skpt.exceptions import UnknownParameterError, nearest_name
from skpt.training.arguments import check_arguments
from skpt.training.transfer import follow_rates

__all__ = ["SCHEDULES", "LearningRate", "Schedule", "find_schedule"]

# name -> (class, default arguments from (lr, n_epochs, n_batches), how often a step is made)
SCHEDULES: dict[str, tuple[type, Callable[[float, int, int], dict[str, Any]], str]] = {
    "cosine": (lr_scheduler.CosineAnnealingLR, lambda lr, epochs, batches: {"T_max": max(1, epochs)}, "epoch"),
    "plateau": (lr_scheduler.ReduceLROnPlateau, lambda lr, epochs, batches: {"factor": 0.2, "patience": 5}, "epoch"),
    "one_cycle": (
        lr_scheduler.OneCycleLR,
        lambda lr, epochs, batches: {"max_lr": lr, "total_steps": max(1, epochs * batches), "cycle_momentum": False},
        "batch",
    ),
    "step": (lr_scheduler.StepLR, lambda lr, epochs, batches: {"step_size": max(1, epochs // 3)}, "epoch"),
    "exponential": (lr_scheduler.ExponentialLR, lambda lr, epochs, batches: {"gamma": 0.95}, "epoch"),
    "linear": (
        lr_scheduler.LinearLR,
        lambda lr, epochs, batches: {"start_factor": 1.0, "end_factor": 0.01, "total_iters": max(1, epochs)},
        "epoch",
    ),
}


@dataclass(frozen=True)
class Schedule:
    """How a learning rate changes: a class of ``torch.optim.lr_scheduler``, its arguments, and how often it steps.

    Parameters
    ----------
    policy : class
        The scheduler.
    params : dict
        Its arguments.
    step_every : {"epoch", "batch"}
        When it steps.
    monitor : {"train_loss", "valid_loss"}
        What a plateau is judged by.
    """

    policy: type
    params: dict[str, Any] = field(default_factory=dict)
    step_every: str = "epoch"
    monitor: str = "train_loss"

    def callback(self) -> LRScheduler:
        """Give skorch's callback of this schedule, which begins anew with each call of fit."""
        params = self.params
        if self.policy is not lr_scheduler.ReduceLROnPlateau:
            params = {"last_epoch": -1, **params}  # else skorch goes on where the history ends
        return _ScheduleOfAllGroups(
            policy=self.policy, monitor=self.monitor, step_every=self.step_every, event_name=None, **params
        )


class _ScheduleOfAllGroups(LRScheduler):
    """skorch's callback, after which loaded weights have their multiple of the rate of the others, whatever the schedule."""

    def on_train_begin(self, net, **kwargs):
        super().on_train_begin(net, **kwargs)
        follow_rates(net.optimizer_)

    def on_batch_end(self, net, training, **kwargs):
        super().on_batch_end(net, training, **kwargs)
        follow_rates(net.optimizer_)

    def on_epoch_end(self, net, **kwargs):
        super().on_epoch_end(net, **kwargs)
        follow_rates(net.optimizer_)


def find_schedule(schedule, params: Mapping, *, lr: float, n_epochs: int, n_batches: int, monitor: str) -> Schedule | None:
    """Give the schedule that a name or a class of ``torch.optim.lr_scheduler`` stands for.

    Parameters
    ----------
    schedule : str, class or None
        What the user asked for.
    params : mapping
        Arguments that replace the defaults (the user's ``lr_schedule__*``); "step_every" is taken too.
    lr : float
        The first learning rate.
    n_epochs, n_batches : int
        Number of epochs, and of batches in each.
    monitor : str
        "train_loss" or "valid_loss".

    Returns
    -------
    Schedule or None
        None for a constant rate.

    Raises
    ------
    ValueError
        If the name is unknown.
    UnknownParameterError
        If the scheduler has no such argument.
    """
    if schedule is None:
        if params:
            raise UnknownParameterError(
                f"lr_schedule__{next(iter(params))} was given, but lr_schedule is None. "
                f"Set lr_schedule to one of {sorted(SCHEDULES)}."
            )
        return None
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise ValueError(
                f"The 'lr_schedule' parameter must be one of {sorted(SCHEDULES)}, a class of torch.optim.lr_scheduler "
                f"or None. Got {schedule!r} instead.{nearest_name(schedule, SCHEDULES, listed=True)}"
            )
        policy, defaults, step_every = SCHEDULES[schedule]
        given = defaults(lr, n_epochs, n_batches)
    else:
        policy, given, step_every = schedule, {}, "epoch"
    params = dict(params)
    step_every = params.pop("step_every", step_every)
    check_arguments(policy, params, "learning-rate schedule", but=frozenset({"optimizer", "verbose", "last_epoch"}))
    return Schedule(policy, {**given, **params}, step_every, monitor)


class _Rate(SGD):
    """An optimizer of no weights, for a scheduler to drive: torch does not import its compiler for it."""

    def add_param_group(self, param_group: dict) -> None:
        """Hold the settings."""
        self.param_groups.append({**self.defaults, **param_group})

    def step(self, closure=None) -> None:
        """Step nothing."""


class LearningRate:
    """The learning rate of one model as training goes on, without the model.

    Torch's own scheduler drives an optimizer that holds nothing, so a rate is the same as in any other loop.

    Parameters
    ----------
    lr : float
        The first learning rate.
    schedule : Schedule or None
        How it changes; None keeps it.
    """

    def __init__(self, lr: float, schedule: Schedule | None):
        self.lr = lr
        self.schedule = schedule
        if schedule is not None:
            self.optimizer = _Rate([{"params": []}], lr=lr)
            self.scheduler = schedule.policy(self.optimizer, **schedule.params)
            self._read()

    def _read(self) -> None:
        self.lr = float(self.optimizer.param_groups[0]["lr"])

    def after_batch(self) -> None:
        """Take note of one training step."""
        if self.schedule is not None and self.schedule.step_every == "batch":
            self._step()

    def after_epoch(self, train_loss: float, valid_loss: float | None) -> None:
        """Take note of one epoch and its losses."""
        if self.schedule is None or self.schedule.step_every != "epoch":
            return
        if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(valid_loss if self.schedule.monitor == "valid_loss" else train_loss)
            self._read()
        else:
            self._step()

    def _step(self) -> None:
        self.optimizer.step()  # torch warns if a scheduler steps before its optimizer
        self.scheduler.step()
        self._read()
