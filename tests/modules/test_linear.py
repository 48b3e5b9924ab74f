"""The linear map against torch's own, and its coefficients."""

import pytest
import torch
from torch import nn

from skpt.modules import LinearModule


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.usefixtures("global_generators_untouched")
def test_it_is_torchs_linear_layer():
    module = LinearModule(5, 2, generator=generator(42))
    with torch.random.fork_rng():
        torch.manual_seed(42)
        oracle = nn.Linear(5, 2)
    X = torch.randn(7, 5, generator=generator())
    assert torch.equal(module(X), oracle(X))
    for each in (module, oracle):
        each(X).square().sum().backward()
    assert torch.equal(module.output.weight.grad, oracle.weight.grad)
    assert torch.equal(module.output.bias.grad, oracle.bias.grad)


def test_the_course_starts_here():
    """torch.manual_seed(42) and nn.Linear(1, 1): the weights that DESIGN's straight line starts from."""
    module = LinearModule(1, 1, generator=generator(42))
    assert module.output.weight.item() == pytest.approx(0.7645, abs=5e-5)
    assert module.output.bias.item() == pytest.approx(0.8300, abs=5e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("units", [None, ([2.0, 3.0], [10.0, -10.0])])
def test_coefficients_give_the_outputs(bias, batch_norm, dropout, units):
    module = LinearModule(
        5, 2, bias=bias, batch_norm=batch_norm, dropout=dropout, units=units, generator=generator(), noise_generator=generator()
    )
    X = 3 + 2 * torch.randn(50, 5, generator=generator())
    module(X)
    module.eval()
    weight, intercept = module.coefficients()
    assert weight.shape == (2, 5) and intercept.shape == (2,) and weight.dtype == torch.float64
    torch.testing.assert_close((X.double() @ weight.T + intercept).float(), module(X), rtol=1e-4, atol=1e-4)
    assert not weight.requires_grad
    weight.zero_()
    assert module.output.weight.any(), "a copy"


def test_an_inverse_link_follows_the_units():
    module = LinearModule(5, 1, activation="softplus", units=([2.0], [1.0]), generator=generator())
    X = torch.randn(7, 5, generator=generator())
    plain = LinearModule(5, 1, generator=generator())
    torch.testing.assert_close(module(X), nn.functional.softplus(1 + 2 * plain(X)))
