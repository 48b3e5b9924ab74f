"""Recurrent networks for sequences: many to one, and to sequences."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.metrics import r2_score

from skpt._compat import Interval, StrOptions
from skpt.base import NetClassifier, NetRegressor
from skpt.estimators._sequence import SequenceNet
from skpt.exceptions import InvalidInputError
from skpt.modules.layers import ACTIVATIONS, INITIALIZATIONS
from skpt.modules.recurrent import ARCHITECTURES, RNNModule, Seq2SeqModule
from skpt.modules.recurrent_layers import CELLS
from skpt.training.batches import rows_at_a_time
from skpt.training.sources import RowSource, unpack
from skpt.training.targets import SequenceTarget

__all__ = ["RNNClassifier", "RNNRegressor", "Seq2SeqRegressor"]


class _Recurrent(SequenceNet):
    """What all share: recurrent layers and their parameters."""

    module = RNNModule

    _own_constraints: dict = {
        "cell": [StrOptions(set(CELLS))],
        "hidden_size": [Interval(Integral, 1, None, closed="left")],
        "num_layers": [Interval(Integral, 1, None, closed="left")],
        "bidirectional": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS)), callable],
        "initialization": [StrOptions(set(INITIALIZATIONS))],
    }
    _own_texts: dict = {
        **SequenceNet._own_texts,
        "hidden_size": ("int", "Number of units of a recurrent layer, in each direction."),
        "num_layers": ("int", "Number of recurrent layers, one upon the other."),
        "cell": (
            '{"lstm", "gru", "rnn"}',
            "What a recurrent unit computes: long short-term memory, which keeps what it was told to; gated recurrent unit, "
            "its shorter form; or the hyperbolic tangent of a sum, which forgets within some ten steps.",
        ),
        "bidirectional": ("bool", "Whether each layer also reads the sequences backwards, from their last step."),
        "dropout": (
            "float in [0, 1)",
            "Probability that a unit is dropped in a training step: between recurrent layers, after them, and in the hidden "
            "layers behind them.",
        ),
        "hidden_layer_sizes": (
            "sequence of int",
            "Number of units of each fully connected layer between the recurrent layers and the output.",
        ),
    }

    def _validate_params(self) -> None:
        super()._validate_params()
        self._check_integers("hidden_layer_sizes", self.hidden_layer_sizes, example="(32,)")

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        return {
            "cell": self.cell,
            "hidden_size": int(self.hidden_size),
            "num_layers": int(self.num_layers),
            "bidirectional": self.bidirectional,
            "dropout": self.dropout,
            "hidden_layer_sizes": tuple(int(n) for n in np.atleast_1d(self.hidden_layer_sizes)),
            "activation": self.activation,
            "initialization": self.initialization,
        }


class RNNRegressor(_Recurrent, NetRegressor):
    r"""Recurrent network regression: numbers from sequences.

    Recurrent layers read a sequence step by step, and a linear layer, or several, makes numbers of their last state (many to
    one), fitted by gradient descent. Choose it where the order of the steps matters and sequences are some hundred steps long
    at most. X has the shape (n_samples, n_timesteps, n_features), or (n_samples, n_timesteps) for one feature; sequences of
    unequal length come as a list of arrays or padded with NaN at their ends. It minimises the mean over the sequences of
    :math:`w_i\,\ell(y_i, f(x_i))` with weights :math:`w_i` and the criterion :math:`\ell`.

    See Also
    --------
    RNNClassifier : The same for classes.
    Seq2SeqRegressor : Sequences from sequences.

    Notes
    -----
    An epoch costs O(n_samples * n_timesteps * n_weights). Order of the rows, first weights and dropout are random, and fixed by
    `random_state`; whether a fit runs alone or in a fused search changes nothing.

    References
    ----------
    Hochreiter, S., Schmidhuber, J. (1997). Long short-term memory. Neural Computation, 9(8). doi:10.1162/neco.1997.9.8.1735

    Cho, K. et al. (2014). Learning phrase representations using RNN encoder-decoder for statistical machine translation.
    arXiv:1406.1078

    Examples
    --------
    >>> import numpy as np
    >>> from skpt import RNNRegressor
    >>> X = np.random.default_rng(0).standard_normal((300, 12, 2))
    >>> y = X[:, -3:, 0].sum(axis=1)
    >>> net = RNNRegressor(16, cell="gru", max_epochs=15, lr=0.02, random_state=0).fit(X[:200], y[:200])
    >>> net.score(X[200:], y[200:]) > 0.9
    True
    """

    def __init__(
        self,
        hidden_size=32,
        num_layers=1,
        *,
        cell="lstm",
        bidirectional=False,
        dropout=0.0,
        hidden_layer_sizes=(),
        activation="relu",
        initialization="default",
        criterion="mse",
        optimizer="adam",
        lr=1e-2,
        max_epochs=50,
        batch_size="auto",
        shuffle=True,
        weight_decay=0.0,
        lr_schedule="cosine",
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


class RNNClassifier(_Recurrent, NetClassifier):
    r"""Recurrent network classification: classes of sequences.

    Recurrent layers read a sequence step by step, and a linear layer, or several, makes log-odds of their last state (many to
    one), fitted by gradient descent. Choose it where the order of the steps matters and sequences are some hundred steps long
    at most. X has the shape (n_samples, n_timesteps, n_features), or (n_samples, n_timesteps) for one feature; sequences of
    unequal length come as a list of arrays or padded with NaN at their ends. It minimises the mean over the sequences of
    :math:`w_i\,\ell(y_i, f(x_i))` with weights :math:`w_i` and the criterion :math:`\ell`.

    See Also
    --------
    RNNRegressor : The same for numbers.

    Notes
    -----
    An epoch costs O(n_samples * n_timesteps * n_weights). Order of the rows, first weights and dropout are random, and fixed by
    `random_state`; whether a fit runs alone or in a fused search changes nothing.

    References
    ----------
    Hochreiter, S., Schmidhuber, J. (1997). Long short-term memory. Neural Computation, 9(8). doi:10.1162/neco.1997.9.8.1735

    Cho, K. et al. (2014). Learning phrase representations using RNN encoder-decoder for statistical machine translation.
    arXiv:1406.1078

    Examples
    --------
    Whether a wave of unequal length rises at its end:

    >>> import numpy as np
    >>> from skpt import RNNClassifier
    >>> random = np.random.default_rng(0)
    >>> X = [np.sin(np.linspace(0, end, int(10 + end))) for end in random.uniform(2, 12, size=300)]
    >>> y = ["rises" if x[-1] > x[-2] else "falls" for x in X]
    >>> net = RNNClassifier(16, cell="gru", max_epochs=15, lr=0.02, random_state=0).fit(X[:200], y[:200])
    >>> net.score(X[200:], y[200:]) > 0.9
    True
    """

    def __init__(
        self,
        hidden_size=32,
        num_layers=1,
        *,
        cell="lstm",
        bidirectional=False,
        dropout=0.0,
        hidden_layer_sizes=(),
        activation="relu",
        initialization="default",
        criterion="auto",
        optimizer="adam",
        lr=1e-2,
        max_epochs=50,
        batch_size="auto",
        shuffle=True,
        weight_decay=0.0,
        lr_schedule="cosine",
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


class Seq2SeqRegressor(_Recurrent, NetRegressor):
    r"""Recurrent network regression of sequences: a sequence of numbers from a sequence, or from one row.

    With ``architecture="encoder_decoder"`` recurrent layers read the whole input, and others, which start from the state that
    these end in and are fed with their own last output, write the answer: for answers of another length than the input, such
    as forecasts. ``"many_to_many"`` answers at each of the last steps of the input: for answers that run beside it.
    ``"one_to_many"`` writes a sequence that starts from one row. It minimises the mean over sequences, steps and outputs of
    the criterion, times the weights of the sequences.

    X has the shape (n_samples, n_timesteps, n_features), or (n_samples, n_timesteps) for one feature, and sequences of
    unequal length come as a list of arrays or padded with NaN at their ends; for "one_to_many" it has the shape (n_samples,
    n_features). y has the shape (n_samples, n_steps_out, n_outputs), (n_samples, n_steps_out) for one output, or (n_samples,)
    for one step of it.

    See Also
    --------
    RNNRegressor : Numbers from sequences, without an order among the numbers.

    Notes
    -----
    An epoch costs O(n_samples * (n_timesteps + n_steps_out) * n_weights). Order of the rows, first weights, dropout and who is
    forced are random, and fixed by `random_state`; whether a fit runs alone or in a fused search changes nothing. The scale of
    an output is the same for all steps. scikit-learn's scorers take no y of three dimensions; `score` does.

    References
    ----------
    Sutskever, I., Vinyals, O., Le, Q. V. (2014). Sequence to sequence learning with neural networks. arXiv:1409.3215

    Williams, R. J., Zipser, D. (1989). A learning algorithm for continually running fully recurrent neural networks. Neural
    Computation, 1(2). doi:10.1162/neco.1989.1.2.270

    Examples
    --------
    The next steps of waves:

    >>> import numpy as np
    >>> from skpt import Seq2SeqRegressor
    >>> start = np.random.default_rng(0).uniform(0, 6, size=(300, 1))
    >>> waves = np.sin(start + 0.4 * np.arange(16))
    >>> X, y = waves[:, :12], waves[:, 12:]
    >>> net = Seq2SeqRegressor(16, cell="gru", max_epochs=10, lr=0.02, random_state=0).fit(X[:200], y[:200])
    >>> net.predict(X[200:]).shape, net.score(X[200:], y[200:]) > 0.9
    ((100, 4), True)
    """

    module = Seq2SeqModule

    _own_constraints: dict = {
        **_Recurrent._own_constraints,
        "architecture": [StrOptions(set(ARCHITECTURES))],
        "teacher_forcing": [Interval(Real, 0, 1, closed="both")],
    }
    _own_texts: dict = {
        **_Recurrent._own_texts,
        "num_layers": ("int", "Number of recurrent layers, one upon the other, that read, and as many that write."),
        "architecture": (
            '{"encoder_decoder", "many_to_many", "one_to_many"}',
            "What is read and how it becomes a sequence; see above.",
        ),
        "bidirectional": (
            "bool",
            'Whether the layers that read also do so backwards, from the last step. Unused for "one_to_many".',
        ),
        "teacher_forcing": (
            "float in [0, 1]",
            "Probability that, in a training step, the layers that write are fed with the true last output instead of their "
            'own. 1 is fastest, and learns what a step makes of the truth before it alone. Unused for "many_to_many".',
        ),
    }

    def __init__(
        self,
        hidden_size=32,
        num_layers=1,
        *,
        architecture="encoder_decoder",
        cell="lstm",
        bidirectional=False,
        dropout=0.0,
        teacher_forcing=0.0,
        hidden_layer_sizes=(),
        activation="relu",
        initialization="default",
        criterion="mse",
        optimizer="adam",
        lr=1e-2,
        max_epochs=50,
        batch_size="auto",
        shuffle=True,
        weight_decay=0.0,
        lr_schedule="cosine",
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

    def module_arguments(self) -> dict[str, Any]:
        """Give the arguments of the network besides its sizes."""
        return {
            **super().module_arguments(),
            "architecture": self.architecture,
            "teacher_forcing": self.teacher_forcing,
        }

    def _size_arguments(self) -> dict[str, Any]:
        return {**super()._size_arguments(), "n_steps_out": self.target_.n_steps}

    def _n_positions(self) -> int:
        return self.input_shape_[0] + self.target_.n_steps

    def _make_target(self, y: np.ndarray, classes) -> SequenceTarget:
        return SequenceTarget.from_y(y)

    def _read_X_y(self, X, y, *, reset: bool):
        shape = np.asarray(y).shape if isinstance(y, (np.ndarray, list, tuple)) else ()
        if len(shape) > 3:
            raise InvalidInputError(
                f"y of {type(self).__name__} must have the shape (n_samples, n_steps_out, n_outputs), (n_samples, n_steps_out) "
                f"or (n_samples,). Got {shape}."
            )
        if len(shape) == 3:
            y = np.asarray(y).reshape(shape[0], -1)  # scikit-learn checks tables
        X, y = super()._read_X_y(X, y, reset=reset)
        y = y.reshape(shape) if len(shape) == 3 else y
        if reset:
            self._check_steps(X, y.shape[1] if y.ndim > 1 else 1)
        return X, y

    def _read_X(self, X):
        X = super()._read_X(X)
        self._check_steps(X, self.target_.n_steps)
        return X

    def _check_steps(self, X, n_steps_out: int) -> None:
        """Raise if sequences are too short to be answered beside."""
        if self.architecture != "many_to_many":
            return
        parts = X.parts(rows_at_a_time(X)) if isinstance(X, RowSource) else [X]
        n_steps = np.concatenate([(~np.isnan(part[:, :, 0])).sum(axis=1) for part in parts])
        if n_steps.min() < n_steps_out:
            raise InvalidInputError(
                f"With architecture='many_to_many' every sequence in X needs at least the {n_steps_out} steps that are given "
                f"for it. Got {n_steps.min()} steps in sequence {n_steps.argmin()}. Take architecture='encoder_decoder'."
            )

    def _as_array(self, X, *, reset: bool):
        return X if self.architecture == "one_to_many" else super()._as_array(X, reset=reset)

    def _shaped(self, X, *, reset: bool):
        if self.architecture == "one_to_many":
            X = X[:, None] if X.ndim == 2 else X
            if X.shape[1] != 1:
                raise InvalidInputError(
                    f"With architecture='one_to_many' X of {type(self).__name__} must have the shape (n_samples, n_features) "
                    f"or (n_samples, 1, n_features). Got {X.shape}. Take architecture='encoder_decoder'."
                )
        return super()._shaped(X, reset=reset)

    def score(self, X, y=None, sample_weight=None):
        """Give the coefficient of determination R2, its mean over steps and outputs.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_timesteps, n_features)
            Sequences, as for `fit`.
        y : array-like of shape (n_samples, n_steps_out, n_outputs), (n_samples, n_steps_out) or (n_samples,), default=None
            What they should become. None only if X is a Dataset or DataLoader that gives them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the sequences.

        Returns
        -------
        float
            One for a perfect prediction, zero for the mean of y at each step.
        """
        X, targets = unpack(X, y, targets="later")
        predicted = self.predict(X)
        y = np.asarray(targets())
        self.target_.check(y)
        y, predicted = (each.reshape(len(each), -1) for each in (y, predicted))
        return float(r2_score(y, predicted, sample_weight=sample_weight))
