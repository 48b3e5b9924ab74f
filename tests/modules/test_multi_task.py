"""Networks with several tasks beside the same network written by hand."""

import pytest
import torch
from torch import nn

from skpt.modules import BranchModule, JoinedModule, MLPModule, MultiTaskModule


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_the_same_weights_give_the_same_outputs_and_gradients(hidden):
    trunk = BranchModule(MLPModule(4, 3, (), generator=generator()), "relu")
    ours = MultiTaskModule(trunk, 3, {"a": 2, "keys": 1}, hidden, generator=generator(1))
    shared = nn.Linear(4, 3)
    heads = [nn.Sequential(*(layer for n in hidden for layer in (nn.Linear(3, n), nn.ReLU())), nn.Linear((3, *hidden)[-1], k))
             for k in (2, 1)]
    theirs = nn.ModuleList([shared, *heads])
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    X = torch.randn(6, 4, generator=generator(2))
    z = torch.relu(shared(X))
    expected, mine = torch.cat([head(z) for head in heads], dim=1), ours(X)
    assert mine.shape == (6, 3)
    torch.testing.assert_close(mine, expected)
    mine.square().sum().backward()
    expected.square().sum().backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_a_trunk_may_have_several_inputs():
    trunk = JoinedModule({"left": MLPModule(2, 3, ()), "right": MLPModule(4, 2, ())})
    net = MultiTaskModule(trunk, 5, {"a": 1, "b": 4})
    assert net({"left": torch.zeros(7, 2), "right": torch.zeros(7, 4)}).shape == (7, 5)


@pytest.mark.usefixtures("global_generators_untouched")
def test_first_weights_and_masks_come_from_the_generators():
    nets = [
        MultiTaskModule(
            MLPModule(4, 3, generator=generator(seed)),
            3,
            {"a": 1},
            (8,),
            dropout=0.5,
            generator=generator(seed),
            noise_generator=generator(seed),
        )
        for seed in (0, 0, 1)
    ]
    a, b, c = (net(torch.ones(5, 4)) for net in nets)
    assert torch.equal(a, b) and not torch.equal(a, c) and nets[0].draws_from_generator
    assert not MultiTaskModule(nn.Identity(), 3, {"a": 1}, generator=generator()).draws_from_generator
