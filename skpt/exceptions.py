"""Every public error and warning of skpt.

::

    SkptError
    ├── InvalidInputError (ValueError)                 X, y, weights or a file's content cannot be used
    ├── UnknownParameterError (TypeError, ValueError)  no parameter has that name; the nearest is named
    ├── DivergedError (FloatingPointError)             the loss turned NaN or infinite while training
    └── NotSizedError (NotFittedError)                 the network cannot be built before data were seen
    SkptWarning (UserWarning)
    └── NotConvergedWarning (ConvergenceWarning)       training ended while the loss was still falling fast

Each also inherits the builtin or scikit-learn class that callers already catch.
"""

from difflib import get_close_matches

from sklearn.exceptions import ConvergenceWarning, NotFittedError

__all__ = [
    "DivergedError",
    "InvalidInputError",
    "NotConvergedWarning",
    "NotSizedError",
    "SkptError",
    "SkptWarning",
    "UnknownParameterError",
    "nearest_name",
]


class SkptError(Exception):
    """Base of every error that skpt raises on purpose."""


class InvalidInputError(SkptError, ValueError):
    """Data, weights or a file's content cannot be used; nothing was changed."""


class UnknownParameterError(SkptError, TypeError, ValueError):
    """An estimator, optimizer, criterion or schedule has no parameter of that name."""


class DivergedError(SkptError, FloatingPointError):
    """The training loss turned NaN or infinite; the last finite weights are kept.

    Attributes
    ----------
    epoch, batch : int
        Where it happened, both counted from 1.
    lr : float
        The learning rate in force.
    """

    def __init__(self, message: str, epoch: int = 0, batch: int = 0, lr: float = float("nan")):
        super().__init__(message, epoch, batch, lr)
        self.epoch, self.batch, self.lr = epoch, batch, lr

    def __str__(self) -> str:
        return self.args[0]


class NotSizedError(SkptError, NotFittedError):
    """The network has no sizes yet: it takes them from the data that `fit` is given."""


class SkptWarning(UserWarning):
    """Base of every warning that skpt gives on purpose."""


class NotConvergedWarning(SkptWarning, ConvergenceWarning):
    """Training ended while the loss was still falling about as fast as at the start."""


def nearest_name(name: str, known, *, listed: bool = False) -> str:
    """Say which of `known` was probably meant by `name`, as the end of an error message.

    Parameters
    ----------
    name : str
        What was given.
    known : iterable of str
        What exists.
    listed : bool, default=False
        Whether the message lists them already.

    Returns
    -------
    str
        ``" Did you mean 'x'?"``, or the list of what exists where nothing is near.
    """
    known = sorted(known)
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean {near[0]!r}?"
    return "" if listed else f" Known are: {', '.join(known)}."
