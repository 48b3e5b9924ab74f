"""Optimizers: every one that torch has, by name or class, with its own arguments."""

import copy
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skorch.callbacks import Callback
from torch import nn, optim
from torch.optim.optimizer import register_optimizer_step_pre_hook

from skpt import RNNClassifier
from skpt.exceptions import UnknownParameterError
from skpt.training import OPTIMIZERS
from skpt.training.optimizers import PendingOptimizer, QuickAdam, build_optimizer, find_optimizer, optimizer_class


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


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (optim.Adam, {"lr": 0.1, "betas": [0.5, 0.9]}),
        (optim.AdamW, {}),
        (optim.RMSprop, {"centered": True}),
        (optim.Adagrad, {"lr_decay": 0.1}),
    ],
)
def test_a_pending_optimizer_becomes_the_one_that_torch_would_have_built(cls, settings):
    module = nn.Linear(3, 2)
    pending = build_optimizer(cls, [{"params": list(module.parameters())}], settings)
    assert isinstance(pending, PendingOptimizer) and optimizer_class(pending) is cls
    expected = cls(module.parameters(), **pending.arguments)
    assert optimizer_class(expected) is cls
    built = pending.build()
    assert type(built) is cls and built.defaults == expected.defaults
    assert built.state_dict()["param_groups"] == expected.state_dict()["param_groups"]
    weights = []
    for optimizer in (built, expected):
        module.load_state_dict({"weight": torch.ones(2, 3), "bias": torch.ones(2)})
        optimizer.zero_grad()
        module(torch.ones(4, 3)).square().sum().backward()
        optimizer.step()
        weights.append(module.weight.detach().clone())
    assert torch.equal(*weights)


def test_a_pending_optimizer_hands_on_rates_and_state():
    module = nn.Linear(3, 2)
    pending = build_optimizer(optim.SGD, [{"params": list(module.parameters())}], {"lr": 0.1, "momentum": 0.9})
    pending.param_groups[0]["lr"] = 0.7
    pending.state[module.weight] = {"momentum_buffer": torch.ones(2, 3)}
    module, pending = pickle.loads(pickle.dumps(copy.deepcopy((module, pending))))
    built = pending.build()
    assert built.param_groups[0]["lr"] == 0.7
    assert built.param_groups[0]["params"][0] is module.weight
    assert torch.equal(built.state[module.weight]["momentum_buffer"], torch.ones(2, 3))


@pytest.mark.parametrize("settings", [{"lr": -1.0}, {"momentum": -0.1}, {"nesterov": True}, {"weight_decay": -1}])
def test_a_pending_optimizer_is_checked_by_torch(settings):
    with pytest.raises(ValueError) as expected:
        optim.SGD([nn.Parameter(torch.zeros(1))], **settings)
    with pytest.raises(ValueError) as error:
        build_optimizer(optim.SGD, [{"params": [nn.Parameter(torch.zeros(1))]}], settings)
    assert str(error.value) == str(expected.value)


@pytest.mark.slow
def test_a_first_fit_does_not_import_torchs_compiler():
    code = (
        "import sys\nfrom skpt import LinearRegressor, MLPClassifier\nX, y = [[0.0], [1.0], [2.0]], [0, 1, 1]\n"
        "LinearRegressor(max_epochs=2).fit(X, y).predict(X)\nnet = MLPClassifier(max_epochs=2).fit(X, y)\n"
        "assert 'torch._dynamo' not in sys.modules\nassert type(net.optimizer_).__name__ == 'Adam'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


# ---------------------------------------------------------------- Adam's operation alone


@settings(max_examples=50, deadline=None)
@given(
    cls=st.sampled_from([torch.optim.Adam, torch.optim.AdamW]),
    arguments=st.fixed_dictionaries(
        {
            "betas": st.sampled_from([(0.9, 0.999), (0.5, 0.6)]),
            "weight_decay": st.sampled_from([0.0, 0.1]),
            "amsgrad": st.booleans(),
            "maximize": st.booleans(),
        }
    ),
    n_groups=st.integers(1, 2),
    steps=st.lists(st.tuples(st.lists(st.booleans(), min_size=4, max_size=4), st.floats(1e-4, 1.0)), min_size=1, max_size=8),
)
def test_quick_adam_is_adam(cls, arguments, n_groups, steps):
    made = []
    for quick in (False, True):
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(n, 3, generator=generator)) for n in (2, 5, 1, 4)]
        groups = [{"params": params[i::n_groups], "eps": 1e-8 * (i + 1)} for i in range(n_groups)]
        optimizer = cls(groups, fused=True, **arguments)
        assert QuickAdam.suits(optimizer)
        stepper = QuickAdam(optimizer) if quick else optimizer
        for has_gradient, lr in steps:
            stepper.zero_grad()
            for p, has in zip(params, has_gradient, strict=True):
                if has:
                    p.grad = torch.randn(p.shape, generator=generator)
            for i, group in enumerate(optimizer.param_groups):
                group["lr"] = lr * (i + 1)
            stepper.step()
        made.append((params, optimizer.state_dict()["state"]))
    (params, state), (quick_params, quick_state) = made
    assert all(map(torch.equal, params, quick_params))
    assert state.keys() == quick_state.keys()
    for i in state:
        assert state[i].keys() == quick_state[i].keys()
        assert all(torch.equal(state[i][name], quick_state[i][name]) for name in state[i])


