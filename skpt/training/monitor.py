"""What is watched while a model trains: losses, the best epoch, early stopping, divergence, convergence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from skpt.exceptions import DivergedError, NotConvergedWarning

__all__ = ["Monitor", "are_finite", "check_finite", "warn_if_still_falling", "warn_if_useless"]

# A useful model's loss is below that of zeros. Ten times as much is no matter of a few epochs, dropout or luck.
USELESS = 10.0
_CALLER_OF_FIT = 6  # frames from the functions here to the user's line


class Monitor:
    """The losses of one model, epoch by epoch, and the decisions that follow from them.

    Parameters
    ----------
    early_stopping : bool, default=False
        Whether training ends when the validation loss no longer falls.
    n_iter_no_change : int, default=10
        Number of epochs without an improvement of at least `tol` after which training ends.
    tol : float, default=1e-4
        The improvement that counts, in the criterion's unit.

    Attributes
    ----------
    train_loss, valid_loss : list of float
        Mean losses of each epoch. `valid_loss` stays empty without a validation set.
    best_epoch : int
        The epoch of the lowest validation loss (training loss without a validation set), counted from 1.
    """

    def __init__(self, early_stopping: bool = False, n_iter_no_change: int = 10, tol: float = 1e-4):
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.train_loss: list[float] = []
        self.valid_loss: list[float] = []
        self.seconds: list[float] = []
        self.best_epoch = 0
        self.best_loss = math.inf
        self._reference = math.inf
        self._n_stale = 0

    def extend(self, train_losses: Sequence[float], seconds: float) -> None:
        """Take note of several epochs at once, where nothing is to be decided after each.

        Parameters
        ----------
        train_losses : sequence of float
            Mean training loss of each epoch.
        seconds : float
            How long one epoch took.
        """
        if not train_losses:
            return
        lowest = min(train_losses)
        if lowest < self.best_loss:
            self.best_loss, self.best_epoch = lowest, len(self.train_loss) + train_losses.index(lowest) + 1
        self.train_loss += train_losses
        self.seconds += [seconds] * len(train_losses)

    def update(self, train_loss: float, valid_loss: float | None, seconds: float = 0.0) -> tuple[bool, bool]:
        """Take note of one epoch.

        Parameters
        ----------
        train_loss : float
            Mean training loss of the epoch.
        valid_loss : float or None
            Loss on the validation set after the epoch.
        seconds : float, default=0.0
            How long the epoch took.

        Returns
        -------
        is_best : bool
            Whether this was the best epoch so far.
        stop : bool
            Whether training should end.
        """
        self.train_loss.append(train_loss)
        self.seconds.append(seconds)
        if valid_loss is not None:
            self.valid_loss.append(valid_loss)
        loss = train_loss if valid_loss is None else valid_loss
        is_best = loss < self.best_loss
        if is_best:
            self.best_loss, self.best_epoch = loss, len(self.train_loss)
        if loss < self._reference - self.tol:
            self._reference, self._n_stale = loss, 0
        else:
            self._n_stale += 1
        return is_best, self.early_stopping and self._n_stale >= self.n_iter_no_change


def check_finite(batch_losses: Sequence[float], epoch: int, lr: float, owner: str = "The model") -> None:
    """Raise if a loss of an epoch is NaN or infinite.

    Parameters
    ----------
    batch_losses : sequence of float
        Mean loss of each batch, in order.
    epoch : int
        The epoch, counted from 1.
    lr : float
        The learning rate in force.
    owner : str, default="The model"
        Whose training it is, for the message.

    Raises
    ------
    DivergedError
        It names the epoch, the batch, the learning rate and a smaller one to try.
    """
    for batch, loss in enumerate(batch_losses, start=1):
        if not math.isfinite(loss):
            raise DivergedError(
                f"{owner} diverged: the training loss became {loss} in epoch {epoch}, batch {batch}, with lr={lr:g}. "
                f"Try a smaller learning rate, for example lr={_smaller(lr):g}, scale X, or set max_grad_norm=1.0. "
                "The weights of the last finite epoch were kept.",
                epoch,
                batch,
                lr,
            )


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Say whether all numbers of some tensors are finite.

    Sums are looked at first, which are quicker: those of finite numbers are finite, unless the numbers are enormous.
    """
    return all(bool(t.sum().isfinite()) or bool(t.isfinite().all()) for t in tensors)


def _smaller(lr: float) -> float:
    """A learning rate to try where `lr` was too large: a tenth, and nothing that never works."""
    return min(lr / 10, 0.1)


def warn_if_useless(loss: float, loss_of_zeros: float, lr: float, owner: str) -> bool:
    """Warn if the training loss ended far above that of a model that outputs zero for every row.

    A learning rate that is far too large need not end in NaN: the loss of a classifier grows with its weights only, and
    Adam's steps have a bounded length.

    Parameters
    ----------
    loss : float
        Mean training loss of the epoch whose weights are kept.
    loss_of_zeros : float
        Mean loss of zeros on the same rows. Unused if not positive.
    lr : float
        The first learning rate.
    owner : str
        Whose training it is, for the message.

    Returns
    -------
    bool
        Whether there was a warning.
    """
    is_useless = 0 < USELESS * loss_of_zeros < loss
    if is_useless:
        warnings.warn(
            f"{owner} fits badly: with lr={lr:g} the training loss ended at {loss:g}, and a model that outputs zero for "
            f"every row has {loss_of_zeros:g}. Try a smaller learning rate, for example lr={_smaller(lr):g}; if it was small "
            "already, raise max_epochs or scale X.",
            NotConvergedWarning,
            stacklevel=_CALLER_OF_FIT,
        )
    return is_useless


def warn_if_still_falling(losses: Sequence[float], lr: float, owner: str) -> None:
    """Warn if the loss fell to the end about as fast as on the whole: in the last third of the epochs and in the last tenth.

    An exponential approach to the minimum does so as long as training lasted less than about half its time constant. A
    fall within three standard errors of the thirds' means is noise, such as dropout's, and no reason to warn.
    """
    n_epochs = len(losses)
    if n_epochs < 20:
        return
    third, tenth = n_epochs // 3, n_epochs // 10
    average_speed = (losses[0] - losses[-1]) / (n_epochs - 1)
    last_speed = (losses[-1 - tenth] - losses[-1]) / tenth
    if not last_speed > 0.8 * average_speed:  # most often, and known without the rest
        return
    losses = np.asarray(losses)
    first, middle, last = losses[-3 * third :].reshape(3, third).mean(axis=1)  # one or two at the start are left out
    noise = math.sqrt(np.square(np.diff(losses)).sum() / (2 * (n_epochs - 1)))
    standard_error = noise * math.sqrt(2 / third)
    if middle - last > max(0.85 * (first - middle), 3 * standard_error):
        warnings.warn(
            f"{owner} has not converged: after {n_epochs} epochs with lr={lr:g} the training loss still falls about as fast "
            "as at the start. Raise lr or max_epochs.",
            NotConvergedWarning,
            stacklevel=_CALLER_OF_FIT,
        )
