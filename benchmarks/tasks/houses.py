"""Houses: four photographs and a table to a price; five random splits of 75/25."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.compose import make_column_transformer
from sklearn.linear_model import Ridge
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.accuracy import Task
from skpt import CNNBranch, DenseBranch, MultiInputRegressor

ROOMS, SIZE, N_SPLITS = ("bathroom", "bedroom", "frontal", "kitchen"), 32, 5


def task(data: Path) -> Task:
    folder = data / "houses_multiinput"
    names = ["bedrooms", "bathrooms", "area", "zipcode", "price"]
    table = pd.read_csv(folder / "HousesInfo.txt", sep=" ", names=names)
    log_price = np.log(table.pop("price").to_numpy())
    # The four photographs as one of four quarters.
    photographs = np.stack([montage(folder / "images", i) for i in range(1, len(table) + 1)])
    encoder = make_column_transformer(
        (StandardScaler(), ["bedrooms", "bathrooms", "area"]),
        (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=8, sparse_output=False), ["zipcode"]),
    )
    splits = list(ShuffleSplit(N_SPLITS, test_size=0.25, random_state=0).split(table))
    branches = {
        "table": ("table", DenseBranch(32), "table"),
        "photographs": ("photographs", CNNBranch(16, channels=(8, 16, 32), batch_norm=True, dropout=0.5), "photographs"),
    }

    def percentage_error(which: tuple[str, ...], seed: int) -> float:
        errors = []
        for train, test in splits:
            X = {"table": encoder.fit(table.iloc[train]).transform(table), "photographs": photographs}
            net = MultiInputRegressor(
                [branches[name] for name in which], hidden_layer_sizes=(16,), lr=3e-3, lr_schedule="cosine", max_epochs=60,
                batch_size=32, weight_decay=1e-3, random_state=seed,
            )  # fmt: skip
            parts = [{name: X[name][rows] for name in which} for rows in (train, test)]
            errors.append(mape(net.fit(parts[0], log_price[train]).predict(parts[1]), log_price[test]))
        return float(np.mean(errors))

    def ridge(seed: int) -> float:
        model = make_pipeline(encoder, Ridge(1.0))
        return float(
            np.mean([mape(model.fit(table.iloc[a], log_price[a]).predict(table.iloc[b]), log_price[b]) for a, b in splits])
        )

    def to_reach(scores: dict[str, float]) -> list[tuple[str, float, str, bool]]:
        both, alone = scores["table and photographs"], scores["table alone"]
        return [("table and photographs", both, f"below {alone:.4f} (table alone)", both < alone)]

    return Task(
        f"houses_multiinput, {len(table)} houses, {N_SPLITS} splits of 75/25",
        "mean absolute percentage error of the price",
        {
            "table alone": partial(percentage_error, ("table",)),
            "photographs alone": partial(percentage_error, ("photographs",)),
            "table and photographs": partial(percentage_error, ("table", "photographs")),
        },
        to_reach,
        {"Ridge, table alone": ridge},
    )


def montage(folder: Path, i: int) -> np.ndarray:
    quarters = []
    for room in ROOMS:
        with Image.open(folder / f"{i}_{room}.jpg") as image:
            quarters.append(np.asarray(image.convert("RGB").resize((SIZE, SIZE))).transpose(2, 0, 1))
    return np.concatenate([np.concatenate(quarters[:2], axis=2), np.concatenate(quarters[2:], axis=2)], axis=1)


def mape(predicted: np.ndarray, log_price: np.ndarray) -> float:
    return float(np.mean(np.abs(np.exp(predicted - log_price) - 1)))
