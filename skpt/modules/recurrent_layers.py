"""Recurrent layers: torch's weights, formulas and names, with a generator of their own and a fast GRU on a CPU.

On a CPU torch runs an LSTM as one fused operation of oneDNN, and a GRU or a plain RNN as some forty small operations a step,
each of which autograd records and repeats backwards. `GRUSequence` and `TanhSequence` are whole sequences with gradients
written out, so that a step of the loop over time is five operations forward and three backward (two and two), in place:

- all products with the inputs are one operation before the loop, all gradients of weights one after it;
- what the backward loop multiplies by does not depend on the gradient that comes in, and is prepared for all steps at once;
- features stand in front of samples, so that the rows of one gate, or of several, lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from skpt.modules.layers import INITIALIZATIONS, Dropout, _DrawsWeights

__all__ = ["CELLS", "GRUSequence", "Recurrent", "TanhSequence"]

CELLS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN_TANH"}
_N_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1}


class GRUSequence(Function):
    r"""One layer of a GRU in one direction, as ``torch.nn.GRU`` defines it.

    .. math:: r, z = \sigma(W_{r,z} x + V_{r,z} h + b_{r,z}), \quad
              n = \tanh(W_n x + b_n + r (V_n h + c_n)), \quad h \leftarrow (1 - z) n + z h

    Applied to X of shape (T, F, N), torch's four weights and the first state of shape (H, N). Gives all states, the first one
    included, of shape (T + 1, H, N), and for the gradient the gates of shape (T, 4 H, N): V_n h + c_n, r, z, n.

    References
    ----------
    Cho et al., Learning Phrase Representations using RNN Encoder-Decoder, arXiv:1406.1078.
    """

    @staticmethod
    def forward(X, w_ih, w_hh, b_ih, b_hh, first):
        """Run over time."""
        T, F, N = X.shape
        H = len(first)
        # The four rows of gates of each step, as far as they do not depend on the state: of V_n h that is its bias alone.
        bias = torch.cat((b_hh[2 * H :], b_ih[: 2 * H] + b_hh[: 2 * H], b_ih[2 * H :]))
        gates = _products(torch.cat((w_ih.new_zeros(H, F), w_ih)), X, bias)
        of_state, sigmoids = gates[:, : 3 * H].unbind(0), gates[:, H : 3 * H].unbind(0)
        inner, r, z, n = (gate.unbind(0) for gate in gates.view(T, 4, H, N).unbind(1))
        states = X.new_empty(T + 1, H, N)
        states[0] = first
        h, *following = states.unbind(0)
        w = w_hh.roll(H, 0)
        for t, following_h in enumerate(following):
            of_state[t].addmm_(w, h)
            sigmoids[t].sigmoid_()
            n[t].addcmul_(r[t], inner[t]).tanh_()
            h = torch.lerp(n[t], h, z[t], out=following_h)
        return states, gates

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep what the gradient needs."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx, grad_states, _):
        """Run back over time."""
        if torch.is_grad_enabled():
            return _gradients_with_graph(torch.gru, ctx, grad_states)
        X, w_ih, w_hh, _, _, _, states, gates = ctx.saved_tensors
        T, _, N = X.shape
        H = w_hh.shape[1]
        grads = grad_states.clone().unbind(0)
        sums = _Gradients(X, w_ih, w_hh, states, 4 * H, ctx.needs_input_grad[0])
        w = w_hh.roll(H, 0).t().contiguous()
        for part in _parts(T, 4 * H * N):
            inner, r, z, n = gates[part].view(-1, 4, H, N).unbind(1)
            # The slopes of the next state over the four rows before their nonlinearities.
            slopes = torch.empty_like(gates[part]).view(-1, 4, H, N)
            of_inner, of_r, of_z, of_n = slopes.unbind(1)
            torch.mul(n, n, out=of_n).neg_().add_(1)
            of_n.addcmul_(of_n, z, value=-1)
            torch.mul(of_n, r, out=of_inner)
            torch.mul(of_inner, inner, out=of_r).addcmul_(of_r, r, value=-1)
            torch.sub(states[part], n, out=of_z).mul_(z)
            of_z.addcmul_(of_z, z, value=-1)
            # The loop makes gradients of the loss of them.
            rows = slopes.view(-1, 4 * H, N)
            of_step, of_state, z = slopes.unbind(0), rows[:, : 3 * H].unbind(0), z.unbind(0)
            for t in range(len(z) - 1, -1, -1):
                now = grads[part.start + t + 1]
                of_step[t].mul_(now)
                grads[part.start + t].addcmul_(now, z[t]).addmm_(w, of_state[t])
            sums.add(part, rows, slice(H, 4 * H), slice(0, 3 * H))
        return sums.X, sums.w_ih, sums.w_hh.roll(-H, 0), sums.bias[H:], sums.bias[: 3 * H].roll(-H), grads[0]


class TanhSequence(Function):
    r"""One layer of a plain RNN in one direction: :math:`h \leftarrow \tanh(W x + V h + b)`.

    Applied to X of shape (T, F, N), torch's four weights and the first state of shape (H, N). Gives all states, the first one
    included, of shape (T + 1, H, N).
    """

    @staticmethod
    def forward(X, w_ih, w_hh, b_ih, b_hh, first):
        """Run over time."""
        states = X.new_empty(len(X) + 1, *first.shape)
        states[0] = first
        _products(w_ih, X, b_ih + b_hh, out=states[1:])
        h, *following = states.unbind(0)
        for following_h in following:
            h = following_h.addmm_(w_hh, h).tanh_()
        return states

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep what the gradient needs."""
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx, grad_states):
        """Run back over time."""
        if torch.is_grad_enabled():
            return _gradients_with_graph(torch.rnn_tanh, ctx, grad_states)
        X, w_ih, w_hh, _, _, _, states = ctx.saved_tensors
        H, N = states.shape[1:]
        grads = grad_states.clone().unbind(0)
        sums = _Gradients(X, w_ih, w_hh, states, H, ctx.needs_input_grad[0])
        w, every = w_hh.t().contiguous(), slice(None)
        for part in _parts(len(X), H * N):
            rows = states[part.start + 1 : part.stop + 1].square().neg_().add_(1)
            of_step = rows.unbind(0)
            for t in range(len(of_step) - 1, -1, -1):
                of_step[t].mul_(grads[part.start + t + 1])
                grads[part.start + t].addmm_(w, of_step[t])
            sums.add(part, rows, every, every)
        return sums.X, sums.w_ih, sums.w_hh, sums.bias, sums.bias, grads[0]


