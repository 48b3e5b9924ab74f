"""Layers, losses and their gradients for many models at once, written out.

A stack of M models computes with tensors of shape (n_models, n_rows, n_features): one batched matrix product does the work
of M small ones. Each model's numbers are those it would compute alone, because a batched product computes each of its
products by itself: bit for bit where the sizes of layers and batches are multiples of the processor's vectors, to a last
bit or so where they are not. Gradients are written out by hand: for such layers autograd costs several times more than
the arithmetic.

The last linear layer puts the classes before the rows, (n_models, n_outputs, n_rows): a softmax over an axis of ten
entries that is not the last one runs ten times faster.

What surrounds an operation in Python takes as long as a small product. So a layer is not called with tensors: `bind` gives its
operations bound to those that they read and write, which are the same in step after step, and a step is a list of calls.
They run in torch's inference mode, where each costs 0.1 us less, unless a layer's `may_infer` is False: because it asks
autograd, or leaves others tensors, which autograd would refuse.

Shapes in comments: M models, N rows of a batch, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skpt.fusion import products
from skpt.fusion.rounding import times
from skpt.modules.layers import Affine, BatchNorm1d, Dropout, Linear
from skpt.training.criteria import row_losses, takes_class_index

__all__ = ["ELEMENTWISE", "StackedLoss", "stack_layer"]

_aten = torch.ops.aten


def _into(function: Callable, *arguments: str) -> Callable:
    """Bind an operation of torch that writes into `out`: to a layer's input, output and attributes."""
    return lambda layer, x, y: partial(function, x, *(getattr(layer, name) for name in arguments), out=y)


# class -> (forward(layer, x, y), backward(layer, g, x, y), whether y may be x). The first gives a call that computes y, of x or
# where y is already; the second one that makes g, the gradient with respect to y, that with respect to x.
ELEMENTWISE: dict[type[nn.Module], tuple[Callable, Callable, bool] | None] = {
    nn.Identity: (lambda layer, x, y: _nothing, lambda layer, g, x, y: _nothing, True),
    nn.ReLU: (
        lambda layer, x, y: partial(torch.relu_, y),
        lambda layer, g, x, y: partial(_aten.threshold_backward.grad_input, g, y, 0, grad_input=g),
        True,
    ),
    nn.Tanh: (
        lambda layer, x, y: _tanh(y),
        lambda layer, g, x, y: partial(_aten.tanh_backward.grad_input, g, y, grad_input=g),
        True,
    ),
    nn.Sigmoid: (
        lambda layer, x, y: partial(torch.sigmoid_, y),
        lambda layer, g, x, y: partial(_aten.sigmoid_backward.grad_input, g, y, grad_input=g),
        True,
    ),
    nn.LeakyReLU: (
        _into(_aten.leaky_relu.out, "negative_slope"),
        lambda layer, g, x, y: partial(
            _aten.leaky_relu_backward.grad_input, g, x, layer.negative_slope, False, grad_input=g
        ),
        False,
    ),
    nn.ELU: (
        _into(_aten.elu.out, "alpha"),
        lambda layer, g, x, y: partial(_aten.elu_backward.grad_input, g, layer.alpha, 1.0, 1.0, False, x, grad_input=g),
        False,
    ),
    nn.GELU: (
        lambda layer, x, y: partial(_aten.gelu.out, x, approximate=layer.approximate, out=y),
        lambda layer, g, x, y: partial(_aten.gelu_backward.grad_input, g, x, approximate=layer.approximate, grad_input=g),
        False,
    ),
    nn.SiLU: (
        _into(_aten.silu.out),
        lambda layer, g, x, y: partial(_aten.silu_backward.grad_input, g, x, grad_input=g),
        False,
    ),
    # These have no cheap gradient of their own in torch: autograd does them.
    nn.ReLU6: None,
    nn.SELU: None,
    nn.CELU: None,
    nn.Mish: None,
    nn.Hardswish: None,
    nn.Hardtanh: None,
    nn.Softsign: None,
    nn.Softplus: None,
}


