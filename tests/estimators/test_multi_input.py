"""Estimators with several inputs: every form of X is the same X, and every parameter of a branch is reached."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EpochScoring
from skorch.helper import SliceDict
from torch.utils.data import DataLoader, Dataset

from skpt import (
    CNNBranch,
    DenseBranch,
    EmbeddingBranch,
    MLPClassifier,
    MLPRegressor,
    MultiInputClassifier,
    MultiInputRegressor,
    RNNBranch,
    TCNBranch,
    TransformerBranch,
)
from skpt.exceptions import InvalidInputError, UnknownParameterError

QUICK = {"max_epochs": 3, "batch_size": 16, "random_state": 0}
N = 60


def make_parts(n=N):
    """An image of bytes and a table of floats, and numbers that need both."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, size=(n, 4, 5), dtype=np.uint8)
    table = random.standard_normal((n, 3))
    return image, table, image.mean(axis=(1, 2)) / 20 + table @ [1.0, -1.0, 0.5]


IMAGE, TABLE, Y = make_parts()
PIXELS = [f"pixel_{i}" for i in range(20)]
COLUMNS = ["width", "height", "depth"]
FRAME = pd.concat([pd.DataFrame(IMAGE.reshape(N, -1), columns=PIXELS), pd.DataFrame(TABLE, columns=COLUMNS)], axis=1)


def build(image="image", table="table", estimator=MultiInputRegressor, **parameters):
    branches = [("image", CNNBranch(8, (4,), image_shape=(4, 5)), image), ("table", DenseBranch(6), table)]
    return estimator(branches, (8,), **{**QUICK, **parameters})


def weights_of(net):
    return {name: t.numpy() for name, t in net.module_.state_dict().items()}


def assert_same_weights(one, other):
    assert weights_of(one).keys() == weights_of(other).keys()
    for name, weight in weights_of(one).items():
        np.testing.assert_array_equal(weight, weights_of(other)[name], err_msg=name)


def structured():
    X = np.empty(N, dtype=[("image", np.uint8, (4, 5)), ("table", float, (3,))])
    X["image"], X["table"] = IMAGE, TABLE
    return X


def cells():
    return pd.DataFrame({"image": list(IMAGE), "table": list(TABLE)})


