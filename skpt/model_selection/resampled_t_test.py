"""The t-test for two estimators scored on the same folds."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from skpt.exceptions import InvalidInputError

__all__ = ["ResampledTTest", "corrected_resampled_t_test"]


class ResampledTTest(NamedTuple):
    """What `corrected_resampled_t_test` found.

    Attributes
    ----------
    difference : float
        Mean of ``scores - baseline_scores`` over the folds.
    statistic : float
        The t statistic; infinite where the difference is the same on every fold and not zero.
    p_value : float
        Two-sided: how probable a difference of this size or larger is where both estimators are equally good.
    ci_low, ci_high : float
        Confidence interval of the difference.
    """

    difference: float
    statistic: float
    p_value: float
    ci_low: float
    ci_high: float


def corrected_resampled_t_test(
    scores, baseline_scores, test_train_ratio: float, *, confidence_level: float = 0.95
) -> ResampledTTest:
    r"""Test whether two estimators scored on the same folds differ, by the test of Nadeau and Bengio.

    The training sets of the folds overlap, so their scores are not independent, and the ordinary paired t-test finds
    differences where there are none. This test widens the variance by the share of data that each fold tests on. With
    :math:`d_i` the difference of the scores on fold :math:`i` of :math:`k` and :math:`s^2` the sample variance of
    :math:`d`,

    .. math:: t = \frac{\bar d}{\sqrt{\left(\frac{1}{k} + \frac{n_\text{test}}{n_\text{train}}\right) s^2}},

    which is held against Student's distribution with :math:`k - 1` degrees of freedom.

    Parameters
    ----------
    scores : array-like of shape (n_folds,)
        Score of the estimator on each fold.
    baseline_scores : array-like of shape (n_folds,)
        Score of the other estimator on the same folds, in the same order.
    test_train_ratio : float in [0, inf)
        Samples tested on per sample trained on: 0.25 with 5 folds. 0 gives the ordinary paired t-test.
    confidence_level : float in (0, 1), default=0.95
        Probability that the confidence interval holds the difference.

    Returns
    -------
    ResampledTTest
        Difference, t statistic, p-value and confidence interval. All but the difference are NaN with one fold, and all
        are NaN where a score is not finite. Where every fold shows the same difference the p-value is 1 for none and 0
        for any other.

    Raises
    ------
    InvalidInputError
        If the two do not hold one score for each fold, or `test_train_ratio` or `confidence_level` is out of range.

    References
    ----------
    Claude Nadeau and Yoshua Bengio: Inference for the generalization error. Machine Learning 52 (2003), 239-281,
    https://doi.org/10.1023/A:1024068626366

    Examples
    --------
    >>> from skpt.model_selection import corrected_resampled_t_test
    >>> test = corrected_resampled_t_test([0.81, 0.84, 0.79, 0.83, 0.80], [0.78, 0.80, 0.78, 0.79, 0.79], 0.25)
    >>> print(f"{test.difference:.3f}, p = {test.p_value:.3f}")
    0.026, p = 0.063
    """
    scores, baseline_scores = np.asarray(scores, dtype=float), np.asarray(baseline_scores, dtype=float)
    if scores.ndim != 1 or scores.shape != baseline_scores.shape or len(scores) == 0:
        raise InvalidInputError(
            "corrected_resampled_t_test needs one score for each fold from both estimators. Got arrays of shape "
            f"{scores.shape} and {baseline_scores.shape} instead. Score both on the same folds."
        )
    if not 0 <= test_train_ratio < np.inf:
        raise InvalidInputError(
            f"The 'test_train_ratio' parameter must be a number in the range [0, inf). Got {test_train_ratio!r} "
            "instead. Give n_test / n_train, for example 0.25 for 5 folds."
        )
    check_confidence_level(confidence_level)
    if not (np.isfinite(scores).all() and np.isfinite(baseline_scores).all()):
        return ResampledTTest(*[np.nan] * 5)

    differences = scores - baseline_scores
    difference = float(differences.mean())
    n_folds = len(differences)
    if n_folds == 1:
        return ResampledTTest(difference, np.nan, np.nan, np.nan, np.nan)

    rounding = 8 * np.finfo(float).eps * max(np.abs(scores).max(), np.abs(baseline_scores).max())
    if np.ptp(differences) <= rounding:  # the same on every fold, but for the rounding of the subtraction
        if abs(difference) <= rounding:
            return ResampledTTest(difference, 0.0, 1.0, difference, difference)
        return ResampledTTest(difference, float(np.copysign(np.inf, difference)), 0.0, difference, difference)
    statistic = difference / corrected_standard_error(differences, test_train_ratio)
    p_value = float(2 * stats.t.sf(abs(statistic), n_folds - 1))
    half_width = interval_half_width(differences, test_train_ratio, confidence_level)
    return ResampledTTest(difference, statistic, p_value, difference - half_width, difference + half_width)


def corrected_standard_error(values, test_train_ratio: float) -> float:
    """Standard error of a mean over folds whose training sets overlap.

    Parameters
    ----------
    values : ndarray of shape (n_folds,)
        One finite value for each of at least two folds.
    test_train_ratio : float
        Samples tested on per sample trained on.

    Returns
    -------
    float
        In the unit of `values`.
    """
    return float(np.sqrt((1 / len(values) + test_train_ratio) * np.var(values, ddof=1)))


def interval_half_width(values, test_train_ratio: float, confidence_level: float) -> float:
    """Half the width of the confidence interval of a mean over folds whose training sets overlap.

    Parameters
    ----------
    values : ndarray of shape (n_folds,)
        One finite value for each of at least two folds.
    test_train_ratio : float
        Samples tested on per sample trained on.
    confidence_level : float
        Probability that the interval holds the mean.

    Returns
    -------
    float
        In the unit of `values`.
    """
    quantile = stats.t.ppf(0.5 + confidence_level / 2, len(values) - 1)
    return float(quantile) * corrected_standard_error(values, test_train_ratio)


def check_confidence_level(confidence_level: float) -> None:
    """Raise unless `confidence_level` is a probability between 0 and 1.

    Parameters
    ----------
    confidence_level : float
        What the caller gave.

    Raises
    ------
    InvalidInputError
        If it is out of range.
    """
    if not 0 < confidence_level < 1:
        raise InvalidInputError(
            f"The 'confidence_level' parameter must be a number in the range (0, 1). Got {confidence_level!r} instead. "
            "Give a probability, for example 0.95."
        )
