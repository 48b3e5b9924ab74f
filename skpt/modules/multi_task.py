"""Networks with several tasks: a trunk that all share, and a head for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from skpt.modules.mlp import MLPModule
from skpt.modules.multi_input import module_keys

__all__ = ["MultiTaskModule"]


class MultiTaskModule(nn.Module):
    """A trunk that all tasks share, and a dense head for each task.

    Parameters
    ----------
    trunk : torch.nn.Module
        Gives (N, n_features).
    n_features : int
        Number of columns that the trunk gives.
    n_outputs : mapping of str to int
        Number of output columns of each task.
    hidden_layer_sizes : sequence of int, default=()
        Number of units of each hidden layer of each head; empty gives linear heads.
    activation : str or callable, default="relu"
        Nonlinearity of the heads' hidden layers: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.
    dropout : float, default=0.0
        Probability that a hidden unit of a head is dropped while training.
    batch_norm : bool, default=False
        Whether the heads' hidden layers are batch-normalised.
    initialization : str, default="default"
        How the heads' first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``.
    generator : torch.Generator, default=None
        Where the heads' first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where the heads' dropout masks come from. None takes torch's global generator.

    Shape
    -----
    What the trunk takes, to (N, sum of n_outputs), in the order of `n_outputs`.

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import MLPModule, MultiTaskModule
    >>> net = MultiTaskModule(MLPModule(6, 10), n_features=10, n_outputs={"colour": 3, "price": 1})
    >>> net(torch.zeros(5, 6)).shape
    torch.Size([5, 4])
    """

    takes_sample_weight = True

    def __init__(
        self,
        trunk: nn.Module,
        n_features: int,
        n_outputs: Mapping[str, int],
        hidden_layer_sizes: Sequence[int] = (),
        *,
        activation: str | Callable[[], nn.Module] = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict(
            {
                key: MLPModule(
                    n_features,
                    n,
                    hidden_layer_sizes,
                    activation=activation,
                    dropout=dropout,
                    batch_norm=batch_norm,
                    initialization=initialization,
                    generator=generator,
                    noise_generator=noise_generator,
                )
                for key, n in zip(module_keys(n_outputs), n_outputs.values(), strict=True)
            }
        )

    @property
    def draws_from_generator(self) -> bool:
        """Whether no random number comes from a global generator."""
        return getattr(self.trunk, "draws_from_generator", False)

    def forward(self, X: Tensor | Mapping[str, Tensor], sample_weight: Tensor | None = None) -> Tensor:
        """Map X to the outputs of all tasks, side by side; `sample_weight` enters batch statistics alone."""
        takes_weight = getattr(self.trunk, "takes_sample_weight", False)
        shared = self.trunk(X, sample_weight) if takes_weight else self.trunk(X)
        return torch.cat([head(shared, sample_weight) for head in self.heads.values()], dim=1)
