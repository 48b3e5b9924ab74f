"""Training by skorch's ladder: any module, criterion, optimizer, callback or iterator, one overridable step below another.

Nothing here knows a network or an estimator. The steps are skorch's (`train_step`, `train_step_single`, `infer`,
`get_loss`, ...), so that a subclass may replace any of them; what surrounds them costs next to nothing per batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from skorch import NeuralNet
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import unpack_data
from skorch.utils import to_device
from torch import Tensor, nn
from torch.optim import LBFGS
from torch.utils.data import DataLoader, Dataset, Sampler

from skpt.training.batches import Batches, LoaderBatches, rows_of
from skpt.training.criteria import mean_loss
from skpt.training.fields import Fields
from skpt.training.job import TrainingJob
from skpt.training.memory import keep_freed_memory, with_room_for_frames
from skpt.training.monitor import are_finite, check_finite
from skpt.training.optimizers import QuickAdam
from skpt.training.randomness import borrowed_global_generator
from skpt.training.sources import RowSource
from skpt.training.threads import threads_for
from skpt.training.transfer import Frozen

__all__ = ["BatchesDataset", "TrainingLadder"]

# The steps that a subclass may replace. A net with a replaced step climbs the ladder; it cannot be stacked.
RUNGS = ("train_step", "train_step_single", "validation_step", "run_single_epoch", "infer", "get_loss", "get_iterator")


class BatchesDataset(Dataset):
    """Encoded rows as a torch Dataset, for a DataLoader of the user's.

    Parameters
    ----------
    batches : Batches
        The rows.
    """

    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches.y)

    def __getitem__(self, i: int):
        X, y, weight = self.batches.rows()
        return _row_of(X, i), y[i] if weight is None else (y[i], weight[i])

    def __getitems__(self, rows: list[int]) -> list:
        X, y, weight = self.batches.rows()
        if not isinstance(X, RowSource):
            return [self[i] for i in rows]
        part = X[np.asarray(rows)]  # all at once, as its Dataset may decode them by several threads
        return [(part[j], y[i] if weight is None else (y[i], weight[i])) for j, i in enumerate(rows)]


class OrderOfBatches(Sampler):
    """The order of rows in memory, drawn anew in each epoch. Torch's RandomSampler draws more numbers than its order needs.

    Parameters
    ----------
    batches : Batches
        The rows.
    batch_size : int or None
        Rows in a batch of the DataLoader.
    """

    def __init__(self, batches: Batches, batch_size: int | None):
        self.batches, self.batch_size = batches, batch_size

    def __len__(self) -> int:
        return len(self.batches.y)

    def __iter__(self):
        order = self.batches.draw_order(self.batch_size)
        yield from range(len(self)) if order is None else order.tolist()


class _Checked:
    """Batches, with a look before each at whether to go on."""

    def __init__(self, batches, check: Callable[[], None]):
        self.batches, self.check = batches, check

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            self.check()
            yield batch

    def __getattr__(self, name: str):
        return getattr(self.batches, name)


def _row_of(X, i: int):
    if isinstance(X, Fields):
        return {name: _row_of(part, i) for name, part in X.items()}
    return torch.from_numpy(X[[i]].toarray()[0]) if issparse(X) else X[i]


class TrainingLadder(NeuralNet):
    """A skorch net whose epochs are run over batches in memory, with weights, and watched for divergence."""

    frozen_ = Frozen()  # what is held still while it trains
    quick_adam_: QuickAdam | None = None  # while it trains, where that may stand for the optimizer

    def replaced_rungs(self) -> list[str]:
        """Name the steps that a subclass replaced."""
        return [name for name in RUNGS if getattr(type(self), name) is not getattr(TrainingLadder, name)]

    def climb(self, job: TrainingJob, X, y, datasets: dict[str, Any], reporter) -> None:
        """Train.

        Parameters
        ----------
        job : TrainingJob
            What is to be trained.
        X, y : object
            What the user gave, for callbacks.
        datasets : dict
            ``dataset_train`` and ``dataset_valid``, for callbacks.
        reporter : object
            With `fill_row(row)`, which writes an epoch into the history, and `report()`.
        """
        context = nullcontext()
        if not getattr(self.module_, "draws_from_generator", False):
            context = borrowed_global_generator(self.streams_.noise)
        with threads_for(job), context:
            self.notify("on_train_begin", X=X, y=y)
            try:
                self._run_epochs(job, datasets, reporter)
            finally:
                vars(self).pop("quick_adam_", None)
                self.notify("on_train_end", X=X, y=y)

    @with_room_for_frames
    def _run_epochs(self, job: TrainingJob, datasets: dict[str, Any], reporter) -> None:
        train = self.get_iterator(job.train, training=True)
        valid = None if job.valid is None else self.get_iterator(job.valid, training=False)
        if job.check is not None:
            train = _Checked(train, job.check)
        kept, best, watched = self._copy_weights(), None, self._is_watched_by_users()
        for epoch in range(job.max_epochs):
            if epoch == job.unfreeze_after:
                self._hold(Frozen())
                self._set_training(False)  # the next step puts all layers into training mode
            started = time.perf_counter()
            self.notify("on_epoch_begin", **datasets)
            quick = not watched and QuickAdam.suits(self.optimizer_)  # whoever is told may do anything to the optimizer
            vars(self)["quick_adam_"] = QuickAdam(self.optimizer_) if quick else None
            place = (len(job.monitor.train_loss) + 1, self.optimizer_.param_groups[0]["lr"], job.owner)
            try:
                train_loss = self._mean_epoch_loss(train, True, "train", self.train_step, place)
                valid_loss = None
                if valid is not None:
                    valid_loss = self._mean_epoch_loss(valid, False, "valid", self.validation_step, place)
                if not are_finite(p.detach() for p in self.module_.parameters()):
                    check_finite([float("nan")], *place)
            except FloatingPointError:
                self._put_weights(kept)
                self.optimizer_.state.clear()  # its moments are not finite: training goes on without
                raise
            is_best, stop = job.monitor.update(train_loss, valid_loss, time.perf_counter() - started)
            kept = self._copy_weights(kept)
            if is_best and job.monitor.early_stopping:
                best = self._copy_weights(best)
            reporter.fill_row(self.history_[-1])
            stop = self._end_epoch(datasets) or stop
            reporter.report()
            if stop:
                break
        if best is not None:
            self._put_weights(best)

    def _hold(self, frozen: Frozen) -> None:
        """Hold what is to be frozen still, and nothing else."""
        if frozen == self.frozen_ and not frozen:
            return
        optimizer = vars(self)["optimizer_"]  # it may not be built yet
        if frozen != self.frozen_ and isinstance(optimizer, LBFGS):
            optimizer.state.clear()  # what it knows of the curvature is about other weights
        self.frozen_.release(self.module_)
        frozen.hold(self.module_)
        self.frozen_ = frozen

    def _mean_epoch_loss(self, iterator, training: bool, prefix: str, step_fn, place: tuple) -> float:
        self.run_single_epoch(iterator, training=training, prefix=prefix, step_fn=step_fn)
        losses, n_rows = self.epoch_losses_
        check_finite(losses, *place)
        return float(np.average(losses, weights=n_rows))

    def _end_epoch(self, datasets: dict[str, Any]) -> bool:
        """Notify callbacks; say whether one of them asks to stop, as skorch's do by raising KeyboardInterrupt."""
        try:
            self.notify("on_epoch_end", **datasets)
        except KeyboardInterrupt as stop:
            innermost = stop.__traceback__
            while innermost.tb_next is not None:
                innermost = innermost.tb_next
            if not innermost.tb_frame.f_code.co_name.startswith("on_"):
                raise  # the user's own Ctrl-C
            return True
        return False

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Run all batches once.

        Parameters
        ----------
        iterator : iterable
            Batches (X, y) or (X, (y, weight)).
        training : bool
            Whether weights are changed.
        prefix : {"train", "valid"}
            What the losses are called in the history.
        step_fn : callable
            What is done with a batch.
        **fit_params
            Passed on to `step_fn`.
        """
        # Callbacks of the user's may read the history's batches, as skorch's Checkpoint does.
        watched = bool(self.callbacks) or any(_watches_batches(callback) for _, callback in self.callbacks_)
        losses, n_rows = [], []
        for batch in iterator:
            if watched:
                self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            losses.append(step["loss"].detach())
            n_rows.append(len(step["y_pred"]))
            if watched:
                self.history_.record_batch(prefix + "_loss", losses[-1].item())
                self.history_.record_batch(prefix + "_batch_size", n_rows[-1])
                self.notify("on_batch_end", batch=batch, training=training, **step)
        self.history_.record(prefix + "_batch_count", len(losses))
        self.epoch_losses_ = torch.stack(losses).tolist(), n_rows

    def _set_training(self, training: bool = True) -> None:
        for module in (self.module_, self.criterion_):
            if module.training != training:
                module.train(training)
                if training and module is self.module_:
                    self.frozen_.keep_statistics(module)

    def train_step(self, batch, **fit_params):
        """Make one optimization step.

        Parameters
        ----------
        batch : tuple
            (X, y) or (X, (y, weight)).
        **fit_params
            Passed on to the module.

        Returns
        -------
        dict
            ``loss`` and ``y_pred``, of the first evaluation where the optimizer makes several.
        """
        if any(type(callback).on_grad_computed is not Callback.on_grad_computed for _, callback in self.callbacks_):
            return super().train_step(batch, **fit_params)
        quick = self.quick_adam_
        if quick is not None and quick.optimizer is self.optimizer_:
            quick.zero_grad()
            with torch.enable_grad():
                step = self.train_step_single(batch, **fit_params)
            quick.step()
            return step
        steps = []

        def closure() -> Tensor:
            self.optimizer_.zero_grad()
            step = self.train_step_single(batch, **fit_params)
            steps.append(step)
            return step["loss"]

        self.optimizer_.step(closure)
        return steps[0]

    def train_step_single(self, batch, **fit_params):
        """Compute outputs, loss and gradients of one batch.

        Parameters
        ----------
        batch : tuple
            (X, y) or (X, (y, weight)).
        **fit_params
            Passed on to the module.

        Returns
        -------
        dict
            ``loss`` and ``y_pred``.
        """
        self._set_training(True)
        Xi, yi = unpack_data(batch)
        if isinstance(yi, (tuple, list)) and getattr(self.module_, "takes_sample_weight", False):
            fit_params = {**fit_params, "sample_weight": self._to_device(yi[1])}
        if getattr(self.module_, "takes_target", False):
            target = yi[0] if isinstance(yi, (tuple, list)) else yi
            fit_params = {**fit_params, "target": self._to_device(target)}
        Xi = self._augmented(self._to_device(Xi))
        y_pred = self.infer(Xi, **fit_params)
        loss = self.get_loss(y_pred, yi, X=Xi, training=True)
        loss.backward()
        if self.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self.module_.parameters(), self.max_grad_norm)
        return {"loss": loss, "y_pred": y_pred}

    def infer(self, x, **fit_params):
        """Give the network's outputs for one batch.

        Parameters
        ----------
        x : Tensor
            Inputs.
        **fit_params
            Passed on to the module.

        Returns
        -------
        Tensor of shape (n_samples, n_outputs)
            The outputs.
        """
        return self.module_(self._encode_batch(self._to_device(x)), **fit_params)

    def _is_watched_by_users(self) -> bool:
        """Whether somebody of the user's is told of batches, or of epochs by a callback."""
        own = any(getattr(type(self), name) is not getattr(NeuralNet, name) for name in _OF_BATCHES)
        others = (each for _, each in self.callbacks_ if not isinstance(each, LRScheduler))
        return own or bool(self.callbacks) or any(map(_watches_batches, others))

    def _to_device(self, batch):
        return batch if isinstance(batch, Tensor) and batch.device == self.device_ else to_device(batch, self.device_)

    def _augmented(self, x):
        """Change a batch at random before it is trained on."""
        return x

    def _encode_batch(self, x):
        """Do what is left of encoding X when a batch of it is on the device."""
        return x

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Give the (weighted) mean loss of one batch.

        Parameters
        ----------
        y_pred : Tensor
            The network's outputs.
        y_true : Tensor or (Tensor, Tensor)
            Encoded targets, with weights of mean one or without.
        X : Tensor, default=None
            The inputs; unused.
        training : bool, default=False
            Whether the network is trained; unused.

        Returns
        -------
        Tensor
            A scalar.
        """
        y_true, weight = y_true if isinstance(y_true, (tuple, list)) else (y_true, None)
        weight = weight if weight is None else self._to_device(weight)
        return mean_loss(self.criterion_, y_pred, self._to_device(y_true), weight)

    def get_iterator(self, dataset, training=False):
        """Give an iterable over batches.

        Parameters
        ----------
        dataset : Batches or torch Dataset
            The rows.
        training : bool, default=False
            Whether `iterator_train` is asked for, or `iterator_valid`.

        Returns
        -------
        iterable
            Batches in memory by default; what the parameter `iterator_train` (or `iterator_valid`) gives where it is set.
            The batches of a DataLoader that was given as X are used as they are.
        """
        prefix = "iterator_train" if training else "iterator_valid"
        iterator = getattr(self, prefix)
        if iterator is None or isinstance(dataset, LoaderBatches):
            return dataset
        arguments = self.get_params_for(prefix)
        if isinstance(dataset, Batches):
            arguments.setdefault("batch_size", dataset.batch_size)
            if iterator is DataLoader and not {"sampler", "batch_sampler", "shuffle"} & arguments.keys():
                # The loader draws seeds for its workers: of a copy, so that the order is that of rows in memory.
                seeds = self.streams_.order.clone_state()
                arguments.update(sampler=OrderOfBatches(dataset, arguments["batch_size"]), generator=seeds)
            dataset = BatchesDataset(dataset)
        return iterator(dataset, **arguments)

    def outputs_of(self, X, n_rows: int):
        """Give the network's outputs some rows at a time, in the mode that it is in.

        Parameters
        ----------
        X : Tensor, CSR matrix, RowSource or Fields
            Encoded inputs.
        n_rows : int
            Rows at a time.

        Yields
        ------
        Tensor
            Outputs.
        """
        keep_freed_memory()
        n_samples = X.shape[0]
        for start in range(0, n_samples, n_rows):
            yield self.infer(rows_of(X, slice(start, min(start + n_rows, n_samples))))

    def _copy_weights(self, into: list[Tensor] | None = None) -> list[Tensor]:
        state = self._changing()
        if into is None:
            return [t.clone() for t in state]
        for kept, t in zip(into, state, strict=True):
            kept.copy_(t)
        return into

    @torch.no_grad()
    def _put_weights(self, state: list[Tensor]) -> None:
        for t, kept in zip(self._changing(), state, strict=True):
            t.copy_(kept)

    def _changing(self) -> list[Tensor]:
        """All tensors of the network, and of a criterion that learns."""
        return [*self.module_.state_dict().values(), *self.criterion_.state_dict().values()]


_OF_BATCHES = ("on_batch_begin", "on_batch_end")


def _watches_batches(callback) -> bool:
    return any(getattr(type(callback), name, None) is not getattr(Callback, name) for name in _OF_BATCHES)
