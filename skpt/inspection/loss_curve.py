"""The loss on training and validation rows, epoch by epoch."""

from __future__ import annotations

import numpy as np

from skpt.exceptions import InvalidInputError
from skpt.inspection._drawing import BEST, new_axes, tidy, trained_net

__all__ = ["LossCurveDisplay"]


class LossCurveDisplay:
    """Training and validation loss of every epoch.

    Two curves that fall together: train on. A validation loss that rises while the training loss falls: the model learns
    the training rows by heart; stop at the best epoch, which is marked.

    Parameters
    ----------
    train_loss : array-like of shape (n_epochs,)
        Mean training loss of each epoch, measured while it trained.
    valid_loss : array-like of shape (n_epochs,) or None, default=None
        Loss on the validation set after each epoch.
    best_epoch : int or None, default=None
        The epoch to mark, counted from 1. Unused without `valid_loss`.
    loss_name : str, default="loss"
        What the loss is called beside the vertical axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The one drawn on, after `plot`.
    figure_ : matplotlib Figure
        Its figure.
    lines_ : list of matplotlib Line2D
        The curves: training, and validation where there is one.

    See Also
    --------
    sklearn.model_selection.LearningCurveDisplay : Scores against the number of training rows.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from skpt import MLPClassifier
    >>> from skpt.inspection import LossCurveDisplay
    >>> X, y = make_moons(200, noise=0.3, random_state=0)
    >>> net = MLPClassifier(early_stopping=True, max_epochs=20, lr=0.01, random_state=0).fit(X, y)
    >>> display = LossCurveDisplay.from_estimator(net)
    >>> len(display.train_loss) == len(display.valid_loss) == net.n_iter_
    True
    """

    def __init__(self, *, train_loss, valid_loss=None, best_epoch=None, loss_name="loss"):
        self.train_loss, self.valid_loss = train_loss, valid_loss
        self.best_epoch, self.loss_name = best_epoch, loss_name

    @classmethod
    def from_estimator(cls, estimator, *, ax=None) -> LossCurveDisplay:
        """Draw the curves of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            One with `loss_curve_`: ours, scikit-learn's MLP, or a pipeline or search that ends in one.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        LossCurveDisplay
            Already drawn.

        Raises
        ------
        InvalidInputError
            If the estimator remembers no epochs.
        """
        net = trained_net(estimator)
        train_loss = np.asarray(getattr(net, "loss_curve_", []))
        if not train_loss.size:
            raise InvalidInputError(
                f"LossCurveDisplay needs an estimator with loss_curve_. This {type(net).__name__} has none, or no epochs in "
                "it, as after load_params. Call fit."
            )
        valid_loss = np.asarray(getattr(net, "validation_curve_", []))
        criterion = getattr(net, "criterion_", None)
        display = cls(
            train_loss=train_loss,
            valid_loss=valid_loss if valid_loss.size else None,
            best_epoch=getattr(net, "best_epoch_", None),
            loss_name="loss" if criterion is None else f"loss ({type(criterion).__name__})",
        )
        return display.plot(ax)

    def plot(self, ax=None) -> LossCurveDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        self
            With `ax_`, `figure_` and `lines_`.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = new_axes(type(self).__name__, 1, 4.0)[0] if ax is None else ax
        epochs = np.arange(1, len(self.train_loss) + 1)
        self.ax_, self.figure_ = ax, ax.figure
        self.lines_ = ax.plot(epochs, self.train_loss, label="training")
        if self.valid_loss is not None:
            # A partial_fit has no validation set: the curve belongs to the last epochs.
            epochs = epochs[len(epochs) - len(self.valid_loss) :]
            self.lines_ += ax.plot(epochs, self.valid_loss, label="validation")
            if self.best_epoch is not None:
                best = (self.best_epoch, np.asarray(self.valid_loss)[self.best_epoch - epochs[0]])
                ax.plot(*best, "o", color=BEST, label=f"best epoch: {self.best_epoch}")
            ax.legend(frameon=False)
        ax.set(xlabel="epoch", ylabel=self.loss_name)
        tidy(ax)
        return self
