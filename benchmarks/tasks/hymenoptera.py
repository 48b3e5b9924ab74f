"""Ants and bees: 245 photographs to train on and 153 to test, in folders; first weights from another set of photographs."""

from pathlib import Path

from benchmarks.accuracy import Task
from benchmarks.tasks.photographs import photographs_task, turn_and_zoom
from skpt import CNNClassifier
from skpt.datasets import load_image_folder


def task(data: Path) -> Task:
    X, y = load_image_folder(data / "hymenoptera_data" / "train", size=64, return_X_y=True)
    X_test, y_test = load_image_folder(data / "hymenoptera_data" / "val", size=64, return_X_y=True)
    network = {
        "channels": (16, 32, 64, 64),
        "hidden_layer_sizes": (32,),
        "conv_dropout": 0.1,
        "dropout": 0.5,
        "batch_norm": True,
        "optimizer": "adamw",
        "weight_decay": 1e-3,
        "lr_schedule": "one_cycle",
        "augment": turn_and_zoom,
    }
    # The photographs are few: the network starts from one that knows clouds.
    clouds = load_image_folder(data / "clouds_ccsn" / "images", size=64, return_X_y=True)
    first = CNNClassifier(**network, lr=5e-3, max_epochs=12, batch_size=64, random_state=0).fit(*clouds)
    network |= {"lr": 3e-3, "max_epochs": 100, "batch_size": 32, "pretrained": first}
    return photographs_task("hymenoptera_data, 64 x 64, train and val, from a network of clouds", X, X_test, y, y_test, network)
