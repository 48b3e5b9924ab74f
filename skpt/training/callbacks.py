"""Callbacks of our own, beside skorch's: what they see of training goes into the history."""

from __future__ import annotations

import numpy as np
from skorch.callbacks import Callback, PrintLog

from skpt.exceptions import InvalidInputError

__all__ = ["RecordCoefficients"]


class RecordCoefficients(Callback):
    """Record slope and intercept of a linear estimator after every epoch.

    They are written into the history as "coef" and "intercept", in the units of the data, as the attributes `coef_` and
    `intercept_` are: plain lists and numbers, so that the history can still be saved as JSON.

    See Also
    --------
    skpt.inspection.CoefficientPathDisplay : The picture of it.

    Notes
    -----
    An estimator with a callback is trained by skorch's loop, alone and not in a stack, which takes longer and gives the
    same weights.

    Examples
    --------
    >>> from skpt import LinearRegressor
    >>> from skpt.datasets import load_cars
    >>> from skpt.training import RecordCoefficients
    >>> X, y = load_cars(return_X_y=True, features=["wt"])
    >>> net = LinearRegressor(max_epochs=3, random_state=0, callbacks=[RecordCoefficients()]).fit(X, y)
    >>> len(net.history[:, "coef"]), net.history[-1, "coef"] == net.coef_.tolist()
    (3, True)
    """

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Check that there are coefficients to record, and keep long rows of them out of the printed table."""
        if not hasattr(net, "coef_"):
            raise InvalidInputError(
                f"RecordCoefficients needs an estimator with coef_ and intercept_. Got {type(net).__name__}. Use it with "
                "LinearRegressor or LinearClassifier."
            )

        several = {name for name in ("coef", "intercept") if np.size(getattr(net, name + "_")) > 1}
        for _, callback in net.callbacks_:
            if isinstance(callback, PrintLog):
                callback.keys_ignored_ |= several

    def on_epoch_end(self, net, **kwargs):
        """Write the coefficients of this epoch into the history."""
        net.history.record("coef", np.asarray(net.coef_).tolist())
        net.history.record("intercept", np.asarray(net.intercept_).tolist())
