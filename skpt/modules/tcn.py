"""Convolutions over time: the fully convolutional and the residual network, and the dilated causal one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skpt.modules.layers import BatchNorm1d, Conv1d, Dropout, Linear, make_activation
from skpt.modules.padding import last_steps, mean_over_steps, read_padding, real_steps

__all__ = ["TCNModule"]

# architecture -> channels, and its paper's kernel sizes and normalisation
# NOTE[DIFF] Channels are half the paper's for "fcn" and "resnet": a quarter of the cost for the same accuracy on small sets.
ARCHITECTURES = {
    "fcn": ((64, 128, 64), (8, 5, 3), "batch"),
    "resnet": ((32, 64, 64), (8, 5, 3), "batch"),
    "causal": ((32, 32, 32, 32, 32), 3, "weight"),
}
NORMALIZATIONS = ("auto", "batch", "weight", None)


class TimeConv(Conv1d):
    """A convolution that keeps the number of steps.

    Parameters
    ----------
    in_channels : int
        Number of channels of the input.
    out_channels : int
        Number of channels of the output.
    kernel_size : int
        Number of steps that an output is computed from.
    dilation : int, default=1
        Distance between these steps.
    bias : bool, default=True
        Whether a bias is added.
    causal : bool, default=False
        Whether all zeros are put in front, so that an output sees no later step; half of them otherwise, the smaller half
        where they are odd, as ``padding="same"`` does.
    weight_norm : bool, default=False
        Whether the weights are learnt as direction and length of each output channel.
    initialization : str, default="default"
        A name of `INITIALIZATIONS`.
    generator : torch.Generator, default=None
        Where the numbers come from. None takes torch's global one.

    Shape
    -----
    (N, in_channels, n_timesteps) to (N, out_channels, n_timesteps).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        dilation: int = 1,
        bias: bool = True,
        causal: bool = False,
        weight_norm: bool = False,
        initialization: str = "default",
        generator: torch.Generator | None = None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            dilation=dilation,
            bias=bias,
            initialization=initialization,
            generator=generator,
        )
        n_zeros = dilation * (kernel_size - 1)
        self.zeros = (n_zeros, 0) if causal else (n_zeros // 2, n_zeros - n_zeros // 2)
        if weight_norm:
            self.weight_length = nn.Parameter(_length(self.weight.detach()))
        else:
            self.register_parameter("weight_length", None)

    def reset_parameters(self) -> None:
        """Draw new weights; by torch's default and global generator if called by hand."""
        super().reset_parameters()
        if getattr(self, "weight_length", None) is not None:
            with torch.no_grad():
                self.weight_length.copy_(_length(self.weight))

    def forward(self, X: Tensor) -> Tensor:
        """Convolve X of shape (N, in_channels, n_timesteps)."""
        weight = self.weight
        if self.weight_length is not None:
            # A channel of zeros, which has no direction, stays one.
            weight = weight * (self.weight_length / _length(weight).clamp_min(torch.finfo(weight.dtype).tiny))
        before, after = self.zeros
        if before == after:
            return F.conv1d(X, weight, self.bias, padding=before, dilation=self.dilation)
        return F.conv1d(F.pad(X, self.zeros), weight, self.bias, dilation=self.dilation)

    def extra_repr(self) -> str:
        """Add to torch's text how many zeros stand before and after."""
        return f"{super().extra_repr()}, zeros={self.zeros}"


def _length(weight: Tensor) -> Tensor:
    return torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)


