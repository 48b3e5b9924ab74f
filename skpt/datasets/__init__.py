"""Data of the courses, shipped (``load_*``) and generated (``make_*``), and yours: windows of a series, folders of images."""

from skpt.datasets.cars import load_cars
from skpt.datasets.image_folder import ImageFolderDataset, load_image_folder
from skpt.datasets.straight_line import make_straight_line
from skpt.datasets.windows import make_windows

__all__ = ["ImageFolderDataset", "load_cars", "load_image_folder", "make_straight_line", "make_windows"]
