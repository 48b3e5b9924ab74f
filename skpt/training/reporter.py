"""Who is told of an epoch: the history, the printed table, scikit-learn's callbacks."""

from __future__ import annotations

import copy
import math

from skorch.history import History

from skpt.training.job import TrainingJob
from skpt.training.monitor import Monitor

__all__ = ["EpochReporter", "PendingHistory"]


class Epochs:
    """What a monitor knows, as rows of a history.

    Parameters
    ----------
    monitor : Monitor
        Of one fit.
    n_before : int
        Number of epochs before it.
    """

    def __init__(self, monitor: Monitor, n_before: int):
        self.monitor, self.n_before = monitor, n_before
        self.best: dict[str, float] = {}

    def rows(self, first: int) -> list[dict]:
        """Give the epochs from `first` on; those before it were given."""
        rows = [{"epoch": self.n_before + i + 1} for i in range(first, len(self.monitor.train_loss))]
        for name in ("train_loss", "valid_loss"):
            best = self.best.get(name, math.inf) if first else math.inf
            for row, loss in zip(rows, getattr(self.monitor, name)[first:], strict=False):
                row[name], row[name + "_best"] = loss, loss < best
                best = min(best, loss)
            self.best[name] = best
        for row, seconds in zip(rows, self.monitor.seconds[first:], strict=True):
            row["dur"] = seconds
        return rows


class PendingHistory:
    """A history that lacks its last epochs.

    Parameters
    ----------
    history : skorch.history.History
        What was before.
    epochs : Epochs
        What is to come.
    """

    def __init__(self, history: History, epochs: Epochs):
        self.history, self.epochs = history, epochs

    def write(self) -> History:
        """Give the whole history; it does not matter how often, or by how many threads at once."""
        self.history[self.epochs.n_before :] = [{"batches": [], **row} for row in self.epochs.rows(0)]
        return self.history


class EpochReporter:
    """Tells of the epochs of one fit.

    Parameters
    ----------
    estimator : skorch net
        Whose history and callbacks they are.
    job : TrainingJob
        What is trained.
    X, y : object, default=None
        What the user gave, for callbacks that score.
    """

    def __init__(self, estimator, job: TrainingJob, X=None, y=None):
        self.estimator, self.monitor = estimator, job.monitor
        self.rows = {"X": X, "y": y}
        self.epochs = Epochs(job.monitor, len(estimator.history_))
        self.printers = [callback for name, callback in estimator.callbacks_ if name == "print_log"]
        self.context = None
        if getattr(estimator, "_skl_callbacks", None):
            self.context = estimator._init_callback_context(max_subtasks=job.max_epochs)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody wants to know while training goes on."""
        return bool(self.printers) or self.context is not None

    def begin(self) -> None:
        """Training begins."""
        for printer in self.printers:
            printer.on_train_begin(self.estimator)
        if self.context is not None:
            self.context.call_on_fit_task_begin(estimator=self.estimator)

    def end(self) -> None:
        """Training ended well."""
        if self.context is not None:
            self.context.call_on_fit_task_end(estimator=self.estimator, **self.rows, reconstruction_attributes={})

    def __call__(self) -> None:
        """An epoch ended whose row is not written yet."""
        n_told = len(self.estimator.history_)
        self.write_history()
        if len(self.estimator.history_) == n_told:
            return  # training began again, after a stack failed; this epoch was told of
        for printer in self.printers:
            printer.on_epoch_end(self.estimator)
        self.report()

    def report(self) -> None:
        """Tell scikit-learn's callbacks of one epoch."""
        if self.context is not None:
            epoch = self.context.subcontext(task_name="epoch")
            epoch.call_on_fit_task_begin(estimator=self.estimator)
            epoch.call_on_fit_task_end(estimator=self.estimator, **self.rows, reconstruction_attributes=self._what_predicts)

    def _what_predicts(self) -> dict:
        """Give the network as it is now, for a copy of the estimator."""
        return {"module_": copy.deepcopy(self.estimator.module_).eval()}

    def write_history(self) -> None:
        """Append the epochs that the history does not hold yet."""
        history = self.estimator.history_
        history.extend({"batches": [], **row} for row in self.epochs.rows(len(history) - self.epochs.n_before))

    def leave_history(self) -> None:
        """Let the epochs be appended when somebody asks for the history: a search asks for few."""
        if len(self.estimator.history_) == self.epochs.n_before:
            self.estimator.history_ = PendingHistory(self.estimator.history_, self.epochs)
        else:
            self.write_history()

    def fill_row(self, row: dict) -> None:
        """Write what the monitor knows of the last epoch into its row.

        Parameters
        ----------
        row : dict
            One row of the history.
        """
        row.update(*self.epochs.rows(len(self.monitor.train_loss) - 1))
