"""The layers that every network of skpt is built from.

They compute what torch's own layers compute and keep torch's parameter names and shapes. They differ in three things that a
trustworthy fit needs: random numbers come from a generator that the owner passes (torch's global generator is only used
where none was given), batch normalisation takes sample weights, and a linear layer takes sparse rows.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

__all__ = [
    "ACTIVATIONS",
    "INITIALIZATIONS",
    "Affine",
    "BatchNorm1d",
    "BatchNorm2d",
    "Conv1d",
    "Conv2d",
    "Dropout",
    "FeedForward",
    "Layers",
    "Linear",
    "MaskStream",
    "WeightedBatchNorm",
    "dense_layers",
    "make_activation",
]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "celu": nn.CELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "hardswish": nn.Hardswish,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "softsign": nn.Softsign,
    "sigmoid": nn.Sigmoid,
    "logistic": nn.Sigmoid,
    "softplus": nn.Softplus,
}


# What torch's layers ask of nn.init.kaiming_uniform_, whose own steps take as long as the rest of a small layer.
_DEFAULT_GAIN = nn.init.calculate_gain("leaky_relu", math.sqrt(5))


def _torch_default(layer: nn.Module, generator: torch.Generator | None) -> None:
    fan_in = math.prod(layer.weight.shape[1:])
    if fan_in:
        bound = math.sqrt(3.0) * (_DEFAULT_GAIN / math.sqrt(fan_in))  # in torch's order, to the last bit
        layer.weight.uniform_(-bound, bound, generator=generator)
    if layer.bias is not None:
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        layer.bias.uniform_(-bound, bound, generator=generator)


def _weights_only(fill: Callable) -> Callable:
    """Fill the weights by `fill` and set the bias to zero, as the papers of these schemes do."""

    def initialize(layer: nn.Module, generator: torch.Generator | None) -> None:
        fill(layer.weight, generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    return initialize


def _kaiming(fill: Callable) -> Callable:
    return lambda weight, generator: fill(weight, nonlinearity="relu", generator=generator)


def _zeros(weight: Tensor, generator: torch.Generator | None) -> None:
    nn.init.zeros_(weight)


INITIALIZATIONS: dict[str, Callable[[nn.Module, torch.Generator | None], None]] = {
    "default": _torch_default,
    "kaiming_uniform": _weights_only(_kaiming(nn.init.kaiming_uniform_)),
    "kaiming_normal": _weights_only(_kaiming(nn.init.kaiming_normal_)),
    "xavier_uniform": _weights_only(nn.init.xavier_uniform_),
    "xavier_normal": _weights_only(nn.init.xavier_normal_),
    "orthogonal": _weights_only(nn.init.orthogonal_),
    "uniform": _weights_only(lambda weight, generator: nn.init.uniform_(weight, -0.1, 0.1, generator=generator)),
    "normal": _weights_only(lambda weight, generator: nn.init.normal_(weight, 0.0, 0.05, generator=generator)),
    "zeros": _weights_only(_zeros),
}


def make_activation(activation: str | Callable[[], nn.Module]) -> nn.Module:
    """Build one activation layer.

    Parameters
    ----------
    activation : str or callable
        A name of `ACTIVATIONS`, or a callable without arguments that gives an elementwise ``nn.Module``, such as a class
        or a ``functools.partial`` of one. An ``nn.Module`` is copied.

    Returns
    -------
    torch.nn.Module
        A new layer.

    Raises
    ------
    ValueError
        If the name is unknown, or what was given makes no layer.
    """
    if isinstance(activation, nn.Module):
        return copy.deepcopy(activation)
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]()
    made = None
    if not isinstance(activation, str):
        with suppress(TypeError):  # a function of a tensor, not of nothing
            made = activation()
    if not isinstance(made, nn.Module):
        raise ValueError(
            f"activation must be one of {sorted(ACTIVATIONS)} or a class of torch.nn.Module, such as torch.nn.ReLU. "
            f"Got {activation!r}."
        )
    return made


class _DrawsWeights:
    """A layer of torch's whose first weights are drawn by a named scheme from a generator."""

    def __init__(self, *args, initialization: str = "default", generator: torch.Generator | None = None, **kwargs):
        if initialization not in INITIALIZATIONS:
            raise ValueError(f"initialization must be one of {sorted(INITIALIZATIONS)}. Got {initialization!r}.")
        self._first_weights = (initialization, generator)
        super().__init__(*args, **kwargs)
        del self._first_weights

    def reset_parameters(self) -> None:
        """Draw new weights; by torch's default and global generator if called by hand."""
        initialization, generator = self.__dict__.get("_first_weights", ("default", None))
        with torch.no_grad():
            INITIALIZATIONS[initialization](self, generator)


