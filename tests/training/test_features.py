"""Features: scaling as scikit-learn's StandardScaler, and numbers that fit float32."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_X_y

from skpt.exceptions import InvalidInputError
from skpt.training import features
from skpt.training.features import FeatureScaler, as_tensor, is_plain, spread_in_units_of, to_float32

X = np.random.default_rng(0).standard_normal((50, 4)) * [1, 1e-6, 1e6, 3] + [0, 5, 1e6, 0]


@pytest.mark.parametrize("weight", [None, np.linspace(0.1, 3, 50)])
def test_scaling_is_that_of_standard_scaler(weight):
    oracle = StandardScaler().fit(X, sample_weight=weight)
    scaler = FeatureScaler.from_rows(X, weight)
    np.testing.assert_allclose(scaler.mean, oracle.mean_, atol=1e-12)
    np.testing.assert_allclose(scaler.scale, oracle.scale_)
    np.testing.assert_allclose(scaler(X), oracle.transform(X), rtol=1e-6, atol=1e-6)


def test_scaling_to_single_precision_makes_no_copy_in_double(monkeypatch):
    monkeypatch.setattr(features, "_NUMBERS_AT_ONCE", 12)
    scaler = FeatureScaler.from_rows(X, None)
    scaled = scaler(X, np.float32)
    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, scaler(X).astype(np.float32))
    with pytest.raises(InvalidInputError, match="float32"):
        scaler(X * 1e300, np.float32)


def test_what_lies_on_a_device_is_not_pickled():
    scaler = FeatureScaler.from_rows(X, None)
    batch = torch.from_numpy(X)
    scaled = scaler.of_batch(batch)
    kept = pickle.loads(pickle.dumps(scaler))
    assert vars(scaler)["_on_device"] is not None and vars(kept)["_on_device"] is None
    torch.testing.assert_close(kept.of_batch(batch), scaled, rtol=0, atol=0)


@pytest.mark.parametrize("weight", [None, np.linspace(0.1, 3, 50)])
@pytest.mark.parametrize("axis", [1, 2])
def test_places_without_and_with_missing_numbers(weight, axis):
    """Against weighted sums over what is there."""
    places = np.random.default_rng(1).normal(3, 2, (50, 4, 4))
    others = tuple(i for i in range(3) if i != axis)
    w = np.broadcast_to((np.ones(50) if weight is None else weight)[:, None, None], places.shape)
    for missing in (False, True):
        seen = ~np.isnan(places)
        filled = np.where(seen, places, 0.0)
        total = (w * seen).sum(axis=others, keepdims=True)
        mean = (w * filled).sum(axis=others, keepdims=True) / total
        var = (w * seen * (filled - mean) ** 2).sum(axis=others, keepdims=True) / total
        scaler = FeatureScaler.from_places(places, weight, axis)
        np.testing.assert_allclose(scaler.mean, mean[0], rtol=1e-12)
        np.testing.assert_allclose(scaler.scale, np.sqrt(var)[0], rtol=1e-12)
        if not missing:
            places[3, 2:, :] = np.nan


def test_a_feature_that_the_first_rows_lack_is_scaled_exactly():
    places = np.random.default_rng(0).normal(1e8, 1.0, (500, 3, 2))
    places[:100, :, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaler = FeatureScaler.from_places(places, None, axis=2)
    np.testing.assert_allclose(scaler.scale.ravel(), [places[..., 0].std(), np.nanstd(places[..., 1])], rtol=1e-6)


@pytest.mark.parametrize("weight", [None, np.linspace(0.1, 3, 50)])
def test_sparse_features_are_scaled_alike_and_not_centred(weight):
    dense = FeatureScaler.from_rows(X, weight)
    scaler = FeatureScaler.from_rows(sparse.csr_array(X), weight)
    np.testing.assert_allclose(scaler.scale[[0, 3]], dense.scale[[0, 3]])
    assert not scaler.mean.any()
    scaled = scaler(sparse.csr_array(X))
    assert sparse.issparse(scaled)
    np.testing.assert_allclose(scaled.toarray(), X / scaler.scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 1e8, -3e-20])
def test_a_constant_feature_keeps_the_scale_one(dtype, constant):
    column = np.full((1000, 1), constant, dtype=dtype)
    assert FeatureScaler.from_rows(column, None).scale.tolist() == [1.0]
    assert FeatureScaler.from_rows(column, np.linspace(0.1, 3, 1000)).scale.tolist() == [1.0]
    assert FeatureScaler.from_rows(sparse.csr_array(column), None).scale.tolist() == [1.0]


@pytest.mark.parametrize("mean", [0.5, 300.0])
def test_numbers_in_half_precision_are_scaled_unless_they_are_constant(mean):
    places = np.random.default_rng(0).normal(mean, 0.02 * mean, (40, 2, 50)).astype(np.float16)
    places[:, 1] = mean
    scaler = FeatureScaler.from_places(places, None, axis=1)
    np.testing.assert_allclose(scaler.scale.ravel(), [places[:, 0].astype(float).std(), 1.0], rtol=1e-6)


def test_a_constant_has_no_spread_to_compare():
    spread = spread_in_units_of(np.array([0.5, 1.0, 1e-3, 1.0]), np.array([2.0, 50.0, 1.0, 1.0]))
    assert spread.tolist() == [0.25, 1.0, 1.0, 1.0]


def test_a_scaler_goes_through_json_types():
    scaler = FeatureScaler.from_rows(X, None)
    again = FeatureScaler(**scaler.to_dict())
    np.testing.assert_array_equal(again(X), scaler(X))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, bool])
def test_numbers_become_float32_and_are_not_written_to(dtype):
    numbers = (np.arange(6).reshape(2, 3) % 2).astype(dtype)
    numbers.setflags(write=False)
    tensor = to_float32(numbers)
    assert tensor.tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]
    tensor.zero_()
    assert numbers.any()
    assert to_float32(sparse.csr_array(numbers)).dtype == np.float32


@pytest.mark.filterwarnings("error")
def test_a_tensor_shares_memory_that_may_be_written_to():
    numbers = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert as_tensor(numbers).data_ptr() == numbers.ctypes.data
    numbers.setflags(write=False)
    tensor = as_tensor(numbers)
    assert tensor.dtype == torch.uint8 and tensor.tolist() == numbers.tolist()
    tensor.zero_()
    assert numbers.any()


def test_float32_is_shared_where_it_can_be():
    numbers = np.ones((2, 3), dtype=np.float32)
    assert to_float32(numbers).data_ptr() == numbers.ctypes.data
    assert to_float32(numbers.T).is_contiguous()


@pytest.mark.parametrize("large", [1e39, -1e39, 1e300])
def test_numbers_that_do_not_fit_are_errors(large):
    numbers = X.copy()
    numbers[3, 2] = large
    for form in (np.asarray, sparse.csr_array):
        with pytest.raises(InvalidInputError, match="infinity or a value too large"):
            to_float32(form(numbers))
    if abs(large) == 1e300:
        with pytest.raises(InvalidInputError, match="infinity or a value too large"):
            FeatureScaler.from_rows(numbers, None)
    to_float32(np.full((10**5, 1), 3e38)), "a sum that is too large is no number that is"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plain_arrays_are_those_that_scikit_learn_gives_back(dtype):
    X, y = np.ones((4, 2), dtype), np.ones(4, dtype)
    assert is_plain(X, ndim=2) and is_plain(y, ndim=1)
    checked = check_X_y(X, y, multi_output=True, y_numeric=True, dtype=[np.float64, np.float32])
    assert checked[0] is X and checked[1] is y


@pytest.mark.parametrize(
    "X",
    [
        [[1.0]],
        np.ones((2, 2), int),
        np.ones((2, 2), ">f8"),
        np.ones((2, 2), np.float16),
        np.ones((0, 2)),
        np.ones((2, 0)),
        np.ones(2),
        np.array([[np.nan]]),
        np.array([[np.inf]]),
        np.array([[1e308, 1e308]]),
        np.ma.ones((2, 2)),
        np.ones((2, 2), object),
    ],
    ids=str,
)
def test_whatever_needs_a_question_is_not_plain(X):
    assert not is_plain(X, ndim=2)
