"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from skpt.modules.layers import FeedForward, dense_layers

__all__ = ["MLPModule"]


class MLPModule(FeedForward):
    """Fully connected layers with an activation between them (a multilayer perceptron).

    Each hidden layer is linear, batch normalisation (optional), activation, dropout (optional), in that order. The output
    layer is linear: logits for classes, plain numbers for a regression.

    Parameters
    ----------
    n_features : int
        Number of input columns.
    n_outputs : int
        Number of output columns.
    hidden_layer_sizes : sequence of int, default=(100,)
        Number of units of each hidden layer; empty gives a linear map.
    activation : str or callable, default="relu"
        Nonlinearity of the hidden layers: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.
    dropout : float, default=0.0
        Probability that a hidden unit is dropped while training.
    batch_norm : bool, default=False
        Whether the hidden layers are batch-normalised.
    initialization : str, default="default"
        How the first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``.
    generator : torch.Generator, default=None
        Where the first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where the dropout masks come from. None takes torch's global generator.

    Shape
    -----
    (N, n_features) to (N, n_outputs).

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import MLPModule
    >>> MLPModule(4, 3, hidden_layer_sizes=(16, 8))(torch.zeros(5, 4)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        hidden_layer_sizes: Sequence[int] = (100,),
        *,
        activation: str | Callable[[], nn.Module] = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        super().__init__(
            dense_layers(
                n_features,
                n_outputs,
                hidden_layer_sizes,
                activation=activation,
                dropout=dropout,
                batch_norm=batch_norm,
                initialization=initialization,
                generator=generator,
                noise_generator=noise_generator,
            )
        )