def _nothing() -> None:
    pass


def _tanh(y: Tensor) -> Callable:
    """Bind the hyperbolic tangent, in place: by numpy, where it takes a tenth of the time of torch's, which is MKL's."""
    if y.device.type != "cpu":
        return partial(torch.tanh_, y)
    array = y.numpy()
    return partial(np.tanh, array, array)


class Rows:
    """What is known of the rows of a batch: their shares in the loss and in batch statistics.

    Attributes
    ----------
    loss_weight : float or Tensor of shape (M, 1, N)
        Weight of a row's loss, divided by the number of rows of its batch; zero for a row that only fills up.
    share : Tensor of shape (M, 1, N)
        Weight of a row in batch statistics; the shares of a model add up to one.
    n_rows : list of int
        Number of rows of each model that are real.
    """

    __slots__ = ("loss_weight", "n_rows", "share")

    def __init__(self, loss_weight: float | Tensor, share: Tensor | None, n_rows: list[int]):
        self.loss_weight, self.share, self.n_rows = loss_weight, share, n_rows


class Now:
    """What a bound step is told of its batch.

    Attributes
    ----------
    rows : Rows
        Of the batch that is trained on.
    """

    rows: Rows


class Bound(NamedTuple):
    """A layer's operations on one input.

    Attributes
    ----------
    y : Tensor
        Where the output is; the same for all inputs of one shape.
    forward : list of callable
        Compute it; calls without arguments.
    backward : callable
        Gives such calls for a gradient with respect to the output: they write the gradients of the weights and that of the
        input. And it gives where the latter is, perhaps in the same place, or None where nobody needs it.
    """

    y: Tensor
    forward: list[Callable[[], object]]
    backward: Callable[[Tensor], tuple[Tensor | None, list[Callable[[], object]]]]


class _Plan:
    """What a linear layer needs for batches of so many rows: memory, and who computes its three products."""

    __slots__ = ("gx", "of_input", "of_output", "of_weight", "out")

    def __init__(self, layer: StackedLinear, x: Tensor):
        n_models, n_rows, n_in = x.shape
        n_out = layer.weight.shape[1]
        self.out = x.new_empty((n_models, n_out, n_rows) if layer.last else (n_models, n_rows, n_out))
        self.gx = torch.empty_like(x) if layer.needs_input_grad else None
        self.of_output, self.of_weight, self.of_input = (
            products.choose(n_rows, n_in, n_out, x.device, transposed=second_is_transposed)
            for second_is_transposed in (layer.last or not layer.inputs_first, False, layer.inputs_first)
        )


