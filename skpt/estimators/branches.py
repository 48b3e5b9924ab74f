"""Branches: the parts of a network with several inputs, each with the parameters of one family of networks.

A branch is a holder of parameters, as scikit-learn's estimators are: `get_params`, `set_params`, `clone` and `repr` work. How
its input is read, scaled and encoded, and which network it becomes, is said by the family of estimators that it names; a
further branch is a class with that family, a signature and nothing else.
"""

from __future__ import annotations

import inspect
from numbers import Integral
from types import SimpleNamespace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skpt._compat import Interval
from skpt._docstrings import complete_parameters
from skpt.base import NetEstimator
from skpt.estimators.cnn import _CNN
from skpt.estimators.mlp import _MLP
from skpt.estimators.recurrent import _Recurrent
from skpt.estimators.tcn import _TCN
from skpt.estimators.transformer import _Transformer
from skpt.exceptions import UnknownParameterError, nearest_name
from skpt.modules.multi_input import EmbeddingModule
from skpt.training.batches import rows_at_a_time
from skpt.training.sources import RowSource

__all__ = ["Branch", "CNNBranch", "DenseBranch", "EmbeddingBranch", "RNNBranch", "TCNBranch", "TransformerBranch"]

_TEXTS = {
    "n_units": ("int", "Number of units that the branch gives to what joins the branches; the last layer of its network."),
    "activation": (
        "str or callable",
        "Nonlinearity of the hidden layers and after the last: a name of ``skpt.modules.ACTIVATIONS`` or a class of "
        "``torch.nn.Module``.",
    ),
}

_HIDDEN = {
    "dropout": (
        "float in [0, 1)",
        "Probability that a unit of a hidden layer is dropped in a training step. The last layer, of `n_units`, is none: where "
        "`hidden_layer_sizes` is empty, nothing is dropped.",
    ),
}


class Reader:
    """What an estimator asks a branch to do with its input: a mixin before a family of estimators.

    It reads, scales and encodes as the family does, and gives the family's network; it is never fitted by itself.
    """

    scaler_ = None
    _parameter_constraints: dict = {"n_units": [Interval(Integral, 1, None, closed="left")]}

    def _find_optimizer(self) -> None:
        """A branch is trained by the estimator that it is part of."""

    def _find_criterion(self) -> None:
        """A branch is trained by the estimator that it is part of."""

    def take(self, branch: Branch, standardize_features: bool) -> None:
        """Take over the parameters of the branch, which may have changed since."""
        vars(self).update(branch.get_params(), standardize_features=standardize_features)

    @property
    def n_outputs(self) -> int:
        """Number of columns that the branch gives."""
        return self.n_units if "n_units" in vars(self) else self.n_features_in_ * self.d_embedding

    @property
    def target_(self) -> SimpleNamespace:
        """What a family asks for the number of its outputs."""
        return SimpleNamespace(n_outputs=self.n_outputs)


class Branch(BaseEstimator):
    """Base of all branches: a subclass names its family and writes its constructor.

    Attributes
    ----------
    family : type
        A class of estimators without a task: how X is read, and which network.
    reader_class : type
        What does so for this branch.
    """

    family: type[NetEstimator]
    reader_class: type[Reader]
    _own_texts: dict = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        signature = inspect.signature(cls.__init__)
        signature = signature.replace(parameters=[p for p in signature.parameters.values() if p.name != "self"])
        texts = {**cls.family._parameter_texts, **cls.family._own_texts, **_TEXTS, **cls._own_texts}
        cls.__doc__ = complete_parameters(cls.__doc__, signature, texts)
        own = {
            "__module__": cls.__module__,
            "__qualname__": f"{cls.__qualname__}.reader_class",  # where pickle finds it
            "__doc__": Reader.__doc__,
            "_names": [*signature.parameters],
        }
        cls.reader_class = type(cls.__name__, (Reader, cls.family), own)

    def set_params(self, **params) -> Branch:
        """Set parameters.

        Parameters
        ----------
        **params
            Names as `get_params` gives them.

        Returns
        -------
        self
            The branch.

        Raises
        ------
        UnknownParameterError
            If a name is unknown; nothing was set.
        """
        for name in params:
            self.check_name(name)
        return super().set_params(**params)

    def check_name(self, name: str, prefix: str = "", owner: str | None = None) -> None:
        """Raise if the branch has no parameter of a name.

        Parameters
        ----------
        name : str
            Without what stands before two underscores.
        prefix : str, default=""
            What stood there, for the message.
        owner : str or None, default=None
            Whose branch it is, for the message.

        Raises
        ------
        UnknownParameterError
            It names the nearest.
        """
        known = self.get_params(deep=False)
        if name not in known:
            raise UnknownParameterError(
                f"Invalid parameter {prefix + name!r} for estimator {owner or type(self).__name__}."
                f"{nearest_name(prefix + name, [prefix + each for each in known])}"
            )

    def make_reader(self, standardize_features: bool) -> Reader:
        """Give what reads the branch's input and says its network.

        Parameters
        ----------
        standardize_features : bool
            Whether the input is centred and scaled.

        Returns
        -------
        Reader
            It has learnt nothing yet.
        """
        reader = self.reader_class.__new__(self.reader_class)
        reader.take(self, standardize_features)
        return reader


