"""Batches in memory: every row once an epoch, in order or shuffled, dense or sparse."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from skpt.training import batches
from skpt.training.batches import Batches, rows_at_a_time, rows_of


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


sizes = {"n_samples": st.integers(1, 50), "batch_size": st.integers(1, 60), "shuffle": st.booleans()}


@given(**sizes)
def test_every_row_comes_once_an_epoch_with_its_target_and_weight(n_samples, batch_size, shuffle):
    X = torch.arange(n_samples).float().unsqueeze(1)
    rows = Batches(X, X[:, 0] * 2, X[:, 0] * 3, batch_size, generator() if shuffle else None)
    for _ in range(2):
        seen = list(rows)
        assert len(seen) == len(rows) == -(-n_samples // batch_size)
        assert [len(X) for X, _ in seen[:-1]] == [batch_size] * (len(seen) - 1)
        for Xi, (yi, weight) in seen:
            assert torch.equal(yi, Xi[:, 0] * 2) and torch.equal(weight, Xi[:, 0] * 3)
        order = torch.cat([Xi[:, 0] for Xi, _ in seen]).int().tolist()
        assert sorted(order) == list(range(n_samples))
        assert shuffle or order == list(range(n_samples))


def test_each_epoch_is_shuffled_anew_by_the_generator():
    X = torch.arange(40).unsqueeze(1)
    own = Batches(X, X, None, 10, generator())
    epochs = [torch.cat([Xi for Xi, _ in own]).ravel().tolist() for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    same = generator()
    assert epochs == [torch.randperm(40, generator=same).tolist() for _ in range(3)]


def test_one_batch_of_all_rows_is_not_shuffled_and_draws_nothing():
    X = torch.arange(9).unsqueeze(1)
    own = generator()
    before = own.get_state()
    (only,) = Batches(X, X, None, 9, own)
    assert torch.equal(only[0], X) and torch.equal(own.get_state(), before)


@pytest.mark.parametrize("dense_numbers", [0, 1 << 20])
@given(**sizes)
def test_sparse_rows_are_those_of_the_dense_matrix(dense_numbers, n_samples, batch_size, shuffle):
    random = np.random.default_rng(0)
    X = (random.standard_normal((n_samples, 6)) * (random.random((n_samples, 6)) < 0.3)).astype(np.float32)
    y = torch.arange(n_samples)
    dense = Batches(torch.from_numpy(X), y, None, batch_size, generator() if shuffle else None)
    compressed = Batches(sparse.csr_array(X), y, None, batch_size, generator() if shuffle else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "DENSE_NUMBERS", dense_numbers)
        for (Xi, yi), (of_sparse, same) in zip(dense, compressed, strict=True):
            assert of_sparse.layout == (torch.strided if dense_numbers else torch.sparse_csr)
            assert torch.equal(of_sparse if dense_numbers else of_sparse.to_dense(), Xi) and torch.equal(yi, same)


def test_entries_given_twice_add_up():
    X = sparse.csr_array((np.ones(3, np.float32), np.array([1, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "DENSE_NUMBERS", 0)
        assert rows_of(X, slice(None)).to_dense().tolist() == [[0.0, 2.0], [1.0, 0.0]]
    assert X.nnz == 3


def test_wide_sparse_rows_go_through_a_network_a_few_at_a_time():
    assert rows_at_a_time(torch.zeros(3, 10**6)) == rows_at_a_time(np.zeros((3, 9))) == 4096
    assert rows_at_a_time(sparse.csr_array((3, 100))) == 4096
    for n_features in (10_000, 100_000, 10**9):
        n_rows = rows_at_a_time(sparse.csr_array((3, n_features)))
        assert n_rows == 1 or n_rows * n_features <= 2**24
