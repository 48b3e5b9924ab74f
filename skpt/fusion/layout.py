"""Where the weights of a stack's models lie in one long tensor."""

from __future__ import annotations

import math
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
    """A weight of all models after the other, and in each one model after the other; or the other way round.

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
    by_model : bool, default=False
        Whether a model's weights lie side by side, one model after the other, instead. The models of a part are one piece then.
    joined : collection of int, default=()
        Which of the weights begin right after those of the weight before, which `joint` gives together. Only where `by_model`.
    """

    def __init__(
        self,
        shapes: Sequence[torch.Size],
        n_models: int,
        device: torch.device,
        *,
        in_pieces: bool = False,
        transposed: Collection[int] = (),
        by_model: bool = False,
        joined: Collection[int] = (),
    ):
        self.shapes, self.n_models, self.device, self.in_pieces = list(shapes), n_models, device, in_pieces
        self.transposed, self.by_model = transposed, by_model
        sizes, n_numbers = [], 0
        for i, shape in enumerate(self.shapes):
            n_numbers += shape.numel()
            n_filling = -n_numbers % PIECE if in_pieces and i + 1 not in joined else 0
            sizes.append(shape.numel() + n_filling)
            n_numbers += n_filling
        self.model_size = sum(sizes)
        self.strides = [self.model_size] * len(sizes) if by_model else sizes  # from one model to the next
        self.starts = [sum(sizes[:i]) * (1 if by_model else n_models) for i in range(len(sizes))]
        length = n_models * self.model_size
        self.length = length + -length % VECTOR

    def zeros(self) -> Tensor:
        """Make a tensor of zeros that is laid out so."""
        return torch.zeros(self.length, device=self.device)

    def blocks(self, flat: Tensor) -> list[Tensor]:
        """Give views of a tensor, (n_models, ...) for each weight."""
        views = []
        for i, (start, stride, shape) in enumerate(zip(self.starts, self.strides, self.shapes, strict=True)):
            turned = i in self.transposed
            lengths = tuple(reversed(shape)) if turned else tuple(shape)
            steps = [math.prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
            view = flat.as_strided((self.n_models, *lengths), (stride, *steps), start)
            views.append(view.transpose(1, 2) if turned else view)
        return views

    def joint(self, flat: Tensor, i: int) -> Tensor:
        """Give a view of a transposed weight and the vector that is joined to it, as one more column of it.

        Parameters
        ----------
        flat : Tensor
            Laid out so.
        i : int
            Which weight, (n_outputs, n_inputs).

        Returns
        -------
        Tensor of shape (n_models, n_outputs, n_inputs + 1)
            Transposed in memory.
        """
        n_outputs, n_inputs = self.shapes[i]
        size = self.n_models, n_outputs, n_inputs + 1
        return flat.as_strided(size, (self.strides[i], 1, n_outputs), self.starts[i])

    def pieces(self, flat: Tensor, weights: Sequence[int], first: int, last: int) -> list[Tensor]:
        """Give views of weights of the models from `first` to before `last`, and what fills them up.

        Parameters
        ----------
        flat : Tensor
            Laid out so, `in_pieces`.
        weights : sequence of int
            Which weights; all of them where `by_model`.
        first, last : int
            Which models.

        Returns
        -------
        list of Tensor
            As few as there may be.
        """
        if self.by_model:
            return [flat[first * self.model_size : last * self.model_size]]
        return [
            flat[self.starts[w] + first * self.strides[w] : self.starts[w] + last * self.strides[w]] for w in weights
        ]

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
