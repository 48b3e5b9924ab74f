"""What the displays share: a figure to draw on, and the estimator inside of pipelines and searches."""

from __future__ import annotations

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

EXACT, OTHERS, BEST = "0.25", "0.8", "#c44e52"


def new_axes(owner: str, n_rows: int, height: float) -> np.ndarray:
    """Make a figure of some panels, one above another, on a common horizontal axis."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f"{owner}.plot needs matplotlib, which is not installed. Install it with: python -m pip install matplotlib "
            "(the extra skpt[plot])."
        ) from error
    size = (6.4, height * n_rows)
    return plt.subplots(n_rows, sharex=True, squeeze=False, figsize=size, layout="constrained")[1][:, 0]


def tidy(ax) -> None:
    """Take away what a curve does not need, and count epochs in whole numbers."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    ax.xaxis.get_major_locator().set_params(integer=True)


def trained_net(estimator):
    """Give the last step of a pipeline, the best estimator of a search, and anything else as it is, if it is fitted."""
    check_is_fitted(estimator)
    if isinstance(estimator, Pipeline):
        return trained_net(estimator[-1])
    if hasattr(estimator, "best_estimator_"):
        return trained_net(estimator.best_estimator_)
    return estimator
