"""Cross-validate several estimators on the same folds."""

import inspect
import re
import textwrap
import warnings
from collections import Counter

import numpy as np
import pandas as pd
from sklearn import get_config
from sklearn.base import is_classifier, is_regressor
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import check_cv, cross_validate
from sklearn.multioutput import MultiOutputClassifier
from sklearn.utils import indexable
from sklearn.utils.multiclass import type_of_target

from skpt.exceptions import InvalidInputError, nearest_name
from skpt.model_selection.estimator_comparison import EstimatorComparison
from skpt.model_selection.resampled_t_test import check_confidence_level

__all__ = ["compare_estimators"]


def compare_estimators(
    estimators,
    X,
    y,
    *,
    cv=5,
    scoring=None,
    baseline="auto",
    groups=None,
    n_jobs=None,
    params=None,
    error_score=np.nan,
    random_state=None,
    confidence_level=0.95,
):
    """Cross-validate several estimators on the same folds and hold each against a baseline.

    The folds are made once and every estimator is trained and scored on each of them, so a fold that is hard is hard
    for all, and the differences say more than the scores do. Whether a difference could be chance is judged by the
    corrected resampled t-test of Nadeau and Bengio, see `corrected_resampled_t_test`.

    Parameters
    ----------
    estimators : dict of str to estimator, list of (str, estimator) or list of estimator
        What to compare. Estimators without a name are named by their class, and numbered where a class appears twice.
        They are cloned, never fitted themselves. All classifiers or all regressors.
    X : {array-like, sparse matrix} of shape (n_samples, ...)
        The samples, handed to the estimators as they are.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        The target.
    cv : int, splitter or iterable of (train, test), default=5
        How to make the folds, as in scikit-learn: a number means consecutive rows for regression, and the same share
        of every class for classification.
    scoring : str or callable, default=None
        One metric, higher is better, as in scikit-learn. None means ``'accuracy'`` for classification and ``'r2'`` for
        regression.
    baseline : {'auto'}, str, estimator or None, default='auto'
        What the others are held against. ``'auto'`` means ``LinearRegression()``, or
        ``LogisticRegression(max_iter=1000)`` for classification (one for each label of a multi-label target); it is
        added in front unless it is among the estimators. Any other str is the name of one of the estimators. None
        leaves the differences out.
    groups : array-like of shape (n_samples,), default=None
        Group of each sample, for a `cv` that splits by group.
    n_jobs : int, default=None
        Folds trained at once. None means 1, or what ``joblib.parallel_config`` says; its backend is used.
    params : dict of str to object, default=None
        Handed to ``fit`` of every estimator, and routed where scikit-learn's metadata routing is on.
    error_score : 'raise' or float, default=nan
        Score of a fold on which an estimator fails. ``'raise'`` lets its error through.
    random_state : int, RandomState instance or None, default=None
        Seed of the order into which the rows are brought before a numeric `cv` splits them; unused by any other `cv`.
        None leaves them in their own order, as scikit-learn does.
    confidence_level : float in (0, 1), default=0.95
        Probability that a confidence interval holds the true difference.

    Returns
    -------
    EstimatorComparison
        Prints as a table; ``.frame`` and ``.scores`` hold the numbers, ``.plot()`` draws them.

    Raises
    ------
    InvalidInputError
        If `estimators` is empty, repeats a name, mixes classifiers and regressors or holds something else; if
        `baseline` is not a known name; if `scoring` is more than one metric; if `cv` makes no folds.

    Warns
    -----
    FitFailedWarning
        If an estimator fails on a fold. The table says why.

    See Also
    --------
    corrected_resampled_t_test : The test by itself.
    sklearn.model_selection.cross_validate : Trains and scores one estimator; it is what is called here.

    Notes
    -----
    Costs ``n_estimators * n_folds`` fits. The p-values are not adjusted for the number of estimators: of twenty that
    equal the baseline, one will show a p-value under 0.05. A fit time is counted from the call of ``fit`` to its
    return; under a backend that trains several models at once that includes the wait for the others.

    References
    ----------
    Claude Nadeau and Yoshua Bengio: Inference for the generalization error. Machine Learning 52 (2003), 239-281,
    https://doi.org/10.1023/A:1024068626366

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.dummy import DummyRegressor
    >>> from sklearn.linear_model import Ridge
    >>> from skpt.model_selection import compare_estimators
    >>> X, y = load_diabetes(return_X_y=True)
    >>> comparison = compare_estimators([Ridge(), DummyRegressor()], X, y, random_state=0)
    >>> comparison.best
    'LinearRegression'
    >>> comparison.frame["p_value"].round(3)
    estimator
    LinearRegression      NaN
    Ridge               0.108
    DummyRegressor      0.002
    Name: p_value, dtype: float64
    """
    check_confidence_level(confidence_level)
    if isinstance(scoring, (list, tuple, set, dict)):
        raise InvalidInputError(
            f"compare_estimators compares by one metric. Got scoring={scoring!r} instead. Call it once for each metric."
        )
    named = _named_estimators(estimators)
    classification = _is_classification(named, y)
    named, baseline = _with_baseline(named, baseline, y, classification, params)
    metric = scoring
    if scoring is None and (classification or all(is_regressor(estimator) for estimator in named.values())):
        metric = scoring = "accuracy" if classification else "r2"

    X, y, groups = indexable(X, y, groups)
    shuffle = {} if random_state is None else {"shuffle": True, "random_state": random_state}
    folds = list(check_cv(cv, y, classifier=classification, **shuffle).split(X, y, groups))
    if not folds:
        raise InvalidInputError(f"The 'cv' parameter must make folds. Got none from {cv!r}. Give a number, for example 5.")

    scores, fit_times, failures = {}, {}, {}
    for name, estimator in named.items():
        scores[name], fit_times[name], failure = _cross_validate(
            name, estimator, X, y, folds, scoring=scoring, n_jobs=n_jobs, params=params, error_score=error_score
        )
        if failure:
            failures[name] = failure
    names, fold_numbers = pd.Index(scores, name="estimator"), pd.RangeIndex(len(folds), name="fold")
    return EstimatorComparison(
        scores=pd.DataFrame(list(scores.values()), names, fold_numbers),
        fit_times=pd.DataFrame(list(fit_times.values()), names, fold_numbers),
        baseline=baseline,
        metric=_metric_name(metric),
        test_train_ratio=float(np.mean([_n_rows(test) / _n_rows(train) for train, test in folds])),
        confidence_level=confidence_level,
        failures=failures,
    )


