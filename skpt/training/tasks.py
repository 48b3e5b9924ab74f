"""Several tasks at once: their labels in any form, their targets, their losses and what is recorded of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.multiclass import check_classification_targets
from skorch.callbacks import Callback
from torch import Tensor, nn

from skpt.exceptions import InvalidInputError, nearest_name
from skpt.training.criteria import is_of_counts, row_losses, takes_class_index
from skpt.training.fields import Fields
from skpt.training.targets import TARGETS_BY_KIND, ClassTarget, NumericTarget, target_from_dict

__all__ = ["KINDS", "LOSS_SCALINGS", "LabelForm", "MultiTaskLoss", "RecordTasks", "TaskTargets", "read_labels"]

KINDS = ("classification", "regression", "multilabel")
LOSS_SCALINGS = ("batch_max", "uncertainty")


# ---------------------------------------------------------------------- labels


@dataclass(frozen=True)
class LabelForm:
    """The tasks, and the form in which their labels came: that of the predictions too.

    Parameters
    ----------
    kinds : dict of str to str
        What each task is: one of `KINDS`.
    columns : dict of str to list
        The names of each task's columns in a DataFrame, in the order of its outputs.
    is_1d : bool
        Whether there is one task, whose labels came as one dimension.
    """

    kinds: dict[str, str]
    columns: dict[str, list]
    is_1d: bool


def read_labels(
    y, tasks: Mapping[str, str] | LabelForm | None, owner: str, *, may_lack: bool = False
) -> tuple[Fields, LabelForm]:
    """Read the labels of several tasks.

    Parameters
    ----------
    y : DataFrame, mapping of str to array-like, or array-like of shape (n_samples,) or (n_samples, n_columns)
        The labels. A task takes the column or key of its name; a multilabel task the columns whose names begin with its name
        and an underscore (of several such tasks the one of the longest name), or a two-dimensional array under its key. The
        columns of an array go to the tasks in order; one multilabel task takes as many as the others leave.
    tasks : mapping of str to str, LabelForm or None
        What each task is: one of `KINDS`. None makes a task of each column: numbers are for regression, everything else
        (texts, categories, booleans) are classes; a two-dimensional array under a key is multilabel if it holds 0 and 1 as
        whole numbers or booleans, and several numbers of one regression otherwise. The form of labels that were read before
        asks for its columns of a DataFrame, in whatever order they come.
    owner : str
        Whose y it is, for messages.
    may_lack : bool, default=False
        Whether labels may be missing (NaN or None).

    Returns
    -------
    labels : Fields
        One array for each task: (n_samples,), or (n_samples, n_columns) where there are several columns.
    form : LabelForm
        The tasks and the form of y.

    Raises
    ------
    InvalidInputError
        If y does not hold the tasks' labels.
    """
    learnt = None
    if isinstance(tasks, LabelForm):
        tasks, learnt = tasks.kinds, tasks.columns
    raw, columns, is_1d = _columns_of(y, tasks, learnt, owner)
    kinds = dict(tasks) if tasks is not None else {name: _kind_of(labels) for name, labels in raw.items()}
    labels = {name: _read_task(name, raw[name], kind, owner, may_lack) for name, kind in kinds.items()}
    return Fields(labels), LabelForm(kinds, {name: columns[name] for name in kinds}, is_1d)


def _columns_of(y, tasks, learnt, owner: str) -> tuple[dict[str, Any], dict[str, list], bool]:
    """Each task's labels as they are, the names of its columns, and whether y has one dimension."""
    if y is None:
        raise InvalidInputError(f"{owner} requires y to be passed, but the target y is None.")
    if isinstance(y, pd.DataFrame):
        return *_columns_of_frame(y, tasks, learnt, owner), False
    if isinstance(y, Mapping):
        names = list(y) if tasks is None else list(tasks)
        _check_names({str(name) for name in y}, {str(name) for name in names}, owner, "keys")
        raw = {str(name): y[name] for name in names}
        for task, labels in raw.items() if learnt else ():
            if isinstance(labels, pd.DataFrame) and len(learnt[task]) > 1:
                raw[task] = labels[_find_learnt(labels, {task: learnt[task]}, owner)[task]]
        return raw, {name: _names_of_columns(name, labels) for name, labels in raw.items()}, False
    return _columns_of_array(y, tasks, owner)