class StackedLinear:
    """(M, N, I) to (M, N, O), or to (M, O, N) for the last one. What is frozen has no gradient."""

    may_infer = True

    def __init__(
        self, weight: Tensor, bias: Tensor | None, weight_grad: Tensor | None, bias_grad: Tensor | None, *, last: bool
    ):
        self.weight, self.weight_grad = weight, weight_grad  # (M, O, I)
        self.last = last
        as_rows = (lambda b: b.unsqueeze(2)) if last else (lambda b: b.unsqueeze(1))
        self.bias = None if bias is None else as_rows(bias)
        self.bias_grad = None if bias_grad is None else as_rows(bias_grad)
        self.needs_input_grad = True
        self.inputs_first = weight_grad is not None and weight_grad.stride(2) != 1  # in memory
        self._grad = None if weight_grad is None else weight_grad.transpose(1, 2) if self.inputs_first else weight_grad
        self._bmm_grad: Tensor | None = None  # batched products of torch that are not written side by side are slow
        self._plans: dict[int, _Plan] = {}  # by number of rows

    def bind(self, x: Tensor, now: Now) -> Bound:
        """Give the operations on an input."""
        if x.size(1) not in self._plans:
            self._plans[x.size(1)] = _Plan(self, x)
        plan = self._plans[x.size(1)]
        a, b = (self.weight, x.transpose(1, 2)) if self.last else (x, self.weight.transpose(1, 2))
        if plan.of_output == "numpy":
            calls = [_by_numpy(a, b, plan.out)]
            if self.bias is not None:
                calls.append(partial(plan.out.add_, self.bias))
        elif plan.of_output == "onednn":
            outs = plan.out.transpose(1, 2) if self.last else plan.out
            biases = [None] * len(x) if self.bias is None else self.bias.view(len(x), -1)  # never a copy
            calls = [partial(_by_onednn, list(zip(outs, x, self.weight, biases, strict=True)))]
        elif self.bias is None:
            calls = [partial(torch.bmm, a, b, out=plan.out)]
        else:
            calls = [partial(torch.baddbmm, self.bias, a, b, out=plan.out)]
        return Bound(plan.out, calls, partial(self._bind_backward, x, plan))

    def _bind_backward(self, x: Tensor, plan: _Plan, g: Tensor) -> tuple[Tensor | None, list[Callable]]:
        calls = [] if self.weight_grad is None else self._bind_weight_grad(x, plan, g)
        if self.bias_grad is not None:
            calls.append(partial(torch.sum, g, 2 if self.last else 1, keepdim=True, out=self.bias_grad))
        if not self.needs_input_grad:
            return None, calls
        of_rows = g.transpose(1, 2) if self.last else g
        if plan.of_input == "numpy":
            calls.append(_by_numpy(of_rows, self.weight, plan.gx))
        elif plan.of_input == "onednn":
            parts = [(gx, g_m, weight.t(), None) for gx, g_m, weight in zip(plan.gx, of_rows, self.weight, strict=True)]
            calls.append(partial(_by_onednn, parts))
        else:
            calls.append(partial(torch.bmm, of_rows, self.weight, out=plan.gx))
        return plan.gx, calls

    def _bind_weight_grad(self, x: Tensor, plan: _Plan, g: Tensor) -> list[Callable]:
        """Multiply gradients of the outputs by the inputs."""
        of_rows, of_outputs = (g.transpose(1, 2), g) if self.last else (g, g.transpose(1, 2))
        if plan.of_weight == "onednn":
            parts = list(zip(self.weight_grad, of_outputs, x.transpose(1, 2), strict=True))
            return [partial(_gradients_by_onednn, parts)]
        a, b = (x.transpose(1, 2), of_rows) if self.inputs_first else (of_outputs, x)
        if plan.of_weight == "numpy":
            return [_by_numpy(a, b, self._grad)]
        if self._bmm_grad is None:
            self._bmm_grad = self._grad if self._grad.is_contiguous() else self._grad.contiguous()
        calls = [partial(torch.bmm, a, b, out=self._bmm_grad)]
        return calls if self._bmm_grad is self._grad else [*calls, partial(self._grad.copy_, self._bmm_grad)]


def _by_numpy(a: Tensor, b: Tensor, out: Tensor) -> Callable:
    return partial(np.matmul, a.numpy(), b.numpy(), out.numpy())


def _by_onednn(parts: list[tuple[Tensor, Tensor, Tensor, Tensor | None]]) -> None:
    for out, x, weight, bias in parts:
        out.copy_(products.linear(x, weight, bias))


def _gradients_by_onednn(parts: list[tuple[Tensor, Tensor, Tensor]]) -> None:
    for grad, g, x_t in parts:
        grad.copy_(products.gradient_of_weight(g, x_t))


class _Outputs:
    """Where a layer leaves its outputs: in the same place for all inputs of one shape."""

    def __init__(self):
        self._by_shape: dict[torch.Size, Tensor] = {}

    def for_input(self, x: Tensor) -> Tensor:
        """Give memory of the shape of an input."""
        if x.shape not in self._by_shape:
            self._by_shape[x.shape] = torch.empty_like(x)
        return self._by_shape[x.shape]


