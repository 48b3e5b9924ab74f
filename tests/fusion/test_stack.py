"""A stack against the obvious loop: torch's own layers, autograd and optimizers, one model after another."""

import copy
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.nn.utils import prune

from skpt._compat import find_onednn_linear
from skpt.exceptions import DivergedError
from skpt.fusion import products
from skpt.fusion.grouping import make_groups
from skpt.fusion.layers import ELEMENTWISE
from skpt.fusion.stack import Stack, group_key, train_stack, why_not_stacked
from skpt.modules import ACTIVATIONS, BatchNorm1d, Dropout, FeedForward, Linear, MLPModule
from skpt.training.batches import Batches
from skpt.training.criteria import build_criterion, mean_loss
from skpt.training.job import TrainingJob
from skpt.training.monitor import Monitor
from skpt.training.schedules import Schedule, find_schedule
from skpt.training.threads import one_thread
from skpt.training.transfer import find_frozen, scale_loaded_rates


@pytest.fixture(autouse=True, scope="module", params=[False, True], ids=["torch's products", "the fastest products"])
def _products(request):
    """Everything once by torch's products alone, and once as on a processor where others are faster."""
    with (
        mock.patch.object(products, "_is_supported", lambda: request.param),
        mock.patch.object(products, "_numpy_has_kernels", lambda: request.param),
        one_thread(),  # as small steps are trained: two round a softmax otherwise
    ):
        yield request.param


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
    freeze=None,
    factor=1.0,
):
    generator = torch.Generator().manual_seed(seed)
    cls, params, kind = CRITERIA[criterion]
    module = MLPModule(n_features, n_outputs, hidden, activation=activation, batch_norm=batch_norm, generator=generator)
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
    scale_loaded_rates(built, module[0].parameters(), factor)
    frozen = find_frozen(module, freeze, "The model")
    frozen.hold(module)
    return TrainingJob(
        module, rows, build_criterion(cls, params), built, max_epochs, max_grad_norm=max_grad_norm, frozen=frozen
    )


def obvious_loop(job):
    """Train as a textbook does; give the mean loss of each epoch."""
    job.module.train()
    job.frozen.keep_statistics(job.module)
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


@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_autograd_takes_what_a_stack_leaves(optimizer, drops):
    """Its steps may run in torch's inference mode, whose tensors autograd refuses."""
    job = make_job(optimizer=optimizer)
    dropout = Dropout(0.5, generator=torch.Generator())
    job.module = FeedForward(Linear(4, 6), BatchNorm1d(6), nn.ReLU(), *([dropout] if drops else []), Linear(6, 3))
    job.optimizer = OPTIMIZERS[optimizer](job.module.parameters())
    assert Stack([copy.deepcopy(job)]).may_infer != drops
    train_stack([job])
    assert job.error is None
    left = [*state(job), *(t for of_weight in job.optimizer.state.values() for t in of_weight.values() if t is not None)]
    assert not any(t.is_inference() for t in [*left, *([dropout.masks.block] if drops else [])])
    obvious_loop(job)


