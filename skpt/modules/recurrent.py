"""Recurrent networks: many to one, and to sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from skpt.modules.layers import Dropout, Linear
from skpt.modules.mlp import MLPModule
from skpt.modules.padding import read_padding
from skpt.modules.recurrent_layers import Recurrent

__all__ = ["ARCHITECTURES", "RNNModule", "Seq2SeqModule"]

ARCHITECTURES = ("many_to_many", "one_to_many", "encoder_decoder")


class RNNModule(nn.Module):
    """Recurrent layers over a sequence, and a dense head on their last state (many to one).

    Sequences of unequal length are padded at the end with NaN: a step whose features are all NaN is padding. The output for
    each is the one that it has alone.

    Parameters
    ----------
    n_features : int
        Number of features of a step.
    n_outputs : int
        Number of output columns.
    cell : {"lstm", "gru", "rnn"}, default="lstm"
        What a recurrent unit computes: long short-term memory, gated recurrent unit, or the hyperbolic tangent of a sum.
    hidden_size : int, default=32
        Number of units of a recurrent layer and direction.
    num_layers : int, default=1
        Number of recurrent layers.
    bidirectional : bool, default=False
        Whether each layer also reads the sequences backwards.
    dropout : float, default=0.0
        Probability that a unit is dropped while training: between layers, before the head, and in its hidden layers.
    hidden_layer_sizes : sequence of int, default=()
        Number of units of each hidden layer of the head.
    activation : str or callable, default="relu"
        Nonlinearity of the head's hidden layers: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.
    initialization : str, default="default"
        How the first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``, for each gate by itself.
    generator : torch.Generator, default=None
        Where the first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where the dropout masks come from. None takes torch's global generator.

    Shape
    -----
    (N, n_timesteps, n_features) to (N, n_outputs).

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import RNNModule
    >>> RNNModule(4, 3, cell="gru", hidden_size=16)(torch.zeros(5, 12, 4)).shape
    torch.Size([5, 3])
    """

    draws_from_generator = True

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        *,
        cell: str = "lstm",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        hidden_layer_sizes: Sequence[int] = (),
        activation: str | Callable[[], nn.Module] = "relu",
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        super().__init__()
        seeds = {"generator": generator, "noise_generator": noise_generator}
        self.rnn = Recurrent(
            cell,
            n_features,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            initialization=initialization,
            **seeds,
        )
        self.dropout = Dropout(dropout, noise_generator)
        self.head = MLPModule(
            hidden_size * self.rnn.n_directions,
            n_outputs,
            hidden_layer_sizes,
            activation=activation,
            dropout=dropout,
            initialization=initialization,
            **seeds,
        )

    def forward(self, X: Tensor) -> Tensor:
        """Map X of shape (N, n_timesteps, n_features) to the outputs."""
        X, lengths = read_padding(X)
        _, (h, *_) = self.rnn(X, lengths, needs_cells=False)
        h = torch.cat((h[-2], h[-1]), 1) if self.rnn.bidirectional else h[-1]
        return self.head(self.dropout(h))


class Seq2SeqModule(nn.Module):
    """Recurrent layers that give a sequence.

    "many_to_many" gives an output at each of the last `n_steps_out` steps of the input. The others have a decoder: recurrent
    layers that are fed with their own last output, zeros first. Its first state is the last one of an encoder that has read
    the input ("encoder_decoder"; after a tanh layer where the encoder is bidirectional), or a tanh layer of one row of input
    ("one_to_many"). Sequences of unequal length are padded at the end with NaN, as for `RNNModule`.

    Parameters
    ----------
    n_features : int
        Number of features of a step.
    n_outputs : int
        Number of outputs of a step.
    n_steps_out : int, default=1
        Number of steps that are given.
    architecture : {"many_to_many", "one_to_many", "encoder_decoder"}, default="encoder_decoder"
        What is read, and how it becomes a sequence; see above.
    cell : {"lstm", "gru", "rnn"}, default="lstm"
        What a recurrent unit computes: long short-term memory, gated recurrent unit, or the hyperbolic tangent of a sum.
    hidden_size : int, default=32
        Number of units of a recurrent layer and direction.
    num_layers : int, default=1
        Number of recurrent layers, of encoder and decoder each.
    bidirectional : bool, default=False
        Whether the input is also read backwards. Unused for "one_to_many".
    dropout : float, default=0.0
        Probability that a unit is dropped while training: between layers, before the head, and in its hidden layers.
    teacher_forcing : float, default=0.0
        Probability that the decoder is fed with the true last output instead of its own, for each row and step, while
        training on targets. Unused for "many_to_many".
    hidden_layer_sizes : sequence of int, default=()
        Number of units of each hidden layer of the head, which is the same for all steps.
    activation : str or callable, default="relu"
        Nonlinearity of the head's hidden layers: a name of ``skpt.modules.ACTIVATIONS`` or a class of ``nn.Module``.
    initialization : str, default="default"
        How the first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``, for each gate by itself.
    generator : torch.Generator, default=None
        Where the first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where dropout masks and the choices of teacher forcing come from. None takes torch's global generator.

    Shape
    -----
    (N, n_timesteps, n_features), for "one_to_many" (N, n_features) or (N, 1, n_features), to (N, n_steps_out, n_outputs).

    References
    ----------
    Sutskever, Vinyals and Le, Sequence to Sequence Learning with Neural Networks, arXiv:1409.3215. Williams and Zipser, A
    Learning Algorithm for Continually Running Fully Recurrent Neural Networks (teacher forcing),
    doi:10.1162/neco.1989.1.2.270; Bengio et al., Scheduled Sampling (its probability), arXiv:1506.03099.

    Examples
    --------
    >>> import torch
    >>> from skpt.modules import Seq2SeqModule
    >>> Seq2SeqModule(4, 2, n_steps_out=6, cell="gru", hidden_size=16)(torch.zeros(5, 12, 4)).shape
    torch.Size([5, 6, 2])
    """

    draws_from_generator = True

    def __init__(
        self,
        n_features: int,
        n_outputs: int,
        n_steps_out: int = 1,
        *,
        architecture: str = "encoder_decoder",
        cell: str = "lstm",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        teacher_forcing: float = 0.0,
        hidden_layer_sizes: Sequence[int] = (),
        activation: str | Callable[[], nn.Module] = "relu",
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {ARCHITECTURES}. Got {architecture!r}.")
        self.n_features, self.n_outputs, self.n_steps_out = n_features, n_outputs, n_steps_out
        self.architecture = architecture
        first_weights = {"initialization": initialization, "generator": generator}
        both = {**first_weights, "dropout": dropout, "noise_generator": noise_generator}
        size = {"hidden_size": hidden_size, "num_layers": num_layers}
        d_head = hidden_size
        if architecture == "many_to_many":
            self.rnn = Recurrent(cell, n_features, **size, bidirectional=bidirectional, **both)
            d_head *= self.rnn.n_directions
        else:
            if architecture == "encoder_decoder":
                self.encoder = Recurrent(cell, n_features, **size, bidirectional=bidirectional, **both)
            self.decoder = Recurrent(cell, n_outputs, **size, **both)
            if architecture == "one_to_many":
                self.first_state = Linear(n_features, num_layers * hidden_size * self.decoder.n_states, **first_weights)
            elif bidirectional:
                self.first_state = Linear(2 * hidden_size, hidden_size, **first_weights)
            # Draws who is forced: what a dropout of this rate keeps.
            self.unforced = Dropout(1.0 - teacher_forcing, noise_generator)
        self.dropout = Dropout(dropout, noise_generator)
        self.head = MLPModule(d_head, n_outputs, hidden_layer_sizes, activation=activation, **both)

    @property
    def takes_target(self) -> bool:
        """Whether `forward` makes use of targets while training."""
        return self.architecture != "many_to_many" and self.unforced.p < 1.0

    def forward(self, X: Tensor, target: Tensor | None = None) -> Tensor:
        """Map sequences to sequences; `target` (N, n_steps_out, n_outputs) is what teacher forcing feeds in training."""
        if self.architecture == "many_to_many":
            return self._at_last_steps(X)
        if self.architecture == "one_to_many":
            return self._decode(self._state_from_row(X), target)
        return self._decode(self._state_from_sequence(X), target)

    def _at_last_steps(self, X: Tensor) -> Tensor:
        X, lengths = read_padding(X)
        shortest = X.shape[1] if lengths is None else int(lengths.min())
        if shortest < self.n_steps_out:
            raise ValueError(
                f"'many_to_many' gives one output a step, so that sequences must have at least n_steps_out={self.n_steps_out} "
                f"steps. Got one of {shortest}. Take architecture='encoder_decoder'."
            )
        outputs, _ = self.rnn(X, lengths, needs_cells=False)
        if lengths is None:
            outputs = outputs[:, X.shape[1] - self.n_steps_out :]
        else:
            steps = (lengths - self.n_steps_out)[:, None] + torch.arange(self.n_steps_out, device=X.device)
            outputs = outputs.gather(1, steps[:, :, None].expand(-1, -1, outputs.shape[2]))
        return self.head(self.dropout(outputs))

    def _state_from_row(self, X: Tensor) -> tuple[Tensor, ...]:
        if X.ndim == 3 and X.shape[1] != 1:
            raise ValueError(
                f"'one_to_many' starts from one row: X of shape (N, n_features) or (N, 1, n_features). Got {tuple(X.shape)}. "
                "Take architecture='encoder_decoder'."
            )
        state = torch.tanh(self.first_state(X.reshape(len(X), self.n_features)))
        return state.view(len(X), self.decoder.n_states, self.decoder.num_layers, -1).permute(1, 2, 0, 3).unbind(0)

    def _state_from_sequence(self, X: Tensor) -> tuple[Tensor, ...]:
        _, state = self.encoder(*read_padding(X))
        if not self.encoder.bidirectional:
            return state
        # (num_layers * 2, N, H) to (num_layers, N, 2 * H): both directions of a layer side by side
        pairs = (each.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2) for each in state)
        return tuple(torch.tanh(self.first_state(pair)) for pair in pairs)

    def _decode(self, state: tuple[Tensor, ...], target: Tensor | None) -> Tensor:
        n_samples = state[0].shape[1]
        last = state[0].new_zeros(n_samples, self.n_outputs)
        forced = None
        if self.training and target is not None and self.takes_target:
            target = target.view(n_samples, self.n_steps_out, self.n_outputs)
            if not self.unforced.p:  # all inputs are known: no need to go step by step
                inputs = torch.cat((last[:, None], target[:, :-1]), 1)
                return self.head(self.dropout(self.decoder(inputs, None, state)[0]))
            forced = self.unforced.next_mask((n_samples, self.n_steps_out, 1), target.device) > 0
        outputs = []
        for t in range(self.n_steps_out):
            h, state = self.decoder.step(last, state)
            last = self.head(self.dropout(h))
            outputs.append(last)
            if forced is not None:
                last = torch.where(forced[:, t], target[:, t], last)
        return torch.stack(outputs, 1)
