"""Photographs by class: a convolutional network with augmentation against logistic regression on thumbnails."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.accuracy import Task
from skpt import CNNClassifier

THUMBNAIL = 16


def jitter(batch: torch.Tensor) -> torch.Tensor:
    """Mirror a batch or not, move it by up to an eighth, and change the brightness of each image."""
    if torch.rand(()) < 0.5:
        batch = batch.flip(-1)
    size = batch.shape[-1]
    margin = max(2, size // 8)
    top, left = torch.randint(0, 2 * margin + 1, (2,)).tolist()
    padded = torch.nn.functional.pad(batch, (margin,) * 4, mode="reflect")
    return padded[..., top : top + size, left : left + size] * (0.8 + 0.4 * torch.rand(len(batch), 1, 1, 1))


def turn_and_zoom(batch: torch.Tensor) -> torch.Tensor:
    """Mirror, turn, zoom, move and brighten each image by itself."""
    n = len(batch)

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n)

    angle, zoom = between(-0.35, 0.35), between(0.7, 1.1)
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([mirror * zoom * angle.cos(), -zoom * angle.sin(), between(-0.2, 0.2)], 1),
        torch.stack([mirror * zoom * angle.sin(), zoom * angle.cos(), between(-0.2, 0.2)], 1),
    ]
    grid = torch.nn.functional.affine_grid(torch.stack(rows, 1), batch.shape, align_corners=False)
    moved = torch.nn.functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)
    return moved * between(0.7, 1.3).view(-1, 1, 1, 1)


def thumbnails(X: np.ndarray) -> np.ndarray:
    n, channels, size, _ = X.shape
    k = size // THUMBNAIL
    return X.reshape(n, channels, THUMBNAIL, k, THUMBNAIL, k).mean(axis=(3, 5)).reshape(n, -1)


def photographs_task(name: str, X, X_test, y, y_test, network: dict) -> Task:
    def cnn(seed: int) -> float:
        settings = {"batch_norm": True, "lr_schedule": "one_cycle", "augment": jitter, **network}
        return CNNClassifier(**settings, random_state=seed).fit(X, y).score(X_test, y_test)

    def linear(C: float) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=500))
        return model.fit(thumbnails(X), y).score(thumbnails(X_test), y_test)

    baselines = {f"logistic regression on thumbnails, C={C:g}": lambda seed, C=C: linear(C) for C in (1e-3, 1e-2, 1e-1)}

    def to_reach(scores: dict[str, float]) -> list[tuple[str, float, str, bool]]:
        wanted = max(scores[each] for each in baselines) + 0.10
        return [("CNNClassifier", scores["CNNClassifier"], f"at least {wanted:.4f}", scores["CNNClassifier"] >= wanted)]

    return Task(name, "accuracy", {"CNNClassifier": cnn}, to_reach, baselines)
