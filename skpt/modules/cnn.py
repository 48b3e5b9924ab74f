"""The convolutional network for images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from skpt.modules.layers import ACTIVATIONS, BatchNorm2d, Conv2d, Dropout, Layers, dense_layers, make_activation

__all__ = ["CNNModule"]


class CNNModule(Layers):
    """Blocks of convolution and pooling, then fully connected layers (LeCun et al., 1998).

    Each block is a convolution, batch normalisation (optional), activation, max-pooling (optional) and dropout (optional), in
    that order; an activation that never falls comes after the pooling, which gives the same and takes less. Where an image has
    become smaller than a kernel or a pool, these are as small as the image.

    Parameters
    ----------
    image_shape : tuple of three int
        Channels, height and width of an image.
    n_outputs : int
        Number of output columns.
    channels : sequence of int, default=(32, 64)
        Number of channels that each block gives.
    kernel_size : int or pair of int, default=3
        Height and width of the kernels.
    pool_size : int or pair of int, default=2
        Height and width that each max-pooling takes together; 1 leaves it out.
    padding : {"same", "valid"} or int, default="same"
        Zeros around an image: as many as keep its size, none, or a number.
    hidden_layer_sizes : sequence of int, default=(128,)
        Number of units of each fully connected layer before the output.
    activation : str or callable, default="relu"
        Nonlinearity: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.
    dropout : float, default=0.0
        Probability that a hidden unit is dropped while training, in the fully connected layers.
    conv_dropout : float, default=0.0
        Probability that a number is dropped after each block while training.
    batch_norm : bool, default=False
        Whether blocks and hidden layers are batch-normalised.
    initialization : str, default="default"
        How the first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``.
    generator : torch.Generator, default=None
        Where the first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where the dropout masks come from. None takes torch's global generator.

    Shape
    -----
    (N, n_channels, height, width) to (N, n_outputs).

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import CNNModule
    >>> CNNModule((1, 28, 28), 10)(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        n_outputs: int,
        channels: Sequence[int] = (32, 64),
        kernel_size: int | tuple[int, int] = 3,
        *,
        pool_size: int | tuple[int, int] = 2,
        padding: str | int = "same",
        hidden_layer_sizes: Sequence[int] = (128,),
        activation: str | Callable[[], nn.Module] = "relu",
        dropout: float = 0.0,
        conv_dropout: float = 0.0,
        batch_norm: bool = False,
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        n_in, *size = image_shape
        for i, n_channels in enumerate(channels, start=1):
            pad = 0 if isinstance(padding, str) else padding
            # With "same" padding what lies further out than the image is wide would only ever meet zeros.
            largest = [2 * n - 1 if padding == "same" else n + 2 * pad for n in size]
            kernel = tuple(min(k, most) for k, most in zip(_pair(kernel_size), largest, strict=True))
            layers[f"conv_{i}"] = Conv2d(
                n_in,
                n_channels,
                kernel,
                padding=padding,
                bias=not batch_norm,  # batch normalisation takes off what a bias adds
                initialization=initialization,
                generator=generator,
            )
            if padding != "same":
                size = [n + 2 * pad - k + 1 for n, k in zip(size, kernel, strict=True)]
            if batch_norm:
                layers[f"conv_batch_norm_{i}"] = BatchNorm2d(n_channels)
            layers[f"conv_activation_{i}"] = make_activation(activation)
            pool = tuple(map(min, _pair(pool_size), size))
            if max(pool) > 1:
                layers[f"pool_{i}"] = nn.MaxPool2d(pool)
                size = [n // p for n, p in zip(size, pool, strict=True)]
                if _never_falls(activation):
                    layers.move_to_end(f"conv_activation_{i}")
            if conv_dropout:
                layers[f"conv_dropout_{i}"] = Dropout(conv_dropout, noise_generator)
            n_in = n_channels
        layers["flatten"] = nn.Flatten()
        layers.update(
            dense_layers(
                n_in * size[0] * size[1],
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
        super().__init__(layers)

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Map X of shape (N, n_channels, height, width) to the outputs; `sample_weight` enters batch statistics alone."""
        return super().forward(_channels_last(X), sample_weight)


_NEVER_FALL = (
    *("identity", "relu", "leaky_relu", "relu6", "elu", "selu", "celu"),
    *("tanh", "hardtanh", "softsign", "sigmoid", "softplus"),
)


def _never_falls(activation: str | Callable[[], nn.Module]) -> bool:
    """Whether the largest of some outputs is that of the largest number; known of torch's own, made without arguments."""
    made = ACTIVATIONS.get(activation) if isinstance(activation, str) else activation
    return any(made is ACTIVATIONS[name] for name in _NEVER_FALL)


def _channels_last(X: Tensor) -> Tensor:
    """Lay the channels of a pixel side by side, for all layers that follow: on a CPU torch's max-pooling is then vectorized.

    On other devices nothing changes. Torch goes by the strides, and takes one channel in an image's own strides for the other
    format.
    """
    if X.device.type != "cpu":
        return X
    n_samples, n_channels, height, width = X.shape
    if torch.compiler.is_compiling():  # which has a symbol for the size, and may lay out anew what it makes
        return X if n_channels == 1 else X.contiguous(memory_format=torch.channels_last)
    if n_channels == 1:
        return X.reshape(n_samples, height, width, 1).permute(0, 3, 1, 2)
    return X.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # torch.vmap knows no memory format


torch.fx.wrap("_channels_last")  # a symbolic trace knows no shapes


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, Integral) else size
    return height, width