def _named_estimators(estimators) -> dict:
    """The estimators by name, each checked to be one."""
    if isinstance(estimators, dict):
        pairs = list(estimators.items())
    elif isinstance(estimators, (list, tuple)):
        repeated = Counter(_class_name(entry) for entry in estimators if not isinstance(entry, tuple))
        pairs, seen = [], Counter[str]()
        for entry in estimators:
            if not isinstance(entry, tuple):
                name = _class_name(entry)
                seen[name] += 1
                entry = (f"{name}-{seen[name]}" if repeated[name] > 1 else name, entry)
            pairs.append(entry)
    else:
        pairs = []
    if not pairs:
        raise InvalidInputError(
            "The 'estimators' parameter must be a dict of name to estimator, a list of (name, estimator) or a list of "
            f"estimators, not empty. Got {_shortened(estimators)} instead. Give for example [Ridge(), SVR()]."
        )
    named = {}
    for pair in pairs:
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise InvalidInputError(
                f"Each of 'estimators' must be an estimator or a (name, estimator) pair. Got {_shortened(pair)} instead."
            )
        name, estimator = pair
        if name in named:
            raise InvalidInputError(f"The names of 'estimators' must differ. Got {name!r} twice. Rename one of them.")
        if inspect.isclass(estimator) or not hasattr(estimator, "fit"):
            remedy = f"Create one: {estimator.__name__}()." if inspect.isclass(estimator) else "Give one that has fit."
            raise InvalidInputError(
                f"Each of 'estimators' must be an estimator. Got {_shortened(estimator)} for {name!r} instead. {remedy}"
            )
        named[name] = estimator
    return named


def _class_name(estimator) -> str:
    return estimator.__name__ if inspect.isclass(estimator) else type(estimator).__name__


def _is_classification(named, y) -> bool:
    """Whether the estimators are classifiers; the target decides where they are neither that nor regressors."""
    classifiers = [name for name, estimator in named.items() if is_classifier(estimator)]
    regressors = [name for name, estimator in named.items() if is_regressor(estimator)]
    if classifiers and regressors:
        raise InvalidInputError(
            "compare_estimators needs estimators of one kind: they share a metric. Got the classifiers "
            f"{', '.join(classifiers)} and the regressors {', '.join(regressors)}. Compare them in two calls."
        )
    target = type_of_target(y, input_name="y")
    if classifiers and target.startswith("continuous"):
        raise InvalidInputError(
            f"Classifiers need a target of classes. Got {', '.join(classifiers)} and a continuous y. Compare "
            "regressors, or make classes of y, for example y > np.median(y)."
        )
    return bool(classifiers) or (not regressors and not target.startswith("continuous"))