class StepNorm(BatchNorm1d):
    """Batch normalisation of channels over rows and steps, where a padded step counts as none.

    Shape
    -----
    (N, n_channels, n_timesteps), unchanged.
    """

    def forward(self, X: Tensor, sample_weight: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Normalise X of shape (N, n_channels, n_timesteps), over the steps that `real` (N, n_timesteps) marks."""
        if not self.training or real is None:
            return super().forward(X, sample_weight)
        weight = real if sample_weight is None else real * sample_weight.unsqueeze(1)
        rows = X.transpose(1, 2).flatten(0, 1)  # each step of each sequence is one row
        normalised = super().forward(rows, weight.flatten().to(X.dtype))
        return normalised.unflatten(0, (len(X), -1)).transpose(1, 2)


class ChannelDropout(Dropout):
    """Dropout of whole channels, the same ones in all steps.

    Parameters
    ----------
    p : float
        Probability that a channel of a row is set to zero while training; the others are divided by 1 - p.
    generator : torch.Generator, default=None
        Where the masks come from. None takes torch's global one.

    Shape
    -----
    (N, n_channels, n_timesteps), unchanged.
    """

    def forward(self, X: Tensor) -> Tensor:
        """Drop channels of X while training; give X back otherwise."""
        if not self.training or not self.p:
            return X
        return X * self.next_mask((*X.shape[:2], 1), X.device)


class ConvBlock(nn.Module):
    """A convolution over time, normalisation, activation, dropout; any but the first may be missing.

    Parameters
    ----------
    conv : TimeConv
        The convolution.
    norm : StepNorm, default=None
        The normalisation.
    activation : torch.nn.Module, default=None
        The nonlinearity.
    dropout : ChannelDropout, default=None
        The dropout.

    Shape
    -----
    (N, in_channels, n_timesteps) to (N, out_channels, n_timesteps).
    """

    def __init__(
        self,
        conv: nn.Module,
        norm: StepNorm | None = None,
        activation: nn.Module | None = None,
        dropout: ChannelDropout | None = None,
    ):
        super().__init__()
        self.conv, self.norm, self.activation, self.dropout = conv, norm, activation, dropout

    def forward(self, X: Tensor, sample_weight: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Map X of shape (N, in_channels, n_timesteps); padded steps, where `real` is False, come out as zeros."""
        X = self.conv(X)
        if self.norm is not None:
            X = self.norm(X, sample_weight, real)
        if self.activation is not None:
            X = self.activation(X)
        if self.dropout is not None:
            X = self.dropout(X)
        return X if real is None else X * real.unsqueeze(1)


class ResidualBlock(nn.Module):
    """Convolution blocks one after another, whose input is added to their output before a last activation.

    Parameters
    ----------
    blocks : list of ConvBlock
        The way through.
    shortcut : ConvBlock, StepNorm or None
        The way around; None adds the input as it is.
    activation : torch.nn.Module
        The nonlinearity of the sum.

    Shape
    -----
    (N, in_channels, n_timesteps) to (N, out_channels, n_timesteps).
    """

    def __init__(self, blocks: list[ConvBlock], shortcut: nn.Module | None, activation: nn.Module):
        super().__init__()
        self.blocks, self.shortcut, self.activation = nn.ModuleList(blocks), shortcut, activation

    def forward(self, X: Tensor, sample_weight: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Map X of shape (N, in_channels, n_timesteps); padded steps, where `real` is False, come out as zeros."""
        through = X
        for block in self.blocks:
            through = block(through, sample_weight, real)
        around = X if self.shortcut is None else self.shortcut(X, sample_weight, real)
        X = self.activation(through + around)
        return X if real is None else X * real.unsqueeze(1)


class TCNModule(nn.Module):
    """Convolutions over the steps of a sequence, pooled to one output (a temporal convolutional network).

    "fcn" is a row of convolutions, each with batch normalisation and activation, then the mean over the steps. "resnet" is
    a row of residual blocks, each of one such convolution per kernel size, then the mean. "causal" is a row of residual
    blocks of two convolutions that see no later step, the distance between the steps that they see doubled from block to
    block, then the last step. A linear layer gives the outputs: logits for classes, plain numbers for a regression.

    Sequences of unequal length are padded at the end with NaN in every feature of a step. Padding stays zero behind every
    layer, like the zeros that a convolution sees beyond its input, and counts neither in batch statistics nor in the mean,
    so a padded sequence's output is that of the sequence alone.

    Parameters
    ----------
    n_features : int
        Number of features of a step.
    n_outputs : int
        Number of outputs.
    architecture : {"fcn", "resnet", "causal"}, default="fcn"
        Which of the three networks.
    channels : sequence of int, default=None
        Number of channels of each convolution ("fcn") or residual block. None takes (64, 128, 64) for "fcn" and
        (32, 64, 64) for "resnet", half of the paper's, and (32, 32, 32, 32, 32) for "causal".
    kernel_size : int or sequence of int, default=None
        Number of steps that a convolution sees: one for all, or one for each convolution ("fcn", and within each block
        "resnet") or block ("causal"). None takes the paper's 8, 5, 3 for "fcn" (and 3 for more) and "resnet", and 3 for
        "causal", whose outputs see the last 1 + 2 * (kernel_size - 1) * (2**n_blocks - 1) steps.
    normalization : {"auto", "batch", "weight"} or None, default="auto"
        Batch normalisation behind each convolution, weight normalisation of each, or neither. "auto" takes the paper's:
        "batch" for "fcn" and "resnet", "weight" for "causal".
    dropout : float, default=0.0
        Probability that a channel is dropped while training, behind the activations.
    activation : str or callable, default="relu"
        Nonlinearity: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.
    initialization : str, default="default"
        How the first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``.
    generator : torch.Generator, default=None
        Where the first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where the dropout masks come from. None takes torch's global generator.

    Raises
    ------
    ValueError
        If a name is unknown, there are no channels, or there are not as many kernel sizes as convolutions.

    Notes
    -----
    A step of training costs O(n_timesteps * n_weights) a sequence.

    References
    ----------
    Wang, Yan and Oates, Time series classification from scratch with deep neural networks, arXiv:1611.06455 ("fcn",
    "resnet"). Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling, arXiv:1803.01271 ("causal").

    Shape
    -----
    (N, n_timesteps, n_features) to (N, n_outputs).

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import TCNModule
    >>> TCNModule(4, 3, channels=(16, 8), kernel_size=5)(torch.zeros(5, 20, 4)).shape
    torch.Size([5, 3])
    """

    takes_sample_weight = True
    draws_from_generator = True

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        architecture: str = "fcn",
        channels: Sequence[int] | None = None,
        kernel_size: int | Sequence[int] | None = None,
        normalization: str | None = "auto",
        dropout: float = 0.0,
        activation: str | Callable[[], nn.Module] = "relu",
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {list(ARCHITECTURES)}. Got {architecture!r}.")
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {list(NORMALIZATIONS)}. Got {normalization!r}.")
        of_paper = ARCHITECTURES[architecture]
        channels = of_paper[0] if channels is None else tuple(channels)
        if not channels:
            raise ValueError("channels must hold one number at least. Got ().")
        if kernel_size is None:
            kernel_size = of_paper[1]
            if architecture == "fcn":
                kernel_size = (*kernel_size, *kernel_size[-1:] * len(channels))[: len(channels)]
        drawn = {"initialization": initialization, "generator": generator}
        conv_block = partial(
            _conv_block,
            normalization=of_paper[2] if normalization == "auto" else normalization,
            dropout=dropout,
            noise_generator=noise_generator,
            **drawn,
        )
        build = {"fcn": _fcn, "resnet": _resnet, "causal": _causal}[architecture]
        self.architecture = architecture
        self.blocks = nn.ModuleList(build(n_features, channels, kernel_size, conv_block, activation))
        self.output = Linear(channels[-1], n_outputs, **drawn)

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Map X of shape (N, n_timesteps, n_features) to the outputs; `sample_weight` enters batch statistics alone."""
        X, lengths = read_padding(X)
        real = real_steps(lengths, X.shape[1])
        X = X.transpose(1, 2)
        for block in self.blocks:
            X = block(X, sample_weight, real)
        X = X.transpose(1, 2)
        return self.output(last_steps(X, lengths) if self.architecture == "causal" else mean_over_steps(X, real))


def _fcn(n_in: int, channels: Sequence[int], kernel_size, conv_block: Callable, activation) -> list[nn.Module]:
    sizes = _one_each(kernel_size, len(channels), "convolution")
    ins = (n_in, *channels[:-1])
    return [conv_block(*each, activation=activation) for each in zip(ins, channels, sizes, strict=True)]


def _resnet(n_in: int, channels: Sequence[int], kernel_size, conv_block: Callable, activation) -> list[nn.Module]:
    sizes = (kernel_size,) * 3 if isinstance(kernel_size, Integral) else tuple(kernel_size)
    if not sizes:
        raise ValueError("kernel_size must hold one number at least. Got ().")
    blocks: list[nn.Module] = []
    for n_out in channels:
        ins = (n_in, *(n_out,) * (len(sizes) - 1))
        activations = (*(activation,) * (len(sizes) - 1), None)  # the last one's comes behind the sum
        way = [conv_block(n, n_out, k, activation=each) for n, k, each in zip(ins, sizes, activations, strict=True)]
        # NOTE[DIFF] The paper adds a block's input as it is where it fits; its authors' code normalises it, and so do we.
        same_width = None if way[-1].norm is None else StepNorm(n_out)
        around = same_width if n_in == n_out else conv_block(n_in, n_out, 1)
        blocks.append(ResidualBlock(way, around, make_activation(activation)))
        n_in = n_out
    return blocks


def _causal(n_in: int, channels: Sequence[int], kernel_size, conv_block: Callable, activation) -> list[nn.Module]:
    sizes = _one_each(kernel_size, len(channels), "block")
    blocks: list[nn.Module] = []
    for i, (n_out, size) in enumerate(zip(channels, sizes, strict=True)):
        way = [conv_block(n, n_out, size, activation=activation, dilation=2**i, causal=True) for n in (n_in, n_out)]
        around = None if n_in == n_out else conv_block(n_in, n_out, 1)
        blocks.append(ResidualBlock(way, around, make_activation(activation)))
        n_in = n_out
    return blocks


def _conv_block(
    n_in: int,
    n_out: int,
    kernel_size: int,
    *,
    activation=None,
    normalization: str | None,
    dropout: float,
    noise_generator: torch.Generator | None,
    **convolution,
) -> ConvBlock:
    """Give one convolution and what follows it; dropout only behind an activation."""
    batch_norm = normalization == "batch"
    # Batch normalisation takes off what a bias adds, and has a shift of its own.
    conv = TimeConv(n_in, n_out, kernel_size, bias=not batch_norm, weight_norm=normalization == "weight", **convolution)
    norm = StepNorm(n_out) if batch_norm else None
    if activation is None:
        return ConvBlock(conv, norm)
    return ConvBlock(conv, norm, make_activation(activation), ChannelDropout(dropout, noise_generator) if dropout else None)


def _one_each(kernel_size: int | Sequence[int], n_layers: int, what: str) -> tuple[int, ...]:
    sizes = (kernel_size,) * n_layers if isinstance(kernel_size, Integral) else tuple(kernel_size)
    if len(sizes) != n_layers:
        raise ValueError(
            f"kernel_size must hold one number for each {what}, {n_layers} of them. Got {tuple(sizes)}."
        )
    return sizes
