"""Training many small networks as one.

A `Stack` holds jobs that do the same arithmetic on different numbers. It trains them together, epoch by epoch; a model
that is done, diverges or stops early leaves it. A single fit is a stack of one, so there is one algorithm, and a model's
weights do not depend on what it was stacked with.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from skpt.exceptions import DivergedError
from skpt.fusion import products
from skpt.fusion.layers import ELEMENTWISE, Now, Rows, StackedBatchNorm, StackedLinear, StackedLoss, stack_layer
from skpt.fusion.layout import Layout
from skpt.fusion.linear_descent import LinearDescent, descends
from skpt.fusion.optimizers import STACKED_OPTIMIZERS, shared_settings
from skpt.modules.layers import Affine, BatchNorm1d, Dropout, FeedForward, Linear
from skpt.training.batches import Batches, rows_of
from skpt.training.criteria import takes_class_index
from skpt.training.job import TrainingJob, evaluate
from skpt.training.memory import with_room_for_frames
from skpt.training.monitor import are_finite, check_finite
from skpt.training.optimizers import PendingOptimizer, optimizer_class
from skpt.training.schedules import LearningRate
from skpt.training.sources import RowSource
from skpt.training.transfer import follow_rates

__all__ = ["Stack", "group_key", "train_stack", "why_not_stacked"]

# Rows of a last or only batch are filled up to a multiple of this, so that folds which differ by a row or two still share
# a stack. A model alone fills up too: its numbers must not depend on its company.
ROW_MULTIPLE = 8

# Where modules and optimizers, and where weights keep those who are to be called.
_HOOKS = (
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
    *("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"),
)
_HOOKS_OF_WEIGHTS = ("_backward_hooks", "_post_accumulate_grad_hooks")

# The layers that a stack has.
_KINDS = frozenset((Linear, BatchNorm1d, Dropout, Affine, *ELEMENTWISE))

# Steps between two looks at the losses, where nothing is to be decided after each epoch; for a descent by maps of steps.
STEPS_AT_ONCE = 256
MAPS_AT_ONCE = 1024

# Numbers of a block of batches that are fetched together: 0.75 MB, which stays in a cache of 1 MB, and twice as much in double
# precision.
FLOATS_AT_ONCE = 3 << 16


def why_not_stacked(job: TrainingJob) -> str | None:
    """Say why a job cannot be part of a stack.

    Parameters
    ----------
    job : TrainingJob
        What is to be trained.

    Returns
    -------
    str or None
        The reason; None if it can.
    """
    module, X, y = job.module, job.train.X, job.train.y
    if not isinstance(module, FeedForward) or type(module).forward is not FeedForward.forward:
        return f"a module of class {type(module).__name__}"
    if type(job.train) is not Batches:
        return "a DataLoader of the user's"
    if not isinstance(X, (Tensor, RowSource)) or X.ndim != 2 or X.dtype != torch.float32:
        return "inputs that are not dense rows of float32"
    layers, weights = list(module), job.weights
    kinds = list(map(type, layers))
    for layer, kind in zip(layers, kinds, strict=True):
        if kind not in _KINDS:
            return f"a layer of class {kind.__name__}"
        if kind is BatchNorm1d and not (layer.track_running_stats and layer.momentum):
            return "batch normalisation with settings of its own"
    if len(set(layers)) < len(layers):
        return "a layer that occurs twice"
    own = [(name, p) for layer in layers for name, p in layer._parameters.items()]
    if len(weights) < len([p for _, p in own if p is not None]):
        return "weights that layers share"
    if not {name for name, _ in own} <= {"weight", "bias"}:
        return "weights that are computed from others"
    if any(map(_has_hooks, (module, *layers, job.criterion, job.optimizer))):
        return "hooks"
    if any([getattr(p, name) for p in weights for name in _HOOKS_OF_WEIGHTS]):
        return "hooks"
    last = max([i for i, kind in enumerate(kinds) if kind is Linear], default=None)
    if last is None or not {BatchNorm1d, Dropout}.isdisjoint(kinds[last:]):
        return "layers other than activations after the last linear one"
    if Affine in kinds[:last]:
        return "an affine layer before the last linear one"
    if {p.dtype for p in weights} != {torch.float32}:
        return "weights that are not float32"
    trained = _weights_of(job)
    if not trained:
        return "no weights that train"
    if job.frozen and job.unfreeze_after is not None:
        return "layers that are unfrozen while it trains"
    if optimizer_class(job.optimizer) not in STACKED_OPTIMIZERS:
        return f"the optimizer {optimizer_class(job.optimizer).__name__}"
    groups = job.optimizer.param_groups
    if not _differ_by_rate_alone(groups) or any(groups[0].get(name) for name in ("amsgrad", "maximize", "differentiable")):
        return "optimizer settings of its own"
    if groups[0].get("decoupled_weight_decay") and optimizer_class(job.optimizer) is not torch.optim.AdamW:
        return "weight decay apart from the gradient"
    if sum([p.numel() for group in groups for p in group["params"]]) != job.n_weights:
        return "an optimizer of other weights than the module's"
    if len({_n_steps_of(job.optimizer.state.get(p, {})) for p in trained}) > 1:
        return "weights that made different numbers of steps"
    if type(job.criterion).__module__ != nn.modules.loss.__name__ or job.criterion.reduction != "none":
        return f"the criterion {type(job.criterion).__name__}"
    if list(job.criterion.parameters()) or list(job.criterion.buffers()):
        return "a criterion with tensors of its own"
    if y.ndim > 1 and takes_class_index(job.criterion):
        return "targets that are not class numbers"
    if job.schedule is not None and job.schedule.params.get("cycle_momentum", _cycles_momentum(job.schedule.policy)):
        return "a schedule of the momentum"
    return None


def _has_hooks(part: nn.Module | torch.optim.Optimizer | PendingOptimizer) -> bool:
    """Whether somebody is called when a part is used, which a stack does not do."""
    own = vars(part)
    return any([own.get(name) for name in _HOOKS])  # a list: a generator takes twice as long


@cache
def _cycles_momentum(policy: type) -> bool:
    """Whether a class of learning-rate schedules changes the momentum too, unless it is told not to."""
    argument = inspect.signature(policy).parameters.get("cycle_momentum")
    return argument is not None and bool(argument.default)


def group_key(job: TrainingJob) -> Hashable:
    """Give what jobs must have in common to be stacked.

    Parameters
    ----------
    job : TrainingJob
        One for which `why_not_stacked` gave None.

    Returns
    -------
    hashable
        Equal for jobs that can share a stack.
    """
    layers = tuple([(type(layer), "" if type(layer) is Dropout else layer.extra_repr()) for layer in job.module])
    criterion = tuple([(name, v) for name, v in vars(job.criterion).items() if isinstance(v, (int, float, str))])
    n_batches, n_full, n_last = _batch_rows(job)
    return (
        layers,
        type(job.criterion),
        criterion,
        tuple(p.requires_grad for p in job.weights),
        job.frozen.statistics,
        optimizer_class(job.optimizer),
        shared_settings(job.optimizer.param_groups[0]),
        _n_steps_before(job),
        job.max_grad_norm is None,
        descends(job),
        (n_batches, n_full, n_last),
        id(job.train.X) if isinstance(job.train.X, RowSource) else None,  # rows that are read for it have no table with others
        job.train.y.ndim,
        str(job.train.y.device),
    )


def _batch_rows(job: TrainingJob) -> tuple[int, int, int]:
    """Number of batches, rows of all but the last, rows of the last one, filled up."""
    n_samples, size = len(job.train.y), job.train.batch_size
    n_batches = len(job.train)
    n_last = n_samples - (n_batches - 1) * size
    filled = -(-n_last // ROW_MULTIPLE) * ROW_MULTIPLE
    return n_batches, size if n_batches > 1 else 0, min(filled, size) if n_batches > 1 else filled


def _differ_by_rate_alone(groups: list[dict]) -> bool:
    """Whether there is one parameter group, or a second one of loaded weights that have their share of its rate."""
    settings = {(shared_settings(group), group.get("weight_decay")) for group in groups}
    return len(settings) == 1 and all("lr_factor" in group for group in groups[1:]) and len(groups) <= 2


def _weights_of(job: TrainingJob) -> list[nn.Parameter]:
    """The weights that train."""
    return [p for p in job.weights if p.requires_grad]


def _n_steps_of(state: dict) -> int:
    """How many steps a weight has made, by its state in an optimizer."""
    if "step" in state:
        return int(state["step"])
    return int(state.get("momentum_buffer") is not None)  # torch's SGD does not count


def _n_steps_before(job: TrainingJob) -> int:
    return _n_steps_of(job.optimizer.state.get(_weights_of(job)[0], {}))


class Stack:
    """Jobs that train together.

    Parameters
    ----------
    jobs : sequence of TrainingJob
        With equal `group_key`. Their modules, optimizers and monitors are changed in place.
    is_cancelled : callable, default=lambda: False
        Asked before every step whether to stop.
    """

    def __init__(self, jobs: Sequence[TrainingJob], is_cancelled: Callable[[], bool] = lambda: False):
        self.jobs = list(jobs)
        self.is_cancelled = is_cancelled
        self.rates = [LearningRate(job.optimizer.param_groups[0]["lr"], job.schedule) for job in jobs]
        self.epochs = [0] * len(self.jobs)
        self.best: list[list[Tensor] | None] = [None] * len(self.jobs)
        self.running: tuple[Tensor, int, float] | None = None  # losses of epochs under way, how many are whole, the start
        self.params_of = [_weights_of(job) for job in self.jobs]
        self._load_weights([torch.stack([p.detach() for p in params]) for params in zip(*self.params_of, strict=True)])
        self._load_optimizer(self._read_optimizers(), _n_steps_before(self.jobs[0]))
        self._load_rows()

    # ------------------------------------------------------------------ building

    def _load_weights(self, weights: list[Tensor]) -> None:
        """Lay the weights, (M, ...) each, out in one tensor, and build the layers on it."""
        shapes, device = [w.shape[1:] for w in weights], weights[0].device
        self.optimizer_class = STACKED_OPTIMIZERS[optimizer_class(self.jobs[0].optimizer)]
        in_pieces = self.optimizer_class.goes_in_pieces(sum(shape.numel() for shape in shapes), device)
        # Where numpy writes all gradients they need not lie side by side, and an optimizer's calls take one tensor each.
        own_rates = any(len(job.optimizer.param_groups) > 1 for job in self.jobs)
        by_numpy = self._linear_by_numpy(device)
        by_model = in_pieces and not own_rates and all(by_numpy.values())
        # And it multiplies faster where the weights of hidden layers lie inputs first in memory.
        turned = {id(layer.weight) for layer in list(by_numpy)[:-1] if by_numpy[layer]}
        transposed = {i for i, p in enumerate(self.params_of[0]) if id(p) in turned}
        # There the first layer's intercepts are one more row of its weights, of inputs that end in a one: what would take
        # two passes over the outputs is done by the products.
        self.has_ones = by_model and 0 in transposed and self._begins_with_weights_and_intercepts()
        self.layout = Layout(
            shapes,
            len(self.jobs),
            device,
            in_pieces=in_pieces,
            transposed=transposed,
            by_model=by_model,
            joined={1} if self.has_ones else (),
        )
        self.params, self.grads = self.layout.zeros(), self.layout.zeros()
        self.blocks, self.grad_blocks = self.layout.blocks(self.params), self.layout.blocks(self.grads)
        for block, w in zip(self.blocks, weights, strict=True):
            block.copy_(w)

        by_name, trained = {}, iter(zip(self.blocks, self.grad_blocks, strict=True))
        for name, p in self.jobs[0].module.named_parameters():
            still = None if p.requires_grad else torch.stack([job.module.get_parameter(name).detach() for job in self.jobs])
            by_name[name] = next(trained) if still is None else (still, None)
        children = [list(job.module) for job in self.jobs]
        last = max(i for i, layer in enumerate(children[0]) if isinstance(layer, Linear))
        self.layers = []
        train = []  # whether a layer has weights that train
        for i, (name, layer) in enumerate(self.jobs[0].module.named_children()):
            blocks = [by_name[f"{name}.{p}"] for p, _ in layer.named_parameters()]
            if i == 0 and self.has_ones:
                blocks = [(self.layout.joint(self.params, 0), self.layout.joint(self.grads, 0))]
            train.append(any(grad is not None for _, grad in blocks))
            after, still = self.layers[-1] if self.layers else None, name in self.jobs[0].frozen.statistics
            self.layers.append(stack_layer([c[i] for c in children], blocks, last=i >= last, after=after, still=still))
        # Nothing before the first layer with weights that train needs a gradient.
        self.first = train.index(True)
        for layer in self.layers[: self.first + 1]:
            if isinstance(layer, StackedLinear):
                layer.needs_input_grad = False
        self.norms = [layer for layer in self.layers if isinstance(layer, StackedBatchNorm)]
        self.kept, self.kept_before = ([t.clone() for t in self._changing()] for _ in range(2))  # of the last two epochs
        self.loss = StackedLoss(self.jobs[0].criterion, children[0][last].out_features)
        self.may_infer = all([part.may_infer for part in (*self.layers, self.loss)])

    def _begins_with_weights_and_intercepts(self) -> bool:
        """Whether both of the first layer train, and no other layer comes before."""
        first, trained = next(iter(self.jobs[0].module)), self.params_of[0]
        return isinstance(first, Linear) and first.weight is trained[0] and len(trained) > 1 and first.bias is trained[1]

    def _linear_by_numpy(self, device: torch.device) -> dict[Linear, bool]:
        """Whether numpy multiplies, for each linear layer of the first model."""
        n_rows = max(_batch_rows(self.jobs[0])[1:])
        linear = [layer for layer in self.jobs[0].module if isinstance(layer, Linear)]
        return {
            layer: products.choose(n_rows, layer.in_features, layer.out_features, device) == "numpy" for layer in linear
        }

    def _read_optimizers(self) -> dict[str, list[Tensor]]:
        """Give what the models' optimizers remember of each weight, (M, ...)."""
        names = {name for job in self.jobs for state in job.optimizer.state.values() for name in state} - {"step"}

        def read(name: str, params: Sequence[nn.Parameter]) -> Tensor:
            found = [job.optimizer.state.get(p, {}).get(name) for job, p in zip(self.jobs, params, strict=True)]
            return torch.stack([torch.zeros_like(p) if t is None else t for p, t in zip(params, found, strict=True)])

        return {name: [read(name, params) for params in zip(*self.params_of, strict=True)] for name in names}

    def _load_optimizer(self, states: dict[str, list[Tensor]], n_steps: int) -> None:
        groups = [job.optimizer.param_groups[0] for job in self.jobs]
        self.optimizer = self.optimizer_class(groups, self.params, self.grads, self.layout, n_steps, self._rate_factors())
        for name, flat in self.optimizer.state.items():
            for block, values in zip(self.layout.blocks(flat), states.get(name, []), strict=False):
                block.copy_(values)
        norms = [job.max_grad_norm for job in self.jobs]
        self.max_norm = None if norms[0] is None else self.params.new_tensor(norms)

    def _load_rows(self) -> None:
        """Put all rows in one table, equal tables once."""
        tables: list[tuple[Tensor, Tensor]] = []
        offsets: list[int] = []
        places: list[int] = []
        for job in self.jobs:
            X, y, _ = job.train.rows()
            table = next((t for t, seen in enumerate(tables) if _same(X, seen[0]) and _same(y, seen[1])), len(tables))
            if table == len(tables):
                offsets.append(sum(len(seen_y) for _, seen_y in tables))
                tables.append((X, y))
            places.append(offsets[table])
        self.X = tables[0][0] if len(tables) == 1 else torch.cat([X for X, _ in tables])
        self.y = tables[0][1] if len(tables) == 1 else torch.cat([y for _, y in tables])
        self.places = places
        self.n_samples = [len(job.train.y) for job in self.jobs]
        self.n_batches, self.n_full, self.n_last = _batch_rows(self.jobs[0])
        n_models, device = len(self.jobs), self.y.device
        self.weighted = any(job.train.weight is not None for job in self.jobs)
        self.row_weight = None
        if self.weighted:
            # Weights belong to a job, not to its table.
            self.weight_places = torch.tensor(
                [[start - place] for start, place in zip(_starts(self.n_samples), places, strict=True)], device=device
            )
            ones = [torch.ones(n, device=device) for n in self.n_samples]
            self.row_weight = torch.cat(
                [o if job.train.weight is None else job.train.weight for o, job in zip(ones, self.jobs, strict=True)]
            )
        self.needs_share = bool(self.norms)
        self._rows_of_full = self._plain_rows([self.n_full] * n_models, self.n_full)
        self.n_last_real = [n - (self.n_batches - 1) * self.n_full for n in self.n_samples]
        self._rows_of_last = self._plain_rows(self.n_last_real, self.n_last)
        n_rows = np.array([[self.n_full] * len(self.jobs)] * (self.n_batches - 1) + [self.n_last_real], dtype=np.float64)
        self.share_of_batch = n_rows / self.n_samples  # (n_batches, M)
        self._whole: tuple | None = None
        # Batches of one size are fetched together as long as they stay in the cache.
        floats = n_models * max(self.n_full, self.n_last) * (self.X.shape[1] + 2)
        at_once = max(1, FLOATS_AT_ONCE // floats)
        n_full_batches = self.n_batches - 1
        self.blocks_of_batches = [
            (first, min(first + at_once, n_full_batches), self.n_full) for first in range(0, n_full_batches, at_once)
        ]
        self.blocks_of_batches.append((n_full_batches, self.n_batches, self.n_last))
        # Where the inputs of each block are written, and the steps of its batches, which are bound to that.
        n_rows = max([(last - first) * size for first, last, size in self.blocks_of_batches])
        self._inputs = self.params.new_ones((n_models * n_rows, self.X.shape[1] + self.has_ones))
        self._now = Now()
        self._steps: dict[tuple, list[list[Callable]]] = {}  # by number of batches and rows, and whether these have weights
        self.rates_change_by_batch = any(job.schedule and job.schedule.step_every == "batch" for job in self.jobs)
        self._load_generators()
        self.descent = self._load_descent() if descends(self.jobs[0]) else None

    def _load_generators(self) -> None:
        """Find the models whose rows come in the same order: as many rows, and generators in the same state."""
        self.is_shuffled = self.n_batches > 1 and any(job.train.generator is not None for job in self.jobs)
        by_state: dict[tuple, tuple[list[int], list[torch.Generator]]] = {}
        for m, job in enumerate(self.jobs):
            generator = job.train.generator if self.is_shuffled else None
            state = None if generator is None else generator.get_state().numpy().tobytes()
            members, generators = by_state.setdefault((self.n_samples[m], state), ([], []))
            members.append(m)
            if generator is not None:
                generators.append(generator)
        self.same_order = list(by_state.values())

    def _move_generators(self) -> None:
        """Bring the generators that were spared to where they would be."""
        for _, generators in self.same_order:
            for generator in generators[1:]:
                generator.set_state(generators[0].get_state())

    def _load_descent(self) -> LinearDescent:
        n_rows = max(self.n_full, self.n_last)
        real = torch.arange(self.n_batches * n_rows).view(-1, 1, n_rows) < torch.tensor(self.n_samples)[:, None]
        self._shares = real.double() / real.sum(2, keepdim=True)  # (n_batches, M, n_rows)
        groups = [job.optimizer.param_groups[0] for job in self.jobs]
        return LinearDescent(self.X, self.y, groups, has_bias=len(self.blocks) > 1)

    def _plain_rows(self, n_real: list[int], n_rows: int) -> Rows:
        """Describe batches without weights."""
        if n_rows == 0:
            return Rows(1.0, None, n_real)
        if all(n == n_rows for n in n_real) and not self.needs_share:
            return Rows(1.0 / n_rows, None, n_real)
        real = torch.arange(n_rows) < torch.tensor(n_real).unsqueeze(1)
        share = (real / torch.tensor(n_real).unsqueeze(1)).to(torch.float32).unsqueeze(1).to(self.y.device)
        return Rows(share, share, n_real)

    def _rate_factors(self) -> list[list[float]] | None:
        """What the learning rate of each model is multiplied by for each weight; None for one everywhere."""
        factors = []
        for job, params in zip(self.jobs, self.params_of, strict=True):
            own = {id(p): group["lr_factor"] for group in job.optimizer.param_groups[1:] for p in group["params"]}
            factors.append([own.get(id(p), 1.0) for p in params])
        return None if all(factor == 1.0 for of_model in factors for factor in of_model) else factors

    def _changing(self) -> list[Tensor]:
        """Everything that training changes in the models."""
        return [self.params, *(buffer for norm in self.norms for buffer in norm.buffers())]

    # ------------------------------------------------------------------ training

    def train(self) -> None:
        """Train all jobs to their ends."""
        for m, job in enumerate(self.jobs):
            job.module.train()
            if job.max_epochs < 1:
                self._finish([m])
        try:
            while self.jobs and not self.is_cancelled():
                self.run_epochs()
        except BaseException:
            self._keep_interrupted()
            raise
        finally:
            self._move_generators()

    @torch.no_grad()
    def _keep_interrupted(self) -> None:
        """Whoever interrupts a long fit keeps what it has learnt, and the losses of the epochs that are whole."""
        if self.running is not None:
            losses, n_epochs, started = self.running
            seconds = (time.perf_counter() - started) / (len(self.jobs) * max(1, n_epochs))
            whole = losses[:n_epochs].to("cpu", torch.float64).numpy()
            for job, means in zip(self.jobs, self._mean_losses(whole), strict=True):
                job.monitor.extend(means, seconds)
        for m in range(len(self.jobs)):
            self._store_weights(m)

    @torch.no_grad()
    def run_epochs(self) -> None:
        """Train every model for one epoch, or for some where nothing is to be decided after each; let go who is done."""
        started = time.perf_counter()
        n_epochs = self._n_epochs_at_once()
        self.lrs = [rate.lr for rate in self.rates]
        losses = self._descend(n_epochs) if self.descent is not None else self._step(n_epochs, started)
        self.running = None
        if losses is not None:
            seconds = (time.perf_counter() - started) / (len(self.jobs) * n_epochs)
            self._end_epochs(losses.to("cpu", torch.float64).numpy(), self.lrs, seconds)

    def _step(self, n_epochs: int, started: float) -> Tensor | None:
        """Train step by step; give the mean losses, (n_epochs, n_batches, n_models), or None if cancelled."""
        losses = self.params.new_empty((n_epochs, self.n_batches, len(self.jobs)))
        for epoch in range(n_epochs):
            self.running = losses, epoch, started
            self._order_rows()
            done = 0
            for first, last, size in self.blocks_of_batches:
                if self.is_cancelled():
                    return None
                self._train_block(first, last, size, losses[epoch, done : done + last - first])
                done += last - first
            if epoch + 1 < n_epochs:
                self._keep(losses[: epoch + 1])
        return losses

    def _descend(self, n_epochs: int) -> Tensor:
        """Train by the maps of all steps; give the mean losses, (n_epochs, n_batches, n_models)."""
        n_models, n_steps = len(self.jobs), n_epochs * self.n_batches
        if self.is_shuffled or not self.descent.has_batches:
            self.descent.fetch(*self._batches_of_epochs(n_epochs if self.is_shuffled else 1))
        lrs = self.lrs
        if self.rates_change_by_batch:
            lrs = []
            for _ in range(n_steps):
                lrs.append(self.lrs)
                self._change_rates()
        flat = self.optimizer.state.get("momentum_buffer")
        momenta = None if flat is None or not self.optimizer.n_steps else _read_linear(self.layout.blocks(flat))
        lrs = torch.tensor(lrs, dtype=torch.float64)
        ends, momenta, losses = self.descent.run(_read_linear(self.blocks), momenta, lrs, n_epochs, n_steps)
        losses = losses.view(n_epochs, self.n_batches, n_models)
        for m, n in enumerate(self._n_epochs_left()):
            if n < n_epochs:  # it has gone on with the others
                losses[n:, :, m] = 0.0
                for of_epochs in (ends, momenta):
                    if of_epochs is not None:
                        of_epochs[n:, m] = of_epochs[n - 1, m].clone()
        self.optimizer.n_steps += n_steps
        _write_linear(self.blocks, ends[-1])
        if momenta is not None:
            _write_linear(self.layout.blocks(flat), momenta[-1])
        if not math.isfinite(losses.sum().item()):
            self._keep_before(ends.to(torch.float32), torch.isfinite(losses).all(1))
        return losses

    def _keep_before(self, ends: Tensor, is_finite: Tensor) -> None:
        """Remember the weights, (n_epochs, M, D, O), of the last epoch before the first that is not finite."""
        is_finite = is_finite & torch.isfinite(ends).flatten(2).all(2)
        n_good = is_finite.to(torch.long).cumprod(0).sum(0).tolist()
        for m, n in enumerate(n_good):
            if 0 < n < len(ends):
                _write_linear([block[m] for block in self.layout.blocks(self.kept[0])], ends[n - 1, m])

    def _batches_of_epochs(self, n_epochs: int) -> tuple[Tensor, Tensor]:
        """Give the rows and their shares, (n_epochs * n_batches, M, n_rows), of all batches, filled up to one size."""
        n_rows = max(self.n_full, self.n_last)
        order = self._draw_orders(n_epochs, self.n_batches * n_rows)
        index = order.view(n_epochs, len(self.jobs), self.n_batches, n_rows).transpose(1, 2)
        share = self._shares.expand_as(index)
        if self.weighted:
            share = share * self.row_weight[index + self.weight_places]
        return index.flatten(0, 1), share.flatten(0, 1)

    def _change_rates(self) -> None:
        """A step was made by rates that change after each."""
        for rate in self.rates:
            rate.after_batch()
        self.lrs = [rate.lr for rate in self.rates]

    def _keep(self, losses: Tensor) -> None:
        """Remember the weights of models whose losses so far, (n_epochs, n_batches, n_models), are finite."""
        if math.isfinite(losses.sum().item()):
            self._keep_all()
            return
        for m in torch.isfinite(losses).flatten(0, 1).all(0).nonzero().flatten().tolist():
            generations = (self._of_models(m, tensors) for tensors in (self.kept_before, self.kept, self._changing()))
            for before, kept, tensor in zip(*generations, strict=True):
                before.copy_(kept)
                kept.copy_(tensor)

    def _keep_all(self) -> None:
        """Remember the weights of all models."""
        self.kept, self.kept_before = self.kept_before, self.kept
        for kept, tensor in zip(self.kept, self._changing(), strict=True):
            kept.copy_(tensor)

    def _last_finite(self, m: int) -> list[Tensor]:
        """What was kept of model m: of the epoch before the last where the last step of that one was too long already."""
        last = self._of_models(m, self.kept)
        return last if are_finite(last) else self._of_models(m, self.kept_before)

    def _n_epochs_at_once(self) -> int:
        if any(job.valid or job.schedule or job.after_epoch for job in self.jobs):
            return 1
        # To go on with a linear model that is done costs less than to take it out, unless it would draw an order of rows.
        furthest = max if self.descent is not None and not self.is_shuffled else min
        left = furthest(self._n_epochs_left())
        n_steps = STEPS_AT_ONCE
        if self.descent is not None:
            n_rows = len(self.jobs) * max(self.n_full, self.n_last)
            n_steps = max(1, min(MAPS_AT_ONCE, FLOATS_AT_ONCE // (n_rows * self.X.shape[1])))
        return max(1, min(left, n_steps // self.n_batches))

    def _n_epochs_left(self) -> list[int]:
        """How many epochs each model is to make yet."""
        return [job.max_epochs - epochs for job, epochs in zip(self.jobs, self.epochs, strict=True)]

    def _draw_orders(self, n_epochs: int, length: int) -> Tensor:
        """Give the rows of each epoch in order, (n_epochs, M, length), filled up with the first row of all."""
        orders, places = np.empty((n_epochs, len(self.jobs), length), dtype=np.int64), np.array(self.places)[:, None]
        for members, generators in self.same_order:
            n = self.n_samples[members[0]]
            models = members if len(self.same_order) > 1 else slice(None)  # a list takes longer
            for epoch in range(n_epochs if generators else 1):
                order = torch.randperm(n, generator=generators[0]).numpy() if generators else np.arange(n)
                orders[epoch if generators else slice(None), models, :n] = places[models] + order
            orders[:, models, n:] = places[models]
        return torch.from_numpy(orders).to(self.y.device)

    def _order_rows(self) -> None:
        """Choose the rows of the batches of the next epoch."""
        if self._whole is None:
            n_in_full = (self.n_batches - 1) * self.n_full
            (order,) = self._draw_orders(1, n_in_full + self.n_last)
            self.index = order[:, :n_in_full].view(len(self.jobs), self.n_batches - 1, self.n_full).transpose(0, 1)
            self.last_index = order[:, n_in_full:]

    def _train_block(self, first: int, last: int, n_rows: int, losses_out: Tensor) -> None:
        """Train on batches of one size that are fetched together; write the models' mean losses, (n_batches, n_models)."""
        y, rows = self._fetch(first, last, n_rows)
        self.loss.begin(y, [of_batch.loss_weight for of_batch in rows])
        kind = len(rows), n_rows, isinstance(rows[0].loss_weight, Tensor)
        if kind not in self._steps:
            self._steps[kind] = self._bind_steps(len(rows), n_rows)
        # numpy would warn of a model that diverges.
        with np.errstate(all="ignore"), torch.inference_mode() if self.may_infer else nullcontext():
            for step, of_batch in zip(self._steps[kind], rows, strict=True):
                self._now.rows = of_batch
                for call in step:
                    call()
                self.optimizer.step(self.lrs)
                if self.rates_change_by_batch:
                    self._change_rates()
        self.loss.end(losses_out)

    def _bind_steps(self, n_batches: int, n_rows: int) -> list[list[Callable]]:
        """Give for each batch of a block the calls that compute the gradients of all weights."""
        n_models, first = len(self.jobs), self.layers[0]
        inputs = self._inputs[: n_batches * n_models * n_rows].view(n_batches, n_models, n_rows, -1)
        of_inputs = [first.bind(X, self._now) for X in inputs]
        # What follows the first layer is the same for all batches.
        outputs, forward, followers = of_inputs[0].y, [], []
        for layer in self.layers[1:]:
            followers.append(layer.bind(outputs, self._now))
            outputs = followers[-1].y
            forward += followers[-1].forward
        of_loss = [self.loss.bind(i, outputs) for i in range(n_batches)]
        g, backward = of_loss[0][0], []
        for bound in followers[max(0, self.first - 1) :][::-1]:
            g, calls = bound.backward(g)
            backward += calls
        clip = [] if self.max_norm is None else [self._clip_gradients]
        ends = [[*(bound.backward(g)[1] if self.first == 0 else ()), *clip] for bound in of_inputs]
        return [
            [*bound.forward, *forward, *calls, *backward, *end]
            for bound, (_, calls), end in zip(of_inputs, of_loss, ends, strict=True)
        ]

    def _fetch(self, first: int, last: int, n_rows: int) -> tuple[Tensor, list[Rows]]:
        """Write the inputs of some batches; give y (n_batches, M, [O,] N), and what is known of their rows."""
        if self._whole is not None:
            return self._whole
        is_last = last == self.n_batches
        index = self.last_index.unsqueeze(0) if is_last else self.index[first:last]
        flat, shape = index.reshape(-1), index.shape
        inputs = self._inputs[: len(flat), : self.X.shape[1]]
        if isinstance(self.X, Tensor):
            rows_of(self.X, flat, inputs)
        else:
            inputs.copy_(rows_of(self.X, flat))
        y = self.y.index_select(0, flat).view(*shape, *self.y.shape[1:])
        if y.ndim == 4:
            y = y.transpose(2, 3) if y.shape[3] > 1 else y.view(*shape[:2], 1, shape[2])
        plain = self._rows_of_last if is_last else self._rows_of_full
        rows = [plain] * len(index)
        if self.weighted:
            weight = self.row_weight.index_select(0, (index + self.weight_places).reshape(-1)).view(*shape[:2], 1, n_rows)
            rows = [self._weighted_rows(plain, w) for w in weight]
        if self.n_batches == 1:
            self._whole = y, rows
        return y, rows

    def _weighted_rows(self, plain: Rows, weight: Tensor) -> Rows:
        share = None
        if self.needs_share:  # of weights that are one without rounding, so that a model without weights stays as it was
            share = weight * (plain.share > 0)
            share = share / share.sum(2, keepdim=True)
        return Rows(weight * plain.loss_weight, share, plain.n_rows)

    def _clip_gradients(self) -> None:
        n_models = len(self.jobs)
        square, *others = [g.reshape(n_models, -1).square().sum(1) for g in self.grad_blocks]
        for other in others:  # one after the other: a sum over an axis rounds differently for one model and for many
            square.add_(other)
        norm = square.sqrt_()
        factor = (self.max_norm / (norm + 1e-6)).clamp_max_(1.0)
        for g in self.grad_blocks:
            g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))

    # ------------------------------------------------------------------ after an epoch

    def _mean_losses(self, losses: np.ndarray) -> list[list[float]]:
        """Give each model's mean loss of each epoch, of losses (n_epochs, n_batches, n_models)."""
        return (losses * self.share_of_batch).sum(axis=1).T.tolist()

    def _end_epochs(self, losses: np.ndarray, lrs: list[float], seconds: float) -> None:
        """Take note of losses of shape (n_epochs, n_batches, n_models)."""
        done = []
        n_epochs, means = len(losses), self._mean_losses(losses)
        n_made = [min(n_epochs, n) for n in self._n_epochs_left()]
        is_last = [before + n >= job.max_epochs for before, n, job in zip(self.epochs, n_made, self.jobs, strict=True)]
        finite = np.isfinite(losses).all(axis=(0, 1)).tolist()
        if any(is_last) and not bool(torch.isfinite(self.params).all()):  # the last step was not yet seen by any loss
            for m in range(len(self.jobs)):
                if is_last[m] and not are_finite(block[m] for block in self.blocks):
                    losses[n_made[m] - 1, -1, m], finite[m] = math.nan, False
        for m, job in enumerate(self.jobs):
            try:
                if not finite[m]:
                    self._raise_divergence(m, losses[:, :, m], means[m], lrs[m], seconds)
                self.epochs[m] += n_made[m]
                if self._take_note(m, job, means[m][: n_made[m]], seconds) or is_last[m]:
                    done.append(m)
            except DivergedError as error:
                job.error = error.with_traceback(None)  # where it was found says nothing to the user
                for tensor, kept in zip(self._of_models(m, self._changing()), self._last_finite(m), strict=True):
                    tensor.copy_(kept)
                done.append(m)
        if done:
            self._finish(done)
        self._keep_all()

    def _raise_divergence(self, m: int, losses: np.ndarray, means: list[float], lr: float, seconds: float) -> None:
        is_finite = np.isfinite(losses).all(axis=1)
        n_good = len(losses) if is_finite.all() else int(is_finite.argmin())
        self.jobs[m].monitor.extend(means[:n_good], seconds)
        if n_good < len(losses):
            check_finite(losses[n_good].tolist(), self.epochs[m] + n_good + 1, lr, self.jobs[m].owner)

    def _take_note(self, m: int, job: TrainingJob, train_losses: list[float], seconds: float) -> bool:
        """Tell the monitor; say whether to stop."""
        if not (job.valid or job.schedule or job.after_epoch):
            job.monitor.extend(train_losses, seconds)
            return False
        (train_loss,) = train_losses
        valid_loss = None
        if job.valid is not None:
            self._store_weights(m)
            job.module.eval()
            valid_loss = evaluate(job.module, job.criterion, job.valid)
            job.module.train()
            check_finite([valid_loss], self.epochs[m], self.rates[m].lr, job.owner)
        is_best, stop = job.monitor.update(train_loss, valid_loss, seconds)
        self.rates[m].after_epoch(train_loss, valid_loss)
        if is_best and job.monitor.early_stopping:
            self.best[m] = [t.clone() for t in self._of_models(m, self._changing())]
        if job.after_epoch is not None:
            self._store_weights(m)
            self._move_generators()
            try:
                job.after_epoch()
            except Exception as error:  # a callback's: the other models train on
                job.error, self.best[m], stop = error, None, True
        return stop

    def _of_models(self, models: int | list[int] | slice, tensors: list[Tensor]) -> list[Tensor]:
        """What belongs to some models; views, or copies for a list of models."""
        params, *buffers = tensors
        return [block[models] for block in self.layout.blocks(params)] + [buffer[models] for buffer in buffers]

    def _finish(self, done: list[int]) -> None:
        """Give the results of some jobs back, and train on without them."""
        for m in done:
            if self.best[m] is not None:
                for tensor, best in zip(self._of_models(m, self._changing()), self.best[m], strict=True):
                    tensor.copy_(best)
            self._store_weights(m)
            self._store_optimizer(m)
            self.jobs[m].optimizer.param_groups[0]["lr"] = self.rates[m].lr
            follow_rates(self.jobs[m].optimizer)
        self._move_generators()
        keep = [m for m in range(len(self.jobs)) if m not in done]
        if not keep:
            self.jobs = []
            return
        for norm in self.norms:
            for m in keep:
                norm.store(m)
        weights, kept = [block[keep] for block in self.blocks], self._of_models(keep, self.kept)
        states = {name: [b[keep] for b in self.layout.blocks(flat)] for name, flat in self.optimizer.state.items()}
        for name in ("jobs", "params_of", "rates", "epochs", "best"):
            of_models = getattr(self, name)
            setattr(self, name, [of_models[m] for m in keep])
        self._load_weights(weights)
        for tensor, values in zip(self._of_models(slice(None), self.kept), kept, strict=True):
            tensor.copy_(values)
        self._load_optimizer(states, self.optimizer.n_steps)
        self._load_rows()

    def _store_weights(self, m: int) -> None:
        for block, p in zip(self.blocks, self.params_of[m], strict=True):
            p.data.copy_(block[m])
        for norm in self.norms:
            norm.store(m)

    def _store_optimizer(self, m: int) -> None:
        optimizer = self.jobs[m].optimizer
        if isinstance(self.jobs[m].error, DivergedError):  # its moments are not finite: training goes on without
            optimizer.state.clear()
            return
        if not self.optimizer.n_steps:
            return
        states = {name: self.layout.blocks(flat) for name, flat in self.optimizer.state.items()}
        counts = optimizer_class(optimizer) is not torch.optim.SGD
        for i, p in enumerate(self.params_of[m]):
            state = {name: blocks[i][m].clone(memory_format=torch.contiguous_format) for name, blocks in states.items()}
            if counts:
                state["step"] = torch.tensor(float(self.optimizer.n_steps))
            if state:
                optimizer.state[p] = state


@with_room_for_frames
def train_stack(jobs: Sequence[TrainingJob], is_cancelled: Callable[[], bool] = lambda: False) -> None:
    """Train jobs of one `group_key` together. Failures are left in ``job.error``.

    Parameters
    ----------
    jobs : sequence of TrainingJob
        Changed in place.
    is_cancelled : callable, default=lambda: False
        Asked before every step whether to stop.
    """
    Stack(jobs, is_cancelled).train()


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))


def _starts(lengths: list[int]) -> list[int]:
    starts = [0]
    for length in lengths[:-1]:
        starts.append(starts[-1] + length)
    return starts


def _read_linear(blocks: list[Tensor]) -> Tensor:
    """Give weights (M, O, I) and biases (M, O) as one tensor (M, I + 1, O) in double precision."""
    weight, *bias = blocks
    return torch.cat([weight.transpose(1, 2), *(b.unsqueeze(1) for b in bias)], 1).double()


def _write_linear(blocks: list[Tensor], theta: Tensor) -> None:
    """Write what `_read_linear` gives, of all models or of one."""
    weight, *bias = blocks
    weight.copy_(theta[..., : weight.shape[-1], :].transpose(-1, -2))
    for b in bias:
        b.copy_(theta[..., -1, :])
