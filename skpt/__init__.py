"""PyTorch networks as real scikit-learn estimators and real skorch nets."""

from skpt.estimators import (
    CNNBranch,
    CNNClassifier,
    CNNRegressor,
    DenseBranch,
    EmbeddingBranch,
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
    MultiInputClassifier,
    MultiInputRegressor,
    MultiTaskEstimator,
)

__all__ = [
    "CNNBranch",
    "CNNClassifier",
    "CNNRegressor",
    "DenseBranch",
    "EmbeddingBranch",
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
    "MultiInputClassifier",
    "MultiInputRegressor",
    "MultiTaskEstimator",
    "__version__",
]

__version__ = "0.1.0"
