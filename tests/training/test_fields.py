"""Fields behave as one array whose rows have several parts."""

import numpy as np
import pytest
import torch
from scipy import sparse

from skpt.exceptions import InvalidInputError
from skpt.training.batches import Batches, rows_at_a_time, rows_of
from skpt.training.fields import Fields
from skpt.training.ladder import BatchesDataset
from skpt.training.rows import equal_rows, hold_out, merge_equal_rows


@pytest.fixture
def fields():
    random = np.random.default_rng(0)
    return Fields({"image": random.standard_normal((7, 2, 3)), "table": random.standard_normal((7, 4))})


def test_length_shape_and_names(fields):
    assert len(fields) == 7 and fields.shape == (7, 2 * 3 + 4) and list(fields) == list(fields.keys()) == ["image", "table"]
    assert fields[2]["table"].tolist() == fields["table"][2].tolist()


@pytest.mark.parametrize("rows", [slice(1, 5), np.array([3, 0]), np.arange(7) > 2], ids=["slice", "numbers", "mask"])
def test_rows_are_taken_of_every_field(fields, rows):
    part = fields[rows]
    for name, array in fields.items():
        np.testing.assert_array_equal(part[name], array[rows])


def test_unequal_numbers_of_rows_are_an_error():
    with pytest.raises(InvalidInputError, match=r"inconsistent numbers of samples: \{'a': 3, 'b': 2\}"):
        Fields({"a": np.zeros(3), "b": np.zeros(2)})


def test_rows_become_a_dict_of_tensors(fields):
    tensors = Fields({"image": torch.from_numpy(fields["image"]), "table": sparse.csr_array(fields["table"])})
    index = torch.tensor([4, 1])
    part = rows_of(tensors, index)
    assert type(part) is dict
    np.testing.assert_array_equal(part["image"], fields["image"][[4, 1]])
    np.testing.assert_array_equal(part["table"], fields["table"][[4, 1]])
    assert rows_at_a_time(fields) == 4096
    wide = Fields({"a": torch.zeros(3, 2), "b": sparse.csr_array((3, 2**20))})
    assert rows_at_a_time(wide) == rows_at_a_time(wide["b"]) < 4096


def test_batches_and_their_dataset_hold_the_same_rows(fields):
    tensors = fields.map(torch.from_numpy)
    y = torch.arange(7.0)
    batches = Batches(tensors, y, None, 3, torch.Generator().manual_seed(0))
    seen = [(X["table"], yi) for X, yi in batches]
    order = torch.cat([yi for _, yi in seen]).long()
    assert sorted(order.tolist()) == list(range(7)) and len(seen) == 3
    assert torch.equal(torch.cat([X for X, _ in seen]), tensors["table"][order])
    X, yi = BatchesDataset(batches)[5]
    assert torch.equal(X["image"], tensors["image"][5]) and yi == 5.0


def test_equal_rows_are_equal_in_all_fields():
    a, b = np.array([1.0, 1.0, 1.0, 2.0]), np.array([[0.0], [0.0], [5.0], [0.0]])
    y = np.zeros(4)
    first, kind = equal_rows(Fields({"a": a, "b": b}), y)
    assert len(first) == 3 and kind[0] == kind[1] and len({kind[0], kind[2], kind[3]}) == 3
    X, _, weight = merge_equal_rows(Fields({"a": a, "b": b}), y, None)
    assert sorted(weight.tolist()) == [1, 1, 2] and len(X) == 3


def test_the_same_numbers_in_another_field_are_another_row():
    swapped = Fields({"a": np.array([1.0, 2.0]), "b": np.array([2.0, 1.0])})
    assert len(equal_rows(swapped, np.zeros(2))[0]) == 2


def test_labels_of_several_tasks_count_too():
    labels = Fields({"name": np.array(["x", "x", None, None, "y"], dtype=object), "size": np.array([1.0, 1.0, 1, 1, 1])})
    first, kind = equal_rows(np.zeros((5, 1)), labels)
    assert len(first) == 3 and kind[0] == kind[1] and kind[2] == kind[3]


def test_equal_rows_are_held_out_together(fields):
    twice = fields[np.repeat(np.arange(7), 2)]
    train, valid = hold_out(twice, np.zeros(14), None, 0.3, None, torch.Generator().manual_seed(0))
    assert set(train // 2).isdisjoint(valid // 2) and len(valid) == 4
