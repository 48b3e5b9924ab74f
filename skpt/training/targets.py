"""Targets: what the user's y becomes for a network, and what a network's outputs become for the user."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.utils.multiclass import type_of_target

from skpt.exceptions import InvalidInputError

__all__ = ["TARGETS_BY_KIND", "ClassTarget", "NumericTarget", "SequenceTarget", "target_from_dict"]

_TOO_LARGE = "Input y contains infinity or a value too large for dtype('float32'). Scale y, or remove such values."


class NumericTarget:
    """Numbers, standardised inside or not.

    Attributes
    ----------
    n_outputs : int
        Number of columns.
    is_1d : bool
        Whether y had one dimension.
    mean, scale : ndarray of shape (n_outputs,)
        What is taken off and divided by.
    dtype : numpy.dtype
        Of the predictions: float32 for a float32 y, float64 otherwise.
    log_link : bool
        Whether a network gives logarithms of what it predicts.
    of_counts : bool
        Whether this is learnt by the likelihood of counts, which have no other scale.
    """

    kind = "numeric"
    log_link = of_counts = False  # of what was pickled before there were these

    def __init__(self, n_outputs: int, is_1d: bool, dtype, mean=None, scale=None, log_link: bool = False):
        self.n_outputs, self.is_1d, self.dtype = int(n_outputs), bool(is_1d), np.dtype(dtype)
        self.log_link = bool(log_link)
        self.of_counts = False
        self.mean = np.zeros(self.n_outputs) if mean is None else np.asarray(mean, dtype=np.float64)
        self.scale = np.ones(self.n_outputs) if scale is None else np.asarray(scale, dtype=np.float64)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """What a network gives for a row."""
        return (self.n_outputs,)

    @classmethod
    def from_y(cls, y: np.ndarray) -> NumericTarget:
        """Read the form of y."""
        return cls(1 if y.ndim == 1 else y.shape[1], y.ndim == 1, _dtype_of_predictions(y))

    def scaled_by(self, mean, scale) -> NumericTarget:
        """Give a target of the same form with another mean and scale; None for none."""
        other = copy.copy(self)
        other.mean = np.zeros(self.n_outputs) if mean is None else np.asarray(mean, dtype=np.float64)
        other.scale = np.ones(self.n_outputs) if scale is None else np.asarray(scale, dtype=np.float64)
        return other

    def expect_counts(self, y: np.ndarray, criterion) -> None:
        """Take the outputs for rates of counts, or for their logarithms where the criterion, a class or an instance, does."""
        self.of_counts, self.log_link = True, getattr(criterion, "log_input", True)
        self._check_counts(y)

    def standardize(self, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Learn mean and scale from the training rows; a constant column keeps the scale one."""
        y = y.reshape(len(y), -1).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            self.mean = np.average(y, axis=0, weights=weight)
            scale = np.sqrt(np.average((y - self.mean) ** 2, axis=0, weights=weight))
        if not np.isfinite(scale).all():
            raise InvalidInputError(_TOO_LARGE)
        self.scale = np.where(scale > 10 * np.finfo(np.float64).eps * np.abs(self.mean), scale, 1.0)

    def agrees_with(self, other) -> bool:
        """Say whether a network's outputs mean the same for another target, but for the scale."""
        return isinstance(other, NumericTarget) and (other.n_outputs, other.log_link) == (self.n_outputs, self.log_link)

    def check(self, y: np.ndarray) -> None:
        """Raise if y has not the form that was learnt."""
        n_outputs = 1 if y.ndim == 1 else y.shape[1]
        if n_outputs != self.n_outputs:
            raise InvalidInputError(f"y has {n_outputs} outputs, but this estimator was fitted with {self.n_outputs}.")
        self._check_counts(y)

    def _check_counts(self, y: np.ndarray) -> None:
        if (self.of_counts or self.log_link) and (y < 0).any():
            raise InvalidInputError(
                f"Where the criterion is the likelihood of counts, y must not be negative. Got {y.min()}. Take criterion='mse'."
            )

    def encode(self, y: np.ndarray) -> torch.Tensor:
        """Give float32 (n_samples, n_outputs)."""
        with np.errstate(over="ignore"):
            y = (y.reshape(len(y), -1) - self.mean) / self.scale
            y = np.ascontiguousarray(y, dtype=np.float32)
        if not np.isfinite(y).all():
            raise InvalidInputError(_TOO_LARGE)
        return torch.from_numpy(y)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Give predictions in the form of y."""
        y = self._in_units(outputs.reshape(len(outputs), -1))
        return y.ravel() if self.is_1d else y

    def _in_units(self, outputs: np.ndarray) -> np.ndarray:
        """Give outputs (..., n_outputs) in the units of y."""
        y = outputs.astype(np.float64) * self.scale + self.mean
        return (np.exp(y) if self.log_link else y).astype(self.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return {
            "kind": self.kind,
            "n_outputs": self.n_outputs,
            "is_1d": self.is_1d,
            "dtype": self.dtype.name,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
            "log_link": self.log_link,
        }


class SequenceTarget(NumericTarget):
    """Sequences of numbers: y of shape (n_samples, n_steps, n_outputs), (n_samples, n_steps), or (n_samples,) for one step.

    An output has one mean and scale for all steps.

    Parameters
    ----------
    n_steps : int
        Number of steps.
    n_outputs : int
        Number of outputs of a step.
    n_dimensions : int
        Number of dimensions of y.
    dtype : numpy.dtype
        Of the predictions.
    mean, scale : array-like of shape (n_outputs,), default=None
        What is taken off and divided by; None leaves y as it is.
    log_link : bool, default=False
        Whether a network gives logarithms of what it predicts.
    """

    kind = "sequences"

    def __init__(
        self, n_steps: int, n_outputs: int, n_dimensions: int, dtype, mean=None, scale=None, log_link: bool = False
    ):
        super().__init__(n_outputs, n_dimensions == 1, dtype, mean, scale, log_link)
        self.n_steps, self.n_dimensions = int(n_steps), int(n_dimensions)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """What a network gives for a row."""
        return (self.n_steps, self.n_outputs)

    @classmethod
    def from_y(cls, y: np.ndarray) -> SequenceTarget:
        """Read the form of y."""
        n_steps, n_outputs = (*y.shape[1:], 1, 1)[:2]
        return cls(n_steps, n_outputs, y.ndim, _dtype_of_predictions(y))

    def standardize(self, y: np.ndarray, weight: np.ndarray | None) -> None:
        """Learn mean and scale from all steps of the training rows."""
        weight = None if weight is None else np.repeat(weight, self.n_steps)
        super().standardize(y.reshape(-1, self.n_outputs), weight)

    def check(self, y: np.ndarray) -> None:
        """Raise if y has not the form that was learnt."""
        if (*y.shape[1:], 1, 1)[:2] != self.output_shape:
            raise InvalidInputError(
                f"y of shape {y.shape} has other steps or outputs than before: {self.n_steps} steps of {self.n_outputs} "
                "outputs."
            )
        self._check_counts(y)

    def encode(self, y: np.ndarray) -> torch.Tensor:
        """Give float32 (n_samples, n_steps, n_outputs)."""
        return super().encode(y.reshape(-1, self.n_outputs)).view(-1, *self.output_shape)

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Give predictions in the form of y."""
        y = self._in_units(outputs)
        return y.reshape(len(y), *self.output_shape[: self.n_dimensions - 1])

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        state = super().to_dict()
        del state["is_1d"]
        return {**state, "n_steps": self.n_steps, "n_dimensions": self.n_dimensions}


