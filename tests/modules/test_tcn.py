"""Convolutions over time against torch's own layers, and their laws: padding, causality, weights, seeds."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skpt.modules import TCNModule
from skpt.modules.tcn import TimeConv

pytestmark = pytest.mark.usefixtures("global_generators_untouched")

SMALL = {
    "fcn": {"channels": (6, 5, 4), "kernel_size": (8, 5, 3)},
    "resnet": {"channels": (4, 6, 6), "kernel_size": (4, 3)},
    "causal": {"channels": (5, 5, 4), "kernel_size": 3},
}
ARCHITECTURES = list(SMALL)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def make(architecture: str, n_features: int = 3, **parameters) -> TCNModule:
    """A small network whose weights are all drawn, those that start at zero or one too."""
    parameters = {**SMALL[architecture], **parameters, "generator": generator(), "noise_generator": generator(1)}
    module = TCNModule(n_features, 2, architecture=architecture, **parameters)
    for i, weight in enumerate(module.parameters()):
        nn.init.normal_(weight, 0.0, 0.5, generator=generator(i))
    return module


# ---------------------------------------------------------------------- torch's own


def conv(n_in, n_out, size, *, dilation=1, causal=False, bias=True) -> nn.Sequential:
    n_zeros = dilation * (size - 1)
    zeros = (n_zeros, 0) if causal else (n_zeros // 2, n_zeros - n_zeros // 2)
    return nn.Sequential(nn.ConstantPad1d(zeros, 0.0), nn.Conv1d(n_in, n_out, size, dilation=dilation, bias=bias))


class Sum(nn.Module):
    def __init__(self, way, around):
        super().__init__()
        self.way, self.around = way, around

    def forward(self, X):
        return torch.relu(self.way(X) + self.around(X))


def torchs_own(architecture: str, n_features: int, n_outputs: int) -> nn.Module:
    """The three papers' networks, written down in torch's layers in the order of their figures."""
    channels, size, n_in, layers = SMALL[architecture]["channels"], SMALL[architecture]["kernel_size"], n_features, []

    def conv_norm(n_in, n_out, k):
        return [conv(n_in, n_out, k, bias=False), nn.BatchNorm1d(n_out)]

    for i, n_out in enumerate(channels):
        if architecture == "fcn":
            layers += [*conv_norm(n_in, n_out, size[i]), nn.ReLU()]
        elif architecture == "resnet":
            way = nn.Sequential(*conv_norm(n_in, n_out, size[0]), nn.ReLU(), *conv_norm(n_out, n_out, size[1]))
            around = nn.BatchNorm1d(n_out) if n_in == n_out else nn.Sequential(*conv_norm(n_in, n_out, 1))
            layers.append(Sum(way, around))
        else:
            first, second = (conv(n, n_out, size, dilation=2**i, causal=True) for n in (n_in, n_out))
            around = nn.Identity() if n_in == n_out else nn.Conv1d(n_in, n_out, 1)
            layers.append(Sum(nn.Sequential(first, nn.ReLU(), second, nn.ReLU()), around))
        n_in = n_out
    return nn.Sequential(*layers, nn.Flatten(0, 0), nn.Linear(n_in, n_outputs))


def run_torchs_own(network: nn.Sequential, X: torch.Tensor, architecture: str) -> torch.Tensor:
    X = network[:-1](X.transpose(1, 2))
    return network[-1](X[:, :, -1] if architecture == "causal" else X.mean(2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_gradients_are_those_of_torchs_layers(architecture, training):
    module = make(architecture, normalization=None if architecture == "causal" else "batch").train(training)
    with torch.random.fork_rng():
        oracle = torchs_own(architecture, 3, 2).train(training)
    own, theirs = module.state_dict(), oracle.state_dict()
    assert [t.shape for t in own.values()] == [t.shape for t in theirs.values()]
    for i, (name, weight) in enumerate(own.items()):
        if "running" in name:
            nn.init.uniform_(weight, 0.5, 2.0, generator=generator(i))
    for weight, other in zip(own.values(), theirs.values(), strict=True):
        other.copy_(weight)
    results = []
    for each, run in ((module, module), (oracle, lambda X: run_torchs_own(oracle, X, architecture))):
        X = normal(5, 20, 3).requires_grad_()
        outputs = run(X)
        (outputs * normal(5, 2, seed=1)).sum().backward()
        results.append([outputs, X.grad, *(p.grad for p in each.parameters()), *each.buffers()])
    for ours, other in zip(*results, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-4, atol=1e-4)


@given(
    kernel_size=st.integers(1, 8),
    dilation=st.integers(1, 4),
    n_timesteps=st.integers(1, 12),
    causal=st.booleans(),
    weight_norm=st.booleans(),
)
def test_a_convolution_is_its_sum(kernel_size, dilation, n_timesteps, causal, weight_norm):
    """Term by term, with the zeros that torch's padding="same" adds where it is not causal."""
    layer = TimeConv(
        2, 3, kernel_size, dilation=dilation, causal=causal, weight_norm=weight_norm, generator=generator()
    ).double()
    X = normal(2, 2, n_timesteps).double()
    weight, n_zeros = layer.weight, dilation * (kernel_size - 1)
    expected = layer.bias.reshape(1, 3, 1).repeat(2, 1, n_timesteps)
    for t in range(n_timesteps):
        for k in range(kernel_size):
            seen = t + dilation * k - (n_zeros if causal else n_zeros // 2)
            if 0 <= seen < n_timesteps:
                expected[:, :, t] += X[:, :, seen] @ weight[:, :, k].T
    torch.testing.assert_close(layer(X), expected)


def test_an_even_kernel_pads_as_torchs_same_does():
    layer = TimeConv(2, 3, 8, generator=generator())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the copy that it takes, once per process: why it is not used
        expected = nn.functional.conv1d(normal(2, 2, 20), layer.weight, layer.bias, padding="same")
    torch.testing.assert_close(layer(normal(2, 2, 20)), expected)


def test_weight_norm_is_torchs():
    layer = TimeConv(4, 3, 5, weight_norm=True, generator=generator())
    with torch.random.fork_rng():
        oracle = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 3, 5, padding=2))
    nn.init.normal_(layer.weight_length, generator=generator(1))
    of_weight = oracle.parametrizations.weight
    for theirs, own in ((of_weight.original0, layer.weight_length), (of_weight.original1, layer.weight)):
        theirs.data.copy_(own.data)
    oracle.bias.data.copy_(layer.bias.data)
    X = normal(2, 4, 9)
    for each in (layer, oracle):
        each(X).square().sum().backward()
    torch.testing.assert_close(layer(X), oracle(X))
    torch.testing.assert_close(layer.weight_length.grad, of_weight.original0.grad)
    torch.testing.assert_close(layer.weight.grad, of_weight.original1.grad)
    torch.testing.assert_close(layer.bias.grad, oracle.bias.grad)


