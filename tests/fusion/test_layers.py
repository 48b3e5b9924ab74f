"""Gradients that are written out by hand against those of autograd, for every layer, activation and loss, of any shape."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skpt.fusion.layers import ELEMENTWISE, Rows, StackedLoss, stack_layer
from skpt.modules.layers import Affine, BatchNorm1d, Dropout, Linear
from skpt.training.criteria import build_criterion, row_losses, takes_class_index
from tests.fusion.comparison import run_backward, run_forward

sizes = {
    "n_models": st.integers(1, 4),
    "n_rows": st.integers(1, 9),
    "n_in": st.integers(1, 7),
    "seed": st.integers(0, 100),
}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stacked(layers: list[nn.Module], *, last: bool = False):
    """The layers as one, and the gradients that it will write: one list for each model."""
    parameters = [list(layer.parameters()) for layer in layers]
    blocks = [torch.stack([p.detach() for p in same], 0) for same in zip(*parameters, strict=True)]
    grads = [torch.full_like(block, torch.nan) for block in blocks]
    layer = stack_layer(layers, list(zip(blocks, grads, strict=True)), last=last)
    return layer, [[grad[m] for grad in grads] for m in range(len(layers))]


def assert_same_as_alone(layers, layer, grads, x, rows, call, *, last=False):
    """Outputs, gradients of the input and of the weights: of the stack, and of each model by autograd."""
    alone = copy.deepcopy(layers)
    for each, own in zip(alone, layers, strict=True):
        if isinstance(each, Dropout):
            each.generator = generator(own.generator.initial_seed())
    bound = run_forward(layer, x.clone(), rows)
    outputs = bound.y.clone()
    direction = torch.randn(outputs.shape, generator=generator(1))
    gradient = run_backward(bound, direction.clone())
    for m, each in enumerate(alone):
        inputs = x[m].clone().requires_grad_()
        expected = call(m, each, inputs)
        axes = (lambda t: t.T) if last else (lambda t: t)
        torch.testing.assert_close(outputs[m], axes(expected), **TOLERANCE)
        (axes(expected) * direction[m]).sum().backward()
        torch.testing.assert_close(gradient[m], inputs.grad, **TOLERANCE)
        for ours, p in zip(grads[m], each.parameters(), strict=True):
            torch.testing.assert_close(ours, p.grad, **TOLERANCE)
    return alone


@given(n_out=st.integers(1, 6), bias=st.booleans(), last=st.booleans(), **sizes)
def test_linear(n_models, n_rows, n_in, n_out, bias, last, seed):
    layers = [Linear(n_in, n_out, bias, generator=generator(seed + m)) for m in range(n_models)]
    layer, grads = stacked(layers, last=last)
    for n in (n_rows, n_rows + 1, n_rows):  # buffers are kept for each number of rows
        x = torch.randn(n_models, n, n_in, generator=generator(seed + n))
        rows = Rows(1 / n, None, [n] * n_models)
        assert_same_as_alone(layers, layer, grads, x, rows, lambda m, alone, inputs: alone(inputs), last=last)


def test_the_first_layer_needs_no_gradient_of_its_input():
    layer, _ = stacked([Linear(3, 2, generator=generator(0))])
    layer.needs_input_grad = False
    bound = run_forward(layer, torch.ones(1, 4, 3), Rows(0.25, None, [4]))
    assert run_backward(bound, torch.ones(1, 4, 2)) is None


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("last", [False, True])
@given(**sizes)
def test_activations(activation, last, n_models, n_rows, n_in, seed):
    layers = [activation() for _ in range(n_models)]
    layer, grads = stacked(layers, last=last)
    x = 3 * torch.randn(n_models, n_rows, n_in, generator=generator(seed))
    rows = Rows(1 / n_rows, None, [n_rows] * n_models)
    assert_same_as_alone(layers, layer, grads, x, rows, lambda m, alone, inputs: alone(inputs))


@pytest.mark.parametrize("activation", ELEMENTWISE, ids=lambda cls: cls.__name__)
def test_a_loss_may_overwrite_what_the_last_activation_gave(activation):
    """StackedLoss does; the activation's gradient must not change with it."""
    x, g = torch.randn(2, 3, 4, generator=generator(0)), torch.ones(2, 3, 4)
    rows = Rows(0.25, None, [4, 4])
    gradients = []
    for overwrite in (False, True):
        layer, _ = stacked([activation(), activation()], last=True)
        bound = run_forward(layer, x.clone(), rows)
        if overwrite:
            bound.y.fill_(7.0)
        gradients.append(run_backward(bound, g.clone()))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


@pytest.mark.parametrize(
    "activation", [nn.LeakyReLU(0.3), nn.ELU(0.5), nn.GELU("tanh"), nn.Softplus(2.0), nn.Hardtanh(-0.5, 2.0)], ids=repr
)
def test_activations_with_arguments(activation):
    layer, grads = stacked([activation, copy.deepcopy(activation)])
    x = 3 * torch.randn(2, 5, 3, generator=generator(0))
    call = lambda m, alone, inputs: alone(inputs)  # noqa: E731
    assert_same_as_alone([activation] * 2, layer, grads, x, Rows(0.2, None, [5, 5]), call)


