"""Networks with several inputs: branches of any family, joined before a dense head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_X_y, validate_data
from torch import Tensor

from skpt._compat import Interval, StrOptions, get_column_indices
from skpt.base import NetClassifier, NetEstimator, NetRegressor
from skpt.estimators.branches import Branch, CNNBranch, DenseBranch, _Embedding
from skpt.exceptions import InvalidInputError, UnknownParameterError, nearest_name
from skpt.modules.layers import ACTIVATIONS, INITIALIZATIONS
from skpt.modules.multi_input import BranchModule, MultiInputModule
from skpt.training.fields import Fields, as_numpy, is_dict, stacked
from skpt.training.sequences import is_list_of_sequences, is_ragged
from skpt.training.sources import RowSource
from skpt.training.transfer import unwrapped

__all__ = ["MultiInputClassifier", "MultiInputRegressor"]


class BranchedNet(NetEstimator):
    """A net whose X goes to branches: how X is taken apart, and how their parameters are reached."""

    _most_dimensions = 4
    _whole = "all"  # the branch that takes all columns, where none is named

    _own_attribute_texts = {
        "branches_": ("dict", "What each branch has learnt of its input: `input_shape_`, `scaler_` and so on, by name."),
        "columns_": ("dict", "The positions of each branch's columns, or its keys; None for all, by name."),
        "n_features_in_": ("int", "Number of columns of X; numbers in a row of all inputs where X is a dict."),
    }

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        families = [branch.family for branch in self._branches_by_name().values()]
        tags.input_tags.sparse = all(family._takes_sparse for family in families)
        tags.input_tags.three_d_array = any(family._most_dimensions > 2 for family in families)
        return tags

    # ------------------------------------------------------------------ branches and their parameters

    def _branch_parameter(self) -> str:
        """Give the parameter's name that holds the branches."""
        return "branches"

    def _given_branches(self, given=None) -> list[tuple[str, Branch, Any]]:
        """Give (name, branch, columns) as the user set them; empty where the choice is left to us."""
        given = getattr(self, self._branch_parameter(), None) if given is None else given
        if isinstance(given, Branch):
            return [(self._branch_parameter(), given, None)]
        given = given if isinstance(given, (list, tuple)) else []
        return [tuple(each) for each in given if isinstance(each, (tuple, list)) and len(each) == 3]

    def _branches_by_name(self, given=None) -> dict[str, Branch]:
        return {name: branch for name, branch, _ in self._given_branches(given) if isinstance(branch, Branch)}

    def _store(self, arguments: dict[str, Any]) -> None:
        branches = self._branches_by_name(arguments[self._branch_parameter()])
        for name in arguments["further"]:
            prefix, separator, rest = name.partition("__")
            if separator and prefix in branches:
                raise UnknownParameterError(
                    f"{type(self).__name__} takes no parameters of its branches when it is made. Got {name!r}. Give {rest} to "
                    f"the {type(branches[prefix]).__name__} named {prefix!r}, or call set_params({name}=...)."
                )
        super()._store(arguments)

    def _known_names(self) -> set[str]:
        return {*super()._known_names(), *self._branches_by_name()}

    def _prefixes(self) -> tuple[str, ...]:
        return (*super()._prefixes(), *self._branches_by_name())

    def _check_name(self, name: str) -> None:
        prefix, separator, rest = name.partition("__")
        branches = self._branches_by_name()
        if prefix not in branches:
            super()._check_name(name)
        elif separator:
            branches[prefix].check_name(rest, f"{prefix}__", type(self).__name__)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Give the parameters, those of the branches too: ``image`` and ``image__channels`` of a branch named "image".

        Parameters
        ----------
        deep : bool, default=True
            Whether the parameters of branches and callbacks are given too.

        Returns
        -------
        dict
            Names and values.
        """
        params = super().get_params(deep)
        if deep:
            for name, branch in self._branches_by_name().items():
                params[name] = branch
                params.update((f"{name}__{key}", value) for key, value in branch.get_params().items())
        return params

    def set_params(self, **params) -> BranchedNet:
        """Set parameters, those of the branches too; ``image=CNNBranch()`` replaces the branch named "image".

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
        own = self._branch_parameter()
        given = params.get(own)
        branches = self._branches_by_name(given)
        replaced = {name: params.pop(name) for name in list(params) if name in branches and name != own}
        nested = {name: params.pop(name) for name in list(params) if name.partition("__")[0] in branches and name != own}
        for name in nested:
            prefix, _, rest = name.partition("__")
            replaced.get(prefix, branches[prefix]).check_name(rest, f"{prefix}__", type(self).__name__)
        super().set_params(**params)
        if replaced:
            known = getattr(self, own)
            changed = [(name, replaced.get(name, branch), columns) for name, branch, columns in self._given_branches()]
            vars(self)[own] = type(known)(changed)
        branches = self._branches_by_name()
        for name, value in nested.items():
            prefix, _, rest = name.partition("__")
            branches[prefix].set_params(**{rest: value})
        return self

    def _validate_params(self) -> None:
        super()._validate_params()
        parameter, owner = self._branch_parameter(), type(self).__name__
        given = getattr(self, parameter)
        found = self._given_branches()
        is_list = isinstance(given, (list, tuple)) and len(found) == len(given) > 0
        if given is not None and not isinstance(given, Branch) and not is_list:
            raise InvalidInputError(
                f"The {parameter!r} parameter of {owner} must be a list of (name, branch, columns). Got {given!r}. Give for "
                'example [("image", CNNBranch(image_shape=(28, 28)), slice(0, 784)), ("rest", DenseBranch(), [784, 785])].'
            )
        names = [name for name, _, _ in found]
        reserved = {*self._get_param_names(), *NetEstimator._prefixes(self)} - {parameter}
        for name, branch, _ in found:
            if not isinstance(branch, Branch):
                raise InvalidInputError(
                    f"The branch {name!r} of {owner} must be one of skpt's branches, such as DenseBranch(). Got {branch!r}."
                )
            if not isinstance(name, str) or not name or "__" in name or name in reserved or names.count(name) > 1:
                raise InvalidInputError(
                    f"The names of the branches of {owner} must be different texts without two underscores, and none of its "
                    f"parameters. Got {names}."
                )
            branch.make_reader(self.standardize_features)._validate_params()

    # ------------------------------------------------------------------ reading X

    def _read_both(self, X, y, *, reset: bool):
        X = self._checked_source(X, reset=reset) if isinstance(X, RowSource) else self._read_inputs(X, reset=reset)
        rows = np.zeros((len(X), 1))
        return X, check_X_y(rows, y, estimator=self, multi_output=True, y_numeric=self._numeric_y)[1]

    def _read_again(self, X) -> Fields:
        return self._read_inputs(X, reset=False)

    def _read_inputs(self, X, *, reset: bool) -> Fields:
        """Take X apart, and let each branch read its own."""
        if isinstance(X, Fields):  # rows of a Dataset of dicts
            X = dict(X.items())
        if getattr(getattr(X, "dtype", None), "names", None):
            X = {name: X[name] for name in X.dtype.names}  # a structured array is a dict that has rows
        if reset:
            branches = self._given_branches() or self._default_branches(X)
            readers = {name: branch.make_reader(self.standardize_features) for name, branch, _ in branches}
            columns = {name: columns for name, _, columns in branches}
        else:
            readers, columns = self.branches_, self.columns_
            for name, branch in self._branches_by_name().items():
                if name in readers:  # else the branches were set anew, and are read by when the net is fitted again
                    readers[name].take(branch, self.standardize_features)
        with self._named_columns(X):
            parts, columns = self._parts_of(X, columns, reset=reset)
        found = {}
        for name, reader in readers.items():
            try:
                found[name] = reader._read_inputs(parts[name], reset=reset)
            except ValueError as error:
                if len(readers) == 1:
                    raise
                raise InvalidInputError(f"Branch {name!r}: {error}") from error
        fields = Fields(found)
        if reset:
            self.branches_, self.columns_ = readers, columns
            if is_dict(X) or self._is_whole(X):
                self.n_features_in_ = fields.shape[1]
                vars(self).pop("feature_names_in_", None)
        return fields

    def _default_branches(self, X) -> list[tuple[str, Branch, Any]]:
        """A dense branch for a table; for a dict one for each key, by its dimensions."""
        if not is_dict(X):
            return [(self._whole, DenseBranch(), None)]
        branches = []
        for key in X:
            n_dimensions = 3 if is_ragged(X[key]) else np.ndim(X[key])
            if n_dimensions not in (1, 2, 4):
                raise InvalidInputError(
                    f"The input {key!r} of {type(self).__name__} has {n_dimensions} dimensions, which may be images or "
                    f"sequences. Say which by the parameter {self._branch_parameter()!r}, for example "
                    f"[({key!r}, CNNBranch(), {key!r}), ...]."
                )
            branches.append((str(key), CNNBranch() if n_dimensions == 4 else DenseBranch(), key))
        return branches

    def _parts_of(self, X, columns: dict[str, Any], *, reset: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give each branch's part of X, and where it is."""
        if is_dict(X):
            columns = {name: self._key_of(X, name, key) for name, key in columns.items()}
            return {name: _field_of(X, key) for name, key in columns.items()}, columns
        owner = type(self).__name__
        if not reset and any(isinstance(key, str) for key in columns.values()):
            raise InvalidInputError(f"{owner} was fitted with a dict of inputs, {columns}. Got X of type {type(X).__name__}.")
        if self._is_whole(X):
            return self._parts_of_deep(X, columns), columns
        if hasattr(X, "iloc"):
            validate_data(self, X, reset=reset, skip_check_array=True)  # the branches check what they take
        else:
            X = validate_data(self, X, reset=reset, accept_sparse="csr", dtype="numeric", ensure_all_finite=False)
        if reset:
            columns = {name: self._positions_of(X, name, key) for name, key in columns.items()}
        return {name: _columns_of(X, positions) for name, positions in columns.items()}, columns

    def _is_whole(self, X) -> bool:
        """Whether X is images or sequences, which one branch takes as they are, and no table."""
        return not hasattr(X, "iloc") and (is_ragged(X) or self._is_deep(X))

    def _parts_of_deep(self, X, columns: dict[str, Any]) -> dict[str, Any]:
        if len(columns) == 1 and None in columns.values():
            return dict.fromkeys(columns, X)
        got = "sequences" if is_ragged(X) else f"an array of shape {np.shape(X)}"
        raise InvalidInputError(
            f"X of {type(self).__name__} must be a table or a dict of arrays, one for each of the branches {list(columns)}. "
            f"Got {got}. Pass {{{next(iter(columns))!r}: X, ...}}."
        )

    def _key_of(self, X: Mapping, name: str, key) -> str | None:
        """The key of a branch's input."""
        if key is None and len(X) and len(list(X)) == 1:
            key = next(iter(X))
        names = [each for each in X if isinstance(each, str)]
        if key not in names:
            hint = nearest_name(key, names, listed=True) if isinstance(key, str) else " Keys are text."
            raise InvalidInputError(
                f"The branch {name!r} of {type(self).__name__} must name a key of X, which is a dict of {list(X)}. Got "
                f"{key!r}.{hint}"
            )
        return key

    def _positions_of(self, X, name: str, key) -> list[int] | None:
        """The positions of a branch's columns in a table."""
        if key is None:
            return None
        key = key(X) if callable(key) else key
        try:
            positions = [int(i) for i in get_column_indices(X, key)]
        except (ValueError, TypeError) as error:
            raise InvalidInputError(
                f"The columns of the branch {name!r} of {type(self).__name__} must be names of a DataFrame's columns, "
                f"positions, a slice, a mask or a callable that gives one of these. Got {key!r}. {error}"
            ) from error
        if not positions:
            raise InvalidInputError(f"The branch {name!r} of {type(self).__name__} has no columns: {key!r} chose none.")
        return positions

    def _wants_scaled_features(self) -> bool:
        return True  # each branch decides for itself

    def _scaler_of(self, data) -> None:
        for name, reader in self.branches_.items():
            X = data.X.mapped(itemgetter(name)) if isinstance(data.X, RowSource) else data.X[name]
            reader._learn_scales(SimpleNamespace(X=X, weight=data.weight))

    def _encode_X(self, X: Fields) -> Fields:
        return Fields({name: self.branches_[name]._encode_X(part) for name, part in X.items()})

    def _in_double(self, X: Fields) -> dict[str, Tensor]:
        return {name: self.branches_[name]._in_double(part) for name, part in X.items()}

    def _encode_batch(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.branches_[name]._encode_batch(part) for name, part in x.items()}

    def _augmented(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.branches_[name]._augmented(part) for name, part in x.items()}

    # ------------------------------------------------------------------ the network

    def _size_arguments(self) -> dict[str, Any]:
        n_joined = sum(reader.n_outputs for reader in self.branches_.values())
        return {"n_features": n_joined, "n_outputs": self.target_.n_outputs}

    def _make_module(self, weights, noise, **sizes):
        """Make a network, the first weights of its branches drawn one after the other before those of the head."""
        branches = {}
        for name, reader in self.branches_.items():
            reader.streams_ = self.streams_
            arguments = {**reader._size_arguments(), **reader.module_arguments()}
            made = self._make_network(reader.module, arguments, weights, noise)
            branches[name] = BranchModule(made, reader.activation)
        return super()._make_module(weights, noise, **self._join(branches), **sizes)

    def _join(self, branches: dict[str, BranchModule]) -> dict[str, Any]:
        """Give the network's argument that takes the branches."""
        return {"branches": branches}

    def _joined_branches(self) -> Mapping[str, Any]:
        """Give the branches of the network that there is, by `branches_`."""
        return self.module_.joined.branches

    def _work_of_a_row(self) -> int:
        sizes = [sum(p.numel() for p in branch.parameters()) for branch in self._joined_branches().values()]
        more = sum(n * (reader._n_positions() - 1) for n, reader in zip(sizes, self.branches_.values(), strict=True))
        return super()._work_of_a_row() + more

    def _sized_by(self, name: str) -> set[str]:
        if name != "n_features":
            return super()._sized_by(name)
        return {weight for weight in unwrapped(self.module_).state_dict() if "branches." in weight}

    def _reads_features_as_loaded(self, new: set[str]) -> bool:
        return True  # each branch is asked by itself

    def _take_over_feature_scale(self, pretrained, report) -> None:
        """Scale each branch's input as its first layer is used to, if that was taken over."""
        new = {each.name for each in report.new}
        theirs = (pretrained.learnt or {}).get("branches", {})
        for key, (name, reader) in zip(self._joined_branches(), self.branches_.items(), strict=True):
            first = next((weight for weight in unwrapped(self.module_).state_dict() if f"branches.{key}." in weight), None)
            if first is not None and first not in new and not isinstance(reader, _Embedding):
                known = None if pretrained.learnt is None else theirs.get(name, {})
                reader._take_over_feature_scale(replace(pretrained, learnt=known), report)

    # ------------------------------------------------------------------ saving

    def _inputs_to_dict(self) -> dict[str, Any]:
        branches = {name: reader._inputs_to_dict() for name, reader in self.branches_.items()}
        return {**super()._inputs_to_dict(), "branches": branches, "columns": self.columns_}

    def _inputs_from_dict(self, learnt: dict[str, Any]) -> None:
        super()._inputs_from_dict(learnt)
        branches = self._branches_by_name()
        if branches and branches.keys() != learnt["branches"].keys():
            raise InvalidInputError(
                f"The file holds the branches {list(learnt['branches'])}. Got a {type(self).__name__} of {list(branches)}."
            )
        self.branches_, self.columns_ = {}, learnt["columns"]
        for name, state in learnt["branches"].items():
            reader = branches.get(name, _default_for(state)).make_reader(self.standardize_features)
            reader._inputs_from_dict(state)
            self.branches_[name] = reader


def _default_for(state: dict[str, Any]) -> Branch:
    """The branch that `_default_branches` chose, by what it learnt."""
    return DenseBranch() if state["input_shape"] is None else CNNBranch()


def _field_of(X: Mapping, key: str):
    """One input of a dict, one number a row as a column."""
    field = as_numpy(X[key])
    return np.asarray(field).reshape(-1, 1) if not is_list_of_sequences(field) and np.ndim(field) == 1 else field


def _columns_of(X, positions: list[int] | None):
    """Some columns of a table; the arrays within, where a DataFrame's one column holds arrays."""
    if positions is None:
        return X
    if hasattr(X, "iloc"):
        X = X.iloc[:, positions]
        if len(positions) == 1 and len(X) and isinstance(X.iloc[0, 0], (np.ndarray, list, Tensor)):
            return stacked(list(X.iloc[:, 0]))
        return X
    if positions == list(range(positions[0], positions[-1] + 1)):
        return X[:, positions[0] : positions[-1] + 1]
    return X[:, positions]


class _MultiInput(BranchedNet):
    """What both halves share: the head."""

    module = MultiInputModule

    _own_constraints: dict = {
        "branches": [list, tuple, None],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "batch_norm": ["boolean"],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
    }
    _own_texts: dict = {
        "branches": (
            "list of (str, branch, columns) or None",
            "The branches: a name, an instance of `CNNBranch`, `DenseBranch` or another, and the columns of X that it takes, "
            "as in scikit-learn's ColumnTransformer: names, positions, a slice, a mask or a callable such as "
            "``make_column_selector``; the key where X is a dict; None for all. The parameters of a branch are parameters of "
            "the estimator: ``image__channels`` of the branch named image. None takes one `DenseBranch` for a table, and one "
            "branch for each key of a dict.",
        ),
        "hidden_layer_sizes": (
            "sequence of int",
            "Number of units of each hidden layer between the joined branches and the output.",
        ),
        "activation": ("str or callable", "Nonlinearity of these hidden layers: a name as for `MLPClassifier`, or a class."),
        "dropout": ("float in [0, 1)", "Probability that one of their units is dropped in a training step."),
        "batch_norm": ("bool", "Whether they are batch-normalised, before the activation."),
        "initialization": ("str", "How first weights of these layers and the output are drawn, as for `MLPClassifier`."),
        "standardize_features": (
            "bool",
            "Whether each branch centres and scales its input, by the training rows, as its family does: columns of a table, "
            "channels of images, features of sequences.",
        ),
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        self._check_integers("hidden_layer_sizes", self.hidden_layer_sizes, example="(64, 32), one entry per hidden layer")

    def _read_X_y(self, X, y, *, reset: bool):
        if is_dict(y):
            raise InvalidInputError(f"y of {type(self).__name__} must be an array. Got a dict of {list(y)}.")
        return super()._read_X_y(X, y, reset=reset)

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its branches and sizes."""
        return {
            "hidden_layer_sizes": tuple(int(n) for n in np.atleast_1d(self.hidden_layer_sizes)),
            "activation": self.activation,
            "dropout": self.dropout,
            "batch_norm": self.batch_norm,
            "initialization": self.initialization,
        }


class MultiInputRegressor(_MultiInput, NetRegressor):
    r"""Regression from several inputs: images and a table, several images, a sequence and what belongs to it.

    Each branch is a small network for its own input; their outputs are joined, and fully connected layers follow. Choose it
    where the inputs of a row are of different kinds. X is a table whose columns go to the branches, or a dict of arrays with
    the same number of rows, in searches and cross-validation too.

    See Also
    --------
    MultiInputClassifier : The same for classes.
    MultiTaskEstimator : Several outputs.
    sklearn.compose.ColumnTransformer : Says which columns go where in the same way.

    Examples
    --------
    >>> import numpy as np
    >>> from skpt import CNNBranch, DenseBranch, MultiInputRegressor
    >>> random = np.random.default_rng(0)
    >>> X = {"image": random.random((200, 1, 6, 6)), "table": random.random((200, 3))}
    >>> y = X["image"].mean(axis=(1, 2, 3)) * 10 + X["table"][:, 0]
    >>> branches = [("image", CNNBranch(8, (4,)), "image"), ("table", DenseBranch(8), "table")]
    >>> net = MultiInputRegressor(branches, (16,), max_epochs=30, lr=0.01, random_state=0)
    >>> net.set_params(image__kernel_size=5).fit(X, y).score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        branches=None,
        hidden_layer_sizes=(100,),
        *,
        activation="relu",
        dropout=0.0,
        batch_norm=False,
        initialization="default",
        criterion="mse",
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


class MultiInputClassifier(_MultiInput, NetClassifier):
    r"""Classification from several inputs: images and a table, several images, a sequence and what belongs to it.

    Each branch is a small network for its own input; their outputs are joined, and fully connected layers follow, whose
    outputs are log-odds. Choose it where the inputs of a row are of different kinds. X is a table whose columns go to the
    branches, or a dict of arrays with the same number of rows, in searches and cross-validation too.

    See Also
    --------
    MultiInputRegressor : The same for numbers.
    MultiTaskEstimator : Several outputs.
    sklearn.compose.ColumnTransformer : Says which columns go where in the same way.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skpt import DenseBranch, MultiInputClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> sepal, petal = X.columns[:2].tolist(), X.columns[2:].tolist()
    >>> branches = [("sepal", DenseBranch(4), sepal), ("petal", DenseBranch(8), petal)]
    >>> net = MultiInputClassifier(branches, (16,), max_epochs=40, lr=0.01, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        branches=None,
        hidden_layer_sizes=(100,),
        *,
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
        class_weight=None,
        random_state=None,
        warm_start=False,
        verbose=0,
        device="auto",
        callbacks=None,
        iterator_train=None,
        **further,
    ):
        self._store(locals())
