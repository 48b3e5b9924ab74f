"""EstimatorComparison: its table says what its frame holds, and its picture draws it."""

import re
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.linear_model import Ridge

from skpt.model_selection import EstimatorComparison, compare_estimators

SCORES = {"line": [0.50, 0.54, 0.52, 0.51], "curve": [0.62, 0.61, 0.66, 0.63], "noise": [-0.02, 0.01, 0.03, -0.01]}


def comparison_of(scores, baseline=None, **options):
    """A comparison by R2 on folds that test on a quarter of what they train on, each fit taking 20 ms."""
    scores = pd.DataFrame.from_dict(scores, orient="index")
    options = {"metric": "r2", "test_train_ratio": 0.25, **options}
    return EstimatorComparison(scores, fit_times=0.02 + 0 * scores, baseline=baseline, **options)


@pytest.fixture
def axes():
    return Figure(layout="constrained").subplots()


def cells(comparison):
    """The rows of the printed table, split where three or more spaces stand, by the name in front."""
    lines = str(comparison).split("\n\n")[1].splitlines()
    return {name: rest for name, *rest in (re.split(r" {3,}", line.strip()) for line in lines)}


# The table


def test_table_says_what_the_frame_holds():
    comparison = comparison_of(SCORES, "line")
    table, frame = cells(comparison), comparison.frame
    assert list(table) == ["estimator", "curve", "line", "noise"]  # best first
    for name in ["curve", "noise"]:
        mean, std, time, difference, interval, p = table[name]
        low, high = interval.split(" to ")
        row = frame.loc[name]
        assert time == "20.0 ms"
        for text, number in {mean: row["mean"], std: row["std"], difference: row["difference"]}.items():
            assert float(text) == pytest.approx(number, abs=5e-5)
        assert (float(low), float(high)) == pytest.approx((row["ci_low"], row["ci_high"]), abs=5e-5)
        assert p == ("<0.001" if row["p_value"] < 0.001 else f"{row['p_value']:.3f}")
    assert table["line"][-1] == "baseline"
    assert "difference: to line, by the corrected resampled t-test of Nadeau and Bengio (2003)" in str(comparison)


def test_table_is_aligned():
    table = str(comparison_of({**SCORES, "a much longer name": [0.1, 0.2, 0.1, 0.3]}, "line")).split("\n\n")[1].splitlines()
    ends = [[match.end() for match in re.finditer(r"\S(?= {3,}|$)", line)][1:] for line in table]
    for row in ends[1:]:
        assert row == ends[0][: len(row)]
    assert not any(line != line.rstrip() for line in table)


@pytest.mark.parametrize(
    ("unit", "shown"),
    [(1, "0.5175"), (1000, "517.5"), (1e5, "51750"), (1e-3, "0.0005175"), (1e12, "5.175e+11"), (-1, "-0.5175")],
)
def test_table_shows_four_digits_of_any_metric(unit, shown):
    scores = {"line": unit * np.array(SCORES["line"])}
    assert cells(comparison_of(scores))["line"][0] == shown


def test_one_that_diverged_does_not_blow_up_the_others():
    table = cells(comparison_of({**SCORES, "diverged": [-1e15, -2e15, -3e15, -1e300]}, "line"))
    assert table["diverged"][0] == "-2.500e+299"
    assert table["curve"][0] == "0.6300"


def test_failed_estimators_come_last_with_their_reason():
    failures = {"broken": "failed on 4 of 4 folds: ValueError: no"}
    comparison = comparison_of({"broken": [np.nan] * 4, **SCORES}, "line", failures=failures)
    assert list(cells(comparison))[-1] == "broken"
    assert cells(comparison)["broken"][0] == "failed"
    assert str(comparison).splitlines()[-1] == "broken: failed on 4 of 4 folds: ValueError: no"
    assert comparison.frame.loc["broken", "failure"] == failures["broken"]
    assert comparison.best == "curve"


def test_nothing_is_best_where_all_failed():
    comparison = comparison_of({"broken": [np.nan] * 4})
    assert comparison.best is None
    assert "failed" in str(comparison)


def test_equals_stay_in_the_order_given():
    comparison = comparison_of({"second": [0.5, 0.5], "first": [0.6, 0.6], "third": [0.5, 0.5]})
    assert list(cells(comparison))[1:] == ["first", "second", "third"]


