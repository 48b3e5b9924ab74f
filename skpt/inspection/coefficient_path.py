"""The coefficients of a linear estimator, epoch by epoch."""

from __future__ import annotations

import numpy as np
from sklearn.utils.validation import check_is_fitted

from skpt.exceptions import InvalidInputError
from skpt.inspection._drawing import EXACT, OTHERS, new_axes, tidy, trained_net

__all__ = ["CoefficientPathDisplay"]

N_NAMED = 10  # lines that get a colour and a name; the others are grey


class CoefficientPathDisplay:
    """Coefficients and intercepts of a linear estimator after every epoch, and the exact ones as dashed lines.

    The picture of gradient descent on its way to the solution: how fast, how straight, and whether it has arrived.

    Parameters
    ----------
    epochs : array-like of shape (n_epochs,)
        The epochs, counted from 1.
    coef : array-like of shape (n_epochs, n_features) or (n_epochs, n_outputs, n_features)
        `coef_` after each epoch.
    intercept : array-like of shape (n_epochs,) or (n_epochs, n_outputs)
        `intercept_` after each epoch.
    exact_coef : array-like, default=None
        The coefficients to reach, of the shape of one epoch.
    exact_intercept : array-like, default=None
        The intercepts to reach, of the shape of one epoch.
    feature_names : sequence of str, default=None
        What the features are called. None counts them from 0.
    output_names : sequence of str, default=None
        What the outputs or classes are called, where there are several. None counts them from 0.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        The ones drawn on, after `plot`: coefficients above, intercepts below.
    figure_ : matplotlib Figure
        Their figure.
    lines_ : list of matplotlib Line2D
        The paths: coefficients, then intercepts. The dashed lines are not in it.

    See Also
    --------
    skpt.training.RecordCoefficients : The callback that records them.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> from skpt import LinearRegressor
    >>> from skpt.datasets import load_cars
    >>> from skpt.inspection import CoefficientPathDisplay
    >>> from skpt.training import RecordCoefficients
    >>> X, y = load_cars(return_X_y=True, features=["wt"])
    >>> net = LinearRegressor(max_epochs=50, random_state=0, callbacks=[RecordCoefficients()]).fit(X, y)
    >>> display = CoefficientPathDisplay.from_estimator(net, exact=LinearRegression().fit(X, y))
    >>> display.coef.shape, display.intercept.shape, display.exact_coef.round(2)
    ((50, 1), (50,), array([-5.34]))
    """

    def __init__(
        self,
        *,
        epochs,
        coef,
        intercept,
        exact_coef=None,
        exact_intercept=None,
        feature_names=None,
        output_names=None,
    ):
        self.epochs, self.coef, self.intercept = epochs, coef, intercept
        self.exact_coef, self.exact_intercept = exact_coef, exact_intercept
        self.feature_names, self.output_names = feature_names, output_names

    @classmethod
    def from_estimator(cls, estimator, *, exact=None, ax=None) -> CoefficientPathDisplay:
        """Draw what `RecordCoefficients` recorded.

        Parameters
        ----------
        estimator : estimator
            A fitted linear estimator with that callback, or a pipeline or search that ends in one.
        exact : estimator or (coef, intercept), default=None
            The solution to reach: an estimator with `coef_` and `intercept_`, such as scikit-learn's LinearRegression fitted
            on the same rows, or the two. None draws no dashed lines.
        ax : matplotlib Axes or sequence of two, default=None
            Where to draw: one for all, or one for coefficients and one for intercepts. None makes a new figure of two.

        Returns
        -------
        CoefficientPathDisplay
            Already drawn.

        Raises
        ------
        InvalidInputError
            If nothing was recorded, or `exact` has another shape.
        """
        net = trained_net(estimator)
        rows = [row for row in getattr(net, "history", None) or [] if "coef" in row]
        if not rows:
            raise InvalidInputError(
                "CoefficientPathDisplay draws what skpt.training.RecordCoefficients recorded. This "
                f"{type(net).__name__} has no record. Fit it with callbacks=[RecordCoefficients()]."
            )
        coef, intercept = (np.array([row[name] for row in rows]) for name in ("coef", "intercept"))
        exact_coef, exact_intercept = _exact(exact, coef.shape[1:], intercept.shape[1:])
        display = cls(
            epochs=np.array([row["epoch"] for row in rows]),
            coef=coef,
            intercept=intercept,
            exact_coef=exact_coef,
            exact_intercept=exact_intercept,
            feature_names=getattr(net, "feature_names_in_", None),
            output_names=getattr(net, "classes_", None),
        )
        return display.plot(ax)

    def plot(self, ax=None) -> CoefficientPathDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes or sequence of two, default=None
            Where to draw: one for all, or one for coefficients and one for intercepts. None makes a new figure of two.

        Returns
        -------
        self
            With `axes_`, `figure_` and `lines_`.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        own_figure = ax is None
        axes = new_axes(type(self).__name__, 2, 2.8) if own_figure else np.atleast_1d(ax)
        self.axes_, self.figure_ = axes, axes[0].figure
        outputs, names = self._names()
        self.lines_ = _draw(axes[0], self.epochs, self.coef, self.exact_coef, names)
        self.lines_ += _draw(axes[-1], self.epochs, self.intercept, self.exact_intercept, outputs)
        axes[0].set_ylabel("coefficient" if len(axes) > 1 else "coefficient, intercept")
        axes[-1].set_xlabel("epoch")
        if len(axes) > 1:
            axes[-1].set_ylabel("intercept")
        for each in axes:
            _add_legend(each, beside=own_figure)
            tidy(each)
        return self

    def _names(self) -> tuple[list[str], list[str]]:
        """What the intercepts and the coefficients are called, in the order of their lines."""
        *outputs, n_features = np.shape(self.coef)[1:]
        features = [f"feature {i}" for i in range(n_features)] if self.feature_names is None else self.feature_names
        if not outputs or outputs == [1]:
            return ["intercept"], [str(name) for name in features]
        named = self.output_names is not None
        outputs = [str(name) for name in self.output_names] if named else [f"output {i}" for i in range(outputs[0])]
        return outputs, [f"{output}: {name}" for output in outputs for name in features]


