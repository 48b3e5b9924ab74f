"""The transformer against torch's own encoder, and its laws: padding, order, seeds."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skpt.modules import TransformerModule
from skpt.modules.transformer import SinusoidalEncoding

pytestmark = pytest.mark.usefixtures("global_generators_untouched")

POOLINGS = ["mean", "class_token", "last"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def make(n_features: int = 3, n_outputs: int = 2, **parameters) -> TransformerModule:
    """A small network whose weights are all drawn, those that start at zero or one too."""
    parameters = {"d_model": 8, "n_heads": 2, "dim_feedforward": 12, "dropout": 0.0, **parameters}
    module = TransformerModule(n_features, n_outputs, generator=generator(), noise_generator=generator(1), **parameters)
    for i, weight in enumerate(module.parameters()):
        nn.init.normal_(weight, 0.0, 0.5, generator=generator(i))
    return module


class TorchsOwn(nn.Module):
    """The same network of torch's layers."""

    def __init__(self, module: TransformerModule, *, activation: str, norm_first: bool, pooling: str):
        super().__init__()
        d_model, dim_feedforward = module.layers[0].linear2.out_features, module.layers[0].linear1.out_features
        n_heads, num_layers = module.layers[0].self_attn.n_heads, len(module.layers)
        self.embedding = copy.deepcopy(module.embedding)
        self.output = copy.deepcopy(module.output)
        self.pooling = pooling
        self.class_token = copy.deepcopy(getattr(module, "class_token", None))
        with torch.random.fork_rng():
            layer = nn.TransformerEncoderLayer(
                d_model, n_heads, dim_feedforward, 0.0, activation, batch_first=True, norm_first=norm_first
            )
            norm = nn.LayerNorm(d_model) if norm_first else None
            self.encoder = nn.TransformerEncoder(layer, num_layers, norm, enable_nested_tensor=False)
        renamed = {"in_proj.": "in_proj_"}
        state = {}
        for name, weight in module.state_dict().items():
            for ours, theirs in renamed.items():
                name = name.replace(ours, theirs)
            if name.startswith(("layers.", "norm.")):
                state[name] = weight
        self.encoder.load_state_dict(state)

    def forward(self, X, padding=None):
        X = self.embedding(X)
        step, pair = np.mgrid[: X.shape[1], : X.shape[2] // 2]
        angle = step / 10_000 ** (2 * pair / X.shape[2])
        table = np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(X.shape[1:])
        X = X + torch.from_numpy(table.astype(np.float32))
        if self.class_token is not None:
            X = torch.cat([self.class_token.expand(len(X), 1, -1), X], 1)
        X = self.encoder(X)
        return self.output({"mean": X.mean(1), "class_token": X[:, 0], "last": X[:, -1]}[self.pooling])


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_outputs_and_gradients_are_those_of_torchs_encoder(pooling, norm_first, activation):
    parameters = {"activation": activation, "norm_first": norm_first, "pooling": pooling}
    module = make(**parameters)
    oracle = TorchsOwn(module, **parameters)
    theirs = dict(oracle.named_parameters())
    results = []
    for each in (module, oracle):
        X = normal(5, 7, 3).requires_grad_()
        outputs = each(X)
        (outputs * normal(5, 2, seed=1)).sum().backward()
        results.append((outputs, X.grad))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    for name, weight in module.named_parameters():
        name = name.replace("in_proj.", "in_proj_")
        name = "encoder." + name if name.startswith(("layers.", "norm.")) else name
        torch.testing.assert_close(weight.grad, theirs.pop(name).grad, rtol=1e-4, atol=1e-4)
    assert not theirs


def padded(lengths: list[int], n_features: int = 3) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Sequences of these lengths in one tensor, and alone."""
    X = normal(len(lengths), max(lengths), n_features)
    alone = [X[i : i + 1, :length].clone() for i, length in enumerate(lengths)]
    for i, length in enumerate(lengths):
        X[i, length:] = math.nan
    return X, alone


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    pooling=st.sampled_from(POOLINGS),
    positional_encoding=st.sampled_from(["sinusoidal", "learned", None]),
    norm_first=st.booleans(),
    n_heads=st.sampled_from([1, 2, 4]),
    num_layers=st.integers(0, 3),
)
def test_a_padded_sequence_is_what_it_is_alone(lengths, pooling, positional_encoding, norm_first, n_heads, num_layers):
    module = make(
        pooling=pooling,
        positional_encoding=positional_encoding,
        n_timesteps=9,
        norm_first=norm_first,
        n_heads=n_heads,
        num_layers=num_layers,
    )
    X, alone = padded(lengths)
    longer = torch.cat([X, torch.full((len(X), 9 - X.shape[1], 3), math.nan)], 1)
    expected = torch.cat([module(each) for each in alone])
    torch.testing.assert_close(module(X), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(longer), expected, rtol=1e-4, atol=1e-5)
    assert torch.isnan(X).any() == (min(lengths) < max(lengths)), "the rows given are not written to"


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_of_padded_sequences_are_the_sum_of_those_alone(pooling):
    X, alone = padded([4, 7, 1])
    together, each = make(pooling=pooling), make(pooling=pooling)
    together(X).square().sum().backward()
    for sequence in alone:
        each(sequence).square().sum().backward()
    for p, q in zip(together.parameters(), each.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4)


def test_a_step_with_one_missing_feature_is_no_padding():
    X = normal(2, 5, 3)
    X[0, 4, 1] = math.nan
    outputs = make()(X)
    assert torch.isnan(outputs[0]).all() and torch.isfinite(outputs[1]).all()


@given(order=st.permutations(range(6)), pooling=st.sampled_from(["mean", "class_token"]))
@settings(max_examples=15)
def test_without_positions_the_steps_are_a_set(order, pooling):
    module, X = make(pooling=pooling, positional_encoding=None), normal(2, 6, 3)
    torch.testing.assert_close(module(X[:, order]), module(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positional_encoding", ["sinusoidal", "learned"])
def test_with_positions_the_order_of_steps_matters(positional_encoding):
    module, X = make(positional_encoding=positional_encoding, n_timesteps=6), normal(2, 6, 3)
    assert not torch.allclose(module(X.flip(1)), module(X), atol=1e-2)


@given(d_model=st.integers(1, 9), lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_sines_and_cosines_of_the_position(d_model, lengths):
    layer = SinusoidalEncoding(d_model)
    for n_timesteps in lengths:  # longer and shorter than before
        table = layer(torch.zeros(1, n_timesteps, d_model))[0]
        for step in {0, n_timesteps // 2, n_timesteps - 1}:
            for column in range(d_model):
                angle = step / 10_000 ** (2 * (column // 2) / d_model)
                expected = math.cos(angle) if column % 2 else math.sin(angle)
                assert table[step, column].item() == pytest.approx(expected, abs=1e-6)
    assert layer.state_dict() == {}, "what can be computed is not stored"


def test_each_sequence_is_on_its_own():
    module, X = make(), normal(6, 7, 3)
    torch.testing.assert_close(module(X)[2:4], module(X[2:4]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module(X, torch.arange(6.0)), module(X), rtol=0, atol=0)


def test_seeds_fix_first_weights_and_dropout():
    def outputs(weights, noise):
        module = TransformerModule(
            3,
            2,
            dropout=0.5,
            pooling="class_token",
            positional_encoding="learned",
            n_timesteps=7,
            generator=generator(weights),
            noise_generator=generator(noise),
        )
        return module(normal(4, 7, 3)), list(module.parameters())

    first, same, other_noise, other_weights = outputs(0, 0), outputs(0, 0), outputs(0, 1), outputs(1, 0)
    assert torch.equal(first[0], same[0]) and not torch.equal(first[0], other_noise[0])
    drawn = [not torch.equal(p, q) for p, q in zip(first[1], other_weights[1], strict=True)]
    norms = [set(p.unique().tolist()) <= {0.0, 1.0} for p in first[1]]
    assert drawn == [not each for each in norms], "all but the norms' weights are drawn from the generator"


@pytest.mark.parametrize("num_layers", [0, 2])
def test_dropout_is_active_in_training_alone(num_layers):
    module, without = (make(dropout=p, num_layers=num_layers) for p in (0.9, 0.0))
    X = normal(4, 7, 3)
    assert not torch.allclose(module(X), without(X))
    torch.testing.assert_close(module.eval()(X), without.eval()(X))
    assert len({id(m.generator) for m in module.modules() if hasattr(m, "generator")}) == 1


def test_double_precision_is_kept():
    module, X = make(), normal(2, 4, 3)
    in_double = {name: weight.double() for name, weight in module.state_dict().items()}
    exact = torch.func.functional_call(module, in_double, X.double())
    assert exact.dtype == torch.float64
    torch.testing.assert_close(module(X), exact.float())
    torch.testing.assert_close(module.double()(X.double()), exact)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"d_model": 10, "n_heads": 4}, "n_heads must divide d_model. Got n_heads=4 and d_model=10"),
        ({"pooling": "max"}, r"pooling must be one of \['mean', 'class_token', 'last'\]. Got 'max'"),
        ({"positional_encoding": "rotary"}, "positional_encoding must be one of .* Got 'rotary'"),
        ({"positional_encoding": "learned"}, "needs n_timesteps, the length of the longest sequence. Got None"),
    ],
)
def test_what_cannot_be_built_is_an_error(parameters, message):
    with pytest.raises(ValueError, match=message):
        TransformerModule(3, 2, **parameters, generator=generator())


def test_learnt_positions_end_with_the_longest_sequence():
    module = make(positional_encoding="learned", n_timesteps=5)
    assert module(normal(2, 4, 3)).shape == (2, 2)
    with pytest.raises(ValueError, match=r"at most n_timesteps=5 steps. Got 6"):
        module(normal(2, 6, 3))


def test_a_hand_written_loop_learns_where_a_step_stands():
    """Which half of the sequence holds the peak: the steps are the same set in both classes."""
    random = np.random.default_rng(0)
    place = random.integers(0, 16, 64)
    X = torch.zeros(64, 16, 1)
    X[torch.arange(64), torch.from_numpy(place)] = 1.0
    y = torch.from_numpy((place >= 8).astype(np.int64))
    network = TransformerModule(1, 2, d_model=16, dropout=0.0, generator=generator())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(X), y)
        loss.backward()
        optimizer.step()
    assert (network(X).argmax(1) == y).all()
