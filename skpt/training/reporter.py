"""Who is told of an epoch: the history, the printed table, scikit-learn's callbacks."""

from __future__ import annotations

import math

from skpt.training.job import TrainingJob

__all__ = ["EpochReporter"]


class EpochReporter:
    """Tells of the epochs of one fit.

    Parameters
    ----------
    estimator : skorch net
        Whose history and callbacks they are.
    job : TrainingJob
        What is trained.
    """

    def __init__(self, estimator, job: TrainingJob):
        self.estimator, self.monitor = estimator, job.monitor
        self.n_before = len(estimator.history_)
        self.printers = [callback for name, callback in estimator.callbacks_ if name == "print_log"]
        self.context = None
        if getattr(estimator, "_skl_callbacks", None):
            self.context = estimator._init_callback_context(max_subtasks=job.max_epochs)
        self.best = {"train_loss": math.inf, "valid_loss": math.inf}

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
            self.context.call_on_fit_task_end(estimator=self.estimator)

    def __call__(self) -> None:
        """An epoch ended whose row is not written yet."""
        self.write_history()
        for printer in self.printers:
            printer.on_epoch_end(self.estimator)
        self.report()

    def report(self) -> None:
        """Tell scikit-learn's callbacks of one epoch."""
        if self.context is not None:
            epoch = self.context.subcontext(task_name="epoch")
            epoch.call_on_fit_task_begin(estimator=self.estimator)
            epoch.call_on_fit_task_end(estimator=self.estimator)

    def write_history(self) -> None:
        """Append the epochs that the history does not hold yet."""
        history = self.estimator.history_
        for i in range(len(history) - self.n_before, len(self.monitor.train_loss)):
            history.append({"batches": []})
            self.fill_row(history[-1], i)

    def fill_row(self, row: dict, i: int = -1) -> None:
        """Write what the monitor knows of an epoch into its row.

        Parameters
        ----------
        row : dict
            One row of the history.
        i : int, default=-1
            Which epoch.
        """
        i %= len(self.monitor.train_loss)
        row["epoch"] = self.n_before + i + 1
        for name in ("train_loss", "valid_loss"):
            losses = getattr(self.monitor, name)
            if losses:
                row[name], row[name + "_best"] = losses[i], losses[i] < self.best[name]
                self.best[name] = min(self.best[name], losses[i])
        row["dur"] = self.monitor.seconds[i]
