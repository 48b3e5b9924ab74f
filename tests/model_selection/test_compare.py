"""compare_estimators: the same folds for all, scikit-learn's own scores, the right baseline, and failures that show."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from joblib.parallel import ThreadingBackend
from scipy import stats
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import load_diabetes, load_iris, make_multilabel_classification
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import make_scorer, max_error
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, StratifiedKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from skpt.exceptions import InvalidInputError
from skpt.model_selection import EstimatorComparison, compare_estimators

pytestmark = pytest.mark.usefixtures("global_generators_untouched")


class FailsOn(RegressorMixin, BaseEstimator):
    """The mean of y; fails where `trouble` says so for the first row that it is fitted on."""

    def __init__(self, trouble=None):
        self.trouble = trouble

    def fit(self, X, y):
        if self.trouble is not None and self.trouble(X):
            raise FloatingPointError("The loss turned NaN in epoch 3.\nTry lr=0.001.")
        self.mean_ = np.mean(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.mean_)


def lacks_first_row(X):
    return X[0, 0] != 0


def always(X):
    return True


@pytest.fixture(scope="module")
def line():
    """40 rows around a straight line; the first column numbers the rows."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.arange(40.0), rng.normal(size=40)])
    return X, 0.1 * X[:, 0] + X[:, 1] + rng.normal(size=40)


# The folds and the scores


@pytest.mark.parametrize("scoring", [None, "neg_mean_absolute_error", make_scorer(max_error, greater_is_better=False)])
def test_scores_are_those_of_cross_validate_on_the_same_folds(line, scoring):
    comparison = compare_estimators({"ridge": Ridge(), "mean": DummyRegressor()}, *line, cv=4, scoring=scoring)
    for name, estimator in {"ridge": Ridge(), "mean": DummyRegressor()}.items():
        expected = cross_validate(estimator, *line, cv=KFold(4), scoring=scoring)["test_score"]
        np.testing.assert_array_equal(comparison.scores.loc[name], expected)
    assert comparison.scores.index.tolist() == ["LinearRegression", "ridge", "mean"]
    assert comparison.scores.columns.tolist() == [0, 1, 2, 3]


def test_folds_are_made_once_even_where_a_splitter_is_random(line):
    comparison = compare_estimators(
        [Ridge(), Ridge()], *line, cv=ShuffleSplit(6, random_state=np.random.RandomState(0)), baseline="Ridge-1"
    )
    assert comparison.scores.loc["Ridge-1"].equals(comparison.scores.loc["Ridge-2"])
    assert comparison.frame.loc["Ridge-2", ["difference", "p_value"]].tolist() == [0.0, 1.0]


def test_one_shot_iterable_of_folds_serves_every_estimator(line):
    folds = list(KFold(3).split(line[0]))
    comparison = compare_estimators([Ridge(), DummyRegressor()], *line, cv=iter(folds))
    expected = compare_estimators([Ridge(), DummyRegressor()], *line, cv=3)
    pd.testing.assert_frame_equal(comparison.scores, expected.scores)


def test_number_of_folds_is_stratified_for_classification():
    X, y = load_iris(return_X_y=True)  # sorted by class: consecutive folds of thirds would hold one class each
    comparison = compare_estimators([KNeighborsClassifier()], X, y, cv=3)
    assert comparison.metric == "accuracy"
    expected = cross_validate(KNeighborsClassifier(), X, y, cv=StratifiedKFold(3))["test_score"]
    np.testing.assert_array_equal(comparison.scores.loc["KNeighborsClassifier"], expected)
    assert comparison.scores.min(axis=None) > 0.9


def test_random_state_shuffles_a_number_of_folds(line):
    def scores(random_state):
        return compare_estimators([Ridge()], *line, baseline=None, random_state=random_state).scores.loc["Ridge"]

    expected = cross_validate(Ridge(), *line, cv=KFold(5, shuffle=True, random_state=1))["test_score"]
    np.testing.assert_array_equal(scores(1), expected)
    assert not scores(1).equals(scores(2))
    assert not scores(1).equals(scores(None))


def test_groups_stay_whole(line):
    groups = np.arange(40) % 5
    comparison = compare_estimators([Ridge()], *line, cv=GroupKFold(5), groups=groups)
    expected = cross_validate(Ridge(), *line, cv=GroupKFold(5), groups=groups)["test_score"]
    np.testing.assert_array_equal(comparison.scores.loc["Ridge"], expected)


