"""The torch layer: networks as plain ``nn.Module`` classes, for hand-written loops and for the estimators."""

from skpt.modules.cnn import CNNModule
from skpt.modules.layers import (
    ACTIVATIONS,
    INITIALIZATIONS,
    BatchNorm1d,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    Dropout,
    FeedForward,
    Linear,
)
from skpt.modules.linear import LinearModule
from skpt.modules.mlp import MLPModule
from skpt.modules.multi_input import BranchModule, EmbeddingModule, JoinedModule, MultiInputModule
from skpt.modules.multi_task import MultiTaskModule
from skpt.modules.recurrent import RNNModule, Seq2SeqModule
from skpt.modules.recurrent_layers import Recurrent
from skpt.modules.tcn import TCNModule
from skpt.modules.transformer import TransformerModule

__all__ = [
    "ACTIVATIONS",
    "INITIALIZATIONS",
    "BatchNorm1d",
    "BatchNorm2d",
    "BranchModule",
    "CNNModule",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "EmbeddingModule",
    "FeedForward",
    "JoinedModule",
    "Linear",
    "LinearModule",
    "MLPModule",
    "MultiInputModule",
    "MultiTaskModule",
    "RNNModule",
    "Recurrent",
    "Seq2SeqModule",
    "TCNModule",
    "TransformerModule",
]
