"""Stacked optimizers against torch's, step by step, each model at its own rates."""

import pytest
import torch
from torch import nn, optim

from skpt.fusion.optimizers import STACKED_OPTIMIZERS, shared_settings

N_STEPS = 20
SHAPES = [(3, 4), (4,), (2, 3), (2,)]

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


def random_tensors(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


class Models:
    """Some models, each with torch's own optimizer; and the same weights in one long tensor."""

    def __init__(self, name: str, lrs: list[float], weight_decays: list[float], n_steps: int = 0):
        cls, settings = SETTINGS[name]
        self.lrs = lrs
        self.weights = [[nn.Parameter(t) for t in random_tensors(m)] for m in range(len(lrs))]
        self.optimizers = [
            cls(weights, lr=lr, weight_decay=decay, **settings)
            for weights, lr, decay in zip(self.weights, lrs, weight_decays, strict=True)
        ]
        self.params = self.long([[p.detach() for p in weights] for weights in self.weights])
        self.grads = torch.zeros_like(self.params)
        groups = [optimizer.param_groups[0] for optimizer in self.optimizers]
        self.stacked = STACKED_OPTIMIZERS[cls](groups, self.params, self.grads, self.spread, n_steps)

    @staticmethod
    def long(per_model: list[list[torch.Tensor]]) -> torch.Tensor:
        return torch.cat([torch.stack(same).flatten() for same in zip(*per_model, strict=True)])

    def spread(self, values):
        if all(value == values[0] for value in values):
            return float(values[0])
        per_model = [[torch.full(shape, float(value)) for shape in SHAPES] for value in values]
        return self.long(per_model)

    def step(self, i: int) -> None:
        grads = [random_tensors(100 * i + m) for m in range(len(self.weights))]
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


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("lrs", [[0.01], [0.01, 0.01], [0.01, 0.1, 0.003]])
@pytest.mark.parametrize("weight_decays", ["none", "the same", "of their own"])
def test_every_step_is_torchs(name, lrs, weight_decays):
    decays = {"none": [0.0] * 3, "the same": [0.1] * 3, "of their own": [0.0, 0.1, 0.5]}[weight_decays][: len(lrs)]
    models = Models(name, lrs, decays)
    for i in range(N_STEPS):
        models.step(i)
        models.assert_same()


@pytest.mark.parametrize("name", SETTINGS)
def test_rates_may_change_from_step_to_step(name):
    models = Models(name, [0.01, 0.1], [0.1, 0.0])
    for i in range(N_STEPS):
        models.lrs = [0.01 * (i + 1), 0.1 / (i + 1)] if i % 3 else [0.05, 0.05]
        models.step(i)
        models.assert_same()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_state_has_torchs_names_and_numbers(name):
    models = Models(name, [0.01, 0.1], [0.1, 0.0])
    for i in range(3):
        models.step(i)
    names = {n for n, t in models.optimizers[0].state[models.weights[0][0]].items() if isinstance(t, torch.Tensor) and t.ndim}
    assert set(models.stacked.state) == names
    for state_name, flat in models.stacked.state.items():
        expected = [[o.state[p][state_name] for p in w] for o, w in zip(models.optimizers, models.weights, strict=True)]
        torch.testing.assert_close(flat, models.long(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SETTINGS)
def test_training_goes_on_from_a_state(name):
    """A new stacked optimizer that is given the old one's state and number of steps makes the same steps."""
    models = Models(name, [0.01, 0.1], [0.1, 0.0])
    for i in range(4):
        models.step(i)
    old = models.stacked
    groups = [optimizer.param_groups[0] for optimizer in models.optimizers]
    models.stacked = type(old)(groups, models.params, models.grads, models.spread, old.n_steps)
    for state_name, flat in old.state.items():
        models.stacked.state[state_name].copy_(flat)
    for i in range(4, 8):
        models.step(i)
        models.assert_same()


def test_what_models_must_share_and_what_not():
    def key(cls, **settings):
        return shared_settings(cls([nn.Parameter(torch.ones(1))], **settings).param_groups[0])

    assert key(optim.SGD, lr=0.1, weight_decay=0.2) == key(optim.SGD, lr=0.3)
    assert key(optim.Adam, lr=0.1, fused=True) == key(optim.Adam, lr=0.1, foreach=True)
    assert key(optim.SGD, lr=0.1, momentum=0.9) != key(optim.SGD, lr=0.1)
    assert key(optim.Adam, lr=0.1, betas=[0.5, 0.9]) == key(optim.Adam, lr=0.1, betas=(0.5, 0.9)) != key(optim.Adam, lr=0.1)
    assert isinstance(hash(key(optim.Adam, lr=0.1, betas=[0.5, 0.9])), int)
    assert key(optim.RMSprop, lr=0.1, centered=True) != key(optim.RMSprop, lr=0.1)
