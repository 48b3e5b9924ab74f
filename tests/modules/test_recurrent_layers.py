"""Recurrent layers against torch's own: same weights, outputs and gradients, for sequences of equal and unequal length."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from skpt.modules import INITIALIZATIONS, Recurrent, recurrent_layers
from skpt.modules.padding import read_padding
from skpt.modules.recurrent_layers import GRUSequence, TanhSequence

pytestmark = pytest.mark.usefixtures("global_generators_untouched")

TORCHS_OWN = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = list(TORCHS_OWN)
N_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def torchs_own(cell, n_features, hidden_size, num_layers=1, bidirectional=False, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TORCHS_OWN[cell](n_features, hidden_size, num_layers, batch_first=True, bidirectional=bidirectional)


def run_torchs_own(oracle, X, lengths, state):
    """Give outputs and a tuple of states; torch packs sequences of unequal length."""
    state = state if isinstance(oracle, nn.LSTM) or state is None else state[0]
    if lengths is None:
        outputs, last = oracle(X, state)
    else:
        packed, last = oracle(pack_padded_sequence(X, lengths, batch_first=True, enforce_sorted=False), state)
        outputs, _ = pad_packed_sequence(packed, batch_first=True, total_length=X.shape[1])
    return outputs, last if isinstance(last, tuple) else (last,)


def outputs_and_gradients(run, layer, X, lengths, state):
    """Everything that a layer computes, and the gradient of a random sum of it by all that went in."""
    X = X.clone().requires_grad_()
    state = None if state is None else tuple(each.clone().requires_grad_() for each in state)
    outputs, last = run(X, lengths, state)
    if lengths is not None:  # what stands in the padding means nothing
        outputs = outputs * (torch.arange(X.shape[1]) < lengths[:, None])[:, :, None]
    layer.zero_grad()
    total = (outputs * normal(*outputs.shape, seed=1, dtype=X.dtype)).sum()
    for i, each in enumerate(last):
        total = total + (each * normal(*each.shape, seed=2 + i, dtype=X.dtype)).sum()
    total.backward()
    grads = [X.grad, *(each.grad for each in state or ()), *(p.grad for p in layer.parameters())]
    return [outputs.detach(), *(each.detach() for each in last), *grads]


def assert_close(ours, theirs, tolerance: float = 2e-6):
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=tolerance, atol=tolerance * max(1.0, float(their.abs().max())))


@settings(max_examples=60)
@given(
    cell=st.sampled_from(CELLS),
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4), st.integers(1, 7)),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    unequal=st.booleans(),
    with_state=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_outputs_states_and_gradients_are_torchs(
    cell, sizes, num_layers, bidirectional, unequal, with_state, dtype, seed
):
    N, T, F, H = sizes
    oracle = torchs_own(cell, F, H, num_layers, bidirectional, seed).to(dtype)
    layer = Recurrent(cell, F, H, num_layers, bidirectional=bidirectional, generator=generator(seed)).to(dtype)
    X = normal(N, T, F, seed=seed, dtype=dtype)
    lengths = torch.randint(1, T + 1, (N,), generator=generator(seed)) if unequal else None
    state = None
    if with_state:
        shape = (num_layers * (1 + bidirectional), N, H)
        state = tuple(normal(*shape, seed=seed + 1 + i, dtype=dtype) for i in range(layer.n_states))
    ours = outputs_and_gradients(layer, layer, X, lengths, state)
    theirs = outputs_and_gradients(lambda *args: run_torchs_own(oracle, *args), oracle, X, lengths, state)
    assert_close(ours, theirs, 2e-6 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("unequal", [False, True])
def test_a_long_batch_in_several_parts_of_time(cell, bidirectional, unequal, monkeypatch):
    monkeypatch.setattr(recurrent_layers, "NUMBERS_AT_A_TIME", 4 * 16 * 8 * 5)
    oracle, X = torchs_own(cell, 3, 16, 2, bidirectional), normal(8, 33, 3)
    lengths = torch.tensor([33, 1, 17, 32, 4, 33, 9, 2]) if unequal else None
    layer = Recurrent(cell, 3, 16, 2, bidirectional=bidirectional, generator=generator())
    layer.load_state_dict(oracle.state_dict())
    ours = outputs_and_gradients(layer, layer, X, lengths, None)
    assert_close(ours, outputs_and_gradients(lambda *args: run_torchs_own(oracle, *args), oracle, X, lengths, None))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_an_lstm_without_its_cells(bidirectional):
    """Of sequences of unequal length they are not asked for where nobody needs them, and the rest is the same."""
    oracle, X, lengths = torchs_own("lstm", 3, 5, 2, bidirectional), normal(4, 9, 3), torch.tensor([9, 3, 1, 7])
    layer = Recurrent("lstm", 3, 5, 2, bidirectional=bidirectional, generator=generator())
    layer.load_state_dict(oracle.state_dict())
    ours = outputs_and_gradients(lambda *args: layer(*args, needs_cells=False), layer, X, lengths, None)

    def without_cells(*args):
        outputs, (h, _) = run_torchs_own(oracle, *args)
        return outputs, (h,)

    assert_close(ours, outputs_and_gradients(without_cells, oracle, X, lengths, None))


@pytest.mark.parametrize("sequence", [GRUSequence, TanhSequence])
def test_written_gradients_are_the_derivatives(sequence):
    n_rows = 3 if sequence is GRUSequence else 1
    shapes = [(4, 2, 3), (5 * n_rows, 2), (5 * n_rows, 5), (5 * n_rows,), (5 * n_rows,), (5, 3)]
    inputs = [normal(*shape, seed=i, dtype=torch.float64).requires_grad_() for i, shape in enumerate(shapes)]

    def states(*inputs):
        given = sequence.apply(*inputs)
        return given[0] if isinstance(given, tuple) else given

    assert torch.autograd.gradcheck(states, inputs)


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_a_second_derivative_is_torchs(cell):
    """As a penalty on the gradient of the inputs takes it."""
    layer, oracle, X = Recurrent(cell, 2, 3, generator=generator()).double(), torchs_own(cell, 2, 3).double(), normal(4, 5, 2)
    seconds = []
    for each in (layer, oracle):
        inputs = X.double().requires_grad_()
        (grad,) = torch.autograd.grad(each(inputs)[0].sum(), inputs, create_graph=True)
        seconds.append(torch.autograd.grad(grad.square().sum(), [inputs, each.weight_ih_l0, each.weight_hh_l0]))
    assert_close(*seconds, 1e-12)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("num_layers", [1, 2])
def test_off_the_cpu_and_while_compiled_torchs_own_operation_runs(cell, num_layers, monkeypatch):
    X, lengths = normal(4, 6, 3), torch.tensor([6, 2, 5, 1])
    layer = Recurrent(cell, 3, 5, num_layers, bidirectional=True, generator=generator())
    expected = [outputs_and_gradients(layer, layer, X, each, None) for each in (None, lengths)]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(GRUSequence, "apply", None)
    monkeypatch.setattr(TanhSequence, "apply", None)
    for each, values in zip((None, lengths), expected, strict=True):
        assert_close(outputs_and_gradients(layer, layer, X, each, None), values)


@pytest.mark.parametrize("cell", CELLS)
def test_weights_have_torchs_names_and_first_values(cell):
    for num_layers, bidirectional in [(1, False), (2, True)]:
        oracle = torchs_own(cell, 3, 5, num_layers, bidirectional, seed=7).state_dict()
        ours = Recurrent(cell, 3, 5, num_layers, bidirectional=bidirectional, generator=generator(7)).state_dict()
        assert list(ours) == list(oracle)
        for name, weight in oracle.items():
            assert torch.equal(ours[name], weight), "a seed gives the weights that torch.manual_seed gives"


@pytest.mark.parametrize("cell", CELLS)
def test_a_scheme_of_first_weights_is_that_of_each_gate(cell):
    layer = Recurrent(cell, 7, 16, 2, initialization="orthogonal", bidirectional=True, generator=generator())
    for name, weight in layer.named_parameters():
        if name.startswith("bias"):
            assert not weight.any()
            continue
        for gate in weight.detach().chunk(N_GATES[cell]):
            n = min(gate.shape)
            product = gate @ gate.T if gate.shape[0] == n else gate.T @ gate
            torch.testing.assert_close(product, torch.eye(n), atol=1e-5, rtol=0)
    for initialization in INITIALIZATIONS:
        pair = [Recurrent(cell, 7, 16, initialization=initialization, generator=generator(3)) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*(each.parameters() for each in pair), strict=True))
    xavier = Recurrent(cell, 40, 60, initialization="xavier_uniform", generator=generator()).weight_ih_l0
    assert 0.99 * math.sqrt(6 / 100) < xavier.abs().max() <= math.sqrt(6 / 100)


def test_drawn_anew_by_hand_from_the_global_generator():
    layer = Recurrent("gru", 3, 5, initialization="zeros")
    assert not any(p.any() for p in layer.parameters())
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layer.reset_parameters()
    assert torch.equal(layer.weight_hh_l0, torchs_own("gru", 3, 5, seed=2).weight_hh_l0)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("unequal", [False, True])
def test_dropout_between_layers_scales_what_the_next_layer_reads(cell, unequal):
    """Against the layers one by one, and the masks that the same generator gives."""
    p, X = 0.4, normal(6, 5, 3)
    lengths = torch.tensor([5, 4, 1, 2, 5, 3]) if unequal else None
    layer = Recurrent(cell, 3, 8, 2, dropout=p, generator=generator(), noise_generator=generator(1))
    seen = []
    layer.between_layers.register_forward_hook(lambda _, given, dropped: seen.append((given[0].detach(), dropped.detach())))
    first = layer(X, lengths)[0]
    assert not torch.equal(first, layer(X, lengths)[0])
    again = Recurrent(cell, 3, 8, 2, dropout=p, generator=generator(), noise_generator=generator(1))
    assert torch.equal(first, again(X, lengths)[0]), "the noise generator fixes the masks"
    (given, dropped), _ = seen
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], given[kept] / (1 - p))
    assert abs(kept.float().mean() - (1 - p)) < 0.1
    layer.eval()
    torch.testing.assert_close(layer(X, lengths)[0], Recurrent(cell, 3, 8, 2, generator=generator())(X, lengths)[0])
    assert len(seen) == 2 or torch.equal(*seen[-1])


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_at_a_time_is_the_sequence(cell):
    layer, X = Recurrent(cell, 3, 5, 2, generator=generator()), normal(4, 7, 3)
    state = tuple(normal(2, 4, 5, seed=i) for i in range(layer.n_states))
    outputs, last = layer(X, None, state)
    for t in range(7):
        output, state = layer.step(X[:, t], state)
        torch.testing.assert_close(output, outputs[:, t], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_copies_and_stand_ins_compute_the_same(cell):
    layer, X = Recurrent(cell, 3, 5, 2, bidirectional=True, dropout=0.5, generator=generator()).eval(), normal(4, 7, 3)
    expected = layer(X)[0]
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(again(X)[0], expected)
        with torch.no_grad():
            again.weight_hh_l0.zero_()
        assert not torch.equal(again(X)[0], expected), "its weights are its own, and are what it computes with"
    assert torch.equal(layer(X)[0], expected)
    with torch.no_grad():
        assert torch.equal(layer(X)[0], expected) and not layer(X)[0].requires_grad
    doubled = {name: weight.double() for name, weight in layer.state_dict().items()}
    exact = torch.func.functional_call(layer, doubled, X.double())[0]
    assert exact.dtype == torch.float64
    torch.testing.assert_close(exact.float(), expected, rtol=1e-5, atol=1e-6)


def test_wrong_names_are_errors():
    with pytest.raises(ValueError, match=r"cell must be one of \['gru', 'lstm', 'rnn'\]. Got 'GRU'"):
        Recurrent("GRU", 2, 3)
    with pytest.raises(ValueError, match=r"initialization must be one of .* Got 'kaiming'"):
        Recurrent("gru", 2, 3, initialization="kaiming")


# ---------------------------------------------------------------------- padding


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    extra=st.integers(0, 3),
    n_features=st.integers(1, 3),
)
def test_padding_is_read_off(lengths, extra, n_features):
    n_longest = max(lengths)
    X = normal(len(lengths), n_longest + extra, n_features)
    for row, length in zip(X, lengths, strict=True):
        row[length:] = math.nan
    given_X = X.clone()
    read, found = read_padding(X)
    torch.testing.assert_close(X, given_X, equal_nan=True, rtol=0, atol=0)  # not written to
    if min(lengths) == n_longest + extra:
        assert found is None and read is X
        return
    assert found.tolist() == lengths
    assert read.shape[1] == n_longest
    assert torch.equal(read, X[:, :n_longest].nan_to_num(0.0))


def test_nan_that_is_no_padding_stays():
    X = normal(3, 4, 2)
    X[1, 3:] = math.nan
    X[0, 1] = math.nan
    X[2, 3, 0] = math.nan
    read, lengths = read_padding(X)
    assert lengths.tolist() == [4, 3, 4]
    assert read[0, 1].isnan().all() and read[2, 3].isnan().tolist() == [True, False]
    assert read_padding(X[2:])[1] is None


def test_a_sequence_without_a_step_is_an_error():
    X = normal(3, 4, 2)
    X[1] = math.nan
    with pytest.raises(ValueError, match=r"at least one step that is not padding. Got NaN alone in sequence 1"):
        read_padding(X)
