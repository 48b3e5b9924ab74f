"""Layers, losses and their gradients for many models at once, written out.

A stack of M models computes with tensors of shape (n_models, n_rows, n_features): one batched matrix product does the work
of M small ones. Each model's numbers are those it would compute alone, because a batched product computes each of its
products by itself: bit for bit where the sizes of layers and batches are multiples of the processor's vectors, to a last
bit or so where they are not. Gradients are written out by hand: for such layers autograd costs several times more than
the arithmetic.

The last linear layer puts the classes before the rows, (n_models, n_outputs, n_rows): a softmax over an axis of ten
entries that is not the last one runs ten times faster.

Shapes in comments: M models, N rows of a batch, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import TypeVar

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

T = TypeVar("T")


def _in_place(function: Callable[[Tensor], Tensor]):
    return lambda layer, x: function(x)


# class -> (forward(layer, x), backward(layer, gradient, x, y)). `x` may be overwritten where backward only reads y.
ELEMENTWISE: dict[type[nn.Module], tuple[Callable, Callable] | None] = {
    nn.Identity: (lambda layer, x: x, lambda layer, g, x, y: g),
    nn.ReLU: (_in_place(torch.relu_), lambda layer, g, x, y: _aten.threshold_backward.grad_input(g, y, 0, grad_input=g)),
    nn.Tanh: (_in_place(torch.tanh_), lambda layer, g, x, y: _aten.tanh_backward.grad_input(g, y, grad_input=g)),
    nn.Sigmoid: (_in_place(torch.sigmoid_), lambda layer, g, x, y: _aten.sigmoid_backward.grad_input(g, y, grad_input=g)),
    nn.LeakyReLU: (
        lambda layer, x: F.leaky_relu(x, layer.negative_slope),
        lambda layer, g, x, y: _aten.leaky_relu_backward(g, x, layer.negative_slope, False),
    ),
    nn.ELU: (
        lambda layer, x: F.elu(x, layer.alpha),
        lambda layer, g, x, y: _aten.elu_backward(g, layer.alpha, 1.0, 1.0, False, x),
    ),
    nn.GELU: (
        lambda layer, x: F.gelu(x, approximate=layer.approximate),
        lambda layer, g, x, y: _aten.gelu_backward(g, x, approximate=layer.approximate),
    ),
    nn.SiLU: (lambda layer, x: F.silu(x), lambda layer, g, x, y: _aten.silu_backward(g, x)),
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


class _Plan:
    """What a linear layer needs for batches of so many rows: memory, and who computes its three products."""

    __slots__ = ("gx", "gx_array", "of_input", "of_output", "of_weight", "out", "out_array")

    def __init__(self, layer: StackedLinear, x: Tensor):
        n_models, n_rows, n_in = x.shape
        n_out = layer.weight.shape[1]
        self.out = x.new_empty((n_models, n_out, n_rows) if layer.last else (n_models, n_rows, n_out))
        self.gx = torch.empty_like(x) if layer.needs_input_grad else None
        self.of_output, self.of_weight, self.of_input = (
            products.choose(n_rows, n_in, n_out, x.device, transposed=second_is_transposed)
            for second_is_transposed in (layer.last or not layer.inputs_first, False, layer.inputs_first)
        )
        uses_numpy = "numpy" in (self.of_output, self.of_weight, self.of_input)
        self.out_array = self.out.numpy() if uses_numpy else None
        self.gx_array = self.gx.numpy() if uses_numpy and self.gx is not None else None


class StackedLinear:
    """(M, N, I) to (M, N, O), or to (M, O, N) for the last one. What is frozen has no gradient."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, weight_grad: Tensor | None, bias_grad: Tensor | None, *, last: bool
    ):
        self.weight, self.weight_grad = weight, weight_grad  # (M, O, I)
        self.last = last
        as_rows = (lambda b: b.unsqueeze(2)) if last else (lambda b: b.unsqueeze(1))
        self.bias = None if bias is None else as_rows(bias)
        self.bias_grad = None if bias_grad is None else as_rows(bias_grad)
        self.weight_t = weight.transpose(1, 2)
        self.needs_input_grad = True
        self.inputs_first = weight_grad is not None and weight_grad.stride(2) != 1  # in memory
        self._grad = None if weight_grad is None else weight_grad.transpose(1, 2) if self.inputs_first else weight_grad
        self._bmm_grad: Tensor | None = None  # batched products of torch that are not written side by side are slow
        self._plans: dict[int, _Plan] = {}  # by number of rows
        self._views: dict[str, tuple[Tensor, Tensor | tuple[Tensor, ...]]] = {}
        # What numpy multiplies: the same memory as the tensors beside it, which are those of the step before, mostly.
        self._x_seen = self._g_seen = None
        self._weight_array = self._grad_array = self._weight_array_t = None
        if weight.device.type == "cpu":
            self._weight_array, self._weight_array_t = weight.numpy(), self.weight_t.numpy()
            self._grad_array = None if self._grad is None else self._grad.numpy()

    def forward(self, x: Tensor, rows: Rows, place: Tensor | None = None) -> Tensor:
        """Compute the outputs; into `place`, where it is given."""
        self.x = x
        plan = self._plan = self._plans.get(x.size(1)) or self._make_plan(x)
        out = plan.out if place is None else place
        if plan.of_output == "numpy":
            if x is not self._x_seen:
                self._see_inputs(x)
            factors = (self._weight_array, self._x_array_t) if self.last else (self._x_array, self._weight_array_t)
            np.matmul(*factors, plan.out_array if place is None else place.numpy())
            if self.bias is not None:
                out.add_(self.bias)
        elif plan.of_output == "onednn":
            biases = repeat(None) if self.bias is None else self._seen("biases", self.bias, _rows_of_each)
            xs, weights = self._seen("xs", x, Tensor.unbind), self._seen("weights", self.weight, Tensor.unbind)
            outs = self._seen("outs", out, _transposes if self.last else Tensor.unbind)
            for out_m, x_m, weight, bias in zip(outs, xs, weights, biases, strict=False):
                out_m.copy_(products.linear(x_m, weight, bias))
        else:
            a, b = (self.weight, self._seen("x_t", x, _transpose)) if self.last else (x, self.weight_t)
            if self.bias is None:
                torch.bmm(a, b, out=out)
            else:
                torch.baddbmm(self.bias, a, b, out=out)
        return out

    def _make_plan(self, x: Tensor) -> _Plan:
        plan = self._plans[x.size(1)] = _Plan(self, x)
        return plan

    def backward(self, g: Tensor, rows: Rows) -> Tensor | None:
        """Write the gradients of the weights; give that of the input."""
        plan = self._plan
        if self.weight_grad is not None:
            self._compute_weight_grad(plan.of_weight, g)
        if self.bias_grad is not None:
            torch.sum(g, 2 if self.last else 1, keepdim=True, out=self.bias_grad)
        if not self.needs_input_grad:
            return None
        if plan.of_input == "numpy":
            if g is not self._g_seen:
                self._see_gradients(g)
            np.matmul(self._g_array, self._weight_array, plan.gx_array)
        elif plan.of_input == "onednn":
            weights_t = self._seen("weights_t", self.weight_t, Tensor.unbind)
            gs = self._seen("gs", self._rows_of(g), Tensor.unbind)
            for gx_m, g_m, weight_t in zip(self._seen("gxs", plan.gx, Tensor.unbind), gs, weights_t, strict=True):
                gx_m.copy_(products.linear(g_m, weight_t))
        else:
            torch.bmm(self._rows_of(g), self.weight, out=plan.gx)
        return plan.gx

    def _compute_weight_grad(self, library: str, g: Tensor) -> None:
        """Multiply gradients of the outputs by the inputs."""
        if library == "numpy":
            if self.x is not self._x_seen:
                self._see_inputs(self.x)
            if g is not self._g_seen:
                self._see_gradients(g)
            factors = (self._x_array_t, self._g_array) if self.inputs_first else (self._g_array_t, self._x_array)
            np.matmul(*factors, self._grad_array)
            return
        g_t = self._seen("g_t", g, _transpose)
        g_rows, g_outputs = (g_t, g) if self.last else (g, g_t)
        if library == "onednn":
            grads, gs = self._seen("grads", self.weight_grad, Tensor.unbind), self._seen("gs_t", g_outputs, Tensor.unbind)
            for grad, g_m, x_m in zip(grads, gs, self._seen("xs_t", self.x, _transposes), strict=True):
                grad.copy_(products.gradient_of_weight(g_m, x_m))
        else:
            a, b = (self._seen("x_t", self.x, _transpose), g_rows) if self.inputs_first else (g_outputs, self.x)
            if self._bmm_grad is None:
                self._bmm_grad = self._grad if self._grad.is_contiguous() else self._grad.contiguous()
            torch.bmm(a, b, out=self._bmm_grad)
            if self._bmm_grad is not self._grad:
                self._grad.copy_(self._bmm_grad)

    def _see_inputs(self, x: Tensor) -> None:
        """Look at inputs as numpy does, (M, N, I) and transposed."""
        self._x_seen, self._x_array = x, x.numpy()
        self._x_array_t = self._x_array.swapaxes(1, 2)

    def _see_gradients(self, g: Tensor) -> None:
        """Look at gradients of the outputs as numpy does, (M, N, O) and transposed."""
        array = g.numpy()
        turned = array.swapaxes(1, 2)
        self._g_seen, self._g_array, self._g_array_t = g, *((turned, array) if self.last else (array, turned))

    def _rows_of(self, g: Tensor) -> Tensor:
        """Give gradients of the outputs, rows first."""
        return self._seen("g_t", g, _transpose) if self.last else g

    def _seen(self, name: str, t: Tensor, look: Callable[[Tensor], T]) -> T:
        """Give views of a tensor, the same as long as it is the tensor of the step before."""
        if self._views.get(name, (None,))[0] is not t:
            self._views[name] = t, look(t)
        return self._views[name][1]