class DenseBranch(Branch):
    """Fully connected layers for the columns of a table.

    See Also
    --------
    MultiInputClassifier : Joins branches.
    MLPClassifier : The family.

    Examples
    --------
    >>> from skpt import DenseBranch
    >>> DenseBranch(8, hidden_layer_sizes=(32,))
    DenseBranch(hidden_layer_sizes=(32,), n_units=8)
    """

    family = _MLP
    _own_texts = _HIDDEN

    def __init__(
        self, n_units=64, hidden_layer_sizes=(), *, activation="relu", dropout=0.0, batch_norm=False, initialization="default"
    ):
        self.n_units = n_units
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.batch_norm = batch_norm
        self.initialization = initialization


class CNNBranch(Branch):
    """Blocks of convolution and pooling for images: of any shape in a dict, flat with `image_shape` in a table.

    See Also
    --------
    MultiInputClassifier : Joins branches.
    CNNClassifier : The family.

    Notes
    -----
    What the training images held says what later ones mean: after bytes (uint8), integers of any dtype are bytes too, and
    floats must lie in [0, 1]. After other numbers, bytes are divided by 255 where all training numbers lay in [0, 1], and
    taken as they are where one did not.

    Examples
    --------
    >>> from skpt import CNNBranch
    >>> CNNBranch(32, (8, 16), image_shape=(28, 28))
    CNNBranch(channels=(8, 16), image_shape=(28, 28), n_units=32)
    """

    family = _CNN
    _own_texts = _HIDDEN

    def __init__(
        self,
        n_units=64,
        channels=(32, 64),
        kernel_size=3,
        *,
        pool_size=2,
        padding="same",
        hidden_layer_sizes=(),
        activation="relu",
        dropout=0.0,
        conv_dropout=0.0,
        batch_norm=False,
        initialization="default",
        image_shape=None,
        augment=None,
    ):
        self.n_units = n_units
        self.channels = channels
        self.kernel_size = kernel_size
        self.pool_size = pool_size
        self.padding = padding
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.conv_dropout = conv_dropout
        self.batch_norm = batch_norm
        self.initialization = initialization
        self.image_shape = image_shape
        self.augment = augment


class RNNBranch(Branch):
    """Recurrent layers for sequences: their last state, and layers behind it.

    See Also
    --------
    MultiInputClassifier : Joins branches.
    RNNClassifier : The family, and the forms of sequences.

    Examples
    --------
    >>> from skpt import RNNBranch
    >>> RNNBranch(16, cell="gru")
    RNNBranch(cell='gru', n_units=16)
    """

    family = _Recurrent

    def __init__(
        self,
        n_units=32,
        hidden_size=32,
        num_layers=1,
        *,
        cell="lstm",
        bidirectional=False,
        dropout=0.0,
        hidden_layer_sizes=(),
        activation="relu",
        initialization="default",
    ):
        self.n_units = n_units
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.cell = cell
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.initialization = initialization