NUMBERS_AT_A_TIME = 1 << 17  # of a backward pass: 512 kB, which stay in the L2 cache


def _parts(n_steps: int, n_numbers: int) -> list[slice]:
    """Part time into spans of some steps of so many numbers, the last span first."""
    n = max(1, NUMBERS_AT_A_TIME // n_numbers)
    return [slice(max(0, stop - n), stop) for stop in range(n_steps, 0, -n)]


def _products(weight: Tensor, X: Tensor, bias: Tensor, out: Tensor | None = None) -> Tensor:
    """Give weight @ X + bias of all steps (T, F, N) as one product."""
    T, _, N = X.shape
    X = torch.cat((X, X.new_ones(1, 1, 1).expand(T, 1, N)), 1)
    return torch.bmm(torch.cat((weight, bias[:, None]), 1).expand(T, -1, -1), X, out=out)


def _gradients_with_graph(run: Callable, ctx, grad_states: Tensor) -> tuple[Tensor | None, ...]:
    """Give gradients that can be derived once more, by torch's own operation."""
    inputs = ctx.saved_tensors[:6]
    X, *weights, first = inputs
    outputs, _ = run(X.transpose(1, 2), first.t()[None], weights, True, 1, 0.0, True, False, False)
    states = torch.cat((first[None], outputs.transpose(1, 2)))
    wanted = [each for each, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
    found = iter(torch.autograd.grad(states, wanted, grad_states, create_graph=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


class _Gradients:
    """Sums over time: the gradients of weights, biases and inputs from those of rows of gates."""

    def __init__(self, X: Tensor, w_ih: Tensor, w_hh: Tensor, states: Tensor, n_rows: int, needs_X: bool):
        self.inputs, self.states, self.weight = X, states, w_ih.t()
        self.w_ih, self.w_hh, self.bias = torch.zeros_like(w_ih), torch.zeros_like(w_hh), w_ih.new_zeros(n_rows)
        self.X = torch.empty_like(X) if needs_X else None

    def add(self, part: slice, rows: Tensor, of_X: slice, of_state: slice) -> None:
        """Add a span of time, rows of shape (T, n_rows, N); the slices say which rows are of what."""
        T, n_rows, N = rows.shape
        rows = rows.transpose(0, 1).reshape(n_rows, T * N)
        self.w_ih.addmm_(rows[of_X], self.inputs[part].transpose(0, 1).reshape(-1, T * N).t())
        self.w_hh.addmm_(rows[of_state], self.states[part].transpose(0, 1).reshape(-1, T * N).t())
        self.bias.addmv_(rows, rows.new_ones(T * N))
        if self.X is not None:
            self.X[part] = (self.weight @ rows[of_X]).view(-1, T, N).transpose(0, 1)


class Recurrent(_DrawsWeights, nn.RNNBase):
    """Layers of ``torch.nn.LSTM``, ``torch.nn.GRU`` or ``torch.nn.RNN``, with torch's names, shapes and first weights.

    Sequences of unequal length come padded at the end, with their lengths: the outputs and last states of each are those
    that it has alone. A sequence is read backwards from its own last step.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}
        What a unit computes: long short-term memory, gated recurrent unit, or the hyperbolic tangent of a sum.
    n_features : int
        Number of features of a step.
    hidden_size : int
        Number of units of a layer and direction.
    num_layers : int, default=1
        Number of layers.
    bidirectional : bool, default=False
        Whether each layer also reads the sequences backwards.
    dropout : float, default=0.0
        Probability that an output of a layer is dropped before the next layer, while training.
    initialization : str, default="default"
        How the first weights are drawn: a name of ``skpt.modules.INITIALIZATIONS``, for each gate by itself. "default" is
        torch's: uniform within 1 / sqrt(hidden_size), biases too.
    generator : torch.Generator, default=None
        Where the first weights come from. None takes torch's global generator.
    noise_generator : torch.Generator, default=None
        Where the dropout masks come from. None takes torch's global generator.

    Shape
    -----
    (N, T, n_features) to (N, T, hidden_size * n_directions), and states of shape (num_layers * n_directions, N, hidden_size).

    References
    ----------
    Hochreiter and Schmidhuber, Long Short-Term Memory, doi:10.1162/neco.1997.9.8.1735. Cho et al., arXiv:1406.1078.
    """

    draws_from_generator = True

    def __init__(
        self,
        cell: str,
        n_features: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        initialization: str = "default",
        generator: torch.Generator | None = None,
        noise_generator: torch.Generator | None = None,
    ):
        if cell not in CELLS:
            raise ValueError(f"cell must be one of {sorted(CELLS)}. Got {cell!r}.")
        super().__init__(
            CELLS[cell],
            n_features,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            initialization=initialization,
            generator=generator,
        )
        self.between_layers = Dropout(dropout, noise_generator)

    @property
    def n_directions(self) -> int:
        """1, or 2 for a bidirectional one."""
        return 1 + self.bidirectional

    @property
    def n_states(self) -> int:
        """Number of tensors of a state: 2 for an LSTM (outputs and cells), else 1."""
        return 1 + (self.mode == "LSTM")

    def reset_parameters(self) -> None:
        """Draw new weights; by torch's default and global generator if called by hand."""
        initialization, generator = self.__dict__.get("_first_weights", ("default", None))
        with torch.no_grad():
            if initialization == "default":
                bound = self.hidden_size**-0.5
                for weight in self.parameters():
                    weight.uniform_(-bound, bound, generator=generator)
                return
            for index in range(self.num_layers * self.n_directions):
                w_ih, w_hh, b_ih, b_hh = (weight.chunk(_N_GATES[self.mode]) for weight in self._weights(index))
                for weights, biases in ((w_ih, b_ih), (w_hh, b_hh)):
                    for weight, bias in zip(weights, biases, strict=True):
                        INITIALIZATIONS[initialization](SimpleNamespace(weight=weight, bias=bias), generator)

    def _weights(self, index: int) -> list[Tensor]:
        """The four weights of a layer and direction, counted together."""
        layer, direction = divmod(index, self.n_directions)
        suffix = f"_l{layer}" + "_reverse" * direction
        return [getattr(self, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def forward(
        self,
        X: Tensor,
        lengths: Tensor | None = None,
        state: tuple[Tensor, ...] | None = None,
        needs_cells: bool = True,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run over sequences.

        Parameters
        ----------
        X : Tensor of shape (N, T, n_features)
            The sequences.
        lengths : Tensor of int of shape (N,), default=None
            Number of steps of each; outputs after them mean nothing. None if all have T.
        state : tuple of Tensor of shape (num_layers * n_directions, N, hidden_size), default=None
            The first states: one tensor, or for an LSTM two. None takes zeros.
        needs_cells : bool, default=True
            Whether the cells of an LSTM after the last step are asked for. Without them, sequences of unequal length are
            faster on a CPU.

        Returns
        -------
        outputs : Tensor of shape (N, T, hidden_size * n_directions)
            Of the last layer.
        state : tuple of Tensor of shape (num_layers * n_directions, N, hidden_size)
            After the last step of each sequence; for an LSTM the cells too, if they were asked for.
        """
        if state is None:
            zeros = X.new_zeros(self.num_layers * self.n_directions, len(X), self.hidden_size)
            state = (zeros,) * self.n_states
        by_torch = self.mode == "LSTM" and (lengths is None or needs_cells)  # a fused operation, if all have one length
        is_compiling = torch.compiler.is_compiling()
        if by_torch or X.device.type != "cpu" or is_compiling:
            # The compiler leaves torch.nn.LSTM out too: what it makes of its operation fails.
            run = torch.compiler.disable(self._run_by_torch) if is_compiling else self._run_by_torch
            return run(X, lengths, state)
        return self._run(X, lengths, state)

    def _run(self, X: Tensor, lengths: Tensor | None, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Layer by layer, and a direction at a time."""
        outputs, last = X.transpose(0, 1), []  # T, N, F
        for layer in range(self.num_layers):
            inputs = self.between_layers(outputs) if layer else outputs
            directions = []
            for direction in range(self.n_directions):
                index = layer * self.n_directions + direction
                sequence = _reversed(inputs, lengths) if direction else inputs
                sequence = self._run_forwards(sequence, self._weights(index), [each[index] for each in state])
                last.append(sequence[-1] if lengths is None else sequence[lengths - 1, torch.arange(len(lengths))])
                directions.append(_reversed(sequence, lengths) if direction else sequence)
            outputs = directions[0] if len(directions) == 1 else torch.cat(directions, 2)
        return outputs.transpose(0, 1), (torch.stack(last),)

    def _run_forwards(self, X: Tensor, weights: list[Tensor], first: list[Tensor]) -> Tensor:
        """One layer in one direction: (T, N, F) to (T, N, hidden_size)."""
        if self.mode == "LSTM":
            return torch.lstm(X, [each[None] for each in first], weights, True, 1, 0.0, self.training, False, False)[0]
        X, h = X.transpose(1, 2).contiguous(), first[0].t()
        states = TanhSequence.apply(X, *weights, h) if self.mode != "GRU" else GRUSequence.apply(X, *weights, h)[0]
        return states[1:].transpose(1, 2)

    def _run_by_torch(
        self, X: Tensor, lengths: Tensor | None, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers at once by torch's own operation, or one after another where something is dropped between them."""
        n_steps = X.shape[1]
        packed = lengths is not None
        if packed:
            packing = pack_padded_sequence(X, lengths.cpu(), batch_first=True, enforce_sorted=False)
            X, state = packing.data, tuple(each.index_select(1, packing.sorted_indices) for each in state)
        apart = self.training and self.between_layers.p and self.num_layers > 1
        n_layers = 1 if apart else self.num_layers
        run = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh}[self.mode]
        last = []
        for layer in range(0, self.num_layers, n_layers):
            X = self.between_layers(X) if layer else X
            part = slice(layer * self.n_directions, (layer + n_layers) * self.n_directions)
            weights = [weight for index in range(part.start, part.stop) for weight in self._weights(index)]
            first = [each[part] for each in state] if self.mode == "LSTM" else state[0][part]
            settings = (weights, True, n_layers, 0.0, self.training, self.bidirectional)
            X, *of_part = run(X, packing.batch_sizes, first, *settings) if packed else run(X, first, *settings, True)
            last.append(of_part)
        state = tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*last, strict=True))
        if packed:
            packing = PackedSequence(X, *packing[1:])
            X, _ = pad_packed_sequence(packing, batch_first=True, total_length=n_steps)
            state = tuple(each.index_select(1, packing.unsorted_indices) for each in state)
        return X, state

    def step(self, X: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run one step of layers that read forwards, for a decoder that is fed with its own outputs.

        Parameters
        ----------
        X : Tensor of shape (N, n_features)
            One step.
        state : tuple of Tensor of shape (num_layers, N, hidden_size)
            The states before it.

        Returns
        -------
        outputs : Tensor of shape (N, hidden_size)
            Of the last layer.
        state : tuple of Tensor of shape (num_layers, N, hidden_size)
            The states after it.
        """
        following = []
        for layer in range(self.num_layers):
            X = self.between_layers(X) if layer else X
            if self.mode == "LSTM":
                now = torch.lstm_cell(X, [each[layer] for each in state], *self._weights(layer))
            else:
                cell = torch.gru_cell if self.mode == "GRU" else torch.rnn_tanh_cell
                now = (cell(X, state[0][layer], *self._weights(layer)),)
            X = now[0]
            following.append(now)
        return X, tuple(torch.stack(parts) for parts in zip(*following, strict=True))


def _reversed(X: Tensor, lengths: Tensor | None) -> Tensor:
    """Turn each sequence of (T, N, F) round, its padding left where it is."""
    if lengths is None:
        return X.flip(0)
    step = torch.arange(len(X))[:, None]
    source = torch.where(step < lengths, lengths - 1 - step, step)
    return X.gather(0, source[:, :, None].expand_as(X))
