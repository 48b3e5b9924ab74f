"""How any module is trained: batches, callbacks, criteria, optimizers, schedules, targets, random numbers."""

from skpt.training.callbacks import RecordCoefficients
from skpt.training.criteria import CLASSIFICATION_CRITERIA, REGRESSION_CRITERIA
from skpt.training.optimizers import OPTIMIZERS
from skpt.training.schedules import SCHEDULES
from skpt.training.transfer import TransferReport

__all__ = [
    "CLASSIFICATION_CRITERIA",
    "OPTIMIZERS",
    "REGRESSION_CRITERIA",
    "SCHEDULES",
    "RecordCoefficients",
    "TransferReport",
]