class Linear(_DrawsWeights, nn.Linear):
    """``torch.nn.Linear`` whose first weights come from a generator; X may be a sparse CSR matrix.

    Parameters
    ----------
    in_features : int
        Number of columns of the input.
    out_features : int
        Number of columns of the output.
    bias : bool, default=True
        Whether a bias is added.
    initialization : str, default="default"
        A name of `INITIALIZATIONS`. "default" is torch's: uniform within 1 / sqrt(in_features), bias too.
    generator : torch.Generator, default=None
        Where the numbers come from. None takes torch's global one.

    Shape
    -----
    (N, in_features) to (N, out_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        initialization: str = "default",
        generator: torch.Generator | None = None,
    ):
        super().__init__(in_features, out_features, bias, initialization=initialization, generator=generator)


with warnings.catch_warnings():
    # Torch says once per process that "same" padding of an even kernel takes a copy: here, at import, and not in a user's fit.
    warnings.simplefilter("ignore")
    nn.functional.conv1d(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), padding="same")


class Conv1d(_DrawsWeights, nn.Conv1d):
    """``torch.nn.Conv1d`` whose first weights come from a generator.

    Parameters
    ----------
    *args
        As for torch's.
    initialization : str, default="default"
        A name of `INITIALIZATIONS`. "default" is torch's: uniform within 1 / sqrt(fan_in), bias too.
    generator : torch.Generator, default=None
        Where the numbers come from. None takes torch's global one.
    **kwargs
        As for torch's.

    Shape
    -----
    (N, in_channels, length) to (N, out_channels, new length).
    """


class Conv2d(_DrawsWeights, nn.Conv2d):
    """``torch.nn.Conv2d`` whose first weights come from a generator.

    Parameters
    ----------
    *args
        As for torch's.
    initialization : str, default="default"
        A name of `INITIALIZATIONS`. "default" is torch's: uniform within 1 / sqrt(fan_in), bias too.
    generator : torch.Generator, default=None
        Where the numbers come from. None takes torch's global one.
    **kwargs
        As for torch's.

    Shape
    -----
    (N, in_channels, height, width) to (N, out_channels, new height, new width).
    """


class MaskStream:
    """The dropout masks of one layer, drawn from one generator in blocks.

    One call of the generator serves many batches, because it costs more than the mask of a small batch. How large a block
    is depends on the layer alone, so that the masks are the same whether a network trains alone or stacked with others.

    Parameters
    ----------
    p : float
        Probability of a zero.
    generator : torch.Generator or None
        Where the numbers come from; None takes torch's global one.
    """

    BLOCK = 1 << 16  # numbers drawn at a time: 256 kB, about 150 us

    def __init__(self, p: float, generator: torch.Generator | None):
        self.p, self.generator = p, generator
        self.shape: tuple[int, ...] = ()
        self.block: Tensor | None = None
        self.n_masks = self.position = 0  # masks of the block, and how many of them were used
        self.device = torch.device("cpu")
        self.drawn_from: Tensor | None = None  # the generator's state before it drew the block

    def next(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Give the mask of the next batch: 0 or 1 / (1 - p), float32 of `shape`.

        A batch that is smaller along the first axis than the one before (the last of an epoch) uses the first rows of
        the next mask.
        """
        fits = self.shape[1:] == shape[1:] and len(self.shape) == len(shape) and shape[0] <= self.shape[0]
        if not fits or self.position == self.n_masks or self.device != device:
            self.shape = self.shape if fits else tuple(shape)
            self.n_masks, self.position = max(1, self.BLOCK // max(1, math.prod(self.shape))), 0
            self.device = device
            self.drawn_from = None if self.generator is None else self.generator.get_state()
            self.block = self._draw_block(self.generator)
        elif self.block is None:  # in a copy, which goes on with the same masks
            generator = torch.Generator(device)
            generator.set_state(self.drawn_from)
            self.block = self._draw_block(generator)
        self.position += 1
        return self.block[self.position - 1][: shape[0]]

    def _draw_block(self, generator: torch.Generator | None) -> Tensor:
        out = torch.empty((self.n_masks, *self.shape), device=self.device)
        if self.p >= 1.0:
            return out.zero_()
        return out.uniform_(generator=generator).ge_(self.p).mul_(1.0 / (1.0 - self.p))

    def __getstate__(self) -> dict:
        if self.drawn_from is None:  # of the global generator: a copy draws anew
            return {**vars(self), "block": None, "n_masks": 0, "position": 0}
        return {**vars(self), "block": None, "generator": None}


class Dropout(nn.Module):
    """``torch.nn.Dropout`` with a generator of its own.

    Parameters
    ----------
    p : float
        Probability that an entry is set to zero while training; the others are divided by 1 - p.
    generator : torch.Generator, default=None
        Where the masks come from. None takes torch's global one.

    Shape
    -----
    any, unchanged.
    """

    def __init__(self, p: float, generator: torch.Generator | None = None):
        super().__init__()
        self.p = p
        self.generator = generator
        self.masks: MaskStream | None = None

    def forward(self, X: Tensor) -> Tensor:
        """Drop entries of X while training; give X back otherwise."""
        if not self.training or not self.p:
            return X
        return X * self.next_mask(tuple(X.shape), X.device)

    def next_mask(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Give the mask of the next batch, of `shape`; see `MaskStream`."""
        if self.masks is None or self.masks.p != self.p:
            self.masks = MaskStream(self.p, self.generator)
        elif self.masks.generator is not self.generator:
            if self.masks.generator is not None or self.masks.drawn_from is None:
                self.masks = MaskStream(self.p, self.generator)
            self.masks.generator = self.generator  # a copy got its generator
        return self.masks.next(shape, device)

    def extra_repr(self) -> str:
        """Give the rate, as torch's layer does."""
        return f"p={self.p}"

    def __getstate__(self) -> dict:
        # A generator is not part of what a layer is: the owner passes one again before training goes on.
        return {**super().__getstate__(), "generator": None}


class WeightedBatchNorm:
    """Batch normalisation whose statistics take sample weights; a mixin before one of torch's ``BatchNorm`` classes.

    A row of weight 2 counts as two rows and one of weight 0 as none. A batch of one number per channel, where a variance has
    no meaning, leaves the running statistics as they are instead of raising.
    """

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Normalise X of shape (N, n_channels, ...), by its own statistics while training."""
        if not self.training or (sample_weight is None and X.numel() > X.shape[1]):
            return super().forward(X)
        mean, var, n_numbers = weighted_moments(X, sample_weight)
        if n_numbers > 1 and self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(var * (n_numbers / (n_numbers - 1)), self.momentum)
        shape = (-1,) + (1,) * (X.ndim - 2)  # of what there is one of per channel
        normalised = (X - mean.view(shape)) * torch.rsqrt(var + self.eps).view(shape)
        return normalised if self.weight is None else normalised * self.weight.view(shape) + self.bias.view(shape)


class BatchNorm1d(WeightedBatchNorm, nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` whose batch statistics take sample weights; see `WeightedBatchNorm`.

    Shape
    -----
    (N, n_features) or (N, n_channels, length), unchanged.
    """


class BatchNorm2d(WeightedBatchNorm, nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` whose batch statistics take sample weights; see `WeightedBatchNorm`.

    Shape
    -----
    (N, n_channels, height, width), unchanged.
    """


def weighted_moments(X: Tensor, sample_weight: Tensor | None) -> tuple[Tensor, Tensor, int]:
    """Weighted mean and (biased) variance of each channel of X, (N, n_channels, ...), and its numbers of positive weight."""
    if sample_weight is None:
        sample_weight = X.new_ones(len(X))
    share = (sample_weight / sample_weight.sum().clamp_min(torch.finfo(X.dtype).tiny)).unsqueeze(0)
    n_rows = int((sample_weight > 0).sum())
    if X.ndim == 2:
        mean = (share @ X).squeeze(0)
        return mean, (share @ (X - mean).square()).squeeze(0), n_rows
    X = X.flatten(2)
    mean = (share @ X.mean(2)).squeeze(0)
    return mean, (share @ (X - mean[:, None]).square().mean(2)).squeeze(0), n_rows * X.shape[2]


class Affine(nn.Module):
    """A fixed scale and offset of each column: outputs in the units of what is learnt.

    Parameters
    ----------
    scale : array-like of shape (n_outputs,)
        What the columns are multiplied by.
    offset : array-like of shape (n_outputs,)
        What is added.

    Shape
    -----
    (N, n_outputs), unchanged.
    """

    def __init__(self, scale, offset):
        super().__init__()
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        self.register_buffer("offset", torch.as_tensor(offset, dtype=torch.float32))

    def forward(self, X: Tensor) -> Tensor:
        """Scale and shift X of shape (N, n_outputs)."""
        return torch.addcmul(self.offset, X, self.scale)


class Layers(nn.Sequential):
    """Layers one after another that take rows and their weights.

    Shape
    -----
    (N, ...) to (N, n_outputs).
    """

    takes_sample_weight = True
    draws_from_generator = True

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Map X of shape (N, ...) to the outputs; `sample_weight` enters batch statistics alone."""
        for layer in self:
            X = layer(X, sample_weight) if isinstance(layer, WeightedBatchNorm) else layer(X)
        return X


class FeedForward(Layers):
    """Layers of rows of numbers, dense or sparse.

    Whatever is built from `Linear`, `BatchNorm1d`, `Dropout` and elementwise activations only can be trained many at a
    time, as one stack.

    Shape
    -----
    (N, n_features) to (N, n_outputs).
    """

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Map X of shape (N, n_features) to the outputs; `sample_weight` enters batch statistics alone."""
        if X.layout != torch.strided and not isinstance(self[0], nn.Linear):
            X = X.to_dense()  # the rows of one batch; a linear layer takes them as they are
        return super().forward(X, sample_weight)


def dense_layers(
    n_features: int,
    n_outputs: int,
    hidden_layer_sizes: Sequence[int],
    *,
    activation: str | Callable[[], nn.Module],
    dropout: float,
    batch_norm: bool,
    initialization: str,
    generator: torch.Generator | None,
    noise_generator: torch.Generator | None,
) -> OrderedDict[str, nn.Module]:
    """Build the layers of a multilayer perceptron: a network of its own, or the head of another.

    Each hidden layer is linear, batch normalisation (optional), activation, dropout (optional), in that order; the output
    layer is linear.

    Parameters
    ----------
    n_features, n_outputs : int
        Columns of the input and of the output.
    hidden_layer_sizes : sequence of int
        Number of units of each hidden layer.
    activation : str or callable
        As for `make_activation`.
    dropout : float
        Probability that a hidden unit is dropped while training.
    batch_norm : bool
        Whether the hidden layers are batch-normalised.
    initialization : str
        A name of `INITIALIZATIONS`.
    generator, noise_generator : torch.Generator or None
        Where first weights and dropout masks come from.

    Returns
    -------
    OrderedDict of str to torch.nn.Module
        ``hidden_1``, ``batch_norm_1``, ``activation_1``, ``dropout_1``, ..., ``output``.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    n_in = n_features
    for i, n_units in enumerate(hidden_layer_sizes, start=1):
        # Batch normalisation takes off what a bias adds, and has a shift of its own.
        layers[f"hidden_{i}"] = Linear(n_in, n_units, not batch_norm, initialization=initialization, generator=generator)
        if batch_norm:
            layers[f"batch_norm_{i}"] = BatchNorm1d(n_units)
        layers[f"activation_{i}"] = make_activation(activation)
        if dropout:
            layers[f"dropout_{i}"] = Dropout(dropout, noise_generator)
        n_in = n_units
    layers["output"] = Linear(n_in, n_outputs, initialization=initialization, generator=generator)
    return layers
