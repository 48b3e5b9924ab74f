"""How every estimator of sequences reads X: the same shapes, the same padding, one scale per feature."""

from __future__ import annotations

from typing import Any

import numpy as np

from skpt.base import NetEstimator
from skpt.exceptions import InvalidInputError
from skpt.training.features import FeatureScaler, to_float32
from skpt.training.sequences import check_padding, is_list_of_sequences, pad_sequences

__all__ = ["SequenceNet"]


class SequenceNet(NetEstimator):
    """A net whose rows are sequences: (n_samples, n_timesteps, n_features), or (n_samples, n_timesteps) of one feature.

    Sequences of unequal length come as a list of arrays, or padded with NaN at their ends; a network sees the padding as NaN
    too.
    """

    _takes_sparse = False
    _most_dimensions = 3
    # Whether the network takes no longer sequences than those it was made for, `n_timesteps`.
    _limits_length = False

    _own_texts: dict = {
        "standardize_features": (
            "bool",
            "Whether every feature is centred and scaled inside, by all steps of the training sequences.",
        ),
    }
    _own_attribute_texts = {
        "input_shape_": ("tuple of int", "(n_timesteps, n_features) of the training sequences, padding included."),
        "n_features_in_": ("int", "Number of features of a step; number of columns (steps) where X is a table."),
    }

    def _size_arguments(self) -> dict[str, Any]:
        sizes = {"n_features": self.input_shape_[1], "n_outputs": self.target_.n_outputs}
        return {**sizes, "n_timesteps": self.input_shape_[0]} if self._limits_length else sizes

    def _n_positions(self) -> int:
        return self.input_shape_[0]

    def _as_array(self, X, *, reset: bool):
        if is_list_of_sequences(X):
            return pad_sequences(X)
        # The columns of a table are features to scikit-learn; where a step has one feature, rows are sequences of any length.
        if not reset and self._has_single_features() and isinstance(X, (np.ndarray, list, tuple)) and np.ndim(X) == 2:
            return np.asarray(X)[:, :, None]
        return X

    def _has_single_features(self) -> bool:
        """Whether this was fitted with sequences of one feature, and not with a table."""
        return self.n_features_in_ == self.input_shape_[1] == 1 < self.input_shape_[0]

    def _read_options(self) -> dict[str, Any]:
        return {**super()._read_options(), "ensure_all_finite": "allow-nan"}

    def _shaped(self, X, *, reset: bool):
        owner = type(self).__name__
        is_table = X.ndim == 2
        if X.ndim > 3:
            raise InvalidInputError(
                f"X of {owner} must have the shape (n_samples, n_timesteps, n_features), (n_samples, n_timesteps), or be a "
                f"list of arrays of shape (n_timesteps, n_features). Got {X.shape}."
            )
        X = X[:, :, None] if is_table else X
        if 0 in X.shape[1:]:
            raise InvalidInputError(f"The sequences in X of {owner} must have steps and features. Got the shape {X.shape}.")
        if np.isinf(X).any():
            raise InvalidInputError("Input X contains infinity or a value too large for dtype('float64').")
        check_padding(X)
        if reset:
            self.input_shape_ = tuple(int(n) for n in X.shape[1:])
            if not is_table:
                self.n_features_in_ = self.input_shape_[1]
        elif X.shape[2] != self.input_shape_[1]:
            raise InvalidInputError(
                f"X has {X.shape[2]} features a step, but {owner} was fitted with {self.input_shape_[1]} features a step."
            )
        elif self._limits_length and X.shape[1] > self.input_shape_[0]:
            raise InvalidInputError(
                f"X has sequences of {X.shape[1]} steps, but the longest that {owner} was fitted with has "
                f"{self.input_shape_[0]}. Cut longer ones."
            )
        return X

    def _scaler_of(self, data) -> FeatureScaler:
        return FeatureScaler.from_places(data.X, data.weight, axis=2)

    def _encode_X(self, X):
        return to_float32(self._scaled(X), allow_nan=True)
