"""The linear map, for linear, logistic and softmax regression."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from skpt.modules.layers import Affine, BatchNorm1d, Dropout, FeedForward, Linear, make_activation

__all__ = ["LinearModule"]


class LinearModule(FeedForward):
    """A linear map of the features, optionally normalised and with dropout before it and a link function after it.

    Parameters
    ----------
    n_features : int
        Number of input columns.
    n_outputs : int
        Number of output columns.
    bias : bool, default=True
        Whether an intercept is learnt.
    activation : str or callable, default="identity"
        Function of the output, the inverse link of a generalised linear model.
    dropout : float, default=0.0
        Probability that a feature is dropped while training.
    batch_norm : bool, default=False
        Whether the features are batch-normalised first, without a gain and a shift.
    initialization : str, default="default"
        How the first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``.
    units : (array-like, array-like), default=None
        Scale and offset of the outputs, each of shape (n_outputs,): the weights are then learnt in these units. None leaves
        the outputs as they are.
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
    >>> from skpt.modules import LinearModule
    >>> LinearModule(4, 1)(torch.zeros(5, 4)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        bias: bool = True,
        activation: str | Callable[[], nn.Module] = "identity",
        dropout: float = 0.0,
        batch_norm: bool = False,
        initialization: str = "default",
        units: tuple | None = None,
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if batch_norm:
            # A gain and a shift of its own would say what the weights say, and let them run away together.
            layers["batch_norm"] = BatchNorm1d(n_features, affine=False)
        if dropout:
            layers["dropout"] = Dropout(dropout, noise_generator)
        layers["output"] = Linear(n_features, n_outputs, bias, initialization=initialization, generator=generator)
        if units is not None:
            layers["units"] = Affine(*units)
        if activation != "identity":
            layers["activation"] = make_activation(activation)
        super().__init__(layers)

    @torch.no_grad()
    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Weights (n_outputs, n_features) and biases (n_outputs,) of the raw features, in double precision.

        In evaluation mode batch normalisation is linear too, and is folded in, as are the units.
        """
        weight = self.output.weight.detach()
        bias = self.output.bias.detach() if self.output.bias is not None else weight.new_zeros(len(weight))
        weight, bias = weight.double(), bias.double()
        if "batch_norm" in self._modules:
            norm = self.batch_norm
            weight = weight / torch.sqrt(norm.running_var.double() + norm.eps)
            bias = bias - weight @ norm.running_mean.double()
        if "units" in self._modules:
            scale, offset = self.units.scale.double(), self.units.offset.double()
            weight, bias = weight * scale.unsqueeze(1), bias * scale + offset
        return weight, bias