def _transpose(t: Tensor) -> Tensor:
    return t.transpose(1, 2)


def _transposes(t: Tensor) -> tuple[Tensor, ...]:
    return t.transpose(1, 2).unbind()


def _rows_of_each(bias: Tensor) -> tuple[Tensor, ...]:
    return bias.view(len(bias), -1).unbind()  # never a copy, which would not follow the weights


class StackedActivation:
    """An elementwise function; its parameters are the same in all models.

    It may overwrite its input, unless that is what another activation gave and needs for its gradient, or the data. The
    last one's values are copied, because the loss may overwrite what it is given.
    """

    def __init__(self, layer: nn.Module, *, last: bool = False, after=None):
        self.layer, self.last = layer, last
        self.copies = after is None or isinstance(after, StackedActivation)
        written_out = ELEMENTWISE[type(layer)]
        self.forward = self._autograd_forward if written_out is None else self._forward
        self.backward = self._autograd_backward if written_out is None else self._backward
        self.function, self.gradient = written_out or (None, None)

    def _forward(self, x: Tensor, rows: Rows) -> Tensor:
        self.x = x
        self.y = self.function(self.layer, x.clone() if self.copies else x)
        return self.y.clone() if self.last else self.y

    def _backward(self, g: Tensor, rows: Rows) -> Tensor:
        return self.gradient(self.layer, g, self.x, self.y)

    def _autograd_forward(self, x: Tensor, rows: Rows) -> Tensor:
        with torch.enable_grad():
            self.x = x.detach().requires_grad_()
            self.y = self.layer(self.x.clone())
        return self.y.detach().clone() if self.last else self.y.detach()

    def _autograd_backward(self, g: Tensor, rows: Rows) -> Tensor:
        return torch.autograd.grad(self.y, self.x, g)[0]


