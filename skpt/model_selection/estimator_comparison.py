"""What `compare_estimators` found: numbers, a table, a picture."""

import html
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from skpt.model_selection.resampled_t_test import ResampledTTest, corrected_resampled_t_test, interval_half_width

__all__ = ["EstimatorComparison"]

_NOT_TESTED = ResampledTTest(*[np.nan] * 5)
_ESTIMATOR_COLOR, _BASELINE_COLOR, _FAILURE_COLOR = "#1f77b4", "#666666", "#c0392b"


@dataclass(frozen=True, eq=False, repr=False)
class EstimatorComparison:
    """Scores of several estimators on the same folds: what `compare_estimators` returns.

    Prints as a table, best estimator first.

    Parameters
    ----------
    scores : DataFrame of shape (n_estimators, n_folds)
        Score of each estimator (row, by name) on each fold (column). NaN where it failed.
    fit_times : DataFrame of shape (n_estimators, n_folds)
        Seconds that each fit took.
    baseline : str or None
        Name of the estimator that the others are held against.
    metric : str
        Name of the score; higher is better.
    test_train_ratio : float
        Samples tested on per sample trained on, mean over the folds.
    confidence_level : float in (0, 1), default=0.95
        Probability that a confidence interval holds the true value.
    failures : dict of str to str, default={}
        Why an estimator failed, by name; those that did not fail are left out.

    Attributes
    ----------
    frame : DataFrame of shape (n_estimators, 8)
        One row for each estimator, in the order given. ``mean`` and ``std`` (with ``ddof=1``) of its scores;
        ``fit_time`` in seconds, median over the folds; ``difference`` of its mean to the baseline's, with ``p_value``,
        ``ci_low`` and ``ci_high``; ``failure``, empty for an estimator that did not fail. The mean of an estimator
        that has no score on some fold is NaN: it would not be over the same folds as the others'.
    best : str or None
        Name of the estimator of the highest mean, the first of equals.

    Examples
    --------
    >>> import pandas as pd
    >>> from skpt.model_selection import EstimatorComparison
    >>> scores = pd.DataFrame([[0.78, 0.80, 0.78], [0.81, 0.84, 0.79]], index=["line", "curve"])
    >>> comparison = EstimatorComparison(
    ...     scores, fit_times=0.001 + 0 * scores, baseline="line", metric="r2", test_train_ratio=0.5
    ... )
    >>> comparison
    r2 over 3 folds, higher is better
    <BLANKLINE>
    estimator     mean      std   fit time   difference        95 % interval       p
    curve       0.8133   0.0252     1.0 ms      +0.0267   -0.0333 to +0.0867   0.196
    line        0.7867   0.0115     1.0 ms     baseline
    <BLANKLINE>
    difference: to line, by the corrected resampled t-test of Nadeau and Bengio (2003)
    """

    scores: pd.DataFrame
    fit_times: pd.DataFrame
    baseline: str | None
    metric: str
    test_train_ratio: float
    confidence_level: float = 0.95
    failures: dict = field(default_factory=dict)

    @cached_property
    @np.errstate(over="ignore", invalid="ignore")  # one that diverged scores -1e300 or -inf
    def frame(self) -> pd.DataFrame:
        """The numbers, one row for each estimator."""
        rows = {}
        for name, scores in self.scores.iterrows():
            test = _NOT_TESTED
            if self.baseline not in (None, name):
                test = corrected_resampled_t_test(
                    scores,
                    self.scores.loc[self.baseline],
                    self.test_train_ratio,
                    confidence_level=self.confidence_level,
                )
            rows[name] = {
                "mean": scores.mean(skipna=False),
                "std": scores.std(ddof=1, skipna=False),
                "fit_time": self.fit_times.loc[name].median(),  # the first fit of all often waits for an import
                "difference": test.difference,
                "p_value": test.p_value,
                "ci_low": test.ci_low,
                "ci_high": test.ci_high,
                "failure": self.failures.get(name, ""),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="estimator")

    @property
    def best(self) -> str | None:
        """Name of the estimator of the highest mean; None where all failed."""
        means = self.frame["mean"].dropna()
        return None if means.empty else means.idxmax()

    def plot(self, ax=None):
        """Draw the score on every fold, the mean and its confidence interval, best estimator on top.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        matplotlib Axes
            The one drawn on.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if ax is None:
            try:
                import matplotlib.pyplot as plt
            except ImportError as error:
                raise ImportError(
                    "EstimatorComparison.plot needs matplotlib, which is not installed. Install it with: "
                    "python -m pip install matplotlib (the extra skpt[plot])."
                ) from error
            _, ax = plt.subplots(figsize=(8.5, 1.1 + 0.45 * len(self.scores)), layout="constrained")
        _draw(self, ax)
        return ax

    def __repr__(self) -> str:
        return "\n".join([self._title(), "", *_aligned(self._formatted()), "", *self._remarks()]).rstrip()

    def _repr_html_(self) -> str:
        title, *remarks = [html.escape(line) for line in [self._title(), *self._remarks()]]
        under = "<br>".join(remarks)
        return f"<div><p>{title}</p>\n{self._formatted().to_html(border=0)}\n<p><small>{under}</small></p></div>"

    def _title(self) -> str:
        n_folds = self.scores.shape[1]
        return f"{self.metric} over {n_folds} fold{'s' * (n_folds > 1)}, higher is better"

    def _formatted(self) -> pd.DataFrame:
        """The frame as text, best estimator first, without the columns that say nothing."""
        frame = self.frame.sort_values("mean", ascending=False, kind="stable")
        decimals = _decimals(self.scores)
        text = pd.DataFrame(index=frame.index.rename(None), columns=pd.Index([]))
        text["mean"] = [_number(mean, decimals) or "failed" for mean in frame["mean"]]
        text["std"] = [_number(std, decimals) for std in frame["std"]]
        text["fit time"] = [_duration(seconds) for seconds in frame["fit_time"]]
        if self.baseline is None:
            return text
        text["difference"] = [_number(mean, decimals, "+") for mean in frame["difference"]]
        text.loc[self.baseline, "difference"] = "baseline"
        lows, highs = [[_number(end, decimals, "+") for end in frame[column]] for column in ("ci_low", "ci_high")]
        text[f"{100 * self.confidence_level:g} % interval"] = [
            low and f"{low} to {high}" for low, high in zip(lows, highs, strict=True)
        ]
        text["p"] = [_p_value(p) for p in frame["p_value"]]
        return text

    def _remarks(self) -> list[str]:
        """What stands under the table: how the difference was tested, and why an estimator failed."""
        test = f"difference: to {self.baseline}, by the corrected resampled t-test of Nadeau and Bengio (2003)"
        failures = [f"{name}: {failure}" for name, failure in self.failures.items()]
        return failures if self.frame["p_value"].isna().all() else [test, *failures]


def _aligned(text: pd.DataFrame) -> list[str]:
    """The lines of a table of text: names to the left, cells to the right of their columns, three spaces between."""
    columns = [["estimator", *text.index], *([title, *text[title]] for title in text)]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    return ["   ".join([name.ljust(widths[0]), *map(str.rjust, cells, widths[1:])]).rstrip() for name, *cells in rows]


def _decimals(scores: pd.DataFrame) -> int:
    """Digits after the point that show four digits of the typical score."""
    typical = np.nanmedian(np.abs(scores.to_numpy())) if scores.notna().any(axis=None) else 0.0
    if not 0 < typical < np.inf:
        return 4
    return min(max(3 - math.floor(math.log10(typical)), 0), 12)


def _number(value: float, decimals: int, sign: str = "") -> str:
    """A score as text; one that would be more than ten characters wide with an exponent, and NaN as nothing."""
    if np.isnan(value):
        return ""
    fixed = f"{value:{sign}.{decimals}f}"
    return fixed if len(fixed) <= 10 else f"{value:{sign}.3e}"


def _duration(seconds: float) -> str:
    if np.isnan(seconds):
        return ""
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _p_value(p: float) -> str:
    if np.isnan(p):
        return ""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _draw(comparison: EstimatorComparison, ax) -> None:
    """Draw a comparison on matplotlib axes: a row for each estimator, the best on top."""
    text = comparison._formatted()
    scores = comparison.scores.loc[text.index].replace([np.inf, -np.inf], np.nan)
    whole = scores.dropna().to_numpy()
    lowest = _lowest_on_scale(whole)
    beside = ax.get_yaxis_transform()  # x in shares of the width of the axes, y in rows
    columns = {"mean": 12, "p": 22 + 6 * text["mean"].str.len().max()}  # points to the right of the axes
    ends = [score for score in whole.ravel() if score >= lowest]
    reach = np.ptp(ends) if ends else 0.0

    for row, (name, fold_scores) in enumerate(scores.iterrows()):
        failed = fold_scores.isna().any()
        color = _FAILURE_COLOR if failed else _BASELINE_COLOR if name == comparison.baseline else _ESTIMATOR_COLOR
        verdict = {"mean": text["mean"][name], "p": text.get("p", {}).get(name, "")}
        if name == comparison.baseline and not failed:
            verdict["p"] = "baseline"
        for column, word in verdict.items():
            place = {"xytext": (columns[column], 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(word, (1, row), xycoords=beside, color=color, **place)
        on_scale = [score for score in fold_scores if score >= lowest]
        ax.plot(on_scale, [row - 0.13] * len(on_scale), "o", color=color, alpha=0.4, markeredgewidth=0, markersize=6.5)
        mean = fold_scores.mean(skipna=False)
        if mean < lowest:
            ax.plot(0.015, row, "<", color=color, markersize=7, transform=beside)
        elif not failed:
            if len(fold_scores) > 1:
                half = interval_half_width(fold_scores, comparison.test_train_ratio, comparison.confidence_level)
                ax.plot([mean - half, mean + half], [row + 0.13] * 2, color=color, linewidth=1.8)
                ends += [mean - min(half, reach), mean + min(half, reach)]
            ax.plot(mean, row + 0.13, "D", color=color, markeredgecolor="white", markersize=7.5)
            if name == comparison.baseline:
                ax.axvline(mean, color=color, linestyle=":", linewidth=1.2, zorder=0)

    if ends:
        margin = 0.04 * (np.ptp(ends) or abs(ends[0]) or 1.0)
        ax.set_xlim(min(ends) - margin, max(ends) + margin)
    for column, offset in columns.items():
        if column in text:
            ax.annotate(column, (1, 1), (offset, 0), xycoords="axes fraction", textcoords="offset points", color="0.4")
    ax.set_ylim(len(text) - 0.4, -0.6)
    ax.set_yticks(range(len(text)), text.index)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "left", "right"]].set_visible(False)
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    interval = f", bar: {100 * comparison.confidence_level:g} % interval of the mean" if scores.shape[1] > 1 else ""
    ax.set_xlabel(f"{comparison.metric}  (dots: folds{interval})")


def _lowest_on_scale(scores: np.ndarray) -> float:
    """The score below which a row leaves the picture, so that one that diverged does not flatten the others.

    The rows come best first. The better half of at least three rows sets the scale; what lies thirty times its range
    below it is off the scale.
    """
    if len(scores) < 3:
        return -np.inf
    better_half = scores[: (len(scores) + 1) // 2]
    return better_half.min() - 30 * np.ptp(better_half)