AS_DICT = {"image": IMAGE, "table": TABLE}
FORMS = {
    "dict": (AS_DICT, "image", "table"),
    "dict of tensors": ({"image": torch.from_numpy(IMAGE), "table": torch.from_numpy(TABLE)}, "image", "table"),
    "dict with more": ({**AS_DICT, "other": np.zeros((N, 2))}, "image", "table"),
    "dict with a frame": ({"image": IMAGE, "table": FRAME[COLUMNS]}, "image", "table"),
    "SliceDict": (SliceDict(**AS_DICT), "image", "table"),
    "structured array": (structured(), "image", "table"),
    "frame of arrays": (cells(), "image", "table"),
    "names": (FRAME, PIXELS, COLUMNS),
    "slices of names": (FRAME, slice("pixel_0", "pixel_19"), slice("width", None)),
    "positions": (FRAME, list(range(20)), np.array([20, 21, 22])),
    "negative positions": (FRAME, slice(0, 20), [-3, -2, -1]),
    "masks": (FRAME, np.arange(23) < 20, (np.arange(23) >= 20).tolist()),
    "selectors": (FRAME, make_column_selector("pixel"), make_column_selector(dtype_include=float)),
    "functions": (FRAME, lambda X: PIXELS, lambda X: [name for name in X if name not in PIXELS]),
    "array of objects": (FRAME.astype(object).to_numpy(), slice(20), slice(20, None)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_x_is_the_same_x(form):
    X, image, table = FORMS[form]
    net, expected = build(image, table).fit(X, Y), build().fit(AS_DICT, Y)
    np.testing.assert_allclose(net.predict(X), expected.predict(AS_DICT), rtol=1e-4, atol=1e-4)
    if form != "array of objects":  # whose numbers are no bytes: scaled all the same, but not to the last digit
        assert_same_weights(net, expected)
    assert net.branches_["image"].input_shape_ == (1, 4, 5)
    assert net.n_features_in_ == (2 if form == "frame of arrays" else 23)


def test_columns_of_an_array():
    X = FRAME.to_numpy(dtype=float)
    net = build(slice(20), [20, 21, 22]).fit(X, Y)
    assert net.columns_ == {"image": list(range(20)), "table": [20, 21, 22]}
    assert_same_weights(net, build(np.arange(23) < 20, np.arange(23) >= 20).fit(X, Y))
    with pytest.raises(ValueError, match="X has 22 features, but MultiInputRegressor is expecting 23"):
        net.predict(X[:, :-1])


@pytest.mark.parametrize("callbacks", [None, [("nothing", Callback())]], ids=["stack", "ladder"])
def test_one_dense_branch_is_a_multilayer_perceptron(callbacks):
    """The same first weights, the same batches, the same steps: the same fit, to rounding of the stack."""
    common = {**QUICK, "max_epochs": 5, "lr": 0.01}
    net = MultiInputRegressor([("all", DenseBranch(8), None)], (6,), **common).fit(TABLE, Y)
    mlp = MLPRegressor((8, 6), **common, callbacks=callbacks).fit(TABLE, Y)
    for ours, theirs in zip(weights_of(net).values(), weights_of(mlp).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=0 if callbacks else 1e-5)
    np.testing.assert_allclose(net.loss_curve_, mlp.loss_curve_, rtol=1e-5)
    np.testing.assert_allclose(net.predict(TABLE), mlp.predict(TABLE), rtol=1e-5, atol=1e-5)
    labels = np.digitize(Y, [np.median(Y)])
    classifier = MultiInputClassifier([("all", DenseBranch(8), None)], (6,), **common).fit(TABLE, labels)
    expected = MLPClassifier((8, 6), **common).fit(TABLE, labels)
    np.testing.assert_allclose(classifier.predict_proba(TABLE), expected.predict_proba(TABLE), atol=1e-5)


# ---------------------------------------------------------------------- parameters of branches


def test_parameters_of_branches_are_parameters():
    net = build()
    params = net.get_params()
    assert params["image"] is net.branches[0][1] and params["image__channels"] == (4,) and params["table__n_units"] == 6
    assert "image__channels" not in net.get_params(deep=False)
    net.set_params(image__channels=(2, 3), table=DenseBranch(5), table__dropout=0.1, lr=0.5)
    assert net.branches[0][1].channels == (2, 3) and net.lr == 0.5
    assert (net.branches[1][1].n_units, net.branches[1][1].dropout) == (5, 0.1)
    copied = clone(net)
    assert copied.branches[0][1] is not net.branches[0][1]
    assert copied.get_params()["image__channels"] == (2, 3)
    assert "CNNBranch(channels=(2, 3)" in repr(net)
    net.set_params(branches=[("new", DenseBranch(), None)], new__n_units=3)
    assert net.get_params()["new__n_units"] == 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"image__chanels": 3}, "'image__chanels' for estimator MultiInputRegressor. Did you mean 'image__channels'"),
        ({"immage__channels": 3}, "Did you mean 'image__channels'"),
        ({"imag": DenseBranch()}, "Did you mean 'image'"),
        ({"image__module__x": 3}, "'image__module__x'"),
        ({"optimizr__momentum": 0.9}, "Did you mean 'optimizer__momentum'"),
    ],
)
def test_a_misspelt_parameter_of_a_branch_names_the_nearest(parameters, message):
    net = build()
    before = net.get_params()
    with pytest.raises(UnknownParameterError, match=message):
        net.set_params(lr=0.5, table__n_units=3, **parameters)
    assert net.get_params() == before, "nothing is set where one name is wrong"
    with pytest.raises(UnknownParameterError, match="Did you mean 'channels'"):
        CNNBranch().set_params(n_units=3, chanels=3)


def test_grid_search_over_branches_and_optimizer():
    grid = {
        "image__channels": [(2,), (4,)],
        "image": [CNNBranch(3, image_shape=(4, 5))],
        "table__n_units": [3, 5],
        "optimizer": ["sgd"],
        "optimizer__momentum": [0.9],
    }
    search = GridSearchCV(build(PIXELS, COLUMNS), grid, cv=2, error_score="raise").fit(FRAME, Y)
    assert set(search.best_params_) == set(grid)
    best = search.best_estimator_
    conv = best.module_.get_submodule("joined.branches.image.module.conv_1")
    assert (conv.out_channels,) == search.best_params_["image__channels"]
    assert best.optimizer_.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("form", ["dict", "SliceDict", "structured array", "frame of arrays", "names"])