def test_html_holds_the_same_words_and_no_foreign_markup():
    failures = {"<b>bold</b>": "failed on 1 of 4 folds: ValueError: <script>"}
    comparison = comparison_of({**SCORES, "<b>bold</b>": [np.nan, 1, 1, 1]}, "line", failures=failures)
    page = comparison._repr_html_()
    assert "<b>" not in page
    assert "<script>" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    for row in cells(comparison).values():
        for word in row:
            assert f">{word.replace('<', '&lt;')}</t" in page


def test_fit_time_is_the_median_so_that_a_slow_first_fit_does_not_count():
    scores = pd.DataFrame([[0.5, 0.6, 0.7]], index=["line"])
    fit_times = pd.DataFrame([[2.5, 0.01, 0.02]], index=["line"])
    comparison = EstimatorComparison(scores, fit_times, baseline=None, metric="r2", test_train_ratio=0.5)
    assert comparison.frame.loc["line", "fit_time"] == 0.02
    assert cells(comparison)["line"][-1] == "20.0 ms"


# The picture


def dots(axes):
    """Heights of the dots of the folds, by the row that they stand in, from left to right."""
    rows = {}
    for line in axes.lines:
        if line.get_marker() == "o" and len(line.get_ydata()):
            rows[round(float(np.mean(line.get_ydata())))] = sorted(line.get_xdata())
    return rows


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_plot_draws_every_fold_mean_and_interval_best_on_top(axes):
    comparison = comparison_of(SCORES, "line")
    assert comparison.plot(axes) is axes
    order = ["curve", "line", "noise"]
    assert [label.get_text() for label in axes.get_yticklabels()] == order
    assert axes.yaxis_inverted()
    assert dots(axes) == {row: sorted(SCORES[name]) for row, name in enumerate(order)}
    diamonds = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert diamonds == pytest.approx([np.mean(SCORES[name]) for name in order])
    bars = [line.get_xdata() for line in axes.lines if line.get_marker() == "None" and line.get_linestyle() == "-"]
    # With four folds that test on a quarter of the others: t(0.975, 3) * sqrt(1/4 + 1/4) * std.
    half_widths = [3.182446 * np.sqrt(0.5) * np.std(SCORES[name], ddof=1) for name in order]
    assert [(right - left) / 2 for left, right in bars] == pytest.approx(half_widths, rel=1e-6)
    for word in ["0.6300", "0.013", "baseline", "<0.001", "mean", "p"]:
        assert word in words(axes)
    low, high = axes.get_xlim()
    assert low < -0.02 < 0.66 < high


def test_plot_keeps_the_scale_where_one_diverged(axes):
    comparison_of({**SCORES, "diverged": [-1e9, -2e9, -3e9, -1e10]}, "line").plot(axes)
    low, high = axes.get_xlim()
    assert -1 < low < high < 2
    assert dots(axes)[2] == sorted(SCORES["noise"])
    assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "<"] == [3]


def test_plot_marks_what_failed(axes):
    comparison_of({**SCORES, "broken": [np.nan, 0.5, 0.6, 0.7], "gone": [np.nan] * 4}, "line").plot(axes)
    assert words(axes).count("failed") == 2
    assert dots(axes)[3] == [0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    "scores",
    [{"gone": [np.nan] * 3}, {"one fold": [0.5], "two": [0.7]}, {"same": [0.5] * 4}, {"infinite": [-np.inf, 0.0, 1.0]}],
)
def test_plot_draws_what_has_no_spread(scores, axes):
    comparison_of(scores).plot(axes)
    axes.figure.canvas.draw()
    assert np.isfinite(axes.get_xlim()).all()


def test_plot_without_axes_makes_a_figure():
    axes = comparison_of(SCORES, "line").plot()
    assert axes.figure in map(plt.figure, plt.get_fignums())
    plt.close(axes.figure)


def test_plot_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"needs matplotlib.* pip install matplotlib \(the extra skpt\[plot\]\)"):
        comparison_of(SCORES).plot()


def test_compare_estimators_needs_no_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    X = np.random.default_rng(0).normal(size=(20, 2))
    assert "Ridge" in str(compare_estimators([Ridge()], X, X[:, 0]))