def test_the_defaults_have_the_papers_shape_and_half_its_channels():
    shapes = {
        name: [tuple(p.shape) for p in TCNModule(1, 2, architecture=name, generator=generator()).parameters() if p.ndim == 3]
        for name in ARCHITECTURES
    }
    assert shapes["fcn"] == [(64, 1, 8), (128, 64, 5), (64, 128, 3)]
    first, second, third = (shapes["resnet"][i:j] for i, j in ((0, 4), (4, 8), (8, 12)))
    assert first == [(32, 1, 8), (32, 32, 5), (32, 32, 3), (32, 1, 1)]
    assert second == [(64, 32, 8), (64, 64, 5), (64, 64, 3), (64, 32, 1)]
    assert third == [(64, 64, 8), (64, 64, 5), (64, 64, 3)], "the third block keeps the width"
    dilations = [layer.dilation[0] for layer in TCNModule(1, 2, architecture="causal", generator=generator()).modules()
                 if isinstance(layer, TimeConv) and layer.kernel_size[0] > 1]
    assert dilations == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16]


@pytest.mark.parametrize("n", range(1, 6))
def test_any_number_of_convolutions_has_default_kernels(n):
    module = TCNModule(1, 2, channels=(4,) * n, generator=generator())
    assert [block.conv.kernel_size[0] for block in module.blocks] == [8, 5, 3, 3, 3][:n]


@pytest.mark.parametrize("initialization", ["default", "kaiming_normal", "zeros"])
def test_weight_norm_starts_at_the_same_function_and_keeps_lengths(initialization):
    plain, normed = (
        TimeConv(4, 3, 5, weight_norm=each, initialization=initialization, generator=generator()) for each in (False, True)
    )
    X = normal(2, 4, 9)
    torch.testing.assert_close(normed(X), plain(X))
    if initialization == "zeros":
        assert torch.isfinite(torch.autograd.grad(normed(X).sum(), normed.weight_length)[0]).all()
        return
    with torch.no_grad():
        normed.weight *= 7  # a direction has no length
        torch.testing.assert_close(normed(X), plain(X))
        normed.weight_length *= 2
        torch.testing.assert_close(normed(X) - normed.bias[:, None], 2 * (plain(X) - plain.bias[:, None]))