def test_searches_and_cross_validation_take_every_form_that_has_rows(form):
    X, image, table = FORMS[form]
    net = build(image, table)
    search = GridSearchCV(net, {"image__channels": [(2,), (4,)]}, cv=2, error_score="raise").fit(X, Y)
    assert search.predict(X).shape == Y.shape
    scores = cross_validate(net, X, Y, cv=3, error_score="raise")["test_score"]
    expected = cross_validate(build(), SliceDict(**AS_DICT), Y, cv=3, error_score="raise")["test_score"]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_pipelines_and_column_transformers_stand_before():
    scale = make_column_transformer((StandardScaler(), COLUMNS), remainder="passthrough", verbose_feature_names_out=False)
    pipeline = make_pipeline(scale.set_output(transform="pandas"), build(PIXELS, COLUMNS))
    assert pipeline.fit(FRAME, Y).score(FRAME, Y) < 1
    scores = cross_validate(pipeline, FRAME, Y, cv=2, error_score="raise")
    assert np.isfinite(scores["test_score"]).all()


# ---------------------------------------------------------------------- branches


def sequences(kind):
    random = np.random.default_rng(0)
    steps = [random.standard_normal((5 + i % 3 * (kind == "ragged"), 2)) for i in range(N)]
    return steps if kind == "ragged" else np.stack(steps)


@pytest.mark.parametrize("kind", ["ragged", "equal"])
@pytest.mark.parametrize(
    "branch", [RNNBranch(4, 6, cell="gru"), TransformerBranch(4, 8, 2, 1), TCNBranch(4, channels=(4, 4, 4))], ids=repr
)
def test_sequences_are_a_branch(branch, kind):
    X = {"steps": sequences(kind), "table": TABLE}
    net = MultiInputRegressor([("steps", branch, "steps"), ("table", DenseBranch(4), "table")], (8,), **QUICK).fit(X, Y)
    order = np.random.default_rng(1).permutation(N)
    some = {"steps": [X["steps"][i] for i in order], "table": TABLE[order]}
    np.testing.assert_allclose(net.predict(some), net.predict(X)[order], rtol=1e-6, atol=1e-6)
    assert net.branches_["steps"].input_shape_[1] == 2


def test_each_branch_scales_its_own_input():
    net = build().fit({"image": IMAGE, "table": 1000 + 1000 * TABLE}, Y)
    assert_same_weights(net, build(lr=1e-3).set_params(lr=net.lr).fit({"image": IMAGE, "table": 1000 + 1000 * TABLE}, Y))
    np.testing.assert_allclose(net.branches_["table"].scaler_.mean, (1000 + 1000 * TABLE).mean(axis=0))
    assert float(net.branches_["image"].scaler_.mean.ravel()[0]) == pytest.approx(IMAGE.mean() / 255)
    raw = build(standardize_features=False).fit(AS_DICT, Y)
    assert all(reader.scaler_ is None for reader in raw.branches_.values())


def test_bytes_stay_bytes_until_a_batch_is_made():
    net = build().initialize(AS_DICT, Y)
    assert net._encode_X(net._read_X(AS_DICT))["image"].dtype == torch.uint8
    net = build(PIXELS, COLUMNS).initialize(FRAME, Y)
    assert net._encode_X(net._read_X(FRAME))["image"].dtype == torch.uint8


class Darken:
    def __init__(self):
        self.seen = []

    def __call__(self, x):
        self.seen.append((tuple(x.shape), float(x.max())))
        return x * torch.rand(len(x), 1, 1, 1)


def test_augmentation_changes_its_branch_alone_and_follows_the_seed():
    augment = Darken()
    nets = [build().set_params(image__augment=augment).fit(AS_DICT, Y) for _ in range(2)]
    assert_same_weights(*nets)
    assert augment.seen[0][0] == (16, 1, 4, 5) and max(top for _, top in augment.seen) <= 1.0
    assert (weights_of(nets[0])["output.weight"] != weights_of(build().fit(AS_DICT, Y))["output.weight"]).any()
    n_before = len(augment.seen)
    nets[0].predict(AS_DICT)
    assert len(augment.seen) == n_before


def test_an_augmentation_of_a_branch_may_work_in_place():
    def darken(x):
        x *= torch.rand(len(x), 1, 1, 1)
        return x

    X = {"image": IMAGE.astype("f4"), "table": TABLE}
    build(shuffle=False).set_params(image__augment=darken).fit(X, Y)
    np.testing.assert_array_equal(X["image"], IMAGE)