def _with_baseline(named, baseline, y, classification, params):
    """The estimators with the baseline among them, and its name."""
    if baseline is None:
        return named, None
    if isinstance(baseline, str) and baseline != "auto":
        if baseline not in named:
            raise InvalidInputError(
                "The 'baseline' parameter must be 'auto', None, an estimator or the name of one of the estimators. Got "
                f"{baseline!r} instead.{nearest_name(baseline, named)}"
            )
        return named, baseline
    if isinstance(baseline, str):
        model = LogisticRegression(max_iter=1000) if classification else LinearRegression()
        for name, estimator in named.items():
            if type(estimator) is type(model) and estimator.get_params() == model.get_params():
                return named, name
        name = type(model).__name__
        if get_config()["enable_metadata_routing"] and "sample_weight" in (params or {}):
            model.set_fit_request(sample_weight=True)
        if classification and type_of_target(y).startswith("multi") and np.ndim(y) == 2:
            model = MultiOutputClassifier(model)
    else:
        model = baseline
        for name, estimator in named.items():
            if estimator is model:
                return named, name
        [name] = _named_estimators([model])
    while name in named:
        name += " (baseline)"
    return {name: model, **named}, name


def _cross_validate(name, estimator, X, y, folds, *, scoring, n_jobs, params, error_score):
    """Scores and fit times on the folds, NaN where the estimator failed, and why it did ('' where it did not)."""
    numeric = error_score != "raise"
    with warnings.catch_warnings(record=True) as caught:
        for category, start in [(FitFailedWarning, ""), (UserWarning, "Scoring failed")]:
            warnings.filterwarnings("always", message=start, category=category)  # they hold the reason
        try:
            result = cross_validate(
                estimator,
                X,
                y,
                cv=folds,
                scoring=scoring,
                n_jobs=n_jobs,
                params=params,
                error_score=np.nan if numeric else "raise",
            )
        except ValueError as error:
            if not numeric or "fits failed" not in str(error):
                raise
            result = {"test_score": np.full(len(folds), np.nan), "fit_time": np.full(len(folds), np.nan)}
            trouble = str(error)
        else:
            trouble = ""
    if "test_score" not in result:
        raise InvalidInputError(
            "compare_estimators compares by one metric. Got a 'scoring' that returns several: "
            f"{', '.join(key.removeprefix('test_') for key in result if key.startswith('test_'))}. Return one number."
        )
    scores, fit_times = result["test_score"], result["fit_time"]
    failed = np.isnan(scores)
    for warning in caught:
        if failed.any() and _is_failure(warning):
            trouble = trouble or str(warning.message)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if not failed.any():
        return scores, fit_times, ""
    failure = f"failed on {failed.sum()} of {len(folds)} folds: {_last_error(trouble) or 'its score is nan'}"
    warnings.warn(f"{name} {failure}", FitFailedWarning, stacklevel=3)
    if numeric:
        scores = np.where(failed, error_score, scores)
    return scores, np.where(failed, np.nan, fit_times), failure


def _is_failure(warning) -> bool:
    """Whether a warning of `cross_validate` says that a fold failed."""
    return issubclass(warning.category, FitFailedWarning) or str(warning.message).startswith("Scoring failed")


def _last_error(text: str) -> str:
    """First line of the exception that ends the last traceback in `text`; '' without one."""
    _, found, traceback = text.rpartition("Traceback (most recent call last):\n")
    lines = [line for line in traceback.splitlines() if line and not line[0].isspace()]
    return textwrap.shorten(re.sub(r"^[\w.]+\.", "", lines[0]), 160, placeholder=" ...") if found and lines else ""


def _metric_name(scoring) -> str:
    """What to call the metric in a table."""
    return scoring if isinstance(scoring, str) else getattr(scoring, "__name__", None) or str(scoring or "score")


def _n_rows(selection) -> int:
    """Number of rows that an index array or a boolean mask selects."""
    selection = np.asarray(selection)
    return int(selection.sum()) if selection.dtype == bool else len(selection)


def _shortened(given) -> str:
    """What a caller gave, as one line of an error message."""
    return textwrap.shorten(repr(given), 100, placeholder=" ...")