# ---------------------------------------------------------------------- padding


def padded(lengths: list[int], n_features: int = 3) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Sequences of these lengths in one tensor, and alone."""
    X = normal(len(lengths), max(lengths), n_features)
    alone = [X[i : i + 1, :length].clone() for i, length in enumerate(lengths)]
    for i, length in enumerate(lengths):
        X[i, length:] = math.nan
    return X, alone


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    architecture=st.sampled_from(ARCHITECTURES),
    normalization=st.sampled_from(["auto", "batch", "weight", None]),
    activation=st.sampled_from(["relu", "sigmoid"]),  # the second makes something of zeros
)
def test_a_padded_sequence_is_what_it_is_alone(lengths, architecture, normalization, activation):
    module = make(architecture, normalization=normalization, activation=activation).eval()
    X, alone = padded(lengths)
    longer = torch.cat([X, torch.full((len(X), 5, 3), math.nan)], 1)
    expected = torch.cat([module(each) for each in alone])
    torch.testing.assert_close(module(X), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module(longer), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_does_not_enter_training(architecture):
    """However much padding there is: outputs, gradients and running statistics are the same."""
    X, _ = padded([9, 5, 7])
    results = []
    for n_more in (0, 11):
        module = make(architecture, normalization="batch", dropout=0.3)
        outputs = module(torch.cat([X, torch.full((3, n_more, 3), math.nan)], 1))
        outputs.square().sum().backward()
        results.append([outputs, *(p.grad for p in module.parameters()), *module.buffers()])
    for ours, theirs in zip(*results, strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_sequence_of_padding_alone_is_an_error(architecture):
    X, _ = padded([4, 2])
    X[1] = math.nan
    with pytest.raises(ValueError, match=r"at least one step that is not padding\. Got NaN alone in sequence 1"):
        make(architecture)(X)


def test_batch_statistics_are_those_of_the_real_steps():
    X, alone = padded([9, 5, 7])
    module = TCNModule(3, 2, channels=(4,), kernel_size=3, generator=generator())
    module(X)
    block = module.blocks[0]
    rows = torch.cat([block.conv(each.transpose(1, 2))[0] for each in alone], 1)
    torch.testing.assert_close(block.norm.running_mean, 0.1 * rows.mean(1))
    torch.testing.assert_close(block.norm.running_var, 0.9 + 0.1 * rows.var(1))


def test_a_batch_without_padding_is_not_masked(monkeypatch):
    """It takes torch's own batch normalisation and no product with a mask."""
    module, seen = make("fcn"), []
    for block in module.blocks:
        block.norm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[2]))
    module(normal(4, 9, 3))
    assert seen == [None] * 3


# ---------------------------------------------------------------------- weights


@settings(max_examples=25)
@given(
    weights=st.lists(st.integers(0, 3), min_size=3, max_size=6).filter(lambda w: sum(n > 0 for n in w) > 1),
    architecture=st.sampled_from(["fcn", "resnet"]),
    pad=st.booleans(),
)
def test_a_row_of_weight_two_counts_as_two_rows(weights, architecture, pad):
    weights = torch.tensor(weights)
    X = normal(len(weights), 9, 3).double()
    if pad:
        X[0, 6:] = math.nan
        X[1, 8:] = math.nan
    weighted, repeated = make(architecture).double(), make(architecture).double()
    outputs = weighted(X, weights.double())
    of_rows = repeated(X.repeat_interleave(weights, 0))
    torch.testing.assert_close(outputs.repeat_interleave(weights, 0), of_rows)
    (outputs.square().sum(1) * weights).sum().backward()
    of_rows.square().sum().backward()
    for p, q in zip(weighted.parameters(), repeated.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-6, atol=1e-6)
    for name, value in repeated.named_buffers():
        if name.endswith("running_mean"):
            torch.testing.assert_close(weighted.get_buffer(name), value)


def test_one_sequence_is_a_batch():
    for architecture in ARCHITECTURES:
        module = make(architecture, normalization="batch")
        assert torch.isfinite(module(normal(1, 9, 3))).all()
        assert torch.isfinite(module(normal(1, 1, 3))).all()
        assert torch.isfinite(module(normal(3, 9, 3), torch.tensor([0.0, 1.0, 0.0]))).all()


