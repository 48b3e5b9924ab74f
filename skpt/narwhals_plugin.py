"""Plain dicts of arrays as data that scikit-learn can count and split.

A search asks for the number of rows of X, and for some of them, before any code of its estimator runs. Where X is no array,
scikit-learn asks narwhals, the library by which it reads data frames of all kinds; narwhals asks its plugins, the entry
points of the group "narwhals.plugins". This is one: to it a dict of several inputs, or of several tasks' labels, is a frame
whose columns may have more axes than one.

It answers scikit-learn alone, and only where the estimators of skpt are imported: whoever else uses narwhals sees no
difference. `import skpt` alone must be cheap, because narwhals imports this module.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from functools import cached_property
from types import FrameType

__all__ = ["NATIVE_PACKAGE", "is_dict_of_arrays", "is_native"]

NATIVE_PACKAGE = "builtins"

# The functions of scikit-learn that count and take rows, and one that they ask by.
_TAKE_ROWS = {"_num_samples", "_safe_indexing", "_narwhals_indexing"}
_ASKS_FOR_THEM = "_nw_into_df_or_series"


def is_native(native_object: object) -> bool:
    """Say whether an object is a dict of several inputs, and scikit-learn asks.

    Parameters
    ----------
    native_object : object
        Anything.

    Returns
    -------
    bool
        False for all where no estimator of skpt was imported.
    """
    return isinstance(native_object, dict) and is_dict_of_arrays(native_object) and _is_asked_for_rows()


def is_dict_of_arrays(native_object: dict) -> bool:
    """Say whether a dict holds arrays or lists only.

    Parameters
    ----------
    native_object : dict
        Any.

    Returns
    -------
    bool
        False for an empty one, and for skorch's SliceDict, which has a shape and splits itself.
    """
    if hasattr(native_object, "shape") or not native_object:
        return False
    return all(isinstance(value, list) or _has_axes(value) for value in native_object.values())


def _has_axes(value: object) -> bool:
    shape = getattr(value, "shape", None)
    return isinstance(shape, tuple) and len(shape) > 0


def _is_asked_for_rows() -> bool:
    """Whether it is scikit-learn that called narwhals, to count or to take rows, where estimators of skpt are in use."""
    if "skpt.base" not in sys.modules:
        return False
    frame = inspect.currentframe()
    while frame is not None and _package(frame) in ("skpt", "narwhals"):
        frame = frame.f_back
    if frame is not None and frame.f_code.co_name == _ASKS_FOR_THEM:
        frame = frame.f_back
    if frame is None or _package(frame) != "sklearn" or frame.f_code.co_name not in _TAKE_ROWS:
        return False
    while frame is not None and _package(frame) == "sklearn" and frame.f_code.co_name != "resample":
        frame = frame.f_back
    return frame is None or _package(frame) != "sklearn"  # `resample` and `shuffle` take the keys for rows


def _package(frame: FrameType) -> str:
    return frame.f_globals.get("__name__", "").partition(".")[0]


def __narwhals_namespace__(version) -> _Namespace:
    """Give what makes frames of dicts, for a version of narwhals' interface."""
    return _Namespace(version)


class _Namespace:
    def __init__(self, version):
        self._version = version

    def from_native(self, data: dict, /) -> _Frame:
        return _Frame(data, self._version)

    @property
    def _series(self):
        from skpt.exceptions import InvalidInputError

        # What narwhals would make of a mask are expressions.
        raise InvalidInputError("Rows of a dict of arrays are chosen by their numbers. Got a mask: give np.flatnonzero(mask).")


class _Frame:
    """As much of narwhals' ``CompliantDataFrame`` as scikit-learn uses of its input before an estimator has it."""

    def __init__(self, native: dict, version):
        self.native = self._native_frame = native
        self._version = version

    def __narwhals_dataframe__(self) -> _Frame:
        return self

    def __narwhals_namespace__(self) -> _Namespace:
        return _Namespace(self._version)

    @cached_property
    def _implementation(self):
        from narwhals import Implementation

        return Implementation.UNKNOWN

    def to_narwhals(self):
        return self._version.dataframe(self, level="full")

    def _with_version(self, version) -> _Frame:
        return _Frame(self.native, version)

    @property
    def columns(self) -> list:
        return list(self.native)

    @property
    def shape(self) -> tuple[int, int]:
        from skpt.exceptions import InvalidInputError

        n_rows = {name: len(value) if isinstance(value, list) else value.shape[0] for name, value in self.native.items()}
        if len(set(n_rows.values())) != 1:
            raise InvalidInputError(
                f"The arrays of a dict must have the same number of rows: found input variables with inconsistent numbers of "
                f"samples: {n_rows}."
            )
        return next(iter(n_rows.values())), len(n_rows)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, item: tuple[slice | Sequence[int], object]) -> _Frame:
        from skpt._compat import safe_indexing

        return _Frame({name: safe_indexing(value, item[0]) for name, value in self.native.items()}, self._version)
