"""The transformer encoder over sequences."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skpt.modules.layers import Dropout, Linear, make_activation
from skpt.modules.padding import last_steps, mean_over_steps, read_padding, real_steps

__all__ = ["TransformerModule"]

POSITIONAL_ENCODINGS = ("sinusoidal", "learned", None)
POOLINGS = ("mean", "class_token", "last")


class SelfAttention(nn.Module):
    """Scaled dot-product attention of every step to every step, in several heads.

    Parameters
    ----------
    d_model : int
        Width of a step.
    n_heads : int
        Number of heads, a divisor of `d_model`.
    initialization : str, default="default"
        How the first weights are drawn.
    generator : torch.Generator, default=None
        Where they come from.

    Shape
    -----
    (N, n_timesteps, d_model), unchanged.
    """

    def __init__(
        self, d_model: int, n_heads: int, *, initialization: str = "default", generator: torch.Generator | None = None
    ):
        super().__init__()
        self.n_heads = n_heads
        # Queries, keys and values by one product, in the order of torch's in_proj_weight.
        self.in_proj = Linear(d_model, 3 * d_model, initialization=initialization, generator=generator)
        self.out_proj = Linear(d_model, d_model, initialization=initialization, generator=generator)

    def forward(self, X: Tensor, attended: Tensor | None = None) -> Tensor:
        """Map X of shape (N, n_timesteps, d_model); `attended` (N, 1, 1, n_timesteps) is False where a step is ignored."""
        parts = self.in_proj(X).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)  # 3, N, heads, T, d_head
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=attended)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Attention, then a small network for each step, each with normalisation and a residual connection.

    Parameters
    ----------
    d_model : int
        Width of a step.
    n_heads : int
        Number of heads, a divisor of `d_model`.
    dim_feedforward : int
        Hidden width of the network for each step.
    dropout : float, default=0.0
        Probability that an output of attention, of the hidden layer or of the second linear layer is dropped.
    activation : str or callable, default="relu"
        Nonlinearity of the hidden layer.
    norm_first : bool, default=True
        Whether normalisation comes before attention and network, or after the sums.
    initialization : str, default="default"
        How the first weights are drawn.
    generator : torch.Generator, default=None
        Where they come from.
    noise_generator : torch.Generator, default=None
        Where the dropout masks come from.

    Shape
    -----
    (N, n_timesteps, d_model), unchanged.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        dim_feedforward: int,
        *,
        dropout: float = 0.0,
        activation: str | Callable[[], nn.Module] = "relu",
        norm_first: bool = True,
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        super().__init__()
        drawn = {"initialization": initialization, "generator": generator}
        self.norm_first = norm_first
        self.self_attn = SelfAttention(d_model, n_heads, **drawn)
        self.linear1 = Linear(d_model, dim_feedforward, **drawn)
        self.linear2 = Linear(dim_feedforward, d_model, **drawn)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.activation = make_activation(activation)
        self.dropout, self.dropout1, self.dropout2 = (Dropout(dropout, noise_generator) for _ in range(3))

    def forward(self, X: Tensor, attended: Tensor | None = None) -> Tensor:
        """Map X of shape (N, n_timesteps, d_model); `attended` (N, 1, 1, n_timesteps) is False where a step is ignored."""
        if self.norm_first:
            X = X + self._attend(self.norm1(X), attended)
            return X + self._feed_forward(self.norm2(X))
        X = self.norm1(X + self._attend(X, attended))
        return self.norm2(X + self._feed_forward(X))

    def _attend(self, X: Tensor, attended: Tensor | None) -> Tensor:
        return self.dropout1(self.self_attn(X, attended))

    def _feed_forward(self, X: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(X)))))


class SinusoidalEncoding(nn.Module):
    """Adds sines and cosines of the step's number, of wavelengths from 2 pi to 20,000 pi steps.

    Parameters
    ----------
    d_model : int
        Width of a step.

    Shape
    -----
    (N, n_timesteps, d_model), unchanged.
    """

    def __init__(self, d_model: int):
        super().__init__()
        self.d_model = d_model
        self.register_buffer("table", torch.empty(0, d_model), persistent=False)

    def forward(self, X: Tensor) -> Tensor:
        """Add to X of shape (N, n_timesteps, d_model)."""
        table = self.table  # read once: other threads may make it longer
        if len(table) < X.shape[1]:
            self.table = table = self._make_table(X.shape[1]).to(X.device)
        return X + table[: X.shape[1]].to(X)

    def _make_table(self, n_timesteps: int) -> Tensor:
        step = torch.arange(n_timesteps, dtype=torch.float64).unsqueeze(1)
        column = torch.arange(self.d_model)
        angle = step * torch.exp((column - column % 2) * (-math.log(10_000.0) / self.d_model))
        return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


class LearnedEncoding(nn.Module):
    """Adds a learnt vector for each step's number.

    Parameters
    ----------
    n_timesteps : int
        Length of the longest sequence.
    d_model : int
        Width of a step.
    generator : torch.Generator, default=None
        Where the first weights come from: normal with standard deviation 0.02.

    Shape
    -----
    (N, n_timesteps, d_model), unchanged.
    """

    def __init__(self, n_timesteps: int, d_model: int, generator: torch.Generator | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_timesteps, d_model))
        nn.init.normal_(self.weight, 0.0, 0.02, generator=generator)

    def forward(self, X: Tensor) -> Tensor:
        """Add to X of shape (N, n_timesteps, d_model)."""
        if X.shape[1] > len(self.weight):
            raise ValueError(
                f"With positional_encoding='learned' a sequence may have at most n_timesteps={len(self.weight)} steps. Got "
                f"{X.shape[1]}. Build the network for the longest one, or take positional_encoding='sinusoidal'."
            )
        return X + self.weight[: X.shape[1]]


class TransformerModule(nn.Module):
    """Encoder layers of self-attention over the steps of a sequence, pooled to one output (a transformer).

    Each step is embedded by one linear layer and told its position; `num_layers` encoder layers follow, each of attention
    and a small network for each step; the steps are pooled, and a linear layer gives the outputs: logits for classes, plain
    numbers for a regression.

    Sequences of unequal length are padded at the end with NaN in every feature of a step. Padding is neither attended to
    nor pooled, so a padded sequence's output is that of the sequence alone.

    Parameters
    ----------
    n_features : int
        Number of features of a step.
    n_outputs : int
        Number of outputs.
    d_model : int, default=32
        Width of a step inside the network.
    n_heads : int, default=4
        Number of attention heads, a divisor of `d_model`.
    num_layers : int, default=2
        Number of encoder layers.
    dim_feedforward : int, default=64
        Hidden width of the network for each step.
    dropout : float, default=0.0
        Probability that an entry is dropped while training: of the embedded steps, and of each encoder layer's attention
        output, hidden layer and output. Attention weights themselves are not dropped, because torch's kernel would draw
        that mask from the global generator.
    activation : str or callable, default="relu"
        Nonlinearity of the encoder layers: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.
    positional_encoding : {"sinusoidal", "learned"} or None, default="sinusoidal"
        What is added to an embedded step to tell its position: sines and cosines, a learnt vector, or nothing, which makes
        the steps a set.
    n_timesteps : int, default=None
        Length of the longest sequence; needed by learnt positions, unused otherwise.
    pooling : {"mean", "class_token", "last"}, default="mean"
        What the outputs are computed from: the mean of all steps, a learnt token put in front of them, or the last step.
    norm_first : bool, default=True
        Whether layer normalisation comes before attention and network (and once more before pooling), which trains without
        warm-up, or after the sums, as in the paper.
    initialization : str, default="default"
        How the first weights of linear layers are drawn: a name of ``skpt.modules.INITIALIZATIONS``.
    generator : torch.Generator, default=None
        Where the first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where the dropout masks come from. None takes torch's global generator.

    Raises
    ------
    ValueError
        If `n_heads` does not divide `d_model`, a name is unknown, or learnt positions are asked for without `n_timesteps`.

    Notes
    -----
    A step of training costs O(n_timesteps**2 * d_model + n_timesteps * d_model * (d_model + dim_feedforward)) a sequence
    and layer.

    References
    ----------
    Vaswani et al., Attention is all you need, arXiv:1706.03762. Normalisation first: Xiong et al., On layer normalization
    in the transformer architecture, arXiv:2002.04745.

    Shape
    -----
    (N, n_timesteps, n_features) to (N, n_outputs).

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import TransformerModule
    >>> TransformerModule(4, 3, d_model=16)(torch.zeros(5, 20, 4)).shape
    torch.Size([5, 3])
    """

    takes_sample_weight = True
    draws_from_generator = True

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        d_model: int = 32,
        n_heads: int = 4,
        num_layers: int = 2,
        dim_feedforward: int = 64,
        dropout: float = 0.0,
        activation: str | Callable[[], nn.Module] = "relu",
        positional_encoding: str | None = "sinusoidal",
        n_timesteps: int | None = None,
        pooling: str = "mean",
        norm_first: bool = True,
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"n_heads must divide d_model. Got n_heads={n_heads} and d_model={d_model}.")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling must be one of {list(POOLINGS)}. Got {pooling!r}.")
        drawn = {"initialization": initialization, "generator": generator}
        self.pooling = pooling
        self.embedding = Linear(n_features, d_model, **drawn)
        self.position = self._make_position(positional_encoding, n_timesteps, d_model, generator)
        if pooling == "class_token":
            self.class_token = nn.Parameter(torch.empty(d_model))
            nn.init.normal_(self.class_token, 0.0, 0.02, generator=generator)
        self.dropout = Dropout(dropout, noise_generator)
        self.layers = nn.ModuleList(
            EncoderLayer(
                d_model,
                n_heads,
                dim_feedforward,
                dropout=dropout,
                activation=activation,
                norm_first=norm_first,
                noise_generator=noise_generator,
                **drawn,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model) if norm_first else nn.Identity()
        self.output = Linear(d_model, n_outputs, **drawn)

    @staticmethod
    def _make_position(encoding, n_timesteps, d_model, generator) -> nn.Module:
        if encoding == "sinusoidal":
            return SinusoidalEncoding(d_model)
        if encoding is None:
            return nn.Identity()
        if encoding != "learned":
            raise ValueError(f"positional_encoding must be one of {list(POSITIONAL_ENCODINGS)}. Got {encoding!r}.")
        if n_timesteps is None:
            raise ValueError("positional_encoding='learned' needs n_timesteps, the length of the longest sequence. Got None.")
        return LearnedEncoding(n_timesteps, d_model, generator)

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Map X of shape (N, n_timesteps, n_features) to the outputs; `sample_weight` is unused: no layer mixes rows."""
        X, lengths = read_padding(X)
        real = real_steps(lengths, X.shape[1])
        X = self.dropout(self.position(self.embedding(X)))
        if self.pooling == "class_token":
            X = torch.cat([self.class_token.expand(len(X), 1, -1), X], dim=1)
            real = None if real is None else F.pad(real, (1, 0), value=True)
        attended = None if real is None else real[:, None, None]
        for layer in self.layers:
            X = layer(X, attended)
        if self.pooling == "mean":
            return self.output(mean_over_steps(self.norm(X), real))
        one_step = X[:, 0] if self.pooling == "class_token" else last_steps(X, lengths)
        return self.output(self.norm(one_step))