def test_default_metric_is_the_same_for_all_whatever_their_own_score_is(line):
    class OwnScore(Ridge):
        def score(self, X, y, sample_weight=None):
            return -1000.0

    comparison = compare_estimators({"own": OwnScore(), "ridge": Ridge()}, *line)
    assert comparison.metric == "r2"
    assert comparison.scores.loc["own"].equals(comparison.scores.loc["ridge"])


# The frame


@pytest.mark.parametrize(
    ("cv", "ratio"), [(5, 8 / 32), (ShuffleSplit(7, test_size=0.1, train_size=0.6, random_state=0), 4 / 24)]
)
def test_frame_follows_from_the_scores_and_the_real_folds(line, cv, ratio):
    comparison = compare_estimators({"ridge": Ridge(10), "near": KNeighborsRegressor()}, *line, cv=cv)
    assert comparison.test_train_ratio == pytest.approx(ratio)
    for name in ["ridge", "near"]:
        scores, row = comparison.scores.loc[name].to_numpy(), comparison.frame.loc[name]
        d = scores - comparison.scores.loc["LinearRegression"].to_numpy()
        k = len(d)
        t = d.mean() / np.sqrt((1 / k + ratio) * d.var(ddof=1))
        assert row["mean"] == pytest.approx(scores.mean())
        assert row["std"] == pytest.approx(scores.std(ddof=1))
        assert row["difference"] == pytest.approx(d.mean())
        assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(t), k - 1))
        assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * stats.t.ppf(0.975, k - 1) * d.mean() / t)
        assert (row["ci_low"] + row["ci_high"]) / 2 == pytest.approx(d.mean())
    assert (comparison.frame["fit_time"] > 0).all()
    assert (comparison.frame["failure"] == "").all()
    assert comparison.frame.loc["LinearRegression", ["difference", "p_value", "ci_low", "ci_high"]].isna().all()
    assert comparison.best == comparison.frame["mean"].idxmax()


def test_confidence_level_widens_the_interval(line):
    narrow, wide = (
        compare_estimators([DummyRegressor()], *line, confidence_level=level).frame.loc["DummyRegressor"]
        for level in (0.5, 0.99)
    )
    assert wide["ci_low"] < narrow["ci_low"] < narrow["ci_high"] < wide["ci_high"]
    assert narrow["p_value"] == wide["p_value"]


def test_boolean_folds_count_what_they_select(line):
    test = np.arange(40) < 10
    comparison = compare_estimators([Ridge()], *line, cv=[(~test, test), (test, ~test)])
    assert comparison.test_train_ratio == pytest.approx((1 / 3 + 3) / 2)


def test_single_fold_has_scores_and_no_test(line):
    comparison = compare_estimators([DummyRegressor()], *line, cv=ShuffleSplit(1, random_state=0))
    row = comparison.frame.loc["DummyRegressor"]
    assert row["difference"] < 0
    assert row[["std", "p_value", "ci_low", "ci_high"]].isna().all()
    assert "over 1 fold," in str(comparison)


# The baseline


def test_automatic_baseline_of_regression_is_linear_regression(line):
    comparison = compare_estimators([Ridge()], *line)
    assert comparison.baseline == comparison.scores.index[0] == "LinearRegression"


@pytest.mark.parametrize("labels", [["a", "b"], [0, 1, 2], [False, True]])
def test_automatic_baseline_of_classification_is_logistic_regression(labels):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), np.resize(labels, 60)
    comparison = compare_estimators([DummyClassifier()], X, y)
    assert comparison.baseline == "LogisticRegression"
    expected = cross_validate(LogisticRegression(max_iter=1000), X, y)["test_score"]
    np.testing.assert_array_equal(comparison.scores.loc["LogisticRegression"], expected)


def test_whole_numbers_are_no_classes_to_regressors(line):
    comparison = compare_estimators([Ridge()], line[0], np.arange(40) % 3)
    assert (comparison.baseline, comparison.metric) == ("LinearRegression", "r2")