def _exact(exact, *shapes) -> tuple:
    if exact is None:
        return None, None
    if hasattr(exact, "fit"):
        check_is_fitted(exact)
        exact = exact.coef_, exact.intercept_
    found = tuple(np.asarray(each, dtype=float) for each in exact)
    for name, value, shape in zip(("coefficients", "intercepts"), found, shapes, strict=True):
        if value.size != np.prod(shape):
            raise InvalidInputError(
                f"exact must have {name} of shape {shape}, as the estimator has. Got shape {value.shape}. Fit both on the same "
                "X and y."
            )
    return tuple(value.reshape(shape) for value, shape in zip(found, shapes, strict=True))


def _draw(ax, epochs, paths, exact, names: list[str]) -> list:
    """Draw one line per number that changes; name those that end farthest from zero."""
    paths = np.reshape(paths, (len(epochs), -1))
    named = np.argsort(-np.abs(paths[-1]))[:N_NAMED]
    lines = []
    for i, path in enumerate(paths.T):
        look = {"label": names[i]} if i in named else {"label": "others", "color": OTHERS, "linewidth": 0.8, "zorder": 1}
        lines += ax.plot(epochs, path, **look)
    if exact is not None:
        ax.plot([], [], "--", color=EXACT, linewidth=1, label="exact")
        for line, value in zip(lines, np.ravel(exact), strict=True):
            color = line.get_color() if len(lines) > 1 else EXACT
            ax.axhline(value, linestyle="--", color=color, linewidth=1, zorder=1)
    return lines


def _add_legend(ax, *, beside: bool) -> None:
    """Name each kind of line once; beside the panel where there are many and the figure is ours."""
    by_label = {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    last = [label for label in ("others", "exact") if label in by_label]
    labels = [label for label in by_label if label not in last] + last
    if len(labels) > 1:
        place = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if beside and len(labels) > 3 else {}
        ax.legend([by_label[label] for label in labels], labels, frameon=False, **place)
