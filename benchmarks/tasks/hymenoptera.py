"""Ants and bees: 245 photographs to train on and 153 to test, in folders."""

from pathlib import Path

from benchmarks.accuracy import Task
from benchmarks.tasks.photographs import photographs_task
from skpt.datasets import load_image_folder


def task(data: Path) -> Task:
    X, y = load_image_folder(data / "hymenoptera_data" / "train", size=64, return_X_y=True)
    X_test, y_test = load_image_folder(data / "hymenoptera_data" / "val", size=64, return_X_y=True)
    network = {
        "channels": (16, 32, 64, 64),
        "hidden_layer_sizes": (32,),
        "conv_dropout": 0.1,
        "dropout": 0.5,
        "lr": 3e-3,
        "max_epochs": 150,
        "batch_size": 32,
    }
    return photographs_task("hymenoptera_data, 64 x 64, train and val", X, X_test, y, y_test, network)
