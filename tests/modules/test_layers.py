"""The layers against torch's own: same numbers, same gradients; and what they add: generators, weights, sparse rows."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skpt.modules import ACTIVATIONS, INITIALIZATIONS, BatchNorm1d, Dropout, FeedForward, Linear
from skpt.modules.layers import Affine, MaskStream, make_activation

pytestmark = pytest.mark.usefixtures("global_generators_untouched")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def seeded(make, seed: int = 0):
    """Build a layer of torch's, which can draw from the global generator only."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def assert_same_function(layer: nn.Module, oracle: nn.Module, X: torch.Tensor, rtol: float = 1e-6):
    """Outputs, and gradients of the inputs and of all weights."""
    results = []
    for each in (layer, oracle):
        inputs = X.clone().requires_grad_()
        outputs = each(inputs)
        each.zero_grad()
        (outputs * normal(*outputs.shape, seed=1)).sum().backward()
        results.append([outputs.detach(), inputs.grad, *(p.grad for p in each.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=rtol)


# ---------------------------------------------------------------------- linear


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_torchs(bias):
    oracle = seeded(lambda: nn.Linear(7, 3, bias=bias), seed=5)
    layer = Linear(7, 3, bias=bias, generator=generator(5))
    assert layer.state_dict().keys() == oracle.state_dict().keys()
    for name, weight in oracle.state_dict().items():
        assert torch.equal(layer.state_dict()[name], weight), "a seed gives the weights that torch.manual_seed gives"
    assert_same_function(layer, oracle, normal(11, 7))


def test_without_a_generator_the_global_one_is_used():
    torch.testing.assert_close(seeded(lambda: Linear(7, 3)).weight, seeded(lambda: nn.Linear(7, 3)).weight, rtol=0, atol=0)
    layer = seeded(lambda: Linear(7, 3, initialization="zeros", generator=generator()))
    seeded(layer.reset_parameters, seed=3)
    assert torch.equal(layer.weight, seeded(lambda: nn.Linear(7, 3), seed=3).weight)


D_IN, D_OUT = 300, 400
# Standard deviation, and the largest entry where there is one.
MOMENTS = {
    "default": (1 / math.sqrt(3 * D_IN), 1 / math.sqrt(D_IN)),
    "kaiming_uniform": (math.sqrt(2 / D_IN), math.sqrt(6 / D_IN)),
    "kaiming_normal": (math.sqrt(2 / D_IN), None),
    "xavier_uniform": (math.sqrt(2 / (D_IN + D_OUT)), math.sqrt(6 / (D_IN + D_OUT))),
    "xavier_normal": (math.sqrt(2 / (D_IN + D_OUT)), None),
    "orthogonal": (1 / math.sqrt(D_OUT), None),
    "uniform": (0.1 / math.sqrt(3), 0.1),
    "normal": (0.05, None),
    "zeros": (0.0, 0.0),
}


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_first_weights_have_the_moments_of_their_scheme(initialization):
    std, largest = MOMENTS[initialization]
    layer = Linear(D_IN, D_OUT, initialization=initialization, generator=generator())
    weight = layer.weight.detach().double()
    n_weights = weight.numel()
    assert abs(weight.mean()) <= 4 * std / math.sqrt(n_weights)
    assert weight.std().item() == pytest.approx(std, rel=4 / math.sqrt(n_weights))
    if largest is not None:
        assert weight.abs().max() <= largest
        assert weight.abs().max() >= 0.999 * largest
    if initialization == "orthogonal":
        torch.testing.assert_close(weight.T @ weight, torch.eye(D_IN, dtype=torch.float64), atol=1e-5, rtol=0)
    if initialization == "default":
        assert layer.bias.abs().max() <= largest and layer.bias.std() > 0.5 * std
    else:
        assert not layer.bias.any()
    again = Linear(D_IN, D_OUT, initialization=initialization, generator=generator())
    assert torch.equal(layer.weight, again.weight)


def test_an_unknown_initialization_is_an_error():
    with pytest.raises(ValueError, match=r"initialization must be one of \['default'.*Got 'kaiming'"):
        Linear(2, 2, initialization="kaiming")


def test_a_linear_layer_takes_sparse_rows():
    X = normal(9, 20) * (normal(9, 20, seed=1) > 0.8)
    layer = Linear(20, 4, generator=generator())
    torch.testing.assert_close(layer(X.to_sparse_csr()), layer(X))
    grads = []
    for rows in (X, X.to_sparse_csr()):
        layer.zero_grad()
        layer(rows).square().sum().backward()
        grads.append([p.grad.clone() for p in layer.parameters()])
    torch.testing.assert_close(*grads)


# ---------------------------------------------------------------------- activations


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs(name):
    names = {"leaky_relu": "LeakyReLU", "logistic": "Sigmoid", "silu": "SiLU"}
    classes = {cls.__name__.lower(): cls for cls in vars(nn).values() if isinstance(cls, type)}
    assert type(make_activation(name)) is classes[names.get(name, name).lower()]
    assert make_activation(name) is not make_activation(name)


def test_an_activation_may_be_a_class():
    assert type(make_activation(nn.RReLU)) is nn.RReLU
    assert make_activation(lambda: nn.LeakyReLU(0.3)).negative_slope == 0.3
    with pytest.raises(ValueError, match=r"activation must be one of \['celu'.*Got 'rellu'"):
        make_activation("rellu")


# ---------------------------------------------------------------------- dropout


def test_dropout_sets_entries_to_zero_and_keeps_the_mean():
    p, X = 0.3, torch.ones(100, 200)
    outputs = Dropout(p, generator())(X)
    assert set(outputs.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
    standard_error = math.sqrt(p / (1 - p) / X.numel())
    assert abs(outputs.mean().item() - 1) < 4 * standard_error


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_dropout_is_torchs_where_nothing_is_random(p):
    X = normal(6, 5)
    layer, oracle = Dropout(p, generator()), nn.Dropout(p)
    if p != 0.5:
        assert_same_function(layer, oracle, X)
    assert_same_function(layer.eval(), oracle.eval(), X)
    assert layer.eval()(X) is X
    assert repr(layer) == "Dropout(p=0.5)" or p != 0.5


def test_the_gradient_of_dropout_has_its_mask():
    X = torch.ones(8, 9, requires_grad=True)
    outputs = Dropout(0.5, generator())(X)
    outputs.sum().backward()
    assert torch.equal(X.grad, outputs.detach())


def test_masks_are_independent_and_follow_the_generator():
    layer, same, other = (Dropout(0.5, generator(seed)) for seed in (0, 0, 1))
    X = torch.ones(50, 40)
    masks = [[each(X) for _ in range(5)] for each in (layer, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(*masks[:2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(masks[0], masks[2], strict=True))
    shares = torch.stack(masks[0]).bool().float().flatten(1)
    correlation = np.corrcoef(shares.numpy()) - np.eye(5)
    assert np.abs(correlation).max() < 5 / math.sqrt(X.numel())


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=30), width=st.integers(1, 4))
def test_a_smaller_batch_uses_the_first_rows_of_a_mask(sizes, width):
    """So the masks of full batches are the same whatever the size of the last ones between them."""
    full, mixed = MaskStream(0.5, generator()), MaskStream(0.5, generator())
    full.next((12, width), torch.device("cpu")), mixed.next((12, width), torch.device("cpu"))
    for size in sizes:
        whole, part = (stream.next((n, width), torch.device("cpu")) for stream, n in ((full, 12), (mixed, size)))
        assert part.shape == (size, width)
        assert torch.equal(whole[:size], part)


def test_masks_larger_than_a_block_are_drawn_one_by_one():
    stream = MaskStream(0.5, generator())
    shape = (MaskStream.BLOCK // 100, 250)
    first, second = (stream.next(shape, torch.device("cpu")).clone() for _ in range(2))
    assert first.shape == shape and not torch.equal(first, second)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
@pytest.mark.parametrize("n_before", [0, 1, 3, 130])
def test_a_copy_goes_on_with_the_same_masks(copied, n_before):
    own = generator()
    layer = Dropout(0.5, own)
    X = torch.ones(60, 9)
    for _ in range(n_before):
        layer(X)
    twin = copied(layer)
    assert twin.generator is None, "the owner passes it again"
    twin.generator = generator()
    twin.generator.set_state(own.get_state())
    for _ in range(150):  # past the end of a block of 121 masks
        assert torch.equal(twin(X), layer(X))


def test_a_generator_that_is_replaced_starts_new_masks():
    X = torch.ones(30, 9)
    layer = Dropout(0.5, generator())
    first = layer(X)
    layer(X)
    layer.generator = generator()
    assert torch.equal(layer(X), first)


def test_dropout_without_a_generator_follows_the_global_one():
    X = torch.ones(30, 9)
    draws = [seeded(lambda: Dropout(0.5)(X), seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    layer = Dropout(0.5)
    seeded(lambda: layer(X))
    assert seeded(lambda: copy.deepcopy(layer)(X)).shape == X.shape


# ---------------------------------------------------------------------- batch normalisation


def test_batch_normalisation_is_torchs():
    layer, oracle = BatchNorm1d(4), nn.BatchNorm1d(4)
    assert layer.state_dict().keys() == oracle.state_dict().keys()
    for each in (layer, oracle):
        nn.init.uniform_(each.weight, 0.5, 2, generator=generator(1))
        nn.init.uniform_(each.bias, generator=generator(2))
    for seed in range(3):
        assert_same_function(layer, oracle, 3 + 2 * normal(9, 4, seed=seed))
    for name, value in oracle.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value)
    assert_same_function(layer.eval(), oracle.eval(), normal(9, 4))


def test_weights_of_one_change_nothing():
    plain, weighted = BatchNorm1d(4), BatchNorm1d(4)
    X = 3 + 2 * normal(9, 4)
    for _ in range(3):
        torch.testing.assert_close(weighted(X, torch.full((9,), 2.5)), plain(X))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(weighted.state_dict()[name], value)


@given(weights=st.lists(st.integers(0, 4), min_size=4, max_size=12).filter(lambda w: sum(n > 0 for n in w) > 1))
def test_weighted_batch_normalisation_equals_repeated_rows(weights):
    weights = torch.tensor(weights)
    X = normal(len(weights), 3).double()
    direction = normal(len(weights), 3, seed=1).double()
    weighted, repeated = BatchNorm1d(3).double(), BatchNorm1d(3).double()
    inputs = X.clone().requires_grad_()
    outputs = weighted(inputs, weights.double())
    (outputs * direction * weights.unsqueeze(1)).sum().backward()
    rows = X.repeat_interleave(weights, 0).requires_grad_()
    of_rows = repeated(rows)
    (of_rows * direction.repeat_interleave(weights, 0)).sum().backward()
    torch.testing.assert_close(outputs.repeat_interleave(weights, 0), of_rows)
    summed = torch.zeros_like(X).index_add_(0, torch.arange(len(X)).repeat_interleave(weights), rows.grad)
    torch.testing.assert_close(inputs.grad, summed, rtol=1e-6, atol=1e-9)
    for p, q in zip(weighted.parameters(), repeated.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    torch.testing.assert_close(weighted.running_mean, repeated.running_mean)
    # The biased variances are the same; each is corrected by its own number of rows.
    n_weighted, n_repeated = int((weights > 0).sum()), int(weights.sum())
    biased = (weighted.running_var - 0.9) * (n_weighted - 1) / n_weighted
    torch.testing.assert_close(biased, (repeated.running_var - 0.9) * (n_repeated - 1) / n_repeated)


def test_a_batch_of_one_row_leaves_the_statistics():
    layer = BatchNorm1d(3)
    layer(normal(8, 3))
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    outputs = layer(normal(1, 3))
    torch.testing.assert_close(outputs, torch.zeros(1, 3), atol=1e-6, rtol=0)
    weighted = layer(normal(3, 3), torch.tensor([0.0, 1.0, 0.0]))
    assert torch.isfinite(weighted).all()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


# ---------------------------------------------------------------------- affine, feed-forward


def test_an_affine_layer_scales_and_shifts_by_what_it_was_given():
    layer = Affine([2.0, 3.0], np.array([1.0, -1.0]))
    assert layer(torch.tensor([[1.0, 1.0], [0.0, 2.0]])).tolist() == [[3.0, 2.0], [1.0, 5.0]]
    assert list(layer.parameters()) == []
    assert layer.state_dict().keys() == {"scale", "offset"}


def test_a_feed_forward_network_is_torchs_sequential():
    layers = [Linear(5, 8, generator=generator()), nn.ReLU(), BatchNorm1d(8), Linear(8, 2, generator=generator(1))]
    assert_same_function(FeedForward(*layers), nn.Sequential(*copy.deepcopy(layers)), normal(9, 5))


def test_sample_weights_reach_batch_normalisation_alone():
    norm = BatchNorm1d(5)
    network = FeedForward(norm, Linear(5, 2, generator=generator()))
    X, weight = normal(9, 5), torch.linspace(0, 2, 9)
    torch.testing.assert_close(network(X, weight), network[1](copy.deepcopy(norm)(X, weight)))
    plain = FeedForward(Linear(5, 2, generator=generator()), nn.Tanh())
    assert torch.equal(plain(X, weight), plain(X))


@pytest.mark.parametrize("first", [Linear(20, 5, generator=generator()), BatchNorm1d(20), nn.ReLU()])
def test_a_feed_forward_network_takes_sparse_rows(first):
    X = normal(9, 20) * (normal(9, 20, seed=1) > 0.8)
    network = FeedForward(first, nn.Tanh())
    torch.testing.assert_close(network(X.to_sparse_csr()), network(X))
