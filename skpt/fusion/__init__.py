"""Many fits at once: jobs that do the same arithmetic train as one stack.

Importing this package registers the joblib backend "skpt"::

    with joblib.parallel_config("skpt"):
        GridSearchCV(MLPRegressor(), grid).fit(X, y)
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from skpt.fusion.backend import FusedBackend
from skpt.fusion.contexts import is_within_context_of_torch
from skpt.fusion.rendezvous import Rendezvous, current_rendezvous
from skpt.fusion.report import FusionReport, last_report
from skpt.fusion.stack import train_stack, why_not_stacked
from skpt.training.job import TrainingJob
from skpt.training.threads import threads_for

__all__ = ["FusedBackend", "FusionReport", "last_report", "note_alone", "train", "why_not_stacked"]

_log = logging.getLogger("skpt")


def train(job: TrainingJob) -> None:
    """Train a job that can be stacked: with others where the running thread is a task of a fused call, alone otherwise.

    Parameters
    ----------
    job : TrainingJob
        Changed in place. A failure is left in ``job.error``.
    """
    rendezvous = current_rendezvous()
    if rendezvous is not None:
        reason = _why_at_once(rendezvous)
        if reason is not None:
            _log.debug("%s is not stacked with others: %s", job.owner, reason)
            rendezvous.note_alone(reason)
            with threads_for(job):
                train_stack([job], is_cancelled=lambda: rendezvous.cancelled)
            rendezvous.check()
        else:
            rendezvous.train(job)
        return
    with threads_for(job):
        train_stack([job])


def _why_at_once(rendezvous: Rendezvous) -> str | None:
    """Say why a fit cannot wait for others and train in another thread."""
    if is_within_context_of_torch():
        return "a context of torch's"
    return "a context of warnings" if rendezvous.warnings.differ_now() else None


def note_alone(reason: str) -> Callable[[], None] | None:
    """Take note of a fit that trains the ordinary way, for the report of a fused call.

    Parameters
    ----------
    reason : str
        Why it is not stacked.

    Returns
    -------
    callable or None
        To be called now and then; raises where the fused call was given up. None outside of such a call.
    """
    rendezvous = current_rendezvous()
    if rendezvous is None:
        return None
    rendezvous.note_alone(reason)
    return rendezvous.check