def test_images_of_a_branch_mean_the_same_in_every_dtype(tmp_path):
    dtypes = {"bytes": IMAGE, "integers": IMAGE.astype(int), "floats": IMAGE.astype(float), "unit": IMAGE / 255}
    for fitted, same in (("bytes", ["integers", "unit"]), ("floats", ["bytes", "integers"]), ("unit", ["bytes"])):
        net = build().fit({"image": dtypes[fitted], "table": TABLE}, Y)
        expected = net.predict({"image": dtypes[fitted], "table": TABLE})
        net.save_params(f_params=tmp_path / "weights")
        loaded = build()
        loaded.load_params(f_params=tmp_path / "weights")
        for each in (net, loaded):
            for name in same:
                np.testing.assert_allclose(each.predict({"image": dtypes[name], "table": TABLE}), expected, rtol=1e-5)
    net = build().fit(AS_DICT, Y)
    with pytest.raises(InvalidInputError, match="CNNBranch was fitted with bytes"):
        net.predict({"image": dtypes["floats"], "table": TABLE})


def test_sizes_of_a_branch_come_in_every_form_of_an_integer():
    forms = {"image__kernel_size": (3,), "image__pool_size": [2], "image__padding": np.int64(1)}
    assert_same_weights(build().set_params(**forms).fit(AS_DICT, Y), build().set_params(image__padding=1).fit(AS_DICT, Y))
    with pytest.raises(InvalidInputError, match="'padding' parameter of CNNBranch must be"):
        build().set_params(image__padding=True).fit(AS_DICT, Y)


def test_unknown_categories_are_no_category():
    random = np.random.default_rng(0)
    X = np.column_stack([random.choice([3, 7, 20], N), random.integers(4, size=N), TABLE[:, 0]])
    branches = [("kind", EmbeddingBranch(3), [0, 1]), ("table", DenseBranch(4), [2])]
    net = MultiInputRegressor(branches, (8,), **QUICK).fit(X, Y)
    assert [each.tolist() for each in net.branches_["kind"].scaler_.categories] == [[3, 7, 20], [0, 1, 2, 3]]
    first = net.module_.get_submodule("joined.branches.kind.module.columns.0").weight
    assert first.shape == (4, 3) and (first[0] == 0).all() and (first[1:] != 0).all()
    unknown = X.copy()
    unknown[:, 0] = np.arange(N) + 0.5
    other = unknown.copy()
    other[:, 0] = -99
    np.testing.assert_array_equal(net.predict(unknown), net.predict(other))
    assert (net.predict(unknown) != net.predict(X)).all()
    kept = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(kept.predict(X), net.predict(X))


def test_a_dense_branch_takes_sparse_columns():
    X = sparse.random_array((N, 30), density=0.2, rng=np.random.default_rng(0), format="csr")
    net = MultiInputRegressor(
        [("a", DenseBranch(4), slice(10)), ("b", DenseBranch(4), slice(10, None))], **QUICK, standardize_features=False
    )
    dense = clone(net).fit(X.toarray(), Y)
    net.fit(X, Y)
    for name, weight in weights_of(dense).items():
        np.testing.assert_allclose(weights_of(net)[name], weight, atol=1e-5)
    np.testing.assert_allclose(net.predict(X), dense.predict(X.toarray()), atol=1e-5)
    with pytest.raises(TypeError, match="Sparse data was passed"):
        MultiInputRegressor([("row", CNNBranch(4), None)], **QUICK).fit(X, Y)


def test_branches_follow_the_keys_of_a_dict_where_none_are_given():
    X = {"picture": IMAGE[:, None], "table": TABLE, "one": TABLE[:, 0]}
    net = MultiInputRegressor(**QUICK).fit(X, Y)
    assert [type(reader).__name__ for reader in net.branches_.values()] == ["CNNBranch", "DenseBranch", "DenseBranch"]
    assert net.predict(X).shape == (N,)
    for ambiguous in ({"image": IMAGE, "table": TABLE}, {"steps": sequences("ragged"), "table": TABLE}):
        with pytest.raises(InvalidInputError, match=r"may be images or sequences. Say which by the parameter 'branches'"):
            MultiInputRegressor(**QUICK).fit(ambiguous, Y)


def test_one_branch_takes_an_array_of_images():
    net = MultiInputRegressor([("image", CNNBranch(8, (4,)), None)], (8,), **QUICK).fit(IMAGE, Y)
    assert net.predict(IMAGE).shape == (N,) and net.n_features_in_ == 20
    with pytest.raises(InvalidInputError, match="must be a table or a dict of arrays"):
        build().fit(IMAGE, Y)


