"""Labels of several tasks in any form, their targets, and the losses against their formulas."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score
from torch import nn
from torch.nn import functional as F

from skpt.training.criteria import mean_loss
from skpt.training.fields import Fields
from skpt.training.targets import target_from_dict
from skpt.training.tasks import MultiTaskLoss, TaskMeter, TaskTargets, read_labels

TASKS = {"alphabet": "classification", "price": "regression", "tags": "multilabel"}
N = 12


@pytest.fixture
def labels():
    random = np.random.default_rng(0)
    return {
        "alphabet": np.array(["latin", "greek", "thai"])[np.arange(N) % 3],
        "price": 100 + 10 * random.standard_normal(N),
        "tags": random.integers(2, size=(N, 2)),
    }


def as_frame(labels):
    tags = {f"tags_{i}": column for i, column in enumerate(labels["tags"].T)}
    return pd.DataFrame({**tags, "price": labels["price"], "alphabet": labels["alphabet"]})


def as_array(labels):
    columns = [labels["alphabet"], labels["price"], *labels["tags"].T]
    return np.array([[column[i] for column in columns] for i in range(N)], dtype=object)


FORMS = {"dict": dict, "frame": as_frame, "array": as_array}


def targets_of(labels, tasks=TASKS, **options):
    read, form = read_labels(labels, tasks, "Net", **options)
    return TaskTargets.from_labels(read, form, dict.fromkeys(form.kinds, "auto")), read


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_targets(labels, form):
    targets, read = targets_of(FORMS[form](labels))
    expected, known = targets_of(labels)
    assert torch.equal(targets.encode(read), expected.encode(known))
    assert targets.n_outputs == 3 + 1 + 2
    assert targets.classes["alphabet"].tolist() == ["greek", "latin", "thai"]


@pytest.mark.parametrize("form", FORMS)
def test_outputs_that_say_the_labels_are_decoded_to_them(labels, form):
    targets, read = targets_of(FORMS[form](labels))
    encoded = targets.encode(read).numpy()
    outputs = np.column_stack([np.eye(3)[encoded[:, 0].astype(int)], encoded[:, 1], 2 * encoded[:, 2:] - 1])
    frame = targets.decode(outputs)
    assert list(frame.columns) == ["alphabet", "price", "tags_0", "tags_1"]
    np.testing.assert_array_equal(frame["alphabet"], labels["alphabet"])
    np.testing.assert_allclose(frame["price"], labels["price"], rtol=1e-5)
    np.testing.assert_array_equal(frame[["tags_0", "tags_1"]], labels["tags"])
    perfect = targets.scores(read, outputs, None)
    assert perfect["alphabet"] == perfect["tags"] == 1.0 and perfect["price"] == pytest.approx(1.0)
    probabilities = targets.probabilities(outputs)
    assert list(probabilities) == ["alphabet", "tags"]
    np.testing.assert_allclose(probabilities["alphabet"].sum(axis=1), 1)


def test_a_frame_keeps_the_names_of_its_columns(labels):
    frame = as_frame(labels).rename(columns={"tags_0": "tags_red", "tags_1": "tags_blue"})
    targets, read = targets_of(frame)
    assert list(targets.decode(np.zeros((N, 6))).columns) == ["alphabet", "price", "tags_red", "tags_blue"]
    saved = target_from_dict(json.loads(json.dumps(targets.to_dict())))
    assert list(saved.decode(np.zeros((N, 6))).columns) == list(targets.decode(np.zeros((N, 6))).columns)
    assert torch.equal(saved.encode(read), targets.encode(read))


def test_columns_that_were_learnt_are_found_by_name(labels):
    frame = as_frame(labels).rename(columns={"tags_0": "tags_red", "tags_1": "tags_blue"})
    expected, form = read_labels(frame, TASKS, "Net")
    shuffled = frame[["alphabet", "tags_blue", "price", "tags_red"]]
    for y in (shuffled, {**labels, "tags": shuffled[["tags_blue", "tags_red"]]}):
        read, again = read_labels(y, form, "Net")
        np.testing.assert_array_equal(read["tags"], expected["tags"])
        assert again.kinds == TASKS
    np.testing.assert_array_equal(read_labels(labels, form, "Net")[0]["tags"], expected["tags"])
    several, form = read_labels({"place": np.arange(6.0).reshape(3, 2)}, None, "Net")
    back = pd.DataFrame(several["place"], columns=form.columns["place"])[["place_1", "place_0"]]
    np.testing.assert_array_equal(read_labels(back, form, "Net")[0]["place"], several["place"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: y.rename(columns={"tags_1": "tags_7"}), "as in fit. Got no 'tags_1'. Did you mean 'tags_7'"),
        (lambda y: y.drop(columns="tags_1"), "Got no 'tags_1'. Rename"),
        (lambda y: y.drop(columns="price"), r"the columns \['price'\] of the task 'price', as in fit. Got no 'price'"),
        (lambda y: y.assign(tags_2=1), r"columns that were not there in fit: \['tags_2'\]"),
        (lambda y: {**dict(y), "tags": y[["tags_0"]]}, "Got no 'tags_1'"),
    ],
)
def test_columns_other_than_those_learnt_are_errors(labels, spoil, message):
    _, form = read_labels(as_frame(labels), TASKS, "Net")
    y = spoil(as_frame(labels))
    with pytest.raises(ValueError, match=message):
        read_labels({task: y[task] for task in TASKS} if isinstance(y, dict) else y, form, "Net")


def test_a_column_goes_to_the_task_of_the_longest_name():
    y = pd.DataFrame(np.eye(4, dtype=int), columns=["m_1", "m_2", "m_x_1", "m_x_2"])
    for tasks in (("m", "m_x"), ("m_x", "m")):
        _, form = read_labels(y, dict.fromkeys(tasks, "multilabel"), "Net")
        assert form.columns == {"m": ["m_1", "m_2"], "m_x": ["m_x_1", "m_x_2"]}
    with pytest.raises(ValueError, match=r"belong to no task: \['m_x_2'\]"):
        read_labels(y.rename(columns={"m_x_1": "m_x"}), dict.fromkeys(("m", "m_x"), "multilabel"), "Net")


@pytest.mark.parametrize("values", [[0, 1, None], [2, 5, 3, None], [True, False, None], ["a", None, "b"]])
def test_missing_classes_leave_the_others_as_they_are(values):
    column = pd.Series(values * 3, dtype=object)
    forms = [column.tolist(), column, column.astype("category")]
    if not isinstance(values[0], str):
        forms.append(column.astype("boolean" if isinstance(values[0], bool) else "Int64"))
    known = np.array([value for value in values if value is not None])
    for y in [*forms, pd.DataFrame({"k": forms[-1]})]:
        targets, read = targets_of({"k": y}, {"k": "classification"}, may_lack=True)
        assert targets.classes["k"].dtype.kind == (known.dtype.kind if known.dtype.kind != "U" else "O")
        np.testing.assert_array_equal(targets.classes["k"], np.unique(known))
        lacking = targets.encode(read).isnan().any(dim=1).tolist()
        assert lacking == [value is None for value in values] * 3
        targets.check(read)
        outputs = 9 * np.nan_to_num(targets.encode(read).numpy()) - 1 if targets.n_outputs == 1 else np.eye(3)[[0, 2, 1, 0] * 3]
        assert targets.scores(read, outputs, None) == {"k": 1.0}


def test_missing_numbers_of_nullable_columns():
    y = pd.DataFrame(
        {
            "i": pd.array([1, 2, None], dtype="Int64"),
            "b": pd.array([True, None, False], dtype="boolean"),
            "t_1": pd.array([True, None, False], dtype="boolean"),
            "o": pd.Series([1.5, None, pd.NA], dtype=object),
        }
    )
    _, form = read_labels(y, None, "Net", may_lack=True)
    assert form.kinds == {"i": "regression", "b": "classification", "t_1": "classification", "o": "regression"}
    tasks = {"i": "regression", "b": "classification", "t": "multilabel", "o": "regression"}
    read, _ = read_labels(y, tasks, "Net", may_lack=True)
    np.testing.assert_array_equal(read["i"], [1, 2, np.nan])
    np.testing.assert_array_equal(read["o"], [1.5, np.nan, np.nan])
    np.testing.assert_array_equal(read["t"], [[1], [np.nan], [0]])


def test_tasks_are_read_off_the_columns():
    y = pd.DataFrame(
        {
            "size": np.arange(4),
            "price": np.arange(4.0),
            "colour": ["a", "b", "a", "b"],
            "kind": pd.Categorical([1, 2, 1, 2]),
            "sold": [True, False, True, True],
            "mixed": pd.Series([1, 2.5, 3, 4], dtype=object),
        }
    )
    _, form = read_labels(y, None, "Net")
    assert form.kinds == {
        "size": "regression",
        "price": "regression",
        "colour": "classification",
        "kind": "classification",
        "sold": "classification",
        "mixed": "regression",
    }
    _, form = read_labels({"tags": np.eye(3, dtype=int), "place": np.eye(3) / 2}, None, "Net")
    assert form.kinds == {"tags": "multilabel", "place": "regression"}
    _, form = read_labels(np.zeros((3, 2)), None, "Net")
    assert form.kinds == {"y0": "regression", "y1": "regression"} and not form.is_1d
    _, form = read_labels(pd.Series([1.0, 2], name="price"), None, "Net")
    assert form.kinds == {"price": "regression"} and form.is_1d


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: {**y, "pricee": y["price"]}, r"keys that belong to no task: \['pricee'\]"),
        (lambda y: {"alphabet": y["alphabet"], "tags": y["tags"], "prize": y["price"]}, "'price'. Did you mean 'prize'"),
        (lambda y: as_frame(y).drop(columns="price"), "no columns for the task 'price'"),
        (lambda y: as_frame(y).assign(other=1), r"columns that belong to no task: \['other'\]"),
        (lambda y: as_array(y)[:, :2], "a column for each of the tasks"),
        (lambda y: as_array(y)[:, 0], "must have columns for the tasks"),
        (lambda y: {**y, "price": y["price"][1:]}, "inconsistent numbers of samples"),
        (lambda y: {**y, "price": spoilt(y["price"], np.nan)}, "contains NaN: 1 labels of the task 'price'"),
        (lambda y: {**y, "price": spoilt(y["price"], np.inf)}, "contains infinity"),
        (lambda y: {**y, "price": y["alphabet"]}, "needs numbers in y for the task 'price'. Got for example"),
        (lambda y: {**y, "tags": y["tags"] + 1}, "must hold 0 and 1 for the multilabel task 'tags'"),
        (lambda y: {**y, "alphabet": y["price"]}, "Unknown label type"),
        (lambda y: {**y, "alphabet": np.column_stack([y["alphabet"]] * 2)}, "one column for the classification task"),
        (lambda y: {**y, "alphabet": ["thai"] * N}, "at least two classes in y. Got one class in the task 'alphabet'"),
        (lambda y: None, "requires y to be passed"),
        (lambda y: np.zeros((N, 2, 2)), "dim 3"),
    ],
)
def test_labels_that_cannot_be_used_are_errors(labels, spoil, message):
    with pytest.raises(ValueError, match=message):
        targets_of(spoil(labels))


def spoilt(numbers, value):
    return np.where(np.arange(N) == 3, value, numbers)


def loss_of(targets, read, *, loss_scaling=None, weights=(1.0, 1.0, 1.0), share=None, criteria=None):
    criteria = criteria or [
        nn.CrossEntropyLoss(reduction="none"),
        nn.MSELoss(reduction="none"),
        nn.BCEWithLogitsLoss(reduction="none"),
    ]
    return MultiTaskLoss(targets.columns(), criteria, weights, loss_scaling, share), targets.encode(read)


def parts_by_torch(outputs, encoded):
    """Each task's own loss of each row."""
    return torch.stack(
        [
            F.cross_entropy(outputs[:, :3], encoded[:, 0].long(), reduction="none"),
            (outputs[:, 3] - encoded[:, 1]).square(),
            F.binary_cross_entropy_with_logits(outputs[:, 4:], encoded[:, 2:], reduction="none").mean(dim=1),
        ],
        dim=1,
    )


