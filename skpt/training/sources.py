"""Rows that are read when they are needed: of mapped files, windows that overlap, Datasets and DataLoaders.

An estimator trains on arrays in memory. Where X would not fit, or would have to be copied many times over, it is given a
`RowSource` in its place, which looks like an array to whoever reads some rows of it at a time: checks, scales, batches and
predictions. `unpack` decides which it is.
"""

from __future__ import annotations

import mmap
import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from skorch.helper import SliceDataset
from skorch.utils import is_dataset
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    default_collate,
)

from skpt.exceptions import InvalidInputError
from skpt.training.fields import Fields, as_numpy, is_dict, stacked

__all__ = ["RowSource", "pair_of", "take_rows", "unpack"]

# What a Dataset may take in memory, at most; and at most a quarter of the machine's.
LARGE_DATASET = 1 << 30

# From this size on a mapped file is read when it is needed: its pages count as the process's own memory.
LARGE_MAPPING = 1 << 26

# What an array of overlapping windows may grow by where it is copied.
LARGE_COPY = 1 << 24

# The pages of a mapped file that were touched are let go when they are about so many bytes. Around a row that is read by
# itself the system maps up to 64 kB.
TOUCHED_AT_ONCE = 1 << 26
AROUND_A_ROW = 1 << 16

# So many items of a Dataset are compared with what it calls its targets; else all are read, so many at a time.
ITEMS_COMPARED = 8
ITEMS_AT_ONCE = 256