# ---------------------------------------------------------------------- what else is done with a net


@pytest.mark.parametrize("use_safetensors", [False, True])
@pytest.mark.parametrize("form", ["dict", "selectors"])
def test_saved_weights_predict_in_a_fresh_net(form, use_safetensors, tmp_path):
    X, image, table = FORMS[form]
    net = build(image, table).fit(X, Y)
    net.save_params(f_params=tmp_path / "weights", use_safetensors=use_safetensors)
    fresh = build(image, table)
    fresh.load_params(f_params=tmp_path / "weights", use_safetensors=use_safetensors)
    np.testing.assert_array_equal(fresh.predict(X), net.predict(X))
    other = MultiInputRegressor([("picture", DenseBranch(), "image")])
    with pytest.raises(InvalidInputError, match=r"holds the branches \['image', 'table'\]. Got a .* of \['picture'\]"):
        other.load_params(f_params=tmp_path / "weights", use_safetensors=use_safetensors)


def test_defaults_are_saved_too(tmp_path):
    X = {"picture": IMAGE[:, None], "table": TABLE}
    net = MultiInputRegressor(**QUICK).fit(X, Y)
    net.save_params(f_params=tmp_path / "weights")
    fresh = MultiInputRegressor(**QUICK)
    fresh.load_params(f_params=tmp_path / "weights")
    np.testing.assert_array_equal(fresh.predict(X), net.predict(X))


