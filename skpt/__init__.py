"""PyTorch networks as real scikit-learn estimators and real skorch nets."""

from skpt.estimators import (
    CNNClassifier,
    CNNRegressor,
    LinearClassifier,
    LinearRegressor,
    MLPClassifier,
    MLPRegressor,
    TCNClassifier,
    TCNRegressor,
    TransformerClassifier,
    TransformerRegressor,
    RNNClassifier,
    RNNRegressor,
    Seq2SeqRegressor,
)

__all__ = [
    "CNNClassifier",
    "CNNRegressor",
    "LinearClassifier",
    "LinearRegressor",
    "MLPClassifier",
    "MLPRegressor",
    "TCNClassifier",
    "TCNRegressor",
    "TransformerClassifier",
    "TransformerRegressor",
    "RNNClassifier",
    "RNNRegressor",
    "Seq2SeqRegressor",
    "__version__",
]

__version__ = "0.1.0"
