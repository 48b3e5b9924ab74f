r"""Gradient descent on the squared error of linear models, without computing gradients.

For a linear map and the squared error, the gradient of a batch is a linear function of the weights. With the rows
:math:`z_n` (the features, and a one for the intercept), the targets :math:`t_n` and the rows' shares :math:`s_n` in the
batch's loss, the gradient is :math:`H\theta - c` with

.. math:: H = \tfrac{2}{O} \sum_n s_n z_n z_n^\top, \qquad c = \tfrac{2}{O} \sum_n s_n z_n t_n^\top,

which the batch alone decides, and a step of SGD at the rate :math:`\eta` with the decay :math:`\lambda` is the affine map

.. math:: \theta \leftarrow (I - \eta (H + \lambda I))\,\theta + \eta c.

So the maps of many steps are computed at once, in a few operations, then only ``theta = A @ theta + k`` is left of a
step, and the losses of all steps follow at once from the weights before each. Momentum makes the state twice as long and
the map no less affine. A small step costs 1 to 4 us so, and some 50 us where its layers, loss, gradients and optimizer are
called one by one: at such sizes calls cost, and not arithmetic.

All this is done in double precision. What is rounded to the network's single precision is what may be given away: weights and
momenta at the end of every epoch, so that it does not matter after which ones somebody looks, and each row's loss, which
overflows where it would overflow otherwise.

The arithmetic of a step grows, by the product of the features with each other for every row: `descends` says when that
pays. It asks nothing but what the network, its optimizer and its batches are, so a model goes the same way alone and in a
stack, in one fit and in several calls, with a validation set and without.

Shapes in comments: T steps, P batches that differ, M models, N rows of a batch, D features and intercept, O outputs, S numbers
of a state per output (D, or 2 D with momentum).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn, optim

from skpt.modules.layers import Linear
from skpt.training.job import TrainingJob
from skpt.training.optimizers import optimizer_class
from skpt.training.sources import RowSource

__all__ = ["LinearDescent", "descends"]

# Multiplications of a model's step from which its arithmetic would cost more than the calls that are spared.
WORTH_CALLS = 2048


def descends(job: TrainingJob) -> bool:
    """Say whether a job that can be stacked is trained by the maps of its steps.

    Parameters
    ----------
    job : TrainingJob
        One for which `why_not_stacked` gave None.

    Returns
    -------
    bool
        True for a linear model of few features in memory with small batches, the squared error and SGD.
    """
    if isinstance(job.train.X, RowSource):
        return False  # its rows are not there at once
    (first, *others) = job.module
    if others or type(first) is not Linear or type(job.criterion) is not nn.MSELoss or job.train.y.ndim != 2:
        return False
    if optimizer_class(job.optimizer) is not optim.SGD or job.max_grad_norm is not None or job.train.y.device.type != "cpu":
        return False
    if len(job.optimizer.param_groups) > 1 or not all(p.requires_grad for p in first.parameters()):
        return False
    n_rows, n_outputs = min(job.train.batch_size, len(job.train.y)), first.out_features
    length = first.in_features + (first.bias is not None)
    state = length * (2 if job.optimizer.param_groups[0]["momentum"] else 1)
    gram = n_rows * length**2 if _is_shuffled(job) else 0
    return gram + n_outputs * (n_rows * length + state**2) <= WORTH_CALLS


def _is_shuffled(job: TrainingJob) -> bool:
    return len(job.train) > 1 and job.train.generator is not None


class LinearDescent:
    """The steps of a stack of linear models.

    Parameters
    ----------
    X : Tensor of shape (n_rows, n_features)
        All rows of all models.
    y : Tensor of shape (n_rows, O)
        Their targets.
    groups : list of dict
        The one parameter group of each model's optimizer.
    has_bias : bool
        Whether there is an intercept.
    """

    def __init__(self, X: Tensor, y: Tensor, groups: list[dict], has_bias: bool):
        self.rows = torch.cat([X, X.new_ones(len(X), 1), y] if has_bias else [X, y], 1).double()  # features, one, targets
        self.length, self.n_outputs = X.shape[1] + has_bias, y.shape[1]
        self.decay = torch.tensor([group["weight_decay"] for group in groups], dtype=torch.float64)
        self.settings = groups[0]
        self._batches: tuple[Tensor, ...] = ()

    @property
    def has_batches(self) -> bool:
        """Whether `fetch` was called."""
        return bool(self._batches)

    def fetch(self, index: Tensor, share: Tensor) -> None:
        """Read the batches that the next steps go through.

        Parameters
        ----------
        index : Tensor of shape (P, M, N)
            The rows of each batch.
        share : Tensor of shape (P, M, N)
            Weight of each row in its batch's loss; zero for a row that only fills up.
        """
        n_batches, n_models, n_rows = index.shape
        rows = self.rows.index_select(0, index.reshape(-1)).view(n_batches * n_models, n_rows, -1)
        share = share.reshape(n_batches * n_models, n_rows, 1)
        weighted = rows[:, :, : self.length] * (share * (2.0 / self.n_outputs))
        gradient = torch.bmm(weighted.transpose(1, 2), rows).view(n_batches, n_models, self.length, -1)  # H and c
        gradient.diagonal(dim1=2, dim2=3).add_(self.decay[:, None])
        self._batches = rows, share, gradient

    def run(
        self, theta: Tensor, momenta: Tensor | None, lrs: Tensor, n_epochs: int, n_steps: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Make the steps of some epochs, through all batches once or several times.

        Parameters
        ----------
        theta : Tensor of shape (M, D, O)
            The weights, the intercept last.
        momenta : Tensor of shape (M, D, O) or None
            The momentum buffer. None before the first step of all, and without momentum.
        lrs : Tensor of shape (M,) or (T, M)
            The learning rates, where they change those of each step.
        n_epochs : int
            How many epochs.
        n_steps : int
            How many steps, in all epochs together.

        Returns
        -------
        ends : Tensor of shape (n_epochs, M, D, O)
            The weights after each epoch, as single precision has them.
        momenta : Tensor of shape (n_epochs, M, D, O) or None
            The momentum buffer after each epoch.
        losses : Tensor of shape (T, M)
            The mean loss of each step's batch before the step, in single precision.
        """
        gradient = self._batches[2]
        if lrs.ndim == 2:
            gradient = gradient.repeat(n_steps // len(gradient), 1, 1, 1)
        lrs = lrs[..., None, None]
        momentum, first = self.settings["momentum"], None
        if not momentum:
            maps = (lrs * gradient).numpy()
            np.subtract(np.eye(self.length), maps[..., : self.length], out=maps[..., : self.length])
        else:
            maps = self._maps_with_momentum(gradient, lrs, momentum, 1.0 - self.settings["dampening"])
            if momenta is None:  # torch's buffer starts as the gradient, undampened
                (first,) = self._maps_with_momentum(gradient[:1], lrs[:1] if lrs.ndim == 4 else lrs, 0.0, 1.0)
        n_models, size, _ = maps.shape[1:]
        path = np.zeros((n_steps + 1, n_models, size, self.n_outputs))
        path[0, :, : self.length] = theta.numpy()
        if momenta is not None:
            path[0, :, self.length :] = momenta.numpy()
        with np.errstate(all="ignore"):  # a model that diverges says so by its losses
            _walk(path, maps, first, n_steps // n_epochs)
        states = torch.from_numpy(path)
        losses = self._losses(states[:-1, :, : self.length])
        ends = states[n_steps // n_epochs :: n_steps // n_epochs]
        return ends[:, :, : self.length], ends[:, :, self.length :] if momentum else None, losses

    def _maps_with_momentum(self, gradient: Tensor, lrs: Tensor, kept: float, added: float) -> np.ndarray:
        """A step of the buffer, kept * buffer + added * gradient, and one against it, or ahead of it for Nesterov's variant."""
        length, eye = self.length, torch.eye(self.length, dtype=gradient.dtype)
        of_buffer, of_gradient = (self.settings["momentum"], 1.0) if self.settings["nesterov"] else (1.0, 0.0)
        of_gradient += of_buffer * added
        H, c = gradient[..., :length], gradient[..., length:]
        maps = gradient.new_empty(*gradient.shape[:2], 2 * length, 2 * length + self.n_outputs)
        maps[..., :length, :length] = eye - lrs * of_gradient * H
        maps[..., :length, length : 2 * length] = -lrs * of_buffer * kept * eye
        maps[..., :length, 2 * length :] = lrs * of_gradient * c
        maps[..., length:, :length] = added * H
        maps[..., length:, length : 2 * length] = kept * eye
        maps[..., length:, 2 * length :] = -added * c
        return maps.numpy()

    def _losses(self, theta: Tensor) -> Tensor:
        """Mean loss of each step's batch at the weights (T, M, D, O) before the step."""
        rows, share, gradient = self._batches
        n_batches, n_models = gradient.shape[:2]
        n_repeats, n_rows = len(theta) // n_batches, rows.shape[1]
        theta = theta.reshape(n_repeats, n_batches * n_models, self.length, self.n_outputs).permute(1, 2, 0, 3)
        outputs = torch.bmm(rows[:, :, : self.length], theta.reshape(len(rows), self.length, -1))
        errors = outputs.view(len(rows), n_rows, n_repeats, -1) - rows[:, :, None, self.length :]
        by_row = errors.to(torch.float32).square_().mean(3, dtype=torch.float64)  # (P M, N, R)
        losses = (by_row * share).sum(1).to(torch.float32)
        return losses.view(n_batches, n_models, n_repeats).permute(2, 0, 1).reshape(-1, n_models)


def _walk(path: np.ndarray, maps: np.ndarray, first: np.ndarray | None, n_batches: int) -> None:
    """Fill in the states (T + 1, M, S, O) after the first; each map (M, S, S + O) is the factor, and what is added."""
    size = maps.shape[2]
    steps = list(zip(maps[..., :size], maps[..., size:], strict=True)) * ((len(path) - 1) // len(maps))
    if first is not None:
        steps[0] = first[..., :size], first[..., size:]
    matmul, add, copyto, rounded = np.matmul, np.add, np.copyto, np.empty(path.shape[1:], np.float32)
    for i, ((factor, offset), before, after) in enumerate(zip(steps, path[:-1], path[1:], strict=True), start=1):
        add(matmul(factor, before, out=after), offset, out=after)
        if i % n_batches == 0:
            copyto(rounded, after, casting="same_kind")
            copyto(after, rounded)