def _columns_of_frame(y: pd.DataFrame, tasks, learnt, owner: str) -> tuple[dict[str, Any], dict[str, list]]:
    if not y.columns.is_unique:
        raise InvalidInputError(f"The columns of y of {owner} must have different names. Got {list(y.columns)}.")
    if tasks is None:
        return {str(name): y[name] for name in y.columns}, {str(name): [name] for name in y.columns}
    columns = _find_columns(y, tasks, owner) if learnt is None else _find_learnt(y, learnt, owner)
    return {
        task: y[names] if tasks[task] == "multilabel" or len(names) > 1 else y[names[0]] for task, names in columns.items()
    }, columns


def _find_columns(y: pd.DataFrame, tasks, owner: str) -> dict[str, list]:
    """Each task's columns, by the names of the tasks."""
    multilabel = [task for task, kind in tasks.items() if kind == "multilabel"]
    columns: dict[str, list] = {task: [name for name in y.columns if str(name) == task] for task in tasks}
    has_own = {task for task, names in columns.items() if names}
    extra = set()
    for name in y.columns:
        if str(name) in tasks:
            continue
        task = max((task for task in multilabel if str(name).startswith(f"{task}_")), key=len, default=None)
        if task is None or task in has_own:
            extra.add(str(name))
        else:
            columns[task].append(name)
    found = {task for task, names in columns.items() if names}
    _check_names(found | extra, set(tasks), owner, "columns")
    return columns


def _find_learnt(y: pd.DataFrame, learnt: Mapping[str, list], owner: str) -> dict[str, list]:
    """Each task's columns, by the names that they had before."""
    named = {str(name): name for name in y.columns}
    known = {str(name) for names in learnt.values() for name in names}
    for task, names in learnt.items():
        missing = [str(name) for name in names if str(name) not in named]
        if missing:
            raise InvalidInputError(
                f"y of {owner} must have the columns {names} of the task {task!r}, as in fit. Got no {missing[0]!r}."
                f"{nearest_name(missing[0], named.keys() - known, listed=True)} Rename columns, or pass an array."
            )
    extra = [name for name in y.columns if str(name) not in known]
    if extra:
        raise InvalidInputError(
            f"y of {owner} has columns that were not there in fit: {extra}. There were {sorted(known)}. Leave the others out."
        )
    return {task: [named[str(name)] for name in names] for task, names in learnt.items()}


def _columns_of_array(y, tasks, owner: str) -> tuple[dict[str, Any], dict[str, list], bool]:
    name = getattr(y, "name", None)  # of a Series
    y = y if isinstance(y, pd.Series) else np.asarray(y)
    if y.ndim == 1:
        if tasks is not None and (len(tasks) > 1 or "multilabel" in tasks.values()):
            raise InvalidInputError(
                f"y of {owner} must have columns for the tasks {list(tasks)}. Got one dimension, shape {y.shape}. Pass a "
                "DataFrame, a dict of arrays or an array of shape (n_samples, n_columns)."
            )
        task = next(iter(tasks)) if tasks is not None else "y" if name is None else str(name)
        return {task: y}, {task: [task]}, True
    if y.ndim != 2 or y.shape[1] == 0:
        raise InvalidInputError(f"Found array with dim {y.ndim}: y of {owner} must have one or two dimensions. Got {y.shape}.")
    if tasks is None:
        names = ["y"] if y.shape[1] == 1 else [f"y{i}" for i in range(y.shape[1])]
        return dict(zip(names, y.T, strict=True)), {name: [name] for name in names}, False
    multilabel = [task for task, kind in tasks.items() if kind == "multilabel"]
    n_left = y.shape[1] - len(tasks) + len(multilabel)
    if len(multilabel) > 1 or n_left < len(multilabel) or (n_left and not multilabel):
        raise InvalidInputError(
            f"An array y of {owner} must have a column for each of the tasks {dict(tasks)}, and those that are left go to the "
            f"one multilabel task. Got outputs of shape {y.shape}. Pass a DataFrame or a dict of arrays."
        )
    raw, at = {}, 0
    for task, kind in tasks.items():
        n_columns = n_left if kind == "multilabel" else 1
        raw[task] = y[:, at : at + n_columns] if kind == "multilabel" else y[:, at]
        at += n_columns
    return raw, {task: _names_of_columns(task, labels) for task, labels in raw.items()}, False