class ClassTarget:
    """Classes of any kind, or a multi-label indicator matrix.

    Parameters
    ----------
    classes : ndarray
        The sorted class labels.
    multilabel : bool
        Whether y is an indicator matrix.
    takes_index : bool
        Whether the criterion takes class numbers (one output per class), or one column of 0 and 1 per output.
    """

    kind = "classes"

    def __init__(self, classes: np.ndarray, multilabel: bool, takes_index: bool):
        self.classes, self.multilabel, self.takes_index = classes, bool(multilabel), bool(takes_index)
        self.one_output = not takes_index and not multilabel and len(classes) <= 2
        self.n_outputs = 1 if self.one_output else len(classes)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """What a network gives for a row."""
        return (self.n_outputs,)

    @classmethod
    def classes_of(cls, y: np.ndarray) -> tuple[np.ndarray, bool]:
        """Read the classes of y, and whether it is an indicator matrix."""
        if y.ndim == 2:
            if type_of_target(y, input_name="y") != "multilabel-indicator":
                raise InvalidInputError(
                    f"y must have one column of classes, or be an indicator matrix of 0 and 1. Got shape {y.shape} of "
                    f"type {type_of_target(y)!r}. For several class outputs use MultiOutputClassifier."
                )
            return np.arange(y.shape[1]), True
        return np.unique(y), False

    def agrees_with(self, other) -> bool:
        """Say whether a network's outputs mean the same for another target: the same classes, in the same form."""
        form = (self.multilabel, self.takes_index, self.classes.tolist())
        return isinstance(other, ClassTarget) and (other.multilabel, other.takes_index, other.classes.tolist()) == form

    def check(self, y: np.ndarray) -> None:
        """Raise if y has labels that are not among the classes."""
        if self.multilabel != (y.ndim == 2) or (self.multilabel and y.shape[1] != len(self.classes)):
            raise InvalidInputError(
                f"y of shape {y.shape} has another form than before: "
                f"{'indicators of ' if self.multilabel else ''}{len(self.classes)} classes."
            )
        if not self.multilabel:
            unknown = np.setdiff1d(y, self.classes)
            if len(unknown):
                raise InvalidInputError(
                    f"y has labels that are not in classes: {unknown[:5].tolist()}. The classes are "
                    f"{self.classes[:10].tolist()}. Give all classes to the first call of partial_fit, or fit anew."
                )

    def encode(self, y: np.ndarray) -> torch.Tensor:
        """Give int64 (n_samples,) or float32 (n_samples, n_outputs)."""
        if self.multilabel:
            return torch.from_numpy(np.ascontiguousarray(y != 0, dtype=np.float32))
        index = np.searchsorted(self.classes, y)
        if self.takes_index:
            return torch.from_numpy(index.astype(np.int64))
        if self.one_output:
            return torch.from_numpy(index.astype(np.float32)[:, None])
        return torch.from_numpy(np.eye(len(self.classes), dtype=np.float32)[index])

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Give (n_samples, n_classes), each row adding up to one, or each label's own for indicators."""
        outputs = outputs.astype(np.float64).reshape(len(outputs), -1)
        if self.takes_index:
            return softmax(outputs, axis=1)
        p = expit(outputs)
        if self.multilabel:
            return p
        if self.one_output:
            return np.hstack([1 - p, p])
        total = p.sum(axis=1, keepdims=True)
        return np.divide(p, total, out=np.full_like(p, 1 / p.shape[1]), where=total > 0)

    def decision(self, outputs: np.ndarray) -> np.ndarray:
        """Give log-odds: (n_samples,) for two classes, (n_samples, n_classes) otherwise."""
        outputs = outputs.astype(np.float64).reshape(len(outputs), -1)
        if self.multilabel or len(self.classes) > 2:
            return outputs
        return outputs[:, 0] if self.one_output else outputs[:, 1] - outputs[:, 0]

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Give class labels in the user's own terms."""
        outputs = outputs.reshape(len(outputs), -1)
        if self.multilabel:
            return (outputs > 0).astype(np.int64)
        index = (outputs[:, 0] > 0).astype(np.intp) if self.one_output else outputs.argmax(axis=1)
        return self.classes[np.minimum(index, len(self.classes) - 1)]

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        dtype = "object" if self.classes.dtype == object else self.classes.dtype.str
        is_time = self.classes.dtype.kind in "mM"  # JSON has no dates: their numbers of units
        return {
            "kind": self.kind,
            "classes": (self.classes.astype(np.int64) if is_time else self.classes).tolist(),
            "dtype": dtype,
            "multilabel": self.multilabel,
            "takes_index": self.takes_index,
        }


def _dtype_of_predictions(y: np.ndarray):
    return np.float32 if y.dtype == np.float32 else np.float64


def target_from_dict(state: dict[str, Any]) -> NumericTarget | SequenceTarget | ClassTarget:
    """Make a target of what its `to_dict` gave.

    Parameters
    ----------
    state : dict
        JSON types.

    Returns
    -------
    NumericTarget, SequenceTarget or ClassTarget
        As it was.

    Raises
    ------
    InvalidInputError
        If it is of no known kind.
    """
    state = dict(state)
    kind = state.pop("kind", None)
    if kind not in TARGETS_BY_KIND:
        raise InvalidInputError(f"A saved target must be of one of the kinds {sorted(TARGETS_BY_KIND)}. Got {kind!r}.")
    return TARGETS_BY_KIND[kind](**state)


def _class_target(classes: list, dtype: str, **state) -> ClassTarget:
    return ClassTarget(np.array(classes, dtype=np.dtype(dtype)), **state)


# Who makes a target of what its `to_dict` gave, but for the kind.
TARGETS_BY_KIND: dict[str, Callable] = {
    NumericTarget.kind: NumericTarget,
    SequenceTarget.kind: SequenceTarget,
    ClassTarget.kind: _class_target,
}