@pytest.fixture
def outputs():
    return torch.randn(N, 6, generator=torch.Generator().manual_seed(0))


def test_the_loss_is_the_weighted_sum(labels, outputs):
    targets, read = targets_of(labels)
    loss, encoded = loss_of(targets, read, weights=(0.5, 2.0, 3.0))
    parts = parts_by_torch(outputs, encoded)
    torch.testing.assert_close(loss(outputs, encoded), 0.5 * parts[:, 0] + 2 * parts[:, 1] + 3 * parts[:, 2])
    weight = torch.linspace(0.5, 1.5, N)
    torch.testing.assert_close(mean_loss(loss, outputs, encoded, weight), (loss(outputs, encoded) * weight).mean())


def test_uncertainty_is_the_formula_of_kendall_gal_and_cipolla(labels, outputs):
    """L / (2 sigma^2) + log sigma for numbers, L / sigma^2 + log sigma for classes."""
    targets, read = targets_of(labels)
    loss, encoded = loss_of(targets, read, loss_scaling="uncertainty")
    parts = parts_by_torch(outputs, encoded)
    torch.testing.assert_close(loss(outputs, encoded), parts[:, 0] + parts[:, 1] / 2 + parts[:, 2])
    sigma = torch.tensor([0.7, 1.3, 2.0])
    with torch.no_grad():
        loss.log_variance.copy_(2 * sigma.log())
    expected = (parts / torch.tensor([1.0, 2.0, 1.0]) / sigma**2 + sigma.log()).sum(dim=1)
    torch.testing.assert_close(loss(outputs, encoded), expected)


