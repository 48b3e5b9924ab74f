"""The private names of other libraries that skpt uses, in one place."""

import warnings
from collections.abc import Callable
from functools import cache

import torch
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._indexing import _get_column_indices as get_column_indices
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from torch import _foreach_add_ as foreach_add_
from torch import _fused_adam_ as fused_adam_
from torch import _fused_adamw_ as fused_adamw_
from torch._C import _len_torch_function_stack as n_function_modes
from torch.optim import LBFGS, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

__all__ = [
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "Options",
    "StrOptions",
    "check_sample_weight",
    "complete_optimizer",
    "find_onednn_linear",
    "foreach_add_",
    "fused_adam_",
    "fused_adamw_",
    "get_column_indices",
    "hooks_of_all_optimizers",
    "n_function_modes",
    "safe_indexing",
    "validate_parameter_constraints",
    "who_shows_warnings",
]


def complete_optimizer(optimizer: Optimizer) -> None:
    """Give an unpickled or copied optimizer what torch leaves out: LBFGS keeps its weights under a second name.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Changed in place.
    """
    if isinstance(optimizer, LBFGS):
        optimizer._params = optimizer.param_groups[0]["params"]
        optimizer._numel_cache = None


def who_shows_warnings() -> object:
    """Give what takes the warnings that are shown: another one within ``warnings.catch_warnings(record=True)``."""
    return getattr(warnings, "_showwarnmsg_impl", None)


# By torch.optim.optimizer.register_optimizer_step_pre_hook and ..._post_hook.
hooks_of_all_optimizers = (_global_optimizer_pre_hooks, _global_optimizer_post_hooks)


@cache
def find_onednn_linear() -> Callable | None:
    """Give oneDNN's linear layer, which torch's compiler calls on a CPU.

    Returns
    -------
    callable or None
        Takes (x, weight, bias, activation, its arguments, algorithm). None where torch is built without oneDNN.
    """
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None if operator is None else operator.default
