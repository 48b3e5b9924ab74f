"""NetEstimator: one skorch net under the scikit-learn contract, and its classifier and regressor halves.

The way of one `fit`: read and check X, y and weights without changing anything; learn sizes, classes and scales; build
module, criterion and optimizer from the estimator's own seed; make a `TrainingJob`; and let it be trained, as a stack of
one where its layers allow it (`skpt.fusion`), by skorch's ladder of overridable steps otherwise. Both ways read the same
batches, draw from the same generators, and end in the same attributes.
"""

from __future__ import annotations

import copy
import fnmatch
import inspect
import logging
import os
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.base import BaseEstimator, is_classifier
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_consistent_length, column_or_1d, compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, check_X_y, validate_data
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import PrintLog
from skorch.dataset import Dataset as SkorchDataset
from skorch.helper import SliceDict
from skorch.history import History
from skorch.utils import to_device
from torch import Tensor, nn

from skpt._compat import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    check_sample_weight,
    complete_optimizer,
    safe_indexing,
    validate_parameter_constraints,
)
from skpt._docstrings import ATTRIBUTES, CLASSIFIER_PARAMETERS, PARAMETERS, REGRESSOR_PARAMETERS, complete_docstring
from skpt.exceptions import DivergedError, InvalidInputError, NotSizedError, SkptWarning, UnknownParameterError, nearest_name
from skpt.fusion import note_alone, train, why_not_stacked
from skpt.modules.layers import FeedForward
from skpt.training.arguments import accepted_arguments, check_arguments
from skpt.training.batches import Batches, LoaderBatches, rows_at_a_time, rows_of
from skpt.training.criteria import (
    CLASSIFICATION_CRITERIA,
    REGRESSION_CRITERIA,
    build_criterion,
    find_criterion,
    is_of_counts,
    takes_class_index,
)
from skpt.training.features import (
    FeatureScaler,
    columns_without_numbers,
    is_plain,
    size_in_units_of,
    spread_in_units_of,
    to_float32,
)
from skpt.training.fields import Fields, is_dict
from skpt.training.files import join_learnt, read_tensors, split_learnt, write_tensors
from skpt.training.job import TrainingJob, loss_of_zeros
from skpt.training.ladder import TrainingLadder
from skpt.training.memory import keep_freed_memory
from skpt.training.monitor import Monitor, warn_if_still_falling, warn_if_useless
from skpt.training.optimizers import PendingOptimizer, build_optimizer, find_optimizer
from skpt.training.precision import single_precision
from skpt.training.randomness import RandomStreams, borrowed_global_generator, draw_seed
from skpt.training.reporter import EpochReporter, PendingHistory
from skpt.training.rows import hold_out, merge_equal_rows
from skpt.training.schedules import Schedule, find_schedule
from skpt.training.sources import RowSource, take_rows, unpack
from skpt.training.targets import ClassTarget, NumericTarget, target_from_dict
from skpt.training.threads import is_worth_sharing, one_thread
from skpt.training.transfer import (
    Frozen,
    Pretrained,
    TransferReport,
    find_frozen,
    loaded_weights,
    read_pretrained,
    scale_loaded_rates,
    transfer_weights,
    unwrapped,
)

__all__ = ["NetClassifier", "NetEstimator", "NetRegressor"]

_log = logging.getLogger("skpt")

# Parameters of skorch's nets that most users never set; they can be given by name all the same.
_SKORCH_PARAMETERS = ("iterator_valid", "compile", "use_caching", "torch_load_kwargs")
_PREFIXES = (
    "module",
    "criterion",
    "optimizer",
    "lr_schedule",
    "iterator_train",
    "iterator_valid",
    "callbacks",
    "compile",
)
# What other libraries call it: scikit-learn's MLP and linear models, Keras.
_NAMES_ELSEWHERE = {
    "alpha": "weight_decay",
    "epochs": "max_epochs",
    "eta0": "lr",
    "learning_rate": "lr",
    "learning_rate_init": "lr",
    "loss": "criterion",
    "max_iter": "max_epochs",
    "momentum": "optimizer__momentum",
    "patience": "n_iter_no_change",
    "solver": "optimizer",
}
_STATE_FORMAT = 1

# Root mean square of a column, in the units of a pretrained net, from which it is told of.
_FAR_FROM_PRETRAINED = 10.0

# Multiplications of a row up to which a network other than a FeedForward predicts in double precision.
_WORK_IN_DOUBLE = 2_000_000

# Outputs of a layer that are computed at a time then: a megabyte, which stays in the cache.
_NUMBERS_IN_DOUBLE = 2**17


# Sets of parameters that were found good. scikit-learn's check of one takes longer than many a small fit, and a search
# makes the same ones for every fold.
_KNOWN_GOOD: set[tuple] = set()
_MOST_KNOWN = 4096
_PLAIN = (int, float, str, type, torch.device, type(None))  # what says all by its type and value
_UNCHANGING = frozenset({bool, *_PLAIN})


def _known_by(value) -> tuple | None:
    """Give what a plain value, or a tuple of some, is known by; None for anything else."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if type(value) is tuple and all(isinstance(each, _PLAIN) for each in value):
        return tuple, tuple((type(each), each) for each in value)
    return None


@dataclass
class _Rows:
    """Checked rows in the user's terms, and which of the rows that the user gave they are."""

    X: Any
    y: np.ndarray
    weight: np.ndarray | None
    number: np.ndarray

    def take(self, index: np.ndarray) -> _Rows:
        weight = None if self.weight is None else self.weight[index]
        return _Rows(take_rows(self.X, index), self.y[index], weight, self.number[index])

    def merged(self) -> _Rows:
        """Give equal rows as one row of their summed weight."""
        X = self.X[:] if isinstance(self.X, RowSource) else self.X
        return _Rows(*merge_equal_rows(X, self.y, self.weight), self.number[:0])