class StackedAffine:
    """A fixed scale and offset of each model: of outputs (M, O, N) the shape (M, O, 1), of hidden units (M, N, I) (M, 1, I)."""

    def __init__(self, scale: Tensor, offset: Tensor):
        self.scale, self.offset = scale, offset

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

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Scale and shift."""
        return torch.addcmul(self.offset, x, self.scale)

    def backward(self, g: Tensor, rows: Rows) -> Tensor:
        """Scale the gradient."""
        return g.mul_(self.scale)


class StackedDropout:
    """Dropout whose masks each model draws from its own generator, at its own rate."""

    def __init__(self, layers: list[Dropout]):
        self.layers = layers
        self.live = [(m, layer) for m, layer in enumerate(layers) if layer.p]
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Multiply by this batch's masks."""
        n_rows = x.shape[1]
        if n_rows not in self._masks:
            self._masks[n_rows] = torch.ones_like(x), torch.empty_like(x)
        self.mask, out = self._masks[n_rows]
        for m, layer in self.live:
            n_real = rows.n_rows[m]
            self.mask[m, :n_real] = layer.next_mask((n_real, x.shape[2]), x.device)
        return torch.mul(x, self.mask, out=out)

    def backward(self, g: Tensor, rows: Rows) -> Tensor:
        """Multiply by the same masks."""
        return g.mul_(self.mask)