def _names_of_columns(task: str, labels) -> list:
    if isinstance(labels, pd.DataFrame):
        return list(labels.columns)
    shape = np.shape(labels)
    return [task] if len(shape) < 2 else [f"{task}_{i}" for i in range(shape[1])]


def _check_names(found: set[str], tasks: set[str], owner: str, what: str) -> None:
    missing, extra = sorted(tasks - found), sorted(found - tasks)
    if missing:
        raise InvalidInputError(f"y of {owner} has no {what} for the task {missing[0]!r}.{nearest_name(missing[0], found)}")
    if extra:
        raise InvalidInputError(
            f"y of {owner} has {what} that belong to no task: {extra}. The tasks are {sorted(tasks)}. Leave them out, or add "
            "them to tasks."
        )


def _kind_of(labels) -> str:
    """What a task without a kind is, by its labels."""
    if isinstance(labels, (pd.Series, pd.DataFrame)) and isinstance(getattr(labels, "dtype", None), pd.CategoricalDtype):
        return "classification"
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biu" and np.isin(labels, (0, 1)).all():
        return "multilabel"
    if labels.dtype.kind == "O":
        known = labels[~pd.isna(labels)]
        numbers = all(isinstance(each, Number) and not isinstance(each, bool) for each in known)
        return "regression" if numbers else "classification"
    return "regression" if labels.dtype.kind in "iufc" else "classification"


def _read_task(task: str, labels, kind: str, owner: str, may_lack: bool) -> np.ndarray:
    """Check the labels of one task."""
    if isinstance(labels, pd.DataFrame) and labels.shape[1] == 1 and kind != "multilabel":
        labels = labels.iloc[:, 0]
    if isinstance(getattr(labels, "dtype", None), pd.api.extensions.ExtensionDtype) and labels.isna().any():
        labels = labels.astype(object)  # numpy would make numbers with a fraction of whole ones
    labels = np.asarray(labels)
    if labels.dtype == object:
        labels = np.where(pd.isna(labels), np.nan, labels)
    if labels.ndim == 2 and labels.shape[1] == 1 and kind != "multilabel":
        labels = labels[:, 0]
    if labels.ndim != 1 and (labels.ndim != 2 or kind == "classification"):
        raise InvalidInputError(
            f"y of {owner} must have one column for the {kind} task {task!r}. Got labels of shape {labels.shape}."
        )
    lacking = _is_missing(labels)
    if lacking.any() and not may_lack:
        raise InvalidInputError(
            f"Input y contains NaN: {int(lacking.sum())} labels of the task {task!r} are missing. Leave these rows out, or set "
            "missing_labels='ignore', by which they count for the other tasks only."
        )
    if lacking.all():
        raise InvalidInputError(f"y of {owner} must have at least a minimum of 1 label of the task {task!r}. Got none.")
    if kind == "classification":
        check_classification_targets(_known(labels)[1])
        return labels
    numbers = _as_numbers(task, labels, owner)
    if not np.isfinite(numbers[~lacking]).all():
        raise InvalidInputError(
            f"Input y contains infinity or a value too large for dtype('float64') in the task {task!r}. Remove such values."
        )
    if kind == "multilabel":
        numbers = numbers.reshape(len(numbers), -1)
        if not np.isin(numbers[~lacking], (0, 1)).all():
            raise InvalidInputError(
                f"y of {owner} must hold 0 and 1 for the multilabel task {task!r}: one column for each label. Got other "
                "values. Use sklearn.preprocessing.MultiLabelBinarizer for lists of labels."
            )
    return numbers


