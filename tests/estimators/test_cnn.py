"""Images as users have them: bytes, floats, flat, with and without channels; augmentation; searches."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skpt import CNNClassifier, CNNRegressor
from skpt.exceptions import InvalidInputError, NotConvergedWarning
from skpt.training import sources
from skpt.training.sources import RowSource

QUICK = {"channels": (4,), "hidden_layer_sizes": (8,), "max_epochs": 3, "lr": 0.02, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore::skpt.exceptions.NotConvergedWarning")


@pytest.fixture(scope="module")
def digits():
    images, y = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8)[:400], y[:400]


def assert_same(one, other, tolerance=0.0):
    for a, b in zip(one.module_.state_dict().values(), other.module_.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=tolerance, atol=tolerance)


FORMS = {
    "n, c, h, w": lambda images: (images[:, None], {}),
    "flat": lambda images: (images.reshape(len(images), -1), {"image_shape": (8, 8)}),
    "flat with channels": lambda images: (images.reshape(len(images), -1), {"image_shape": (1, 8, 8)}),
    "DataFrame": lambda images: (pd.DataFrame(images.reshape(len(images), -1)), {"image_shape": (8, 8)}),
    "nested lists": lambda images: (images.tolist(), {}),
    "tensor": lambda images: (torch.from_numpy(images), {}),
    "float32": lambda images: (images.astype("f4"), {}),
    "integers": lambda images: (images.astype(int), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_images_gives_the_same(digits, form):
    images, y = digits
    X, parameters = FORMS[form](images)
    plain = CNNClassifier(**QUICK).fit(images, y)
    net = CNNClassifier(**QUICK, **parameters).fit(X, y)
    assert net.input_shape_ == (1, 8, 8)
    assert net.n_features_in_ == 64
    assert_same(plain, net, 1e-5)
    np.testing.assert_allclose(net.predict_proba(X), plain.predict_proba(images), atol=1e-5)


def test_bytes_are_parts_of_255_and_stay_bytes_until_a_batch(digits, monkeypatch):
    images, y = digits
    as_bytes = (images * 15).astype(np.uint8)
    kept = []
    encode = CNNClassifier._encode_X
    monkeypatch.setattr(CNNClassifier, "_encode_X", lambda self, X: kept.append(encode(self, X)) or kept[-1])
    net = CNNClassifier(**QUICK, standardize_features=False).fit(as_bytes, y)
    assert [each.dtype for each in kept] == [torch.uint8]
    plain = CNNClassifier(**QUICK, standardize_features=False).fit(as_bytes.astype("f4") / np.float32(255), y)
    assert_same(plain, net, 1e-5)
    np.testing.assert_allclose(net.predict_proba(as_bytes), plain.predict_proba(as_bytes / 255), atol=1e-5)
    np.testing.assert_allclose(net.forward(as_bytes), plain.forward(as_bytes / 255), atol=1e-5)


BYTES = {
    "uint8": lambda images: images,
    "bytes as int64": lambda images: images.astype(int),
    "bytes as int16": lambda images: images.astype(np.int16),
    "bytes as a list": lambda images: images.tolist(),
}
UNIT = {"unit": lambda images: images / 255, "float32 unit": lambda images: images.astype("f4") / np.float32(255)}
WIDE = {"floats up to 255": lambda images: images.astype(float)}
AFTER = {  # what fit saw, and what means the same afterwards
    "uint8": {**BYTES, **UNIT},
    "unit": {**UNIT, "uint8": BYTES["uint8"]},
    "floats up to 255": {**WIDE, **BYTES},
    "bytes as int64": {**WIDE, **BYTES},
}


@pytest.mark.parametrize("standardize_features", [True, False])
@pytest.mark.parametrize("fitted", AFTER)
def test_the_same_images_in_another_dtype_give_the_same_predictions(digits, fitted, standardize_features, tmp_path):
    images, y = (digits[0] * 15).astype(np.uint8), digits[1]
    X = {**BYTES, **UNIT, **WIDE}[fitted](images)
    net = CNNClassifier(**QUICK, standardize_features=standardize_features).fit(X, y)
    assert net.pixel_range_ == {"uint8": "bytes", "unit": "unit"}.get(fitted, "other")
    net.save_params(f_params=tmp_path / "weights")
    loaded = CNNClassifier(**QUICK, standardize_features=standardize_features)
    loaded.load_params(f_params=tmp_path / "weights")
    for each in (net, loaded, pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        for form, make in AFTER[fitted].items():
            np.testing.assert_allclose(each.predict_proba(make(images)), net.predict_proba(X), atol=1e-5, err_msg=form)
            np.testing.assert_allclose(each.forward(make(images)), net.forward(X), atol=1e-4, err_msg=form)
    on_dtypes = [copy.deepcopy(net).partial_fit(make(images), y) for make in AFTER[fitted].values()]
    for other in on_dtypes:
        assert_same(on_dtypes[0], other, 1e-5)
    curves = [
        CNNClassifier(**QUICK, standardize_features=standardize_features)
        .fit(X, y, X_val=make(images), y_val=y)
        .validation_curve_
        for make in AFTER[fitted].values()
    ]
    np.testing.assert_allclose(curves, [curves[0]] * len(curves), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda images: images.astype("f4"), "float32 from 0 to 240"),
        (lambda images: images / 255 - 0.5, "float64 from -0.5 to "),
        (lambda images: images.astype(int) + 100, "int64 from 100 to 340"),
    ],
    ids=["floats up to 240", "negative", "integers above 255"],
)
def test_after_bytes_what_is_neither_bytes_nor_parts_of_255_is_an_error(digits, make, got):
    images, y = (digits[0] * 15).astype(np.uint8), digits[1]
    net = CNNClassifier(**QUICK).fit(images, y)
    message = rf"CNNClassifier was fitted with bytes, which it scales to \[0, 1\].* Got {got}.* Pass uint8, or numbers divided"
    for use in (net.predict, net.forward, lambda X: net.partial_fit(X, y), lambda X: net.fit(images, y, X_val=X, y_val=y)):
        with pytest.raises(InvalidInputError, match=message):
            use(make(images))


def test_booleans_stay_zeros_and_ones(digits):
    images, y = (digits[0] * 15).astype(np.uint8), digits[1]
    net = CNNClassifier(**QUICK).fit(images, y)
    np.testing.assert_array_equal(net.predict_proba(images > 99), net.predict_proba((images > 99).astype(float)))
    assert CNNClassifier(**QUICK).fit(images > 99, y).pixel_range_ == "unit"


def test_a_file_of_before_divides_bytes_alone(digits, tmp_path, monkeypatch):
    images, y = (digits[0] * 15).astype(np.uint8), digits[1]
    net = CNNClassifier(**QUICK).fit(images.astype(float), y)
    learnt = {name: value for name, value in net._learnt_to_dict().items() if name != "pixel_range"}
    monkeypatch.setattr(CNNClassifier, "_learnt_to_dict", lambda self: learnt)
    net.save_params(f_params=tmp_path / "weights")
    monkeypatch.undo()
    old = CNNClassifier(**QUICK)
    old.load_params(f_params=tmp_path / "weights")
    assert old.pixel_range_ is None
    np.testing.assert_array_equal(old.predict_proba(images.astype(int)), net.predict_proba(images.astype(int)))
    np.testing.assert_allclose(old.predict_proba(images), net.predict_proba(images / 255), atol=1e-5)


@pytest.mark.parametrize("standardize_features", [True, False])
@pytest.mark.parametrize("form", ["uint8", "unit", "floats up to 255"])
def test_images_of_a_mapped_file_follow_the_same_rules(digits, form, standardize_features, tmp_path, monkeypatch):
    images, y = (digits[0] * 15).astype(np.uint8), digits[1]
    parameters = {**QUICK, "standardize_features": standardize_features}
    X = {**BYTES, **UNIT, **WIDE}[form](images)
    plain = CNNClassifier(**parameters).fit(X, y)
    monkeypatch.setattr(sources, "LARGE_MAPPING", 0)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "bytes.npy", images)
    read = []
    changed = RowSource.changed
    monkeypatch.setattr(RowSource, "changed", lambda self, part: read.append(len(part)) or changed(self, part))
    net = CNNClassifier(**parameters)
    data = net._read_training(*net._unpack(np.load(tmp_path / "X.npy", mmap_mode="r"), y), None, reset=True)
    read.clear()
    net._learn_scales(data)
    assert net.pixel_range_ == plain.pixel_range_
    assert sum(read) == (1 + len(X) + len(X) if standardize_features else 0)  # one to see, the guess of the mean, and the sums
    CNNRegressor(**parameters).fit(np.load(tmp_path / "X.npy", mmap_mode="r"), y)
    net.fit(np.load(tmp_path / "X.npy", mmap_mode="r"), y)
    mapped = np.load(tmp_path / "bytes.npy", mmap_mode="r")
    np.testing.assert_allclose(net.predict_proba(mapped), plain.predict_proba(images), atol=1e-4)


def test_all_images_of_a_mapped_file_say_what_they_hold(tmp_path, monkeypatch):
    images = np.zeros((2500, 8, 8), int)  # integers are checked by the first part alone
    images[-1] = 200
    np.save(tmp_path / "X.npy", images)
    monkeypatch.setattr(sources, "LARGE_MAPPING", 0)
    net = CNNRegressor(**QUICK | {"max_epochs": 1}).fit(np.load(tmp_path / "X.npy", mmap_mode="r"), np.arange(2500.0))
    assert net.pixel_range_ == "other"


def test_bytes_that_cannot_be_written_to_are_read_without_a_warning(digits):
    images, y = (digits[0] * 15).astype(np.uint8), digits[1]
    images.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=NotConvergedWarning)
        CNNClassifier(**QUICK).fit(images, y).predict(images)


def test_half_precision_is_standardised():
    images = np.random.default_rng(0).normal(0.5, 0.02, (60, 6, 6)).astype(np.float16)
    scaler = CNNRegressor(**QUICK).initialize(images, np.arange(60.0)).scaler_
    assert scaler.scale.item() == pytest.approx(images.astype(float).std())


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_channels_are_standardised_by_the_training_images(dtype):
    X = np.random.default_rng(0).integers(0, 256, (30, 3, 5, 4)) * np.array([1, 0.5, 0.1])[:, None, None]
    X = X.astype(dtype)
    weight = np.r_[np.full(15, 2.0), np.full(15, 1.0)]
    net = CNNRegressor(**QUICK).fit(X, np.arange(30.0), sample_weight=weight)
    unit = 255 if dtype == np.uint8 else 1
    repeated = np.repeat(X / unit, weight.astype(int), axis=0)
    np.testing.assert_allclose(net.scaler_.mean.ravel(), repeated.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(net.scaler_.scale.ravel(), repeated.std(axis=(0, 2, 3)))
    batch = net._encode_batch(net._encode_X(net._read_X(X)))
    np.testing.assert_allclose(batch.numpy(), (X / unit - net.scaler_.mean) / net.scaler_.scale, atol=1e-5)


def test_augmentation_is_seeded_and_for_training_alone(digits):
    images, y = digits
    seen = []

    def flip_and_noise(batch):
        seen.append(batch)
        return (batch.flip(-1) if torch.rand(()) < 0.5 else batch) + 0.1 * torch.randn_like(batch)

    state = torch.get_rng_state()
    as_bytes = (images * 15).astype(np.uint8)
    one, other = (CNNClassifier(**QUICK, augment=flip_and_noise, early_stopping=True).fit(as_bytes, y) for _ in range(2))
    assert_same(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(batch.dtype == torch.float32 and batch.ndim == 4 and batch.min() >= 0 and batch.max() <= 1 for batch in seen)
    assert len({len(batch) for batch in seen}) <= 2
    n_calls = len(seen)
    one.predict(as_bytes)
    assert len(seen) == n_calls
    plain = CNNClassifier(**QUICK, early_stopping=True).fit(as_bytes, y)
    assert (one.module_.output.weight != plain.module_.output.weight).any()


def test_an_augmentation_that_changes_the_shape_is_an_error(digits):
    with pytest.raises(InvalidInputError, match=r"augment must give a tensor of the shape that it takes, \(32, 1, 8, 8\)"):
        CNNClassifier(**QUICK, augment=lambda batch: batch[..., :4]).fit(*digits)


@pytest.mark.parametrize("batch_size", [32, -1])
@pytest.mark.parametrize("shuffle", [False, True])
def test_an_augmentation_may_work_in_place(digits, batch_size, shuffle):
    def erase(batch):
        batch[:, :, torch.randint(8, ())] = 0
        return batch

    images, y = digits[0].astype("f4"), digits[1]
    given = images.copy()
    parameters = {**QUICK, "batch_size": batch_size, "shuffle": shuffle}
    net = CNNClassifier(**parameters, augment=erase).fit(given, y)
    np.testing.assert_array_equal(given, images)
    assert_same(net, CNNClassifier(**parameters, augment=lambda batch: erase(batch.clone())).fit(images, y))


def test_an_augmentation_may_change_the_precision_and_not_the_kind_of_numbers(digits):
    nets = [CNNClassifier(**QUICK, augment=augment).fit(*digits) for augment in (lambda batch: batch.double(), None)]
    assert_same(*nets)
    for wrong in (torch.uint8, torch.bool, torch.int64):
        with pytest.raises(InvalidInputError, match=rf"of the dtype that it takes, torch.float32. Got {wrong}"):
            CNNClassifier(**QUICK, augment=lambda batch, wrong=wrong: batch.to(wrong)).fit(*digits)


def test_it_learns_what_a_linear_map_cannot():
    """Whether a cross stands anywhere in the picture."""
    random = np.random.default_rng(0)
    X, y = np.zeros((600, 10, 10)), np.arange(600) % 2
    for image, has_cross in zip(X, y, strict=True):
        i, j = random.integers(1, 9, 2)
        image[i, j - 1 : j + 2] = 1
        if has_cross:
            image[i - 1 : i + 2, j] = 1
        else:
            image[i, max(j - 2, 0) : j + 3] = 1
    net = CNNClassifier((8,), hidden_layer_sizes=(16,), max_epochs=15, lr=0.01, random_state=0).fit(X[:400], y[:400])
    assert net.score(X[400:], y[400:]) > 0.97


def test_a_search_over_the_architecture(digits):
    images, y = digits
    grid = {"channels": [(2,), (4, 4)], "kernel_size": [3, (1, 5)], "conv_dropout": [0.0, 0.2]}
    search = GridSearchCV(CNNClassifier(**QUICK), grid, cv=2, error_score="raise").fit(images, y)
    assert len(search.best_estimator_.channels) == len([n for n in search.best_estimator_.module_ if "Conv2d" in repr(n)])


def test_sizes_come_in_every_form_of_an_integer(digits):
    images, y = digits
    grid = {"padding": np.arange(3), "kernel_size": np.arange(2, 4)}
    GridSearchCV(CNNClassifier(**QUICK | {"max_epochs": 1}), grid, cv=2, error_score="raise").fit(images, y)
    plain = CNNClassifier(**QUICK, kernel_size=3, pool_size=2).fit(images, y)
    for three, two in (((3,), [2]), (np.array([3]), (2,)), (np.int64(3), np.int64(2))):
        assert_same(plain, CNNClassifier(**QUICK, kernel_size=three, pool_size=two).fit(images, y))


def test_saved_weights_know_the_shape_of_images(digits, tmp_path):
    images, y = digits
    net = CNNClassifier(**QUICK).fit(images, y)
    net.save_params(f_params=tmp_path / "weights", use_safetensors=True)
    fresh = CNNClassifier(**QUICK)
    fresh.load_params(f_params=tmp_path / "weights", use_safetensors=True)
    np.testing.assert_array_equal(fresh.predict_proba(images), net.predict_proba(images))


@pytest.mark.parametrize(
    ("shape", "parameters", "message"),
    [
        ((40, 63), {"image_shape": (8, 8)}, "must have the 64 columns of image_shape"),
        ((40, 8, 8, 1, 1), {}, r"must have the shape \(n_samples, n_channels"),
        ((40, 0, 8), {}, "at least one pixel|0 feature"),
    ],
    ids=str,
)
def test_images_of_a_wrong_shape_are_an_error(shape, parameters, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(**QUICK, **parameters).fit(np.zeros(shape), np.arange(40) % 2)


def test_images_of_another_size_are_an_error_at_predict(digits):
    net = CNNClassifier(**QUICK).fit(*digits)
    with pytest.raises(InvalidInputError, match=r"shape \(1, 9, 8\), but CNNClassifier was fitted with \(1, 8, 8\)"):
        net.predict(np.zeros((2, 9, 8)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": (4, 0)}, "channels"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size"),
        ({"pool_size": 0}, "pool_size"),
        ({"padding": "sane"}, "Did you mean 'same'"),
        ({"padding": True}, "'padding' parameter of CNNClassifier must be 'same', 'valid' or an int .* Got True"),
        ({"image_shape": (8,)}, "image_shape"),
        ({"augment": "flip"}, "augment"),
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_errors(digits, parameters, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(**QUICK | parameters).fit(*digits)


def test_channels_that_come_last_are_noticed():
    X = np.random.default_rng(0).random((20, 8, 9, 3))
    with pytest.warns(UserWarning, match=r"np.moveaxis\(X, -1, 1\)"):
        CNNClassifier(**QUICK).fit(X, np.arange(20) % 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CNNRegressor(**QUICK | {"max_epochs": 1}).fit(np.moveaxis(X, -1, 1), np.arange(20.0))


def test_augmentations_of_kornia(digits):
    """They draw from torch's global generator, and are parameters like any other."""
    from kornia.augmentation import AugmentationSequential, RandomAffine, RandomErasing

    images, y = digits
    as_bytes = (images * 15).astype(np.uint8)
    augment = AugmentationSequential(RandomAffine(degrees=10.0, translate=(0.1, 0.1)), RandomErasing(p=0.2))
    state = torch.get_rng_state()
    one, other = (CNNClassifier(**QUICK, augment=augment).fit(as_bytes, y) for _ in range(2))
    assert_same(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    search = GridSearchCV(CNNClassifier(**QUICK), {"augment": [None, augment]}, cv=2, error_score="raise")
    assert len(set(search.fit(as_bytes, y).cv_results_["mean_test_score"])) == 2
