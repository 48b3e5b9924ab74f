"""Which arguments a class takes, and the error where it is given another."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache

from skpt.exceptions import UnknownParameterError, nearest_name

__all__ = ["accepted_arguments", "check_arguments"]


@cache
def accepted_arguments(cls) -> frozenset[str] | None:
    """Give the names of the arguments that a class or function takes; None if it takes any."""
    parameters = inspect.signature(cls).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters)


def check_arguments(cls, names: Iterable[str], what: str, *, but: frozenset[str] = frozenset()) -> None:
    """Raise if a class does not take one of these arguments.

    Parameters
    ----------
    cls : class or callable
        What is to be called.
    names : iterable of str
        What it is to be given.
    what : str
        What it is, for the message.
    but : frozenset of str, default=frozenset()
        Names that are not the user's to give.

    Raises
    ------
    UnknownParameterError
        It names the nearest.
    """
    accepted = accepted_arguments(cls)
    if accepted is None:
        return
    for name in names:
        if name not in accepted or name in but:
            raise UnknownParameterError(
                f"The {what} {getattr(cls, '__name__', cls)} has no parameter {name!r}.{nearest_name(name, accepted - but)}"
            )
