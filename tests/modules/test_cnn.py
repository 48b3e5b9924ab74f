"""The convolutional network against the same layers of torch's own."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skpt.modules import ACTIVATIONS, CNNModule
from skpt.modules.layers import BatchNorm2d


def direct_build(module: CNNModule) -> nn.Sequential:
    """Torch's own layer for each of ours, with the same weights; activations before pooling, whatever it is."""
    layers = []
    for name, layer in module.named_children():
        if isinstance(layer, nn.Conv2d):
            own = nn.Conv2d(
                layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding, bias=layer.bias is not None
            )
        elif isinstance(layer, nn.BatchNorm2d):
            own = nn.BatchNorm2d(layer.num_features)
        elif isinstance(layer, nn.BatchNorm1d):
            own = nn.BatchNorm1d(layer.num_features)
        elif isinstance(layer, nn.Linear):
            own = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        else:
            own = layer
        own.load_state_dict(layer.state_dict())
        is_late = name.startswith("conv_activation") and isinstance(layers[-1], nn.MaxPool2d)
        layers.insert(len(layers) - is_late, own)
    return nn.Sequential(*layers)


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    channels=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    kernel_size=st.integers(1, 5) | st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pool_size=st.integers(1, 3) | st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["same", "valid", 0, 1]),
    hidden_layer_sizes=st.lists(st.integers(1, 5), max_size=2),
    activation=st.sampled_from([*ACTIVATIONS, nn.Softplus, nn.LeakyReLU(-0.5), partial(nn.LeakyReLU, -0.5), nn.Tanhshrink]),
    batch_norm=st.booleans(),
)
def test_outputs_and_gradients_are_torchs(shape, batch_norm, **arguments):
    generator = torch.Generator().manual_seed(0)
    module = CNNModule(shape, 2, **arguments, batch_norm=batch_norm, generator=generator).double()
    direct = direct_build(module).double()
    X = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    X, X_direct = X.clone().requires_grad_(), X.clone().requires_grad_()
    for training in (True, False):
        outputs, expected = module.train(training)(X), direct.train(training)(X_direct)
        torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-10)
    outputs.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(X.grad, X_direct.grad, rtol=1e-8, atol=1e-9)
    for ours, theirs in zip(module.parameters(), direct.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-9)


def test_channels_lie_side_by_side_on_a_cpu():
    # torch's max-pooling is many times faster so
    seen = []
    for n_channels in (1, 3):
        module = CNNModule((n_channels, 8, 6), 2)
        for layer in (module.conv_1, module.pool_1, module.pool_2):
            layer.register_forward_hook(lambda _, given, made: seen.append((given[0].stride(1), made.stride(1))))
        module(torch.randn(4, n_channels, 8, 6))
    assert seen == [(1, 1)] * 6


@pytest.mark.parametrize("n_channels", [1, 2])
def test_gradients_of_each_image_by_vmap(n_channels):
    module = CNNModule((n_channels, 6, 5), 2, (3,), hidden_layer_sizes=(4,))
    X = torch.randn(3, n_channels, 6, 5)
    params = {name: p.detach() for name, p in module.named_parameters()}

    def loss(params, x):
        return torch.func.functional_call(module, params, (x[None],)).square().sum()

    grads = torch.func.vmap(torch.func.grad(loss), (None, 0))(params, X)
    for i in range(len(X)):
        for name, grad in torch.func.grad(loss)(params, X[i]).items():
            torch.testing.assert_close(grads[name][i], grad, rtol=1e-4, atol=1e-5)


def test_symbolic_traces_compute_the_same():
    module = CNNModule((2, 6, 5), 2, (3,))
    X = torch.randn(3, 2, 6, 5)
    torch.testing.assert_close(torch.fx.symbolic_trace(module)(X), module(X))


