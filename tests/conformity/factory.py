"""The estimators that the questions of ``../shared/conformity`` are put to, as its README tells.

Parameters are the defaults but for the seed and, for the MLPs, what the reference factory of scikit-learn's own MLPs has
too: 32 hidden units, lr 0.01, and 100 epochs (200 for the regressor).

    cp -r ../shared/conformity /tmp/conformity && cd /tmp/conformity
    PYTHONPATH=/path/to/skpt python run_checks.py --factory tests.conformity.factory:make --out checks.json

and the same with ``dropin.py`` and ``robust.py``.
"""

from skpt import LinearClassifier, LinearRegressor, MLPClassifier, MLPRegressor


def make():
    """A new estimator of each kind, by the name of its class."""
    return {
        "LinearClassifier": LinearClassifier(random_state=0),
        "LinearRegressor": LinearRegressor(random_state=0),
        "MLPClassifier": MLPClassifier(hidden_layer_sizes=(32,), max_epochs=100, lr=0.01, random_state=0),
        "MLPRegressor": MLPRegressor(hidden_layer_sizes=(32,), max_epochs=200, lr=0.01, random_state=0),
    }


LR = dict.fromkeys(make(), "lr")
EPOCHS = dict.fromkeys(make(), "max_epochs")
GRID = {name: {"lr": [0.01, 0.003]} for name in make()}