# ---------------------------------------------------------------------- causality, seeds, errors


@given(n_blocks=st.integers(1, 3), kernel_size=st.integers(2, 4), later=st.integers(0, 40))
@settings(max_examples=25)
def test_causal_outputs_see_no_later_step_and_as_many_earlier_ones_as_documented(n_blocks, kernel_size, later):
    module = make("causal", channels=(4,) * n_blocks, kernel_size=kernel_size, activation="identity")
    X = normal(1, 50, 3).requires_grad_()
    features = X.transpose(1, 2)
    for block in module.blocks:
        features = block(features)
    step = 49 - later
    (gradient,) = torch.autograd.grad(features[0, :, step].sum(), X)
    seen = gradient[0].abs().sum(1).nonzero().flatten()
    field = 1 + 2 * (kernel_size - 1) * (2**n_blocks - 1)
    assert seen.max() == step and seen.min() == max(0, step + 1 - field)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_seeds_fix_first_weights_and_dropout(architecture):
    def outputs(weights, noise):
        module = TCNModule(
            3,
            2,
            architecture=architecture,
            **SMALL[architecture],
            dropout=0.5,
            generator=generator(weights),
            noise_generator=generator(noise),
        )
        return module(normal(4, 9, 3)), list(module.parameters())

    first, same, other_noise, other_weights = outputs(0, 0), outputs(0, 0), outputs(0, 1), outputs(1, 0)
    assert torch.equal(first[0], same[0]) and not torch.equal(first[0], other_noise[0])
    drawn = [not torch.equal(p, q) for p, q in zip(first[1], other_weights[1], strict=True)]
    norms = [set(p.unique().tolist()) <= {0.0, 1.0} for p in first[1]]
    assert drawn == [not each for each in norms], "all but the norms' weights are drawn from the generator"


def test_a_convolution_starts_where_torchs_seed_starts_it():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        oracle = nn.Conv1d(4, 3, 5)
    layer = TimeConv(4, 3, 5, generator=generator(5))
    assert torch.equal(layer.weight, oracle.weight) and torch.equal(layer.bias, oracle.bias)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        layer.reset_parameters()
        torch.manual_seed(6)
        oracle.reset_parameters()
    assert torch.equal(layer.weight, oracle.weight)


def test_dropout_takes_whole_channels_in_training_alone():
    module, without = make("fcn", dropout=0.5, normalization=None), make("fcn", normalization=None)
    X = normal(4, 9, 3)
    assert not torch.allclose(module(X), without(X))
    torch.testing.assert_close(module.eval()(X), without(X))
    module.train()
    ones = torch.ones(200, 6, 9)
    dropped = module.blocks[0].dropout(ones)
    assert (dropped == dropped[:, :, :1]).all() and set(dropped.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"architecture": "wavenet"}, r"architecture must be one of \['fcn', 'resnet', 'causal'\]. Got 'wavenet'"),
        ({"normalization": "layer"}, "normalization must be one of .* Got 'layer'"),
        ({"channels": ()}, r"channels must hold one number at least. Got \(\)"),
        ({"channels": (4, 4), "kernel_size": (3,)}, r"one number for each convolution, 2 of them. Got \(3,\)"),
        ({"architecture": "causal", "kernel_size": (3, 3)}, r"one number for each block, 5 of them. Got \(3, 3\)"),
        ({"architecture": "resnet", "kernel_size": ()}, r"kernel_size must hold one number at least. Got \(\)"),
        ({"initialization": "he"}, "initialization must be one of .* Got 'he'"),
    ],
)
def test_what_cannot_be_built_is_an_error(parameters, message):
    with pytest.raises(ValueError, match=message):
        TCNModule(3, 2, **parameters, generator=generator())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_hand_written_loop_learns_a_rhythm(architecture):
    """Two frequencies of sine at random phases."""
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    phase = random.uniform(0, 2 * np.pi, (60, 1))
    X = np.sin(phase + np.arange(30) * np.where(y, 0.8, 0.5)[:, None])
    X, y = torch.from_numpy(X.astype(np.float32)).unsqueeze(2), torch.from_numpy(y)
    network = TCNModule(1, 2, architecture=architecture, **SMALL[architecture], generator=generator())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(X), y)
        loss.backward()
        optimizer.step()
    network.eval()
    assert (network(X).argmax(1) == y).double().mean() > 0.95