def _is_missing(labels: np.ndarray) -> np.ndarray:
    """Rows in which a label is NaN or None, (n_samples,)."""
    lacking = pd.isna(labels)
    return lacking if lacking.ndim == 1 else lacking.any(axis=1)


def _known(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a label, (n_samples,), and these labels: integers as integers though they stood beside missing ones."""
    known = ~_is_missing(labels)
    labels = labels[known]
    if labels.dtype == object:
        inferred = np.asarray(pd.Series(labels, dtype=object).infer_objects())
        labels = inferred if inferred.dtype.kind in "biuf" else labels
    return known, labels


def _as_numbers(task: str, labels: np.ndarray, owner: str) -> np.ndarray:
    if labels.dtype == np.float32:
        return labels
    if labels.dtype.kind == "c":
        raise InvalidInputError(f"Complex data not supported in y of {owner}, task {task!r}.")
    try:
        return labels.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{owner} needs numbers in y for the task {task!r}. Got for example {labels.ravel()[0]!r}. For classes give "
            f"tasks={{{task!r}: 'classification', ...}}."
        ) from error


# ---------------------------------------------------------------------- targets


@dataclass(frozen=True)
class TaskColumns:
    """Where one task is among the outputs of a network and the columns of the encoded targets.

    Parameters
    ----------
    name : str
        The task.
    outputs, targets : slice
        Its columns.
    reads : {"numbers", "index", "one_hot", "indicators"}
        What its encoded targets are.
    log_link : bool, default=False
        Whether the outputs are logarithms of what the targets are.
    """

    name: str
    outputs: slice
    targets: slice
    reads: str
    log_link: bool = False


class TaskTargets:
    """The targets of several tasks side by side.

    Parameters
    ----------
    targets : dict of str to NumericTarget or ClassTarget
        One for each task.
    form : LabelForm
        The form of y, and of the predictions.
    """

    kind = "tasks"

    def __init__(self, targets: dict[str, NumericTarget | ClassTarget], form: LabelForm):
        self.targets, self.form = targets, form
        self.n_outputs = sum(target.n_outputs for target in targets.values())
        self.output_shape = (self.n_outputs,)

    @classmethod
    def from_labels(cls, labels: Fields, form: LabelForm, criteria: Mapping[str, Any], classes=None) -> TaskTargets:
        """Learn classes and sizes.

        Parameters
        ----------
        labels : Fields
            What `read_labels` gave.
        form : LabelForm
            What `read_labels` gave.
        criteria : mapping of str to class or "auto"
            The tasks' criteria; "auto" takes class numbers for three classes and more.
        classes : mapping of str to array-like, default=None
            All classes of the tasks where the labels may lack some.

        Returns
        -------
        TaskTargets
            Ready to encode.

        Raises
        ------
        InvalidInputError
            If a task has one class, or if `classes` are those of a task that there is not.
        """
        with_classes = [task for task, kind in form.kinds.items() if kind == "classification"]
        for task in classes or ():
            if task not in with_classes:
                raise InvalidInputError(
                    f"classes must be those of the tasks {with_classes}, which are of classification. Got the task {task!r}."
                    f"{nearest_name(str(task), with_classes, listed=True)}"
                )
        targets: dict[str, NumericTarget | ClassTarget] = {}
        for task, kind in form.kinds.items():
            _, y = _known(labels[task])
            if kind == "regression":
                targets[task] = NumericTarget.from_y(y)
                if is_of_counts(criteria[task]):
                    targets[task].expect_counts(y, criteria[task])
            elif kind == "multilabel":
                targets[task] = ClassTarget(np.arange(y.shape[1]), True, False)
            else:
                found = np.unique(y if classes is None or task not in classes else np.asarray(classes[task]))
                if len(found) < 2:
                    raise InvalidInputError(
                        f"A classification task needs at least two classes in y. Got one class in the task {task!r}: "
                        f"{found.tolist()}."
                    )
                criterion = criteria[task]
                takes_index = len(found) > 2 if isinstance(criterion, str) else takes_class_index(criterion)
                targets[task] = ClassTarget(found, False, takes_index)
        return cls(targets, form)

    @property
    def classes(self) -> dict[str, np.ndarray]:
        """The class labels of each task that has classes."""
        return {task: target.classes for task, target in self.targets.items() if isinstance(target, ClassTarget)}

    def columns(self) -> list[TaskColumns]:
        """Say where each task is among outputs and encoded targets."""
        found, output, column = [], 0, 0
        for task, target in self.targets.items():
            if isinstance(target, NumericTarget):
                reads, n_columns = "numbers", target.n_outputs
            elif target.takes_index:
                reads, n_columns = "index", 1
            else:
                reads = "indicators" if target.multilabel or target.one_output else "one_hot"
                n_columns = target.n_outputs
            outputs, targets = slice(output, output + target.n_outputs), slice(column, column + n_columns)
            found.append(TaskColumns(task, outputs, targets, reads, reads == "numbers" and target.log_link))
            output, column = outputs.stop, targets.stop
        return found

    def standardize(self, labels: Fields, weight: np.ndarray | None) -> None:
        """Learn mean and scale of the numbers to predict, from the rows that have them."""
        for task, target in self.targets.items():
            if isinstance(target, NumericTarget) and not target.of_counts:
                known, y = _known(labels[task])
                target.standardize(y, None if weight is None else weight[known])

    def check(self, labels: Fields) -> None:
        """Raise if labels have not the form that was learnt."""
        for task, target in self.targets.items():
            try:
                target.check(_known(labels[task])[1])
            except InvalidInputError as error:
                raise InvalidInputError(f"Task {task!r}: {error}") from error

    def labelled_share(self, labels: Fields, weight: np.ndarray | None) -> list[float]:
        """Give for each task the share of the rows (of their weight) that have a label."""
        return [float(np.average(~_is_missing(labels[task]), weights=weight)) for task in self.targets]

    def encode(self, labels: Fields) -> Tensor:
        """Give float32 (n_samples, n_columns): class numbers, indicators and numbers; NaN where a label is missing."""
        parts = []
        for task, target in self.targets.items():
            known, y = _known(labels[task])
            encoded = target.encode(y).float()
            encoded = encoded.reshape(len(encoded), -1)
            if not known.all():
                whole = torch.full((len(known), encoded.shape[1]), float("nan"))
                whole[torch.from_numpy(known)] = encoded
                encoded = whole
            parts.append(encoded)
        return torch.cat(parts, dim=1)

    def _outputs_of(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        return {each.name: outputs[:, each.outputs] for each in self.columns()}

    def predictions(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Give the predicted labels of each task."""
        return {task: self.targets[task].decode(part) for task, part in self._outputs_of(outputs).items()}

    def decode(self, outputs: np.ndarray, index: pd.Index | None = None) -> pd.DataFrame | np.ndarray:
        """Give predictions: a DataFrame with `index`; an array where y had one dimension."""
        by_task = self.predictions(outputs)
        if self.form.is_1d:
            return next(iter(by_task.values()))
        frames = [pd.DataFrame(labels, index, self.form.columns[task]) for task, labels in by_task.items()]
        return pd.concat(frames, axis=1)

    def probabilities(self, outputs: np.ndarray) -> dict[str, np.ndarray]:
        """Give the probabilities of the classes, for each task that has classes."""
        parts = self._outputs_of(outputs)
        return {task: self.targets[task].probabilities(parts[task]) for task in self.classes}

    def scores(self, labels: Fields, outputs: np.ndarray, weight: np.ndarray | None) -> dict[str, float]:
        """Give each task's accuracy (of all labels of a row together) or R2, over the rows that have its label."""
        found = {}
        for task, predicted in self.predictions(outputs).items():
            known, y = _known(labels[task])
            score = r2_score if isinstance(self.targets[task], NumericTarget) else accuracy_score
            share = None if weight is None else weight[known]
            found[task] = float(score(y, predicted[known], sample_weight=share))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return {
            "kind": self.kind,
            "targets": {task: target.to_dict() for task, target in self.targets.items()},
            "kinds": self.form.kinds,
            "columns": self.form.columns,
            "is_1d": self.form.is_1d,
        }

    @classmethod
    def from_dict(cls, targets: dict, kinds: dict, columns: dict, is_1d: bool) -> TaskTargets:
        """Make one of what `to_dict` gave, but for the kind."""
        form = LabelForm(kinds, columns, is_1d)
        return cls({task: target_from_dict(each) for task, each in targets.items()}, form)

    def agrees_with(self, other) -> bool:
        """Say whether a network's outputs mean the same for other targets, but for the scales: the same tasks."""
        if not isinstance(other, TaskTargets) or list(other.targets) != list(self.targets):
            return False
        return all(target.agrees_with(other.targets[task]) for task, target in self.targets.items())


TARGETS_BY_KIND[TaskTargets.kind] = TaskTargets.from_dict


# ---------------------------------------------------------------------- losses


class MultiTaskLoss(nn.Module):
    r"""The weighted sum of several tasks' losses, each on its own scale.

    With :math:`\ell_k` the loss of task :math:`k` in a row and :math:`w_k` its weight, a row's loss is

    - without scaling, :math:`\sum_k w_k \ell_k`;
    - "batch_max": :math:`\sum_k w_k \ell_k / m_k`, where :math:`m_k` is the largest mean loss that the task has had in a
      training batch so far. Each task begins near 1 and falls from there, whatever its unit. In evaluation it is what it
      was at the first evaluation, so that the losses of all epochs can be compared;
    - "uncertainty": :math:`\sum_k w_k (c_k e^{-s_k} \ell_k + s_k / 2)` with learnt log-variances :math:`s_k`, that begin
      at 0, and :math:`c_k` of 1/2 for numbers and 1 for classes (Kendall, Gal and Cipolla). It may be negative.

    Parameters
    ----------
    columns : sequence of TaskColumns
        Where each task is.
    criteria : sequence of torch.nn.Module
        The loss of each, row by row.
    weights : sequence of float
        The weight of each.
    loss_scaling : {"batch_max", "uncertainty"} or None, default=None
        How losses on different scales are brought together.
    labelled_share : sequence of float, default=None
        The share of the training rows that have a label of each task. A missing label (NaN) counts as no loss, and the
        others by so much more. None if there are no missing ones.
    reduction : {"none", "mean"}, default="none"
        Whether a loss for each row is given, or their mean.

    Attributes
    ----------
    may_lack : bool
        Whether labels may be missing: where `labelled_share` was given, and where it is set later.

    Shape
    -----
    outputs (N, n_outputs) and targets (N, n_columns), and weights of mean one (N,) or None, to (N,) or a scalar.

    References
    ----------
    Kendall, A., Gal, Y., Cipolla, R. (2018). Multi-task learning using uncertainty to weigh losses for scene geometry and
    semantics. CVPR. arXiv:1705.07115.
    """

    takes_sample_weight = True
    takes_indicators = True

    def __init__(
        self,
        columns: Sequence[TaskColumns],
        criteria: Sequence[nn.Module],
        weights: Sequence[float],
        loss_scaling: str | None = None,
        labelled_share: Sequence[float] | None = None,
        reduction: str = "none",
    ):
        super().__init__()
        if reduction not in ("none", "mean"):
            raise ValueError(f"The reduction of MultiTaskLoss must be 'none' or 'mean'. Got {reduction!r}.")
        self.columns, self.loss_scaling, self.reduction = list(columns), loss_scaling, reduction
        self.criteria = nn.ModuleList(criteria)
        self.may_lack = labelled_share is not None
        factors = torch.tensor([float(w) for w in weights])
        self.register_buffer("weights", factors)
        share = torch.tensor(labelled_share if self.may_lack else [1.0] * len(self.columns), dtype=torch.float32)
        self.register_buffer("labelled_share", torch.where(share > 0, share, 1.0))
        if loss_scaling == "batch_max":
            self.register_buffer("largest", torch.zeros(len(self.columns)))
            # Not among what is saved: files of older versions have none.
            self.register_buffer("largest_at_first", torch.zeros(len(self.columns)), persistent=False)
        elif loss_scaling == "uncertainty":
            self.log_variance = nn.Parameter(torch.zeros(len(self.columns)))
            half = [0.5 if each.reads == "numbers" else 1.0 for each in self.columns]
            self.register_buffer("likelihood_factor", torch.tensor(half))
        self.meter: TaskMeter | None = None

    def task_losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Give each task's own loss in each row, (N, n_tasks): no weights, no scaling; zero where the label is missing."""
        if outputs.ndim != 2 or outputs.shape[1] != self.columns[-1].outputs.stop:
            raise InvalidInputError(
                f"MultiTaskLoss needs outputs of the shape (n_rows, {self.columns[-1].outputs.stop}), the tasks' side by side. "
                f"Got shape {tuple(outputs.shape)}."
            )
        losses = []
        for each, criterion in zip(self.columns, self.criteria, strict=True):
            out, target = outputs[:, each.outputs], targets[:, each.targets]
            known = None
            if self.may_lack:
                known = ~target.isnan().any(dim=1)
                target = torch.nan_to_num(target, nan=0.0)
            if each.reads == "index":
                target = target[:, 0].long()
            loss = row_losses(criterion, out, target)
            if loss.ndim == 0:
                raise InvalidInputError(
                    f"The criterion of the task {each.name!r} must give a loss for each row: it needs a parameter reduction "
                    f"that may be 'none'. {type(criterion).__name__} gives one number per batch."
                )
            losses.append(loss if known is None else torch.where(known, loss, 0.0))
        return torch.stack(losses, dim=1)

    def forward(self, outputs: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Give the loss of each row, or its mean; `sample_weight` enters "batch_max" and what is recorded."""
        losses = self.task_losses(outputs, targets)
        if self.meter is not None:
            with torch.no_grad():
                self.meter.add(self, outputs, targets, losses, sample_weight)
        if self.may_lack:
            losses = losses / self.labelled_share
        if self.loss_scaling == "batch_max":
            losses = losses / self._divisors(losses, sample_weight)
        elif self.loss_scaling == "uncertainty":
            losses = self.likelihood_factor * torch.exp(-self.log_variance) * losses + 0.5 * self.log_variance
        rows = losses @ self.weights.to(losses.dtype)
        return rows if self.reduction == "none" else rows.mean()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self.loss_scaling == "batch_max" and "largest_at_first" not in self._buffers:  # pickled before there was one
            self.register_buffer("largest_at_first", torch.zeros_like(self.largest), persistent=False)

    @torch.no_grad()
    def _divisors(self, losses: Tensor, sample_weight: Tensor | None) -> Tensor:
        """Give what "batch_max" divides the tasks' losses by, (n_tasks,)."""
        if self.training:
            weighted = losses if sample_weight is None else losses * sample_weight.unsqueeze(1)
            torch.maximum(self.largest, weighted.mean(dim=0), out=self.largest)
            largest = self.largest
        else:
            largest = self.largest_at_first
            largest.copy_(torch.where(largest > 0, largest, self.largest))
        return torch.where(largest > 0, largest, 1.0)


class TaskMeter:
    """Each task's mean loss and score over the batches of an epoch, in training and in validation."""

    def __init__(self):
        self.sums: dict[bool, list[Tensor] | None] = {True: None, False: None}

    def add(self, criterion: MultiTaskLoss, outputs: Tensor, targets: Tensor, losses: Tensor, weight: Tensor | None) -> None:
        """Take note of one batch."""
        found = []
        for i, each in enumerate(criterion.columns):
            out, target = outputs[:, each.outputs].detach(), targets[:, each.targets]
            share = torch.ones_like(losses[:, i]) if weight is None else weight
            if criterion.may_lack:
                share = share * ~target.isnan().any(dim=1)
                target = torch.nan_to_num(target, nan=0.0)
            share = share.double()
            if each.reads == "numbers":
                y, out = target.double(), out.double()
                out = out.exp() if each.log_link else out
                sums = [share @ y, share @ y.square(), share @ (y - out).square()]
            else:
                sums = [share @ _is_right(each.reads, out, target).double()]
            sums = [share.sum(), share @ losses[:, i].double(), *sums]
            found.append(torch.cat([each.view(-1) for each in sums]))
        before = self.sums[criterion.training]
        self.sums[criterion.training] = found if before is None else [a + b for a, b in zip(before, found, strict=True)]

    def read(self, columns: Sequence[TaskColumns]) -> dict[str, float]:
        """Give the epoch's entries of the history, and begin anew."""
        entries = {}
        for training, sums in self.sums.items():
            prefix = "train" if training else "valid"
            for each, part in zip(columns, sums or [], strict=bool(sums)):
                total, loss, *rest = part.tolist()
                if not total:
                    continue
                entries[f"{prefix}_loss_{each.name}"] = loss / total
                entries[f"{prefix}_score_{each.name}"] = _score_of_sums(each.reads, total, rest)
        self.sums = {True: None, False: None}
        return entries


def _is_right(reads: str, out: Tensor, target: Tensor) -> Tensor:
    """Whether all labels of a row are predicted, (N,)."""
    if reads == "index":
        return out.argmax(dim=1) == target[:, 0].long()
    if reads == "one_hot":
        return out.argmax(dim=1) == target.argmax(dim=1)
    return ((out > 0) == (target > 0.5)).all(dim=1)


def _score_of_sums(reads: str, total: float, rest: Sequence[float]) -> float:
    """Accuracy, or the mean R2 of the columns: 1 and 0 for a constant one, as scikit-learn has it."""
    if reads != "numbers":
        return rest[0] / total
    y, squares, residuals = np.split(np.array(rest), 3)
    spread = np.maximum(squares - y**2 / total, 0.0)
    constant = spread <= 1e-12 * squares
    r2 = 1.0 - residuals / np.where(constant, 1.0, spread)
    return float(np.mean(np.where(constant, np.where(residuals == 0, 1.0, 0.0), r2)))


class RecordTasks(Callback):
    """Writes each task's loss and score into the history: ``train_loss_<task>``, ``valid_score_<task>`` and so on.

    Training entries are measured while training, before each step; validation entries after the epoch.
    """

    def on_train_begin(self, net, **kwargs):
        """Begin to take note."""
        net.criterion_.meter = TaskMeter()

    def on_epoch_end(self, net, **kwargs):
        """Write one epoch's entries."""
        for name, value in net.criterion_.meter.read(net.criterion_.columns).items():
            net.history.record(name, value)

    def on_train_end(self, net, **kwargs):
        """Take no more notes."""
        net.criterion_.meter = None