def test_learnt_uncertainties_are_those_of_least_loss(labels, outputs):
    """Of fixed outputs: sigma^2 is the mean squared error, and twice the mean loss for classes."""
    targets, read = targets_of(labels)
    loss, encoded = loss_of(targets, read, loss_scaling="uncertainty")
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=100, tolerance_grad=1e-8, tolerance_change=1e-12)

    def closure():
        optimizer.zero_grad()
        value = loss(outputs, encoded).mean()
        value.backward()
        return value

    optimizer.step(closure)
    means = parts_by_torch(outputs, encoded).mean(dim=0)
    torch.testing.assert_close(loss.log_variance.exp().detach(), means * torch.tensor([2.0, 1.0, 2.0]), rtol=1e-3, atol=0)


def test_batch_max_divides_by_the_largest_loss_so_far(labels, outputs):
    targets, read = targets_of(labels)
    targets.standardize(read, None)
    loss, encoded = loss_of(targets, read, loss_scaling="batch_max", weights=(1.0, 2.0, 3.0))
    first, second = parts_by_torch(outputs, encoded).mean(dim=0), parts_by_torch(3 * outputs, encoded).mean(dim=0)
    weights = torch.tensor([1.0, 2.0, 3.0])
    assert float(loss(outputs, encoded).mean()) == pytest.approx(6.0), "every task begins at one"
    torch.testing.assert_close(loss(0.1 * outputs, encoded), parts_by_torch(0.1 * outputs, encoded) / first @ weights)
    loss.eval()
    torch.testing.assert_close(loss(3 * outputs, encoded), parts_by_torch(3 * outputs, encoded) / first @ weights)
    loss.train()
    torch.testing.assert_close(loss(3 * outputs, encoded).mean(), (second / torch.maximum(first, second)) @ weights)