@pytest.mark.parametrize(("y", "expected"), [(["b", "a"] * 20, "LogisticRegression"), (None, "LinearRegression")])
def test_target_decides_where_the_estimators_do_not(line, y, expected):
    class Untyped(BaseEstimator):
        def fit(self, X, y):
            self.first_ = y[0]
            return self

        def predict(self, X):
            return np.full(len(X), self.first_)

    comparison = compare_estimators([Untyped()], line[0], line[1] if y is None else y, scoring=lambda model, X, y: 0.5)
    assert comparison.baseline == expected


def test_multi_label_baseline_has_a_model_for_each_label():
    X, y = make_multilabel_classification(60, n_labels=3, random_state=0)
    comparison = compare_estimators([DecisionTreeClassifier(random_state=0)], X, y)
    assert comparison.frame["mean"].notna().all()
    assert comparison.baseline == "LogisticRegression"


def test_baseline_among_the_estimators_is_not_trained_twice(line):
    comparison = compare_estimators({"ridge": Ridge(), "least squares": LinearRegression()}, *line)
    assert comparison.baseline == "least squares"
    assert comparison.scores.index.tolist() == ["ridge", "least squares"]


def test_another_linear_regression_is_not_the_baseline(line):
    comparison = compare_estimators([LinearRegression(fit_intercept=False)], *line)
    assert comparison.baseline == "LinearRegression (baseline)"
    assert comparison.scores.index.tolist() == ["LinearRegression (baseline)", "LinearRegression"]


def test_baseline_by_name_by_estimator_and_none(line):
    ridge, mean = Ridge(), DummyRegressor()
    assert compare_estimators([ridge, mean], *line, baseline="DummyRegressor").baseline == "DummyRegressor"
    same = compare_estimators([ridge, mean], *line, baseline=mean)
    assert (same.baseline, len(same.frame)) == ("DummyRegressor", 2)
    other = compare_estimators([ridge, mean], *line, baseline=KNeighborsRegressor())
    assert other.scores.index.tolist() == ["KNeighborsRegressor", "Ridge", "DummyRegressor"]
    none = compare_estimators([ridge, mean], *line, baseline=None)
    assert none.baseline is None
    assert none.frame["difference"].isna().all()
    assert "difference" not in str(none)


# Failures


def test_estimator_that_fails_on_some_folds_is_marked_with_the_reason(line):
    with pytest.warns(FitFailedWarning, match=r"^picky failed on 1 of 5 folds: FloatingPointError: The loss turned"):
        comparison = compare_estimators({"ridge": Ridge(), "picky": FailsOn(lacks_first_row)}, *line)
    assert comparison.scores.loc["picky"].isna().tolist() == [True, False, False, False, False]
    row = comparison.frame.loc["picky"]
    assert row[["mean", "std", "difference", "p_value"]].isna().all()
    assert comparison.fit_times.loc["picky"].isna().tolist() == [True, False, False, False, False]
    assert row["fit_time"] > 0
    reason = "failed on 1 of 5 folds: FloatingPointError: The loss turned NaN in epoch 3."
    assert row["failure"] == comparison.failures["picky"] == reason
    assert f"picky: {reason}" in str(comparison)
    assert comparison.frame.loc["ridge"].drop("failure").notna().all()
    assert comparison.best in ("ridge", "LinearRegression")


def test_estimator_that_always_fails_does_not_stop_the_others(line):
    with pytest.warns(FitFailedWarning, match="never failed on 5 of 5 folds: FloatingPointError"):
        comparison = compare_estimators({"never": FailsOn(always), "mean": DummyRegressor()}, *line)
    assert comparison.frame.loc["never"].drop("failure").isna().all()
    assert np.isfinite(comparison.frame.loc["mean", "p_value"])


def test_baseline_that_fails_leaves_the_scores(line):
    with pytest.warns(FitFailedWarning, match="FailsOn failed"):
        comparison = compare_estimators([Ridge()], *line, baseline=FailsOn(always))
    assert np.isfinite(comparison.frame.loc["Ridge", "mean"])
    assert np.isnan(comparison.frame.loc["Ridge", "p_value"])
    assert "t-test" not in str(comparison)