class StackedActivation:
    """An elementwise function; its parameters are the same in all models.

    It may overwrite its input, unless that is what another activation gave and needs for its gradient, or the data. The
    last one's values are copied, because the loss may overwrite what it is given.
    """

    def __init__(self, layer: nn.Module, *, last: bool = False, after=None):
        self.layer, self.last = layer, last
        self.keeps_input = after is None or isinstance(after, StackedActivation)
        self.may_infer = ELEMENTWISE[type(layer)] is not None
        self._values, self._copies = _Outputs(), _Outputs()

    def bind(self, x: Tensor, now: Now) -> Bound:
        """Give the operations on an input."""
        written_out = ELEMENTWISE[type(self.layer)]
        if written_out is None:
            y = self._values.for_input(x)
            by_autograd = _ByAutograd(self.layer, x, y)
            calls, gradient = [by_autograd.forward], lambda layer, g, x, y: partial(by_autograd.backward, g)
        else:
            forward, gradient, in_place = written_out
            y = x if in_place and not self.keeps_input else self._values.for_input(x)
            calls = [partial(y.copy_, x)] if in_place and y is not x else []
            calls.append(forward(self.layer, x, y))
        out = self._copies.for_input(x) if self.last else y
        if self.last:
            calls.append(partial(out.copy_, y))
        return Bound(out, calls, lambda g: (g, [gradient(self.layer, g, x, y)]))


class _ByAutograd:
    """An elementwise function of x into y, and its gradient, by autograd."""

    def __init__(self, layer: nn.Module, x: Tensor, y: Tensor):
        self.layer, self.x, self.y = layer, x, y

    def forward(self) -> None:
        """Compute y."""
        with torch.enable_grad():
            self._input = self.x.detach().requires_grad_()
            self._output = self.layer(self._input.clone())
        self.y.copy_(self._output.detach())

    def backward(self, g: Tensor) -> None:
        """Make the gradient with respect to y that with respect to x, where it is."""
        g.copy_(torch.autograd.grad(self._output, self._input, g)[0])


class StackedAffine:
    """A fixed scale and offset of each model: of outputs (M, O, N) the shape (M, O, 1), of hidden units (M, N, I) (M, 1, I)."""

    may_infer = True

    def __init__(self, scale: Tensor, offset: Tensor):
        self.scale, self.offset, self._values = scale, offset, _Outputs()

    @classmethod
    def from_layers(cls, layers: list[Affine]) -> StackedAffine:
        """Take the models' layers after the last linear one."""
        return cls(*(torch.stack([getattr(layer, name) for layer in layers]).unsqueeze(2) for name in ("scale", "offset")))

    @classmethod
    def from_norms(cls, layers: list[BatchNorm1d]) -> StackedAffine:
        """Take the models' layers of frozen batch normalisation: by running statistics it is a scale and an offset."""
        scales = [torch.rsqrt(layer.running_var + layer.eps) for layer in layers]
        if layers[0].affine:
            scales = [layer.weight.detach() * scale for layer, scale in zip(layers, scales, strict=True)]
        offsets = [-layer.running_mean * scale for layer, scale in zip(layers, scales, strict=True)]
        if layers[0].affine:
            offsets = [layer.bias.detach() + offset for layer, offset in zip(layers, offsets, strict=True)]
        return cls(torch.stack(scales).unsqueeze(1), torch.stack(offsets).unsqueeze(1))

    def bind(self, x: Tensor, now: Now) -> Bound:
        """Give the operations on an input."""
        y = self._values.for_input(x)
        calls = [partial(torch.addcmul, self.offset, x, self.scale, out=y)]
        return Bound(y, calls, lambda g: (g, [partial(g.mul_, self.scale)]))


