"""Data in the wild: mapped files, windows, Datasets and DataLoaders are trained on in parts, as the same array would be."""

import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import EpochScoring
from skorch.helper import SliceDataset
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler, WeightedRandomSampler

from skpt import (
    CNNClassifier,
    LinearRegressor,
    MLPClassifier,
    MLPRegressor,
    MultiTaskEstimator,
    RNNRegressor,
    Seq2SeqRegressor,
    TCNRegressor,
    TransformerRegressor,
)
from skpt.datasets import ImageFolderDataset, load_image_folder, make_windows
from skpt.exceptions import InvalidInputError
from skpt.training import sources
from skpt.training.sources import ArrayRows, DatasetRows
from tests.configurations import ESTIMATORS, make_data
from tests.discovery import ROOT

each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: e.__name__)
N_ROWS = 150


def quick(estimator, **parameters):
    return estimator(**{"random_state": 0, "max_epochs": 3, "batch_size": 32, **parameters})


def rows(estimator):
    """Numbers, and targets that a Dataset may give: labels are numbers."""
    X, y = make_data(estimator, N_ROWS)
    return X, np.unique(y, return_inverse=True)[1] if is_classifier(estimator()) else y


def assert_same_nets(one, other):
    """To the last bit: the same rows in the same order are the same training."""
    ours, theirs = one.module_.state_dict(), other.module_.state_dict()
    for name in ours:
        np.testing.assert_array_equal(ours[name].numpy(), theirs[name].numpy(), err_msg=name)
    np.testing.assert_array_equal(one.loss_curve_, other.loss_curve_)
    np.testing.assert_array_equal(one.validation_curve_, other.validation_curve_)


