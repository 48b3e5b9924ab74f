"""Transfer: weights taken over from another network, layers that are held still, and a learning rate for what was loaded.

Nothing here knows a network or an estimator. Layers match by name and shape; a layer is taken over whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

import torch
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from skorch import NeuralNet
from torch import Tensor, nn, optim

from skpt.exceptions import InvalidInputError, nearest_name
from skpt.training.files import read_tensors, split_learnt

__all__ = [
    "Frozen",
    "Pretrained",
    "TensorNote",
    "TransferReport",
    "find_frozen",
    "follow_rates",
    "loaded_weights",
    "read_pretrained",
    "scale_loaded_rates",
    "transfer_weights",
    "unwrapped",
]

_COMPILED = "_orig_mod"  # where torch.compile keeps the network
_LINES_OF_AN_ERROR = 8


@dataclass(frozen=True)
class TensorNote:
    """One tensor of a network, and what became of it.

    Parameters
    ----------
    name : str
        Its name in the state dict.
    shape : tuple of int
        Its shape.
    reason : str, default=""
        Why it was not taken over.
    """

    name: str
    shape: tuple[int, ...]
    reason: str = ""


@dataclass(frozen=True)
class TransferReport:
    """What a network took over from a pretrained one, and what not; ``print`` it.

    Parameters
    ----------
    source : str
        Where the weights came from.
    loaded : list of TensorNote
        What was taken over.
    new : list of TensorNote
        What keeps its own first weights, and why.
    unused : list of TensorNote
        What the pretrained network has and this one did not take, and why.
    notes : list of str, default=[]
        What else was taken over, or was not: the scales of features and targets.
    """

    source: str
    loaded: list[TensorNote]
    new: list[TensorNote]
    unused: list[TensorNote]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Give everything as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TransferReport:
        """Make a report of what its `to_dict` gave."""
        lists = {
            name: [TensorNote(each["name"], tuple(each["shape"]), each["reason"]) for each in state[name]]
            for name in ("loaded", "new", "unused")
        }
        return cls(state["source"], **lists, notes=list(state["notes"]))

    def lines(self, most: int | None = None) -> list[str]:
        """Give the report line by line, at most so many of each kind."""
        width = max((len(each.name) for each in [*self.loaded, *self.new, *self.unused]), default=0)
        found = []
        for title, entries in (("loaded", self.loaded), ("new", self.new), ("unused", self.unused)):
            for each in entries[:most]:
                found.append(f"  {title:6}  {each.name:{width}}  {each.shape}  {each.reason}".rstrip())
            if most is not None and len(entries) > most:
                found.append(f"  {title:6}  ... and {len(entries) - most} more")
        return found + [f"  {note}" for note in self.notes]

    def __str__(self) -> str:
        n_tensors = len(self.loaded) + len(self.new)
        return "\n".join([f"{len(self.loaded)} of {n_tensors} tensors taken over from {self.source}", *self.lines()])


@dataclass(frozen=True)
class Pretrained:
    """Weights to start from, and what is known of the estimator that learnt them.

    Parameters
    ----------
    source : str
        What they come from, for messages.
    state : mapping of str to Tensor
        The weights.
    learnt : mapping or None, default=None
        What the estimator learnt besides weights, as JSON types: sizes, target and scaler. An empty one stands for a net
        that takes its rows as they are; None for weights of which nothing is known.
    """

    source: str
    state: Mapping[str, Tensor]
    learnt: Mapping[str, Any] | None = None


def read_pretrained(pretrained, owner: str) -> Pretrained:
    """Give the weights that the parameter `pretrained` stands for.

    Parameters
    ----------
    pretrained : fitted net, path, torch.nn.Module or mapping
        A fitted estimator of ours or net of skorch's, a file of weights, a network or its state dict.
    owner : str
        Whose parameter it is, for messages.

    Returns
    -------
    Pretrained
        The weights, not copied.

    Raises
    ------
    InvalidInputError
        If it is none of these, or not fitted, or the file holds no tensors.
    """
    if isinstance(pretrained, FrozenEstimator):
        pretrained = pretrained.estimator
    module = pretrained if isinstance(pretrained, nn.Module) else getattr(pretrained, "module_", None)
    name, learnt = type(pretrained).__name__, None
    if isinstance(pretrained, (str, os.PathLike)):
        name = f"the file {os.fspath(pretrained)!r}"
        state, learnt = split_learnt(read_tensors(pretrained))
    elif isinstance(module, nn.Module):
        state = module.state_dict()
        if module is not pretrained:
            learnt = pretrained._learnt_to_dict() if hasattr(pretrained, "_learnt_to_dict") else {}
    else:
        state, name = pretrained, "the state dict" if isinstance(pretrained, Mapping) else name
    if not isinstance(state, Mapping) or not _tensors(state):
        rule = "a fitted net, the path of a file of weights, a torch.nn.Module or its state dict"
        if hasattr(pretrained, "fit"):
            if not isinstance(pretrained, NeuralNet):
                within = _way_to_net(pretrained)
                remedy = f"Give the net within: {name}(...){within}." if within else "Give a net of skpt's or of skorch's."
                raise InvalidInputError(
                    f"The 'pretrained' parameter of {owner} must be {rule}. Got {name}, which is no net. {remedy}"
                )
            raise InvalidInputError(
                f"The 'pretrained' parameter of {owner} must be {rule}. Got {name}, which is not fitted. Fit it first; where "
                "scikit-learn has copied it, give sklearn.frozen.FrozenEstimator(net), which copies leave as it is."
            )
        raise InvalidInputError(f"The 'pretrained' parameter of {owner} must be {rule}. Got {name} without tensors instead.")
    return Pretrained(name, state, learnt)


def transfer_weights(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    *,
    refused: Mapping[str, str] | None = None,
    together: Collection[str] = (),
) -> TransferReport:
    """Copy the layers that match by name and shape into a network.

    A layer is a module without modules below it: all of its tensors match, or none is taken. A tensor that belongs to a
    module with others below it is a layer of its own.

    Parameters
    ----------
    module : torch.nn.Module
        The network; changed in place.
    state : mapping of str to Tensor
        Weights of the pretrained network.
    source : str
        What they come from, for messages.
    refused : mapping of str to str, default=None
        Names of tensors whose layers are not taken over although they match, and why.
    together : collection of str, default=()
        Names of tensors whose layers are taken over all, or none.

    Returns
    -------
    TransferReport
        What was taken over, and what not.

    Raises
    ------
    InvalidInputError
        If nothing matches; the network is as it was.
    """
    module, refused = unwrapped(module), refused or {}
    here, there = _tensors(module.state_dict()), _tensors(state)
    containers = {name for name, each in module.named_modules() if next(each.children(), None) is not None}

    def layer_of(name: str) -> str:
        owner = name.rpartition(".")[0]
        return name if owner in containers else owner

    def fits(name: str) -> bool:
        return name in here and name in there and here[name].shape == there[name].shape

    refusals = {layer_of(name): reason for name, reason in refused.items()}
    unfit = {layer_of(name) for name in [*here, *there] if not fits(name)} | refusals.keys()
    joined = {layer_of(name) for name in together if name in here or name in there}
    if unfit & joined:
        unfit |= joined

    def note(name: str, mine: Mapping[str, Tensor], other: Mapping[str, Tensor], place: str) -> TensorNote:
        layer = layer_of(name)
        if name not in other:
            reason = f"none of this name {place}"
        elif not fits(name):
            reason = f"{tuple(other[name].shape)} {place}"
        else:
            apart = "what belongs to it does not fit" if layer in unfit else ""
            reason = refusals.get(layer, apart)
        return TensorNote(name, tuple(mine[name].shape), reason)

    notes = [note(name, here, there, "there") for name in here]
    loaded, new = [each for each in notes if not each.reason], [each for each in notes if each.reason]
    unused = [each for each in (note(name, there, here, "here") for name in there) if each.reason]
    report = TransferReport(source, loaded, new, unused)
    if not loaded:
        raise InvalidInputError(
            f"Nothing of {source} fits this network: no layer has the same name and shapes and may be taken over. Expected "
            "is what is called new here, given was what is called unused:\n" + "\n".join(report.lines(_LINES_OF_AN_ERROR))
        )
    with torch.no_grad():
        for each in loaded:
            here[each.name].copy_(there[each.name])
    return report


@dataclass(frozen=True)
class Frozen:
    """What is held still in a network, by name.

    Parameters
    ----------
    weights : tuple of str, default=()
        Parameters that do not train.
    statistics : tuple of str, default=()
        Layers whose running statistics stay as they are: they compute as in evaluation, also while the others train.
    """

    weights: tuple[str, ...] = ()
    statistics: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.weights or self.statistics)

    def hold(self, module: nn.Module) -> None:
        """Hold them."""
        for name, parameter in unwrapped(module).named_parameters():
            if name in self.weights:
                parameter.requires_grad_(False)
                parameter.grad = None  # of training before: an optimizer would go on with it

    def release(self, module: nn.Module) -> None:
        """Let them train."""
        for name, parameter in unwrapped(module).named_parameters():
            if name in self.weights:
                parameter.requires_grad_(True)

    def keep_statistics(self, module: nn.Module) -> None:
        """Put the layers of `statistics` back into evaluation mode, when the network was put into training mode."""
        for name in self.statistics:
            unwrapped(module).get_submodule(name).eval()


def find_frozen(module: nn.Module, freeze: str | Iterable[str] | None, owner: str, held: Frozen | None = None) -> Frozen:
    """Give what patterns name, without changing anything.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    freeze : str, sequence of str or None
        Patterns of ``fnmatch`` over the names of layers ("hidden_1", "conv*") and parameters ("*.bias"). A layer's name
        stands for all that is in it.
    owner : str
        Whose network it is, for messages.
    held : Frozen, default=None
        What is held at present.

    Returns
    -------
    Frozen
        The parameters, and the layers with running statistics that are named themselves or whose parameters all are.

    Raises
    ------
    InvalidInputError
        If a pattern matches nothing that can be frozen, or nothing would be left to train.
    """
    if freeze is None:
        return Frozen()
    patterns = [freeze] if isinstance(freeze, str) else list(freeze)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise InvalidInputError(f"The 'freeze' parameter of {owner} must hold patterns, each a str. Got {freeze!r} instead.")
    module = unwrapped(module)
    weights = [name for name, p in module.named_parameters() if p.requires_grad or (held and name in held.weights)]
    layers = {name: layer for name, layer in module.named_modules() if name}
    norms = [name for name, layer in layers.items() if getattr(layer, "track_running_stats", False)]

    def matched(name: str, pattern: str) -> bool:
        parts = name.split(".")
        return any(fnmatchcase(".".join(parts[:i]), pattern) for i in range(1, len(parts) + 1))

    for pattern in patterns:
        if not any(matched(name, pattern) for name in [*weights, *norms]):
            names = {name for each in [*weights, *norms] for name in [each, each.rpartition(".")[0]] if name}
            near = nearest_name(pattern, names, listed=True)
            owners = sorted({name.rpartition(".")[0] or name for name in weights} | set(norms))
            raise InvalidInputError(
                f"The 'freeze' pattern {pattern!r} of {owner} matches no layer and no weights.{near} Layers with weights are: "
                f"{', '.join(owners)}."
            )
    frozen = tuple(name for name in weights if any(matched(name, pattern) for pattern in patterns))
    if weights and len(frozen) == len(weights):
        raise InvalidInputError(
            f"freeze={freeze!r} of {owner} matches all weights, and nothing is left to train. Leave a layer out, for example "
            f"the last one, {weights[-1].rpartition('.')[0]!r}."
        )

    def is_still(name: str) -> bool:
        own = [f"{name}.{p}" for p, _ in layers[name].named_parameters()]
        return any(matched(name, pattern) for pattern in patterns) or (bool(own) and set(own) <= set(frozen))

    return Frozen(frozen, tuple(name for name in norms if is_still(name)))


def scale_loaded_rates(optimizer: optim.Optimizer, loaded: Iterable[nn.Parameter], factor: float) -> None:
    """Give some weights a multiple of the learning rate of their parameter group.

    They become a group of their own, right behind the one that they were in, with the entry ``lr_factor``. What an earlier
    call did is undone first.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Changed in place; its state stays.
    loaded : iterable of torch.nn.Parameter
        The weights.
    factor : float
        What the learning rate is multiplied by. One leaves the groups as they were.

    Raises
    ------
    InvalidInputError
        If the optimizer takes one group alone.
    """
    loaded = {id(p) for p in loaded} if factor != 1 else set()
    if loaded and isinstance(optimizer, optim.LBFGS):
        raise InvalidInputError(
            f"The optimizer LBFGS has one learning rate for all weights. Got pretrained_lr_factor={factor!r}. Set it to 1.0, "
            "or choose another optimizer, such as 'adam'."
        )
    whole: list[dict] = []
    for group in optimizer.param_groups:
        if "lr_factor" in group:
            whole[-1]["params"] = [*whole[-1]["params"], *group["params"]]
        else:
            whole.append(group)
    groups = []
    for group in whole:
        theirs = [p for p in group["params"] if id(p) in loaded]
        groups.append(group)
        if theirs:
            group["params"] = [p for p in group["params"] if id(p) not in loaded]
            groups.append({**group, "params": theirs, "lr": group["lr"] * factor, "lr_factor": factor})
    optimizer.param_groups[:] = groups


def loaded_weights(module: nn.Module, report: TransferReport | None) -> list[nn.Parameter]:
    """Give the parameters of a network that a report says were taken over.

    Parameters
    ----------
    module : torch.nn.Module
        The network.
    report : TransferReport or None
        What was taken over; None stands for nothing.

    Returns
    -------
    list of torch.nn.Parameter
        In the network's order.
    """
    names = set() if report is None else {each.name for each in report.loaded}
    return [p for name, p in unwrapped(module).named_parameters() if name in names]


def follow_rates(optimizer: optim.Optimizer) -> None:
    """Set the rate of each group of loaded weights to its multiple of the group before, which a schedule has changed.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Changed in place.
    """
    for group, loaded in pairwise(optimizer.param_groups):
        if "lr_factor" in loaded:
            loaded["lr"] = group["lr"] * loaded["lr_factor"]


def unwrapped(module: nn.Module) -> nn.Module:
    """Give the network that torch.compile may have wrapped."""
    return getattr(module, _COMPILED, module)


def _way_to_net(estimator) -> str:
    """Say where a search or a pipeline has its net, as code; empty where it has none."""
    way = ""
    while not isinstance(estimator, NeuralNet):
        if isinstance(estimator, Pipeline):
            estimator, way = estimator.steps[-1][1], f"{way}[-1]"
        elif hasattr(estimator, "best_estimator_"):
            estimator, way = estimator.best_estimator_, f"{way}.best_estimator_"
        else:
            return ""
    return way


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{_COMPILED}."): t for name, t in state.items() if isinstance(t, Tensor)}