def test_reason_is_known_even_where_the_caller_ignores_warnings(line, recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        comparison = compare_estimators({"picky": FailsOn(lacks_first_row)}, *line)
    assert "The loss turned NaN" in comparison.failures["picky"]
    assert not recwarn.list


def test_error_score_stands_for_the_failed_fold(line):
    with pytest.warns(FitFailedWarning):
        comparison = compare_estimators({"picky": FailsOn(lacks_first_row)}, *line, error_score=-9)
    assert comparison.scores.loc["picky", 0] == -9
    assert np.isfinite(comparison.frame.loc["picky", "p_value"])
    assert "FloatingPointError" in comparison.frame.loc["picky", "failure"]


@pytest.mark.parametrize("trouble", [lacks_first_row, always])
def test_error_score_raise_lets_the_error_through(line, trouble):
    with pytest.raises(FloatingPointError, match="The loss turned NaN"):
        compare_estimators({"picky": FailsOn(trouble)}, *line, error_score="raise")


def test_scorer_that_fails_is_a_reason_too(line):
    def picky_metric(estimator, X, y):
        raise ArithmeticError("cannot measure this")

    with pytest.warns(FitFailedWarning, match="failed on 5 of 5 folds: ArithmeticError: cannot measure this"):
        compare_estimators([Ridge()], *line, scoring=picky_metric, baseline=None)


def test_score_that_is_nan_is_said_to_be_nan(line):
    with pytest.warns(FitFailedWarning, match="failed on 5 of 5 folds: its score is nan"):
        compare_estimators([Ridge()], *line, scoring=lambda model, X, y: float("nan"), baseline=None)


def test_other_warnings_pass_through(line):
    class Warns(Ridge):
        def fit(self, X, y):
            warnings.warn("mind the gap", RuntimeWarning, stacklevel=1)
            return super().fit(X, y)

    with pytest.warns(RuntimeWarning, match="mind the gap"):
        comparison = compare_estimators([Warns()], *line)
    assert not comparison.failures


@pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite")
def test_failures_inside_a_search_that_succeeds_are_not_hidden(line):
    search = GridSearchCV(FailsOn(), {"trouble": [always, None]}, cv=2)
    with pytest.warns(FitFailedWarning, match="2 fits failed out of a total of 4"):
        comparison = compare_estimators({"search": search}, *line, cv=ShuffleSplit(1, random_state=0))
    assert not comparison.failures


def test_search_that_fails_as_a_whole_gives_the_reason_of_its_fits(line):
    search = GridSearchCV(FailsOn(), {"trouble": [always]}, cv=2)
    with pytest.warns(FitFailedWarning, match="search failed on 5 of 5 folds: FloatingPointError: The loss turned NaN"):
        compare_estimators({"search": search}, *line)


# What goes in


def test_estimators_are_left_unfitted(line):
    ridge, baseline = Ridge(), KNeighborsRegressor()
    compare_estimators([ridge], *line, baseline=baseline)
    assert not hasattr(ridge, "coef_")
    assert not hasattr(baseline, "n_features_in_")


def test_pairs_and_nameless_estimators_may_be_mixed(line):
    comparison = compare_estimators([("first", Ridge()), Ridge(10), Ridge(20)], *line, baseline=None)
    assert comparison.scores.index.tolist() == ["first", "Ridge-1", "Ridge-2"]


def test_frames_reach_the_estimators_as_frames():
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    comparison = compare_estimators([make_pipeline(StandardScaler(), Ridge())], X, y)
    expected = cross_validate(make_pipeline(StandardScaler(), Ridge()), X, y)["test_score"]
    np.testing.assert_array_equal(comparison.scores.loc["Pipeline"], expected)


def test_lists_are_data_too(line):
    comparison = compare_estimators([Ridge()], line[0].tolist(), line[1].tolist())
    assert comparison.scores.equals(compare_estimators([Ridge()], *line).scores)


def test_params_reach_fit(line):
    weights = np.where(np.arange(40) % 2, 1.0, 1e-12)
    comparison = compare_estimators([Ridge()], *line, params={"sample_weight": weights})
    for name, estimator in {"Ridge": Ridge(), "LinearRegression": LinearRegression()}.items():
        expected = cross_validate(estimator, *line, params={"sample_weight": weights})["test_score"]
        np.testing.assert_array_equal(comparison.scores.loc[name], expected)


def test_params_are_routed_to_the_estimators_and_the_automatic_baseline(line):
    weights = np.where(np.arange(40) % 2, 1.0, 1e-12)
    expected = compare_estimators([Ridge()], *line, params={"sample_weight": weights})
    with sklearn.config_context(enable_metadata_routing=True):
        routed = compare_estimators(
            [Ridge().set_fit_request(sample_weight=True)],
            *line,
            scoring=make_scorer(lambda y, p: 1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2)),
            params={"sample_weight": weights},
        )
    np.testing.assert_allclose(routed.scores, expected.scores)


