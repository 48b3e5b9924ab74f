"""Networks with several inputs: a branch for each, joined before a dense head."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from skpt.modules.layers import Layers, dense_layers, make_activation

__all__ = ["BranchModule", "EmbeddingModule", "JoinedModule", "MultiInputModule", "module_keys"]


def module_keys(names: Iterable) -> list[str]:
    """Give each name as one that ``nn.ModuleDict`` takes: without dots, none of its attributes, none twice.

    Parameters
    ----------
    names : iterable
        Names of any kind.

    Returns
    -------
    list of str
        The same names where they can be used as they are.
    """
    keys: list[str] = []
    for name in names:
        key = str(name).replace(".", "_") or "_"
        while key in keys or hasattr(nn.ModuleDict, key) or key in ("training", "_modules"):
            key += "_"
        keys.append(key)
    return keys


def _apply(module: nn.Module, X, sample_weight: Tensor | None) -> Tensor:
    """Run a network, with the weights of the rows where it takes them."""
    return module(X, sample_weight) if getattr(module, "takes_sample_weight", False) else module(X)


class BranchModule(nn.Module):
    """One branch of a network: a network of any family, and an activation after it.

    Parameters
    ----------
    module : torch.nn.Module
        The network, from (N, ...) to (N, n_outputs).
    activation : str or callable, default="identity"
        What follows: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.

    Shape
    -----
    (N, ...) to (N, n_outputs).

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import BranchModule, MLPModule
    >>> BranchModule(MLPModule(6, 3), "relu")(torch.zeros(5, 6)).shape
    torch.Size([5, 3])
    """

    takes_sample_weight = True

    def __init__(self, module: nn.Module, activation: str | Callable[[], nn.Module] = "identity"):
        super().__init__()
        self.module = module
        self.activation = make_activation(activation)

    @property
    def draws_from_generator(self) -> bool:
        """Whether no random number comes from a global generator."""
        return getattr(self.module, "draws_from_generator", False)

    def forward(self, X: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Map X of shape (N, ...) to the branch's outputs; `sample_weight` enters batch statistics alone."""
        return self.activation(_apply(self.module, X, sample_weight))


class JoinedModule(nn.Module):
    """Branches side by side; their outputs become the columns of one.

    Parameters
    ----------
    branches : mapping of str to torch.nn.Module
        Each takes its own input and gives (N, n_outputs).

    Shape
    -----
    A mapping of each branch's name to its input, to (N, sum of n_outputs), in the order of `branches`.

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import JoinedModule, MLPModule
    >>> joined = JoinedModule({"left": MLPModule(6, 3), "right": MLPModule(2, 4)})
    >>> joined({"left": torch.zeros(5, 6), "right": torch.zeros(5, 2)}).shape
    torch.Size([5, 7])
    """

    takes_sample_weight = True

    def __init__(self, branches: Mapping[str, nn.Module]):
        super().__init__()
        self.names = list(branches)
        self.branches = nn.ModuleDict(zip(module_keys(branches), branches.values(), strict=True))

    @property
    def draws_from_generator(self) -> bool:
        """Whether no random number comes from a global generator."""
        return all(getattr(branch, "draws_from_generator", False) for branch in self.branches.values())

    def forward(self, X: Mapping[str, Tensor], sample_weight: Tensor | None = None) -> Tensor:
        """Map the inputs of all branches to their outputs, side by side."""
        each = zip(self.names, self.branches.values(), strict=True)
        return torch.cat([_apply(branch, X[name], sample_weight) for name, branch in each], dim=1)


class MultiInputModule(nn.Module):
    """A network with several inputs: branches, joined, and a dense head.

    Parameters
    ----------
    branches : mapping of str to torch.nn.Module
        Each takes its own input and gives (N, n_outputs).
    n_features : int
        Number of columns that all branches give together.
    n_outputs : int
        Number of output columns.
    hidden_layer_sizes : sequence of int, default=(100,)
        Number of units of each hidden layer of the head; empty gives a linear head.
    activation : str or callable, default="relu"
        Nonlinearity of the head's hidden layers: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.
    dropout : float, default=0.0
        Probability that a hidden unit of the head is dropped while training.
    batch_norm : bool, default=False
        Whether the head's hidden layers are batch-normalised.
    initialization : str, default="default"
        How the head's first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``.
    generator : torch.Generator, default=None
        Where the head's first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where the head's dropout masks come from. None takes torch's global generator.

    Shape
    -----
    A mapping of each branch's name to its input, to (N, n_outputs).

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import MLPModule, MultiInputModule
    >>> net = MultiInputModule({"left": MLPModule(6, 3), "right": MLPModule(2, 4)}, n_features=7, n_outputs=1)
    >>> net({"left": torch.zeros(5, 6), "right": torch.zeros(5, 2)}).shape
    torch.Size([5, 1])
    """

    takes_sample_weight = True

    def __init__(
        self,
        branches: Mapping[str, nn.Module],
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
        super().__init__()
        self.joined = JoinedModule(branches)
        head = dense_layers(
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
        output = head.pop("output")
        self.hidden, self.output = Layers(head), output

    @property
    def draws_from_generator(self) -> bool:
        """Whether no random number comes from a global generator."""
        return self.joined.draws_from_generator

    def forward(self, X: Mapping[str, Tensor], sample_weight: Tensor | None = None) -> Tensor:
        """Map the inputs of all branches to the outputs; `sample_weight` enters batch statistics alone."""
        return self.output(self.hidden(self.joined(X, sample_weight), sample_weight))


class _Embedding(nn.Embedding):
    """``torch.nn.Embedding`` whose first weights come from a generator; row 0 is zero and stays so."""

    def __init__(self, n_rows: int, d_embedding: int, generator: torch.Generator | None):
        self._generator_of_first_weights = generator
        super().__init__(n_rows, d_embedding, padding_idx=0)
        del self._generator_of_first_weights

    def reset_parameters(self) -> None:
        """Draw new weights from the standard normal distribution, as torch does."""
        with torch.no_grad():
            self.weight.normal_(generator=self.__dict__.get("_generator_of_first_weights"))
            self.weight[0] = 0.0


class EmbeddingModule(nn.Module):
    """A learnt vector for each category of each column, side by side.

    Parameters
    ----------
    n_categories : sequence of int
        Number of categories of each column, without the unknown ones.
    d_embedding : int
        Length of a vector.
    generator : torch.Generator, default=None
        Where the first vectors come from. None takes torch's global generator.

    Shape
    -----
    (N, n_columns) whole numbers, 0 for an unknown category (whose vector is zero) and 1 to n_categories for the others, to
    (N, n_columns * d_embedding).

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import EmbeddingModule
    >>> EmbeddingModule([3, 5], 4)(torch.tensor([[1.0, 5.0], [0.0, 2.0]])).shape
    torch.Size([2, 8])
    """

    draws_from_generator = True

    def __init__(self, n_categories: Sequence[int], d_embedding: int, *, generator: torch.Generator | None = None):
        super().__init__()
        self.columns = nn.ModuleList(_Embedding(n + 1, d_embedding, generator) for n in n_categories)

    def forward(self, X: Tensor) -> Tensor:
        """Map numbers of categories, (N, n_columns), to their vectors."""
        X = X.long()
        return torch.cat([column(X[:, i]) for i, column in enumerate(self.columns)], dim=1)
