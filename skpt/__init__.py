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

if not TYPE_CHECKING:  # to a type checker every name would be there

    def __getattr__(name: str):
        """Import what is asked for: see `skpt.narwhals_plugin` for why not before."""
        if name not in _PARTS and name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        estimators = import_module("skpt.estimators")  # first: threads that import parts by themselves wait for each other
        return import_module(f"skpt.{name}") if name in _PARTS else getattr(estimators, name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in _PARTS if not name.startswith("_"))})


def _fused_backend(**settings):
    return import_module("skpt.fusion").FusedBackend(**settings)


register_parallel_backend("skpt", _fused_backend)
