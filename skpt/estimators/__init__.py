"""The estimators: one family a file, named as the networks in `skpt.modules`."""

from skpt.estimators.branches import Branch, CNNBranch, DenseBranch, EmbeddingBranch
from skpt.estimators.cnn import CNNClassifier, CNNRegressor
from skpt.estimators.linear import LinearClassifier, LinearRegressor
from skpt.estimators.mlp import MLPClassifier, MLPRegressor
from skpt.estimators.recurrent import RNNClassifier, RNNRegressor, Seq2SeqRegressor
from skpt.estimators.tcn import TCNClassifier, TCNRegressor
from skpt.estimators.transformer import TransformerClassifier, TransformerRegressor

__all__ = [
    "CNNClassifier",
    "CNNRegressor",
from skpt.estimators.multi_input import MultiInputClassifier, MultiInputRegressor
from skpt.estimators.multi_task import MultiTaskEstimator

__all__ = [
    "Branch",
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
]
