"""Clouds (CCSN): photographs of 11 kinds in folders; one stratified split."""

from pathlib import Path

from sklearn.model_selection import train_test_split

from benchmarks.accuracy import Task
from benchmarks.tasks.photographs import photographs_task
from skpt.datasets import load_image_folder


def task(data: Path) -> Task:
    X, y = load_image_folder(data / "clouds_ccsn" / "images", size=32, return_X_y=True)
    split = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    network = {"channels": (16, 32, 64), "dropout": 0.3, "lr": 5e-3, "max_epochs": 30, "batch_size": 64}
    return photographs_task("clouds_ccsn, 32 x 32, a fifth for testing", *split, network)