class StackedBatchNorm:
    """Batch normalisation by weighted statistics; see `skpt.modules.BatchNorm1d`."""

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
        self.eps, self.momentum = layers[0].eps, layers[0].momentum

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Normalise and take note of the statistics."""
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
        return torch.addcmul(self.bias, self.normalised, self.weight)

    def backward(self, g: Tensor, rows: Rows) -> Tensor:
        """Write the gradients of scale and shift; give that of the input."""
        torch.sum(g, 1, keepdim=True, out=self.bias_grad)
        torch.sum(g * self.normalised, 1, keepdim=True, out=self.weight_grad)
        pull = rows.share.transpose(1, 2) * (self.bias_grad + self.normalised * self.weight_grad)
        return (g - pull).mul_(self.weight * self.inverse)

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
        With `forward(x, rows)` and `backward(g, rows)`.
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

    What can wait is done for all batches at once: first `begin`, then `gradient` for each, then `end`.

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
        if type(criterion) is nn.CrossEntropyLoss and _is_plain(criterion):
            self._compute = self._cross_entropy
        if type(criterion) is nn.BCEWithLogitsLoss and _is_plain(criterion):
            self._compute = self._bce
        self.keeps_outputs = self._compute == self._cross_entropy
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

    def place(self, i: int) -> Tensor:
        """Give where the outputs of a batch are kept until `end`, (M, O, N); where the loss `keeps_outputs`."""
        return self._kept_of[i]

    def gradient(self, i: int, outputs: Tensor) -> Tensor:
        """Give the gradient of the weighted sum of the losses of a batch.

        Parameters
        ----------
        i : int
            Which of the batches.
        outputs : Tensor of shape (M, O, N)
            What the models give. Overwritten, unless they are in their `place`.

        Returns
        -------
        Tensor of shape (M, O, N)
            The gradient with respect to the outputs, until the next one is asked for.
        """
        return self._compute(i, outputs, self._weights[i])

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

    def _cross_entropy(self, i, outputs, weight):
        if outputs is not self._kept_of[i]:
            self._kept_of[i].copy_(outputs)
        return self._softmax.gradient(i, outputs, weight)

    def _mse(self, i, outputs, weight):
        residual = torch.sub(outputs, self._targets[i], out=self._kept_of[i])
        return torch.mul(residual, times(weight, 2.0 / self.n_outputs), out=outputs)

    def _l1(self, i, outputs, weight):
        g = outputs.sub_(self._targets[i])
        torch.mean(g.abs(), 1, out=self._losses_of[i])
        return g.sign_().mul_(times(weight, 1.0 / self.n_outputs))

    def _huber(self, i, outputs, weight):
        delta, targets = self.criterion.delta, self._targets[i]
        torch.mean(F.huber_loss(outputs, targets, reduction="none", delta=delta), 1, out=self._losses_of[i])
        return outputs.sub_(targets).clamp_(-delta, delta).mul_(times(weight, 1.0 / self.n_outputs))

    def _smooth_l1(self, i, outputs, weight):
        beta, targets = self.criterion.beta, self._targets[i]
        torch.mean(F.smooth_l1_loss(outputs, targets, reduction="none", beta=beta), 1, out=self._losses_of[i])
        g = outputs.sub_(targets)
        g = g.sign_() if beta == 0 else g.div_(beta).clamp_(-1.0, 1.0)
        return g.mul_(times(weight, 1.0 / self.n_outputs))

    def _bce(self, i, outputs, weight):
        losses = F.binary_cross_entropy_with_logits(outputs, self._targets[i], reduction="none")
        torch.mean(losses, 1, out=self._losses_of[i])
        return outputs.sigmoid_().sub_(self._targets[i]).mul_(times(weight, 1.0 / self.n_outputs))

    def _autograd(self, i, outputs, weight):
        n_models, n_outputs, n_rows = outputs.shape
        flat = self._targets[i] if self.takes_class_index else self._targets[i].transpose(1, 2)
        targets = flat.reshape(-1, *flat.shape[2:])
        with torch.enable_grad():
            outputs = outputs.detach().requires_grad_()
            by_row = row_losses(self.criterion, outputs.transpose(1, 2).reshape(-1, n_outputs), targets)
            by_row = by_row.view(n_models, 1, n_rows)
            (g,) = torch.autograd.grad((by_row * weight).sum(), outputs)
        self._losses_of[i].copy_(by_row.detach()[:, 0])
        return g


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
        self._arrays = None
        if device.type == "cpu":
            self._arrays = [p.numpy() for p in self._p_of], [pull.numpy() for pull in self._pull_of], self._g.numpy()

    def begin(self, targets: Tensor, weights: list[float] | list[Tensor]) -> None:
        """Take the class numbers (n_batches, M, N) of some batches, and what a row weighs in each, a number or (M, 1, N)."""
        self._places = torch.add(self._first_places, targets, alpha=self._n_rows).view(-1)
        if isinstance(weights[0], Tensor):
            pulls = torch.stack(weights).view(-1).neg_()
        else:
            pulls = self._p.new_full((len(self._places),), -weights[0])
        self._pull.zero_().view(-1).scatter_(0, self._places, pulls)  # torch takes three times as long for one number

    def gradient(self, i: int, outputs: Tensor, weight: float | Tensor) -> Tensor:
        """Give the gradient of the weighted sum of the losses with respect to the outputs (M, O, N) of a batch."""
        torch.softmax(outputs, 1, out=self._p_of[i])
        # Two roundings, whether the weights are one number or each row has its own.
        if self._arrays is None or isinstance(weight, Tensor):
            return torch.mul(self._p_of[i], weight, out=self._g).add_(self._pull_of[i])
        p, pull, g = self._arrays
        np.multiply(p[i], np.float32(weight), g)  # torch takes three times as long for one number
        np.add(g, pull[i], g)
        return self._g

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