class NetEstimator(CallbackSupportMixin, TrainingLadder):
    """Base of all estimators: a skorch net that takes its sizes from the data.

    A subclass names its network in the class attribute `module`, a class of ``nn.Module`` whose first two parameters are
    `n_features` and `n_outputs`, and gives the further arguments in `module_arguments`.
    """

    module: type[nn.Module]
    _names: list[str] = []

    # What skorch sets in its constructor. Constructors here store parameters and do nothing else.
    initialized_ = False
    virtual_params_: dict = {}
    predict_nonlinearity = None
    train_split = None
    dataset = SkorchDataset
    iterator_valid = None
    compile = False
    use_caching = False  # callbacks score what the user gave, not encoded batches
    torch_load_kwargs = None
    pretrained = None
    pretrained_lr_factor = 1.0
    freeze = None
    unfreeze_after = None
    transfer_report_ = None
    _cloned_from = None  # a weak reference to the fitted estimator that this is a copy of

    _criteria_by_name: dict[str, type[nn.Module]] = {}

    _takes_sparse = True
    _most_dimensions = 2  # of X

    # What is said of parameters and attributes in every docstring, and in those of a family.
    _parameter_texts: dict[str, tuple[str, str]] = PARAMETERS
    _own_texts: dict[str, tuple[str, str]] = {}
    _own_attribute_texts: dict[str, tuple[str, str]] = {}

    _own_constraints: dict = {}
    _parameter_constraints: dict = {
        "criterion": [str, callable],
        "optimizer": [str, callable],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), Options(Integral, {-1}), StrOptions({"auto"})],
        "shuffle": ["boolean"],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "lr_schedule": [str, callable, None],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "pretrained": [str, os.PathLike, Mapping, nn.Module, HasMethods("get_params"), None],
        "pretrained_lr_factor": [Interval(Real, 0, None, closed="left")],
        "freeze": [str, list, tuple, None],
        "unfreeze_after": [Interval(Integral, 1, None, closed="left"), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "standardize_features": ["boolean"],
        "random_state": ["random_state"],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "device": [str, torch.device],
        "callbacks": [list, None],
        "iterator_train": [callable, None],
    }

    # ------------------------------------------------------------------ parameters

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            # scikit-learn takes every name in the signature for a parameter; the prefixed ones have no name there.
            signature = inspect.signature(cls.__init__)
            named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
            cls.__init__.__signature__ = signature.replace(parameters=named)
            cls._names = sorted(p.name for p in named if p.name != "self")
            if cls.__module__.startswith("skpt."):
                cls.__doc__ = complete_docstring(
                    cls.__doc__, signature, {**cls._parameter_texts, **cls._own_texts}, cls._attributes()
                )

    @classmethod
    def _attributes(cls) -> dict[str, tuple[str, str]]:
        """Give what a docstring says of the attributes."""
        texts = {name: text for name, text in ATTRIBUTES.items() if name != "classes_" or issubclass(cls, NetClassifier)}
        texts = {name: (kind, text.format(module=cls.module.__name__)) for name, (kind, text) in texts.items()}
        return {**texts, **cls._own_attribute_texts}

    def _store(self, arguments: dict[str, Any]) -> None:
        """Remember the arguments of a constructor, given as its ``locals()``."""
        arguments = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
        further = arguments.pop("further")
        for name in further:
            self._check_name(name)
        vars(self).update(arguments, **further)

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return list(cls._names)

    def _check_name(self, name: str) -> None:
        prefix, separator, rest = name.partition("__")
        known, prefixes = self._known_names(), self._prefixes()
        if name in known or (separator and rest and prefix in prefixes):
            return
        meant = _NAMES_ELSEWHERE.get(name, "")
        if meant.partition("__")[0] in known:
            hint = f" Did you mean {meant!r}?"
        else:
            hint = nearest_name(name, known | {f"{p}__{rest}" for p in prefixes} if separator else known)
        raise UnknownParameterError(f"Invalid parameter {name!r} for estimator {type(self).__name__}.{hint}")

    def _known_names(self) -> set[str]:
        """Give the names of parameters without a prefix."""
        return {*self._get_param_names(), *_SKORCH_PARAMETERS}

    def _prefixes(self) -> tuple[str, ...]:
        """Give what may stand before the two underscores of a parameter's name."""
        return _PREFIXES

    def get_params_for(self, prefix: str) -> dict[str, Any]:
        """Give the parameters of a component.

        Parameters
        ----------
        prefix : str
            Which one: "module", "optimizer", ...

        Returns
        -------
        dict
            Names, without the prefix, and values.
        """
        prefix += "__"
        names = [name for name in vars(self) if prefix in name]  # none, most often
        return {name[len(prefix) :]: vars(self)[name] for name in names if name.startswith(prefix)}

    def __setattr__(self, name: str, value) -> None:
        # skorch registers what is a module or an optimizer, and no parameter; whatever else need not pay for its questions.
        if isinstance(value, (nn.Module, torch.optim.Optimizer)) and name not in self._names:
            super().__setattr__(name, value)
        else:
            object.__setattr__(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the parameters, skorch's ``prefix__name`` ones included where they were set.

        Parameters
        ----------
        deep : bool, default=True
            Whether the parameters of callbacks are given too.

        Returns
        -------
        dict
            Names and values.
        """
        params = {name: getattr(self, name) for name in self._get_param_names()}
        further = (k for k in vars(self) if k in _SKORCH_PARAMETERS or ("__" in k and k.partition("__")[0] in _PREFIXES))
        params.update((name, getattr(self, name)) for name in further)
        if deep and isinstance(self.callbacks, list):
            own = {name for name, _ in self.get_default_callbacks()}
            for name, callback in self._uniquely_named_callbacks():
                if name in own:
                    continue
                params[f"callbacks__{name}"] = callback
                if not isinstance(callback, type) and hasattr(callback, "get_params"):
                    params.update((f"callbacks__{name}__{k}", v) for k, v in callback.get_params().items())
        return params

    def set_params(self, **params) -> NetEstimator:
        """Set parameters; a learning rate or ``optimizer__*`` also reaches the optimizer of a fitted estimator.

        Parameters
        ----------
        **params
            Names as `get_params` gives them.

        Returns
        -------
        self
            The estimator.

        Raises
        ------
        UnknownParameterError
            If a name is unknown; nothing was set.
        """
        for name in params:
            self._check_name(name)
        if "pretrained" in params:
            params["pretrained"] = _fitted_origin(params["pretrained"])
        vars(self).update(params)
        if self.initialized_ and "optimizer_" in vars(self):
            for name, value in params.items():
                setting = name.removeprefix("optimizer__")
                if setting == "lr":
                    self._set_rates(value)
                elif name == "weight_decay" or (setting != name and setting != "param_groups"):
                    for group in vars(self)["optimizer_"].param_groups:
                        if setting in group:
                            group[setting] = value
        return self

    def _set_rates(self, lr) -> None:
        """Give all weights a learning rate; those taken over their multiple of it."""
        for group in vars(self)["optimizer_"].param_groups:
            group["lr"] = lr * group["lr_factor"] if "lr_factor" in group else lr

    def __sklearn_clone__(self):
        """Copy as scikit-learn does, but `pretrained` stays the object that it is: a copy of it would not be fitted."""
        if self._is_as_constructed():  # which a search copies for every task: scikit-learn takes ten times as long
            copied = object.__new__(type(self))
            vars(copied).update(vars(self))
            return copied
        bare = object.__new__(type(self))
        vars(bare).update(vars(self), pretrained=None)
        copied = BaseEstimator.__sklearn_clone__(bare)
        vars(copied)["pretrained"] = self.pretrained  # skorch does not let a network be set outside of its own methods
        if self.initialized_:  # a search copies what is to become the parameter `pretrained` too
            copied._cloned_from = weakref.ref(self)
        return copied

    def _is_as_constructed(self) -> bool:
        """Whether nothing was stored but by a constructor of ours, and all of it are values that nobody can change."""
        own = vars(self)
        if len(own) != len(self._names) or not type(self).__init__.__module__.startswith("skpt."):
            return False
        if [value for value in own.values() if type(value) not in _UNCHANGING and _known_by(value) is None]:
            return False
        return own.keys() == set(self._names)

    def _validate_params(self) -> None:
        constraints = {**self._parameter_constraints, **self._own_constraints}
        params = {name: getattr(self, name) for name in constraints if name in self._names}
        key = type(self), *(_known_by(value) for value in params.values())
        says_all = None not in key
        if says_all and key in _KNOWN_GOOD:
            return
        try:
            validate_parameter_constraints(constraints, params, caller_name=type(self).__name__)
        except InvalidParameterError as error:
            raise InvalidParameterError(f"{error}{_spelling_hint(str(error), params, constraints)}") from None
        self._find_optimizer()
        self._find_criterion()
        if says_all:
            if len(_KNOWN_GOOD) >= _MOST_KNOWN:
                _KNOWN_GOOD.clear()
            _KNOWN_GOOD.add(key)

    def _check_integers(self, name: str, value, *, lengths=None, at_least_one: bool = False, example: str) -> None:
        """Raise unless a parameter is a positive integer or holds positive integers."""
        sizes = np.atleast_1d(np.asarray(value))
        right_length = sizes.size in lengths if lengths else sizes.size or not at_least_one
        if sizes.ndim != 1 or not right_length or (sizes.size and (sizes.dtype.kind not in "iu" or (sizes < 1).any())):
            raise InvalidInputError(
                f"The {name!r} parameter of {type(self).__name__} must hold integers in the range [1, inf). Got {value!r} "
                f"instead. Give for example {example}."
            )

    __repr__ = BaseEstimator.__repr__
    get_metadata_routing = BaseEstimator.get_metadata_routing

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self._takes_sparse
        tags.input_tags.three_d_array = self._most_dimensions > 2
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return self.initialized_

    # ------------------------------------------------------------------ what a subclass says

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes.

        Returns
        -------
        dict
            Keyword arguments of `module`.
        """
        return {}

    def _make_target(self, y: np.ndarray, classes):
        raise NotImplementedError

    def _class_weights(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray | None:
        return None

    # ------------------------------------------------------------------ fit

    @with_callbacks
    def fit(self, X, y=None, sample_weight=None, X_val=None, y_val=None):
        """Learn from data.

        Parameters
        ----------
        X : array-like, sparse matrix, torch Dataset or DataLoader of shape (n_samples, n_features)
            The inputs; numbers of any dtype. Rows of a mapped file of more than 64 MB, of a Dataset of more than 1 GB, of
            windows that overlap and of a DataLoader are read when they are needed.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            The targets. None only if X is a Dataset or DataLoader that gives them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss. A weight of 2 counts as two equal rows, one of 0 as none.
        X_val, y_val : array-like, default=None
            A validation set, for `validation_curve_` and early stopping. It is not trained on. A Dataset or DataLoader as
            X_val may give the targets itself.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        InvalidInputError, ValueError
            If the data or a parameter cannot be used. The estimator is as it was before.
        DivergedError
            If the loss turned NaN or infinite. The last finite weights were kept.
        """
        goes_on = self.warm_start and self.initialized_
        with self._restored_on_error() as before:
            self._validate_params()
            given, given_val = self._unpack(X, y), self._unpack(X_val, y_val, training=False)
            data = self._read_training(*given, sample_weight, reset=not goes_on)
            data, valid = self._split(data, *given_val)
            datasets = self._user_datasets(given, given_val, data, valid)
            job = self._make_job(data, valid, self.max_epochs, new=not goes_on)
        with self._restored_if_untrained(before, new=not goes_on):
            self._train(job, X, y, datasets)
        return self

    def partial_fit(self, X, y=None, classes=None, sample_weight=None):
        """Train for one epoch, from where training stands.

        Parameters
        ----------
        X : array-like, sparse matrix, torch Dataset or DataLoader of shape (n_samples, n_features)
            The inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            The targets. None only if X is a Dataset or DataLoader that gives them.
        classes : array-like of shape (n_classes,), default=None
            All classes of all calls, for a classifier's first call. None takes those of y.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss.

        Returns
        -------
        self
            The estimator.
        """
        new = not self.initialized_
        with self._restored_on_error() as before:
            self._validate_params()
            given = self._unpack(X, y)
            data = self._read_training(*given, sample_weight, reset=new, classes=classes)
            datasets = self._user_datasets(given, (None, None), data, None)
            job = self._make_job(data, None, 1, new=new)
        with self._restored_if_untrained(before, new=new):
            self._train(job, X, y, datasets)
        return self

    @contextmanager
    def _restored_on_error(self) -> Iterator[dict[str, Any]]:
        """Leave the estimator as it was, which is given, if its data or parameters turn out to be unusable."""
        before = vars(self).copy()
        split = self.streams_.split.get_state() if "streams_" in before and self.early_stopping else None
        try:
            with single_precision():
                yield before
        except BaseException:
            if split is not None:
                before["streams_"].split.set_state(split)
            self._restore(before)
            raise

    @contextmanager
    def _restored_if_untrained(self, before: dict[str, Any], *, new: bool) -> Iterator[None]:
        """Leave the estimator as it was, rather than with random weights, if a new network fails in its first epoch."""
        try:
            with single_precision():
                yield
        except DivergedError:
            raise
        except Exception:
            if new and not self.n_iter_:
                self._restore(before)
            raise

    def _restore(self, before: dict[str, Any]) -> None:
        vars(self).clear()
        vars(self).update(before)

    # ------------------------------------------------------------------ reading data

    def _unpack(self, X, y, *, training: bool = True) -> tuple[Any, Any]:
        """Take what torch and skorch have in place of arrays for what it holds."""
        return unpack(X, y, lazy=self.iterator_train is not None, training=training)

    def _read_training(self, X, y, sample_weight, *, reset: bool, classes=None) -> _Rows:
        """Check unpacked data; learn sizes and classes if `reset`."""
        loader = getattr(X, "loader", None)
        if sample_weight is not None and loader is not None:
            raise InvalidInputError(
                "sample_weight cannot be given with a DataLoader, which does not say which rows are in a batch. Pass its "
                "Dataset, and iterator_train=DataLoader to the estimator."
            )
        X, y = self._read_X_y(X, y, reset=reset)
        if reset:
            self.streams_ = RandomStreams(draw_seed(self.random_state))
            self.target_ = self._make_target(y, classes)
        if not reset or classes is not None:  # else it was learnt from y
            self.target_.check(y)
        weight = None
        if sample_weight is not None:
            weight = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        rows = _Rows(X, y, weight, np.arange(X.shape[0]))
        if weight is not None and (weight == 0).any():
            if not weight.any():
                raise InvalidInputError("sample_weight must have at least one positive weight. Got zeros only.")
            rows = rows.take(np.flatnonzero(weight))
            if reset and classes is None:
                self.target_ = self._make_target(rows.y, None)
        return rows

    def _read_X_y(self, X, y, *, reset: bool) -> tuple[Any, np.ndarray]:
        """Check X and y together, and what this kind of task asks of y."""
        return self._read_both(X, y, reset=reset)

    def _read_both(self, X, y, *, reset: bool) -> tuple[Any, np.ndarray]:
        if isinstance(X, RowSource):
            return self._read_source(X, y, reset=reset)
        X = self._as_array(X, reset=reset)
        options = {"multi_output": True, "y_numeric": self._numeric_y, **self._read_options()}
        with self._named_columns(X):
            if self._is_deep(X):
                X, y = check_X_y(X, y, estimator=self, allow_nd=True, **options)
                if reset:
                    vars(self).pop("feature_names_in_", None)
            else:
                X, y = self._validate(X, y, reset=reset, **options)
        return self._shaped(X, reset=reset), y

    def _read_for_prediction(self, X):
        """Unpack and check X; rows of a source when they are read."""
        X, _ = unpack(X, None, targets="never")
        return X.mapped(self._read_X) if isinstance(X, RowSource) else self._read_X(X)

    def _read_X(self, X):
        """Check X alone, for prediction."""
        return self._read_inputs(X, reset=False)

    def _read_inputs(self, X, *, reset: bool):
        """Check X without y."""
        X = self._as_array(X, reset=reset)
        with self._named_columns(X):
            if self._is_deep(X):
                X = check_array(X, estimator=self, allow_nd=True, input_name="X", **self._read_options())
                if reset:
                    vars(self).pop("feature_names_in_", None)
            else:
                X = self._validate(X, reset=reset, **self._read_options())
        return self._shaped(X, reset=reset)

    def _read_source(self, X: RowSource, y, *, reset: bool) -> tuple[RowSource, np.ndarray]:
        """Check all rows of a source once, some at a time, and y."""
        y = validate_data(self, y=y, multi_output=True, y_numeric=self._numeric_y)
        check_consistent_length(X, y)
        return self._checked_source(X, reset=reset), y

    def _checked_source(self, X: RowSource, *, reset: bool) -> RowSource:
        n_checked = 0
        for part in X.parts(rows_at_a_time(X)):
            try:
                self._read_inputs(part, reset=reset and n_checked == 0)
            except ValueError as error:
                last = n_checked + len(part) - 1
                error.add_note(f"This is said of rows {n_checked} to {last} of X, counted from the first of these.")
                raise
            n_checked += len(part)
            if part.dtype is not None and part.dtype.kind in "biu":
                break  # whole numbers are finite, and have one shape
        return X.mapped(self._read_again)

    def _read_again(self, X: np.ndarray) -> np.ndarray:
        """Give rows of a source that was checked the form that the others have."""
        dtypes = self._read_options()["dtype"]
        if isinstance(dtypes, str):  # "numeric": numbers of any dtype stay as they are
            X = X.astype(np.float64) if X.dtype == object else X
        elif X.dtype not in dtypes:
            X = X.astype(dtypes[0])
        return self._shaped(X, reset=False)

    def _validate(self, X, y="no_validation", *, reset: bool, **options):
        """Check as scikit-learn does; it takes some 50 us to find that a plain array is one, as long as some fits."""
        alone = isinstance(y, str)
        if is_plain(X, ndim=2) and (alone or (is_plain(y, ndim=1, integers=True) and len(X) == len(y))):
            if reset:
                vars(self).pop("feature_names_in_", None)
                self.n_features_in_ = X.shape[1]
            if "feature_names_in_" not in vars(self) and X.shape[1] == self.n_features_in_:
                return X if alone else (X, y)
        return validate_data(self, X, y, reset=reset, **options)

    def _as_array(self, X, *, reset: bool):
        """Make an array of what only this family takes."""
        return X

    def _is_deep(self, X) -> bool:
        """Whether X has more than two dimensions, and may have them."""
        if self._most_dimensions <= 2 or sparse.issparse(X):
            return False
        if not hasattr(X, "ndim"):
            try:
                X = np.asarray(X)
            except ValueError:
                return False  # scikit-learn says what is wrong
        return X.ndim > 2

    def _shaped(self, X, *, reset: bool):
        """Give checked X the dimensions that the network takes; learn its sizes if `reset`, compare them otherwise."""
        return X

    @contextmanager
    def _named_columns(self, X) -> Iterator[None]:
        """Say which columns of a DataFrame could not be read as numbers, and what to do."""
        try:
            yield
        except (TypeError, ValueError) as error:
            names = columns_without_numbers(X)
            if not names:
                raise
            owner = type(self).__name__
            raise InvalidInputError(
                f"X of {owner} must hold numbers. Got text, categories or dates in the columns {names}. Encode them, for "
                f"example by make_pipeline(make_column_transformer((OneHotEncoder(handle_unknown='ignore'), {names}), "
                f"remainder='passthrough'), {owner}(...)), or leave them out."
            ) from error

    _numeric_y = False

    def _read_options(self) -> dict[str, Any]:
        return {"accept_sparse": "csr" if self._takes_sparse else False, "dtype": [np.float64, np.float32]}

    def _split(self, data: _Rows, X_val, y_val) -> tuple[_Rows, _Rows | None]:
        """Give the training and the validation rows."""
        if (X_val is None) != (y_val is None):
            given, missing = ("X_val", "y_val") if y_val is None else ("y_val", "X_val")
            raise InvalidInputError(f"X_val and y_val must be given together. Got {given} without {missing}.")
        if X_val is not None:
            X_val, y_val = self._read_X_y(X_val, y_val, reset=False)
            self.target_.check(y_val)
            return data, _Rows(X_val, y_val, None, np.arange(X_val.shape[0]))
        if not self.early_stopping:
            return data, None
        if getattr(data.X, "loader", None) is not None:
            raise InvalidInputError(
                "early_stopping=True holds rows out for validation, which a DataLoader does not allow. Give X_val and y_val, "
                "for example a second DataLoader as X_val."
            )
        strata = data.y if isinstance(self.target_, ClassTarget) and not self.target_.multilabel else None
        if len(data.y) < 2:
            raise InvalidInputError(
                f"early_stopping=True holds rows out for validation and needs at least 2. Got n_samples={len(data.y)}. "
                "Give X_val and y_val, or set early_stopping=False."
            )
        train, valid = hold_out(data.X, data.y, data.weight, self.validation_fraction, strata, self.streams_.split)
        if not len(train):
            raise InvalidInputError(
                "early_stopping=True holds rows out for validation, but all rows of y are equal. Give X_val and y_val, or "
                "set early_stopping=False."
            )
        return data.take(train), data.take(valid)

    def _learn_scales(self, data: _Rows) -> None:
        self.scaler_ = self._scaler_of(data) if self._wants_scaled_features() else None

    def _scaler_of(self, data: _Rows) -> FeatureScaler:
        """Learn what features are centred and scaled by."""
        return FeatureScaler.from_rows(data.X, data.weight)

    def _wants_scaled_features(self) -> bool:
        return self.standardize_features

    def _scaled(self, X, dtype=None):
        return X if self.scaler_ is None else self.scaler_(X, dtype)

    def _encode_X(self, X):
        """Encode checked X, once."""
        return to_float32(self._scaled(X, np.float32))

    def _encoded(self, X):
        """Encode checked X; rows of a source when they are read."""
        return X.mapped(self._encode_X) if isinstance(X, RowSource) else self._encode_X(X)

    def _batches(self, data: _Rows, *, training: bool) -> Batches:
        """Encode rows and put them where the network is; rows of a source when they are read."""
        X, y, weight = data.X, data.y, data.weight
        if training and getattr(X, "loader", None) is not None:
            return self._batches_of_loader(data)
        class_weight = self._class_weights(y, weight)
        if class_weight is not None:
            weight = class_weight if weight is None else weight * class_weight
        X, y = self._encoded(X), self.target_.encode(y)
        size = self._batch_rows(len(y))
        if weight is not None:
            weight = None if np.all(weight == weight[0]) else torch.from_numpy((weight / weight.mean()).astype(np.float32))
        generator = self.streams_.order if training and self.shuffle else None
        if self.device_.type != "cpu":
            X, y, weight = (to_device(t, self.device_) if isinstance(t, (Tensor, Fields)) else t for t in (X, y, weight))
        return Batches(X, y, weight, min(size, len(y)) if training else size, generator)

    def _labels_of_batch(self, y_batch: np.ndarray, y):
        """Give the targets that a DataLoader gave the form of all of them."""
        return y_batch.reshape(len(y_batch), *y.shape[1:])

    def _batches_of_loader(self, data: _Rows) -> LoaderBatches:
        """Let a DataLoader of the user's make the batches, and encode what it gives."""
        X, weight_of = self._encoded(data.X), None
        weight = self._class_weights(data.y, None)
        if weight is not None:
            weight = (weight / weight.mean()).astype(np.float32)
            weight_of = {_key(row): w for row, w in zip(data.y, weight, strict=True)}

        def encode(X_batch: np.ndarray, y_batch: np.ndarray) -> tuple:
            y_batch = self._labels_of_batch(y_batch, data.y)
            self.target_.check(y_batch)
            weight = None
            if weight_of is not None:
                weight = to_device(torch.tensor([weight_of[_key(row)] for row in y_batch]), self.device_)
            return X.changed(X_batch), to_device(self.target_.encode(y_batch), self.device_), weight

        y = to_device(self.target_.encode(data.y), self.device_)
        return LoaderBatches(data.X.loader, X, y, encode, self.streams_.order)

    def _batch_rows(self, n_samples: int) -> int:
        """Number of rows in a batch."""
        if self.batch_size == -1:
            return n_samples
        if self.batch_size == "auto":
            return min(256, max(32, 2 ** int(np.log2(max(n_samples, 1)) - 7)))
        return int(self.batch_size)

    # ------------------------------------------------------------------ building

    def initialize(self, X=None, y=None) -> NetEstimator:
        """Build module, criterion, optimizer and history anew, without training.

        Parameters
        ----------
        X, y : array-like, default=None
            Data that sizes and classes are learnt from. Not needed where they are known, as after `fit`.

        Returns
        -------
        self
            The estimator, able to predict with its first weights.

        Raises
        ------
        NotSizedError
            If neither data were given nor sizes are known.
        """
        with self._restored_on_error():
            self._validate_params()
            if X is not None:
                self._learn_scales(self._read_training(*self._unpack(X, y), None, reset=True))
            if not hasattr(self, "target_"):
                raise NotSizedError(
                    f"This {type(self).__name__} instance is not fitted yet, and takes its sizes from the data. Call fit, "
                    "load_params, or initialize(X, y)."
                )
            self._build(1)
        return self

    def _build(self, n_batches: int, monitored: str = "train_loss", *, transfer: bool = True) -> None:
        """Build everything that skorch calls a component, with weights of `pretrained` where they are asked for."""
        self.device_ = _find_device(self.device)
        self.schedule_ = self._find_schedule(n_batches, monitored)
        self.initialized_ = False
        self.check_training_readiness()
        self._initialize_callbacks()
        self._initialize_module()
        self.frozen_ = Frozen()
        if transfer:
            self.transfer_report_ = None if self.pretrained is None else self._transfer()
        self._initialize_criterion()
        self._initialize_optimizer()
        self.initialize_history()
        self.initialized_ = True
        self._set_training(False)

    def _find_schedule(self, n_batches: int, monitor: str) -> Schedule | None:
        return find_schedule(
            self._schedule_name(),
            self.get_params_for("lr_schedule"),
            lr=self.lr,
            n_epochs=self.max_epochs,
            n_batches=n_batches,
            monitor=monitor,
        )

    def _schedule_name(self):
        return self.lr_schedule

    def _size_arguments(self) -> dict[str, int]:
        return {"n_features": self.n_features_in_, "n_outputs": self.target_.n_outputs}

    def initialize_module(self):
        """Build the network from the sizes that were learnt; its first weights come from the seed."""
        check_arguments(self.module, self.get_params_for("module"), "module")
        self.module_ = self._make_module(self.streams_.weights, self._noise_generator)
        return self

    def _make_module(self, weights: torch.Generator, noise, **sizes) -> nn.Module:
        """Make a network of the sizes that were learnt, or of others, from generators; `noise` gives one."""
        arguments = {**self._size_arguments(), **sizes, **self.module_arguments(), **self.get_params_for("module")}
        return self._make_network(self.module, arguments, weights, noise)

    @staticmethod
    def _make_network(module: type[nn.Module], arguments: dict[str, Any], weights: torch.Generator, noise) -> nn.Module:
        """Make a network, or a part of one, whose random numbers come from generators."""
        accepted = accepted_arguments(module) or ()
        context = nullcontext()
        if "generator" in accepted:
            arguments["generator"] = weights
        else:
            context = borrowed_global_generator(weights)
        if "noise_generator" in accepted:
            arguments["noise_generator"] = noise()
        with context:
            return module(**arguments)

    def _noise_generator(self) -> torch.Generator:
        if self.device_.type == "cpu":
            return self.streams_.noise
        seed = int(torch.randint(2**62, (), generator=self.streams_.noise))
        return torch.Generator(self.device_).manual_seed(seed)

    def _initialize_module(self, reason=None):
        with self._current_init_context("module"):
            self.initialize_module()
            for name in self._modules:
                made = getattr(self, name + "_")
                is_there = self.device_.type == "cpu" and getattr(made, "draws_from_generator", False)
                module = self.torch_compile(made if is_there else to_device(made, self.device_), name=name)
                if module is not made:
                    setattr(self, name + "_", module)
        return self

    def initialize_criterion(self):
        """Build the criterion, row by row where it can."""
        self.criterion_ = build_criterion(self._find_criterion(), self.get_params_for("criterion"))
        return self

    def _find_criterion(self):
        return find_criterion(self.criterion, self._criteria_by_name)

    def _find_optimizer(self) -> tuple[Any, dict[str, Any]]:
        """Give the optimizer's class, and the settings that the user may replace."""
        return find_optimizer(self.optimizer), {}

    def _initialize_criterion(self, reason=None):
        with self._current_init_context("criterion"):
            self.initialize_criterion()
            for name in self._criteria:
                made = getattr(self, name + "_")
                is_there = self.device_.type == "cpu" and isinstance(self.criterion, str)
                criterion = made if is_there else to_device(made, self.device_)
                if criterion is not made:
                    setattr(self, name + "_", criterion)
        return self

    def _initialize_optimizer(self, reason=None):
        # Without skorch's virtual parameters: set_params tells the optimizer itself.
        with self._current_init_context("optimizer"):
            self.initialize_optimizer()
        return self

    def initialize_optimizer(self, triggered_directly=None):
        """Build the optimizer over all weights."""
        optimizer, defaults = self._find_optimizer()
        named = list(self.get_all_learnable_params())
        for pattern, _ in self.get_params_for("optimizer").get("param_groups", []):
            names = [name for name, _ in named]
            if not fnmatch.filter(names, pattern):  # skorch would train on without what was asked for
                raise InvalidInputError(
                    f"The pattern {pattern!r} in optimizer__param_groups of {type(self).__name__} matches no weights."
                    f"{nearest_name(pattern, names)}"
                )
        (groups,), settings = self.get_params_for_optimizer("optimizer", named)
        settings = {**defaults, **settings}
        if self.weight_decay:
            settings.setdefault("weight_decay", self.weight_decay)
        self.optimizer_ = build_optimizer(optimizer, groups, settings)
        self._scale_loaded_rates()
        return self

    def _scale_loaded_rates(self) -> None:
        if self.transfer_report_ is None:
            return
        loaded = loaded_weights(self.module_, self.transfer_report_)
        scale_loaded_rates(vars(self)["optimizer_"], loaded, self.pretrained_lr_factor)

    @property
    def optimizer_(self) -> torch.optim.Optimizer:
        """The optimizer; torch builds it when it is first asked for."""
        if "optimizer_" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'optimizer_' before it is fitted")
        optimizer = vars(self)["optimizer_"]
        if isinstance(optimizer, PendingOptimizer):
            optimizer = vars(self)["optimizer_"] = optimizer.build()
        return optimizer

    @optimizer_.setter
    def optimizer_(self, optimizer) -> None:
        vars(self)["optimizer_"] = optimizer

    def initialize_history(self):
        """Start an empty history."""
        self.history_ = History()
        return self

    @property
    def history_(self) -> History | None:
        """Losses and times of every epoch; None before the first."""
        history = vars(self).get("history_")
        if isinstance(history, PendingHistory):
            history = vars(self)["history_"] = history.write()
        return history

    @history_.setter
    def history_(self, history) -> None:
        vars(self)["history_"] = history

    def get_default_callbacks(self) -> list:
        """Give the callbacks that parameters ask for."""
        own = []
        if getattr(self, "schedule_", None) is not None:
            own.append(("lr_scheduler", self.schedule_.callback()))
        if self.verbose:
            own.append(("print_log", PrintLog()))
        return own

    _default_callbacks = property(get_default_callbacks)

    def _initialize_callbacks(self):
        if self.callbacks or self._default_callbacks:
            return super()._initialize_callbacks()
        self.callbacks_ = []
        return self

    def check_data(self, X, y=None) -> None:
        """Nothing to check: X and y were read before."""

    # ------------------------------------------------------------------ transfer

    def _transfer(self) -> TransferReport:
        """Take over what fits of `pretrained`: weights, and the scales that they were learnt with."""
        owner = type(self).__name__
        if self.pretrained is self:
            raise InvalidInputError(f"The 'pretrained' parameter of {owner} must be another net. Set warm_start=True to go on.")
        pretrained = read_pretrained(self.pretrained, owner)
        known, head = pretrained.learnt or {}, self._head()
        target = target_from_dict(known["target"]) if known.get("target") else None
        refused = {}
        names, their_names = getattr(self, "feature_names_in_", None), known.get("feature_names_in")
        if names is not None and their_names is not None and names.tolist() != their_names:
            refused.update(dict.fromkeys(self._sized_by("n_features"), "the features have other names"))
        if target is not None and not self.target_.agrees_with(target):
            refused.update(dict.fromkeys(head, "the target is another"))
        report = transfer_weights(self.module_, pretrained.state, pretrained.source, refused=refused, together=head)
        new = {each.name for each in report.new}
        if self._reads_features_as_loaded(new):
            self._take_over_feature_scale(pretrained, report)
        if not head & new:
            self._take_over_target_scale(pretrained, target, report)
        return report

    def _head(self) -> set[str]:
        """Name the weights whose layers say what the outputs mean."""
        return self._sized_by("n_outputs")

    def _reads_features_as_loaded(self, new: set[str]) -> bool:
        """Whether the layers that read the features were taken over; `new` are those that were not."""
        return not (self._sized_by("n_features") or {next(iter(unwrapped(self.module_).state_dict()))}) & new

    def _sized_by(self, name: str) -> set[str]:
        """Name the weights whose shapes change with a size of the network: those of another one tell."""
        size = self._size_arguments().get(name)
        if not isinstance(size, Integral):
            return set()
        other = self._make_module(torch.Generator(), torch.Generator, **{name: 2 * size}).state_dict()
        here = unwrapped(self.module_).state_dict()
        return {each for each, t in here.items() if each in other and other[each].shape != t.shape}

    def _take_over_feature_scale(self, pretrained: Pretrained, report: TransferReport) -> None:
        """Scale the features as the layer that reads them is used to."""
        source, own = pretrained.source, self.scaler_
        if pretrained.learnt is None:
            if own is not None:
                report.notes.append(f"features are scaled by the new rows: how {source} took them is not known")
            return
        state = pretrained.learnt.get("scaler")
        theirs = None if state is None else FeatureScaler(**state)
        if own is None:
            if theirs is not None:
                report.notes.append(f"features are not scaled, as they were for {source}: standardize_features is off")
        elif theirs is None:
            self.scaler_ = None
            report.notes.append(f"features are not scaled, as they were not for {source}")
        elif theirs.mean.shape == own.mean.shape:
            _warn_if_far("features", own, theirs, source)
            self.scaler_ = theirs
            report.notes.append(f"features are scaled as for {source}")

    def _take_over_target_scale(self, pretrained: Pretrained, target, report: TransferReport) -> None:
        """Scale the target as the layer that gives it is used to."""

    # ------------------------------------------------------------------ training

    def _make_job(self, data: _Rows, valid: _Rows | None, max_epochs: int, *, new: bool) -> TrainingJob:
        self.device_ = _find_device(self.device)
        loader = getattr(data.X, "loader", None)
        is_one_batch = self._batch_rows(len(data.y)) >= len(data.y) and loader is None
        if is_one_batch:  # neither order nor number of the rows matters
            data = data.merged()
        monitored = "train_loss" if valid is None else "valid_loss"
        if new:
            self._learn_scales(data)
            n_batches = -(-len(data.y) // min(self._batch_rows(len(data.y)), len(data.y)))
            if loader is not None:
                n_batches = len(loader)
            self._build(n_batches, monitored)  # with the scales of `pretrained`, which batches are encoded by
        batches = self._batches(data, training=True)
        held_out = None if valid is None else self._batches(valid, training=False)
        frozen = find_frozen(self.module_, self.freeze, type(self).__name__, self.frozen_)
        if not new:
            self._give_generators()
            schedule = self._find_schedule(len(batches), monitored)
            self._scale_loaded_rates()
            if self.schedule_ is not None:  # a schedule starts anew with each call
                self._set_rates(self.get_params_for("optimizer").get("lr", self.lr))
                for group in self.optimizer_.param_groups:
                    group.pop("initial_lr", None)  # of the schedule before
            self.schedule_ = schedule
            self._initialize_callbacks()
        if valid is None:
            self._check_no_callback_needs_validation()
        frozen_for = None if self.unfreeze_after is None else max(0, self.unfreeze_after - len(self.history_))
        self._hold(Frozen() if frozen_for == 0 else frozen)
        return TrainingJob(
            module=self.module_,
            train=batches,
            valid=held_out,
            criterion=self.criterion_,
            optimizer=vars(self)["optimizer_"],
            max_epochs=max_epochs,
            monitor=Monitor(self.early_stopping and valid is not None, self.n_iter_no_change, self.tol),
            schedule=self.schedule_,
            max_grad_norm=self.max_grad_norm,
            frozen=self.frozen_,
            unfreeze_after=frozen_for if self.frozen_ and frozen_for and frozen_for < max_epochs else None,
            owner=type(self).__name__,
        )

    def _check_no_callback_needs_validation(self) -> None:
        for name, callback in self.callbacks_:
            if getattr(callback, "monitor", None) in ("valid_loss", "valid_loss_best"):
                raise InvalidInputError(
                    f"The callback {name!r} watches {callback.monitor!r}, and there is no validation set. Pass X_val and y_val "
                    "to fit, set early_stopping=True, which holds rows out, or give the callback monitor='train_loss'."
                )

    def _user_datasets(self, given: tuple, given_val: tuple, data: _Rows, valid: _Rows | None) -> dict[str, Any]:
        """Give callbacks the rows as the user gave them, so that they can predict and score."""
        if not self.callbacks:
            return {"dataset_train": None, "dataset_valid": None}

        def dataset(X, y, rows: _Rows) -> SkorchDataset:
            return SkorchDataset(_rows_as_given(X, rows.number), self._labels_as_given(y, rows))

        held_out = None if valid is None else dataset(*(given if given_val[0] is None else given_val), valid)
        return {"dataset_train": dataset(*given, data), "dataset_valid": held_out}

    def _labels_as_given(self, y, rows: _Rows) -> Any:
        return np.asarray(y)[rows.number]

    def _give_generators(self) -> None:
        """A copied or loaded network has no generator for its noise: it draws on from the estimator's."""
        generator = None
        for layer in self.module_.modules():
            if getattr(layer, "generator", False) is None:
                generator = generator or self._noise_generator()
                layer.generator = generator

    def _why_alone(self) -> str | None:
        """Say why this estimator climbs skorch's ladder, whatever its network."""
        if self.callbacks:
            return "callbacks of the user's"
        if self.iterator_train is not None or self.iterator_valid is not None:
            return "an iterator of the user's"
        if self.compile:
            return "torch.compile"
        replaced = self.replaced_rungs()
        return f"methods of its own: {', '.join(replaced)}" if replaced else None

    def _train(self, job: TrainingJob, X, y, datasets: dict[str, Any]) -> None:
        """Carry the job out, and take its results over, whether it ended well or not."""
        keep_freed_memory()
        reporter = EpochReporter(self, job, X, y)
        reason = self._why_alone() or why_not_stacked(job)
        reporter.begin()
        try:
            if reason is None:
                job.after_epoch = reporter if reporter.is_wanted else None
                train(job)
                if job.error is not None:
                    raise job.error
            else:
                _log.debug("%s is not stacked: %s", type(self).__name__, reason)
                job.check = note_alone(reason)
                self.climb(job, X, np.asarray(y) if isinstance(y, (list, tuple)) else y, datasets, reporter)
        finally:
            reporter.leave_history()
            self._take_over(job, reporter.epochs.n_before)
        reporter.end()
        if job.max_epochs > 1:
            self._warn_of_weak_training(job)

    def _warn_of_weak_training(self, job: TrainingJob) -> None:
        losses, owner = job.monitor.train_loss, type(self).__name__
        if not self.replaced_rungs():  # else the loss may be another than the criterion's
            kept = losses[job.monitor.best_epoch - 1] if job.monitor.early_stopping else losses[-1]
            zeros = loss_of_zeros(job.criterion, job.train, self.target_.output_shape)
            if warn_if_useless(kept, zeros, self.lr, owner):
                return
        if job.valid is None:
            warn_if_still_falling(losses, self.lr, owner)

    def _take_over(self, job: TrainingJob, n_before: int) -> None:
        self._set_training(False)
        if not isinstance(vars(self)["history_"], PendingHistory):
            while len(self.history_) and "train_loss" not in self.history_[-1]:
                self.history_.pop()  # an epoch that was interrupted, or diverged
        self.n_iter_ = n_before + len(job.monitor.train_loss)
        for name, losses in (("train_loss", job.monitor.train_loss), ("valid_loss", job.monitor.valid_loss)):
            before = [row[name] for row in islice(self.history_, n_before) if name in row] if n_before else []
            setattr(self, "loss_curve_" if name == "train_loss" else "validation_curve_", np.array(before + losses))
        self.best_epoch_ = n_before + job.monitor.best_epoch

    # ------------------------------------------------------------------ prediction

    def forward_iter(self, X, training=False, device="cpu"):
        """Give the network's outputs some rows at a time.

        Parameters
        ----------
        X : array-like
            Inputs, as for `fit`.
        training : bool, default=False
            Whether the network is in training mode, so that dropout is active and gradients are kept.
        device : str, default="cpu"
            Where the outputs are put.

        Yields
        ------
        Tensor of shape (n_rows, n_outputs)
            The outputs of some rows.
        """
        check_is_fitted(self)
        X = self._encoded(self._read_for_prediction(X))
        self._set_training(training)
        try:
            with torch.set_grad_enabled(training), single_precision():
                for outputs in self.outputs_of(X, rows_at_a_time(X)):
                    yield to_device(outputs, device)
        finally:
            self._set_training(False)

    def _outputs(self, X) -> np.ndarray:
        """Give the outputs for prediction, (n_samples, n_outputs)."""
        check_is_fitted(self)
        if not self._predicts_in_double():
            return self.forward(X).numpy()
        # In double precision a row's prediction does not depend on what other rows it is predicted with.
        X = self._read_for_prediction(X)
        self._set_training(False)  # a callback may ask between two epochs
        module = _doubled(self.module_)  # another one: other threads may predict too
        widest = max((p.shape[0] for p in self.module_.parameters() if p.ndim), default=1)
        n_rows = min(rows_at_a_time(X), max(128, _NUMBERS_IN_DOUBLE // widest))
        work = min(n_rows, X.shape[0]) * self._work_of_a_row()
        with torch.no_grad(), nullcontext() if is_worth_sharing(work, self.device_) else one_thread():
            parts = [module(self._in_double(part)).numpy() for part in _in_parts(X, n_rows)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _predicts_in_double(self) -> bool:
        """Whether a row costs so little that double precision is worth it: a rule of the network, not of the rows."""
        is_own = getattr(self.module_, "draws_from_generator", False) and not self.compile  # what is compiled is so for float32
        if self.device_.type != "cpu" or self.replaced_rungs() or not is_own:
            return False
        return isinstance(self.module_, FeedForward) or self._work_of_a_row() <= _WORK_IN_DOUBLE

    def _work_of_a_row(self) -> int:
        """Give about how many multiplications a row costs."""
        return sum(p.numel() for p in self.module_.parameters()) * self._n_positions()

    def _n_positions(self) -> int:
        """Give how often a row goes through the same weights: its pixels, or its steps."""
        return 1

    def _in_double(self, X) -> Tensor:
        """Encode rows of checked X in double precision."""
        X = self._scaled(X)
        return rows_of(X, slice(None)).double() if sparse.issparse(X) else torch.from_numpy(np.array(X, dtype=np.float64))

    def predict(self, X):
        """Predict targets in the user's own terms.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Numbers, or class labels.
        """
        outputs = self._outputs(X)
        return self.target_.decode(outputs)

    def score(self, X, y=None, sample_weight=None) -> float:
        """Give the coefficient of determination of the predictions of numbers, or the accuracy of those of classes.

        Parameters
        ----------
        X : array-like, sparse matrix, torch Dataset or DataLoader of shape (n_samples, n_features)
            Inputs.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            The true targets. None only if X is a Dataset or DataLoader that gives them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            1.0 is the best.
        """
        targets = None
        if y is None:
            X, targets = unpack(X, None, targets="later")
        predicted = self.predict(X)
        y = y if targets is None else targets()
        if not is_classifier(self):
            return float(r2_score(y, predicted, sample_weight=sample_weight))
        if sample_weight is None and _are_labels(y, like=predicted):
            return float(np.mean(predicted == y))  # scikit-learn's checks take as long as predicting few rows
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    # ------------------------------------------------------------------ weights on disk, and copies

    def save_params(
        self, f_params=None, f_optimizer=None, f_criterion=None, f_history=None, use_safetensors=False, **kwargs
    ) -> None:
        """Save weights, and what is needed to predict with them: sizes, classes, feature names and scales.

        Parameters
        ----------
        f_params : path or binary file, default=None
            Where the weights go.
        f_optimizer, f_criterion, f_history : path or file, default=None
            Where the optimizer's and criterion's states and the history go, as in skorch.
        use_safetensors : bool, default=False
            Whether the weights are written by safetensors, whose files hold no code; by torch otherwise.
        **kwargs
            Further components, as in skorch.

        Raises
        ------
        NotSizedError
            If there is nothing to save yet.
        """
        if not self.initialized_:
            raise NotSizedError(f"This {type(self).__name__} instance is not fitted yet. Call fit before save_params.")
        f_params = kwargs.pop("f_module", f_params)  # skorch's other name for the same
        if f_params is not None:
            write_tensors(join_learnt(self.module_.state_dict(), self._learnt_to_dict()), f_params, use_safetensors)
        others = {"f_optimizer": f_optimizer, "f_criterion": f_criterion, "f_history": f_history, **kwargs}
        others = {name: f for name, f in others.items() if f is not None}
        if others:
            super().save_params(**others)

    def load_params(
        self,
        f_params=None,
        f_optimizer=None,
        f_criterion=None,
        f_history=None,
        checkpoint=None,
        use_safetensors=False,
        **kwargs,
    ) -> None:
        """Load what `save_params` saved, into a fitted or a fresh estimator with the same parameters.

        Parameters
        ----------
        f_params : path or binary file, default=None
            Where the weights are.
        f_optimizer, f_criterion, f_history : path or file, default=None
            Where the other states are, as in skorch.
        checkpoint : skorch.callbacks.Checkpoint, default=None
            Where the files are, as in skorch.
        use_safetensors : bool, default=False
            Whether the file of weights is one of safetensors.
        **kwargs
            Further components, as in skorch.

        Raises
        ------
        InvalidInputError
            If the weights do not fit this estimator's network. The estimator is as it was before.
        """
        files = {"f_optimizer": f_optimizer, "f_criterion": f_criterion, "f_history": f_history, **kwargs}
        files["f_params"] = files.pop("f_module", f_params)  # skorch's other name for the same
        with self._restored_on_error():
            if checkpoint is not None:
                if not self.history_ and checkpoint.f_history is not None:
                    self.history_ = History.from_file(checkpoint.f_history_)  # it may be part of the other files' names
                of_checkpoint = checkpoint.get_formatted_files(self)
                files = {name: f if f is not None else of_checkpoint.get(name) for name, f in files.items()}
                use_safetensors = checkpoint.use_safetensors
            f_params = files.pop("f_params")
            if f_params is not None:
                self._read_weights(f_params, use_safetensors)
            others = {name: f for name, f in files.items() if f is not None}
            if others:
                device, self.device = self.device, str(_find_device(self.device))  # skorch knows no "auto"
                super().load_params(**others)
                self.device = device

    def _read_weights(self, f_params, use_safetensors: bool) -> None:
        state, learnt = split_learnt(read_tensors(f_params, use_safetensors))
        if learnt is not None:
            self._learn_from_dict(learnt)
        elif not self.initialized_:
            raise NotSizedError(
                f"The file holds weights alone, and this {type(self).__name__} instance has no sizes yet. Call fit or "
                "initialize(X, y) first, or load a file that save_params of a fitted estimator wrote."
            )
        self._validate_params()
        history = self.history_
        self._build(1, transfer=False)
        self.history_ = history if history is not None else self.history_
        try:
            self.module_.load_state_dict(state)
        except RuntimeError as error:
            raise InvalidInputError(
                f"The file's weights do not fit the network of {self!r}. Give the estimator the parameters that it was "
                f"saved with. {error}"
            ) from error

    def _learnt_to_dict(self) -> dict[str, Any]:
        """Give what `fit` learnt from the data besides weights, as JSON types."""
        return {
            "format": _STATE_FORMAT,
            "estimator": type(self).__name__,
            "target": self.target_.to_dict(),
            **self._inputs_to_dict(),
            "transfer": None if self.transfer_report_ is None else self.transfer_report_.to_dict(),
        }

    def _inputs_to_dict(self) -> dict[str, Any]:
        """Give what was learnt about X, as JSON types."""
        names = getattr(self, "feature_names_in_", None)
        return {
            "n_features_in": self.n_features_in_,
            "feature_names_in": None if names is None else names.tolist(),
            "scaler": None if self.scaler_ is None else self.scaler_.to_dict(),
            "input_shape": vars(self).get("input_shape_"),
        }

    def _learn_from_dict(self, learnt: dict[str, Any]) -> None:
        if learnt.get("format") != _STATE_FORMAT:
            raise InvalidInputError(
                f"The file has format {learnt.get('format')!r}; this version of skpt reads format {_STATE_FORMAT}. "
                "Update skpt."
            )
        if learnt["estimator"] != type(self).__name__:
            raise InvalidInputError(f"The file was saved by {learnt['estimator']}, not by {type(self).__name__}.")
        self.target_ = target_from_dict(learnt["target"])
        self._inputs_from_dict(learnt)
        report = learnt.get("transfer")
        self.transfer_report_ = None if report is None else TransferReport.from_dict(report)
        self.streams_ = RandomStreams(draw_seed(self.random_state))

    def _inputs_from_dict(self, learnt: dict[str, Any]) -> None:
        self.n_features_in_ = learnt["n_features_in"]
        vars(self).pop("feature_names_in_", None)
        if learnt["feature_names_in"] is not None:
            self.feature_names_in_ = np.array(learnt["feature_names_in"], dtype=object)
        self.scaler_ = None if learnt["scaler"] is None else FeatureScaler(**learnt["scaler"])
        if learnt.get("input_shape") is not None:
            self.input_shape_ = tuple(learnt["input_shape"])

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        state.pop("_cloned_from", None)
        state.pop("quick_adam_", None)  # within a fit
        if self.initialized_ and self.device_.type != "cpu":
            # For machines without such a device too.
            on_cpu = {name: copy.deepcopy(state[name]).cpu() for name in ("module_", "criterion_")}
            state.update(on_cpu, optimizer_=None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.initialized_ and self.device_.type == "cpu":
            complete_optimizer(vars(self)["optimizer_"])
        elif self.initialized_:
            self.device_ = _find_device("auto")
            vars(self).update(module_=self.module_.to(self.device_), criterion_=self.criterion_.to(self.device_))
            with self._current_init_context("optimizer"):
                self.initialize_optimizer()


class NetRegressor(NetEstimator, NeuralNetRegressor):
    """The regressor half: one or several numbers per row."""

    _numeric_y = True
    _criteria_by_name = REGRESSION_CRITERIA
    _parameter_texts = {**PARAMETERS, **REGRESSOR_PARAMETERS}
    _parameter_constraints: dict = {
        **NetEstimator._parameter_constraints,
        "standardize_target": ["boolean"],
    }

    def _read_X_y(self, X, y, *, reset: bool):
        if y is not None and not sparse.issparse(y) and np.asarray(y).dtype.kind in "OUS":
            y = _numbers_of_text(y, type(self).__name__)
        return super()._read_X_y(X, y, reset=reset)

    def _read_training(self, X, y, sample_weight, *, reset: bool, classes=None) -> _Rows:
        rows = super()._read_training(X, y, sample_weight, reset=reset, classes=classes)
        criterion = self._find_criterion()
        if reset and is_of_counts(criterion):
            self.target_.expect_counts(rows.y, build_criterion(criterion, self.get_params_for("criterion")))
        return rows

    def _make_target(self, y: np.ndarray, classes) -> NumericTarget:
        return NumericTarget.from_y(y)

    def _learn_scales(self, data: _Rows) -> None:
        super()._learn_scales(data)
        if self._standardizes_target():
            self.target_.standardize(data.y, data.weight)

    def _standardizes_target(self) -> bool:
        return self.standardize_target and not is_of_counts(self._find_criterion())

    def _take_over_target_scale(self, pretrained: Pretrained, target, report: TransferReport) -> None:
        source, own = pretrained.source, self.target_
        if pretrained.learnt is None:
            if self._standardizes_target():
                report.notes.append(f"the target is scaled by the new rows: how {source} took it is not known")
            return
        theirs = own.scaled_by(None, None) if target is None else target
        if not self._standardizes_target():
            if (theirs.scale != 1).any() or theirs.mean.any():
                report.notes.append(f"the target is not scaled, as it was for {source}: standardize_target is off")
            return
        _warn_if_far("outputs", own, theirs, source)
        self.target_ = own.scaled_by(theirs.mean, theirs.scale)
        report.notes.append(f"the target is scaled as for {source}")

    @property
    def predict_proba(self):
        """Not for numbers: skorch has it on every net, scikit-learn on classifiers alone."""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute 'predict_proba'")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _gives_probabilities(estimator: NetClassifier) -> bool:
    criterion = estimator._find_criterion()
    return not (isinstance(criterion, type) and issubclass(criterion, nn.MultiMarginLoss))


class NetClassifier(NetEstimator, NeuralNetClassifier):
    """The classifier half: two or more classes, or several labels per row."""

    classes = None
    _criteria_by_name = CLASSIFICATION_CRITERIA
    _parameter_texts = {**PARAMETERS, **CLASSIFIER_PARAMETERS}
    _parameter_constraints: dict = {
        **NetEstimator._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    @property
    def classes_(self) -> np.ndarray:
        """The class labels, sorted."""
        if "target_" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'classes_' before it is fitted")
        return self.target_.classes

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _read_X_y(self, X, y, *, reset: bool):
        X, y = super()._read_X_y(X, y, reset=reset)
        if sparse.issparse(y):
            y = y.toarray()
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not (y.ndim == 1 and y.dtype.kind in "biu"):  # these are classes, whatever they hold
            check_classification_targets(y)
        return X, y

    def _find_criterion(self):
        criterion = self.criterion
        if criterion == "auto":
            target = vars(self).get("target_")
            criterion = "cross_entropy" if target is None or target.takes_index else "bce"
        return find_criterion(criterion, self._criteria_by_name)

    def _make_target(self, y: np.ndarray, classes) -> ClassTarget:
        found, multilabel = ClassTarget.classes_of(y)
        if classes is not None and not multilabel:
            found = np.unique(np.asarray(classes))
        if len(found) < 2 and not multilabel:
            raise InvalidInputError(
                f"{type(self).__name__} needs at least two classes in y. Got one class: {found.tolist()}."
            )
        if self.criterion == "auto":
            takes_index = not multilabel and len(found) > 2
        else:
            takes_index = takes_class_index(find_criterion(self.criterion, self._criteria_by_name))
        if multilabel and takes_index:
            raise InvalidInputError(
                f"Several labels per row need a criterion that takes indicators, such as 'bce'. Got {self.criterion!r}."
            )
        return ClassTarget(found, multilabel, takes_index)

    def _class_weights(self, y: np.ndarray, weight: np.ndarray | None) -> np.ndarray | None:
        if self.class_weight is None:
            return None
        if not self.target_.multilabel:
            if self.class_weight == "balanced":
                return _balanced_weight(y, weight)
            by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
            return by_class[np.searchsorted(self.classes_, y)]
        if self.class_weight != "balanced":
            raise InvalidInputError(
                f"class_weight must be 'balanced' or None where y has several labels per row. Got {self.class_weight!r}. "
                "Give sample_weight to fit."
            )
        # As scikit-learn's compute_sample_weight: the labels' weights are multiplied.
        balanced = np.ones(len(y))
        for column in y.T:
            balanced *= _balanced_weight(column, weight)
        return balanced

    @available_if(_gives_probabilities)
    def predict_proba(self, X):
        """Give the probability of each class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Rows add up to one, unless y has several labels per row: then each entry is its label's own probability.
        """
        outputs = self._outputs(X)
        return self.target_.probabilities(outputs)

    def decision_function(self, X):
        """Give the log-odds that classes are decided by.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            For two classes one number, positive for the second.
        """
        outputs = self._outputs(X)
        return self.target_.decision(outputs)


def _fitted_origin(pretrained):
    """The estimator that was copied, where a search copied it to make it the parameter of another; else the value itself."""
    origin = getattr(pretrained, "_cloned_from", None)
    if origin is None or pretrained.initialized_:
        return pretrained
    return origin() or pretrained


def _warn_if_far(what: str, own, theirs, source: str) -> None:
    """Warn of columns whose numbers are far larger than those that weights were learnt with, or spread far less."""
    size = np.ravel(size_in_units_of(own.mean, own.scale, theirs.mean, theirs.scale))
    spread = np.ravel(spread_in_units_of(own.scale, theirs.scale))
    large = size > _FAR_FROM_PRETRAINED
    far = np.flatnonzero(large | (spread < 1 / _FAR_FROM_PRETRAINED))
    if len(far):
        first = far[0]
        says = ("root mean square", size[first]) if large[first] else ("standard deviation", spread[first])
        warnings.warn(
            f"{len(far)} of {len(size)} {what} are far from those of {source}, in whose units the {says[0]} of number {first} "
            f"is {says[1]:.3g} instead of about 1. If they mean something else, leave their layers out: give pretrained a "
            "state dict without them.",
            SkptWarning,
            stacklevel=8,  # of the user's call of fit
        )


def _spelling_hint(message: str, params: dict[str, Any], constraints: dict[str, list]) -> str:
    """Say which value was probably meant, where the message is about one of several names."""
    for name, value in params.items():
        if isinstance(value, str) and message.startswith(f"The {name!r} parameter"):
            known = {option for each in constraints[name] if isinstance(each, StrOptions) for option in each.options}
            return nearest_name(value, known, listed=True)
    return ""


def _numbers_of_text(y, owner: str) -> np.ndarray:
    """Read numbers that came as text or as objects, or say that these are no numbers."""
    y = np.asarray(y)
    try:
        return y.astype(np.float64)
    except (TypeError, ValueError) as error:
        text = [each for each in y.ravel() if isinstance(each, (str, bytes))]
        if not text:
            return y  # scikit-learn says what is wrong
        raise InvalidInputError(
            f"{owner} needs numbers in y. Got text, for example {str(text[0])!r}. For classes take "
            f"{owner.replace('Regressor', 'Classifier')}."
        ) from error


def _balanced_weight(y: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    classes, index = np.unique(y, return_inverse=True)
    return compute_class_weight("balanced", classes=classes, y=y, sample_weight=weight)[index]


def _key(y_row) -> tuple:
    """A row of y, or its only value, for a dict."""
    return tuple(np.ravel(y_row).tolist())


def _rows_as_given(X, number: np.ndarray):
    """Some rows of what the user gave; of a dict as one that can be taken rows of."""
    if is_dict(X):
        return SliceDict(**{key: _rows_as_given(part, number) for key, part in X.items()})
    if isinstance(X, (list, tuple)):
        X = _array_of_rows(X)  # skorch takes a list for several inputs
    return X.take(number) if isinstance(X, RowSource) else safe_indexing(X, number)


def _array_of_rows(X: Sequence) -> np.ndarray:
    """Give a list's rows as an array: of numbers where they have one shape, of objects otherwise."""
    try:
        array = np.asarray(X)
    except ValueError:  # rows of unequal length
        array = np.empty(len(X), dtype=object)
        for i, x in enumerate(X):
            array[i] = x
    return array if array.dtype.kind in "biufO" else np.asarray(X, dtype=object)


def _doubled(module: nn.Module) -> nn.Module:
    """Give a network to predict with, which has another one's numbers in double precision."""
    doubled = object.__new__(type(module))
    own = vars(module).copy()
    for kind in ("_parameters", "_buffers"):
        own[kind] = {
            name: t.detach().double() if t is not None and t.is_floating_point() else t for name, t in own[kind].items()
        }
    own["_modules"] = {name: None if layer is None else _doubled(layer) for name, layer in own["_modules"].items()}
    vars(doubled).update(own)
    return doubled


def _are_labels(y, like) -> bool:
    """Whether y is an array of labels, one a row, of the same kind as others, of which nothing is left to be checked."""
    if type(y) is not np.ndarray or type(like) is not np.ndarray or y.ndim != 1:
        return False
    return y.shape == like.shape and y.dtype == like.dtype and y.dtype.kind in "biuU"


def _in_parts(X, n_rows: int) -> Iterator:
    if isinstance(X, RowSource):
        yield from X.parts(n_rows)
        return
    for start in range(0, X.shape[0], n_rows):
        yield X[start : start + n_rows]


def _find_device(device: str | torch.device) -> torch.device:
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        if found.type != "cpu":
            torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(
            "The 'device' parameter must be 'auto', 'cpu' or another device that torch has on this machine, such as 'cuda'. "
            f"Got {str(device)!r} instead. Torch says: {str(error).splitlines()[0]}"
        ) from error
    return found