def test_by_batch_max_all_evaluations_have_one_scale(labels, outputs):
    targets, read = targets_of(labels)
    targets.standardize(read, None)
    loss, encoded = loss_of(targets, read, loss_scaling="batch_max")
    loss(outputs, encoded)
    first = loss.eval()(outputs, encoded)
    loss.train()(10 * outputs, encoded)
    torch.testing.assert_close(loss.eval()(outputs, encoded), first, rtol=0, atol=0)
    assert set(loss.state_dict()) == {"weights", "labelled_share", "largest"}, "states of older versions can be loaded"


def test_the_unit_of_a_task_does_not_matter_by_batch_max(labels, outputs):
    targets, read = targets_of(labels)
    grads = []
    for unit in (1.0, 1000.0):
        class Scaled(nn.MSELoss):
            def forward(self, a, b, unit=unit):
                return unit * super().forward(a, b)

        criteria = [nn.CrossEntropyLoss(reduction="none"), Scaled(reduction="none"), nn.BCEWithLogitsLoss(reduction="none")]
        loss, encoded = loss_of(targets, read, loss_scaling="batch_max", criteria=criteria)
        moved = outputs.clone().requires_grad_()
        loss(moved, encoded).mean().backward()
        grads.append(moved.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_missing_labels_count_as_no_loss_and_the_others_by_more(labels, outputs):
    labels["price"][:3] = np.nan
    labels["alphabet"] = labels["alphabet"].astype(object)
    labels["alphabet"][5] = None
    targets, read = targets_of(labels, may_lack=True)
    assert targets.classes["alphabet"].tolist() == ["greek", "latin", "thai"]
    share = targets.labelled_share(read, None)
    assert share == [11 / 12, 9 / 12, 1.0]
    loss, encoded = loss_of(targets, read, share=share)
    moved = outputs.clone().requires_grad_()
    value = loss(moved, encoded).mean()
    value.backward()
    assert torch.isfinite(moved.grad).all() and (moved.grad[:3, 3] == 0).all() and (moved.grad[5, :3] == 0).all()
    known = torch.arange(N) != 5
    expected = [
        F.cross_entropy(outputs[known, :3], encoded[known, 0].long()),
        F.mse_loss(outputs[3:, 3], encoded[3:, 1]),
        F.binary_cross_entropy_with_logits(outputs[:, 4:], encoded[:, 2:]),
    ]
    assert float(value.detach()) == pytest.approx(float(sum(expected)), rel=1e-6)
    scores = targets.scores(read, outputs.numpy(), None)
    predicted = targets.decode(outputs.numpy())
    assert scores["price"] == pytest.approx(r2_score(labels["price"][3:], predicted["price"][3:]))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_meter_gives_the_scores_of_scikit_learn(labels, outputs, weighted):
    labels["price"][:2] = np.nan
    targets, read = targets_of(labels, may_lack=True)
    targets.standardize(read, None)
    loss, encoded = loss_of(targets, read, share=targets.labelled_share(read, None))
    loss.meter = TaskMeter()
    weight = torch.linspace(0.5, 1.5, N) if weighted else None
    for part in (slice(0, 5), slice(5, N)):
        loss(outputs[part], encoded[part], None if weight is None else weight[part])
    loss.eval()
    loss(outputs, encoded, weight)
    entries = loss.meter.read(targets.columns())
    scores = targets.scores(read, outputs.numpy(), None if weight is None else weight.numpy())
    for task, score in scores.items():
        assert entries[f"train_score_{task}"] == pytest.approx(score, rel=1e-5)
        assert entries[f"valid_score_{task}"] == pytest.approx(score, rel=1e-5)
    expected = F.mse_loss(outputs[2:, 3], encoded[2:, 1], reduction="none").numpy()
    share = None if weight is None else weight[2:].numpy()
    assert entries["valid_loss_price"] == pytest.approx(np.average(expected, weights=share), rel=1e-5)
    assert loss.meter.read(targets.columns()) == {}


def test_two_classes_and_indicators_are_scored_as_by_scikit_learn():
    labels = Fields({"a": np.array(["x", "y", "x", "y"]), "b": np.array([[0, 1], [1, 1], [1, 0], [0, 0]])})
    targets, read = targets_of(dict(labels.items()), {"a": "classification", "b": "multilabel"})
    assert targets.n_outputs == 1 + 2
    outputs = np.array([[-1.0, -1, 1], [1, 1, 1], [1, 1, -1], [-1, 1, -1]])
    assert targets.scores(read, outputs, None) == {
        "a": accuracy_score(labels["a"], ["x", "y", "y", "x"]),
        "b": accuracy_score(labels["b"], outputs[:, 1:] > 0),
    }
