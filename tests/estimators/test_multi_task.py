"""Several tasks: every form of y is the same y, each loss and score is what it says, one task is the estimator of that task."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_validate
from skorch import NeuralNet
from skorch.callbacks import EpochScoring
from skorch.helper import SliceDict
from torch.utils.data import DataLoader, Dataset

from skpt import (
    CNNBranch,
    DenseBranch,
    MLPClassifier,
    MLPRegressor,
    MultiTaskEstimator,
    RNNBranch,
)
from skpt.exceptions import InvalidInputError, UnknownParameterError
from skpt.training.criteria import row_losses

N = 90
QUICK = {"max_epochs": 4, "batch_size": 16, "random_state": 0}
TASKS = {"alphabet": "classification", "price": "regression", "tags": "multilabel"}


def make_data():
    random = np.random.default_rng(0)
    X = random.standard_normal((N, 5))
    score = X @ [1.0, -1.0, 2.0, 0.0, 0.5]
    return X, {
        "alphabet": np.array(["latin", "greek", "thai"])[np.digitize(score, [-1, 1])],
        "price": 1000 + 50 * score + random.standard_normal(N),
        "tags": (X[:, :2] > 0).astype(int),
    }


X, LABELS = make_data()


def as_frame(labels=LABELS):
    tags = {f"tags_{i}": column for i, column in enumerate(labels["tags"].T)}
    return pd.DataFrame({"price": labels["price"], **tags, "alphabet": labels["alphabet"]})


def as_array(labels=LABELS):
    columns = zip(labels["alphabet"].tolist(), labels["price"].tolist(), *labels["tags"].T.tolist(), strict=True)
    return np.array([list(row) for row in columns], dtype=object)


FORMS = {
    "dict": LABELS,
    "dict of lists": {task: labels.tolist() for task, labels in LABELS.items()},
    "dict of tensors": {**LABELS, "price": torch.from_numpy(LABELS["price"]), "tags": torch.from_numpy(LABELS["tags"])},
    "SliceDict": SliceDict(**LABELS),
    "DataFrame": as_frame(),
    "DataFrame of categories": as_frame().astype({"alphabet": "category", "tags_0": bool, "price": "Float64"}),
    "array": as_array(),
}


def build(tasks=TASKS, trunk=None, **parameters):
    return MultiTaskEstimator(tasks, DenseBranch(16) if trunk is None else trunk, **{**QUICK, **parameters})


def weights_of(net):
    return {name: t.numpy() for name, t in net.module_.state_dict().items()}


def assert_same_weights(one, other):
    assert weights_of(one).keys() == weights_of(other).keys()
    for name, weight in weights_of(one).items():
        np.testing.assert_array_equal(weight, weights_of(other)[name], err_msg=name)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_y_is_the_same_y(form):
    y = FORMS[form]
    net, expected = build().fit(X, y, X_val=X[:9], y_val={k: v[:9] for k, v in LABELS.items()}), build().fit(X, LABELS)
    assert_same_weights(net, expected)
    predicted = net.predict(X)
    pd.testing.assert_frame_equal(predicted, expected.predict(X))
    assert list(predicted.columns) == ["alphabet", "price", "tags_0", "tags_1"]
    assert net.score(X, y) == expected.score(X, LABELS)


def test_predictions_scores_and_probabilities():
    net = build(task_weights={"price": 2.0, "tags": 0.5}, max_epochs=60, lr=0.02).fit(X, as_frame())
    predicted, probabilities = net.predict(X), net.predict_proba(X)
    assert predicted.dtypes.astype(str).tolist()[1:] == ["float64", "int64", "int64"]
    assert set(predicted["alphabet"]) <= set(LABELS["alphabet"])
    assert list(probabilities) == ["alphabet", "tags"] and list(net.classes_) == ["alphabet", "tags"]
    np.testing.assert_allclose(probabilities["alphabet"].sum(axis=1), 1)
    np.testing.assert_array_equal(net.classes_["alphabet"][probabilities["alphabet"].argmax(axis=1)], predicted["alphabet"])
    np.testing.assert_array_equal(probabilities["tags"] > 0.5, predicted[["tags_0", "tags_1"]])
    scores = {
        "alphabet": accuracy_score(LABELS["alphabet"], predicted["alphabet"]),
        "price": r2_score(LABELS["price"], predicted["price"]),
        "tags": accuracy_score(LABELS["tags"], predicted[["tags_0", "tags_1"]]),
    }
    assert net.score_tasks(X, as_frame()) == pytest.approx(scores)
    assert min(scores.values()) > 0.8
    assert net.score(X, LABELS) == pytest.approx((scores["alphabet"] + 2 * scores["price"] + 0.5 * scores["tags"]) / 3.5)
    weight = np.linspace(0, 1, N)
    assert net.score_tasks(X, LABELS, weight)["price"] == pytest.approx(
        r2_score(LABELS["price"], predicted["price"], sample_weight=weight)
    )


@pytest.mark.parametrize("form", ["frame", "array", "dict", "SliceDict", "Dataset"])
def test_predictions_have_the_index_of_a_frame(form):
    frame = pd.DataFrame(X, index=np.arange(N) % 50 + 7)  # some twice
    given = {"frame": frame, "array": X, "dict": {"x": frame}, "SliceDict": SliceDict(x=X), "Dataset": Items()}[form]
    net = build(max_epochs=1, trunk=[("x", DenseBranch(4), "x" if "ict" in form else None)]).fit(given, LABELS)
    predicted = net.predict(given)
    assert predicted.index.equals(frame.index if form == "frame" else pd.RangeIndex(N))
    np.testing.assert_allclose(predicted["price"], net.predict({"x": X} if "ict" in form else X)["price"], rtol=1e-12)
    if form == "frame":
        assert isinstance(build(None).fit(frame, LABELS["price"]).predict(frame), np.ndarray)


def test_columns_of_labels_are_found_by_name():
    y = as_frame()
    other = y[["tags_1", "alphabet", "tags_0", "price"]]
    net = build(max_epochs=60, lr=0.02).fit(X, y, X_val=X[:30], y_val=other[:30])
    assert net.score_tasks(X, other) == net.score_tasks(X, LABELS) and net.score_tasks(X, y)["tags"] > 0.8
    assert net.history[-1, "valid_score_tags"] == net.score_tasks(X[:30], y[:30])["tags"]
    one, two = (pickle.loads(pickle.dumps(net)) for _ in range(2))
    assert_same_weights(one.partial_fit(X, other), two.partial_fit(X, y))
    with pytest.raises(InvalidInputError, match=r"as in fit. Got no 'tags_1'. Did you mean 'tags_7'"):
        net.score_tasks(X, y.rename(columns={"tags_1": "tags_7"}))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score", "score_tasks", "forward"])
def test_before_fit_it_says_so(method):
    with pytest.raises(NotFittedError):
        getattr(build(), method)(*[X, LABELS][: 2 if "score" in method else 1])


def test_it_is_a_net_of_neither_type():
    net = MultiTaskEstimator()
    assert isinstance(net, NeuralNet) and not is_classifier(net) and not is_regressor(net)
    assert not hasattr(net, "predict_proba") and not hasattr(net, "classes_")
    assert hasattr(build(), "predict_proba")
    assert not hasattr(build({"price": "regression"}), "predict_proba")


# ---------------------------------------------------------------------- one task


@pytest.mark.parametrize("hidden", [(), (6,)])
def test_one_task_of_numbers_is_the_regressor(hidden):
    common = {**QUICK, "lr": 0.01}
    net = MultiTaskEstimator(None, DenseBranch(8), hidden_layer_sizes=hidden, **common).fit(X, LABELS["price"])
    mlp = MLPRegressor((8, *hidden), **common).fit(X, LABELS["price"])
    for ours, theirs in zip(weights_of(net).values(), weights_of(mlp).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(net.loss_curve_, mlp.loss_curve_, rtol=1e-5)
    assert net.predict(X).shape == (N,)
    np.testing.assert_allclose(net.predict(X), mlp.predict(X), rtol=1e-5)
    assert net.score(X, LABELS["price"]) == pytest.approx(mlp.score(X, LABELS["price"]), abs=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_one_task_of_classes_is_the_classifier(n_classes):
    y = LABELS["alphabet"] if n_classes == 3 else np.where(LABELS["alphabet"] == "thai", "thai", "else")
    common = {**QUICK, "lr": 0.01}
    net = MultiTaskEstimator(None, DenseBranch(8), **common).fit(X, y)
    mlp = MLPClassifier((8,), **common).fit(X, y)
    for ours, theirs in zip(weights_of(net).values(), weights_of(mlp).values(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(net.loss_curve_, mlp.loss_curve_, rtol=1e-5)
    np.testing.assert_array_equal(net.predict(X), mlp.predict(X))
    np.testing.assert_allclose(net.predict_proba(X), mlp.predict_proba(X), atol=1e-5)


def test_a_task_without_weight_changes_nothing_for_the_others():
    both = build({"price": "regression", "alphabet": "classification"}, task_weights={"alphabet": 0})
    both.fit(X, {task: LABELS[task] for task in ("price", "alphabet")})
    alone = build({"price": "regression"}).fit(X, {"price": LABELS["price"]})
    for name, weight in weights_of(alone).items():
        np.testing.assert_array_equal(weights_of(both)[name], weight)
    np.testing.assert_array_equal(both.predict(X)["price"], alone.predict(X)["price"])


# ---------------------------------------------------------------------- losses


def test_the_history_tells_of_each_task():
    val = X[60:], {task: labels[60:] for task, labels in LABELS.items()}
    train = X[:60], {task: labels[:60] for task, labels in LABELS.items()}
    net = build(task_weights={"price": 3.0}, max_epochs=6).fit(*train, X_val=val[0], y_val=val[1])
    for prefix in ("train", "valid"):
        parts = np.array([net.history[:, f"{prefix}_loss_{task}"] for task in TASKS])
        np.testing.assert_allclose([1.0, 3.0, 1.0] @ parts, net.history[:, f"{prefix}_loss"], rtol=1e-5)
    for task, score in net.score_tasks(*val).items():
        assert net.history[-1, f"valid_score_{task}"] == pytest.approx(score, rel=1e-5)
    assert all(0 <= score <= 1 for score in net.history[:, "train_score_alphabet"])
    plain = build().fit(*train)
    assert "train_loss_price" in plain.history[-1] and "valid_loss_price" not in plain.history[-1]
    assert plain.criterion_.meter is None


def test_verbose_prints_the_tasks(capsys):
    build(verbose=1, max_epochs=2).fit(X, LABELS)
    heads = capsys.readouterr().out.splitlines()[0].split()
    assert heads[:4] == ["epoch", "train_loss", "train_loss_alphabet", "train_loss_price"]


def test_uncertainties_are_learnt_with_the_weights():
    net = build(loss_scaling="uncertainty", max_epochs=40, lr=0.02).fit(X, LABELS)
    log_variance = net.criterion_.log_variance
    assert any(log_variance is p for group in net.optimizer_.param_groups for p in group["params"])
    assert (log_variance.detach().abs() > 0.01).all()
    first = net.history[0]
    near_start = 0.5 * first["train_loss_price"] + first["train_loss_alphabet"] + first["train_loss_tags"]
    assert first["train_loss"] == pytest.approx(near_start, rel=0.05), "all log-variances begin at zero"
    X_val, val = X[:30], {task: labels[:30] for task, labels in LABELS.items()}
    net = build(loss_scaling="uncertainty", max_epochs=60, lr=0.1, early_stopping=True, n_iter_no_change=3)
    net.fit(X[30:], {task: labels[30:] for task, labels in LABELS.items()}, X_val=X_val, y_val=val)
    encoded = net.target_.encode(net._read_X_y(X_val, val, reset=False)[1])
    with torch.no_grad():
        loss = float(row_losses(net.criterion_, net.forward(X_val), encoded).mean())
    assert loss == pytest.approx(net.validation_curve_.min(), rel=1e-5), "the best log-variances are kept with the weights"


def test_by_batch_max_units_do_not_matter():
    one = build(loss_scaling="batch_max", standardize_target=False).fit(X, {**LABELS, "price": (LABELS["price"] - 1000) / 50})
    assert one.loss_curve_[0] == pytest.approx(3.0, rel=0.2)
    net = build(loss_scaling="batch_max", batch_size=-1, max_epochs=15).fit(X, LABELS)
    assert net.loss_curve_[0] == pytest.approx(3.0, rel=1e-5)
    parts = [net.history[-1, f"train_loss_{task}"] / net.history[0, f"train_loss_{task}"] for task in TASKS]
    assert net.loss_curve_[-1] == pytest.approx(sum(parts), rel=1e-4)


def test_by_batch_max_validation_losses_of_all_epochs_have_one_scale():
    val = X[60:], {task: labels[60:] for task, labels in LABELS.items()}
    net = build(loss_scaling="batch_max", lr=0.3, max_epochs=12)  # so large that losses grow now and then
    net.fit(X[:60], {task: labels[:60] for task, labels in LABELS.items()}, X_val=val[0], y_val=val[1])
    parts = np.array([net.history[:, f"valid_loss_{task}"] for task in TASKS]).T
    per_task = np.linalg.lstsq(parts, net.validation_curve_, rcond=None)[0]
    np.testing.assert_allclose(parts @ per_task, net.validation_curve_, rtol=1e-5)


@pytest.mark.parametrize("loss_scaling", [None, "batch_max", "uncertainty"])
def test_partial_fit_goes_on_as_fit_does(loss_scaling):
    fitted = build(loss_scaling=loss_scaling).fit(X, LABELS)
    net = build(loss_scaling=loss_scaling)
    for _ in range(4):
        net = pickle.loads(pickle.dumps(net.partial_fit(X, LABELS)))
    assert_same_weights(fitted, net)
    np.testing.assert_array_equal(net.loss_curve_, fitted.loss_curve_)


def test_criteria_may_be_chosen_by_task():
    net = build(criterion={"price": "huber", "alphabet": "bce", "tags": torch.nn.MultiLabelSoftMarginLoss}).fit(X, LABELS)
    names = [type(each).__name__ for each in net.criterion_.criteria]
    assert names == ["BCEWithLogitsLoss", "HuberLoss", "MultiLabelSoftMarginLoss"]
    np.testing.assert_allclose(net.predict_proba(X)["alphabet"].sum(axis=1), 1)
    numbers = MultiTaskEstimator(criterion="l1", **QUICK).fit(X, X[:, :2])
    assert [type(each).__name__ for each in numbers.criterion_.criteria] == ["L1Loss", "L1Loss"]


# ---------------------------------------------------------------------- missing labels


def test_missing_labels_count_for_the_other_tasks_only():
    y = {**LABELS, "price": LABELS["price"].copy(), "alphabet": LABELS["alphabet"].astype(object)}
    y["price"][::2] = np.nan
    y["alphabet"][5] = None
    with pytest.raises(InvalidInputError, match="45 labels of the task 'price' are missing"):
        build({**TASKS}).fit(X, {**y, "alphabet": LABELS["alphabet"]})
    net = build(missing_labels="ignore", max_epochs=60, lr=0.02).fit(X, y)
    assert_same_weights(net, build(missing_labels="ignore", max_epochs=60, lr=0.02).fit(X, pd.DataFrame(
        {"alphabet": y["alphabet"], "price": y["price"], "tags_0": y["tags"][:, 0], "tags_1": y["tags"][:, 1]}
    )))
    assert r2_score(LABELS["price"], net.predict(X)["price"]) > 0.8, "also where it was not told"
    known = ~np.isnan(y["price"])
    assert net.score_tasks(X, y)["price"] == pytest.approx(r2_score(y["price"][known], net.predict(X)["price"][known]))
    complete = build(missing_labels="ignore").fit(X, LABELS)
    assert_same_weights(complete, build().fit(X, LABELS))


def with_gaps():
    return {**LABELS, "price": np.where(np.arange(N) % 2, LABELS["price"], np.nan)}


def test_the_share_of_labels_is_that_of_the_last_fit():
    net = build(missing_labels="ignore").fit(X, with_gaps())
    assert net.labelled_share_ == [1.0, 0.5, 1.0]
    net.set_params(missing_labels="error").fit(X, LABELS)
    assert net.labelled_share_ is None
    fresh = build().fit(X, LABELS)
    assert_same_weights(net, fresh)
    np.testing.assert_array_equal(net.loss_curve_, fresh.loss_curve_)


@pytest.mark.parametrize("n_epochs", [1, 3])
def test_the_share_of_labels_goes_with_the_weights(n_epochs, tmp_path):
    net = build(missing_labels="ignore", shuffle=False, optimizer="sgd", warm_start=True, max_epochs=n_epochs)
    net.fit(X, with_gaps()).save_params(f_params=tmp_path / "weights")
    fresh = clone(net)
    fresh.load_params(f_params=tmp_path / "weights")
    assert fresh.labelled_share_ == [1.0, 0.5, 1.0]
    go_on = "partial_fit" if n_epochs == 1 else "fit"
    assert_same_weights(getattr(net, go_on)(X, with_gaps()), getattr(fresh, go_on)(X, with_gaps()))


def test_missing_labels_may_be_ignored_from_some_call_on(tmp_path, monkeypatch):
    expected = build(missing_labels="ignore").fit(X, LABELS).partial_fit(X, with_gaps())
    net = build().fit(X, LABELS).set_params(missing_labels="ignore").partial_fit(X, with_gaps())
    assert_same_weights(net, expected)
    older = {name: value for name, value in net._learnt_to_dict().items() if name != "labelled_share"}
    monkeypatch.setattr(MultiTaskEstimator, "_learnt_to_dict", lambda self: older)
    net.save_params(f_params=tmp_path / "weights")
    loaded = build(missing_labels="ignore")
    loaded.load_params(f_params=tmp_path / "weights")
    assert np.isfinite(loaded.partial_fit(X, with_gaps()).loss_curve_).all()


@pytest.mark.parametrize("settings", [{}, {"batch_size": -1}, {"early_stopping": True}])
@pytest.mark.parametrize("missing", [[0, 1, None], [True, False, None]])
def test_whole_numbers_and_booleans_may_be_missing_classes(missing, settings):
    y = {"k": missing * 30}
    net = build({"k": "classification"}, missing_labels="ignore", **settings).fit(X, y)
    assert net.classes_["k"].dtype == net.predict(X)["k"].dtype == np.asarray(missing[:2]).dtype
    assert_same_weights(net, build({"k": "classification"}, missing_labels="ignore", **settings).fit(
        X, pd.DataFrame(y).astype("boolean" if missing[0] is True else "Int64")
    ))
    assert 0 <= net.score(X, y) <= 1


# ---------------------------------------------------------------------- trunks


def test_a_trunk_may_be_convolutional():
    images = np.random.default_rng(0).random((N, 6, 7))
    y = {"bright": images.mean(axis=(1, 2)), "left": np.where(images[:, :, 0].mean(axis=1) > 0.5, "yes", "no")}
    tasks = {"bright": "regression", "left": "classification"}
    net = build(tasks, CNNBranch(8, (4,)))
    net.set_params(trunk__kernel_size=5).fit(images, y)
    assert net.module_.get_submodule("trunk.branches.trunk.module.conv_1").kernel_size == (5, 5)
    assert net.predict(images).shape == (N, 2)
    flat = clone(net).set_params(trunk__image_shape=(6, 7)).fit(images.reshape(N, -1), y)
    assert_same_weights(net, flat)


def test_a_trunk_may_be_recurrent():
    steps = [np.random.default_rng(i).standard_normal((4 + i % 3, 2)) for i in range(N)]
    y = {"last": np.array([x[-1, 0] for x in steps]), "long": np.array([len(x) > 5 for x in steps])}
    net = build({"last": "regression", "long": "classification"}, RNNBranch(8, 8)).fit(steps, y)
    assert net.predict(steps)["long"].dtype == bool


def test_a_trunk_may_have_several_inputs():
    data = {"left": X[:, :2], "right": X[:, 2:]}
    net = build(trunk=[("left", DenseBranch(8), "left"), ("right", DenseBranch(8), "right")]).fit(data, LABELS)
    table = build(trunk=[("left", DenseBranch(8), [0, 1]), ("right", DenseBranch(8), slice(2, None))]).fit(X, LABELS)
    assert_same_weights(net, table)
    assert build().set_params(trunk=None).fit(data, LABELS).columns_ == {"left": "left", "right": "right"}
    assert net.set_params(left__n_units=3).get_params()["left__n_units"] == 3
    with pytest.raises(UnknownParameterError, match="Did you mean 'left__n_units'"):
        net.set_params(left__n_unit=3)


def test_grid_search_and_cross_validation():
    grid = {"trunk__n_units": [4, 8], "loss_scaling": [None, "batch_max", "uncertainty"], "task_weights": [None, {"price": 2}]}
    for y in (as_frame(), as_array(), SliceDict(**LABELS)):
        search = GridSearchCV(build(max_epochs=2), grid, cv=2, error_score="raise").fit(X, y)
        assert search.best_params_.keys() == grid.keys()
        assert search.predict(X).shape == (N, 4)
    scores = cross_validate(build(), X, as_frame(), cv=3, error_score="raise", return_estimator=True)
    assert len(scores["estimator"]) == 3 and np.isfinite(scores["test_score"]).all()


# ---------------------------------------------------------------------- what else is done with a net


@pytest.mark.parametrize("loss_scaling", [None, "batch_max", "uncertainty"])
def test_saved_weights_predict_in_a_fresh_net(loss_scaling, tmp_path):
    net = build(loss_scaling=loss_scaling).fit(X, as_frame())
    net.save_params(f_params=tmp_path / "weights", use_safetensors=True)
    fresh = build(loss_scaling=loss_scaling)
    fresh.load_params(f_params=tmp_path / "weights", use_safetensors=True)
    pd.testing.assert_frame_equal(fresh.predict(X), net.predict(X))
    assert {task: c.tolist() for task, c in fresh.classes_.items()} == {task: c.tolist() for task, c in net.classes_.items()}
    assert fresh.score(X, LABELS) == net.score(X, LABELS)
    fresh.partial_fit(X, LABELS).fit(X, LABELS)
    assert_same_weights(net, fresh)


def test_pretrained_trunks_and_heads():
    net = build(max_epochs=10).fit(X, LABELS)
    same = build(pretrained=net, lr=1e-30, optimizer="sgd").fit(X, {**LABELS, "price": 7 * LABELS["price"]})
    np.testing.assert_allclose(same.predict(X)["price"], net.predict(X)["price"], rtol=1e-5)
    assert not same.transfer_report_.new
    other = build({"price": "regression"}, pretrained=net, lr=1e-30, optimizer="sgd").fit(X, {"price": LABELS["price"]})
    assert {each.name.partition(".")[0] for each in other.transfer_report_.new} == {"heads"}
    name = "trunk.branches.trunk.module.output.weight"
    np.testing.assert_array_equal(weights_of(other)[name], weights_of(net)[name])


def test_callbacks_score_the_labels_as_they_were_given():
    scoring = EpochScoring(lambda net, X, y: net.score(X, y), name="train_score", on_train=True, lower_is_better=False)
    net = build(callbacks=[scoring]).fit(X, as_frame())
    assert net.history[-1, "train_score"] == pytest.approx(net.score(X, LABELS))
    held = build(callbacks=[scoring], early_stopping=True).fit(X, as_array())
    assert np.isfinite(held.history[:, "train_score"]).all()


class Items(Dataset):
    """Rows whose labels come as a dict."""

    def __len__(self):
        return N

    def __getitem__(self, i):
        return X[i], {task: LABELS[task][i] for task in ("price", "tags")}


def test_datasets_and_loaders_may_give_dicts_of_labels():
    tasks, y = {task: TASKS[task] for task in ("price", "tags")}, {task: LABELS[task] for task in ("price", "tags")}
    expected = build(tasks, shuffle=False).fit(X, y)
    assert_same_weights(build(tasks, shuffle=False).fit(Items()), expected)
    loaded = build(tasks).fit(DataLoader(Items(), batch_size=16))
    for name, weight in weights_of(expected).items():
        np.testing.assert_allclose(weights_of(loaded)[name], weight, atol=1e-5)
    assert loaded.score(Items()) == pytest.approx(expected.score(X, y), abs=1e-4)


def test_partial_fit_takes_all_classes_first():
    first = LABELS["alphabet"] != "thai"
    part = {task: labels[first] for task, labels in LABELS.items()}
    net = build().partial_fit(X[first], part, classes={"alphabet": ["thai", "greek", "latin"]})
    assert net.classes_["alphabet"].tolist() == ["greek", "latin", "thai"]
    net.partial_fit(X, LABELS)
    with pytest.raises(InvalidInputError, match=r"Task 'alphabet': y has labels that are not in classes: \['runes'\]"):
        net.partial_fit(X, {**LABELS, "alphabet": np.full(N, "runes")})
    with pytest.raises(InvalidInputError, match=r"Got the task 'alphabets'. Did you mean 'alphabet'"):
        build().partial_fit(X, LABELS, classes={"alphabets": ["thai", "greek", "latin"]})
    with pytest.raises(InvalidInputError, match=r"those of the tasks \['alphabet'\].* Got the task 'price'"):
        build().partial_fit(X, LABELS, classes={"price": [1, 2]})


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"tasks": {"price": "regresion"}}, r"one of \['classification', 'regression', .* Did you mean 'regression'"),
        ({"tasks": {}}, "must give each task's name"),
        ({"tasks": "price"}, "'tasks' parameter"),
        ({"task_weights": {"prize": 1}}, "about the task 'prize', which there is not. Did you mean 'price'"),
        ({"task_weights": {"price": -1}}, r"must hold numbers in the range \[0, inf\)"),
        ({"task_weights": dict.fromkeys(TASKS, 0)}, "must have a positive weight"),
        ({"criterion": {"prize": "mse"}}, "about the task 'prize'"),
        ({"criterion": {"price": "cross_entropy"}}, "Task 'price', regression: The 'criterion' parameter must be one of"),
        ({"criterion": {"alphabet": "cros_entropy"}}, "Did you mean 'cross_entropy'"),
        ({"criterion": "mse"}, "Task 'alphabet', classification: The 'criterion' parameter"),
        ({"loss_scaling": "max"}, "'loss_scaling' parameter"),
        ({"missing_labels": "drop"}, "'missing_labels' parameter"),
        ({"trunk": DenseBranch(0)}, "'n_units' parameter of DenseBranch"),
        ({"trunk": MLPRegressor()}, "'trunk' parameter"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes"),
    ],
)
def test_parameters_that_make_no_sense_are_errors(parameters, message):
    net = build().set_params(**parameters)
    before = vars(net).copy()
    with pytest.raises(ValueError, match=message):
        net.fit(X, LABELS)
    assert vars(net) == before


def test_a_criterion_without_losses_of_rows_is_an_error():
    class Mean(torch.nn.Module):
        def forward(self, outputs, targets):
            return (outputs - targets).square().mean()

    with pytest.raises(InvalidInputError, match="criterion of the task 'price' must give a loss for each row"):
        build(criterion={"price": Mean}).fit(X, LABELS)


def test_no_task_is_called_as_a_flag_of_the_history():
    for tasks in (None, {"best": "regression", "price": "regression"}):
        with pytest.raises(InvalidInputError, match="may be called 'best': train_loss_best"):
            build(tasks).fit(X, pd.DataFrame({"best": X[:, 0], "price": LABELS["price"]}))
    assert np.isfinite(build({"best": "regression"}).fit(X, X[:, 0]).loss_curve_).all(), "which one dimension does not write"


def test_labels_that_do_not_fit_are_errors():
    net = build().fit(X, LABELS)
    with pytest.raises(InvalidInputError, match="no keys for the task 'tags'"):
        net.partial_fit(X, {task: LABELS[task] for task in ("alphabet", "price")})
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        net.fit(X[1:], LABELS)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        net.score(X[1:], LABELS)
    with pytest.raises(InvalidInputError, match="Task 'tags': y of shape"):
        net.partial_fit(X, {**LABELS, "tags": np.ones((N, 3), dtype=int)})


def test_the_history_scores_counts_as_score_tasks_does():
    X = np.random.default_rng(0).standard_normal((60, 3))
    y = pd.DataFrame({"n": np.random.default_rng(1).poisson(np.exp(1 + X[:, 0]))})
    net = MultiTaskEstimator({"n": "regression"}, criterion="poisson_nll", max_epochs=30, lr=0.05, random_state=0)
    net.fit(X, y, X_val=X, y_val=y)
    assert net.history[-1, "valid_score_n"] == pytest.approx(net.score_tasks(X, y)["n"], rel=1e-5)
    assert net.history[-1, "valid_score_n"] > 0.5


def test_a_loss_of_before_evaluations_had_a_scale_of_their_own():
    X = np.random.default_rng(0).standard_normal((60, 3))
    net = MultiTaskEstimator({"n": "regression"}, loss_scaling="batch_max", warm_start=True, max_epochs=2, random_state=0)
    net.fit(X, {"n": X[:, 0]})
    del net.criterion_._buffers["largest_at_first"]
    older = pickle.loads(pickle.dumps(net))
    older.fit(X, {"n": X[:, 0]}, X_val=X, y_val={"n": X[:, 0]})
    assert older.n_iter_ == 4
