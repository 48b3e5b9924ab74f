"""Small data sets of the courses: shipped (``load_*``) and generated (``make_*``)."""

from skpt.datasets.cars import load_cars
from skpt.datasets.straight_line import make_straight_line

__all__ = ["load_cars", "make_straight_line"]
