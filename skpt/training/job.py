"""What one fit asks for, whoever carries it out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from skpt.training.batches import Batches, rows_at_a_time, rows_of
from skpt.training.criteria import row_losses
from skpt.training.monitor import Monitor
from skpt.training.optimizers import PendingOptimizer
from skpt.training.schedules import Schedule
from skpt.training.sources import RowSource
from skpt.training.transfer import Frozen

__all__ = ["TrainingJob", "evaluate", "loss_of_zeros"]


@dataclass(eq=False)
class TrainingJob:
    """A module, its data, and how it is to be trained. Module, optimizer and monitor are changed in place.

    Parameters
    ----------
    module : torch.nn.Module
        The network, with its first weights.
    train : Batches
        The training rows.
    criterion : torch.nn.Module
        The loss, row by row.
    optimizer : torch.optim.Optimizer or PendingOptimizer
        Holds the hyperparameters, and the state where training goes on.
    max_epochs : int
        Number of epochs.
    monitor : Monitor
        Takes note of the losses and says when to stop.
    valid : Batches, default=None
        The validation rows.
    schedule : Schedule, default=None
        How the learning rate changes.
    max_grad_norm : float, default=None
        The largest norm that the gradient of all weights may have.
    frozen : Frozen, default=Frozen()
        What is held still.
    unfreeze_after : int, default=None
        Number of epochs after which that trains too.
    owner : str, default="The model"
        Whose training it is, for messages.
    after_epoch : callable, default=None
        Called without arguments after each epoch, when the monitor has taken note of it.
    check : callable, default=None
        Called before each batch where the job trains alone; raises where it is given up.
    error : Exception, default=None
        Set where training failed.
    """

    module: nn.Module
    train: Batches
    criterion: nn.Module
    optimizer: torch.optim.Optimizer | PendingOptimizer
    max_epochs: int
    monitor: Monitor = field(default_factory=Monitor)
    valid: Batches | None = None
    schedule: Schedule | None = None
    max_grad_norm: float | None = None
    frozen: Frozen = field(default_factory=Frozen)
    unfreeze_after: int | None = None
    owner: str = "The model"
    after_epoch: Callable[[], None] | None = None
    check: Callable[[], None] | None = None
    error: Exception | None = None

    @cached_property
    def weights(self) -> list[nn.Parameter]:
        """All weights of the module, whether they train or not."""
        return list(self.module.parameters())

    @cached_property
    def n_weights(self) -> int:
        """How many numbers they are."""
        return sum(p.numel() for p in self.weights)


@torch.no_grad()
def evaluate(predict: Callable[[Tensor], Tensor], criterion: nn.Module, batches: Batches) -> float:
    """Weighted mean loss over all rows, in the order and batches given.

    Parameters
    ----------
    predict : callable
        Gives the outputs of some rows; in evaluation mode.
    criterion : torch.nn.Module
        The loss.
    batches : Batches
        The rows.

    Returns
    -------
    float
        The mean loss.
    """
    X, y, weight = batches.rows()
    total, n_samples, n_rows = 0.0, len(y), rows_at_a_time(X)
    for start in range(0, n_samples, n_rows):
        part = slice(start, min(start + n_rows, n_samples))
        some = rows_of(X, part)
        some = some.to(y.device) if isinstance(X, RowSource) else some
        losses = row_losses(criterion, predict(some), y[part])
        total += _mean(losses, None if weight is None else weight[part]) * (part.stop - part.start)
    return total / n_samples


def _mean(losses: Tensor, weight: Tensor | None) -> float:
    """Mean of the rows' losses, which may be one number already, by weights of mean one."""
    return float((losses if weight is None or losses.ndim == 0 else losses * weight).mean(dtype=torch.float64))


@torch.no_grad()
def loss_of_zeros(criterion: nn.Module, batches: Batches, output_shape: tuple[int, ...], n_rows: int = 4096) -> float:
    """Weighted mean loss of a model that outputs zero for every row: what training should undercut.

    Parameters
    ----------
    criterion : torch.nn.Module
        The loss.
    batches : Batches
        The rows.
    output_shape : tuple of int
        Shape of what the model gives for a row.
    n_rows : int, default=4096
        How many rows are looked at; the first ones.

    Returns
    -------
    float
        The mean loss.
    """
    _, y, weight = batches.rows()
    y, weight = y[:n_rows], None if weight is None else weight[:n_rows]
    by_row = getattr(criterion, "reduction", None) == "none"
    is_class = type(criterion) in (nn.CrossEntropyLoss, nn.NLLLoss) and y.ndim == 1 and by_row
    if weight is None and by_row:  # most often by far: what is known without asking the criterion
        if type(criterion) is nn.MSELoss and y.shape[1:] == output_shape:
            return float(y.square().mean(dtype=torch.float64))
        if is_class and criterion.weight is None and criterion.ignore_index < 0:  # all classes are as probable
            return math.log(output_shape[0])
    seen = torch.arange(*output_shape, device=y.device) if is_class else y
    losses = row_losses(criterion, torch.zeros(len(seen), *output_shape, device=y.device), seen)
    if is_class:  # all rows of a class have one loss
        losses = losses[y]
    return _mean(losses, weight)
