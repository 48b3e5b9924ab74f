"""Pictures of what happened while an estimator trained: data first, drawn with matplotlib (the extra ``skpt[plot]``)."""

from skpt.inspection.coefficient_path import CoefficientPathDisplay
from skpt.inspection.loss_curve import LossCurveDisplay

__all__ = ["CoefficientPathDisplay", "LossCurveDisplay"]
