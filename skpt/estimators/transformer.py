"""Transformers for sequences."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from skpt._compat import Interval, StrOptions
from skpt.base import NetClassifier, NetRegressor
from skpt.estimators._sequence import SequenceNet
from skpt.exceptions import InvalidInputError
from skpt.modules.layers import ACTIVATIONS, INITIALIZATIONS
from skpt.modules.transformer import POOLINGS, POSITIONAL_ENCODINGS, TransformerModule

__all__ = ["TransformerClassifier", "TransformerRegressor"]


class _Transformer(SequenceNet):
    """What both halves share: the network and its parameters."""

    module = TransformerModule

    _own_constraints: dict = {
        "d_model": [Interval(Integral, 1, None, closed="left")],
        "n_heads": [Interval(Integral, 1, None, closed="left")],
        "num_layers": [Interval(Integral, 1, None, closed="left")],
        "dim_feedforward": [Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "positional_encoding": [StrOptions({each for each in POSITIONAL_ENCODINGS if each}), None],
        "pooling": [StrOptions(set(POOLINGS))],
        "norm_first": ["boolean"],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
    }
    _own_texts: dict = {
        **SequenceNet._own_texts,
        "d_model": ("int", "Width of a step inside the network."),
        "n_heads": ("int", "Number of attention heads, a divisor of `d_model`."),
        "num_layers": ("int", "Number of encoder layers."),
        "dim_feedforward": ("int", "Hidden width of the network for each step that follows attention."),
        "dropout": (
            "float in [0, 1)",
            "Probability that an entry is dropped in a training step: of the embedded steps, and of each layer's attention "
            "output, hidden layer and output.",
        ),
        "positional_encoding": (
            '{"sinusoidal", "learned"} or None',
            "What tells the network the position of a step: sines and cosines, a learnt vector for each, which allows no "
            "longer sequences than the longest of `fit` (padding included), or nothing, which makes the steps a set.",
        ),
        "pooling": (
            '{"mean", "class_token", "last"}',
            "What the outputs are computed from: the mean of all steps, a learnt token put in front of them, or the last step.",
        ),
        "norm_first": (
            "bool",
            "Whether layer normalisation comes before attention and network, which trains without warm-up, or after the "
            "sums, as in the first paper.",
        ),
    }

    @property
    def _limits_length(self) -> bool:
        return self.positional_encoding == "learned"

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.d_model % self.n_heads:
            raise InvalidInputError(
                f"The 'n_heads' parameter of {type(self).__name__} must divide d_model={self.d_model}. Got {self.n_heads!r} "
                "instead."
            )

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        return {name: getattr(self, name) for name in self._own_constraints}


class TransformerRegressor(_Transformer, NetRegressor):
    r"""Transformer regression: numbers from sequences.

    Every step of a sequence looks at every other by self-attention, layer upon layer; the steps are pooled to one vector, and
    a linear layer gives the outputs. Choose it where what matters are relations between distant steps and there are many
    sequences; on few, a `TCNRegressor` learns more. X has the shape (n_samples, n_timesteps, n_features), (n_samples,
    n_timesteps), or is a list of arrays of unequal length.

    See Also
    --------
    TransformerClassifier : The same for classes.
    TCNRegressor : Convolutions over the steps.

    Notes
    -----
    A layer costs O(n_timesteps**2 * d_model) a sequence. Order of the rows, first weights and dropout are random, and fixed
    by `random_state`; whether a fit runs alone or in a fused search changes nothing.

    References
    ----------
    Vaswani, A. et al. (2017). Attention is all you need. arXiv:1706.03762. With `norm_first`: Xiong, R. et al. (2020). On layer
    normalization in the transformer architecture. arXiv:2002.04745.

    Examples
    --------
    >>> import numpy as np
    >>> from skpt import TransformerRegressor
    >>> X = np.random.default_rng(0).standard_normal((200, 6, 2))
    >>> y = X[:, :, 0].mean(axis=1)
    >>> net = TransformerRegressor(d_model=16, num_layers=1, max_epochs=8, lr=0.01, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.8
    True
    """

    def __init__(
        self,
        d_model=32,
        *,
        n_heads=4,
        num_layers=2,
        dim_feedforward=64,
        dropout=0.0,
        activation="relu",
        positional_encoding="sinusoidal",
        pooling="mean",
        norm_first=True,
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


class TransformerClassifier(_Transformer, NetClassifier):
    r"""Transformer classification: classes of sequences.

    Every step of a sequence looks at every other by self-attention, layer upon layer; the steps are pooled to one vector, and
    a linear layer gives the log-odds. Choose it where what matters are relations between distant steps and there are many
    sequences; on few, a `TCNClassifier` learns more. X has the shape (n_samples, n_timesteps, n_features), (n_samples,
    n_timesteps), or is a list of arrays of unequal length.

    See Also
    --------
    TransformerRegressor : The same for numbers.
    TCNClassifier : Convolutions over the steps.

    Notes
    -----
    A layer costs O(n_timesteps**2 * d_model) a sequence. Order of the rows, first weights and dropout are random, and fixed
    by `random_state`; whether a fit runs alone or in a fused search changes nothing.

    References
    ----------
    Vaswani, A. et al. (2017). Attention is all you need. arXiv:1706.03762. With `norm_first`: Xiong, R. et al. (2020). On layer
    normalization in the transformer architecture. arXiv:2002.04745.

    Examples
    --------
    >>> import numpy as np
    >>> from skpt import TransformerClassifier
    >>> X = np.random.default_rng(0).standard_normal((200, 6, 2))
    >>> y = np.where(X[:, -1, 0] > 0, "up", "down")
    >>> net = TransformerClassifier(16, num_layers=1, pooling="last", max_epochs=8, lr=0.01, random_state=0)
    >>> net.fit(X, y).score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        d_model=32,
        *,
        n_heads=4,
        num_layers=2,
        dim_feedforward=64,
        dropout=0.0,
        activation="relu",
        positional_encoding="sinusoidal",
        pooling="mean",
        norm_first=True,
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