class RowSource:
    """Rows of X that are read when they are asked for.

    It has shape, dtype and length as an array has. To index it, by an int, a slice, integers or a mask, is to read these
    rows into memory.

    Parameters
    ----------
    storage : ArrayRows or DatasetRows
        What the rows are read from: with a length and `read(rows)` for a slice or an array of ints.
    index : ndarray of int, default=None
        Which rows of the storage; None stands for all.
    functions : tuple of callable, default=()
        What is done to the rows read, one after the other.
    shape : tuple of int, default=None
        Of the rows after that; None reads one row to see.
    dtype : dtype, default=None
        Likewise.
    first : ndarray of shape (1, ...), default=None
        The first row as the storage gives it, where it was read already.
    """

    def __init__(self, storage, index=None, functions: tuple[Callable, ...] = (), shape=None, dtype=None, first=None):
        self.storage, self.index, self.functions = storage, index, functions
        self._n_rows = len(storage) if index is None else len(index)
        if shape is None and self._n_rows:
            first = storage.read(slice(0, 1) if index is None else index[:1]) if first is None else first
            row = self.changed(first[[0]])  # a copy, which the functions may write to
            shape, dtype = row.shape[1:], row.dtype
        self._first = first
        self.shape, self.dtype = (self._n_rows, *(shape or ())), dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions, that of the rows included."""
        return len(self.shape)

    @property
    def loader(self) -> DataLoader | None:
        """The DataLoader that the user gave, where these are its rows, all of them."""
        return getattr(self.storage, "loader", None) if self.index is None else None

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, rows):
        if isinstance(rows, (int, np.integer)):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of {len(self)}")
            return self[np.array([rows % len(self)])][0]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            rows = slice(start, max(start, stop)) if step == 1 else np.arange(start, stop, step)
        else:
            rows = np.asarray(rows)
            rows = np.flatnonzero(rows) if rows.dtype == bool else np.where(rows < 0, rows + len(self), rows)
        return self.changed(self.storage.read(rows if self.index is None else self.index[rows]))

    def changed(self, part: np.ndarray):
        """Do to rows what is done to all that are read.

        Parameters
        ----------
        part : ndarray
            Rows as the storage gives them.

        Returns
        -------
        ndarray or what the last function gives
            As many rows.
        """
        for function in self.functions:
            part = function(part)
        return part

    def parts(self, n_rows: int) -> Iterator:
        """Read all rows in their order, some at a time.

        Parameters
        ----------
        n_rows : int
            How many at a time.

        Yields
        ------
        ndarray or what the last function gives
            The next rows.
        """
        return map(self.changed, self.storage.parts(self.index, n_rows))

    def take(self, index: np.ndarray) -> RowSource:
        """Give some of the rows, without reading them.

        Parameters
        ----------
        index : ndarray of int
            Which, in which order.

        Returns
        -------
        RowSource
            These rows.
        """
        index = np.asarray(index) if self.index is None else self.index[index]
        return RowSource(self.storage, index, self.functions, self.shape[1:], self.dtype)

    def mapped(self, function: Callable) -> RowSource:
        """Give the rows as a function changes them when they are read.

        Parameters
        ----------
        function : callable
            Takes some rows and gives as many.

        Returns
        -------
        RowSource
            The same rows, changed.
        """
        return RowSource(self.storage, self.index, (*self.functions, function), first=self._first)


class ArrayRows:
    """Rows of an array that has no memory of its own: a mapped file, or windows that overlap.

    The pages of a mapped file that were read are let go again, so that they do not add up to the whole of it.

    Parameters
    ----------
    array : ndarray
        All rows.
    """

    def __init__(self, array: np.ndarray):
        self.array = np.asarray(array)  # indexing is slower in numpy's class of mapped arrays
        self._touched = 0

    def __len__(self) -> int:
        return len(self.array)

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """Copy some rows."""
        if isinstance(rows, slice):
            part = np.array(self.array[rows])
        else:  # neighbours together, as they lie in the file
            order = np.argsort(rows, kind="stable")
            part = np.empty((len(rows), *self.array.shape[1:]), self.array.dtype)
            part[order] = self.array[rows[order]]
        self._touched += part.nbytes + (0 if isinstance(rows, slice) else AROUND_A_ROW * len(rows))
        if self._touched > TOUCHED_AT_ONCE:
            self._touched = 0
            let_go_of_pages(self.array)
        return part

    def parts(self, index: np.ndarray | None, n_rows: int) -> Iterator[np.ndarray]:
        """Copy all rows, or those of an index, some at a time."""
        n_samples = len(self) if index is None else len(index)
        for start in range(0, n_samples, n_rows):
            part = slice(start, min(start + n_rows, n_samples))
            yield self.read(part if index is None else index[part])


class DatasetRows:
    """Inputs of a torch Dataset, item by item.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        With a length.
    select : callable
        Gives the input of an item.
    loader : torch.utils.data.DataLoader, default=None
        The loader that the user gave. Its worker processes read the whole where that is asked for, and a collate_fn of the
        user's makes the rows of the items.
    """

    def __init__(self, dataset, select: Callable, loader: DataLoader | None = None):
        self.dataset, self.select, self.loader = dataset, select, loader
        self._collate = None if loader is None or loader.collate_fn is default_collate else loader.collate_fn
        self._noted: dict[int, Any] | None = None  # targets by row, where they are noted as rows are read
        self._collated_shape = None

    def __len__(self) -> int:
        return len(self.dataset)

    def items(self, rows: slice | np.ndarray) -> list:
        """Give items, all at once where the Dataset can."""
        rows = list(_numbers_of(rows))
        several = getattr(self.dataset, "__getitems__", None)
        return several(rows) if several is not None else [self.dataset[i] for i in rows]

    def read(self, rows: slice | np.ndarray) -> np.ndarray:
        """Stack the inputs of some items."""
        return self.inputs_of(self.items(rows), _numbers_of(rows))

    def inputs_of(self, items: list, numbers: Iterable[int]) -> np.ndarray:
        """Stack the inputs of items, whose row numbers are given."""
        batch = None if self._collate is None else self._collate(items)
        if self._noted is not None:
            self._noted.update(zip(numbers, self._targets_in(items, batch), strict=True))
        if self._collate is not None:
            return self._collated(batch, len(items))
        arrays = [as_numpy(self.select(item)) for item in items]
        if arrays and is_dict(arrays[0]):
            return Fields({key: self._stack([a[key] for a in arrays]) for key in arrays[0]})
        return self._stack(arrays)

    def _stack(self, arrays: list) -> np.ndarray:
        shapes = sorted({np.shape(a) for a in arrays})
        if len(shapes) > 1:
            raise InvalidInputError(
                f"Items of a Dataset that is read batch by batch must have one shape. Got {shapes[0]} and {shapes[1]}. Resize, "
                "cut or pad them in the Dataset."
            )
        return np.stack(arrays)

    def _collated(self, batch, n_items: int) -> np.ndarray:
        """Give the inputs in a batch that the user's collate_fn made."""
        X = as_numpy(_first_of_item(batch))
        X = Fields({key: np.asarray(part) for key, part in X.items()}) if is_dict(X) else np.asarray(X)
        _check_collated(len(X), n_items)
        shape = self._collated_shape = self._collated_shape or X.shape[1:]
        if X.shape[1:] != shape:
            raise InvalidInputError(
                f"The rows that a collate_fn makes must have one shape in all batches. Got {shape} and {X.shape[1:]}. Pad all "
                "to one length."
            )
        return X

    def parts(self, index: np.ndarray | None, n_rows: int) -> Iterator[np.ndarray]:
        """Stack the inputs of all items, or of those of an index, some at a time."""
        numbers = iter(_numbers_of(slice(0, len(self)) if index is None else index))
        for items in self._parts_of_items(index, n_rows):
            yield self.inputs_of(items, [next(numbers) for _ in items])

    def _parts_of_items(self, index: np.ndarray | None, n_rows: int) -> Iterator[list]:
        n_workers = 0 if self.loader is None else self.loader.num_workers
        if n_workers:
            yield from DataLoader(
                self.dataset if index is None else Subset(self.dataset, index.tolist()),
                n_rows,
                num_workers=n_workers,
                collate_fn=list,
                generator=torch.Generator(),  # else the seeds of the workers would be drawn from the global one
                multiprocessing_context=self.loader.multiprocessing_context,
                worker_init_fn=self.loader.worker_init_fn,
            )
            return
        n_samples = len(self) if index is None else len(index)
        for start in range(0, n_samples, n_rows):
            part = slice(start, min(start + n_rows, n_samples))
            yield self.items(part if index is None else index[part])

    def targets_of(self, items: list) -> list:
        """Give the targets of items."""
        return self._targets_in(items, None if self._collate is None else self._collate(items))

    def _targets_in(self, items: list, batch) -> list:
        if self._collate is not None:
            y = as_numpy(pair_of(batch)[1])
            y = Fields({key: np.asarray(part) for key, part in y.items()}) if is_dict(y) else y
            _check_collated(len(y), len(items))
            return [y[i] for i in range(len(y))]
        if not all(isinstance(item, (tuple, list)) and len(item) > 1 for item in items):
            raise InvalidInputError(
                f"The items of {type(self.dataset).__name__} must be pairs of input and target where no y is given. Got a "
                f"{type(items[0]).__name__}. Pass y, or let the Dataset give (input, target)."
            )
        return [as_numpy(item[1]) for item in items]

    def note_targets(self) -> None:
        """Keep the targets of items that are read from now on, so that `targets` need not read them again."""
        self._noted = {}

    def targets(self) -> np.ndarray:
        """Give the targets of all items: as noted, or what the Dataset calls so where its items have them, else read."""
        known = _known_targets(self.dataset, self.targets_of) if self._noted is None else None
        if known is not None:
            return known
        targets = self._noted or {}
        missing = np.array([i for i in range(len(self)) if i not in targets], dtype=int)
        read = [target for items in self._parts_of_items(missing, ITEMS_AT_ONCE) for target in self.targets_of(items)]
        targets = {**targets, **dict(zip(missing.tolist(), read, strict=True))}
        return stacked([targets[i] for i in range(len(self))])