def assert_equal_nets(one, other):
    """As far as a stack and skorch's ladder are equal."""
    ours, theirs = one.module_.state_dict(), other.module_.state_dict()
    for name in ours:
        np.testing.assert_allclose(ours[name].numpy(), theirs[name].numpy(), rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(one.loss_curve_, other.loss_curve_, rtol=1e-5)
    np.testing.assert_allclose(one.validation_curve_, other.validation_curve_, rtol=1e-5)


class Items(Dataset):
    """Pairs of a tensor and a number."""

    def __init__(self, X, y):
        self.X, self.numbers = torch.from_numpy(np.array(X)), np.array(y)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.numbers[i]


@pytest.fixture
def most_read(monkeypatch):
    """Leave everything in place, read few rows at a time, and give the numbers of rows that were read at once."""
    n_rows = []

    def counting(read):
        def counted(self, rows):
            part = read(self, rows)
            n_rows.append(len(part))
            return part

        return counted

    monkeypatch.setattr(sources, "LARGE_MAPPING", 0)
    monkeypatch.setattr(sources, "LARGE_DATASET", 0)
    monkeypatch.setattr(sources, "ITEMS_AT_ONCE", 32)
    for name in ("skpt.base", "skpt.training.job"):
        monkeypatch.setattr(f"{name}.rows_at_a_time", lambda X: 16)
    monkeypatch.setattr("skpt.training.features._NUMBERS_AT_ONCE", 100)
    monkeypatch.setattr("skpt.fusion.stack.FLOATS_AT_ONCE", 1)
    monkeypatch.setattr("skpt.training.rows._ROWS_AT_ONCE", 32)
    monkeypatch.setattr(ArrayRows, "read", counting(ArrayRows.read))
    monkeypatch.setattr(DatasetRows, "items", counting(DatasetRows.items))
    return lambda: max(n_rows, default=0)


@pytest.fixture
def mapped(tmp_path):
    def write(X):
        array = np.memmap(tmp_path / "rows", dtype=X.dtype, mode="w+", shape=X.shape)
        array[:] = X
        return array

    return write


WAYS = {
    "default": ({}, {}),
    "held out": ({"early_stopping": True, "validation_fraction": 0.3}, {}),
    "weighted": ({}, {"sample_weight": np.arange(N_ROWS) % 5 + 1.0}),
    "weights of zero": ({}, {"sample_weight": np.arange(N_ROWS) % 3}),
    "raw": ({"standardize_features": False, "shuffle": False}, {}),
    "a loader of the user's": ({"iterator_train": DataLoader}, {}),
}


# Every estimator in the first two ways; the others do not depend on the family.
CASES = [(e, way) for e in ESTIMATORS for way in list(WAYS)[: None if e in (MLPRegressor, MLPClassifier, CNNClassifier) else 2]]


@pytest.mark.parametrize("kind", ["mapped", "dataset"])
@pytest.mark.parametrize(("estimator", "way"), CASES, ids=lambda each: getattr(each, "__name__", each))
def test_rows_left_in_place_train_as_those_in_memory(estimator, way, kind, most_read, mapped):
    parameters, arguments = WAYS[way]
    X, y = rows(estimator)
    plain = quick(estimator, **parameters).fit(X, y, **arguments)
    predicted, score = plain.predict(X), plain.score(X, y)
    assert not most_read()
    given = (mapped(X), y) if kind == "mapped" else (Items(X, y), None)
    net = quick(estimator, **parameters).fit(*given, **arguments)
    assert_same_nets(net, plain)
    np.testing.assert_allclose(net.predict(given[0]), predicted, rtol=1e-6, atol=1e-7)
    assert net.score(*given) == pytest.approx(score)
    assert 0 < most_read() <= 32


@pytest.mark.parametrize("kind", ["mapped", "dataset"])
@each_estimator
def test_partial_fit_and_warm_start_go_on(estimator, kind, most_read, mapped):
    X, y = rows(estimator)
    given = (mapped(X), y) if kind == "mapped" else (Items(X, y), None)
    nets = []
    for X_y in ((X, y), given):
        net = quick(estimator, warm_start=True).fit(*X_y).fit(*X_y)
        nets.append(net.partial_fit(*X_y))
    assert_same_nets(*nets)
    assert len(nets[1].loss_curve_) == 7 and 0 < most_read() <= 32


def test_one_batch_of_all_rows_is_what_was_asked_for(most_read, mapped):
    X, y = rows(MLPRegressor)
    plain = quick(MLPRegressor, batch_size=-1).fit(X, y)
    assert_same_nets(quick(MLPRegressor, batch_size=-1).fit(mapped(X), y), plain)
    assert most_read() == N_ROWS


def test_plain_descent_of_a_line(most_read, mapped):
    """Which an array in memory may take another way to."""
    X, y = rows(LinearRegressor)
    for parameters in ({"optimizer": "sgd", "lr": 0.01}, {"optimizer": "sgd", "lr": 0.01, "batch_size": 8, "max_epochs": 40}):
        plain = quick(LinearRegressor, **parameters).fit(X, y)
        assert_equal_nets(quick(LinearRegressor, **parameters).fit(mapped(X), y), plain)


def test_labels_of_any_kind_go_with_a_mapped_file(most_read, mapped):
    X, y = make_data(MLPClassifier, N_ROWS)
    net = quick(MLPClassifier, class_weight="balanced").fit(mapped(X), y)
    assert_same_nets(net, quick(MLPClassifier, class_weight="balanced").fit(X, y))
    assert set(net.predict(mapped(X))) <= set(y) and 0 < most_read() <= 32


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
def test_numbers_of_every_dtype_are_read(dtype, most_read, mapped):
    X, y = rows(MLPRegressor)
    X = np.round(np.clip(20 * X + 100, 0, 200)).astype(dtype)
    assert_same_nets(quick(MLPRegressor).fit(mapped(X), y), quick(MLPRegressor).fit(X, y))


# ---------------------------------------------------------------------- errors come before training


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@each_estimator
def test_a_number_that_is_not_finite_is_found_wherever_it_is(estimator, wrong, most_read, mapped):
    X, y = rows(estimator)
    X[-1, 2] = wrong
    with pytest.raises(ValueError, match="contains") as expected:
        quick(estimator).fit(X, y)
    expected = re.sub(r"sequence \d+", r"sequence \\d+", re.escape(str(expected.value).splitlines()[0]).replace(r"\ ", " "))
    for given in ((mapped(X), y), (Items(X, y), None)):
        net = quick(estimator)
        with pytest.raises(ValueError, match=expected) as raised:
            net.fit(*given)
        assert raised.value.__notes__ == ["This is said of rows 144 to 149 of X, counted from the first of these."]
        assert not net.initialized_
        net.fit(X[:-1], y[:-1])
        with pytest.raises(ValueError, match="contains"):
            net.predict(given[0])


@each_estimator
def test_lengths_and_columns_are_compared(estimator, most_read, mapped):
    X, y = rows(estimator)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        quick(estimator).fit(mapped(X), y[:-1])
    net = quick(estimator).fit(X, y)
    with pytest.raises(ValueError, match=r"feature|shape|column"):
        net.predict(mapped(X[:, :2]))
    with pytest.raises(ValueError, match=r"requires y|y cannot be None|target y is None"):
        quick(estimator).fit(mapped(X))


def test_items_of_several_shapes_are_an_error(most_read):
    items = [(torch.zeros(3 + (i == 40)), i % 2) for i in range(50)]
    with pytest.raises(InvalidInputError, match=r"must have one shape. Got \(3,\) and \(4,\)"):
        quick(MLPClassifier).fit(torch.utils.data.Subset(items, range(50)))


# ---------------------------------------------------------------------- DataLoaders


@pytest.mark.parametrize(("estimator", "n_workers"), [*((e, 0) for e in ESTIMATORS), (MLPRegressor, 2), (MLPClassifier, 2)])
@pytest.mark.usefixtures("global_generators_untouched")
def test_a_loader_gives_the_batches(estimator, n_workers):
    X, y = rows(estimator)
    loader = DataLoader(Items(X, y), batch_size=32, num_workers=n_workers)
    net = quick(estimator).fit(loader)
    plain = quick(estimator, shuffle=False).fit(X, y)
    assert_equal_nets(net, plain)
    np.testing.assert_allclose(net.predict(loader), plain.predict(X), rtol=1e-4, atol=1e-5)
    assert net.score(loader) == pytest.approx(plain.score(X, y), abs=1e-4)


def test_order_and_collation_are_the_loaders():
    X, y = rows(MLPRegressor)
    seen = []

    def collate(items):
        seen.append(len(items))
        return torch.stack([x for x, _ in items]), torch.tensor([target for _, target in items])

    order = np.random.default_rng(0).permutation(N_ROWS)[:100]
    loader = DataLoader(Items(X, y), batch_size=20, sampler=order.tolist(), collate_fn=collate)
    net = quick(MLPRegressor, standardize_features=False).fit(loader)
    assert seen == [1, 100, 100] + [20] * 5 * 3  # a row to see its shape, all targets, all inputs; then training
    plain = quick(MLPRegressor, standardize_features=False, shuffle=False, batch_size=20)
    assert_equal_nets(net, plain.fit(X[order], y[order]))


@each_estimator
def test_rows_that_a_sampler_leaves_out_are_not_seen(estimator):
    """In training, for scales and classes, to validate, predict and score."""
    X, y = rows(estimator)
    order = np.random.default_rng(0).permutation(N_ROWS)
    train, valid, neither = np.split(order, [90, 130])
    X[neither], y[neither] = X[neither] * 1000, y[neither] * 5 + 7
    items = Items(X, y)
    loaders = [DataLoader(items, batch_size=32, sampler=each.tolist()) for each in (train, valid)]
    parameters = {"shuffle": False, "early_stopping": True, "max_epochs": 5}
    net = quick(estimator, **parameters).fit(loaders[0], X_val=DataLoader(items, sampler=SubsetRandomSampler(valid)))
    plain = quick(estimator, **parameters).fit(X[train], y[train], X_val=X[valid], y_val=y[valid])
    assert_equal_nets(net, plain)
    np.testing.assert_allclose(net.predict(loaders[1]), plain.predict(X[valid]), rtol=1e-4, atol=1e-5)
    assert net.score(loaders[1]) == pytest.approx(plain.score(X[valid], y[valid]), abs=1e-4)
    if is_classifier(net):
        np.testing.assert_array_equal(net.classes_, np.unique(y[train]))


def test_a_sampler_whose_rows_are_not_known_only_trains():
    X, y = rows(MLPClassifier)
    items = Items(X, y)
    loader = DataLoader(items, batch_size=20, sampler=WeightedRandomSampler(np.ones(N_ROWS), 80))
    net = quick(MLPClassifier).fit(loader)
    assert net.partial_fit(loader).score(items) > 0
    for use in (net.score, net.predict, lambda loader: quick(MLPClassifier, early_stopping=True).fit(items, X_val=loader)):
        with pytest.raises(InvalidInputError, match=r"Got one with a WeightedRandomSampler, .* Pass the Dataset"):
            use(loader)


@each_estimator
def test_values_that_a_collate_fn_changes_are_the_values(estimator):
    X, y = rows(estimator)

    def collate(items):
        return torch.stack([x for x, _ in items]) / 16 - 0.5, torch.from_numpy(np.stack([target for _, target in items]))

    train, valid = (DataLoader(Items(X[part], y[part]), 32, collate_fn=collate) for part in (slice(90), slice(90, None)))
    parameters = {"shuffle": False, "early_stopping": True}
    net = quick(estimator, **parameters).fit(train, X_val=valid)
    changed = X / 16 - 0.5
    plain = quick(estimator, **parameters).fit(changed[:90], y[:90], X_val=changed[90:], y_val=y[90:])
    assert_equal_nets(net, plain)
    np.testing.assert_allclose(net.predict(valid), plain.predict(changed[90:]), rtol=1e-4, atol=1e-5)
    assert net.score(valid) == pytest.approx(plain.score(changed[90:], y[90:]), abs=1e-4)


READ_ONCE = [MLPRegressor, MLPClassifier, CNNClassifier, Seq2SeqRegressor, MultiTaskEstimator]


@pytest.mark.parametrize("estimator", READ_ONCE, ids=lambda e: e.__name__)
@pytest.mark.parametrize("lazy", [False, True], ids=["in memory", "in place"])
@pytest.mark.parametrize("known", [False, True], ids=["targets read", "targets known"])
def test_each_item_is_read_once_to_predict_and_to_score(estimator, lazy, known, monkeypatch):
    X, y = rows(estimator)
    items, n_read = Items(X, y), []
    if known:
        items.targets = items.numbers
    monkeypatch.setattr(Items, "__getitem__", lambda self, i: n_read.append(i) or (self.X[i], self.numbers[i]))

    def count(call, *args):
        n_read.clear()
        call(*args)
        return len(n_read)

    net = quick(estimator, standardize_features=False)
    if not lazy:
        assert count(net.fit, items) == count(net.predict, items) == count(net.score, items) == N_ROWS
        return
    one_to_see = N_ROWS + 1
    loader = DataLoader(items, batch_size=50)
    of_targets = 8 if known else N_ROWS
    assert count(net.fit, loader) == one_to_see + of_targets + 3 * N_ROWS  # one to check all, three epochs
    assert count(net.predict, loader) == count(net.score, loader) == one_to_see


@pytest.mark.parametrize(
    "arguments", [{}, {"shuffle": False}, {"batch_size": N_ROWS}, {"dropout": 0.3, "num_workers": 2}], ids=str
)
@pytest.mark.usefixtures("global_generators_untouched")
def test_an_iterator_of_the_users_takes_the_order_of_rows_in_memory(arguments):
    X, y = rows(MLPRegressor)
    workers = {"iterator_train__num_workers": arguments["num_workers"]} if "num_workers" in arguments else {}
    arguments = {name: value for name, value in arguments.items() if name != "num_workers"}
    plain = quick(MLPRegressor, **arguments).fit(X, y).partial_fit(X, y)
    for given in ((X, y), (Items(X, y), None)):
        net = quick(MLPRegressor, **arguments, iterator_train=DataLoader, **workers).fit(*given)
        assert_equal_nets(net.partial_fit(*given), plain)
    valid = {"X_val": X[::3], "y_val": y[::3]}
    by_loader, in_memory = (
        quick(MLPRegressor, **arguments, **loader).fit(X, y, **valid) for loader in ({"iterator_valid": DataLoader}, {})
    )
    np.testing.assert_allclose(by_loader.loss_curve_, in_memory.loss_curve_, rtol=1e-5)
    resized = quick(MLPRegressor, iterator_train=DataLoader, iterator_train__batch_size=50).fit(X, y)
    assert_equal_nets(resized, quick(MLPRegressor, batch_size=50).fit(X, y))


@pytest.mark.usefixtures("global_generators_untouched")
def test_a_loader_that_shuffles_follows_the_estimators_seed():
    X, y = rows(MLPRegressor)
    nets = [
        quick(MLPRegressor, random_state=seed).fit(DataLoader(Items(X, y), batch_size=20, shuffle=True)) for seed in (0, 0, 1)
    ]
    assert nets[0].loss_curve_.tolist() == nets[1].loss_curve_.tolist() != nets[2].loss_curve_.tolist()


@pytest.mark.parametrize("labels", ["numbers", "strings", "several"])
def test_class_weights_go_with_a_loader(labels):
    X, y = make_data(MLPClassifier, N_ROWS)
    keep = (y != y[0]) | (np.arange(N_ROWS) % 3 == 0)  # one class is rarer
    X, y = X[keep], y[keep]
    codes = np.unique(y, return_inverse=True)[1]
    y = {"numbers": codes, "strings": y.astype(str), "several": np.column_stack([codes == 0, codes < 2]).astype(int)}[labels]

    def collate(items):
        return torch.stack([x for x, _ in items]), np.stack([target for _, target in items])

    net = quick(MLPClassifier, class_weight="balanced").fit(DataLoader(Items(X, y), batch_size=20, collate_fn=collate))
    plain = quick(MLPClassifier, class_weight="balanced", shuffle=False, batch_size=20)
    assert_equal_nets(net, plain.fit(X, y))


def test_a_loader_may_validate():
    X, y = rows(MLPRegressor)
    loader, held_out = DataLoader(Items(X[:100], y[:100]), batch_size=20), Items(X[100:], y[100:])
    parameters = {"shuffle": False, "batch_size": 20, "early_stopping": True}
    plain = quick(MLPRegressor, **parameters).fit(X[:100], y[:100], X_val=X[100:], y_val=y[100:])
    for X_val in (held_out, DataLoader(held_out, batch_size=7)):
        assert_equal_nets(quick(MLPRegressor, **parameters).fit(loader, X_val=X_val), plain)


def test_what_a_loader_cannot_do_is_said():
    X, y = rows(MLPRegressor)
    loader = DataLoader(Items(X, y), batch_size=20)
    with pytest.raises(InvalidInputError, match="sample_weight cannot be given with a DataLoader"):
        quick(MLPRegressor).fit(loader, sample_weight=np.ones(N_ROWS))
    for fit in (quick(MLPRegressor).fit, quick(MLPRegressor).partial_fit):
        with pytest.raises(InvalidInputError, match=r"y cannot be given with a DataLoader.* Got a ndarray\. Leave y out"):
            fit(loader, y)
    with pytest.raises(InvalidInputError, match="Got none: batch_size=200 and drop_last=True with 150 rows"):
        quick(MLPRegressor).fit(DataLoader(Items(X, y), batch_size=200, drop_last=True))
    with pytest.raises(InvalidInputError, match="a second DataLoader as X_val"):
        quick(MLPRegressor, early_stopping=True).fit(loader)
    with pytest.raises(InvalidInputError, match=r"must give batches \(X, y\)\. Got a Tensor"):
        quick(MLPRegressor).fit(DataLoader(Items(X, y), collate_fn=lambda items: torch.stack([x for x, _ in items])))


# ---------------------------------------------------------------------- searches and callbacks


def test_a_search_reads_slices_of_a_dataset(most_read):
    """The recipe of the README: scikit-learn cuts skorch's slices without reading them."""
    X, y = rows(MLPRegressor)
    grid = {"lr": [1e-3, 1e-2]}
    plain = GridSearchCV(quick(MLPRegressor), grid, cv=3).fit(X, y)
    search = GridSearchCV(quick(MLPRegressor), grid, cv=3).fit(SliceDataset(Items(X, y)), y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-5)
    assert 0 < most_read() <= 32
    clone(search)


@pytest.mark.parametrize("given_y", [False, True])
def test_a_search_that_cuts_a_dataset_itself_says_what_to_pass(given_y):
    X, y = rows(MLPRegressor)
    search = GridSearchCV(quick(MLPRegressor), {"lr": [1e-3, 1e-2]}, cv=3, error_score="raise")
    with pytest.raises(InvalidInputError, match=r"Pass skorch\.helper\.SliceDataset"):
        search.fit(Items(X, y), y if given_y else None)


@pytest.mark.parametrize("kind", ["mapped", "dataset"])
def test_callbacks_score_rows_that_stay_where_they_are(kind, most_read, mapped):
    X, y = rows(MLPRegressor)
    given = (mapped(X), y) if kind == "mapped" else (Items(X, y), None)
    scores = []
    for X_y in ((X, y), given):
        scoring = [EpochScoring("r2", on_train=on_train, name=f"r2_{on_train}") for on_train in (True, False)]
        net = quick(MLPRegressor, callbacks=scoring, early_stopping=True).fit(*X_y)
        scores.append([net.history_[:, name] for name in ("r2_True", "r2_False")])
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)