class StackedDropout:
    """Dropout whose masks each model draws from its own generator, at its own rate."""

    may_infer = False  # a model's layer may draw masks for several batches, and keep them

    def __init__(self, layers: list[Dropout]):
        self.layers = layers
        self.live = [(m, layer) for m, layer in enumerate(layers) if layer.p]
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}

    def bind(self, x: Tensor, now: Now) -> Bound:
        """Give the operations on an input."""
        n_rows = x.shape[1]
        if n_rows not in self._masks:
            self._masks[n_rows] = torch.ones_like(x), torch.empty_like(x)
        mask, y = self._masks[n_rows]
        calls = [partial(self._draw, mask, now), partial(torch.mul, x, mask, out=y)]
        return Bound(y, calls, lambda g: (g, [partial(g.mul_, mask)]))

    def _draw(self, mask: Tensor, now: Now) -> None:
        """Draw a batch's masks."""
        for m, layer in self.live:
            n_real = now.rows.n_rows[m]
            mask[m, :n_real] = layer.next_mask((n_real, mask.shape[2]), mask.device)


class StackedBatchNorm:
    """Batch normalisation by weighted statistics; see `skpt.modules.BatchNorm1d`."""

    may_infer = True

    def __init__(
        self, layers: list[BatchNorm1d], weight: Tensor, bias: Tensor, weight_grad: Tensor | None, bias_grad: Tensor | None
    ):
        self.layers = layers
        self.weight, self.bias = weight.unsqueeze(1), bias.unsqueeze(1)  # (M, 1, I)
        # The gradient of the input needs both, also where the weights are frozen.
        self.weight_grad, self.bias_grad = (
            (torch.empty_like(weight) if grad is None else grad).unsqueeze(1) for grad in (weight_grad, bias_grad)
        )
        self.running_mean = torch.stack([layer.running_mean for layer in layers]).unsqueeze(1)
        self.running_var = torch.stack([layer.running_var for layer in layers]).unsqueeze(1)
        self.n_batches = [int(layer.num_batches_tracked) for layer in layers]
        self._values = _Outputs()
        self.eps, self.momentum = layers[0].eps, layers[0].momentum

    def bind(self, x: Tensor, now: Now) -> Bound:
        """Give the operations on an input."""
        y = self._values.for_input(x)
        return Bound(y, [partial(self._normalise, x, y, now)], lambda g: (g, [partial(self._differentiate, g, now)]))

    def _normalise(self, x: Tensor, y: Tensor, now: Now) -> None:
        """Normalise x into y and take note of the statistics."""
        rows = now.rows
        mean = torch.bmm(rows.share, x)
        centred = x - mean
        var = torch.bmm(rows.share, centred.square())
        self.inverse = torch.rsqrt(var + self.eps)
        self.normalised = centred.mul_(self.inverse)
        for m, n in enumerate(rows.n_rows):
            if n > 1:
                self.running_mean[m].lerp_(mean[m], self.momentum)
                self.running_var[m].lerp_(var[m] * (n / (n - 1)), self.momentum)
                self.n_batches[m] += 1
        torch.addcmul(self.bias, self.normalised, self.weight, out=y)

    def _differentiate(self, g: Tensor, now: Now) -> None:
        """Write the gradients of scale and shift; make that of the output that of the input, where it is."""
        torch.sum(g, 1, keepdim=True, out=self.bias_grad)
        torch.sum(g * self.normalised, 1, keepdim=True, out=self.weight_grad)
        pull = now.rows.share.transpose(1, 2) * (self.bias_grad + self.normalised * self.weight_grad)
        g.sub_(pull).mul_(self.weight * self.inverse)

    def store(self, m: int) -> None:
        """Give model m's layer its running statistics back."""
        layer = self.layers[m]
        layer.running_mean.copy_(self.running_mean[m, 0])
        layer.running_var.copy_(self.running_var[m, 0])
        layer.num_batches_tracked.fill_(self.n_batches[m])

    def buffers(self) -> list[Tensor]:
        """Give what changes and is no weight."""
        return [self.running_mean, self.running_var]


