"""Targets: what goes into a network, what comes out of it, and what is kept in a file."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from skpt.exceptions import InvalidInputError
from skpt.training.targets import ClassTarget, NumericTarget, SequenceTarget, target_from_dict

Y = np.random.default_rng(0).standard_normal((40, 2)) * [1e-9, 1e6] + [0, 1e7]


@pytest.mark.parametrize("y", [Y[:, 0], Y[:, 1], Y[:, :1], Y, Y.astype(np.float32)])
@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("weight", [None, np.linspace(0.1, 2, 40)])
def test_numbers_come_out_as_they_went_in(y, standardized, weight):
    target = NumericTarget.from_y(y)
    if standardized:
        target.standardize(y, weight)
    encoded = target.encode(y)
    assert encoded.dtype == torch.float32 and encoded.shape == (40, target.n_outputs)
    if standardized:
        mean = np.average(encoded.double().numpy(), axis=0, weights=weight)
        np.testing.assert_allclose(mean, 0, atol=1e-5)
        np.testing.assert_allclose(np.average(encoded.double().numpy() ** 2, axis=0, weights=weight), 1, rtol=1e-4)
    decoded = target.decode(encoded.numpy())
    assert decoded.shape == y.shape and decoded.dtype == y.dtype
    np.testing.assert_allclose(decoded, y, rtol=1e-6, atol=1e-6 * np.abs(y).max())
    again = target_from_dict(json.loads(json.dumps(target.to_dict())))
    np.testing.assert_array_equal(again.decode(encoded.numpy()), decoded)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e30, -1e-30])
def test_a_constant_target_keeps_the_scale_one(constant):
    target = NumericTarget.from_y(np.full(1000, constant))
    target.standardize(np.full(1000, constant), None)
    assert target.scale.tolist() == [1.0]


@pytest.mark.parametrize("large", [1e39, -1e300])
def test_numbers_that_do_not_fit_float32_are_errors(large):
    y = np.r_[Y[:, 0], large]
    with pytest.raises(InvalidInputError, match="Input y contains infinity or a value too large"):
        NumericTarget.from_y(y).encode(y)


def test_another_number_of_columns_is_an_error():
    with pytest.raises(InvalidInputError, match="y has 2 outputs, but this estimator was fitted with 1"):
        NumericTarget.from_y(Y[:, 0]).check(Y)
    NumericTarget.from_y(Y[:, 0]).check(Y[:, :1])


SEQUENCES = np.random.default_rng(0).standard_normal((40, 3, 2)) * [1e-9, 1e6] + [0, 1e7]


@pytest.mark.parametrize("y", [Y[:, 0], Y[:, 1:], SEQUENCES[:, :, 0], SEQUENCES, SEQUENCES[:, :, :1].astype(np.float32)])
@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("weight", [None, np.linspace(0.1, 2, 40)])
def test_sequences_come_out_as_they_went_in(y, standardized, weight):
    target = SequenceTarget.from_y(y)
    assert target.output_shape == (*y.shape[1:], 1, 1)[:2]
    if standardized:
        target.standardize(y, weight)
    encoded = target.encode(y)
    assert encoded.dtype == torch.float32 and encoded.shape == (40, *target.output_shape)
    if standardized:  # an output over all of its steps
        squares = np.stack([encoded.double().numpy(), encoded.double().numpy() ** 2]).mean(axis=2)
        mean, mean_square = np.average(squares, axis=1, weights=weight)
        np.testing.assert_allclose(mean, 0, atol=1e-5)
        np.testing.assert_allclose(mean_square, 1, rtol=1e-4)
    decoded = target.decode(encoded.numpy())
    assert decoded.shape == y.shape and decoded.dtype == y.dtype
    np.testing.assert_allclose(decoded, y, rtol=1e-6, atol=1e-6 * np.abs(y).max())
    again = target_from_dict(json.loads(json.dumps(target.to_dict())))
    np.testing.assert_array_equal(again.decode(encoded.numpy()), decoded)


def test_other_steps_or_outputs_are_an_error():
    target = SequenceTarget.from_y(SEQUENCES[:, :, 0])
    target.check(SEQUENCES[:, :, :1])
    for y in (SEQUENCES, SEQUENCES[:, :2, 0], Y[:, 0]):
        with pytest.raises(InvalidInputError, match="3 steps of 1 outputs"):
            target.check(y)


LABELS = [np.array(["a", "b", "c"]), np.array([-1, 5]), np.array([False, True]), np.array(["x", "y"], dtype=object)]
LABELS += [np.array(["2020-02-01", "2021-01-01"], dtype="M8[D]"), np.array([10**18, 5], dtype="m8[ns]")[::-1]]


@pytest.mark.parametrize("classes", LABELS)
@pytest.mark.parametrize("takes_index", [False, True])
def test_labels_come_out_as_they_went_in(classes, takes_index):
    y = classes[np.arange(12) % len(classes)]
    found, multilabel = ClassTarget.classes_of(y)
    target = ClassTarget(found, multilabel, takes_index)
    encoded = target.encode(y)
    n_classes = len(classes)
    if takes_index:
        assert encoded.dtype == torch.int64 and encoded.shape == (12,)
        outputs = np.eye(n_classes)[encoded.numpy()]
    else:
        assert encoded.shape == (12, target.n_outputs) and target.n_outputs == (1 if n_classes == 2 else n_classes)
        outputs = 2 * encoded.numpy() - 1
    decoded = target.decode(outputs)
    assert decoded.dtype == classes.dtype
    np.testing.assert_array_equal(decoded, y)
    again = target_from_dict(json.loads(json.dumps(target.to_dict())))
    assert again.classes.dtype == classes.dtype
    np.testing.assert_array_equal(again.decode(outputs), y)


@given(outputs=st.lists(st.floats(-700, 700), min_size=3, max_size=3))
def test_probabilities_of_a_row_add_up_to_one_and_agree_with_the_label(outputs):
    outputs = np.array([outputs], dtype=np.float32)
    classes = np.array(["a", "b", "c"])
    by_softmax, by_sigmoid = (ClassTarget(classes, False, takes_index) for takes_index in (True, False))
    np.testing.assert_allclose(by_softmax.probabilities(outputs), softmax(outputs.astype(float), axis=1))
    for target in (by_softmax, by_sigmoid):
        p = target.probabilities(outputs)
        assert p.sum() == pytest.approx(1) and (p >= 0).all()
        assert p[0, classes.tolist().index(target.decode(outputs)[0])] == p.max()
        np.testing.assert_array_equal(target.decision(outputs), outputs)
    two = ClassTarget(classes[:2], False, False)
    np.testing.assert_allclose(two.probabilities(outputs[:, :1])[:, 1], expit(outputs[:, 0].astype(float)))
    assert two.decode(outputs[:, :1])[0] == ("b" if two.decision(outputs[:, :1])[0] > 0 else "a")
    two = ClassTarget(classes[:2], False, True)
    assert two.decode(outputs[:, :2])[0] == ("b" if two.decision(outputs[:, :2])[0] > 0 else "a")


def test_indicators_come_out_as_they_went_in():
    y = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    classes, multilabel = ClassTarget.classes_of(y)
    target = ClassTarget(classes, multilabel, False)
    assert multilabel and classes.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(target.decode(2 * target.encode(y).numpy() - 1), y)
    np.testing.assert_allclose(target.probabilities(np.zeros((2, 3))), 0.5)
    again = target_from_dict(json.loads(json.dumps(target.to_dict())))
    assert again.multilabel and again.n_outputs == 3


def test_unknown_labels_and_other_forms_are_errors():
    target = ClassTarget(np.array([1, 2]), False, False)
    with pytest.raises(InvalidInputError, match=r"labels that are not in classes: \[7\]. The classes are \[1, 2\]"):
        target.check(np.array([1, 2, 7]))
    with pytest.raises(InvalidInputError, match="another form than before"):
        target.check(np.eye(2))
    with pytest.raises(InvalidInputError, match="another form than before: indicators of 2 classes"):
        ClassTarget(np.arange(2), True, False).check(np.array([0, 1]))
    with pytest.raises(InvalidInputError, match="use MultiOutputClassifier"):
        ClassTarget.classes_of(np.array([[1, 2], [3, 4]]))
    with pytest.raises(InvalidInputError, match=r"one of the kinds .*'sequences'.*\. Got 'words'"):
        target_from_dict({"kind": "words"})