def test_pretrained_branches_keep_their_scales():
    net = build(max_epochs=10).fit(AS_DICT, Y)
    shifted = {"image": IMAGE, "table": TABLE * 2}
    on = build(pretrained=net, lr=1e-30, optimizer="sgd").fit(shifted, Y)
    np.testing.assert_allclose(on.predict(shifted), net.predict(shifted), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(on.branches_["table"].scaler_.scale, net.branches_["table"].scaler_.scale)
    frozen = build(pretrained=net, freeze="joined.*").fit(AS_DICT, Y)
    name = "joined.branches.image.module.conv_1.weight"
    np.testing.assert_array_equal(weights_of(frozen)[name], weights_of(net)[name])


class Pairs(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return {"image": torch.from_numpy(IMAGE[i]), "table": TABLE[i]}, Y[i]


def test_a_dataset_may_give_dicts():
    net = build().fit(Pairs())
    assert_same_weights(net, build().fit(AS_DICT, Y))
    np.testing.assert_array_equal(net.predict(Pairs()), net.predict(AS_DICT))


def test_a_data_loader_may_give_dicts():
    net = build(lr=0.01).fit(DataLoader(Pairs(), batch_size=16))
    expected = build(lr=0.01, shuffle=False).fit(AS_DICT, Y)
    for name, array in weights_of(expected).items():
        np.testing.assert_allclose(weights_of(net)[name], array, atol=1e-5)
    np.testing.assert_allclose(net.predict(DataLoader(Pairs(), batch_size=7)), expected.predict(AS_DICT), rtol=1e-5)


def test_categories_of_a_data_loader_are_those_of_all_rows():
    kinds = np.column_stack([np.arange(N) // 7, np.arange(N) % 4]).astype(float)

    class Rows(Pairs):
        def __getitem__(self, i):
            return {"kind": kinds[i], "table": TABLE[i]}, Y[i]

    branches = [("kind", EmbeddingBranch(2), "kind"), ("table", DenseBranch(4), "table")]
    plain = MultiInputRegressor(branches, (8,), **QUICK, shuffle=False).fit({"kind": kinds, "table": TABLE}, Y)
    for net in (
        MultiInputRegressor(branches, (8,), **QUICK).fit(DataLoader(Rows(), batch_size=16)),
        MultiInputRegressor(branches, (8,), **QUICK, shuffle=False, iterator_train=DataLoader).fit(Rows()),
    ):
        assert [each.tolist() for each in net.branches_["kind"].scaler_.categories] == [[*range(9)], [*range(4)]]
        for name, array in weights_of(plain).items():
            np.testing.assert_allclose(weights_of(net)[name], array, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_data_loader_and_callbacks_see_the_rows(weighted):
    weight = np.linspace(0.5, 2, N) if weighted else None
    scoring = EpochScoring("r2", name="train_r2", on_train=True, lower_is_better=False)
    net = build(iterator_train=DataLoader, shuffle=False, callbacks=[scoring]).fit(AS_DICT, Y, sample_weight=weight)
    plain = build(shuffle=False).fit(AS_DICT, Y, sample_weight=weight)
    for name, array in weights_of(plain).items():
        np.testing.assert_allclose(weights_of(net)[name], array, atol=1e-5)
    assert net.history[-1, "train_r2"] == pytest.approx(net.score(AS_DICT, Y))


def test_validation_sets_may_be_dicts():
    part = {name: a[:40] for name, a in AS_DICT.items()}, {name: a[40:] for name, a in AS_DICT.items()}
    net = build(early_stopping=True).fit(part[0], Y[:40], X_val=part[1], y_val=Y[40:])
    assert len(net.validation_curve_) == 3
    held = build(early_stopping=True, validation_fraction=0.25).fit(AS_DICT, Y)
    assert len(held.validation_curve_) == 3


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ([], r"must be a list of \(name, branch, columns\). Got \[\]"),
        ([("image", CNNBranch())], r"must be a list of \(name, branch, columns\)"),
        ([("image", MLPRegressor(), None)], "must be one of skpt's branches"),
        ([("lr", DenseBranch(), None)], "none of its parameters"),
        ([("optimizer", DenseBranch(), None)], "none of its parameters"),
        ([("a__b", DenseBranch(), None)], "without two underscores"),
        ([("a", DenseBranch(), [0]), ("a", DenseBranch(), [1])], "must be different texts"),
        ([("a", DenseBranch(0), None)], "'n_units' parameter of DenseBranch must be an int in the range"),
        ([("a", CNNBranch(channels=(0,)), None)], "'channels' parameter of CNNBranch must hold integers"),
        ([("a", DenseBranch(activation="rellu"), None)], "'activation' parameter of DenseBranch"),
        ([("a", DenseBranch(), ["width"])], "columns of the branch 'a' of MultiInputRegressor must be names of a DataFrame's"),
        ([("a", DenseBranch(), [99])], "columns of the branch 'a'"),
        ([("a", DenseBranch(), [])], r"branch 'a' of MultiInputRegressor has no columns: \[\] chose none"),
        ([("a", CNNBranch(image_shape=(2, 2)), None)], "must have the 4 columns of image_shape"),
        ([("a", DenseBranch(), None), ("b", CNNBranch(image_shape=(2, 2)), None)], "Branch 'b': A flat X of CNNBranch"),
    ],
)
def test_branches_that_cannot_be_are_errors(branches, message):
    net = MultiInputRegressor(branches, **QUICK)
    before = vars(net).copy()
    with pytest.raises(ValueError, match=message):
        net.fit(TABLE, Y)
    assert vars(net) == before


def test_inputs_that_do_not_fit_are_errors():
    net = build().fit(AS_DICT, Y)
    with pytest.raises(InvalidInputError, match=r"branch 'table' .* must name a key of X, which is a dict of \['image'\]"):
        net.predict({"image": IMAGE})
    with pytest.raises(InvalidInputError, match="was fitted with a dict of inputs"):
        net.predict(TABLE)
    with pytest.raises(InvalidInputError, match=r"inconsistent numbers of samples: \{'image': 60, 'table': 59\}"):
        net.fit({"image": IMAGE, "table": TABLE[1:]}, Y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        net.fit(AS_DICT, Y[1:])
    with pytest.raises(InvalidInputError, match="Branch 'table': Input X contains NaN"):
        net.predict({"image": IMAGE, "table": TABLE * np.nan})
    with pytest.raises(InvalidInputError, match=r"Branch 'image': X has images of shape \(1, 5, 4\)"):
        net.predict({"image": IMAGE.transpose(0, 2, 1), "table": TABLE})
    with pytest.raises(InvalidInputError, match=r"y of MultiInputRegressor must be an array. Got a dict"):
        net.fit(AS_DICT, {"y": Y})
    assert np.isfinite(net.predict(AS_DICT)).all()


def test_texts_in_a_branch_are_named():
    X = FRAME.assign(width="wide")
    with pytest.raises(InvalidInputError, match=r"Got text, categories or dates in the columns \['width'\]"):
        build(PIXELS, COLUMNS).fit(X, Y)


def test_parameters_of_branches_are_not_given_to_the_estimator():
    message = r"takes no parameters of its branches .* Got 'left__n_units'\. Give n_units to the DenseBranch named 'left'"
    with pytest.raises(UnknownParameterError, match=message):
        MultiInputClassifier([("left", DenseBranch(), [0])], left__n_units=3)
