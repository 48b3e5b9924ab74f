"""Where the weights of a stack's models lie in one long tensor."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

__all__ = ["Layout"]

# All weights together are filled up to a multiple of this. Torch handles the last few numbers of a tensor one by one, and
# they round otherwise than those before: a model's numbers must not depend on where in the tensor they lie.
VECTOR = 64

# Where parts of the tensor are handled by themselves, each model's share of each weight begins at a multiple of this: no
# processor's vectors hold more float32.
PIECE = 16


class Layout:
    """A weight of all models after the other, and in each one model after the other.

    Parameters
    ----------
    shapes : sequence of torch.Size
        Of a model's weights.
    n_models : int
        How many models there are.
    device : torch.device
        Where the tensors are.
    in_pieces : bool, default=False
        Whether parts of a tensor, of some models and weights, are handled by themselves.
    transposed : collection of int, default=()
        Which of the weights are matrices that lie transposed in memory, columns one after the other.
    """

    def __init__(
        self,
        shapes: Sequence[torch.Size],
        n_models: int,
        device: torch.device,
        *,
        in_pieces: bool = False,
        transposed: Collection[int] = (),
    ):
        self.shapes, self.n_models, self.device, self.in_pieces = list(shapes), n_models, device, in_pieces
        self.transposed = transposed
        sizes = [shape.numel() for shape in self.shapes]
        self.strides = [size + (-size % PIECE if in_pieces else 0) for size in sizes]
        self.starts = [n_models * sum(self.strides[:i]) for i in range(len(sizes))]
        length = n_models * sum(self.strides)
        self.length = length + -length % VECTOR

    def zeros(self) -> Tensor:
        """Make a tensor of zeros that is laid out so."""
        return torch.zeros(self.length, device=self.device)

    def blocks(self, flat: Tensor) -> list[Tensor]:
        """Give views of a tensor, (n_models, ...) for each weight."""
        views = []
        for i, (start, stride, shape) in enumerate(zip(self.starts, self.strides, self.shapes, strict=True)):
            of_models = flat[start : start + self.n_models * stride].view(self.n_models, stride)[:, : shape.numel()]
            turned = i in self.transposed
            views.append(of_models.view(-1, *reversed(shape)).transpose(1, 2) if turned else of_models.view(-1, *shape))
        return views

    def piece(self, flat: Tensor, weight: int, first: int, last: int) -> Tensor:
        """Give a view of one weight of the models from `first` to before `last`, and what fills it up."""
        start, stride = self.starts[weight], self.strides[weight]
        return flat[start + first * stride : start + last * stride]

    def spread(self, values: Sequence[float]) -> float | Tensor:
        """Give one number per model as one number if they are all equal, or else as a tensor that is laid out so."""
        if all(value == values[0] for value in values):
            return float(values[0])
        return self.spread_by_weight([[value] * len(self.shapes) for value in values])

    def spread_by_weight(self, values: Sequence[Sequence[float]]) -> Tensor:
        """Give one number per model and weight as a tensor that is laid out so."""
        flat = self.zeros()
        for block, of_models in zip(self.blocks(flat), zip(*values, strict=True), strict=True):
            block.copy_(flat.new_tensor(of_models).view(-1, *[1] * (block.ndim - 1)).expand_as(block))
        return flat