class TCNBranch(Branch):
    """Convolutions over the steps of sequences.

    See Also
    --------
    MultiInputClassifier : Joins branches.
    TCNClassifier : The family, and the forms of sequences.

    Examples
    --------
    >>> from skpt import TCNBranch
    >>> TCNBranch(16, "causal")
    TCNBranch(architecture='causal', n_units=16)
    """

    family = _TCN

    def __init__(
        self,
        n_units=64,
        architecture="fcn",
        *,
        channels=None,
        kernel_size=None,
        normalization="auto",
        dropout=0.0,
        activation="relu",
        initialization="default",
    ):
        self.n_units = n_units
        self.architecture = architecture
        self.channels = channels
        self.kernel_size = kernel_size
        self.normalization = normalization
        self.dropout = dropout
        self.activation = activation
        self.initialization = initialization


class TransformerBranch(Branch):
    """Encoder layers of attention over the steps of sequences.

    See Also
    --------
    MultiInputClassifier : Joins branches.
    TransformerClassifier : The family, and the forms of sequences.

    Examples
    --------
    >>> from skpt import TransformerBranch
    >>> TransformerBranch(16, 64)
    TransformerBranch(d_model=64, n_units=16)
    """

    family = _Transformer

    def __init__(
        self,
        n_units=32,
        d_model=32,
        n_heads=4,
        num_layers=2,
        *,
        dim_feedforward=64,
        dropout=0.0,
        activation="relu",
        positional_encoding="sinusoidal",
        pooling="mean",
        norm_first=True,
        initialization="default",
    ):
        self.n_units = n_units
        self.d_model = d_model
        self.n_heads = n_heads
        self.num_layers = num_layers
        self.dim_feedforward = dim_feedforward
        self.dropout = dropout
        self.activation = activation
        self.positional_encoding = positional_encoding
        self.pooling = pooling
        self.norm_first = norm_first
        self.initialization = initialization


class CategoryNumbers:
    """Numbers the categories of each column from 1; what was not learnt is 0.

    Parameters
    ----------
    categories : sequence of array-like
        The sorted categories of each column.
    """

    def __init__(self, categories):
        self.categories = [np.asarray(each, dtype=np.float64) for each in categories]

    def __call__(self, X: np.ndarray, dtype=None) -> np.ndarray:
        """Give the numbers, (n_samples, n_columns), in double precision if no dtype is given."""
        numbers = np.zeros(X.shape, dtype)
        for i, known in enumerate(self.categories):
            place = np.searchsorted(known, X[:, i]).clip(max=len(known) - 1)
            numbers[:, i] = np.where(known[place] == X[:, i], place + 1, 0)
        return numbers

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return {"categories": [each.tolist() for each in self.categories]}


class _Embedding(NetEstimator):
    """Categories as numbers, each with a learnt vector: what `EmbeddingBranch` takes from a family."""

    module = EmbeddingModule
    _takes_sparse = False
    _own_constraints: dict = {"d_embedding": [Interval(Integral, 1, None, closed="left")]}
    _own_texts: dict = {"d_embedding": ("int", "Length of the vector that stands for a category.")}

    activation = "identity"  # after the vectors

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        return {"d_embedding": self.d_embedding}

    def _size_arguments(self) -> dict[str, Any]:
        return {"n_categories": [len(each) for each in self.scaler_.categories]}

    def _wants_scaled_features(self) -> bool:
        return True  # categories are always numbered

    def _scaler_of(self, data) -> CategoryNumbers:
        parts = data.X.parts(rows_at_a_time(data.X)) if isinstance(data.X, RowSource) else [data.X]
        found = [[np.unique(column) for column in part.T] for part in parts]
        return CategoryNumbers([np.unique(np.concatenate(each)) for each in zip(*found, strict=True)])

    def _inputs_from_dict(self, learnt: dict[str, Any]) -> None:
        super()._inputs_from_dict({**learnt, "scaler": None})
        self.scaler_ = CategoryNumbers(**learnt["scaler"])


class EmbeddingBranch(Branch):
    """A learnt vector for each category of each column: categories as numbers.

    A category that was not among the training rows has the vector zero. Categories that are texts are made numbers before,
    for example by ``OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)``.

    See Also
    --------
    MultiInputClassifier : Joins branches.

    Examples
    --------
    >>> from skpt import EmbeddingBranch
    >>> EmbeddingBranch(4)
    EmbeddingBranch(d_embedding=4)
    """

    family = _Embedding

    def __init__(self, d_embedding=8):
        self.d_embedding = d_embedding
