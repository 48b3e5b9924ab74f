"""PyTorch networks as real scikit-learn estimators and real skorch nets."""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from joblib import register_parallel_backend

if TYPE_CHECKING:
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
        MultiInputClassifier,
        MultiInputRegressor,
        MultiTaskEstimator,
        RNNBranch,
        RNNClassifier,
        RNNRegressor,
        Seq2SeqRegressor,
        TCNBranch,
        TCNClassifier,
        TCNRegressor,
        TransformerBranch,
        TransformerClassifier,
        TransformerRegressor,
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
    "MultiInputClassifier",
    "MultiInputRegressor",
    "MultiTaskEstimator",
    "RNNBranch",
    "RNNClassifier",
    "RNNRegressor",
    "Seq2SeqRegressor",
    "TCNBranch",
    "TCNClassifier",
    "TCNRegressor",
    "TransformerBranch",
    "TransformerClassifier",
    "TransformerRegressor",
    "__version__",
]

__version__ = "0.1.0"


_PARTS = {module.name for module in iter_modules(__path__)}


def __getattr__(name: str):
    """Import what is asked for: see `skpt.narwhals_plugin` for why not before."""
    if name in _PARTS:
        return import_module(f"skpt.{name}")
    if name in __all__:
        return getattr(import_module("skpt.estimators"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})


def _fused_backend(**settings):
    return import_module("skpt.fusion").FusedBackend(**settings)


register_parallel_backend("skpt", _fused_backend)
