"""Houses: a table and four photographs to a price; twenty random splits of 75/25.

Settings were chosen by cross-validation within each of the training parts of the first five splits; what tests one split may
train another, as in any repeated split. There the photographs take 1 to 2 % off the error of the table alone. Convolutional
networks found nothing in the grey pixels of so few houses, nor did kernels; a net of colours did harm. How much edge of which
direction there is where (as in Dalal and Triggs, 2005) helps, and does harm where the photographs are dealt out at random.

One net of both inputs learns the edges by heart unless their weights are held very small. In two steps, the net of the table
comes first, then a linear one of the edges learns what is left of the prices of houses that the first was not trained on.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, ShuffleSplit, cross_val_predict
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.accuracy import Task
from skpt import DenseBranch, LinearRegressor, MultiInputRegressor

ROOMS, N_SPLITS = ("bathroom", "bedroom", "frontal", "kitchen"), 20
SIZE, N_CELLS, N_DIRECTIONS = 96, 6, 8
TRAINING = {"criterion": "huber", "batch_size": 32, "max_epochs": 60, "lr_schedule": "cosine"}


def task(data: Path) -> Task:
    folder = data / "houses_multiinput"
    names = ["bedrooms", "bathrooms", "area", "zipcode", "price"]
    houses = pd.read_csv(folder / "HousesInfo.txt", sep=" ", names=names)
    log_price = np.log(houses.pop("price").to_numpy())
    houses["area"], houses["region"] = np.log(houses["area"]), houses["zipcode"] // 100
    edges = np.stack([edges_of(folder / "images", i) for i in range(1, len(houses) + 1)])
    splits = list(ShuffleSplit(N_SPLITS, test_size=0.25, random_state=0).split(houses))

    def over_splits(predict: Callable) -> float:
        """Give the mean error of `predict`, which takes the training rows, the test rows, and the table as numbers."""
        errors = []
        for train, test in splits:
            table = encoder().fit(houses.iloc[train]).transform(houses)
            errors.append(np.abs(np.exp(predict(train, test, table) - log_price[test]) - 1).mean())
        return float(np.mean(errors))

    def alone(model, X: np.ndarray | None = None) -> float:
        def predict(train, test, table):
            X_used = table if X is None else X
            return model.fit(X_used[train], log_price[train]).predict(X_used[test])

        return over_splits(predict)

    def in_one_net(seed: int) -> float:
        def predict(train, test, table):
            scaled = StandardScaler().fit(edges[train]).transform(edges)
            of_train, of_test = ({"table": table[rows], "edges": scaled[rows]} for rows in (train, test))
            return both_net(seed).fit(of_train, log_price[train]).predict(of_test)

        return over_splits(predict)

    def in_two_steps(seed: int) -> float:
        first, second = table_net(seed), edges_net(seed)

        def predict(train, test, table):
            folds = KFold(5, shuffle=True, random_state=seed)
            rest = log_price[train] - cross_val_predict(first, table[train], log_price[train], cv=folds)
            by_table = first.fit(table[train], log_price[train]).predict(table[test])
            return by_table + second.fit(edges[train], rest).predict(edges[test])

        return over_splits(predict)

    def to_reach(scores: dict[str, float]) -> list[tuple[str, float, str, bool]]:
        limit = scores["table alone"]
        both = {who: score for who, score in scores.items() if who.startswith("table and photographs")}
        return [(who, score, f"below {limit:.4f} (table alone)", score < limit) for who, score in both.items()]

    forest = RandomForestRegressor(min_samples_leaf=2, max_features=0.5, random_state=0)
    boosting = GradientBoostingRegressor(n_estimators=200, learning_rate=0.05, subsample=0.7, random_state=0)
    return Task(
        f"houses_multiinput, {len(houses)} houses, {N_SPLITS} splits of 75/25",
        "mean absolute percentage error of the price",
        {
            "table alone": lambda seed: alone(table_net(seed)),
            "photographs alone": lambda seed: alone(edges_net(seed), edges),
            "table and photographs, one net": in_one_net,
            "table and photographs, two steps": in_two_steps,
        },
        to_reach,
        {
            "Ridge, table alone": lambda seed: alone(Ridge(1.0)),
            "random forest, table alone": lambda seed: alone(forest, houses.to_numpy()),
            "gradient boosting, table alone": lambda seed: alone(boosting, houses.to_numpy()),
        },
    )


def encoder():
    """Numbers of a table: of rare zip codes the first three digits alone."""
    return make_column_transformer(
        (StandardScaler(), ["bedrooms", "bathrooms", "area"]),
        (OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=8, sparse_output=False), ["zipcode"]),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["region"]),
    )


def table_net(seed: int) -> MultiInputRegressor:
    return MultiInputRegressor(
        [("table", DenseBranch(32), None)], (16,), lr=3e-3, weight_decay=1e-2, standardize_features=False,
        random_state=seed, **TRAINING,
    )  # fmt: skip


def both_net(seed: int) -> MultiInputRegressor:
    """The net of the table with a second branch, of a single unit whose weights are held small."""
    net = table_net(seed)
    branches = [("table", DenseBranch(32), "table"), ("edges", DenseBranch(1, activation="identity"), "edges")]
    return net.set_params(branches=branches, optimizer__param_groups=[("*branches.edges.*weight", {"weight_decay": 10.0})])


def edges_net(seed: int) -> LinearRegressor:
    return LinearRegressor(lr=1e-3, weight_decay=6.0, random_state=seed, **TRAINING)


def edges_of(folder: Path, i: int) -> np.ndarray:
    """How much edge of each direction there is in each cell of a house's photographs, flat."""
    each = []
    for room in ROOMS:
        with Image.open(folder / f"{i}_{room}.jpg") as image:
            grey = np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32).mean(axis=2) / 255
        down, right = np.gradient(grey)
        direction = (np.mod(np.arctan2(down, right), np.pi) / np.pi * N_DIRECTIONS).astype(int).clip(max=N_DIRECTIONS - 1)
        strength = np.hypot(down, right)
        width = SIZE // N_CELLS
        for k in range(N_DIRECTIONS):
            cells = np.where(direction == k, strength, 0).reshape(N_CELLS, width, N_CELLS, width)
            each.append(np.sqrt(cells.mean(axis=(1, 3))).ravel())
    return np.concatenate(each)