def stack_layer(
    layers: list[nn.Module], blocks: list[tuple[Tensor, Tensor | None]], *, last: bool, after=None, still: bool = False
):
    """Make one stacked layer of the models' layers of one position.

    Parameters
    ----------
    layers : list of nn.Module
        One of each model, all of the same class and shape.
    blocks : list of (Tensor, Tensor or None)
        Weights and gradients of each parameter, models first; no gradients of what is frozen.
    last : bool
        Whether it is the last linear layer, or follows it.
    after : object, default=None
        The stacked layer before it. None for the first.
    still : bool, default=False
        Whether running statistics are frozen.

    Returns
    -------
    object
        With `bind(x, now)`, which gives a `Bound`, and `may_infer`.
    """
    layer = layers[0]
    if isinstance(layer, Linear):
        (weight, weight_grad), *rest = blocks
        bias, bias_grad = rest[0] if rest else (None, None)
        return StackedLinear(weight, bias, weight_grad, bias_grad, last=last)
    if isinstance(layer, BatchNorm1d):
        if still:
            return StackedAffine.from_norms(layers)
        if not blocks:
            one = torch.stack([torch.ones_like(layer.running_mean) for layer in layers])
            blocks = [(one, None), (torch.zeros_like(one), None)]
        (weight, weight_grad), (bias, bias_grad) = blocks
        return StackedBatchNorm(layers, weight, bias, weight_grad, bias_grad)
    if isinstance(layer, Dropout):
        return StackedDropout(layers)
    if isinstance(layer, Affine):
        return StackedAffine.from_layers(layers)
    return StackedActivation(layer, last=last, after=after)


