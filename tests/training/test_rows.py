"""Which rows are equal, and which are held out: laws that hold whatever the rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse

from skpt.training.rows import equal_rows, hold_out, merge_equal_rows

shapes = st.tuples(st.integers(1, 30), st.integers(1, 3))
few_values = arrays.arrays(np.float64, shapes, elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-300, 1e30]))


def labels_of(X):
    return np.arange(len(X)) % 2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(X=few_values)
def test_rows_are_of_a_kind_if_and_only_if_they_are_equal(X):
    y = labels_of(X)
    first, kind = equal_rows(X, y)
    equal = (X[:, None] == X[None]).all(2) & (y[:, None] == y[None])
    np.testing.assert_array_equal(kind[:, None] == kind[None], equal)
    np.testing.assert_array_equal(kind[first], np.arange(len(first)))


@given(X=few_values, seed=st.integers(0, 5))
def test_the_order_of_kinds_depends_on_content_alone(X, seed):
    y = labels_of(X)
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(X)), 2))
    first, _ = equal_rows(X, y)
    shuffled, _ = equal_rows(X[order], y[order])
    np.testing.assert_array_equal(X[first], X[order][shuffled])
    np.testing.assert_array_equal(y[first], y[order][shuffled])


def test_rows_that_were_seen_before_are_looked_at_again():
    """What is remembered of small arrays is known by their content, and nobody can change it."""
    X, y = np.array([[1.0], [2.0], [1.0]]), np.zeros(3)
    first, kind = equal_rows(X, y)
    assert kind[0] == kind[2] != kind[1]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 2
    X[0] = 2.0
    assert equal_rows(X, y)[1].tolist() != kind.tolist()
    assert len(equal_rows(X, np.arange(3.0))[0]) == 3
    assert len(equal_rows(X.astype(np.float32), y)[0]) == 2
    assert len(equal_rows(X.T.copy(), y[:1])[0]) == 1


@given(X=few_values, form=st.sampled_from([sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_array]))
def test_dense_and_sparse_rows_are_of_the_same_kinds(X, form):
    y = labels_of(X)
    for dense, other in zip(equal_rows(X, y), equal_rows(form(X), y), strict=True):
        np.testing.assert_array_equal(dense, other)


def test_a_sparse_matrix_that_is_not_in_order_is_read_and_left_so():
    data, columns, starts = np.array([1.0, 2.0, 3.0, 3.0, 3.0]), np.array([1, 0, 0, 1, 1]), np.array([0, 2, 5])
    X = sparse.csr_array((data, columns, starts), shape=(2, 2))
    ordered = sparse.csr_array(np.array([[2.0, 1.0], [3.0, 6.0]]))
    np.testing.assert_array_equal(equal_rows(X, np.zeros(2))[0], equal_rows(ordered, np.zeros(2))[0])
    assert X.indices.tolist() == [1, 0, 0, 1, 1] and X.nnz == 5


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.int8, bool])
def test_numbers_of_any_dtype_are_of_the_same_kinds(dtype):
    X = np.random.default_rng(0).integers(0, 2, (40, 3))
    for by_float, by_dtype in zip(equal_rows(X.astype(float), X[:, 0]), equal_rows(X.astype(dtype), X[:, 0]), strict=True):
        np.testing.assert_array_equal(by_float, by_dtype)


@pytest.mark.parametrize("y", [np.array(list("abab")), np.array(["a", "bb", "a", "bb"], dtype=object), np.eye(4)[[0, 1, 0, 1]]])
def test_y_may_be_labels_or_columns(y):
    _, kind = equal_rows(np.zeros((4, 2)), y)
    assert kind[0] == kind[2] != kind[1] == kind[3]


@given(X=few_values, data=st.data())
def test_merged_rows_carry_the_sum_of_their_weights(X, data):
    y = labels_of(X)
    weight = np.array(data.draw(st.lists(st.integers(1, 5), min_size=len(X), max_size=len(X))), dtype=float)
    merged_X, merged_y, merged_weight = merge_equal_rows(X, y, weight)
    assert len(np.unique(np.c_[merged_X + 0.0, merged_y], axis=0)) == len(merged_X)
    if merged_weight is None:
        merged_weight = np.full(len(merged_X), weight.sum() / len(merged_X))
    table, merged = np.c_[X, y], np.c_[merged_X, merged_y]
    np.testing.assert_allclose(merged_weight @ merged, weight @ table, rtol=1e-12)
    repeated = merge_equal_rows(np.repeat(X, weight.astype(int), axis=0), np.repeat(y, weight.astype(int)), None)
    for a, b in zip((merged_X, merged_y), repeated[:2], strict=True):
        np.testing.assert_array_equal(a, b)


@given(
    X=arrays.arrays(np.float64, st.tuples(st.integers(2, 60), st.just(2)), elements=st.floats(-5, 5)),
    fraction=st.floats(0.05, 0.9),
    n_classes=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_every_row_is_on_one_side_and_equal_rows_on_the_same(X, fraction, n_classes, seed):
    y = np.arange(len(X)) % n_classes
    X, y = np.repeat(X, 2, axis=0), np.repeat(y, 2)
    train, valid = hold_out(X, y, None, fraction, y, generator(seed))
    assert sorted([*train, *valid]) == list(range(len(X)))
    assert (np.diff(train) > 0).all() and (np.diff(valid) > 0).all()
    in_train = np.zeros(len(X), dtype=bool)
    in_train[train] = True
    _, kind = equal_rows(X, y)
    for each in np.unique(kind):
        assert len(set(in_train[kind == each])) == 1
    assert len(valid) >= 1
    for label in np.unique(y):
        if len(np.unique(kind[y == label])) > 1 and len(np.unique(y)) > 1:
            assert in_train[y == label].any(), "a class with several kinds of rows keeps one in training"


@given(fraction=st.floats(0.05, 0.9), n_samples=st.integers(20, 200), seed=st.integers(0, 3))
def test_the_fraction_is_held_out_of_every_class(fraction, n_samples, seed):
    X, y = np.arange(n_samples)[:, None], np.arange(n_samples) % 3
    _, valid = hold_out(X, y, None, fraction, y, generator(seed))
    for label in range(3):
        assert abs((y[valid] == label).sum() - fraction * (y == label).sum()) <= 1


@given(seed=st.integers(0, 20))
def test_the_fraction_is_one_of_the_weight(seed):
    random = np.random.default_rng(seed)
    X, weight = np.arange(100)[:, None], random.uniform(0.1, 3, 100)
    _, valid = hold_out(X, X[:, 0], weight, 0.3, None, generator(seed))
    assert abs(weight[valid].sum() - 0.3 * weight.sum()) <= weight.max() / 2 + 1e-9


def test_weights_and_repeated_rows_hold_out_the_same_kinds():
    random = np.random.default_rng(0)
    X, weight = random.standard_normal((40, 3)), random.integers(1, 5, 40)
    y = np.arange(40) % 2
    order = random.permutation(weight.sum())
    repeated_X, repeated_y = np.repeat(X, weight, axis=0)[order], np.repeat(y, weight)[order]
    _, valid = hold_out(X, y, weight, 0.3, y, generator())
    _, of_repeated = hold_out(repeated_X, repeated_y, None, 0.3, repeated_y, generator())
    assert {tuple(row) for row in X[valid]} == {tuple(row) for row in repeated_X[of_repeated]}


def test_the_generator_decides_and_is_moved_by_one_draw():
    X, y = np.arange(50)[:, None], np.arange(50) % 2
    own = generator()
    first, second = (hold_out(X, y, None, 0.2, y, own)[1].tolist() for _ in range(2))
    assert first != second
    assert first == hold_out(X, y, None, 0.2, y, generator())[1].tolist()
    one_draw = generator()
    torch.randperm(50, generator=one_draw)
    assert second == hold_out(X, y, None, 0.2, y, one_draw)[1].tolist()


def test_where_all_rows_are_equal_none_is_left_to_train():
    train, valid = hold_out(np.ones((5, 2)), np.ones(5), None, 0.2, None, generator())
    assert len(train) == 0 and len(valid) == 5