def pair_of(batch) -> tuple:
    """Give inputs and targets of a batch of a DataLoader, or say that it is none.

    Parameters
    ----------
    batch : object
        What the loader or its collate_fn gave.

    Returns
    -------
    tuple of two
        Inputs and targets.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise InvalidInputError(
            f"A DataLoader must give batches (X, y). Got a {type(batch).__name__}. Change its collate_fn or Dataset."
        )
    return tuple(batch)


def unpack(X, y, *, lazy: bool = False, training: bool = False, targets: str = "now") -> tuple[Any, Any]:
    """Take tensors, Datasets, DataLoaders and skorch's slices of Datasets for what they hold; leave in place what is large.

    Parameters
    ----------
    X, y : object
        What the user gave; `y` may be None.
    lazy : bool, default=False
        Whether a Dataset of any size is read when its rows are needed, not only one of more than 1 GiB.
    training : bool, default=False
        Whether the batches of a DataLoader are trained on. Else its rows must be known, each once and in an order.
    targets : {'now', 'later', 'never'}, default='now'
        When targets of a Dataset are read where `y` is None: at once; when they are asked for, after the inputs were read, so
        that no item is read twice for them; or not at all.

    Returns
    -------
    X : object
        A `RowSource` where the rows are large; an array, or what scikit-learn makes one of.
    y : object
        The targets; those of the Dataset where None were given and it has some. With `targets` 'later' a function that gives
        them.

    Raises
    ------
    InvalidInputError
        If a Dataset has no length, or items that cannot be used; if the rows of a DataLoader are not known.
    """
    if targets == "later":
        X, found = _unpacked(X, y, lazy, training, targets)
        return X, found if callable(found) else lambda: found
    return _unpacked(X, y, lazy, training, targets)


def _unpacked(X, y, lazy: bool, training: bool, targets: str) -> tuple[Any, Any]:
    if type(X) is np.ndarray and X.nbytes < min(LARGE_COPY, LARGE_MAPPING) and (y is None or type(y) is np.ndarray):
        return X, y  # most often
    if (isinstance(X, DataLoader) and isinstance(X.dataset, IterableDataset)) or isinstance(X, IterableDataset):
        raise InvalidInputError(
            "A Dataset must have a length and give any of its items: checks and scales need to see them before training. Got "
            f"an IterableDataset in a {type(X).__name__}. Write its items into a file that can be mapped, or use partial_fit."
        )
    y = as_numpy(_sliced_targets(y) if _is_lazy(y) else y)
    if type(X) is TensorDataset:
        X, y = X.tensors[0], as_numpy(X.tensors[1]) if y is None and len(X.tensors) > 1 else y
    if isinstance(X, np.ndarray) and _is_better_left_in_place(X):
        return RowSource(ArrayRows(X)), y
    if isinstance(X, DataLoader) or is_dataset(X) or _is_lazy(X):
        return _from_dataset(X, y, lazy, training, targets)
    _refuse_pairs(X)
    return as_numpy(X), y


def take_rows(X, index: np.ndarray):
    """Give some rows; those of a `RowSource` without reading them.

    Parameters
    ----------
    X : array-like, CSR matrix or RowSource
        All rows.
    index : ndarray of int
        Which.

    Returns
    -------
    array-like, CSR matrix or RowSource
        These rows.
    """
    return X.take(index) if isinstance(X, RowSource) else X[index]


def _from_dataset(X, y, lazy: bool, training: bool, targets: str) -> tuple[Any, Any]:
    index = None
    if isinstance(X, DataLoader):
        if training and y is not None:
            raise InvalidInputError(
                f"y cannot be given with a DataLoader, whose batches hold the targets. Got a {type(y).__name__}. Leave y out, "
                "or pass X and y as arrays."
            )
        storage, lazy = DatasetRows(_dataset_of(X, training), _first_of_item, X), True
    elif type(X) is SliceDataset:
        storage, index = DatasetRows(X.dataset, operator.itemgetter(X.idx)), np.asarray(X.indices_)
    else:
        storage = DatasetRows(X, _first_of_item if is_dataset(X) else _whole_item)
    rows = np.arange(len(storage)) if index is None else index
    if not len(rows):
        raise InvalidInputError(f"A {type(X).__name__} must give at least one row. Got none. Look at what it was made of.")
    first = storage.items(rows[:1])
    wanted = y is None and targets != "never" and storage.select is _first_of_item and isinstance(first[0], (tuple, list))
    if lazy or len(rows) * _n_bytes(as_numpy(storage.select(first[0]))) > _most_in_memory():
        later = wanted and targets == "later"
        if later:
            storage.note_targets()
        source = RowSource(storage, index, first=storage.inputs_of(first, rows[:1].tolist()))
        return source, storage.targets if later else storage.targets() if wanted else y
    items = [*first, *(storage.items(rows[1:]) if len(rows) > 1 else ())]
    y = stacked(storage.targets_of(items)) if wanted else y
    return _stacked_inputs([as_numpy(storage.select(item)) for item in items]), y


def _dataset_of(loader: DataLoader, training: bool):
    """Give the Dataset of a loader, or those of its items that the sampler goes through."""
    if loader.batch_sampler is None:
        raise InvalidInputError(
            "A DataLoader must give batches of several rows. Got one with batch_size=None, which gives single items. Set its "
            "batch_size, for example to 64, or pass its Dataset."
        )
    sampler, rows = loader.batch_sampler, None
    if type(sampler) is BatchSampler:  # torch's own, as by default
        sampler = sampler.sampler
        rows = _rows_named_by(sampler)
    if rows is None and not training:
        raise InvalidInputError(
            "To predict, score or validate, the rows of a DataLoader must be known, each once. Got one with a "
            f"{type(sampler).__name__}, which may leave rows out, repeat them and change from epoch to epoch. Pass the "
            "Dataset, or a torch.utils.data.Subset of it."
        )
    rows = range(len(loader.dataset)) if rows is None else [operator.index(i) for i in rows]
    return loader.dataset if list(rows) == list(range(len(loader.dataset))) else Subset(loader.dataset, rows)


def _rows_named_by(sampler) -> Sequence[int] | None:
    """Give the rows that a sampler goes through in every epoch, in whichever order; None where that is not known."""
    if type(sampler) is SequentialSampler:
        return range(len(sampler))
    if type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source):
        return range(sampler.num_samples)
    if type(sampler) is SubsetRandomSampler:
        return sampler.indices
    return sampler if isinstance(sampler, (list, tuple, range, np.ndarray, Tensor)) else None


def _stacked_inputs(arrays: list):
    """Stack inputs in memory; sequences of unequal length stay a list."""
    if is_dict(arrays[0]):
        return {key: _stacked_inputs([a[key] for a in arrays]) for key in arrays[0]}
    shapes = sorted({np.shape(a) for a in arrays})
    if len(shapes) > 1 and max(map(len, shapes)) > 2:  # no sequences: these have steps and features
        raise InvalidInputError(
            f"Items of a Dataset must have one shape. Got {shapes[0]} and {shapes[1]}. Resize, cut or pad them in the Dataset, "
            "for example by ImageFolderDataset(path, size=64)."
        )
    return stacked(arrays)


def _refuse_pairs(X) -> None:
    """Raise if X is a list of pairs of an input and a target: what scikit-learn makes of a Dataset that it cuts."""
    if not isinstance(X, list) or not X or not isinstance(X[0], tuple) or len(X[0]) != 2:
        return
    first, second = X[0]
    if isinstance(first, (Tensor, np.ndarray)) and np.shape(first) != np.shape(second):
        raise InvalidInputError(
            "X must hold inputs alone. Got a list of pairs, which scikit-learn makes of a Dataset when it cuts it. Pass "
            "skorch.helper.SliceDataset(dataset) as X, and the targets as y."
        )


def _numbers_of(rows: slice | np.ndarray) -> Sequence[int]:
    return range(rows.start, rows.stop) if isinstance(rows, slice) else rows.tolist()


def _n_bytes(a) -> int:
    return sum(map(_n_bytes, a.values())) if is_dict(a) else np.asarray(a).nbytes


def _whole_item(item):
    return item


def _first_of_item(item):
    return item[0] if isinstance(item, (tuple, list)) else item


def _is_lazy(a) -> bool:
    """Whether it is a sequence that makes its items when asked, such as skorch's SliceDataset."""
    return isinstance(a, Sequence) and not isinstance(a, (list, tuple, str)) and len(a) > 0


