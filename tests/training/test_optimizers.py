"""Optimizers: every one that torch has, by name or class, with its own arguments."""

from functools import partial

import pytest
import torch
from torch import nn, optim

from skpt.exceptions import UnknownParameterError
from skpt.training import OPTIMIZERS
from skpt.training.optimizers import build_optimizer, find_optimizer


def test_every_optimizer_of_torch_has_its_name():
    classes = {cls for cls in vars(optim).values() if isinstance(cls, type) and issubclass(cls, optim.Optimizer)}
    assert set(OPTIMIZERS.values()) == classes - {optim.Optimizer}
    for cls in OPTIMIZERS.values():
        assert find_optimizer(cls.__name__.lower()) is find_optimizer(cls.__name__) is find_optimizer(cls) is cls
    assert {"sgd", "adam", "adamw", "rmsprop", "adagrad", "lbfgs"} <= OPTIMIZERS.keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_built_and_minimises(name):
    """A quadratic bowl over a matrix, as Muon wants one; sparse gradients for SparseAdam."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 1.5]]))
    optimizer = build_optimizer(find_optimizer(name), [weight], {"lr": 0.01})
    assert type(optimizer) is OPTIMIZERS[name]
    assert optimizer.param_groups[0]["lr"] == 0.01

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        if name == "sparseadam":
            weight.grad = weight.grad.to_sparse()
        return loss

    before = closure().item()
    for _ in range(20):
        optimizer.step(closure)
    assert weight.square().sum().item() < before


def test_arguments_are_passed_on_and_checked():
    weight = nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(optim.SGD, [{"params": [weight], "lr": 0.5}], {"lr": 0.1, "momentum": 0.9})
    assert optimizer.param_groups[0]["lr"] == 0.5 and optimizer.param_groups[0]["momentum"] == 0.9
    with pytest.raises(UnknownParameterError, match=r"optimizer SGD has no parameter 'momentun'\. Did you mean 'momentum'"):
        build_optimizer(optim.SGD, [weight], {"lr": 0.1, "momentun": 0.9})
    with pytest.raises(ValueError, match=r"'optimizer' parameter must be one of \['adadelta'.*Got 'adm' instead.*'adam'"):
        find_optimizer("adm")


def test_anything_callable_as_an_optimizer_may_be_given():
    weight = nn.Parameter(torch.ones(2))
    optimizer = build_optimizer(find_optimizer(partial(optim.Adam, betas=(0.5, 0.9))), [weight], {"lr": 0.1})
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "adagrad"])
def test_one_kernel_makes_the_whole_step_unless_asked_otherwise(name):
    weight = nn.Parameter(torch.ones(2))
    assert build_optimizer(find_optimizer(name), [weight], {"lr": 0.1}).param_groups[0]["fused"]
    assert not build_optimizer(find_optimizer(name), [weight], {"lr": 0.1, "foreach": True}).param_groups[0]["fused"]