@pytest.mark.parametrize("n_features", [23, 32], ids=["end within a vector", "fill vectors"])
@pytest.mark.parametrize("freeze", [None, "hidden_1", "hidden_1.bias", "hidden_2"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_intercepts_as_weights_of_a_one(_products, n_features, freeze, optimizer):
    others = {"optimizer": optimizer, "criterion": "cross_entropy", "weighted": True, "max_grad_norm": 1.0}
    job = make_job(n_features=n_features, hidden=(45, 25), freeze=freeze, **others)
    trains = freeze in (None, "hidden_2")
    assert Stack([copy.deepcopy(job)]).has_ones == (_products and trains)
    assert_same_as_loop(job)


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


@pytest.mark.parametrize(
    "freeze",
    ["hidden_1", "hidden_2", "hidden*", "output", "*.bias", "batch_norm_1", "batch_norm_1.bias", ("hidden*", "batch_norm*")],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["sgd, momentum", "adam"])
def test_frozen_layers(freeze, optimizer):
    job = make_job(hidden=(6, 5), batch_norm=True, freeze=freeze, optimizer=optimizer, max_grad_norm=1.0, weighted=True)
    with torch.no_grad():  # running statistics that are not those of the data
        for name in ("batch_norm_1", "batch_norm_2"):
            job.module.get_submodule(name).running_mean.normal_(generator=torch.Generator().manual_seed(3))
    before = {name: t.clone() for name, t in job.module.state_dict().items()}
    reference = assert_same_as_loop(job)
    of_statistics = tuple(f"{name}.{kind}" for name in job.frozen.statistics for kind in ("running", "num"))
    still = {*job.frozen.weights, *(name for name in before if name.startswith(of_statistics))}
    assert still
    for name, tensor in job.module.state_dict().items():
        assert torch.equal(tensor, before[name]) == (name in still), name
    assert len(job.optimizer.state) == len(reference.optimizer.state)


def test_frozen_statistics_alone():
    """Of a layer without weights: what trains is the same in both groups, how it computes is not."""

    def job(freeze):
        job = make_job(hidden=())
        job.module = FeedForward(BatchNorm1d(4, affine=False), Linear(4, 3, generator=torch.Generator().manual_seed(0)))
        job.module[0].running_mean += 2
        job.optimizer = optim.SGD(job.module.parameters(), lr=0.05)
        job.frozen = find_frozen(job.module, freeze, "The model")
        return job

    assert group_key(job("0")) != group_key(job(None))
    for freeze in ("0", None):
        assert_same_as_loop(job(freeze))


@pytest.mark.parametrize("factor", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_of_loaded_weights(optimizer, factor):
    job = make_job(factor=factor, optimizer=optimizer, hidden=(6, 5))
    before = job.module[0].weight.clone()
    assert_same_as_loop(job)
    assert torch.equal(job.module[0].weight, before) == (factor == 0)


def test_weights_that_made_different_numbers_of_steps_train_alone():
    job = make_job(freeze="hidden_1", optimizer="adam")
    train_stack([job])
    assert why_not_stacked(job) is None
    job.frozen.release(job.module)
    assert why_not_stacked(job) == "weights that made different numbers of steps"


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
    frozen=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_company_changes_nothing(n_models, batch_norm, optimizer, criterion, n_samples, frozen, seed):
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
                factor=[1.0, 0.1, 0.5][m % 3],
                freeze="hidden_1" if frozen else None,
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


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("criterion", ["mse", "cross_entropy", "bce"])
@pytest.mark.parametrize("hidden", [(16,), (64,)], ids=["small", "stepped by torch's kernel"])
def test_company_changes_no_bit_where_sizes_fill_vectors(optimizer, criterion, hidden):
    def jobs():
        shape = {"n_samples": 64, "n_features": 16, "n_outputs": 16, "hidden": hidden, "batch_size": 16}
        return [
            make_job(m, optimizer=optimizer, criterion=criterion, weighted=m == 1, max_epochs=3 + m % 2, lr=lr, **shape)
            for m, lr in enumerate([0.01, 0.01, 0.02, 0.01])
        ]

    alone, together = jobs(), jobs()
    for job in alone:
        train_stack([job])
    train_stack(together)
    for a, b in zip(alone, together, strict=True):
        for s, t in zip(state(a), state(b), strict=True):
            torch.testing.assert_close(s, t, rtol=0, atol=0)


@pytest.mark.skipif(find_onednn_linear() is None, reason="torch is built without oneDNN")
def test_company_changes_no_bit_of_large_products():
    def jobs():
        shape = {"n_samples": 80, "n_features": 128, "n_outputs": 3, "hidden": (128, 144), "batch_size": 64}
        return [make_job(m, max_epochs=2 + m % 2, lr=0.01 / (1 + m), **shape) for m in range(3)]

    alone, together, by_mkl = jobs(), jobs(), jobs()
    with mock.patch.object(products, "_is_supported", lambda: True):
        for job in alone:
            train_stack([job])
        with mock.patch.object(products, "linear", wraps=products.linear) as linear:
            train_stack(together)
        assert linear.called
    with mock.patch.object(products, "choose", lambda *sizes, **settings: "torch"):
        train_stack(by_mkl)
    for a, b, c in zip(alone, together, by_mkl, strict=True):
        assert a.monitor.train_loss == pytest.approx(c.monitor.train_loss, rel=1e-4)
        for s, t in zip(state(a), state(b), strict=True):
            torch.testing.assert_close(s, t, rtol=0, atol=0)


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
    assert good.monitor.train_loss == reference.monitor.train_loss


def test_who_diverges_keeps_the_weights_of_the_epoch_before():
    """In a stack that takes note of several epochs at once, with a model whose loss stays finite."""

    def job(max_epochs):
        # The loss overflows after some epochs, when the weights have grown by the same factor in each.
        return make_job(2, max_epochs=max_epochs, lr=100.0, hidden=(), batch_size=37, optimizer="sgd, momentum")

    good, bad = make_job(1, max_epochs=40, hidden=(), batch_size=37, optimizer="sgd, momentum"), job(40)
    train_stack([good, bad])
    assert 2 < bad.error.epoch < 40
    assert len(bad.monitor.train_loss) == bad.error.epoch - 1
    until_then = job(bad.error.epoch - 1)
    train_stack([until_then])
    assert until_then.error is None
    for a, b in zip(state(bad), state(until_then), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=0)
    assert not bad.optimizer.state, "its moments would not be finite"
    assert len(good.monitor.train_loss) == 40


def own_job(m, batch_norm):
    """Jobs of one group that differ in all that is each model's own."""
    generator, noise, order = (torch.Generator().manual_seed(10 * m + k) for k in range(3))
    module = MLPModule(
        4, 3, (6,), dropout=[0.5, 0.2, 0.7][m % 3], batch_norm=batch_norm, generator=generator, noise_generator=noise
    )
    n_samples = 40 - m % 4  # in a group, the last batch has room for them all
    X, y = torch.randn(n_samples, 4, generator=generator), torch.randn(n_samples, 3, generator=generator)
    weight = torch.rand(n_samples, generator=generator) + 0.1 if m % 2 else None
    optimizer = optim.Adam(module.parameters(), lr=0.01 * (m + 1), weight_decay=[0.0, 0.01, 0.3][m % 3])
    n_epochs = 4 + 3 * m
    schedule = [None, "cosine", "plateau", "one_cycle"][m % 4]
    valid = Batches(torch.randn(9, 4, generator=generator), torch.randn(9, 3, generator=generator), None, 9)
    return TrainingJob(
        module,
        Batches(X, y, None if weight is None else weight / weight.mean(), 16, order if m % 3 else None),
        nn.MSELoss(reduction="none"),
        optimizer,
        max_epochs=n_epochs,
        monitor=Monitor(early_stopping=m % 3 == 1, n_iter_no_change=1 + m, tol=0.01),
        valid=valid if m % 2 else None,
        schedule=find_schedule(schedule, {}, lr=0.01, n_epochs=n_epochs, n_batches=3, monitor="train_loss"),
        max_grad_norm=0.1 * (m + 1),
    )


@pytest.mark.parametrize("batch_norm", [False, True])
def test_models_of_a_stack_may_differ_in_all_that_is_their_own(batch_norm):
    """Rates, weight decay, epochs, early stopping, dropout, order, weights, schedules, clipping, numbers of rows."""
    alone, together = ([own_job(m, batch_norm) for m in range(8)] for _ in range(2))
    assert len({group_key(job) for job in together}) == 1
    for job in alone:
        train_stack([job])
    train_stack(together)
    lengths = [len(job.monitor.train_loss) for job in alone]
    assert len(set(lengths)) > 4 and any(n < job.max_epochs for n, job in zip(lengths, alone, strict=True))
    for a, b in zip(alone, together, strict=True):
        assert len(a.monitor.train_loss) == len(b.monitor.train_loss)
        assert a.monitor.best_epoch == b.monitor.best_epoch
        assert a.monitor.valid_loss == pytest.approx(b.monitor.valid_loss, rel=1e-4)
        for s, t in zip(state(a), state(b), strict=True):
            torch.testing.assert_close(s, t, rtol=1e-4, atol=1e-6)
        assert a.optimizer.param_groups[0]["lr"] == b.optimizer.param_groups[0]["lr"]


def test_early_stopping_gives_the_best_weights_back():
    job = own_job(1, False)
    job.schedule, job.max_epochs, job.monitor = None, 50, Monitor(early_stopping=True, n_iter_no_change=5)
    job.valid.y.neg_()
    train_stack([job])
    assert job.monitor.best_epoch < len(job.monitor.train_loss) < 50
    job.module.eval()
    loss = nn.functional.mse_loss(job.module(job.valid.X), job.valid.y).item()
    assert loss == pytest.approx(min(job.monitor.valid_loss), rel=1e-5)


LAYERS = {
    "an activation first": lambda: [nn.Tanh(), Linear(4, 3)],
    "activations after each other": lambda: [Linear(4, 5), nn.Sigmoid(), nn.Tanh(), nn.ReLU(), Linear(5, 3)],
    "an activation of no effect between": lambda: [Linear(4, 5), nn.Tanh(), nn.Identity(), BatchNorm1d(5), Linear(5, 3)],
    "activations last": lambda: [Linear(4, 3), nn.Sigmoid(), nn.Tanh()],
    "linear layers after each other": lambda: [Linear(4, 5), Linear(5, 3)],
    "batch normalisation first and after an activation": lambda: [
        BatchNorm1d(4), Linear(4, 5), nn.ReLU(), BatchNorm1d(5), Linear(5, 3),
    ],
    "batch normalisation without a gain": lambda: [
        BatchNorm1d(4, affine=False), Linear(4, 5), nn.ReLU(), BatchNorm1d(5, affine=False), Linear(5, 3),
    ],
    "no bias": lambda: [Linear(4, 5, bias=False), nn.ELU(), Linear(5, 3, bias=False)],
}  # fmt: skip


@pytest.mark.parametrize("order", LAYERS)
@pytest.mark.parametrize("batch_size", [8, 37])
def test_layers_in_any_order(order, batch_size):
    job = make_job(batch_size=batch_size, n_outputs=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        job.module = FeedForward(*LAYERS[order]())
    job.optimizer = optim.SGD(job.module.parameters(), lr=0.05)
    X = job.train.X.clone()
    assert_same_as_loop(job)
    assert torch.equal(job.train.X, X)


def spoil(job, what):
    """Make a job one that trains alone."""
    if what == "a module of class Sequential":
        job.module = nn.Sequential(*job.module)
    elif what == "inputs that are not dense rows of float32":
        job.train.X = job.train.X.double()
    elif what == "a layer of class RReLU":
        job.module.activation_1 = nn.RReLU()
    elif what == "a layer that occurs twice":
        job.module = FeedForward(*[layer := Linear(4, 4), nn.Tanh(), layer])
    elif what == "batch normalisation with settings of its own":
        job.module = FeedForward(Linear(4, 4), BatchNorm1d(4, momentum=None), Linear(4, 3))
    elif what == "layers other than activations after the last linear one":
        job.module.append(Dropout(0.5))
    elif what == "weights that are not float32":
        job.module.hidden_1.double()
    elif what == "no weights that train":
        job.module.requires_grad_(False)
    elif what == "layers that are unfrozen while it trains":
        job.frozen, job.unfreeze_after = find_frozen(job.module, "hidden_1", "The model"), 2
    elif what == "the optimizer Adadelta":
        job.optimizer = optim.Adadelta(job.module.parameters())
    elif what == "optimizer settings of its own":
        job.optimizer = optim.Adam(job.module.parameters(), amsgrad=True)
    elif what == "an optimizer of other weights than the module's":
        job.optimizer = optim.SGD([job.module.output.weight], lr=0.1)
    elif what == "the criterion MSELoss":
        job.criterion = nn.MSELoss()
    elif what == "a criterion with tensors of its own":
        job.criterion = nn.BCEWithLogitsLoss(pos_weight=torch.ones(3), reduction="none")
    elif what == "targets that are not class numbers":
        job.criterion = nn.CrossEntropyLoss(reduction="none")
    elif what == "a schedule of the momentum":
        params = {"cycle_momentum": True}
        job.schedule = find_schedule("one_cycle", params, lr=0.1, n_epochs=3, n_batches=5, monitor="train_loss")


@pytest.mark.parametrize(
    "what",
    [
        "a module of class Sequential",
        "inputs that are not dense rows of float32",
        "a layer of class RReLU",
        "a layer that occurs twice",
        "batch normalisation with settings of its own",
        "layers other than activations after the last linear one",
        "weights that are not float32",
        "no weights that train",
        "layers that are unfrozen while it trains",
        "the optimizer Adadelta",
        "optimizer settings of its own",
        "an optimizer of other weights than the module's",
        "the criterion MSELoss",
        "a criterion with tensors of its own",
        "targets that are not class numbers",
        "a schedule of the momentum",
    ],
)
def test_who_cannot_be_stacked_says_why(what):
    job = make_job()
    spoil(job, what)
    assert why_not_stacked(job) == what


def test_what_is_kept_of_a_model_that_diverges_is_finite():
    """Also where the last step of an epoch went too far, which no loss of that epoch tells."""
    settings = {"criterion": "cross_entropy", "activation": "relu", "batch_norm": True, "batch_size": 37, "max_epochs": 20}
    jobs = [make_job(k, lr=10.0 ** (k / 4), **settings) for k in range(152)]
    train_stack(jobs)
    diverged = [job for job in jobs if job.error is not None]
    assert len(diverged) > 10 and all(isinstance(job.error, DivergedError) for job in diverged)
    for job in jobs:
        assert all(bool(torch.isfinite(p).all()) for p in job.module.parameters())


class Tripled(MLPModule):
    """With a forward pass of its own."""

    def forward(self, X, sample_weight=None):
        return 3 * super().forward(X, sample_weight)


def watch(module):
    module.register_forward_hook(lambda *_: None)


OWN_WAYS = {
    "forward": (lambda job: setattr(job, "module", Tripled(4, 3)), "a module of class Tripled"),
    "hook of the network": (lambda job: watch(job.module), "hooks"),
    "hook of a layer": (lambda job: job.module[0].register_forward_pre_hook(lambda *_: None), "hooks"),
    "hook of the criterion": (lambda job: watch(job.criterion), "hooks"),
    "hook of a weight": (lambda job: job.module[0].weight.register_hook(lambda g: g), "hooks"),
    "hook after a gradient": (
        lambda job: job.module[0].weight.register_post_accumulate_grad_hook(lambda *_: None), "hooks",
    ),
    "hook of the optimizer": (lambda job: job.optimizer.register_step_post_hook(lambda *_: None), "hooks"),
    "hook of gradients": (lambda job: job.module[0].register_full_backward_hook(lambda *_: None), "hooks"),
    "pruned": (lambda job: prune.random_unstructured(job.module[0], "weight", 0.5), "weights that are computed from others"),
    "tied": (lambda job: setattr(job.module[2], "bias", job.module[0].bias), "weights that layers share"),
}


@pytest.mark.parametrize("way", OWN_WAYS)
def test_who_computes_in_a_way_of_its_own_trains_alone(way):
    spoil, reason = OWN_WAYS[way]
    assert why_not_stacked(make_job(hidden=(3,), n_outputs=3)) is None
    job = make_job(hidden=(3,), n_outputs=3)
    with torch.random.fork_rng():
        spoil(job)
    assert why_not_stacked(job) == reason


@pytest.mark.parametrize("decoupled", [False, True])
def test_weight_decay_apart_from_the_gradient_is_that_of_adamw(decoupled):
    job = make_job(optimizer="adam")
    job.optimizer = optim.Adam(job.module.parameters(), weight_decay=0.1, decoupled_weight_decay=decoupled)
    assert why_not_stacked(job) == ("weight decay apart from the gradient" if decoupled else None)
    job.optimizer = optim.AdamW(job.module.parameters(), weight_decay=0.1)
    assert why_not_stacked(job) is None


@pytest.mark.parametrize("cycles", [None, False])
@pytest.mark.parametrize("policy", [optim.lr_scheduler.OneCycleLR, optim.lr_scheduler.CyclicLR, optim.lr_scheduler.StepLR])
def test_a_class_of_schedules_cycles_the_momentum_unless_told_not_to(policy, cycles):
    job = make_job()
    job.schedule = Schedule(policy, {} if cycles is None else {"cycle_momentum": cycles})
    by_default = policy is not optim.lr_scheduler.StepLR and cycles is None
    assert why_not_stacked(job) == ("a schedule of the momentum" if by_default else None)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"hidden": (6,)}, {"hidden": (7,)}),
        ({"activation": "relu"}, {"activation": "tanh"}),
        ({"criterion": "huber"}, {"criterion": "mse"}),
        ({"criterion": "cross_entropy"}, {"criterion": "cross_entropy, smoothed"}),
        ({"optimizer": "sgd"}, {"optimizer": "sgd, momentum"}),
        ({"batch_size": 8}, {"batch_size": 9}),
        ({"n_samples": 37}, {"n_samples": 80}),
        ({"max_grad_norm": 1.0}, {"max_grad_norm": None}),
        ({"batch_norm": True}, {"batch_norm": False}),
        ({"freeze": "hidden_1"}, {"freeze": "hidden_1.bias"}),
    ],
)
def test_what_differs_in_structure_is_not_of_one_group(one, other):
    assert group_key(make_job(1, **one)) == group_key(make_job(2, **one, lr=0.5, max_epochs=9, weighted=True, factor=0.1))
    assert group_key(make_job(**one)) != group_key(make_job(**other))


def test_a_cancelled_stack_stops():
    job = make_job(max_epochs=100_000)
    calls = iter(range(10**9))
    Stack([job], is_cancelled=lambda: next(calls) > 50).train()
    assert len(job.monitor.train_loss) < 100
