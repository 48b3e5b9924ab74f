"""The estimators that the questions of ``../shared/conformity`` are put to, as its README tells.

Parameters are the defaults but for the seed and, for the MLPs, what the reference factory of scikit-learn's own MLPs has
too: 32 hidden units, lr 0.01, and 100 epochs (200 for the regressor).

    cp -r ../shared/conformity /tmp/conformity && cd /tmp/conformity
    PYTHONPATH=/path/to/skpt python run_checks.py --factory tests.conformity.factory:make --out checks.json

and the same with ``dropin.py`` and ``robust.py``. `make_tables` is for the rows of ``dropin.py`` that hand over a table with
texts or missing values as it is (``--test df_nan_numeric``, ``df_categorical``, ``df_categorical_nan_all``,
``df_unseen_category``): an estimator of numbers refuses them, and says what to put in front.
"""

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skpt import LinearClassifier, LinearRegressor, MLPClassifier, MLPRegressor


def make():
    """A new estimator of each kind, by the name of its class."""
    return {
        "LinearClassifier": LinearClassifier(random_state=0),
        "LinearRegressor": LinearRegressor(random_state=0),
        "MLPClassifier": MLPClassifier(hidden_layer_sizes=(32,), max_epochs=100, lr=0.01, random_state=0),
        "MLPRegressor": MLPRegressor(hidden_layer_sizes=(32,), max_epochs=200, lr=0.01, random_state=0),
    }


def make_tables():
    """The same behind the ColumnTransformer of the README, for the rows of raw tables with texts and missing values."""
    encode = make_column_transformer(
        (SimpleImputer(), make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
    )
    return {name: make_pipeline(encode, net) for name, net in make().items()}


LR = dict.fromkeys(make(), "lr")
EPOCHS = dict.fromkeys(make(), "max_epochs")
GRID = {name: {"lr": [0.01, 0.003]} for name in make()}