def test_activations_that_never_fall_come_after_pooling():
    names = {
        activation: [name for name, _ in CNNModule((1, 8, 8), 2, (3,), activation=activation).named_children()][1:3]
        for activation in ("relu", nn.Tanh, "gelu", nn.PReLU, partial(nn.LeakyReLU, -0.5))
    }
    assert all(names[activation] == ["pool_1", "conv_activation_1"] for activation in ("relu", nn.Tanh))
    assert all(order == ["conv_activation_1", "pool_1"] for order in list(names.values())[2:])


def test_same_padding_keeps_the_size_and_pooling_divides_it():
    module = CNNModule((3, 29, 17), 2, (4, 5), hidden_layer_sizes=(6,))
    X, sizes = torch.zeros(1, 3, 29, 17), {}
    for name, layer in module.named_children():
        X = layer(X)
        sizes[name] = tuple(X.shape[1:])
    assert sizes["conv_1"] == (4, 29, 17) and sizes["pool_1"] == (4, 14, 8)
    assert sizes["conv_2"] == (5, 14, 8) and sizes["pool_2"] == (5, 7, 4)
    assert sizes["flatten"] == (5 * 7 * 4,) and sizes["output"] == (2,)


def test_sizes_may_be_integers_of_numpy():
    one, other = (
        CNNModule((1, 9, 9), 2, (3,), kernel_size=number(4), pool_size=number(2), padding=number(1))
        for number in (int, np.int64)
    )
    assert [t.shape for t in one.state_dict().values()] == [t.shape for t in other.state_dict().values()]
    assert other(torch.zeros(2, 1, 9, 9)).shape == (2, 2)


def test_equal_seeds_give_torchs_own_first_weights():
    torch.manual_seed(3)
    expected = [nn.Conv2d(2, 4, 3).weight, nn.Conv2d(4, 8, 3).weight]
    module = CNNModule((2, 12, 12), 1, (4, 8), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(module.conv_1.weight, expected[0], rtol=0, atol=0)
    torch.testing.assert_close(module.conv_2.weight, expected[1], rtol=0, atol=0)


def test_a_weight_of_two_counts_as_two_images():
    torch.manual_seed(0)
    X, twice = torch.randn(5, 3, 4, 4), torch.tensor([1.0, 2, 1, 2, 1])
    weighted, repeated = BatchNorm2d(3), BatchNorm2d(3)
    outputs = weighted(X, twice)
    expected = repeated(torch.repeat_interleave(X, twice.long(), dim=0))
    torch.testing.assert_close(outputs, expected[[0, 1, 3, 4, 6]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weighted.running_mean, repeated.running_mean)


def test_one_number_per_channel_leaves_the_running_statistics():
    norm = BatchNorm2d(3)
    outputs = norm(torch.randn(1, 3, 1, 1))
    torch.testing.assert_close(outputs, torch.zeros(1, 3, 1, 1))
    assert norm.num_batches_tracked == 0


def test_a_shifted_image_shifts_the_features():
    """The law of a convolution, away from the border."""
    module = CNNModule((1, 12, 12), 1, (3,), pool_size=1, generator=torch.Generator().manual_seed(0))
    X = torch.zeros(1, 1, 12, 12)
    X[..., 4:7, 4:7] = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    shifted = torch.roll(X, (2, 1), (2, 3))
    torch.testing.assert_close(torch.roll(module.conv_1(X), (2, 1), (2, 3)), module.conv_1(shifted))


@pytest.mark.parametrize("conv_dropout", [0.0, 0.5])
def test_dropout_after_blocks_draws_from_its_generator(conv_dropout):
    def outputs():
        generators = (torch.Generator().manual_seed(1) for _ in range(2))
        module = CNNModule((1, 6, 6), 1, (2, 2), conv_dropout=conv_dropout, **dict(zip(NAMES, generators, strict=True)))
        X = torch.ones(2, 1, 6, 6)
        return [module(X) for _ in range(4)]

    one, other = outputs(), outputs()
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(torch.equal(a, b) for a, b in pairwise(one)) is not bool(conv_dropout)


NAMES = ("generator", "noise_generator")
