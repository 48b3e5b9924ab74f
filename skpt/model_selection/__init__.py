"""Comparing and choosing estimators."""

from skpt.model_selection.compare import compare_estimators
from skpt.model_selection.estimator_comparison import EstimatorComparison
from skpt.model_selection.resampled_t_test import ResampledTTest, corrected_resampled_t_test
from skpt.model_selection.windowed_split import WindowedTimeSeriesSplit

__all__ = [
    "EstimatorComparison",
    "ResampledTTest",
    "WindowedTimeSeriesSplit",
    "compare_estimators",
    "corrected_resampled_t_test",
]
