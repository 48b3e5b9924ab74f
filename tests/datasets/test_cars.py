"""load_cars: the numbers, and the forms in which scikit-learn's loaders hand data out."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.utils import Bunch

from skpt.datasets import load_cars
from skpt.exceptions import InvalidInputError

FEATURES = ["cyl", "disp", "hp", "drat", "wt", "qsec", "vs", "am", "gear", "carb"]


def test_least_squares_line_of_mpg_on_wt_is_the_published_one():
    X, y = load_cars(features=["wt"], return_X_y=True)
    line = LinearRegression().fit(X, y)
    assert line.coef_ == pytest.approx([-5.344472], abs=5e-7)
    assert line.intercept_ == pytest.approx(37.285126, abs=5e-7)


def test_multiple_regression_on_every_column_is_the_published_one():
    # Every number enters: R's lm(mpg ~ ., mtcars) has R2 0.8690 and residual standard error 2.650 on 21 df.
    X, y = load_cars(return_X_y=True)
    model = LinearRegression().fit(X, y)
    assert model.score(X, y) == pytest.approx(0.8690, abs=5e-5)
    assert np.sqrt(((y - model.predict(X)) ** 2).sum() / 21) == pytest.approx(2.650, abs=5e-4)


def test_default_is_the_whole_numeric_table_with_mpg_as_target():
    cars = load_cars()
    assert isinstance(cars, Bunch)
    assert cars.data.shape == (32, 10) and cars.target.shape == (32,)
    assert cars.data.dtype == cars.target.dtype == np.float64
    assert cars.data.flags.c_contiguous
    assert cars.feature_names == FEATURES and cars.target_names == ["mpg"]
    assert len(set(cars.names)) == 32
    assert cars.frame is None


def test_bunch_has_the_fields_of_scikit_learns_loaders():
    theirs = set(load_diabetes()) - {"data_module", "data_filename", "target_filename"}
    assert theirs <= set(load_cars())


def test_file_has_the_twelve_columns_of_the_road_tests():
    table = pd.read_csv(load_cars().filename)
    assert list(table.columns) == [
        "name", "mpg", "cyl", "disp", "hp", "drat", "wt", "qsec", "vs", "am", "gear", "carb",
    ]  # fmt: skip
    pd.testing.assert_frame_equal(
        table[["mpg", *FEATURES]].set_index(pd.Index(table["name"], name="name")).astype(float),
        load_cars(as_frame=True).frame[["mpg", *FEATURES]],
    )


@pytest.mark.parametrize("features", [None, ["wt"], ("hp", "cyl"), np.array(["wt", "am"]), pd.Index(["gear"])])
@pytest.mark.parametrize("as_frame", [False, True])
def test_features_choose_the_columns_in_their_order(features, as_frame):
    whole = load_cars(as_frame=True).frame
    chosen = FEATURES if features is None else list(features)
    cars = load_cars(features=features, as_frame=as_frame)
    assert cars.feature_names == chosen
    np.testing.assert_array_equal(cars.data, whole[chosen])
    X, y = load_cars(features=features, as_frame=as_frame, return_X_y=True)
    np.testing.assert_array_equal(X, cars.data)
    np.testing.assert_array_equal(y, cars.target)


def test_frame_is_data_beside_target_with_the_cars_as_index():
    cars = load_cars(as_frame=True, features=["wt", "hp"])
    assert isinstance(cars.data, pd.DataFrame) and isinstance(cars.target, pd.Series)
    pd.testing.assert_frame_equal(cars.frame, pd.concat([cars.data, cars.target], axis=1))
    assert cars.frame.index.name == "name" and list(cars.frame.index) == cars.names
    assert cars.frame.loc["Fiat 128"].to_dict() == {"wt": 2.2, "hp": 66.0, "mpg": 32.4}


def test_what_is_handed_out_belongs_to_the_caller():
    X, y = load_cars(return_X_y=True)
    X[:], y[:] = 0, 0
    load_cars().feature_names.clear()
    X, y = load_cars(return_X_y=True)
    assert X.all(axis=0).sum() == 8 and y.all()  # vs and am alone hold zeros


def test_description_names_the_columns_and_the_source():
    description = load_cars().DESCR
    for word in ["mpg", *FEATURES, "Motor Trend US", "1974", "Henderson", "Velleman", "Biometrics 37", "391-411"]:
        assert re.search(rf"\b{word}\b", description), word


@pytest.mark.parametrize(
    ("features", "remedy"),
    [
        ("wt", "for example ['wt']"),
        ([], "for example ['wt']"),
        (5, "for example ['wt']"),
        (["wt", "mpg"], "'mpg' is the target; leave it out."),
        (["wtt"], "'wtt' is no column. Did you mean 'wt'?"),
        (["weight"], "'weight' is no column. Known are: am, carb, cyl"),
        (["wt", 3], "3 is no column."),
        (["wt", "hp", "wt"], "Give each column once."),
    ],
)
def test_features_that_cannot_be_used_are_named(features, remedy):
    with pytest.raises(InvalidInputError, match=re.escape(remedy)) as error:
        load_cars(features=features)
    assert str(error.value).startswith("The 'features' parameter of load_cars must be None or a sequence")
    assert f"Got {features!r} instead." in str(error.value)