def _sliced_targets(y) -> np.ndarray:
    """Read targets that come in a slice of a Dataset."""
    if type(y) is SliceDataset and y.idx == 1:
        known = _known_targets(y.dataset, DatasetRows(y.dataset, _first_of_item).targets_of)
        if known is not None:
            return known[np.asarray(y.indices_)]
    return np.stack([np.asarray(as_numpy(item)) for item in y])


def _check_collated(n_rows: int, n_items: int) -> None:
    if n_rows != n_items:
        raise InvalidInputError(
            f"A collate_fn must make one row of each item. Got {n_rows} rows of {n_items} items. Leave items out, or repeat "
            "them, in the Dataset or the sampler."
        )


def _known_targets(dataset, targets_of: Callable) -> np.ndarray | None:
    """Give what a Dataset calls its targets, if these are what `targets_of` its items are."""
    candidates = _called_targets(dataset)
    if not candidates:
        return None
    some = np.unique(np.linspace(0, len(dataset) - 1, ITEMS_COMPARED).astype(int))
    items = [dataset[int(i)] for i in some]
    if not all(isinstance(item, (tuple, list)) and len(item) > 1 for item in items):
        return None
    targets = targets_of(items)
    if any(map(is_dict, targets)):
        return None
    for values in candidates:
        if all(np.array_equal(target, values[i]) for i, target in zip(some, targets, strict=True)):
            return values
    return None


