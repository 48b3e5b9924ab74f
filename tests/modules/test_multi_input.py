"""Networks with several inputs beside the same network written by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from skpt.modules import BranchModule, EmbeddingModule, JoinedModule, MLPModule, MultiInputModule
from skpt.modules.multi_input import module_keys


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class ByHand(nn.Module):
    """Two branches, a hidden layer, an output: torch's own layers."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 3), nn.Linear(2, 4)
        self.hidden, self.output = nn.Linear(7, 5), nn.Linear(5, 2)

    def forward(self, left, right):
        joined = torch.cat([torch.relu(self.left(left)), torch.tanh(self.right(right))], dim=1)
        return self.output(torch.relu(self.hidden(joined)))


def build():
    left = BranchModule(MLPModule(6, 3, (), generator=generator(1)), "relu")
    right = BranchModule(MLPModule(2, 4, (), generator=generator(2)), "tanh")
    return MultiInputModule({"left": left, "right": right}, 7, 2, (5,), generator=generator(3))


def test_the_same_weights_give_the_same_outputs_and_gradients():
    ours, theirs = build(), ByHand()
    pairs = {
        "joined.branches.left.module.output": theirs.left,
        "joined.branches.right.module.output": theirs.right,
        "hidden.hidden_1": theirs.hidden,
        "output": theirs.output,
    }
    assert {name.rpartition(".")[0] for name in ours.state_dict()} == set(pairs)
    for name, layer in pairs.items():
        layer.load_state_dict(ours.get_submodule(name).state_dict())
    left, right = torch.randn(9, 6, generator=generator()), torch.randn(9, 2, generator=generator())
    mine, expected = ours({"right": right, "left": left}), theirs(left, right)
    torch.testing.assert_close(mine, expected)
    mine.square().sum().backward()
    expected.square().sum().backward()
    for name, layer in pairs.items():
        torch.testing.assert_close(ours.get_submodule(name).weight.grad, layer.weight.grad)
        torch.testing.assert_close(ours.get_submodule(name).bias.grad, layer.bias.grad)


def test_one_dense_branch_is_a_multilayer_perceptron():
    branch = BranchModule(MLPModule(4, 3, (5,), generator=generator()), "relu")
    net = MultiInputModule({"all": branch}, 3, 2, (6,), generator=generator(1))
    mlp = MLPModule(4, 2, (5, 3, 6))
    mlp.load_state_dict(dict(zip(mlp.state_dict(), net.state_dict().values(), strict=True)))
    X = torch.randn(8, 4, generator=generator(2))
    torch.testing.assert_close(net({"all": X}), mlp(X))


def test_weights_of_rows_reach_batch_statistics():
    branch = BranchModule(MLPModule(4, 3, (5,), batch_norm=True, generator=generator()))
    net = MultiInputModule({"all": branch}, 3, 2, (6,), batch_norm=True, generator=generator(1))
    X = torch.randn(6, 4, generator=generator(2))
    weight = torch.tensor([2.0, 1, 1, 0, 1, 1])
    repeated = X[[0, 0, 1, 2, 4, 5]]
    torch.testing.assert_close(net({"all": X}, weight)[[0, 0, 1, 2, 4, 5]], net({"all": repeated}))


@pytest.mark.usefixtures("global_generators_untouched")
def test_first_weights_and_masks_come_from_the_generators():
    nets = [
        MultiInputModule(
            {"all": EmbeddingModule([3, 4], 2, generator=generator(seed))},
            4,
            1,
            (8,),
            dropout=0.5,
            generator=generator(seed),
            noise_generator=generator(seed),
        )
        for seed in (0, 0, 1)
    ]
    X = {"all": torch.tensor([[1.0, 2.0], [3.0, 0.0]])}
    a, b, c = (net(X) for net in nets)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert nets[0].draws_from_generator
    assert not MultiInputModule({"all": nn.Identity()}, 2, 1, generator=generator()).draws_from_generator


def test_an_embedding_is_a_row_of_a_table_and_zero_for_unknown_categories():
    net = EmbeddingModule([3, 5], 4, generator=generator())
    X = torch.tensor([[0, 5], [2, 0], [3, 1]])
    out = net(X.float())
    first, second = (column.weight for column in net.columns)
    assert first.shape == (4, 4) and second.shape == (6, 4)
    torch.testing.assert_close(out, torch.cat([first[X[:, 0]], second[X[:, 1]]], dim=1))
    assert (out[0, :4] == 0).all() and (out[1, 4:] == 0).all()
    out.sum().backward()
    assert (first.grad[0] == 0).all() and (first.grad[2] == 1).all()
    normal = EmbeddingModule([5000], 4, generator=generator()).columns[0].weight
    assert float(normal.std().detach()) == pytest.approx(1, rel=0.02)


def test_joined_outputs_are_in_the_order_of_the_branches():
    joined = JoinedModule({"b": nn.Identity(), "a": nn.Identity()})
    out = joined({"a": torch.zeros(2, 1), "b": torch.ones(2, 2)})
    np.testing.assert_array_equal(out, [[1, 1, 0]] * 2)


def test_names_become_keys_of_module_dicts():
    names = ["image", "a.b", "a_b", "keys", "training", "type", "", 3]
    keys = module_keys(names)
    assert keys[:2] == ["image", "a_b"] and len(set(keys)) == len(names)
    assert list(nn.ModuleDict({key: nn.Identity() for key in keys})) == keys
