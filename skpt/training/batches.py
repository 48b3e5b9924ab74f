"""Batches of rows: of tensors in memory, with no DataLoader and no Python per row; of rows that are read when needed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor
from torch.utils.data import DataLoader

from skpt.exceptions import InvalidInputError
from skpt.training.fields import Fields, as_numpy, is_dict
from skpt.training.randomness import borrowed_global_generator
from skpt.training.sources import RowSource, pair_of

__all__ = ["Batches", "LoaderBatches", "rows_at_a_time", "rows_of"]


# So many numbers of a CSR matrix are made dense for a batch: torch's sparse products cost more than they save on less.
DENSE_NUMBERS = 1 << 20


def rows_of(X, index: Tensor | slice, out: Tensor | None = None):
    """Give some rows of a tensor, or of a CSR matrix as a sparse tensor, or of several by name.

    Parameters
    ----------
    X : Tensor, scipy CSR matrix, RowSource of tensors or Fields
        All rows.
    index : Tensor of int or slice
        Which ones.
    out : Tensor, default=None
        Of `len(index)` rows: where chosen rows of a tensor may be written to. New memory for each batch costs more than
        the rows do.

    Returns
    -------
    Tensor, or dict of str to Tensor
        Dense; of layout ``torch.sparse_csr`` where these rows of a CSR matrix would take more than 4 MB. A dict of Fields.
    """
    if isinstance(X, Fields):
        return {name: rows_of(part, index) for name, part in X.items()}
    if isinstance(X, Tensor):
        return X[index] if isinstance(index, slice) else torch.index_select(X, 0, index, out=out)
    if isinstance(X, RowSource):
        return X[index if isinstance(index, slice) else index.cpu().numpy()]
    part = X[index if isinstance(index, slice) else index.numpy()]
    if part.shape[0] * part.shape[1] <= DENSE_NUMBERS:
        return torch.from_numpy(part.toarray())
    if part.shape[0] and not part.has_canonical_format:
        part.sum_duplicates()
    return torch.sparse_csr_tensor(
        torch.from_numpy(part.indptr.astype(np.int64)),
        torch.from_numpy(part.indices.astype(np.int64)),
        torch.from_numpy(part.data),
        size=part.shape,
        check_invariants=False,
    )


def rows_at_a_time(X) -> int:
    """Give the number of rows that go through a network at a time where nothing is learnt.

    Parameters
    ----------
    X : array-like, Tensor, CSR matrix, RowSource or Fields of shape (n_samples, ...)
        All rows.

    Returns
    -------
    int
        4,096; fewer of wide sparse rows, because a layer that does not take them as they are makes them dense, and of images
        and sequences, because a network makes many numbers of each of theirs; fewer of wide rows that are read for it.
    """
    if isinstance(X, Fields):
        return min(rows_at_a_time(part) for _, part in X.items())
    if issparse(X):
        return max(1, min(4096, 2**24 // max(1, X.shape[1])))
    if isinstance(X, RowSource) and X.ndim <= 2:
        return max(1, min(4096, 2**21 // math.prod(X.shape[1:])))
    return 4096 if X.ndim <= 2 else max(16, min(4096, 2**17 // math.prod(X.shape[1:])))


with warnings.catch_warnings():
    # Torch says once per process that sparse CSR tensors are in beta: here, at import, and not in a user's fit.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], torch.empty(0, dtype=torch.long), torch.empty(0), size=(1, 1))


class Batches:
    """An iterable over batches (X, y) or, with weights, (X, (y, weight)).

    Parameters
    ----------
    X : Tensor, scipy CSR matrix, RowSource or Fields of shape (n_samples, ...)
        Inputs.
    y : Tensor of shape (n_samples, ...)
        Targets.
    weight : Tensor of shape (n_samples,) or None
        Row weights of mean one.
    batch_size : int
        Rows in a batch; the last one of an epoch may be smaller.
    generator : torch.Generator or None
        Shuffles the rows anew in each epoch; None keeps their order.
    """

    def __init__(self, X, y: Tensor, weight: Tensor | None, batch_size: int, generator: torch.Generator | None = None):
        self.X, self.y, self.weight = X, y, weight
        self.batch_size = batch_size
        self.generator = generator

    def __len__(self) -> int:
        return math.ceil(len(self.y) / self.batch_size)

    def __iter__(self) -> Iterator:
        n_samples = len(self.y)
        order = self.draw_order(self.batch_size)
        if order is not None:
            order = order.to(self.y.device)
        for start in range(0, n_samples, self.batch_size):
            rows = slice(start, min(start + self.batch_size, n_samples))
            yield self._batch(rows if order is None else order[rows])

    def draw_order(self, batch_size: int | None) -> Tensor | None:
        """Give the order of the rows in the next epoch.

        Parameters
        ----------
        batch_size : int or None
            Rows in a batch.

        Returns
        -------
        Tensor of shape (n_samples,) or None
            Drawn from the generator; None where the rows stay as they are.
        """
        n_samples = len(self.y)
        if self.generator is None or n_samples <= (batch_size or 0):  # in one batch of all rows order does not matter
            return None
        return torch.randperm(n_samples, generator=self.generator)

    def _batch(self, index: Tensor | slice):
        y = rows_of(self.y, index)
        return rows_of(self.X, index), y if self.weight is None else (y, rows_of(self.weight, index))

    def rows(self) -> tuple:
        """Give X, y and weight whole."""
        return self.X, self.y, self.weight


class LoaderBatches(Batches):
    """The batches of a DataLoader of the user's, encoded: its order, its workers, its way to collate.

    Parameters
    ----------
    loader : torch.utils.data.DataLoader
        Gives pairs of inputs and targets.
    X : RowSource
        The rows of its Dataset, encoded.
    y : Tensor
        Their targets, encoded.
    encode : callable
        Makes encoded inputs, targets and weights (or None) of the inputs and targets of a batch.
    generator : torch.Generator
        Where the loader draws from if it has no generator of its own.
    """

    def __init__(self, loader: DataLoader, X: RowSource, y: Tensor, encode: Callable, generator: torch.Generator):
        if not len(loader):
            raise InvalidInputError(
                f"A DataLoader must give at least one batch. Got none: batch_size={loader.batch_size} and "
                f"drop_last={loader.drop_last} with {len(y)} rows. Set drop_last=False, or a smaller batch_size."
            )
        super().__init__(X, y, None, loader.batch_size or -(-len(y) // len(loader)))
        self.loader, self.encode, self.generator = loader, encode, generator

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        iterator = None
        while True:
            with borrowed_global_generator(self.generator):
                iterator = iter(self.loader) if iterator is None else iterator
                batch = next(iterator, None)
            if batch is None:
                return
            X, y, weight = self.encode(*(a if is_dict(a) else np.asarray(a) for a in map(as_numpy, pair_of(batch))))
            yield X, y if weight is None else (y, weight)
