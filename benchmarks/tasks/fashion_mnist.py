"""Fashion-MNIST: ten kinds of clothes, 28 x 28 grey, the published test split."""

from pathlib import Path

import numpy as np
from sklearn.neural_network import MLPClassifier

from benchmarks.accuracy import Task, at_least
from skpt import CNNClassifier


def task(data: Path) -> Task:
    arrays = np.load(data / "fashion_mnist" / "fashion_mnist.npz")
    X, y, X_test, y_test = (arrays[name] for name in ("X_train", "y_train", "X_test", "y_test"))

    def cnn(seed: int) -> float:
        net = CNNClassifier(
            (32, 64),
            batch_norm=True,
            dropout=0.3,
            lr=0.01,
            lr_schedule="one_cycle",
            max_epochs=8,
            batch_size=128,
            random_state=seed,
        )
        return net.fit(X, y).score(X_test, y_test)

    def mlp(seed: int) -> float:
        net = MLPClassifier((100,), max_iter=5, random_state=seed)
        return net.fit(X.reshape(len(X), -1) / 255, y).score(X_test.reshape(len(X_test), -1) / 255, y_test)

    return Task(
        "fashion_mnist, 60,000 and 10,000 images",
        "accuracy on the test images",
        {"CNNClassifier, 2 blocks": cnn},
        at_least("CNNClassifier, 2 blocks", 0.92),
        {"scikit-learn's MLPClassifier(100), 5 epochs": mlp},
        {"2 conv, pooling": 0.916, "3 conv, pooling, batch norm": 0.921, "MLP 256-128-100": 0.8833},
    )
