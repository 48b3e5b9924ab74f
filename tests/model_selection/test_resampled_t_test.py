"""The corrected resampled t-test against closed forms, a slow implementation and the laws that it obeys."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from skpt.exceptions import InvalidInputError
from skpt.model_selection import corrected_resampled_t_test

RATIOS = st.floats(0, 2)


@st.composite
def fold_scores(draw):
    """Scores of two estimators on the same 2 to 12 folds, in hundredths, whose differences are not all equal."""
    n_folds = draw(st.integers(2, 12))
    hundredths = arrays(int, n_folds, elements=st.integers(-100, 100))
    scores, baseline = draw(hundredths) / 100, draw(hundredths) / 100
    assume(np.ptp(scores - baseline) > 1e-3)
    return scores, baseline


def slow_p_value(scores, baseline_scores, test_train_ratio):
    """The formula of the paper with Python's own arithmetic, and Student's density integrated by a quadrature."""
    differences = [a - b for a, b in zip(scores, baseline_scores, strict=True)]
    k = len(differences)
    variance = statistics.variance(differences)
    t = abs(statistics.fmean(differences)) / math.sqrt((1 / k + test_train_ratio) * variance)
    df = k - 1
    log_constant = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)

    def density(x):
        return math.exp(log_constant - (df + 1) / 2 * math.log1p(x * x / df))

    central, _ = integrate.quad(density, 0, t, epsabs=1e-12, limit=500)
    return 1 - 2 * central


@given(fold_scores(), RATIOS)
def test_p_value_is_that_of_the_slow_implementation(pair, ratio):
    assert corrected_resampled_t_test(*pair, ratio).p_value == pytest.approx(slow_p_value(*pair, ratio), abs=1e-8)


@given(fold_scores(), RATIOS)
def test_two_and_three_folds_have_a_closed_form(pair, ratio):
    scores, baseline = pair
    two = corrected_resampled_t_test(scores[:2], baseline[:2], ratio)
    if np.isfinite(two.statistic):
        assert two.p_value == pytest.approx(1 - 2 / math.pi * math.atan(abs(two.statistic)), abs=1e-12)
    if len(scores) >= 3:
        three = corrected_resampled_t_test(scores[:3], baseline[:3], ratio)
        if np.isfinite(three.statistic):
            t = abs(three.statistic)
            assert three.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-9)


@given(fold_scores())
def test_without_overlap_it_is_the_paired_t_test(pair):
    ours, theirs = corrected_resampled_t_test(*pair, 0.0), stats.ttest_rel(*pair)
    interval = theirs.confidence_interval(0.95)
    assert ours.statistic == pytest.approx(theirs.statistic, rel=1e-9)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (ours.ci_low, ours.ci_high) == pytest.approx((interval.low, interval.high), rel=1e-9, abs=1e-12)


@given(fold_scores(), RATIOS)
def test_swapping_the_two_turns_the_sign_alone(pair, ratio):
    there, back = corrected_resampled_t_test(*pair, ratio), corrected_resampled_t_test(*pair[::-1], ratio)
    assert back.difference == -there.difference
    assert back.statistic == -there.statistic
    assert back.p_value == there.p_value
    assert (back.ci_low, back.ci_high) == (-there.ci_high, -there.ci_low)


@given(fold_scores(), RATIOS, st.floats(1e-6, 1e6), st.integers(-3, 3))
def test_unit_and_origin_of_the_metric_do_not_matter(pair, ratio, unit, origin):
    scores, baseline = pair
    plain = corrected_resampled_t_test(scores, baseline, ratio)
    scaled = corrected_resampled_t_test(unit * (scores + origin), unit * (baseline + origin), ratio)
    assert scaled.p_value == pytest.approx(plain.p_value, rel=1e-6)
    assert scaled.difference == pytest.approx(unit * plain.difference, rel=1e-6, abs=1e-12 * unit)
    assert scaled.ci_high == pytest.approx(unit * plain.ci_high, rel=1e-6, abs=1e-9 * unit)


@given(fold_scores(), RATIOS, st.randoms(use_true_random=False))
def test_order_of_the_folds_does_not_matter(pair, ratio, random):
    order = list(range(len(pair[0])))
    random.shuffle(order)
    shuffled = corrected_resampled_t_test(pair[0][order], pair[1][order], ratio)
    assert shuffled == pytest.approx(corrected_resampled_t_test(*pair, ratio), rel=1e-9, abs=1e-12)


@given(fold_scores(), RATIOS, st.floats(0.01, 1))
def test_more_overlap_never_makes_a_difference_surer(pair, ratio, more):
    less_overlap = corrected_resampled_t_test(*pair, ratio)
    more_overlap = corrected_resampled_t_test(*pair, ratio + more)
    assert more_overlap.p_value >= less_overlap.p_value
    assert more_overlap.ci_low < less_overlap.ci_low < less_overlap.ci_high < more_overlap.ci_high


@given(fold_scores(), RATIOS, st.floats(0.5, 0.999))
def test_interval_leaves_zero_out_exactly_where_p_is_small(pair, ratio, level):
    test = corrected_resampled_t_test(*pair, ratio, confidence_level=level)
    assume(abs(test.p_value - (1 - level)) > 1e-9)
    assert (test.p_value < 1 - level) == (not test.ci_low <= 0 <= test.ci_high)


def test_identical_scores_do_not_differ():
    assert corrected_resampled_t_test([0.1, 0.7, 0.4], [0.1, 0.7, 0.4], 0.5) == (0.0, 0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize("shift", [0.1, -0.1, 1e-9])
def test_same_difference_on_every_fold_is_certain(shift):
    scores = np.array([0.1, 0.7, 0.4, 1 / 3])  # + 0.1 - 0.1 is not exact: the variance is not quite zero
    test = corrected_resampled_t_test(scores + shift, scores, 0.25)
    assert test.p_value == 0.0
    assert test.statistic == math.copysign(math.inf, shift)
    assert test.ci_low == test.ci_high == test.difference == pytest.approx(shift, rel=1e-6)


def test_one_fold_has_a_difference_and_no_test():
    test = corrected_resampled_t_test([0.75], [0.5], 0.25)
    assert test.difference == 0.25
    assert np.isnan(test[1:]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_leaves_nothing_to_test(bad):
    assert np.isnan(corrected_resampled_t_test([0.5, bad, 0.7], [0.5, 0.6, 0.7], 0.5)).all()
    assert np.isnan(corrected_resampled_t_test([0.5, 0.6, 0.7], [0.5, bad, 0.7], 0.5)).all()


def test_it_finds_what_is_not_there_less_often_than_the_plain_test():
    """Over random splits of pure noise, the plain test calls far more than 1 in 20 differences real; this one not."""
    rng = np.random.default_rng(0)
    n_train, n_test, k = 80, 20, 15
    plain, corrected = [], []
    for _ in range(400):
        y, guess_a, guess_b = rng.normal(size=(3, n_train + n_test))
        scores = []
        for _ in range(k):
            order = rng.permutation(n_train + n_test)
            train, test = order[:n_train], order[n_train:]
            offset = y[train].mean()
            scores.append([-np.mean((y[test] - offset - 0.3 * guess[test]) ** 2) for guess in (guess_a, guess_b)])
        a, b = np.array(scores).T
        plain.append(corrected_resampled_t_test(a, b, 0.0).p_value < 0.05)
        corrected.append(corrected_resampled_t_test(a, b, n_test / n_train).p_value < 0.05)
    assert np.mean(plain) > 0.2
    assert np.mean(corrected) < 0.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([0.1, 0.2], [0.1], 0.5), r"one score for each fold .* shape \(2,\) and \(1,\)"),
        (([[0.1, 0.2]], [[0.1, 0.2]], 0.5), r"one score for each fold"),
        (([], [], 0.5), r"one score for each fold"),
        (([0.1, 0.2], [0.1, 0.3], -0.5), r"'test_train_ratio' .* Got -0.5"),
        (([0.1, 0.2], [0.1, 0.3], math.nan), r"'test_train_ratio' .* Got nan"),
    ],
)
def test_what_cannot_be_tested_is_an_error(arguments, said):
    with pytest.raises(InvalidInputError, match=said):
        corrected_resampled_t_test(*arguments)


@pytest.mark.parametrize("level", [0, 1, 95, -0.1])
def test_confidence_level_is_a_probability(level):
    with pytest.raises(InvalidInputError, match=f"'confidence_level' .* Got {level}"):
        corrected_resampled_t_test([0.1, 0.2], [0.1, 0.3], 0.5, confidence_level=level)
