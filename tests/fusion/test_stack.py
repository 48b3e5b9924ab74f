"""A stack against the obvious loop: torch's own layers, autograd and optimizers, one model after another."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from skpt.exceptions import DivergedError
from skpt.fusion.grouping import make_groups
from skpt.fusion.layers import ELEMENTWISE
from skpt.fusion.stack import Stack, group_key, train_stack, why_not_stacked
from skpt.modules import ACTIVATIONS, MLPModule
from skpt.training.batches import Batches
from skpt.training.criteria import build_criterion, mean_loss
from skpt.training.job import TrainingJob

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.05),
    "sgd, momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "sgd, nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.005),
    "rmsprop, centred": lambda p: optim.RMSprop(p, lr=0.005, centered=True, momentum=0.5, weight_decay=0.01),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.01, initial_accumulator_value=0.1),
}
CRITERIA = {
    "mse": (nn.MSELoss, {}, "numbers"),
    "l1": (nn.L1Loss, {}, "numbers"),
    "huber": (nn.HuberLoss, {"delta": 0.5}, "numbers"),
    "smooth_l1": (nn.SmoothL1Loss, {"beta": 0.5}, "numbers"),
    "poisson_nll": (nn.PoissonNLLLoss, {}, "counts"),
    "cross_entropy": (nn.CrossEntropyLoss, {}, "classes"),
    "cross_entropy, smoothed": (nn.CrossEntropyLoss, {"label_smoothing": 0.1}, "classes"),
    "multi_margin": (nn.MultiMarginLoss, {}, "classes"),
    "bce": (nn.BCEWithLogitsLoss, {}, "indicators"),
    "multilabel_soft_margin": (nn.MultiLabelSoftMarginLoss, {}, "indicators"),
}


def targets(kind, n_samples, n_outputs, generator):
    if kind == "classes":
        return torch.randint(n_outputs, (n_samples,), generator=generator)
    if kind == "numbers":
        return torch.randn(n_samples, n_outputs, generator=generator)
    return torch.randint(2 if kind == "indicators" else 5, (n_samples, n_outputs), generator=generator).float()


def make_job(
    seed=0,
    *,
    n_samples=37,
    n_features=4,
    n_outputs=3,
    hidden=(6,),
    activation="tanh",
    batch_norm=False,
    weighted=False,
    batch_size=8,
    criterion="mse",
    optimizer="sgd",
    max_epochs=3,
    max_grad_norm=None,
    lr=None,
):
    generator = torch.Generator().manual_seed(seed)
    cls, params, kind = CRITERIA[criterion]
    module = MLPModule(
        n_features, n_outputs, hidden, activation=activation, batch_norm=batch_norm, generator=generator
    )
    weight = None
    if weighted:
        weight = torch.rand(n_samples, generator=generator) + 0.1
        weight /= weight.mean()
    rows = Batches(
        torch.randn(n_samples, n_features, generator=generator),
        targets(kind, n_samples, n_outputs, generator),
        weight,
        batch_size,
    )
    built = OPTIMIZERS[optimizer](module.parameters())
    if lr is not None:
        built.param_groups[0]["lr"] = lr
    return TrainingJob(module, rows, build_criterion(cls, params), built, max_epochs, max_grad_norm=max_grad_norm)


def obvious_loop(job):
    """Train as a textbook does; give the mean loss of each epoch."""
    job.module.train()
    curve = []
    for _ in range(job.max_epochs):
        total = 0.0
        for X, y in job.train:
            y, weight = y if isinstance(y, tuple) else (y, None)
            job.optimizer.zero_grad()
            loss = mean_loss(job.criterion, job.module(X, weight), y, weight)
            loss.backward()
            if job.max_grad_norm:
                nn.utils.clip_grad_norm_(job.module.parameters(), job.max_grad_norm)
            job.optimizer.step()
            total += loss.item() * len(y)
        curve.append(total / len(job.train.y))
    return curve


def state(job):
    return list(job.module.state_dict().values())


def assert_same_as_loop(job, rtol=2e-4, atol=2e-5):
    reference = copy.deepcopy(job)
    assert why_not_stacked(job) is None
    train_stack([job])
    assert job.error is None
    curve = obvious_loop(reference)
    for ours, theirs in zip(state(job), state(reference), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)
    torch.testing.assert_close(torch.tensor(job.monitor.train_loss), torch.tensor(curve), rtol=rtol, atol=atol)
    return reference


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_criterion(criterion, weighted):
    assert_same_as_loop(make_job(criterion=criterion, weighted=weighted))


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_every_activation(activation):
    assert ACTIVATIONS[activation] in ELEMENTWISE
    assert_same_as_loop(make_job(activation=activation, hidden=(7, 5)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_and_its_state(optimizer):
    job = make_job(optimizer=optimizer, max_epochs=4)
    reference = assert_same_as_loop(job)
    for p, q in zip(job.module.parameters(), reference.module.parameters(), strict=True):
        ours, theirs = job.optimizer.state.get(p, {}), reference.optimizer.state.get(q, {})
        for name in theirs:
            if theirs[name] is not None:
                torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_as_if_unbroken(optimizer):
    whole, parts = make_job(optimizer=optimizer, max_epochs=6), make_job(optimizer=optimizer, max_epochs=3)
    train_stack([whole])
    train_stack([parts])
    train_stack([parts])
    for a, b in zip(state(whole), state(parts), strict=True):
        assert torch.equal(a, b)


@settings(max_examples=30, deadline=None)
@given(
    n_samples=st.integers(2, 40),
    n_features=st.integers(1, 6),
    n_outputs=st.integers(2, 4),
    hidden=st.lists(st.integers(1, 9), max_size=3),
    batch_size=st.integers(2, 45),
    batch_norm=st.booleans(),
    weighted=st.booleans(),
    criterion=st.sampled_from(["mse", "cross_entropy", "bce"]),
    seed=st.integers(0, 1000),
)
def test_every_shape(**drawn):
    assert_same_as_loop(make_job(max_epochs=2, optimizer="sgd", **drawn), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("max_grad_norm", [0.01, 1.0, 1e6])
def test_clipped_gradients(max_grad_norm):
    assert_same_as_loop(make_job(max_grad_norm=max_grad_norm))


@settings(max_examples=25, deadline=None)
@given(
    n_models=st.integers(2, 6),
    batch_norm=st.booleans(),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    criterion=st.sampled_from(["mse", "cross_entropy", "bce", "huber"]),
    n_samples=st.integers(20, 60),
    seed=st.integers(0, 1000),
)
def test_company_changes_nothing(n_models, batch_norm, optimizer, criterion, n_samples, seed):
    def jobs():
        return [
            make_job(
                seed + m,
                n_samples=n_samples - m % 2,
                optimizer=optimizer,
                criterion=criterion,
                batch_norm=batch_norm,
                weighted=m % 3 == 1,
                max_epochs=1 + m,
                lr=0.01 * (1 + m % 2),
            )
            for m in range(n_models)
        ]

    alone, together = jobs(), jobs()
    for job in alone:
        train_stack([job])
    groups = make_groups(together, 1, 1 << 30)
    for group in groups:
        train_stack(group)
    for a, b in zip(alone, together, strict=True):
        assert a.monitor.train_loss == pytest.approx(b.monitor.train_loss, rel=1e-5)
        for s, t in zip(state(a), state(b), strict=True):
            torch.testing.assert_close(s, t, rtol=1e-5, atol=1e-7)


def test_who_diverges_leaves_the_others_alone():
    good, bad, reference = make_job(1, max_epochs=5), make_job(2, max_epochs=5, lr=1e30), make_job(1, max_epochs=5)
    assert group_key(good) == group_key(bad)
    train_stack([good, bad])
    train_stack([reference])
    assert isinstance(bad.error, DivergedError)
    assert good.error is None
    assert all(torch.isfinite(t).all() for t in state(bad))
    for a, b in zip(state(good), state(reference), strict=True):
        assert torch.equal(a, b)


def test_a_cancelled_stack_stops():
    job = make_job(max_epochs=100_000)
    calls = iter(range(10**9))
    Stack([job], is_cancelled=lambda: next(calls) > 50).train()
    assert len(job.monitor.train_loss) < 100