@given(p=st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9]), min_size=4, max_size=4), **sizes)
def test_dropout_at_rates_of_their_own(p, n_models, n_rows, n_in, seed):
    layers = [Dropout(p[m], generator(seed + m)) for m in range(n_models)]
    layer, grads = stacked(layers)
    x = torch.randn(n_models, n_rows, n_in, generator=generator(seed))
    rows = Rows(1 / n_rows, None, [n_rows] * n_models)
    assert_same_as_alone(layers, layer, grads, x, rows, lambda m, alone, inputs: alone(inputs))


def test_a_model_with_fewer_rows_draws_masks_for_its_own_alone():
    layers = [Dropout(0.5, generator(m)) for m in range(2)]
    layer, _ = stacked(layers)
    x = torch.ones(2, 8, 3)
    for _ in range(3):
        outputs = run_forward(layer, x, Rows(0.2, None, [8, 5])).y
    alone = Dropout(0.5, generator(1))
    for _ in range(3):
        expected = alone(x[1, :5])
    torch.testing.assert_close(outputs[1, :5], expected)


# Of two rows the gradient of the input is all but zero: rounding.
@given(weighted=st.booleans(), affine=st.booleans(), **{**sizes, "n_rows": st.sampled_from([1, 3, 5, 8, 9])})
def test_batch_normalisation(weighted, affine, n_models, n_rows, n_in, seed):
    layers = [BatchNorm1d(n_in, affine=affine) for _ in range(n_models)]
    for m, layer in enumerate(layers if affine else ()):
        nn.init.uniform_(layer.weight, 0.5, 2, generator=generator(seed + m))
        nn.init.uniform_(layer.bias, generator=generator(seed + m))
    before = copy.deepcopy(layers)
    layer, grads = stacked(layers)
    weight = torch.rand(n_models, n_rows, generator=generator(seed)) + 0.1 if weighted else torch.ones(n_models, n_rows)
    share = (weight / weight.sum(1, keepdim=True)).unsqueeze(1)
    rows = Rows(share, share, [n_rows] * n_models)
    x = 3 + 2 * torch.randn(n_models, n_rows, n_in, generator=generator(seed))
    call = lambda m, alone, inputs: alone(inputs, weight[m])  # noqa: E731
    alone = assert_same_as_alone(before, layer, grads, x, rows, call)
    for m, each in enumerate(alone):
        layer.store(m)
        for name, value in each.state_dict().items():
            torch.testing.assert_close(layers[m].state_dict()[name], value, **TOLERANCE)


@given(affine=st.booleans(), **sizes)
def test_frozen_batch_normalisation(affine, n_models, n_rows, n_in, seed):
    """By running statistics, which stay."""
    layers = [BatchNorm1d(n_in, affine=affine) for _ in range(n_models)]
    for m, layer in enumerate(layers):
        for tensor in layer.state_dict().values():
            if tensor.is_floating_point():
                nn.init.uniform_(tensor, 0.5, 2, generator=generator(seed + m))
    layer = stack_layer(layers, [], last=False, still=True)
    rows = Rows(1 / n_rows, None, [n_rows] * n_models)
    x = 3 + 2 * torch.randn(n_models, n_rows, n_in, generator=generator(seed))
    bound, direction = run_forward(layer, x, rows), torch.randn(x.shape, generator=generator(1))
    outputs, gradient = bound.y, run_backward(bound, direction.clone())
    for m, alone in enumerate(layers):
        inputs = x[m].clone().requires_grad_()
        expected = alone.eval()(inputs)
        (expected * direction[m]).sum().backward()
        torch.testing.assert_close(outputs[m], expected, **TOLERANCE)
        torch.testing.assert_close(gradient[m], inputs.grad, **TOLERANCE)


def test_rows_that_fill_up_do_not_enter_the_statistics():
    """A batch of five rows, filled up to eight."""
    layers = [BatchNorm1d(3), BatchNorm1d(3)]
    alone = copy.deepcopy(layers[1])
    layer, grads = stacked(layers)
    x = torch.randn(2, 8, 3, generator=generator(0))
    share = torch.zeros(2, 1, 8)
    share[0], share[1, :, :5] = 1 / 8, 1 / 5
    bound = run_forward(layer, x, Rows(share, share, [8, 5]))
    inputs = x[1, :5].clone().requires_grad_()
    expected = alone(inputs)
    torch.testing.assert_close(bound.y[1, :5], expected, **TOLERANCE)
    g = torch.randn(2, 8, 3, generator=generator(1))
    g[1, 5:] = 0  # their loss has no weight
    (expected * g[1, :5]).sum().backward()
    torch.testing.assert_close(run_backward(bound, g.clone())[1, :5], inputs.grad, **TOLERANCE)
    torch.testing.assert_close(grads[1], [alone.weight.grad, alone.bias.grad], **TOLERANCE)
    layer.store(1)
    torch.testing.assert_close(layers[1].running_var, alone.running_var, **TOLERANCE)