def test_any_joblib_backend_runs_the_folds(line):
    submitted = []

    class CountingBackend(ThreadingBackend):
        def submit(self, func, callback):
            submitted.append(func)
            return super().submit(func, callback)

    joblib.register_parallel_backend("counting", CountingBackend)
    expected = compare_estimators([Ridge(), DummyRegressor()], *line)
    with joblib.parallel_config("counting", n_jobs=2):
        comparison = compare_estimators([Ridge(), DummyRegressor()], *line)
    assert submitted
    pd.testing.assert_frame_equal(comparison.scores, expected.scores)


def test_n_jobs_is_the_number_of_folds_at_once(line):
    asked = []

    class AskedBackend(ThreadingBackend):
        def configure(self, n_jobs=1, parallel=None, **options):
            asked.append(n_jobs)
            return super().configure(n_jobs, parallel, **options)

    joblib.register_parallel_backend("asked", AskedBackend)
    expected = compare_estimators([Ridge(), DummyRegressor()], *line)
    with joblib.parallel_config("asked"):
        comparison = compare_estimators([Ridge(), DummyRegressor()], *line, n_jobs=2)
    assert asked == [2, 2, 2]
    pd.testing.assert_frame_equal(comparison.scores, expected.scores)


class CannotFit(ClassifierMixin, BaseEstimator):
    pass


@pytest.mark.parametrize(
    ("estimators", "said"),
    [
        ([], r"'estimators' parameter must be a dict .* Got \[\] instead"),
        ({}, r"'estimators' parameter must be a dict .* Got \{\} instead"),
        (Ridge(), r"'estimators' parameter must be a dict .* Got Ridge\(\) instead"),
        ([Ridge], r"must be an estimator\. Got <class .*Ridge'> for 'Ridge' instead\. Create one: Ridge\(\)\."),
        ([CannotFit()], r"must be an estimator\. Got CannotFit\(\)"),
        ([("a", Ridge()), ("a", Ridge())], r"names of 'estimators' must differ\. Got 'a' twice"),
        ([("a", Ridge(), 3)], r"\(name, estimator\) pair\. Got \('a', Ridge\(\), 3\)"),
        ({1: Ridge()}, r"\(name, estimator\) pair\. Got \(1, Ridge\(\)\)"),
        ([Ridge(), DummyClassifier()], r"one kind.* classifiers DummyClassifier and the regressors Ridge\."),
        ([DummyClassifier()], r"need a target of classes\. Got DummyClassifier and a continuous y"),
    ],
)
def test_wrong_estimators_are_an_error(line, estimators, said):
    with pytest.raises(InvalidInputError, match=said):
        compare_estimators(estimators, *line)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"baseline": "rigde"}, r"'baseline' .* Got 'rigde' instead\. Did you mean 'ridge'\?"),
        ({"baseline": Ridge}, r"must be an estimator\. Got <class"),
        ({"scoring": ["r2", "max_error"]}, r"by one metric\. Got scoring=\['r2', 'max_error'\]"),
        ({"scoring": lambda model, X, y: {"one": 1.0, "two": 2.0}}, r"returns several: one, two\."),
        ({"confidence_level": 95}, r"'confidence_level' .* Got 95"),
        ({"cv": []}, r"'cv' .* Got none from \[\]"),
    ],
)
def test_wrong_options_are_an_error(line, options, said):
    with pytest.raises(InvalidInputError, match=said):
        compare_estimators({"ridge": Ridge()}, *line, **options)


def test_unknown_metric_is_scikit_learns_own_error(line):
    with pytest.raises(ValueError, match="scoring"):
        compare_estimators([Ridge()], *line, scoring="r3")


def test_result_survives_pickle(line):
    comparison = compare_estimators([Ridge()], *line)
    again = pickle.loads(pickle.dumps(comparison))
    assert isinstance(again, EstimatorComparison)
    assert str(again) == str(comparison)
