"""Stacked optimizers against torch's, step by step, each model at its own rates."""

import pytest
import torch
from torch import nn, optim

from skpt.fusion.layout import Layout
from skpt.fusion.optimizers import STACKED_OPTIMIZERS, shared_settings

N_STEPS = 20
SMALL = [(3, 4), (4,), (2, 3), (2,)]
LARGE = [(31, 41), (31,), (7, 31), (7,)]  # sizes that no vector of a processor divides

SETTINGS = {
    "sgd": (optim.SGD, {}),
    "sgd momentum": (optim.SGD, {"momentum": 0.9}),
    "sgd dampening": (optim.SGD, {"momentum": 0.8, "dampening": 0.3}),
    "sgd nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (optim.Adam, {}),
    "adam betas": (optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-3}),
    "adamw": (optim.AdamW, {}),
    "rmsprop": (optim.RMSprop, {}),
    "rmsprop momentum": (optim.RMSprop, {"momentum": 0.7, "alpha": 0.9}),
    "rmsprop centered": (optim.RMSprop, {"centered": True, "momentum": 0.7, "eps": 1e-4}),
    "adagrad": (optim.Adagrad, {}),
    "adagrad decaying": (optim.Adagrad, {"lr_decay": 0.1, "initial_accumulator_value": 0.5}),
}


def random_tensors(seed: int, shapes: list) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


