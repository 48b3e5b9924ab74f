"""Networks with several tasks: a trunk of any family, or of several inputs, and a head for each task."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_consistent_length, check_is_fitted
from torch import nn

from skpt._compat import Interval, StrOptions, check_sample_weight
from skpt._docstrings import PARAMETERS, REGRESSOR_PARAMETERS
from skpt.base import NetEstimator
from skpt.estimators.branches import Branch
from skpt.estimators.multi_input import BranchedNet
from skpt.exceptions import InvalidInputError, nearest_name
from skpt.modules.layers import ACTIVATIONS, INITIALIZATIONS
from skpt.modules.multi_input import JoinedModule
from skpt.modules.multi_task import MultiTaskModule
from skpt.training.criteria import CLASSIFICATION_CRITERIA, REGRESSION_CRITERIA, build_criterion, find_criterion
from skpt.training.fields import Fields
from skpt.training.job import TrainingJob
from skpt.training.sources import RowSource, unpack
from skpt.training.tasks import KINDS, LOSS_SCALINGS, MultiTaskLoss, RecordTasks, TaskTargets, read_labels
from skpt.training.transfer import unwrapped

__all__ = ["MultiTaskEstimator"]

_INDICATOR_CRITERIA = {name: CLASSIFICATION_CRITERIA[name] for name in ("bce", "multilabel_soft_margin")}
_CRITERIA = {
    "regression": REGRESSION_CRITERIA,
    "classification": {name: CLASSIFICATION_CRITERIA[name] for name in ("bce", "cross_entropy")},
    "multilabel": _INDICATOR_CRITERIA,
}


def _has_classes(estimator: MultiTaskEstimator) -> bool:
    """Whether there are probabilities to give: by what was learnt, or by the tasks before."""
    if "target_" in vars(estimator):
        return bool(estimator.target_.classes)
    return isinstance(estimator.tasks, Mapping) and any(kind != "regression" for kind in estimator.tasks.values())


class MultiTaskEstimator(BranchedNet):
    r"""Several tasks at once: classes, numbers and labels from one network.

    A trunk that all tasks share, and a head for each task, trained together (Caruana, 1997). Choose it where the tasks need
    the same understanding of X: each then learns from the others' labels. It minimises
    :math:`\sum_k w_k\,\ell_k / s_k`, the tasks' mean losses with the weights `task_weights` on the scales of `loss_scaling`.

    It is neither a classifier nor a regressor for scikit-learn: folds are not stratified, and `score` is its own.

    Parameters
    ----------
    tasks : dict of str to {"classification", "regression", "multilabel"} or None, default=None
        What each task is. The labels y are a DataFrame with a column for each task (for a multilabel task columns of 0 and
        1 whose names begin with the task's and an underscore), a dict of arrays, (n_samples, n_labels) for a multilabel
        task, or an array whose columns are the tasks in order. Columns of a DataFrame may come in any order; after `fit`
        they must have the names that predictions have. None makes a task of each column of y: numbers are
        predicted as numbers; texts, categories and booleans are classes.
    trunk : branch, list of (str, branch, columns) or None, default=None
        What the tasks share: a branch such as ``CNNBranch(64)`` for all of X, or several for several inputs, as `branches`
        of `MultiInputClassifier`. Their parameters are reached as ``trunk__channels``, or ``image__channels`` of the branch
        named image. None takes a `DenseBranch` of 64 units (one branch for each key where X is a dict).
    task_weights : dict of str to float or None, default=None
        The weight of each task in the loss and in `score`; None and tasks left out count 1.
    loss_scaling : {"batch_max", "uncertainty"} or None, default=None
        How losses on different scales are brought together. "batch_max" divides each task's loss by the largest mean loss
        that it has had in a training batch so far, so that each begins near 1; for the validation loss that is the largest
        of the first epoch throughout, so that epochs can be compared. "uncertainty" learns the noise of each task
        together with the weights (Kendall, Gal and Cipolla, 2018); `weight_decay` holds for these log-variances too.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels may be missing (NaN or None): such a row counts for the other tasks only.
    criterion : dict of str to str or class, str or class, default="auto"
        Loss of each task, or of all of them: "mse", "l1", "huber", "smooth_l1" for numbers, "poisson_nll" for counts,
        "cross_entropy" or "bce" for classes, "bce" or "multilabel_soft_margin" for labels, or a class of
        ``torch.nn.Module``. "auto", and tasks left out, take "mse", "cross_entropy" ("bce" for two classes) and "bce".
    hidden_layer_sizes : sequence of int, default=()
        Number of units of each hidden layer of each head.
    activation : str or callable, default="relu"
        Nonlinearity of these hidden layers: a name as for `MLPClassifier`, or a class.
    dropout : float in [0, 1), default=0.0
        Probability that one of their units is dropped in a training step.
    batch_norm : bool, default=False
        Whether they are batch-normalised, before the activation.
    initialization : str, default="default"
        How first weights of the heads are drawn, as for `MLPClassifier`.
    standardize_features : bool, default=True
        Whether each branch of the trunk centres and scales its input, by the training rows, as its family does.
    standardize_target : bool, default=True
        Whether the numbers to predict are centred and scaled inside; their losses are then in units of their variance.

    Attributes
    ----------
    classes_ : dict of str to ndarray
        The sorted class labels of each task that has classes.
    history_ : skorch.history.History
        Losses and times of every epoch; also `history`. With ``train_loss_<task>``, ``train_score_<task>`` and, with a
        validation set, ``valid_loss_<task>`` and ``valid_score_<task>``, where y had columns. Losses of tasks are in the
        criterion's unit, before weights and scaling; scores are accuracies and R2.

    See Also
    --------
    MultiInputClassifier : Several inputs.
    sklearn.multioutput.MultiOutputClassifier : A model of its own for each output.

    References
    ----------
    Caruana, R. (1997). Multitask learning. Machine Learning, 28. doi:10.1023/A:1007379606734.

    Kendall, A., Gal, Y., Cipolla, R. (2018). Multi-task learning using uncertainty to weigh losses for scene geometry and
    semantics. CVPR. arXiv:1705.07115.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skpt import MultiTaskEstimator
    >>> frame = load_iris(as_frame=True).frame
    >>> X, y = frame.iloc[:, :3], frame.iloc[:, 3:].set_axis(["width", "kind"], axis=1)
    >>> tasks = {"kind": "classification", "width": "regression"}
    >>> net = MultiTaskEstimator(tasks, max_epochs=40, lr=0.01, random_state=0).fit(X, y)
    >>> net.predict(X).columns.tolist()
    ['kind', 'width']
    >>> net.score(X, y) > 0.9
    True
    """

    module = MultiTaskModule
    labelled_share_ = None  # where labels may be missing, that of each task
    _whole = "trunk"

    _parameter_texts = {**PARAMETERS, **REGRESSOR_PARAMETERS}
    _parameter_constraints: dict = {
        **NetEstimator._parameter_constraints,
        "criterion": [str, callable, dict],
        "standardize_target": ["boolean"],
    }
    _own_constraints: dict = {
        "tasks": [dict, None],
        "trunk": [Branch, list, tuple, None],
        "task_weights": [dict, None],
        "loss_scaling": [StrOptions(set(LOSS_SCALINGS)), None],
        "missing_labels": [StrOptions({"error", "ignore"})],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
    }

    def __init__(
        self,
        tasks=None,
        trunk=None,
        *,
        task_weights=None,
        loss_scaling=None,
        missing_labels="error",
        hidden_layer_sizes=(),
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        initialization="default",
        criterion="auto",
        optimizer="adam",
        lr=2e-3,
        max_epochs=50,
        batch_size="auto",
        shuffle=True,
        weight_decay=0.0,
        lr_schedule=None,
        max_grad_norm=None,
        pretrained=None,
        pretrained_lr_factor=1.0,
        freeze=None,
        unfreeze_after=None,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        standardize_features=True,
        standardize_target=True,
        random_state=None,
        warm_start=False,
        verbose=0,
        device="auto",
        callbacks=None,
        iterator_train=None,
        **further,
    ):
        self._store(locals())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    @property
    def classes_(self) -> dict[str, np.ndarray]:
        """The class labels of each task that has classes, sorted."""
        if "target_" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'classes_' before it is fitted")
        return self.target_.classes

    # ------------------------------------------------------------------ parameters

    def _branch_parameter(self) -> str:
        return "trunk"

    def _validate_params(self) -> None:
        super()._validate_params()
        self._check_integers("hidden_layer_sizes", self.hidden_layer_sizes, example="(64, 32), one entry per hidden layer")
        owner = type(self).__name__
        if self.tasks is not None:
            wrong = {name: kind for name, kind in self.tasks.items() if kind not in KINDS or not isinstance(name, str)}
            if wrong or not self.tasks:
                raise InvalidInputError(
                    f"The 'tasks' parameter of {owner} must give each task's name and one of {list(KINDS)}. Got "
                    f"{wrong or self.tasks}.{nearest_name(str(next(iter(wrong.values()), '')), KINDS, listed=True)}"
                )
            self._check_tasks_of("task_weights", self.tasks)
            self._check_tasks_of("criterion", self.tasks)
        for weight in (self.task_weights or {}).values():
            if isinstance(weight, bool) or not isinstance(weight, Real) or not 0 <= weight < np.inf:
                raise InvalidInputError(
                    f"The 'task_weights' parameter of {owner} must hold numbers in the range [0, inf). Got {self.task_weights}."
                )

    def _check_tasks_of(self, parameter: str, tasks: Mapping) -> None:
        """Raise if a parameter is about a task that there is not."""
        given = getattr(self, parameter)
        for task in given if isinstance(given, Mapping) else ():
            if task not in tasks:
                raise InvalidInputError(
                    f"The {parameter!r} parameter of {type(self).__name__} is about the task {task!r}, which there is not."
                    f"{nearest_name(str(task), tasks)}"
                )

    def _find_criterion(self) -> type[nn.Module]:
        """The tasks' own criteria are found when the tasks are known."""
        for task, kind in (self.tasks or {}).items():
            self._criterion_of(task, kind)
        return MultiTaskLoss

    def _criterion_of(self, task: str, kind: str):
        """Give a task's criterion: a class, or "auto"."""
        given = self.criterion.get(task, "auto") if isinstance(self.criterion, Mapping) else self.criterion
        if given == "auto" or not isinstance(given, str):
            return given
        try:
            return find_criterion(given, _CRITERIA[kind])
        except ValueError as error:
            raise InvalidInputError(f"Task {task!r}, {kind}: {error}") from error

    def _weights(self) -> dict[str, float]:
        weights = {task: float((self.task_weights or {}).get(task, 1.0)) for task in self.target_.targets}
        if not any(weights.values()):
            raise InvalidInputError(
                f"The 'task_weights' parameter of {type(self).__name__} must have a positive weight. Got {self.task_weights}."
            )
        return weights

    # ------------------------------------------------------------------ reading y

    def _read_both(self, X, y, *, reset: bool) -> tuple[Fields, Fields]:
        owner = type(self).__name__
        if y is None:
            raise InvalidInputError(f"{owner} requires y to be passed, but the target y is None.")
        X = self._checked_source(X, reset=reset) if isinstance(X, RowSource) else self._read_inputs(X, reset=reset)
        tasks = self.tasks if reset else self.target_.form
        labels, form = read_labels(y, tasks, owner, may_lack=self.missing_labels == "ignore")
        check_consistent_length(X, labels)
        if reset:
            if "best" in form.kinds and not form.is_1d:
                raise InvalidInputError(
                    f"No task of {owner} may be called 'best': train_loss_best in the history says whether an epoch was the "
                    f"best so far. Got the tasks {list(form.kinds)}. Give it another name."
                )
            self._check_tasks_of("task_weights", form.kinds)
            self._check_tasks_of("criterion", form.kinds)
            self.form_ = form
        return X, labels

    def _make_target(self, y: Fields, classes) -> TaskTargets:
        if classes is not None and not isinstance(classes, Mapping):
            classes = dict.fromkeys(self.form_.kinds, classes) if len(self.form_.kinds) == 1 else None
            if classes is None:
                raise InvalidInputError(f"classes of {type(self).__name__} must be a dict of each task's classes.")
        criteria = {task: self._criterion_of(task, kind) for task, kind in self.form_.kinds.items()}
        return TaskTargets.from_labels(y, self.form_, criteria, classes)

    def _labels_of_batch(self, y_batch, y: Fields) -> Fields:
        labels = y_batch[:, 0] if self.target_.form.is_1d and y_batch.ndim == 2 else y_batch
        return read_labels(labels, self.target_.form, type(self).__name__, may_lack=self.missing_labels == "ignore")[0]

    def _learn_scales(self, data) -> None:
        super()._learn_scales(data)
        if self.standardize_target:
            self.target_.standardize(data.y, data.weight)
        may_lack = self.missing_labels == "ignore"
        self.labelled_share_ = self.target_.labelled_share(data.y, data.weight) if may_lack else None

    def _labels_as_given(self, y, rows) -> Any:
        labels = dict(rows.y.items())
        return next(iter(labels.values())) if self.target_.form.is_1d else labels

    # ------------------------------------------------------------------ network and loss

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its trunk and sizes."""
        return {
            "hidden_layer_sizes": tuple(int(n) for n in np.atleast_1d(self.hidden_layer_sizes)),
            "activation": self.activation,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "initialization": self.initialization,
        }

    def _size_arguments(self) -> dict[str, Any]:
        n_outputs = {task: target.n_outputs for task, target in self.target_.targets.items()}
        return {**super()._size_arguments(), "n_outputs": n_outputs}

    def _join(self, branches: dict[str, nn.Module]) -> dict[str, Any]:
        return {"trunk": JoinedModule(branches)}

    def _head(self) -> set[str]:
        return {name for name in unwrapped(self.module_).state_dict() if name.startswith("heads.")}

    def _take_over_target_scale(self, pretrained, target, report) -> None:
        """Scale the numbers to predict as the heads are used to, which were taken over for the same tasks."""
        if self.standardize_target and isinstance(target, TaskTargets):
            self.target_ = TaskTargets(target.targets, self.target_.form)
            report.notes.append(f"the targets are scaled as for {pretrained.source}")

    def _joined_branches(self) -> Mapping[str, nn.Module]:
        return self.module_.trunk.branches

    def initialize_criterion(self) -> MultiTaskEstimator:
        """Build the tasks' criteria and what brings them together."""
        further = self.get_params_for("criterion")
        columns = self.target_.columns()
        criteria = [build_criterion(self._class_of(each.name, each.reads), {}) for each in columns]
        arguments = {
            "columns": columns,
            "criteria": criteria,
            "weights": list(self._weights().values()),
            "loss_scaling": self.loss_scaling,
            "labelled_share": self.labelled_share_,
        }
        self.criterion_ = build_criterion(MultiTaskLoss, {**arguments, **further})
        return self

    def _make_job(self, data, valid, max_epochs: int, *, new: bool) -> TrainingJob:
        job = super()._make_job(data, valid, max_epochs, new=new)
        job.criterion.may_lack = self.missing_labels == "ignore"  # it may be one that was built when they were errors
        return job

    def _class_of(self, task: str, reads: str):
        criterion = self._criterion_of(task, self.target_.form.kinds[task])
        if not isinstance(criterion, str):
            return criterion
        return {"numbers": nn.MSELoss, "index": nn.CrossEntropyLoss}.get(reads, nn.BCEWithLogitsLoss)

    def get_default_callbacks(self) -> list:
        """Give the callbacks that parameters ask for, and what records the tasks."""
        own = super().get_default_callbacks()
        if "target_" in vars(self) and not self.target_.form.is_1d:
            own.insert(0, ("tasks", RecordTasks()))
        return own

    _default_callbacks = property(get_default_callbacks)

    # ------------------------------------------------------------------ prediction

    def predict(self, X):
        """Predict the labels of all tasks.

        Parameters
        ----------
        X : array-like, sparse matrix, dict or torch Dataset
            Inputs, as for `fit`.

        Returns
        -------
        DataFrame, or ndarray of shape (n_samples,) where y had one dimension
            A column for each task, and one for each label of a multilabel task, named as in y; with the index of X if it
            has one.
        """
        outputs = self._outputs(X)
        return self.target_.decode(outputs, X.index if isinstance(X, (pd.DataFrame, pd.Series)) else None)

    @available_if(_has_classes)
    def predict_proba(self, X):
        """Give the probabilities of the classes.

        Parameters
        ----------
        X : array-like, sparse matrix or dict
            Inputs, as for `fit`.

        Returns
        -------
        dict of str to ndarray of shape (n_samples, n_classes)
            For each task that has classes; rows add up to one, unless it is a multilabel task. An array alone where y had
            one dimension.
        """
        outputs = self._outputs(X)
        by_task = self.target_.probabilities(outputs)
        return next(iter(by_task.values())) if self.target_.form.is_1d else by_task

    def score(self, X, y=None, sample_weight=None) -> float:
        """Give the weighted mean of the tasks' scores.

        Parameters
        ----------
        X : array-like, sparse matrix, dict or torch Dataset
            Inputs, as for `fit`.
        y : DataFrame, dict or array-like, default=None
            The labels, as for `fit`. None only if X is a Dataset that gives them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            Accuracies (all labels of a row together for a multilabel task) and R2, weighted by `task_weights`.
        """
        scores, weights = self.score_tasks(X, y, sample_weight), self._weights()
        return float(np.average([scores[task] for task in weights], weights=list(weights.values())))

    def score_tasks(self, X, y=None, sample_weight=None) -> dict[str, float]:
        """Give each task's score.

        Parameters
        ----------
        X : array-like, sparse matrix, dict or torch Dataset
            Inputs, as for `fit`.
        y : DataFrame, dict or array-like, default=None
            The labels, as for `fit`. None only if X is a Dataset that gives them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        dict of str to float
            The accuracy of a task with classes, R2 of one with numbers.
        """
        check_is_fitted(self)
        X, targets = unpack(X, y, targets="later")
        outputs = self._outputs(X)
        labels, _ = read_labels(targets(), self.target_.form, type(self).__name__, may_lack=self.missing_labels == "ignore")
        check_consistent_length(outputs, labels)
        if sample_weight is not None:
            sample_weight = check_sample_weight(sample_weight, outputs, dtype=np.float64, ensure_non_negative=True)
        return self.target_.scores(labels, outputs, sample_weight)

    # ------------------------------------------------------------------ saving

    def _learnt_to_dict(self) -> dict[str, Any]:
        return {**super()._learnt_to_dict(), "labelled_share": self.labelled_share_}

    def _learn_from_dict(self, learnt: dict[str, Any]) -> None:
        super()._learn_from_dict(learnt)
        self.labelled_share_ = learnt.get("labelled_share")  # which files of older versions have not
