"""``skpt compare``: on the cars it finds the course's line, on a CSV file it handles every kind of column."""

import contextlib
import io
import re
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

from skpt import LinearRegressor, MLPRegressor
from skpt.cli import main
from skpt.datasets import load_cars
from skpt.exceptions import SkptError

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def cars_run(tmp_path_factory):
    """What the main job prints, and the folder that it fills."""
    folder = tmp_path_factory.mktemp("cars") / "new" / "folder"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["compare", "--out", str(folder)]) == 0
    return printed.getvalue(), folder


@pytest.fixture
def run(capsys):
    """Run the command; give exit code, stdout and stderr."""

    def run(*argv):
        code = main(["compare", *map(str, argv)])
        return code, *capsys.readouterr()

    return run


def houses(n_rows=40):
    """A table with every kind of column, whose price is nearly a straight line of them."""
    rng = np.random.default_rng(0)
    area, garden = rng.uniform(40, 200, n_rows), rng.integers(0, 2, n_rows).astype(bool)
    town = rng.choice(["Ulm", "Bonn", "Kiel"], n_rows)
    price = 3000 * area + 20_000 * garden + 50_000 * (town == "Bonn") + rng.normal(0, 3000, n_rows)
    frame = pd.DataFrame({"id": range(1, n_rows + 1), "area": area, "garden": garden, "town": town})
    frame["sold"] = pd.date_range("2020-01-31", periods=n_rows, freq="37D").strftime("%d.%m.%Y")
    frame["empty"] = np.nan
    frame.loc[3, "area"], frame.loc[5, "town"] = np.nan, np.nan
    return frame.assign(price=price.round(2), dear=np.where(price > np.median(price), "yes", "no"))


@pytest.fixture
def houses_file(tmp_path):
    path = tmp_path / "houses.csv"
    houses().to_csv(path, index=False)
    return path


# The cars


def test_cars_table_holds_the_four_estimators_and_scikit_learns_own_scores(cars_run):
    _, folder = cars_run
    table = pd.read_csv(folder / "comparison.csv", index_col=0)
    names = ["LinearRegression", "LinearRegressor", "LinearRegressor, tuned", "MLPRegressor"]
    assert table.index.tolist() == names
    assert table["failure"].isna().all()
    X, y = load_cars(features=["wt"], return_X_y=True)
    expected = cross_val_score(LinearRegression(), X, y, cv=KFold(5, shuffle=True, random_state=0))
    np.testing.assert_allclose(table.loc["LinearRegression", "fold_0":"fold_4"].astype(float), expected)
    assert abs(table.loc["LinearRegressor", "difference"]) < 0.01


def test_cars_table_is_printed(cars_run):
    printed, folder = cars_run
    for name, mean in pd.read_csv(folder / "comparison.csv", index_col=0)["mean"].items():
        assert re.search(rf"^{name} +{mean:.4f} ", printed, re.MULTILINE)


def test_cars_search_is_the_courses(cars_run):
    printed, _ = cars_run
    X, y = load_cars(features=["wt"], return_X_y=True)
    net = LinearRegressor(optimizer="sgd", batch_size=-1, standardize_features=False, random_state=0)
    grid = {"lr": [0.02, 0.05, 0.08], "max_epochs": [10, 200, 500]}
    with pytest.warns():  # lr=0.08 diverges
        search = GridSearchCV(net, grid, cv=3, scoring="r2").fit(X, y)
    found = ", ".join(f"{name}={value}" for name, value in search.best_params_.items())
    assert f"in 3 folds: {found}, r2 {search.best_score_:.4f}\n" in printed
    results = zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
    diverged = [f"lr={params['lr']}, max_epochs={params['max_epochs']}" for params, score in results if np.isnan(score)]
    assert re.findall(r"^diverged: (.*)$", printed, re.MULTILINE) == diverged != []
    slope, intercept = search.best_estimator_.coef_[0], search.best_estimator_.intercept_
    assert re.search(rf"^LinearRegressor, tuned +{slope:.6f} +{intercept:.6f}$", printed, re.MULTILINE)


