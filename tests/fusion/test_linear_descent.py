"""The descent by maps of steps, against the obvious loop in double precision and against the ordinary steps."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from skpt.exceptions import DivergedError
from skpt.fusion import stack
from skpt.fusion.linear_descent import descends
from skpt.fusion.stack import Stack, group_key, train_stack
from skpt.modules import LinearModule
from skpt.training.batches import Batches
from skpt.training.criteria import mean_loss
from skpt.training.job import TrainingJob
from skpt.training.monitor import Monitor
from skpt.training.schedules import find_schedule

SGD = {
    "plain": {},
    "decay": {"weight_decay": 0.05},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "dampened": {"momentum": 0.8, "dampening": 0.3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}


def make_job(
    seed=0,
    *,
    n_samples=23,
    n_features=2,
    n_outputs=1,
    bias=True,
    weighted=False,
    batch_size=4,
    shuffled=True,
    sgd="plain",
    lr=0.02,
    max_epochs=12,
    schedule=None,
    valid=False,
):
    generator = torch.Generator().manual_seed(seed)
    module = LinearModule(n_features, n_outputs, bias=bias, generator=generator)
    X = torch.randn(n_samples, n_features, generator=generator) + 0.5
    y = torch.randn(n_samples, n_outputs, generator=generator) + X.sum(1, keepdim=True)
    weight = None
    if weighted:
        weight = torch.rand(n_samples, generator=generator) + 0.1
        weight /= weight.mean()
    rows = Batches(X, y, weight, min(batch_size, n_samples), torch.Generator().manual_seed(seed) if shuffled else None)
    if schedule is not None:
        schedule = find_schedule(schedule, {}, lr=lr, n_epochs=max_epochs, n_batches=len(rows), monitor="train_loss")
    return TrainingJob(
        module,
        rows,
        nn.MSELoss(reduction="none"),
        optim.SGD(module.parameters(), lr=lr, **SGD[sgd]),
        max_epochs,
        monitor=Monitor(early_stopping=valid, n_iter_no_change=2),
        valid=Batches(X[:7] + 0.1, y[:7], None, 7) if valid else None,
        schedule=schedule,
    )


def flat(module):
    return torch.cat([p.detach().double().flatten() for p in module.parameters()])


def obvious_loop(job):
    """Train in double precision as a textbook does; give weights and mean loss of each epoch."""
    module = copy.deepcopy(job.module).double()
    group = {k: v for k, v in job.optimizer.param_groups[0].items() if k in ("lr", *SGD["momentum"], "dampening", "nesterov")}
    optimizer, curve = optim.SGD(module.parameters(), **group), []
    for _ in range(job.max_epochs):
        total = 0.0
        for X, y in job.train:
            y, weight = y if isinstance(y, tuple) else (y, None)
            optimizer.zero_grad()
            loss = mean_loss(job.criterion, module(X.double()), y.double(), None if weight is None else weight.double())
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        curve.append(total / len(job.train.y))
    return flat(module), curve


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_samples=st.integers(6, 40),
    n_features=st.integers(1, 4),
    n_outputs=st.integers(1, 3),
    bias=st.booleans(),
    weighted=st.booleans(),
    batch_size=st.integers(1, 9) | st.just(1000),
    shuffled=st.booleans(),
    sgd=st.sampled_from(sorted(SGD)),
    lr=st.floats(1e-4, 0.03),
)
def test_it_equals_the_obvious_loop(**settings):
    job, same = make_job(**settings), make_job(**settings)
    assert descends(job)
    weights, curve = obvious_loop(same)
    train_stack([job])
    assert job.error is None
    torch.testing.assert_close(flat(job.module), weights, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(job.monitor.train_loss, curve, rtol=1e-5, atol=1e-9)
    if job.train.generator is not None:
        assert torch.equal(job.train.generator.get_state(), same.train.generator.get_state())


@pytest.mark.parametrize("further", [{}, {"schedule": "one_cycle"}, {"schedule": "cosine"}, {"valid": True}, {"lr": 0.9}])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("sgd", SGD)
def test_it_equals_the_ordinary_steps(sgd, weighted, further, monkeypatch):
    job, same = (make_job(sgd=sgd, weighted=weighted, max_epochs=40, **further) for _ in range(2))
    assert descends(job)
    train_stack([job])
    monkeypatch.setattr(stack, "descends", lambda job: False)
    train_stack([same])
    assert str(job.error) == str(same.error)
    assert (job.error is None) == ("lr" not in further)
    weights = flat(same.module)
    torch.testing.assert_close(flat(job.module), weights, rtol=1e-5, atol=1e-5 * float(weights.abs().max()))
    for name in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(getattr(job.monitor, name), getattr(same.monitor, name), rtol=1e-4)
    assert job.monitor.best_epoch == same.monitor.best_epoch
    assert job.optimizer.param_groups[0]["lr"] == same.optimizer.param_groups[0]["lr"]


@settings(max_examples=25, deadline=None)
@given(
    n_models=st.integers(2, 6),
    batch_size=st.sampled_from([1, 4, 1000]),
    sgd=st.sampled_from(sorted(SGD)),
    same_seed=st.booleans(),
    weighted=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_company_changes_nothing(n_models, batch_size, sgd, same_seed, weighted, seed):
    def jobs():
        return [
            make_job(
                seed if same_seed else seed + m,
                n_samples=17 + (m % 3),
                batch_size=batch_size,
                sgd=sgd,
                lr=[0.01, 0.05, 2.0][m % 3],
                max_epochs=8 + 70 * (m % 2) + m,
                weighted=weighted and m % 2 == 0,
            )
            for m in range(n_models)
        ]

    alone, together = jobs(), jobs()
    for job in alone:
        train_stack([job])
    by_key = {}
    for job in together:
        by_key.setdefault(group_key(job), []).append(job)
    for group in by_key.values():
        train_stack(group)
    for one, other in zip(alone, together, strict=True):
        assert str(one.error) == str(other.error)
        torch.testing.assert_close(flat(one.module), flat(other.module), rtol=1e-6, atol=0)
        np.testing.assert_allclose(one.monitor.train_loss, other.monitor.train_loss, rtol=1e-6)
        if one.error is None:  # who diverges is noticed some epochs later
            assert torch.equal(one.train.generator.get_state(), other.train.generator.get_state())
        for p, q in zip(one.module.parameters(), other.module.parameters(), strict=True):
            state, others = one.optimizer.state.get(p, {}), other.optimizer.state.get(q, {})
            assert state.keys() == others.keys()
            for name, values in state.items():
                torch.testing.assert_close(values, others[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sgd", SGD)
def test_models_of_different_lengths_descend_together_to_the_end_of_the_longest(sgd, monkeypatch):
    """In order or as one batch; who is done goes on with the others, and nobody hears of it."""
    loads = []
    load = Stack._load_rows
    monkeypatch.setattr(Stack, "_load_rows", lambda self: (loads.append(len(self.jobs)), load(self))[1])
    lengths = [2, 30, 9, 30, 1]
    together = [make_job(m, batch_size=1000, sgd=sgd, lr=0.02, max_epochs=n) for m, n in enumerate(lengths)]
    train_stack(together)
    assert loads == [5]
    for m, (n, job) in enumerate(zip(lengths, together, strict=True)):
        alone = make_job(m, batch_size=1000, sgd=sgd, lr=0.02, max_epochs=n)
        train_stack([alone])
        assert job.error is None and len(job.monitor.train_loss) == n
        torch.testing.assert_close(flat(job.module), flat(alone.module), rtol=1e-6, atol=0)
        np.testing.assert_allclose(job.monitor.train_loss, alone.monitor.train_loss, rtol=1e-6)


@pytest.mark.parametrize("sgd", SGD)
def test_training_goes_on_where_it_stood(sgd):
    whole, parts = make_job(sgd=sgd, max_epochs=20), make_job(sgd=sgd, max_epochs=8)
    train_stack([whole])
    train_stack([parts])
    parts.max_epochs = 12
    train_stack([parts])
    assert torch.equal(flat(parts.module), flat(whole.module))
    assert parts.monitor.train_loss == whole.monitor.train_loss


def test_who_diverges_keeps_the_weights_of_the_last_finite_epoch():
    job = make_job(lr=0.9, max_epochs=300)
    train_stack([job])
    assert isinstance(job.error, DivergedError)
    epoch = job.error.epoch
    assert 1 < epoch < 300 and len(job.monitor.train_loss) == epoch - 1
    shorter = make_job(lr=0.9, max_epochs=epoch - 1)
    train_stack([shorter])
    assert shorter.error is None and math.isfinite(shorter.monitor.train_loss[-1])
    torch.testing.assert_close(flat(job.module), flat(shorter.module), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"max_epochs": 1}, True),
        ({"batch_size": 1000, "valid": True}, True),
        ({"n_features": 60}, False),
        ({"n_features": 10, "batch_size": 16}, False),
        ({"n_features": 10, "batch_size": 16, "shuffled": False}, True),
        ({"n_samples": 4000, "batch_size": 4000}, False),
    ],
)
def test_the_rule_of_costs(changes, expected):
    assert descends(make_job(**changes)) == expected


def test_only_plain_least_squares_descends():
    for change in ("criterion", "optimizer", "max_grad_norm", "frozen"):
        job = make_job()
        if change == "criterion":
            job.criterion = nn.L1Loss(reduction="none")
        elif change == "optimizer":
            job.optimizer = optim.Adam(job.module.parameters())
        elif change == "max_grad_norm":
            job.max_grad_norm = 1.0
        else:
            job.module.output.bias.requires_grad_(False)
        assert not descends(job)


@pytest.mark.parametrize("is_descent", [True, False])
def test_an_interrupted_fit_tells_of_all_whole_epochs(is_descent, monkeypatch):
    monkeypatch.setattr(stack, "descends", lambda job: is_descent)
    calls = iter(range(10**6))

    def interrupt():
        if next(calls) == (1 if is_descent else 35):
            raise KeyboardInterrupt
        return False

    job, same = (make_job(max_epochs=500, batch_size=6) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        Stack([job], is_cancelled=interrupt).train()
    n_epochs = len(job.monitor.train_loss)
    assert n_epochs == len(job.monitor.seconds) > 0
    same.max_epochs = n_epochs
    monkeypatch.setattr(stack, "descends", lambda job: False)
    train_stack([same])
    np.testing.assert_allclose(job.monitor.train_loss, same.monitor.train_loss, rtol=1e-4)
    if is_descent:
        torch.testing.assert_close(flat(job.module), flat(same.module), rtol=1e-5, atol=1e-6)
