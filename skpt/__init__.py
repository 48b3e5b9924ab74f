"""PyTorch networks as real scikit-learn estimators and real skorch nets."""

from skpt.estimators import (
    CNNClassifier,
    CNNRegressor,
    LinearClassifier,
    LinearRegressor,
    MLPClassifier,
    MLPRegressor,
    RNNClassifier,
    RNNRegressor,
    Seq2SeqRegressor,
    TCNClassifier,
    TCNRegressor,
    TransformerClassifier,
    TransformerRegressor,
)

__all__ = [
    "CNNClassifier",
    "CNNRegressor",
    "LinearClassifier",
    "LinearRegressor",
    "MLPClassifier",
    "MLPRegressor",
    "RNNClassifier",
    "RNNRegressor",
    "Seq2SeqRegressor",
    "TCNClassifier",
    "TCNRegressor",
    "TransformerClassifier",
    "TransformerRegressor",
    "__version__",
]

__version__ = "0.1.0"
