"""The multilayer perceptron against torch's own layers in a row, and in a hand-written loop."""

import math

import pytest
import torch
from torch import nn

from skpt.modules import MLPModule


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


TORCHS_OWN = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def torchs_own(n_features, n_outputs, hidden_layer_sizes, *, activation, batch_norm, dropout) -> nn.Sequential:
    """The same network of torch's layers."""
    layers, n_in = [], n_features
    for n_units in hidden_layer_sizes:
        layers.append(nn.Linear(n_in, n_units, bias=not batch_norm))
        layers += [nn.BatchNorm1d(n_units)] * batch_norm
        layers.append(TORCHS_OWN[activation]())
        layers += [nn.Dropout(dropout)] * bool(dropout)
        n_in = n_units
    return nn.Sequential(*layers, nn.Linear(n_in, n_outputs))


@pytest.mark.parametrize("hidden_layer_sizes", [(), (8,), (8, 6, 4), [5, 5]])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_torchs_layers(hidden_layer_sizes, activation, batch_norm, dropout):
    parameters = {"activation": activation, "batch_norm": batch_norm, "dropout": dropout}
    module = MLPModule(5, 2, hidden_layer_sizes, **parameters, generator=generator(), noise_generator=generator(1))
    with torch.random.fork_rng():
        oracle = torchs_own(5, 2, hidden_layer_sizes, **parameters)
    for weight, theirs in zip(module.state_dict().values(), oracle.state_dict().values(), strict=True):
        theirs.copy_(weight)
    X = torch.randn(11, 5, generator=generator(2))
    if dropout:  # random: in evaluation mode only
        module.eval(), oracle.eval()
    for each in (module, oracle):
        each(X).square().sum().backward()
    torch.testing.assert_close(module(X), oracle(X))
    for p, q in zip(module.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_layers_have_names_in_their_order(batch_norm, dropout):
    module = MLPModule(5, 2, (8, 6), batch_norm=batch_norm, dropout=dropout, activation="silu")
    expected = []
    for i in (1, 2):
        expected += [f"hidden_{i}"]
        expected += [f"batch_norm_{i}"] * batch_norm
        expected += [f"activation_{i}"]
        expected += [f"dropout_{i}"] * bool(dropout)
    assert [name for name, _ in module.named_children()] == [*expected, "output"]
    assert (module.hidden_1.bias is None) == batch_norm, "batch normalisation would take it off again"
    assert module.output.bias is not None


@pytest.mark.usefixtures("global_generators_untouched")
def test_a_seed_starts_the_network_where_torchs_seed_starts_it():
    module = MLPModule(5, 2, (8, 6), generator=generator(7))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        oracle = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    for weight, theirs in zip(module.parameters(), oracle.parameters(), strict=True):
        assert torch.equal(weight, theirs)


@pytest.mark.usefixtures("global_generators_untouched")
def test_noise_comes_from_the_noise_generator():
    X = torch.ones(20, 5)
    networks = [MLPModule(5, 2, (8,), dropout=0.5, generator=generator(), noise_generator=generator(s)) for s in (1, 1, 2)]
    outputs = [network(X) for network in networks]
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    assert not torch.equal(networks[0](X), outputs[0])


def test_a_hand_written_loop_learns_what_no_line_can_tell():
    X = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([0, 1, 1, 0])
    network = MLPModule(2, 2, (16,), activation="tanh", generator=generator())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(X), y)
        loss.backward()
        optimizer.step()
    assert network(X).argmax(1).tolist() == y.tolist()
    assert loss < 0.01 * math.log(2)
