"""Loss functions: by name, row by row, weighted.

A criterion is any ``nn.Module`` of (outputs, targets). Where it takes ``reduction``, it is built with "none", so that rows
can be weighted; the mean is taken here, in one place.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from skpt.exceptions import InvalidInputError, nearest_name
from skpt.training.arguments import accepted_arguments, check_arguments

__all__ = [
    "CLASSIFICATION_CRITERIA",
    "REGRESSION_CRITERIA",
    "build_criterion",
    "find_criterion",
    "is_of_counts",
    "mean_loss",
    "row_losses",
    "takes_class_index",
]

REGRESSION_CRITERIA: dict[str, type[nn.Module]] = {
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "huber": nn.HuberLoss,
    "smooth_l1": nn.SmoothL1Loss,
    "poisson_nll": nn.PoissonNLLLoss,
}
CLASSIFICATION_CRITERIA: dict[str, type[nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "bce": nn.BCEWithLogitsLoss,
    "multi_margin": nn.MultiMarginLoss,
    "multilabel_soft_margin": nn.MultiLabelSoftMarginLoss,
}

_NUMERIC_CRITERIA = (*REGRESSION_CRITERIA.values(), nn.BCEWithLogitsLoss, nn.BCELoss, nn.MultiLabelSoftMarginLoss)


def find_criterion(criterion: str | type[nn.Module] | nn.Module, known: Mapping[str, type[nn.Module]]):
    """Give the class that a name stands for; a class or an instance is given back.

    Parameters
    ----------
    criterion : str, class or instance of nn.Module
        What the user asked for.
    known : mapping of str to class
        The names that fit the task.

    Returns
    -------
    class or instance of nn.Module
        The criterion.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if not isinstance(criterion, str):
        return criterion
    if criterion not in known:
        raise ValueError(
            f"The 'criterion' parameter must be one of {sorted(known)} or a class of torch.nn.Module. "
            f"Got {criterion!r} instead.{nearest_name(criterion, known, listed=True)}"
        )
    return known[criterion]


def build_criterion(criterion, params: Mapping) -> nn.Module:
    """Build a criterion with row-wise losses where it can give them.

    Parameters
    ----------
    criterion : class or instance of nn.Module
        What `find_criterion` gave.
    params : mapping
        Keyword arguments (the user's ``criterion__*``).

    Returns
    -------
    torch.nn.Module
        The criterion.

    Raises
    ------
    ValueError
        If it makes no module.
    UnknownParameterError
        If the class has no such parameter.
    """
    if isinstance(criterion, nn.Module) and not params:
        return criterion
    cls = type(criterion) if isinstance(criterion, nn.Module) else criterion
    check_arguments(cls, params, "criterion")
    params = dict(params)
    if "reduction" in (accepted_arguments(cls) or ()):
        params.setdefault("reduction", "none")
    try:
        made = cls(**params)
    except TypeError as error:
        if isinstance(cls, type):
            raise
        made = error
    if not isinstance(made, nn.Module):
        raise ValueError(
            "The 'criterion' parameter must be a name, a class of torch.nn.Module, or what makes one without arguments. Got "
            f"{criterion!r} instead. Pass a class, such as torch.nn.MSELoss."
        )
    return made


def is_of_counts(criterion) -> bool:
    """Whether the criterion is the likelihood of counts, whose outputs stand for rates and have no other scale."""
    return issubclass(criterion if isinstance(criterion, type) else type(criterion), nn.PoissonNLLLoss)


def takes_class_index(criterion) -> bool:
    """Whether the targets are class numbers (as for cross-entropy), not numbers of the outputs' shape (as for bce and mse).

    Class numbers are the default for a criterion of the user's own; an attribute ``takes_indicators = True`` asks for one
    column of 0 and 1 per class.
    """
    cls = type(criterion) if isinstance(criterion, nn.Module) else criterion
    numeric = isinstance(cls, type) and issubclass(cls, _NUMERIC_CRITERIA)
    return not (numeric or getattr(criterion, "takes_indicators", False))


def row_losses(criterion: nn.Module, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Loss of every row, (N,), or the one number that a criterion without row-wise losses gives.

    The weights of the rows are told to a criterion that asks for them by ``takes_sample_weight = True``; its losses are not
    yet weighted.
    """
    if isinstance(criterion, nn.NLLLoss):
        outputs = torch.log_softmax(outputs, dim=1)
    elif isinstance(criterion, nn.BCELoss):
        outputs = torch.sigmoid(outputs)
    if outputs.shape != targets.shape and isinstance(criterion, _NUMERIC_CRITERIA):
        raise InvalidInputError(
            f"{type(criterion).__name__} needs outputs of the targets' shape, {tuple(targets.shape)}. Got shape "
            f"{tuple(outputs.shape)}, which would be broadcast. Let the module give one column per output."
        )
    told = (weight,) if getattr(criterion, "takes_sample_weight", False) else ()
    losses = criterion(outputs, targets, *told)
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def mean_loss(criterion: nn.Module, outputs: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean loss over the rows of a batch.

    Parameters
    ----------
    criterion : nn.Module
        What `build_criterion` gave.
    outputs : Tensor of shape (N, n_outputs)
        What the network gives.
    targets : Tensor of shape (N,) or (N, n_outputs)
        Class numbers, or numbers of the shape of the outputs.
    weight : Tensor of shape (N,), default=None
        Weights whose mean over the training rows is one: the mean over batches is then the weighted mean over the rows.

    Returns
    -------
    Tensor
        A scalar.

    Raises
    ------
    InvalidInputError
        If there are weights and the criterion gives no row-wise losses, or if outputs and targets of different shapes would
        be broadcast.
    """
    losses = row_losses(criterion, outputs, targets, weight)
    if losses.ndim == 0:
        if weight is not None:
            raise InvalidInputError(
                f"Sample and class weights need a criterion that can be built with reduction='none'. "
                f"{type(criterion).__name__} gives one number per batch."
            )
        return losses
    return losses.mean() if weight is None else (losses * weight).mean()