@pytest.mark.parametrize(
    "arguments", [{"fused": False}, {"fused": True, "lr": torch.tensor(0.1)}, {"capturable": True}, {"foreach": True}]
)
def test_quick_adam_leaves_other_settings_to_torch(arguments):
    assert not QuickAdam.suits(torch.optim.Adam([nn.Parameter(torch.zeros(2))], **arguments))


def test_quick_adam_leaves_others_optimizers_and_hooks_to_torch():
    class Own(torch.optim.Adam):
        pass

    params = [nn.Parameter(torch.zeros(2))]
    assert not QuickAdam.suits(Own(params, fused=True))
    assert not QuickAdam.suits(torch.optim.SGD(params, fused=True))
    assert not QuickAdam.suits(torch.optim.Adam([*params, nn.Parameter(torch.zeros(2, dtype=torch.float64))], fused=True))
    watched = torch.optim.Adam(params, fused=True)
    watched.register_step_post_hook(lambda *_: None)
    assert not QuickAdam.suits(watched)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr_schedule": "one_cycle"},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"max_grad_norm": 0.1},
        {"early_stopping": True},
    ],
    ids=str,
)
def test_a_fit_by_quick_adam_is_one_by_adam(monkeypatch, arguments):
    random = np.random.default_rng(0)
    X, y = random.standard_normal((60, 5, 2)), np.arange(60) % 3
    made, n_steps, step = [], [], QuickAdam.step
    monkeypatch.setattr(QuickAdam, "step", lambda self: (n_steps.append(1), step(self)))
    for quick in (True, False):
        if not quick:
            monkeypatch.setattr(QuickAdam, "suits", lambda optimizer: False)
        net = RNNClassifier(4, max_epochs=3, batch_size=16, random_state=0, **arguments).fit(X, y)
        made.append((net.partial_fit(X, y), len(n_steps)))
    (one, n_quick), (other, n_all) = made
    assert n_quick == n_all > 4 * 3
    assert all(map(torch.equal, one.module_.parameters(), other.module_.parameters()))
    assert "quick_adam_" not in vars(one)


def test_a_fit_where_gradients_are_switched_off():
    X, y = np.random.default_rng(0).standard_normal((30, 4, 2)), np.arange(30) % 2
    expected = RNNClassifier(4, max_epochs=2, batch_size=10, random_state=0).fit(X, y)
    with torch.no_grad():
        net = RNNClassifier(4, max_epochs=2, batch_size=10, random_state=0).fit(X, y)
    assert all(map(torch.equal, net.module_.parameters(), expected.module_.parameters()))


class DoesMore(RNNClassifier):
    """Does something to the optimizer, or to itself, at the beginning of each epoch."""

    def on_epoch_begin(self, net, **kwargs):
        super().on_epoch_begin(net, **kwargs)
        self.deed()


def clear(net):
    net.optimizer_.state.clear()


def add_group(net):
    if len(net.optimizer_.param_groups) == 1:
        net.optimizer_.add_param_group({"params": [net.optimizer_.param_groups[0]["params"].pop()], "lr": 0.5})


def replace(net):
    vars(net)["optimizer_"] = optim.SGD(net.module_.parameters(), lr=0.5)


@pytest.mark.parametrize("deed", [clear, add_group, replace])
def test_what_a_net_does_to_its_optimizer_between_epochs_holds(monkeypatch, deed):
    X, y = np.random.default_rng(0).standard_normal((30, 4, 2)), np.arange(30) % 2
    made = []
    for quick in (True, False):
        if not quick:
            monkeypatch.setattr(QuickAdam, "suits", lambda optimizer: False)
        net = DoesMore(4, max_epochs=4, batch_size=10, lr_schedule=None, random_state=0)
        net.deed = partial(deed, net)
        made.append(net.fit(X, y))
    assert np.array_equal(*(net.loss_curve_ for net in made))


def test_what_is_pickled_within_a_fit_has_no_quick_adam():
    blobs = []
    net = DoesMore(4, max_epochs=2, batch_size=10, random_state=0)
    net.deed = lambda: blobs.append(pickle.dumps({name: v for name, v in net.__getstate__().items() if name != "deed"}))
    X, y = np.random.default_rng(0).standard_normal((30, 4, 2)), np.arange(30) % 2
    net.fit(X, y)
    assert len(blobs) == 2 and "quick_adam_" not in pickle.loads(blobs[1])


@pytest.mark.parametrize("when", ["global", "own"])
def test_hooks_of_optimizers_are_called_at_each_step(when):
    seen = []
    net = DoesMore(4, max_epochs=3, batch_size=10)
    net.deed = lambda: when == "own" and not seen and net.optimizer_.register_step_pre_hook(lambda *_: seen.append(1))
    handle = register_optimizer_step_pre_hook(lambda *_: seen.append(1)) if when == "global" else None
    try:
        net.fit(np.zeros((30, 4, 2)), np.arange(30) % 2)
    finally:
        if handle is not None:
            handle.remove()
    assert len(seen) == 9


def test_callbacks_of_the_users_see_the_optimizer_step():
    class Counts(Callback):
        def on_train_begin(self, net, **kwargs):
            self.n_steps = 0
            net.optimizer_.register_step_post_hook(lambda *_: setattr(self, "n_steps", self.n_steps + 1))

    counts = Counts()
    RNNClassifier(4, max_epochs=2, batch_size=10, callbacks=[counts]).fit(np.zeros((30, 4, 2)), np.arange(30) % 2)
    assert counts.n_steps == 6