@given(**sizes)
def test_units_of_the_target(n_models, n_rows, n_in, seed):
    random = generator(seed)
    layers = [Affine(torch.rand(n_in, generator=random) + 0.5, torch.randn(n_in, generator=random)) for _ in range(n_models)]
    layer, grads = stacked(layers, last=True)
    x = torch.randn(n_models, n_in, n_rows, generator=random)
    rows = Rows(1.0, None, [n_rows] * n_models)
    assert_same_as_alone(layers, layer, grads, x, rows, lambda m, alone, inputs: alone(inputs.T).T)


LOSSES = {
    "mse": (nn.MSELoss, {}),
    "l1": (nn.L1Loss, {}),
    "huber": (nn.HuberLoss, {"delta": 0.7}),
    "smooth_l1": (nn.SmoothL1Loss, {"beta": 0.3}),
    "smooth_l1, beta 0": (nn.SmoothL1Loss, {"beta": 0.0}),
    "poisson_nll": (nn.PoissonNLLLoss, {}),
    "poisson_nll, full": (nn.PoissonNLLLoss, {"full": True, "log_input": True}),
    "cross_entropy": (nn.CrossEntropyLoss, {}),
    "cross_entropy, smoothed": (nn.CrossEntropyLoss, {"label_smoothing": 0.2}),
    "cross_entropy, ignoring": (nn.CrossEntropyLoss, {"ignore_index": 0}),
    "multi_margin": (nn.MultiMarginLoss, {"margin": 0.5}),
    "nll": (nn.NLLLoss, {}),
    "bce": (nn.BCEWithLogitsLoss, {}),
    "bce, weighted": (nn.BCEWithLogitsLoss, {"pos_weight": torch.tensor(3.0)}),
    "bce of probabilities": (nn.BCELoss, {}),
    "multilabel_soft_margin": (nn.MultiLabelSoftMarginLoss, {}),
}


def differentiate(loss, i, outputs):
    """The gradient of a batch's loss with respect to its outputs."""
    g, calls = loss.bind(i, outputs)
    for call in calls:
        call()
    return g


@pytest.mark.parametrize("gap", [0.0, 50.0, 69.0, 80.0, 1e3, 1e30, float("inf"), float("nan")])
def test_cross_entropy_of_what_is_all_but_impossible(gap):
    """Where the probability of a row's class is zero to single precision, its loss is not infinite, whoever is beside it."""
    loss = StackedLoss(build_criterion(nn.CrossEntropyLoss, {}), 3)
    outputs = torch.randn(1, 2, 3, 4, generator=generator(0))
    outputs[0, 1, 0] += gap
    targets = torch.ones(1, 2, 4, dtype=torch.long)
    loss.begin(targets, [0.25])
    differentiate(loss, 0, outputs[0].clone())
    means = torch.empty(1, 2)
    loss.end(means)
    expected = nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(0, 1), reduction="none").mean(1)
    torch.testing.assert_close(means[0], expected, equal_nan=True)


@pytest.mark.parametrize("name", LOSSES)
@given(weighted=st.booleans(), n_out=st.integers(1, 5), **{name: sizes[name] for name in ("n_models", "n_rows", "seed")})
def test_losses(name, weighted, n_models, n_rows, n_out, seed):
    cls, arguments = LOSSES[name]
    criterion = build_criterion(cls, arguments)
    n_out = max(2, n_out) if takes_class_index(criterion) else n_out
    loss = StackedLoss(criterion, n_out)
    random = generator(seed)
    for n_batches in (1, 3, 3):  # buffers are kept for each number of batches
        outputs = 2 * torch.randn(n_batches, n_models, n_out, n_rows, generator=random)
        if loss.takes_class_index:
            targets = torch.randint(n_out, (n_batches, n_models, n_rows), generator=random)
        elif cls in (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss):
            targets = torch.randn(outputs.shape, generator=random)
        else:
            targets = torch.randint(2, outputs.shape, generator=random).float()
        weights = [1 / n_rows] * n_batches
        if weighted:
            weights = list(torch.rand(n_batches, n_models, 1, n_rows, generator=random) / n_rows)
        loss.begin(targets, weights)
        gradients = []
        for i in range(n_batches):
            gradients.append(differentiate(loss, i, outputs[i].clone()).clone())
        means = torch.full((n_batches, n_models), torch.nan)
        loss.end(means)
        for i in range(n_batches):
            for m in range(n_models):
                inputs = outputs[i, m].T.clone().requires_grad_()
                of_model = targets[i, m] if loss.takes_class_index else targets[i, m].T
                losses = row_losses(criterion, inputs, of_model)
                expected = (losses * (weights[i][m, 0] if weighted else weights[i])).sum()
                torch.testing.assert_close(means[i, m], expected.detach(), **TOLERANCE)
                expected.backward()
                torch.testing.assert_close(gradients[i][m], inputs.grad.T, **TOLERANCE)