class Models:
    """Some models, each with torch's own optimizer; and the same weights in one long tensor."""

    def __init__(self, name: str, lrs: list[float], weight_decays: list[float], shapes: list = SMALL, seeds=None):
        cls, settings = SETTINGS[name]
        self.lrs, self.shapes = lrs, shapes
        self.seeds = list(seeds or range(len(lrs)))
        self.weights = [[nn.Parameter(t) for t in random_tensors(seed, shapes)] for seed in self.seeds]
        self.optimizers = [
            cls(weights, lr=lr, weight_decay=decay, **settings)
            for weights, lr, decay in zip(self.weights, lrs, weight_decays, strict=True)
        ]
        stacked, cpu = STACKED_OPTIMIZERS[cls], torch.device("cpu")
        sizes = [torch.Size(shape) for shape in shapes]
        in_pieces = stacked.goes_in_pieces(sum(size.numel() for size in sizes), cpu)
        self.layout = Layout(sizes, len(lrs), cpu, in_pieces=in_pieces)
        self.params = self.long([[p.detach() for p in weights] for weights in self.weights])
        self.grads = torch.zeros_like(self.params)
        self.build(stacked)

    def build(self, cls: type, n_steps: int = 0, factors: list[list[float]] | None = None) -> None:
        groups = [optimizer.param_groups[0] for optimizer in self.optimizers]
        self.stacked = cls(groups, self.params, self.grads, self.layout, n_steps, factors)

    def long(self, per_model: list[list[torch.Tensor]]) -> torch.Tensor:
        flat = self.layout.zeros()
        for block, same in zip(self.layout.blocks(flat), zip(*per_model, strict=True), strict=True):
            block.copy_(torch.stack(same))
        return flat

    def gradients(self, i: int) -> list[list[torch.Tensor]]:
        return [random_tensors(100 * i + seed, self.shapes) for seed in self.seeds]

    def step(self, i: int) -> None:
        grads = self.gradients(i)
        for weights, optimizer, grad, lr in zip(self.weights, self.optimizers, grads, self.lrs, strict=True):
            for p, g in zip(weights, grad, strict=True):
                p.grad = g.clone()
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
        self.grads.copy_(self.long(grads))
        self.stacked.step(self.lrs)

    def assert_same(self):
        expected = self.long([[p.detach() for p in weights] for weights in self.weights])
        torch.testing.assert_close(self.params, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("lrs", [[0.01], [0.01, 0.01], [0.01, 0.1, 0.003]])
@pytest.mark.parametrize("weight_decays", ["none", "the same", "of their own"])
def test_every_step_is_torchs(name, lrs, weight_decays, shapes):
    decays = {"none": [0.0] * 3, "the same": [0.1] * 3, "of their own": [0.0, 0.1, 0.5]}[weight_decays][: len(lrs)]
    models = Models(name, lrs, decays, shapes)
    for i in range(N_STEPS):
        models.step(i)
        models.assert_same()


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", SETTINGS)
def test_rates_may_change_from_step_to_step(name, shapes):
    models = Models(name, [0.01, 0.1], [0.1, 0.0], shapes)
    for i in range(N_STEPS):
        models.lrs = [0.01 * (i + 1), 0.1 / (i + 1)] if i % 3 else [0.05, 0.05]
        models.step(i)
        models.assert_same()


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_state_has_torchs_names_and_numbers(name, shapes):
    models = Models(name, [0.01, 0.1], [0.1, 0.0], shapes)
    for i in range(3):
        models.step(i)
    names = {n for n, t in models.optimizers[0].state[models.weights[0][0]].items() if isinstance(t, torch.Tensor) and t.ndim}
    assert set(models.stacked.state) == names
    for state_name, flat in models.stacked.state.items():
        expected = [[o.state[p][state_name] for p in w] for o, w in zip(models.optimizers, models.weights, strict=True)]
        for block, same in zip(models.layout.blocks(flat), zip(*expected, strict=True), strict=True):
            torch.testing.assert_close(block, torch.stack(same), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", SETTINGS)
def test_training_goes_on_from_a_state(name, shapes):
    """A new stacked optimizer that is given the old one's state and number of steps makes the same steps."""
    models = Models(name, [0.01, 0.1], [0.1, 0.0], shapes)
    for i in range(4):
        models.step(i)
    old = models.stacked
    models.build(type(old), old.n_steps)
    for state_name, flat in old.state.items():
        models.stacked.state[state_name].copy_(flat)
    for i in range(4, 8):
        models.step(i)
        models.assert_same()


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", SETTINGS)
def test_rates_of_single_weights(name, shapes):
    """A weight's rate is the model's times a factor; a weight of factor zero stays."""
    factors = [[1.0, 0.1, 0.1, 1.0], [1.0] * 4, [0.0, 1.0, 0.0, 1.0]]
    lrs, decays = [0.01, 0.1, 0.01], [0.1, 0.0, 0.1]
    models, alone = Models(name, lrs, decays, shapes), Models(name, lrs, decays, shapes)
    models.build(type(models.stacked), 0, factors)
    for weights, optimizer, of_model in zip(alone.weights, alone.optimizers, factors, strict=True):
        (group,) = optimizer.param_groups
        optimizer.param_groups = [{**group, "params": [p], "factor": f} for p, f in zip(weights, of_model, strict=True)]
    for i in range(5):
        for optimizer, lr in zip(alone.optimizers, lrs, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = lr * group["factor"]
        for weights, optimizer, grads in zip(alone.weights, alone.optimizers, alone.gradients(i), strict=True):
            for p, g in zip(weights, grads, strict=True):
                p.grad = g.clone()
            optimizer.step()
        models.grads.copy_(models.long(models.gradients(i)))
        models.stacked.step(lrs)
    expected = models.long([[p.detach() for p in weights] for weights in alone.weights])
    torch.testing.assert_close(models.params, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shapes", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_models_numbers_do_not_depend_on_its_company(name, shapes):
    """To the last bit: alone, first, last, beside one of its own rates or of others."""
    seeds, lrs, decays = [0, 1, 2, 3, 4], [0.01, 0.1, 0.01, 0.01, 0.003], [0.1, 0.0, 0.1, 0.1, 0.5]
    together = Models(name, lrs, decays, shapes)
    for i in range(N_STEPS):
        together.step(i)
    for m in range(len(seeds)):
        alone = Models(name, [lrs[m]], [decays[m]], shapes, seeds=[seeds[m]])
        for i in range(N_STEPS):
            alone.step(i)
        for block, own in zip(together.layout.blocks(together.params), alone.layout.blocks(alone.params), strict=True):
            torch.testing.assert_close(block[m], own[0], rtol=0, atol=0)


def test_what_models_must_share_and_what_not():
    def key(cls, **settings):
        return shared_settings(cls([nn.Parameter(torch.ones(1))], **settings).param_groups[0])

    assert key(optim.SGD, lr=0.1, weight_decay=0.2) == key(optim.SGD, lr=0.3)
    assert key(optim.Adam, lr=0.1, fused=True) == key(optim.Adam, lr=0.1, foreach=True)
    assert key(optim.SGD, lr=0.1, momentum=0.9) != key(optim.SGD, lr=0.1)
    assert key(optim.Adam, lr=0.1, betas=[0.5, 0.9]) == key(optim.Adam, lr=0.1, betas=(0.5, 0.9)) != key(optim.Adam, lr=0.1)
    assert isinstance(hash(key(optim.Adam, lr=0.1, betas=[0.5, 0.9])), int)
    assert key(optim.RMSprop, lr=0.1, centered=True) != key(optim.RMSprop, lr=0.1)