class StackedLoss:
    """The criterion of all models for some batches, and its gradients with respect to outputs of shape (M, O, N).

    What can wait is done for all batches at once: first `begin`, then what `bind` gives for each, then `end`.

    Parameters
    ----------
    criterion : nn.Module
        One of torch's, with losses by row.
    n_outputs : int
        Outputs of each model.
    """

    def __init__(self, criterion: nn.Module, n_outputs: int):
        self.criterion, self.n_outputs = criterion, n_outputs
        self.takes_class_index = takes_class_index(criterion)
        self._compute = {
            nn.MSELoss: self._mse,
            nn.L1Loss: self._l1,
            nn.HuberLoss: self._huber,
            nn.SmoothL1Loss: self._smooth_l1,
        }.get(type(criterion), self._autograd)
        if type(criterion) is nn.BCEWithLogitsLoss and _is_plain(criterion):
            self._compute = self._bce
        self.keeps_outputs = type(criterion) is nn.CrossEntropyLoss and _is_plain(criterion)
        self.may_infer = self.keeps_outputs or self._compute != self._autograd
        self._all_targets: Tensor | None = None
        self._weights: list[float] | list[Tensor] = []
        self._buffers: dict[tuple[int, ...], tuple[Tensor, tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]] = {}
        self._softmaxes: dict[tuple[int, ...], _Softmaxes] = {}

    def begin(self, targets: Tensor, weights: list[float] | list[Tensor]) -> None:
        """Take the targets of some batches.

        Parameters
        ----------
        targets : Tensor of shape (n_batches, M, N) or (n_batches, M, O, N)
            Class numbers or numbers.
        weights : list of float, or of Tensor of shape (M, 1, N)
            The rows' weights in each batch.
        """
        if targets is self._all_targets and all(a is b for a, b in zip(weights, self._weights, strict=True)):
            return  # the one batch that there is
        self._weights, self._all_targets = weights, targets
        n_batches, n_models, n_rows = len(targets), targets.shape[1], targets.shape[-1]
        shape = n_batches, n_models, self.n_outputs, n_rows
        if shape not in self._buffers:
            kept, losses = (torch.empty(size, device=targets.device) for size in (shape, (n_batches, n_models, n_rows)))
            self._buffers[shape] = kept, kept.unbind(), losses, losses.unbind()
        self._kept, self._kept_of, self._losses, self._losses_of = self._buffers[shape]
        if self.keeps_outputs:
            if shape not in self._softmaxes:
                self._softmaxes[shape] = _Softmaxes(shape, targets.device)
            self._softmax = self._softmaxes[shape]
            self._softmax.begin(targets, weights)
        else:
            self._targets = targets.unbind()

    def bind(self, i: int, outputs: Tensor) -> tuple[Tensor, list[Callable]]:
        """Give the operations that compute the gradient of the weighted sum of the losses of a batch.

        Parameters
        ----------
        i : int
            Which of the batches that were begun with, or of as many others of that size that will be.
        outputs : Tensor of shape (M, O, N)
            Where the models leave what they give. It may be overwritten.

        Returns
        -------
        gradient : Tensor of shape (M, O, N)
            Where that with respect to the outputs is then.
        calls : list of callable
            Without arguments.
        """
        if self.keeps_outputs:
            return self._softmax.bind(i, outputs, self._kept_of[i])
        return outputs, [partial(self._differentiate, i, outputs)]

    def _differentiate(self, i: int, outputs: Tensor) -> None:
        self._compute(i, outputs, self._weights[i])

    def end(self, out: Tensor) -> None:
        """Write the models' mean losses in each batch.

        Parameters
        ----------
        out : Tensor of shape (n_batches, M)
            Where to.
        """
        if self.keeps_outputs:
            self._softmax.write_losses(self._kept, self._all_targets, self._losses)
        elif self._compute == self._mse and self.n_outputs == 1:
            torch.square(self._kept[:, :, 0], out=self._losses)
        elif self._compute == self._mse:
            torch.mean(self._kept.square(), 2, out=self._losses)
        weight = self._weights[0]
        if isinstance(weight, Tensor):
            weight = torch.stack(self._weights)[:, :, 0]
        torch.sum(self._losses * weight, 2, out=out)

    def _mse(self, i, outputs, weight):
        residual = torch.sub(outputs, self._targets[i], out=self._kept_of[i])
        torch.mul(residual, times(weight, 2.0 / self.n_outputs), out=outputs)

    def _l1(self, i, outputs, weight):
        g = outputs.sub_(self._targets[i])
        torch.mean(g.abs(), 1, out=self._losses_of[i])
        g.sign_().mul_(times(weight, 1.0 / self.n_outputs))

    def _huber(self, i, outputs, weight):
        delta, targets = self.criterion.delta, self._targets[i]
        torch.mean(F.huber_loss(outputs, targets, reduction="none", delta=delta), 1, out=self._losses_of[i])
        outputs.sub_(targets).clamp_(-delta, delta).mul_(times(weight, 1.0 / self.n_outputs))

    def _smooth_l1(self, i, outputs, weight):
        beta, targets = self.criterion.beta, self._targets[i]
        torch.mean(F.smooth_l1_loss(outputs, targets, reduction="none", beta=beta), 1, out=self._losses_of[i])
        g = outputs.sub_(targets)
        g = g.sign_() if beta == 0 else g.div_(beta).clamp_(-1.0, 1.0)
        g.mul_(times(weight, 1.0 / self.n_outputs))

    def _bce(self, i, outputs, weight):
        losses = F.binary_cross_entropy_with_logits(outputs, self._targets[i], reduction="none")
        torch.mean(losses, 1, out=self._losses_of[i])
        outputs.sigmoid_().sub_(self._targets[i]).mul_(times(weight, 1.0 / self.n_outputs))

    def _autograd(self, i, outputs, weight):
        n_models, n_outputs, n_rows = outputs.shape
        flat = self._targets[i] if self.takes_class_index else self._targets[i].transpose(1, 2)
        targets = flat.reshape(-1, *flat.shape[2:])
        with torch.enable_grad():
            given = outputs.detach().requires_grad_()
            by_row = row_losses(self.criterion, given.transpose(1, 2).reshape(-1, n_outputs), targets)
            by_row = by_row.view(n_models, 1, n_rows)
            (g,) = torch.autograd.grad((by_row * weight).sum(), given)
        self._losses_of[i].copy_(by_row.detach()[:, 0])
        outputs.copy_(g)


