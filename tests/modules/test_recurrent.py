"""Recurrent networks against the same networks of torch's layers, in an obvious loop."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skpt.modules import RNNModule, Seq2SeqModule

pytestmark = pytest.mark.usefixtures("global_generators_untouched")

TORCHS_OWN = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = list(TORCHS_OWN)
ARCHITECTURES = ["many_to_many", "one_to_many", "encoder_decoder"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def padded(X: torch.Tensor, lengths) -> torch.Tensor:
    X = X.clone()
    for row, length in zip(X, lengths, strict=True):
        row[length:] = math.nan
    return X


def assert_close(ours, theirs, tolerance: float = 5e-6):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def torchs_own(module, name: str) -> nn.Module:
    """A layer of torch's with the weights of the recurrent layers of that name."""
    ours = getattr(module, name)
    cell = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN_TANH": nn.RNN}[ours.mode]
    with torch.random.fork_rng():
        layer = cell(ours.input_size, ours.hidden_size, ours.num_layers, batch_first=True, bidirectional=ours.bidirectional)
    layer.load_state_dict(ours.state_dict())
    return layer


def states_of(last) -> tuple[torch.Tensor, ...]:
    return last if isinstance(last, tuple) else (last,)


# ---------------------------------------------------------------------- many to one


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_many_to_one_is_torchs_last_state_and_a_linear_layer(cell, bidirectional, num_layers):
    parameters = {"cell": cell, "hidden_size": 6, "num_layers": num_layers, "bidirectional": bidirectional}
    module = RNNModule(3, 2, **parameters, generator=generator(4))
    with torch.random.fork_rng():
        torch.manual_seed(4)  # equal seeds, equal weights: the layers one after another
        layer = TORCHS_OWN[cell](3, 6, num_layers, batch_first=True, bidirectional=bidirectional)
        head = nn.Linear(6 * (1 + bidirectional), 2)
    theirs = {**{f"rnn.{k}": w for k, w in layer.state_dict().items()}, "head.output.weight": head.weight}
    theirs["head.output.bias"] = head.bias
    assert module.state_dict().keys() == theirs.keys()
    assert all(torch.equal(w, theirs[k]) for k, w in module.state_dict().items())
    X, weight = normal(5, 11, 3), normal(5, 2, seed=1)
    last = states_of(layer(X)[1])[0]
    expected = head(torch.cat((last[-2], last[-1]), 1) if bidirectional else last[-1])
    ours = module(X)
    assert_close(ours, expected)
    (ours * weight).sum().backward()
    (expected * weight).sum().backward()
    grads = {**{f"rnn.{k}": p.grad for k, p in layer.named_parameters()}}
    grads.update({"head.output.weight": head.weight.grad, "head.output.bias": head.bias.grad})
    for name, p in module.named_parameters():
        assert_close(p.grad, grads[name])


