"""Plain dicts of arrays as data that scikit-learn can count and split.

A search asks for the number of rows of X, and for some of them, before any code of its estimator runs. Where X is no array,
scikit-learn asks narwhals, the library by which it reads data frames of all kinds; narwhals asks its plugins, the entry
points of the group "narwhals.plugins". This is one: to it a dict of several inputs is a frame whose columns may have more
axes than one.

Only dicts that no data frame could hold are taken, and only where the estimators of skpt are imported: whoever uses narwhals
for something else sees no difference. So `import skpt` alone must be cheap, because narwhals imports this module.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property

__all__ = ["NATIVE_PACKAGE", "is_native"]

NATIVE_PACKAGE = "builtins"


def is_native(native_object: object) -> bool:
    """Say whether an object is a dict of arrays, one of which has two axes or more.

    Parameters
    ----------
    native_object : object
        Anything.

    Returns
    -------
    bool
        False for all where no estimator of skpt was imported.
    """
    if type(native_object) is not dict or "skpt.base" not in sys.modules:  # skorch's SliceDict splits itself
        return False
    n_axes = [_n_axes(value) for value in native_object.values()]
    return min(n_axes, default=0) > 0 and max(n_axes) > 1


def _n_axes(value: object) -> int:
    """Give an array's number of axes; of a list of sequences two; 0 for what is no array."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return len(shape)
    return 1 + (bool(value) and _n_axes(value[0]) > 0) if isinstance(value, list) else 0


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