def test_cars_line_is_printed_beside_the_exact_one(cars_run):
    printed, _ = cars_run
    assert re.search(r"^least squares, exact +-5\.344472 +37\.285126$", printed, re.MULTILINE)
    slope, intercept = re.search(r"^LinearRegressor +(-?\d\.\d{6}) +(\d+\.\d{6})$", printed, re.MULTILINE).groups()
    assert float(slope) == pytest.approx(-5.344472, abs=0.01)
    assert float(intercept) == pytest.approx(37.285126, abs=0.05)


def test_cars_winner_is_saved_as_it_was_trained(cars_run):
    printed, folder = cars_run
    table = pd.read_csv(folder / "comparison.csv", index_col=0)
    assert table["mean"].idxmax() == "MLPRegressor"
    assert (
        "\nwinner: MLPRegressor, trained on all 32 rows\nsaved and loaded into a fresh estimator: the predictions agree\n"
        in printed
    )
    X, y = load_cars(features=["wt"], return_X_y=True)
    loaded = MLPRegressor()
    loaded.load_params(f_params=folder / "winner.safetensors", use_safetensors=True)
    np.testing.assert_allclose(loaded.predict(X), MLPRegressor(random_state=0).fit(X, y).predict(X), rtol=1e-5)


def test_cars_files_are_there_and_named(cars_run):
    printed, folder = cars_run
    for name in ["comparison.csv", "comparison.png", "winner.safetensors"]:
        assert f" {folder / name}\n" in printed
    assert (folder / "comparison.png").read_bytes().startswith(PNG)
    assert len(list(folder.iterdir())) == 3


def test_cars_folds_and_estimators_take_the_seed(run, monkeypatch):
    def stop(estimators, X, y, **options):
        nets = [each.estimator if isinstance(each, GridSearchCV) else each for each in estimators.values()]
        seeds = [net.random_state for net in nets if hasattr(net, "random_state")]
        raise SkptError(f"{seeds} {options['random_state']} {options['cv']}")

    monkeypatch.setattr("skpt.cli.compare.compare_estimators", stop)
    assert run("--seed", 7, "--cv", 4)[2] == "skpt compare: error: [7, 7, 7] 7 4\n"


# A file


def test_regression_on_a_file(run, houses_file):
    code, printed, said = run(houses_file, "--target", "price", "--cv", 4)
    assert (code, said) == (0, "")
    for line in [
        "houses.csv: 40 rows, target price: regression (40 different numbers)",
        "columns:  3 of numbers, 4 of categories",  # area, garden, days; town, dear, month, weekday
        "missing:  1 value in columns of numbers, replaced by the median",
        "missing:  1 value in columns of categories, a category of their own",
        "dates:    sold",
        "left out: id (numbers the rows), empty (no values)",
        "r2 over 4 folds, higher is better",
    ]:
        assert f"{line}\n" in printed
    names = re.findall(r"^(\w+) +0\.\d{4} +0\.\d{4} +", printed, re.MULTILINE)
    assert sorted(names) == ["LinearRegression", "LinearRegressor", "MLPRegressor"]


def test_classification_on_a_file(run, houses_file):
    code, printed, said = run(houses_file, "--target", "dear", "--cv", 4)
    assert (code, said) == (0, "")
    assert "target dear: classification (2 different texts)\nclasses:  yes (20), no (20)\n" in printed
    assert "accuracy over 4 folds" in printed
    names = re.findall(r"^(\w+) +[01]\.\d{4} +0\.\d{4} +", printed, re.MULTILINE)
    assert sorted(names) == ["LinearClassifier", "LogisticRegression", "MLPClassifier"]


def test_linear_regressor_reaches_the_baseline(run, tmp_path):
    houses(120).drop(columns=["dear", "sold"]).to_csv(tmp_path / "large.csv", index=False)
    assert run(tmp_path / "large.csv", "--target", "price", "--out", tmp_path / "out")[0] == 0
    table = pd.read_csv(tmp_path / "out" / "comparison.csv", index_col=0)
    assert table.loc["LinearRegression", "mean"] > 0.95
    assert table.loc["LinearRegressor", "difference"] == pytest.approx(0, abs=1e-3)


