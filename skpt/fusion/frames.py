"""What the frames of a task that waits say of it: whether another one may run on top of them."""

from __future__ import annotations

import dis
import inspect
import sys
from types import CodeType, FunctionType

__all__ = ["count_frames", "depth", "is_room_for"]

# Whose frames are known to hold nothing while they fit, and to have run nothing of the user's before.
_MODULES = ("joblib.", "sklearn.base", "sklearn.callback.", "sklearn.model_selection.", "sklearn.utils.", "skpt.")

# Those of estimators that run others before: a step of the user's may have taken something that another one gives back. Of
# known libraries none does.
_COMPOSITIONS = ("sklearn.pipeline", "sklearn.compose._target")
_KNOWN = {"sklearn", "skpt", "numpy", "scipy", "pandas"}

# How many frames may be below a task: some twenty-five tasks. Of the room that Python has by default, half is left for what a
# task calls, because calls in C take some, too. Tasks on top of each other score one by one.
MOST_FRAMES = 400

_JUMPS = {*dis.hasjrel, *dis.hasjabs}

# From where to where another fit may follow in a function, by the function's code, whose hash would take as long as the rest.
_before_more: dict[int, tuple[CodeType, list[tuple[int, int]]]] = {}


def count_frames(root: CodeType) -> int | None:
    """Count the frames of a task, if what it has begun will end without another fit, and others do not wait for it.

    What runs on top of a task must end before it can go on. That does no harm where all that is left of it is to score,
    say. A task that fits several times, for fewer and fewer features say, is in the middle of a loop, or has a call of
    `Parallel` ahead.

    Parameters
    ----------
    root : code
        Of the function that runs tasks.

    Returns
    -------
    int or None
        How many frames there are from the one that asks to that function. None if one of them is in a loop, other than
        joblib's over the one call of the task, or is none of joblib, of scikit-learn's searches or of this library.
    """
    n_frames, frame = 0, inspect.currentframe()
    while (frame := frame and frame.f_back) is not None:
        if frame.f_code is root:
            return n_frames
        module = str(frame.f_globals.get("__name__"))
        if not (module.startswith(_MODULES) or (module in _COMPOSITIONS and _is_known(frame.f_locals.get("self")))):
            return None
        if not module.startswith("joblib.") and _may_fit_again(frame.f_code, frame.f_lasti):
            return None
        n_frames += 1
    return None


def depth() -> int:
    """Count the frames of the running thread.

    Returns
    -------
    int
        How many there are below the one that asks.
    """
    n_frames, frame = 0, inspect.currentframe().f_back
    while (frame := frame.f_back) is not None:
        n_frames += 1
    return n_frames


def is_room_for(n_frames: int) -> bool:
    """Say whether another task may run on top of so many frames."""
    return n_frames <= min(MOST_FRAMES, 2 * sys.getrecursionlimit() // 5)


def _is_known(thing: object) -> bool:
    """Whether nothing of the user's runs when a composition fits: it and all its parameters are of known libraries."""
    if thing is None or isinstance(thing, (str, int, float)):
        return True
    if isinstance(thing, (list, tuple, set)):
        return all(map(_is_known, thing))
    if isinstance(thing, dict):
        return all(map(_is_known, thing.values()))
    of_class = thing if isinstance(thing, (type, FunctionType)) else type(thing)
    package = of_class.__module__.partition(".")[0]
    if package not in _KNOWN:
        return False
    if package == "skpt" or not hasattr(thing, "get_params"):  # the frames of a net say the rest
        return True
    own = vars(thing).items()
    return all([_is_known(value) for name, value in own if not (name.startswith("_") or name.endswith("_"))])


def _may_fit_again(code: CodeType, place: int) -> bool:
    """Whether a place in a function will be come by again, or a call of `Parallel` after it."""
    if id(code) not in _before_more:
        steps = list(dis.get_instructions(code))
        back = [(step.argval, step.offset) for step in steps if _is_jump_back(step)]
        _before_more[id(code)] = code, back + [(0, step.offset) for step in steps if step.argval == "Parallel"]
    return any(first <= place <= last for first, last in _before_more[id(code)][1])


def _is_jump_back(step: dis.Instruction) -> bool:
    return step.opcode in _JUMPS and isinstance(step.argval, int) and step.argval < step.offset
