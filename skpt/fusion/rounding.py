"""Products that round alike, whether a number is the same for all models or each has its own."""

from __future__ import annotations

import numpy as np
from torch import Tensor

__all__ = ["times"]


def times(number: float | Tensor, factor: float) -> float | Tensor:
    """Give a product in single precision.

    Parameters
    ----------
    number : float or float32 Tensor
        One number, or one of each model.
    factor : float
        The same for all models.

    Returns
    -------
    float or Tensor
        A float that is exactly what an entry of the tensor would be.
    """
    return number * factor if isinstance(number, Tensor) else float(np.float32(number) * np.float32(factor))