def _called_targets(dataset) -> list[np.ndarray]:
    """Give what may be the targets of all items by its name."""
    if isinstance(dataset, Subset):
        return [values[np.asarray(dataset.indices)] for values in _called_targets(dataset.dataset)]
    values = [getattr(dataset, name, None) for name in ("targets", "labels", "y")]
    return [np.asarray(as_numpy(v)) for v in values if hasattr(v, "__len__") and len(v) == len(dataset) > 0]


def _most_in_memory() -> int:
    """Bytes that a Dataset may take."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return LARGE_DATASET
    return min(LARGE_DATASET, physical // 4)


def _is_better_left_in_place(X: np.ndarray) -> bool:
    """Whether to copy an array costs much that is not there yet: windows that overlap, or a mapped file."""
    if X.ndim == 0 or X.size == 0 or X.dtype.kind not in "biuf":
        return False
    n_bytes_beneath = sum((n - 1) * abs(stride) for n, stride in zip(X.shape, X.strides, strict=True)) + X.itemsize
    if X.nbytes - n_bytes_beneath >= LARGE_COPY:
        return True
    return X.nbytes >= LARGE_MAPPING and any(isinstance(a, mmap.mmap) for a in _beneath(X))


def _beneath(X: np.ndarray) -> Iterator:
    """Give an array and what its memory belongs to, one below the other."""
    while X is not None:
        yield X
        X = X.obj if isinstance(X, memoryview) else getattr(X, "base", None)


def let_go_of_pages(X: np.ndarray) -> None:
    """Let the system take back the pages of a mapped file; they are read again when they are needed.

    Parameters
    ----------
    X : ndarray
        A view of the file, or any array. Nothing is done where pages may hold what is not in the file, or the system cannot.
    """
    layers = list(_beneath(X))
    mapping = layers[-1]
    if not isinstance(mapping, mmap.mmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    modes = {layer.mode for layer in layers if isinstance(layer, np.memmap)}
    # Of a mapping that numpy did not make only one that cannot be written to is known not to be copied on write.
    if modes - {"c"} or (not modes and memoryview(mapping).readonly):
        mapping.madvise(mmap.MADV_DONTNEED)
