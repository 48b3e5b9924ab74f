"""The estimators: one family a file, named as the networks in `skpt.modules`."""

from skpt.estimators.branches import Branch, CNNBranch, DenseBranch, EmbeddingBranch, RNNBranch, TCNBranch, TransformerBranch
from skpt.estimators.cnn import CNNClassifier, CNNRegressor
from skpt.estimators.linear import LinearClassifier, LinearRegressor
from skpt.estimators.mlp import MLPClassifier, MLPRegressor
from skpt.estimators.multi_input import MultiInputClassifier, MultiInputRegressor
from skpt.estimators.multi_task import MultiTaskEstimator
from skpt.estimators.preparation import fit_small_nets
from skpt.estimators.recurrent import RNNClassifier, RNNRegressor, Seq2SeqRegressor
from skpt.estimators.tcn import TCNClassifier, TCNRegressor
from skpt.estimators.transformer import TransformerClassifier, TransformerRegressor
from skpt.fusion.workers import prepare_by

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
]

prepare_by(fit_small_nets)