@settings(max_examples=40)
@given(
    cell=st.sampled_from(CELLS),
    bidirectional=st.booleans(),
    num_layers=st.integers(1, 2),
    lengths=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    n_features=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_a_padded_sequence_gives_what_it_gives_alone(cell, bidirectional, num_layers, lengths, n_features, seed):
    module = RNNModule(
        n_features, 2, cell=cell, hidden_size=4, num_layers=num_layers, bidirectional=bidirectional, generator=generator(seed)
    )
    X = normal(len(lengths), 8, n_features, seed=seed)
    together = module(padded(X, lengths))
    alone = torch.cat([module(row[None, :length]) for row, length in zip(X, lengths, strict=True)])
    assert_close(together, alone)
    grads = []
    for outputs in (together, alone):
        module.zero_grad()
        outputs.square().sum().backward()
        grads.append([p.grad.clone() for p in module.parameters()])
    for ours, theirs in zip(*grads, strict=True):
        assert_close(ours, theirs, 2e-5)


def test_a_head_with_hidden_layers():
    module = RNNModule(3, 2, hidden_layer_sizes=(7, 5), activation="tanh", hidden_size=4, generator=generator())
    shapes = {k: tuple(w.shape) for k, w in module.head.state_dict().items() if k.endswith("weight")}
    assert shapes == {"hidden_1.weight": (7, 4), "hidden_2.weight": (5, 7), "output.weight": (2, 5)}
    X = normal(4, 6, 3)
    h = torchs_own(module, "rnn")(X)[1][0][-1]
    assert_close(module(X), module.head.output(torch.tanh(module.head.hidden_2(torch.tanh(module.head.hidden_1(h))))))


@pytest.mark.parametrize("make", [RNNModule, Seq2SeqModule])
@pytest.mark.parametrize("cell", CELLS)
def test_seeds_fix_weights_and_noise(make, cell):
    def outputs(seed, noise, training=True):
        module = make(3, 2, cell=cell, num_layers=2, dropout=0.5, generator=generator(seed), noise_generator=generator(noise))
        return module.train(training)(normal(5, 6, 3))

    assert torch.equal(outputs(0, 1), outputs(0, 1))
    assert not torch.equal(outputs(0, 1), outputs(0, 2))
    assert not torch.equal(outputs(0, 1), outputs(1, 1))
    assert torch.equal(outputs(0, 1, training=False), outputs(0, 2, training=False))


@pytest.mark.parametrize("architecture", [None, *ARCHITECTURES])
def test_copies_and_stand_ins_compute_the_same(architecture):
    if architecture is None:
        module, X = RNNModule(3, 2, cell="gru", dropout=0.3, generator=generator()), normal(5, 6, 3)
    else:
        module = Seq2SeqModule(3, 2, 4, architecture=architecture, cell="gru", dropout=0.3, generator=generator())
        X = normal(5, 1 if architecture == "one_to_many" else 6, 3)
    expected = module.eval()(X)
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(again(X), expected)
    doubled = {name: weight.double() for name, weight in module.state_dict().items()}
    assert_close(torch.func.functional_call(module, doubled, X.double()).float(), expected)


# ---------------------------------------------------------------------- to sequences


def obvious_decoder(module, state, n_steps, target=None, forced=None):
    """Feed torch's layer with one step after another."""
    layer = torchs_own(module, "decoder")
    last, outputs = torch.zeros(state[0].shape[1], module.n_outputs), []
    for t in range(n_steps):
        h, after = layer(last[:, None], state if module.decoder.mode == "LSTM" else state[0])
        state = states_of(after)
        last = module.head(h[:, 0])
        outputs.append(last)
        if forced is not None:
            last = torch.stack([target[i, t] if forced[i][t] else last[i] for i in range(len(last))])
    return torch.stack(outputs, 1)


def obvious_first_state(module, X):
    """What the decoder starts with, for an input without padding."""
    L, H, n_states = module.decoder.num_layers, module.decoder.hidden_size, module.decoder.n_states
    if module.architecture == "one_to_many":
        values = torch.tanh(module.first_state(X.reshape(len(X), -1)))
        parts = [values[:, i * H : (i + 1) * H] for i in range(n_states * L)]
        return tuple(torch.stack(parts[i * L : (i + 1) * L]) for i in range(n_states))
    state = states_of(torchs_own(module, "encoder")(X)[1])
    if not module.encoder.bidirectional:
        return state
    return tuple(
        torch.stack([torch.tanh(module.first_state(torch.cat((s[2 * i], s[2 * i + 1]), 1))) for i in range(L)]) for s in state
    )


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("architecture", ["one_to_many", "encoder_decoder"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_decoder_is_the_obvious_loop(cell, architecture, bidirectional, num_layers):
    module = Seq2SeqModule(
        3,
        2,
        5,
        architecture=architecture,
        cell=cell,
        hidden_size=4,
        num_layers=num_layers,
        bidirectional=bidirectional,
        generator=generator(),
    )
    X = normal(6, 1 if architecture == "one_to_many" else 7, 3)
    ours = module(X)
    assert ours.shape == (6, 5, 2)
    assert_close(ours, obvious_decoder(module, obvious_first_state(module, X), 5))
    if architecture == "one_to_many":
        assert torch.equal(module(X[:, 0]), ours)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("architecture", ["one_to_many", "encoder_decoder"])
@pytest.mark.parametrize("teacher_forcing", [0.4, 1.0])
def test_teacher_forcing_feeds_the_target_in_training_alone(cell, architecture, teacher_forcing):
    def make(p):
        parameters = {"architecture": architecture, "cell": cell, "hidden_size": 4, "teacher_forcing": p}
        return Seq2SeqModule(3, 2, 5, **parameters, generator=generator(), noise_generator=generator(1))

    module, free = make(teacher_forcing), make(0.0)
    assert module.takes_target and not free.takes_target
    X = normal(6, 1 if architecture == "one_to_many" else 7, 3)
    target = normal(6, 5, 2, seed=1)
    draws = make(teacher_forcing).unforced.next_mask((6, 5, 1), X.device)[:, :, 0]
    forced = (draws > 0).tolist()
    n_forced = sum(map(sum, forced))
    assert n_forced == 30 if teacher_forcing == 1 else 4 < n_forced < 20
    assert_close(module(X, target), obvious_decoder(module, obvious_first_state(module, X), 5, target, forced))
    assert_close(module(X), free(X))
    assert_close(module.eval()(X, target), free(X))
    assert_close(free(X, target), free(X))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("n_steps_out", [1, 4, 7])
def test_many_to_many_is_torchs_outputs_and_a_linear_layer(cell, bidirectional, n_steps_out):
    module = Seq2SeqModule(
        3,
        2,
        n_steps_out,
        architecture="many_to_many",
        cell=cell,
        hidden_size=4,
        bidirectional=bidirectional,
        teacher_forcing=0.5,
        generator=generator(),
    )
    X = normal(6, 7, 3)
    assert not module.takes_target
    assert_close(module(X, normal(6, n_steps_out, 2)), module.head(torchs_own(module, "rnn")(X)[0])[:, -n_steps_out:])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("architecture", ["many_to_many", "encoder_decoder"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_sequence_gives_the_sequence_that_it_gives_alone(cell, architecture, bidirectional):
    module = Seq2SeqModule(
        2,
        1,
        3,
        architecture=architecture,
        cell=cell,
        hidden_size=4,
        num_layers=2,
        bidirectional=bidirectional,
        generator=generator(),
    )
    lengths = [3, 8, 5, 4]
    X = normal(4, 8, 2)
    alone = torch.cat([module(row[None, :length]) for row, length in zip(X, lengths, strict=True)])
    assert_close(module(padded(X, lengths)), alone)


def test_what_cannot_become_a_sequence_is_an_error():
    with pytest.raises(ValueError, match=r"architecture must be one of .* Got 'one_to_one'"):
        Seq2SeqModule(3, 2, 4, architecture="one_to_one")
    short = padded(normal(4, 8, 3), [8, 3, 8, 8])
    with pytest.raises(ValueError, match=r"at least n_steps_out=4 steps. Got one of 3"):
        Seq2SeqModule(3, 2, 4, architecture="many_to_many", generator=generator())(short)
    with pytest.raises(ValueError, match=r"starts from one row.* Got \(4, 8, 3\)"):
        Seq2SeqModule(3, 2, 4, architecture="one_to_many", generator=generator())(normal(4, 8, 3))