# ---------------------------------------------------------------------- images and windows


def test_images_are_decoded_batch_by_batch(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for name, brightness in [("day", 200), ("night", 50)]:
        for i in range(20):
            (tmp_path / name).mkdir(exist_ok=True)
            pixels = np.clip(random.normal(brightness, 40, (12, 10, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i:02}.png")
    X, y = load_image_folder(tmp_path, 8, return_X_y=True)
    plain = CNNClassifier((4,), max_epochs=4, batch_size=8, random_state=0).fit(X, y)
    lazy = ImageFolderDataset(tmp_path, 8)
    for limit, workers in [(0, {}), (1 << 30, {}), (0, {"iterator_train": DataLoader, "iterator_train__num_workers": 2})]:
        monkeypatch.setattr(sources, "LARGE_DATASET", limit)
        net = clone(plain).set_params(**workers).fit(lazy)
        if not workers:
            assert_equal_nets(net, plain)
        assert net.score(lazy) == pytest.approx(plain.score(X, y), abs=0.1)
        np.testing.assert_array_equal(net.predict(lazy), net.predict(X))


def test_images_of_several_sizes_are_an_error(tmp_path):
    for name, width in [("day", 8), ("night", 9)]:
        (tmp_path / name).mkdir()
        Image.new("RGB", (width, 8)).save(tmp_path / name / "1.png")
    with pytest.raises(InvalidInputError, match=r"Got \(3, 8, 8\) and \(3, 8, 9\)\. .* ImageFolderDataset\(path, size=64\)"):
        CNNClassifier().fit(ImageFolderDataset(tmp_path))


def test_windows_are_never_copied_whole():
    """Windows of 154 MB, of a series of 1.6 MB."""
    series = np.sin(np.arange(100_000) / 7)
    series = np.column_stack([series, np.roll(series, 3)])
    X, y = make_windows(series, length=96, target=0)
    X = X.reshape(len(X), -1)
    assert np.shares_memory(X, series) and X.nbytes > 100e6
    tracemalloc.start()
    try:
        net = quick(MLPRegressor, hidden_layer_sizes=(4,), max_epochs=1, batch_size=256).fit(X, y[:, 0])
        net.predict(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60e6
    some = slice(0, 2000)
    small = quick(MLPRegressor, hidden_layer_sizes=(4,)).fit(X[some], y[some, 0])
    copied = quick(MLPRegressor, hidden_layer_sizes=(4,)).fit(X[some].copy(), y[some, 0])
    assert_equal_nets(small, copied)


@pytest.mark.parametrize("estimator", [RNNRegressor, TransformerRegressor, TCNRegressor], ids=lambda e: e.__name__)
def test_windows_go_to_sequences_as_they_are(estimator, monkeypatch):
    series = np.random.default_rng(0).normal(size=(200, 2)).cumsum(axis=0)
    X, y = make_windows(series, length=12, stride=2, target=1)
    copied = quick(estimator).fit(X.copy(), y[:, 0])
    monkeypatch.setattr(sources, "LARGE_COPY", 0)
    net = quick(estimator).fit(X, y[:, 0])
    assert_same_nets(net, copied)
    np.testing.assert_array_equal(net.predict(X), copied.predict(X.copy()))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mapped_file_is_not_held_in_memory(tmp_path):
    """256 MB, half of which would be seen."""
    program = (
        "import re, sys, warnings; import numpy as np; from skpt import MLPRegressor; warnings.simplefilter('ignore')\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "net = MLPRegressor((4,), max_epochs=1, batch_size=256, random_state=0)\n"
        "X = np.memmap(sys.argv[1], dtype=np.float32, mode='w+', shape=(1 << 16, 1024)); y = np.arange(float(1 << 16))\n"
        "X[::64, 0] = 1; net.fit(X[:20000], y[:20000]); before = peak(); net.fit(X, y); net.predict(X)\n"
        "print(peak() - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "rows"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert float(run.stdout) < 128