# Probabilities whose logarithm is taken of the outputs: they have lost digits, or all.
_IMPROBABLE = 1e-30


class _Softmaxes:
    """The probabilities of the classes in some batches, the cross-entropy by them and its gradients.

    Parameters
    ----------
    shape : tuple of int
        Batches, models, outputs, rows.
    device : torch.device
        Where all is.
    """

    def __init__(self, shape: tuple[int, int, int, int], device: torch.device):
        n_batches, n_models, n_outputs, n_rows = shape
        self._p, self._pull, self._g = (torch.empty(size, device=device) for size in (shape, shape, shape[1:]))
        self._p_of, self._pull_of = self._p.unbind(), self._pull.unbind()
        firsts = n_outputs * n_rows * torch.arange(n_batches * n_models, device=device).view(n_batches, n_models, 1)
        self._first_places = firsts + torch.arange(n_rows, device=device)  # of the first class in the tensors
        self._n_rows = n_rows
        self._is_on_cpu = device.type == "cpu"
        self._weights: list[float] | list[Tensor] = []

    def begin(self, targets: Tensor, weights: list[float] | list[Tensor]) -> None:
        """Take the class numbers (n_batches, M, N) of some batches, and what a row weighs in each, a number or (M, 1, N)."""
        self._weights = weights
        self._places = torch.add(self._first_places, targets, alpha=self._n_rows).view(-1)
        if isinstance(weights[0], Tensor):
            pulls = torch.stack(weights).view(-1).neg_()
        else:
            pulls = self._p.new_full((len(self._places),), -weights[0])
        self._pull.zero_().view(-1).scatter_(0, self._places, pulls)  # torch takes three times as long for one number

    def bind(self, i: int, outputs: Tensor, kept: Tensor) -> tuple[Tensor, list[Callable]]:
        """Give where the gradient of the weighted sum of the losses is, (M, O, N), and the calls that compute it.

        The outputs (M, O, N) of the batch are kept.
        """
        p, pull, g, weight = self._p_of[i], self._pull_of[i], self._g, self._weights[i]
        softmax = partial(torch.softmax, outputs, 1, out=p)
        # Two roundings, whether the weights are one number, which is the same for all batches, or each row has its own.
        if isinstance(weight, Tensor) or not self._is_on_cpu:
            return g, [partial(kept.copy_, outputs), softmax, partial(self._weigh, i), partial(g.add_, pull)]
        array = g.numpy()  # torch takes three times as long for one number
        weigh = partial(np.multiply, p.numpy(), np.float32(weight), array)
        keep = partial(np.copyto, kept.numpy(), outputs.numpy())
        return g, [keep, softmax, weigh, partial(np.add, array, pull.numpy(), array)]

    def _weigh(self, i: int) -> None:
        torch.mul(self._p_of[i], self._weights[i], out=self._g)

    def write_losses(self, outputs: Tensor, targets: Tensor, out: Tensor) -> None:
        """Write the rows' losses (n_batches, M, N), by the outputs (n_batches, M, O, N) that gradients were asked for."""
        p = self._p.view(-1).index_select(0, self._places).view_as(out)
        torch.log(p, out=out).neg_()
        if not p.amin().item() >= _IMPROBABLE:
            exact = torch.log_softmax(outputs, 2).gather(2, targets.unsqueeze(2))[:, :, 0].neg_()
            torch.where(p >= _IMPROBABLE, out, exact, out=out)


def _is_plain(criterion: nn.Module) -> bool:
    """Whether the criterion has torch's default arguments."""
    fresh = type(criterion)(reduction="none")
    return vars(fresh).keys() == vars(criterion).keys() and all(
        getattr(criterion, name, None) == getattr(fresh, name, None)
        for name in ("weight", "pos_weight", "ignore_index", "label_smoothing", "reduction")
    )