def test_task_decides_over_the_target(run, tmp_path):
    path = tmp_path / "grades.csv"
    pd.DataFrame({"hours": np.arange(30.0) % 13, "grade": np.arange(30) % 13 // 5}).to_csv(path, index=False)
    assert "classification (3 different whole numbers)" in run(path, "--target", "grade", "--cv", 2)[1]
    printed = run(path, "--target", "grade", "--cv", 2, "--task", "regression")[1]
    assert "regression (3 different whole numbers, --task regression)" in printed
    assert "MLPRegressor" in printed


def test_seed_fixes_everything_but_the_times(run, houses_file, global_generators_untouched):
    def scores(seed):
        printed = run(houses_file, "--target", "price", "--cv", 2, "--seed", seed)[1]
        return re.sub(r" +", " ", re.sub(r"\d+\.\d+ m?s\b", "time", printed))

    assert scores(1) == scores(1)
    assert scores(1) != scores(2)


def test_without_out_nothing_is_left_behind(run, houses_file, tmp_path, monkeypatch):
    for name in ["temporary", "current"]:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "current")
    code, printed, _ = run(houses_file, "--target", "dear", "--cv", 2)
    assert code == 0
    assert "saved and loaded into a fresh estimator: the predictions agree\nnothing was kept: give --out DIR" in printed
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["current", "houses.csv", "temporary"]


def test_parameters_are_those_of_the_network_alone(run, houses_file, tmp_path):
    code, printed, _ = run(houses_file, "--target", "dear", "--cv", 2, "--out", tmp_path)
    assert code == 0
    assert printed.endswith("\n            (of the network; how the columns are prepared is not in the file)\n")
    assert all(torch.isfinite(tensor.float()).all() for tensor in load_file(tmp_path / "winner.safetensors").values())


def test_winner_of_ours_is_the_winner_unless_the_baseline_is_better(run, tmp_path):
    path = tmp_path / "easy.csv"
    pd.DataFrame({"x": np.arange(24.0) // 12, "y": ["a"] * 12 + ["b"] * 12}).to_csv(path, index=False)
    assert "\nwinner: LinearClassifier," in run(path, "--target", "y", "--cv", 2)[1]  # all are right everywhere
    pd.DataFrame({"x": np.arange(24.0), "y": 3 * np.arange(24.0) + 1}).to_csv(path, index=False)
    printed = run(path, "--target", "y", "--cv", 2)[1]
    assert "\nwinner of skpt (the highest mean is that of LinearRegression): LinearRegressor," in printed


def test_warnings_of_many_fits_are_one_note(run, tmp_path):
    path = tmp_path / "zoo.csv"
    pd.DataFrame({"legs": np.arange(24) % 7, "kind": ["a"] * 10 + ["b"] * 11 + ["rare"] * 3}).to_csv(path, index=False)
    code, printed, said = run(path, "--target", "kind", "--cv", 4)
    assert (code, said) == (0, "")
    assert "\nnote: 1 x UserWarning: The least populated class in y has only 3 members" in printed


def test_without_matplotlib_the_picture_is_left_out(run, houses_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, printed, _ = run(houses_file, "--target", "price", "--cv", 2, "--out", tmp_path / "out")
    assert code == 0
    assert "picture:    left out, it needs matplotlib: skpt[plot]\n" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.csv", "winner.safetensors"]


# What goes wrong


class Broken(RegressorMixin, BaseEstimator):
    def __init__(self, random_state=None, optimizer=None, lr=None, lr_schedule=None, standardize_target=None):
        self.random_state, self.optimizer, self.lr = random_state, optimizer, lr
        self.lr_schedule, self.standardize_target = lr_schedule, standardize_target

    def fit(self, X, y):
        raise FloatingPointError("the loss is nan")


def test_one_that_fails_is_marked_and_the_others_go_on(run, houses_file, monkeypatch):
    monkeypatch.setattr("skpt.cli.compare.MLPRegressor", Broken)
    code, printed, said = run(houses_file, "--target", "price", "--cv", 2)
    assert (code, said) == (0, "")
    assert "Broken: failed on 2 of 2 folds: FloatingPointError: the loss is nan" in printed
    assert re.search("winner.*: LinearRegressor,", printed)
    assert "note:" not in printed


def test_if_all_of_ours_fail_the_exit_code_says_so(run, houses_file, monkeypatch):
    monkeypatch.setattr("skpt.cli.compare.MLPRegressor", Broken)
    monkeypatch.setattr("skpt.cli.compare.LinearRegressor", Broken)
    code, printed, said = run(houses_file, "--target", "price", "--cv", 2)
    assert code == 1
    assert "LinearRegression " in printed
    assert said == "skpt compare: error: no estimator of skpt could be trained, for the reasons under the table\n"


def test_parameters_that_do_not_come_back_are_an_error(run, houses_file, monkeypatch):
    load_params = LinearRegressor.load_params

    def forgetful(self, **kwargs):
        load_params(self, **kwargs)
        with torch.no_grad():
            next(self.module_.parameters()).add_(1.0)

    monkeypatch.setattr(LinearRegressor, "load_params", forgetful)
    monkeypatch.setattr("skpt.cli.compare.MLPRegressor", Broken)
    code, _, said = run(houses_file, "--target", "price", "--cv", 2)
    assert (code, said) == (1, "skpt compare: error: LinearRegressor predicts otherwise once it was saved and loaded\n")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["none.csv", "--target", "y"], "there is no file none.csv"),
        ([".", "--target", "y"], ". is a folder. Give a CSV file."),
        (["empty.csv", "--target", "y"], "empty.csv is empty"),
        (["houses.csv", "--target", "prize"], "houses.csv has no column 'prize'. Did you mean 'price'?"),
        (["houses.csv", "--target", "area"], "the target 'area' has 1 missing value, the first in row 4. Fill or remove"),
        (["houses.csv", "--target", "town", "--task", "regression"], "the target 'town' has 1 missing value"),
        (["houses.csv", "--target", "dear", "--task", "regression"], "--task regression needs a target of numbers."),
        (["houses.csv"], "--target is missing: which column of houses.csv shall be predicted?"),
        (["--target", "mpg"], "--target mpg needs a FILE that has this column"),
        (["--cv", "17"], "--cv 17 needs 34 rows, and there are 32 cars"),
        (["houses.csv", "--target", "price", "--cv", "21"], "--cv 21 needs 42 rows, and there are 40."),
        (["few.csv", "--target", "y"], "--cv 5 needs 5 rows of one class and 2 of another, and the largest classes are"),
        (["lone.csv", "--target", "y"], "--cv 5 needs 5 rows of one class and 2 of another, and the largest classes are"),
        (["--out", "houses.csv"], "--out houses.csv is no folder to write to: File exists"),
        (["--out", "houses.csv/out"], "--out houses.csv/out is no folder to write to: Not a directory"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(argv, said, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    houses().to_csv("houses.csv", index=False)
    (tmp_path / "empty.csv").touch()
    pd.DataFrame({"x": range(12), "y": list("aaaabbbbcccc")}).to_csv("few.csv", index=False)
    pd.DataFrame({"x": range(12), "y": list("aaaaaaaaaaab")}).to_csv("lone.csv", index=False)
    before = sorted(tmp_path.rglob("*"))
    code, printed, error = run(*argv)
    assert code == 2
    assert error.startswith(f"skpt compare: error: {said}")
    assert error.count("\n") == 1
    assert not printed
    assert sorted(tmp_path.rglob("*")) == before


def test_folder_is_not_made_where_the_file_is_of_no_use(run, tmp_path):
    assert run(tmp_path / "none.csv", "--target", "y", "--out", tmp_path / "out")[0] == 2
    assert not (tmp_path / "out").exists()
