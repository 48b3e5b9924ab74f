"""Several arrays with the same rows: the inputs of a network with several inputs, the labels of several tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skpt.exceptions import InvalidInputError

__all__ = ["Fields", "as_numpy", "is_dict", "stacked"]


class Fields:
    """Arrays with the same rows, by name; indexed by rows it gives those rows of each, by one int a dict of that row.

    Parameters
    ----------
    arrays : mapping of str to ndarray, Tensor or CSR matrix of shape (n_samples, ...)
        At least one.

    Raises
    ------
    InvalidInputError
        If there is none, or if their numbers of rows differ.

    Attributes
    ----------
    shape : tuple of two int
        The number of rows, and of the numbers in a row of all fields together.
    dtype : None
        There may be several.
    """

    ndim = 2
    dtype = None

    def __init__(self, arrays: Mapping):
        self._arrays = dict(arrays)
        n_rows = {name: a.shape[0] for name, a in self._arrays.items()}
        if len(set(n_rows.values())) != 1:
            raise InvalidInputError(
                f"Several inputs or targets must have the same number of rows: found input variables with inconsistent "
                f"numbers of samples: {n_rows}."
            )
        n_numbers = sum(math.prod(a.shape[1:]) for a in self._arrays.values())
        self.shape = (next(iter(n_rows.values())), n_numbers)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key):
        if isinstance(key, str):
            return self._arrays[key]
        if isinstance(key, (int, np.integer)):
            return {name: a[key] for name, a in self._arrays.items()}
        return self.map(lambda a: a[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def keys(self) -> KeysView:
        """Give the names."""
        return self._arrays.keys()

    def items(self) -> ItemsView:
        """Give names and arrays."""
        return self._arrays.items()

    def map(self, change: Callable) -> Fields:
        """Give the fields that `change` makes of each array.

        Parameters
        ----------
        change : callable
            From an array to one of as many rows.

        Returns
        -------
        Fields
            New ones.
        """
        return Fields({name: change(a) for name, a in self._arrays.items()})

    def to(self, device) -> Fields:
        """Move the tensors among them to a device; CSR matrices stay.

        Parameters
        ----------
        device : torch.device
            Where to.

        Returns
        -------
        Fields
            New ones.
        """
        return self.map(lambda a: a.to(device) if hasattr(a, "to") else a)


def is_dict(a) -> bool:
    """Whether it is a dict of arrays; scipy's dok_array is a dict too, of numbers."""
    return isinstance(a, Mapping) and not sparse.issparse(a)


def stacked(items: list):
    """Items as one array; as a list where they have unequal shapes, as sequences may; dicts of them by key."""
    if items and is_dict(items[0]):
        return {key: stacked([item[key] for item in items]) for key in items[0]}
    arrays = [np.asarray(item) for item in items]
    return np.stack(arrays) if len({a.shape for a in arrays}) <= 1 else arrays


def as_numpy(a):
    """Tensors as arrays, those of a dict too; anything else as it is."""
    if is_dict(a):
        return {key: as_numpy(part) for key, part in a.items()}
    if not isinstance(a, Tensor):
        return a
    a = a.detach().cpu()
    return (a.float() if a.dtype == torch.bfloat16 else a).numpy()  # numpy has no bfloat16
