"""What the frames of a task that waits say of it: whether another one may run on top of them."""

from __future__ import annotations

import dis
import inspect
import sys
from types import CodeType

__all__ = ["count_frames", "is_room_for"]

# Whose frames are known to hold no lock while they fit.
_PACKAGES = {"joblib", "sklearn", "skpt"}

# The loops of functions, by the function's code, whose hash would take as long as all the rest.
_loops: dict[int, tuple[CodeType, list[tuple[int, int]]]] = {}


def count_frames(root: CodeType) -> int | None:
    """Count the frames of a task, if what it has begun will end without another fit and without a lock.

    What runs on top of a task must end before it can go on. That does no harm where all that is left of it is to score,
    say. A task that fits several times, for fewer and fewer features say, is in the middle of a loop.

    Parameters
    ----------
    root : code
        Of the function that runs tasks.

    Returns
    -------
    int or None
        How many frames there are from the one that asks to that function. None if one of them is in a loop, or belongs
        to neither joblib, which loops over the one call of the task, nor scikit-learn nor this library.
    """
    n_frames, frame = 0, inspect.currentframe()
    while (frame := frame and frame.f_back) is not None:
        if frame.f_code is root:
            return n_frames
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package not in _PACKAGES or (package != "joblib" and _is_in_loop(frame.f_code, frame.f_lasti)):
            return None
        n_frames += 1
    return None


def is_room_for(n_frames: int) -> bool:
    """Say whether so many frames leave two thirds of the room that Python has for them."""
    return 3 * n_frames <= sys.getrecursionlimit()


def _is_in_loop(code: CodeType, place: int) -> bool:
    if id(code) not in _loops:
        _loops[id(code)] = code, [
            (step.argval, step.offset)
            for step in dis.get_instructions(code)
            if step.opcode in _JUMPS and isinstance(step.argval, int) and step.argval < step.offset
        ]
    return any(first <= place <= last for first, last in _loops[id(code)][1])


_JUMPS = {*dis.hasjrel, *dis.hasjabs}
