"""The text about what all estimators share, written once: their docstrings are completed with it when a class is made.

An estimator's docstring describes the parameters and attributes that are its own, or that it uses in a way of its own.
Whatever else its signature has is described here, with the default that the signature gives.
"""

from __future__ import annotations

import inspect
import re
import textwrap

__all__ = [
    "ATTRIBUTES",
    "CLASSIFIER_PARAMETERS",
    "PARAMETERS",
    "REGRESSOR_PARAMETERS",
    "complete_docstring",
    "complete_parameters",
]

_NAMES_OF_INITIALIZATIONS = (
    '"default" (torch\'s), "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal", "orthogonal", "uniform", '
    '"normal" or "zeros"'
)

# Name: type, description.
PARAMETERS: dict[str, tuple[str, str]] = {
    "hidden_layer_sizes": ("sequence of int", "Number of units of each hidden layer."),
    "activation": (
        "str or callable",
        'Nonlinearity of the hidden layers: "relu", "tanh", "sigmoid" (also "logistic"), "identity", "leaky_relu", "elu", '
        '"selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "hardtanh", "hardswish", "relu6", or a class of '
        "``torch.nn.Module``.",
    ),
    "dropout": ("float in [0, 1)", "Probability that a hidden unit is dropped in a training step."),
    "batch_norm": ("bool", "Whether the hidden layers are batch-normalised, before the activation."),
    "initialization": ("str", f"How the first weights are drawn: {_NAMES_OF_INITIALIZATIONS}."),
    "optimizer": (
        "str or class",
        "Name of a class of ``torch.optim`` in lower case, or the class. Its own arguments are given as "
        "``optimizer__name``, for example ``optimizer__momentum=0.9``.",
    ),
    "lr": ("float", "Learning rate: length of a step. Larger is faster, until training diverges."),
    "max_epochs": ("int", "Number of passes over the training rows."),
    "batch_size": (
        'int or "auto"',
        'Number of rows that a step is computed from; -1 takes all of them. "auto" takes 32, and from 4,096 rows on more, '
        "up to 256.",
    ),
    "shuffle": (
        "bool",
        "Whether the rows are put in a new order in each epoch. Unused where one batch holds them all.",
    ),
    "weight_decay": ("float", "Strength of the L2 penalty, as the optimizer applies it."),
    "lr_schedule": (
        '{"cosine", "plateau", "one_cycle", "step", "exponential", "linear"}, class or None',
        "How the learning rate changes while training: a name, or a class of ``torch.optim.lr_scheduler``. Its own "
        "arguments are given as ``lr_schedule__name``. None keeps it.",
    ),
    "max_grad_norm": (
        "float or None",
        "Largest norm of the gradient of all weights; a longer one is shortened to it. None leaves it.",
    ),
    "pretrained": (
        "fitted net, path, torch.nn.Module, state dict or None",
        "Where first weights come from: a fitted estimator or skorch net, a file of weights as `save_params` writes it, a "
        "network or its state dict. Layers of the same name and shapes are taken over, the others start anew; "
        "`transfer_report_` lists both. As far as it is known, the layers that give the outputs are taken over only where the "
        "targets are of one kind with equal classes, and those that read the features only where these have the same names. "
        "With the first layer comes the scaling of the features, with the last that of the target, where they are "
        "scaled. Copies of the estimator, as in a search, share what is given here, fitted as it is.",
    ),
    "pretrained_lr_factor": (
        "float",
        "What the learning rate of the weights taken over is multiplied by: below one they change more slowly than the new "
        "ones. Unused without `pretrained`.",
    ),
    "freeze": (
        "str, sequence of str or None",
        'Layers or weights of `module_` that do not train: names, or patterns of ``fnmatch`` such as "hidden_*" or '
        '("conv*", "*.bias"). Frozen batch normalisation keeps its statistics and computes by them; dropout goes on.',
    ),
    "unfreeze_after": (
        "int or None",
        "Number of epochs, since the first weights were drawn, after which frozen layers train too. None keeps them frozen. "
        "Unused without `freeze`.",
    ),
    "early_stopping": (
        "bool",
        "Whether training ends when the loss on a validation set no longer falls, and the best weights are restored. The "
        "set is X_val and y_val of `fit`, or else rows held out.",
    ),
    "validation_fraction": (
        "float in (0, 1)",
        "Share of the rows held out for early stopping, by class for a classifier. Equal rows stay together. Unused "
        "without early stopping, and where X_val is given.",
    ),
    "n_iter_no_change": ("int", "Number of epochs without improvement after which early stopping ends training."),
    "tol": ("float", "Fall of the validation loss that counts as an improvement."),
    "standardize_features": (
        "bool",
        "Whether every feature is centred and scaled inside, by the training rows. Sparse features are scaled only.",
    ),
    "random_state": (
        "int, RandomState instance or None",
        "Fixes everything that is random: first weights, order of the rows, dropout, hold-out. No global generator is read "
        "or moved; None takes fresh entropy.",
    ),
    "warm_start": ("bool", "Whether `fit` goes on from the weights that are there."),
    "verbose": ("int", "Whether a row is printed for each epoch."),
    "device": ("str", 'Where to compute: "cpu", "cuda", ... "auto" takes a GPU where there is one.'),
    "callbacks": ("list or None", "Callbacks of skorch, or (name, callback) pairs."),
    "iterator_train": (
        "callable or None",
        "Makes the iterable over training batches from a Dataset, for example ``torch.utils.data.DataLoader``; its "
        "arguments are given as ``iterator_train__name``. None keeps the rows in memory and takes no Python per row.",
    ),
    "**further": (
        "",
        "Parameters of components by prefix (``optimizer__``, ``criterion__``, ``module__``, ``lr_schedule__``, "
        "``iterator_train__``, ``callbacks__``), and skorch's `iterator_valid`, `compile` and `torch_load_kwargs`.",
    ),
}

_CRITERION = (
    "Loss to minimise: a name, or a class of ``torch.nn.Module`` that takes (outputs, targets). Its own arguments are given "
    "as ``criterion__name``."
)

REGRESSOR_PARAMETERS = {
    "criterion": (
        '{"mse", "l1", "huber", "smooth_l1", "poisson_nll"}, class or instance',
        f'{_CRITERION} "poisson_nll" is for counts: `predict` gives rates, of which the network gives the logarithms, and the '
        "target is not scaled.",
    ),
    "standardize_target": (
        "bool",
        "Whether the target is centred and scaled inside; losses are then in units of its standard deviation.",
    ),
}

CLASSIFIER_PARAMETERS = {
    "criterion": (
        '{"auto", "cross_entropy", "bce", "multi_margin", "multilabel_soft_margin"}, class or instance',
        f'{_CRITERION} "auto" takes "bce" for two classes and for several labels per row, "cross_entropy" otherwise.',
    ),
    "class_weight": ('dict, "balanced" or None', "Weights of the classes in the loss, as in scikit-learn."),
}

ATTRIBUTES: dict[str, tuple[str, str]] = {
    "module_": ("torch.nn.Module", "The network: a `skpt.modules.{module}`."),
    "history_": ("skorch.history.History", "Losses and times of every epoch; also `history`."),
    "n_iter_": ("int", "Number of epochs trained."),
    "loss_curve_": (
        "ndarray of shape (n_iter_,)",
        "Mean training loss of each epoch, measured while it trained, in the criterion's unit.",
    ),
    "validation_curve_": (
        "ndarray of shape (n_iter_,)",
        "Loss on the validation set after each epoch; empty without one.",
    ),
    "best_epoch_": (
        "int",
        "The epoch of the lowest validation loss (training loss without a validation set), counted from 1.",
    ),
    "transfer_report_": (
        "skpt.training.TransferReport or None",
        "What was taken over from `pretrained` and what was not, and why; it prints as a table. None without `pretrained`.",
    ),
    "n_features_in_": ("int", "Number of columns of X."),
    "feature_names_in_": ("ndarray of shape (n_features_in_,)", "Names of the columns, where X had names."),
    "classes_": ("ndarray of shape (n_classes,)", "The class labels, sorted."),
}

_RAISES = """\
Raises
------
InvalidInputError
    By `fit`, if the data cannot be used; the estimator is as it was before.
DivergedError
    By `fit`, if the loss turned NaN or infinite; the last finite weights are kept."""

_NOTES = """\
Notes
-----
An epoch costs O(n_samples * n_weights). Order of the rows, first weights and dropout are random, and fixed by
`random_state`; whether a fit runs alone or in a fused search changes nothing."""

_ORDER = ("Parameters", "Attributes", "Raises", "See Also", "Notes", "References", "Examples")


def complete_docstring(
    doc: str,
    signature: inspect.Signature,
    parameters: dict[str, tuple[str, str]],
    attributes: dict[str, tuple[str, str]],
) -> str:
    """Complete an estimator's docstring by what all estimators share.

    Parameters
    ----------
    doc : str
        numpydoc, with the sections and entries that are the estimator's own.
    signature : inspect.Signature
        Of the constructor, in whose order parameters are described.
    parameters, attributes : dict
        Type and description by name, of what `doc` does not describe itself.

    Returns
    -------
    str
        The whole docstring, indented as `doc`.
    """
    summary, sections = _sections(doc)
    sections["Parameters"] = _described(sections, signature, parameters)
    own = _entries(sections.get("Attributes", ""))
    shared = {name: _entry(name, *entry) for name, entry in attributes.items()}
    sections["Attributes"] = "\n".join(["Attributes", "-" * 10, *(shared | own).values()])
    return _joined(summary, {"Raises": _RAISES, "Notes": _NOTES} | sections)


def complete_parameters(doc: str, signature: inspect.Signature, parameters: dict[str, tuple[str, str]]) -> str:
    """Complete the parameters alone in the docstring of what is no estimator.

    Parameters
    ----------
    doc : str
        numpydoc, with the sections and entries that are its own.
    signature : inspect.Signature
        Of the constructor, in whose order parameters are described.
    parameters : dict
        Type and description by name, of what `doc` does not describe itself.

    Returns
    -------
    str
        The whole docstring, indented as `doc`.
    """
    summary, sections = _sections(doc)
    return _joined(summary, {**sections, "Parameters": _described(sections, signature, parameters)})


def _sections(doc: str) -> tuple[str, dict[str, str]]:
    parts = re.split(r"\n\n(?=[A-Z][A-Za-z ]+\n-{3,}\n)", inspect.cleandoc(doc))
    return parts[0], {part.partition("\n")[0]: part for part in parts[1:]}


def _joined(summary: str, sections: dict[str, str]) -> str:
    whole = "\n\n".join([summary, *(sections[name] for name in _ORDER if name in sections)])
    return textwrap.indent(whole, "    ").strip() + "\n    "


def _described(sections: dict[str, str], signature: inspect.Signature, parameters: dict[str, tuple[str, str]]) -> str:
    """The section of the parameters, in the order of the signature."""
    own = _entries(sections.get("Parameters", ""))
    described = []
    for name, parameter in signature.parameters.items():
        name = f"**{name}" if parameter.kind is parameter.VAR_KEYWORD else name
        if name in own:
            described.append(own[name])
        elif name in parameters:
            described.append(_entry(name, *parameters[name], parameter.default))
    return "\n".join(["Parameters", "-" * 10, *described])


def _entries(section: str) -> dict[str, str]:
    """The entries of a section by name; ``a, b : int`` counts under its first."""
    found = re.split(r"\n(?=\S)", section)[2:]
    return {re.match(r"\**\w+", entry)[0]: entry.rstrip() for entry in found}


def _entry(name: str, kind: str, text: str, default=inspect.Parameter.empty) -> str:
    if default is not inspect.Parameter.empty:
        kind = f"{kind}, default={_written(default)}"
    body = textwrap.fill(text, 120, initial_indent="    ", subsequent_indent="    ", break_long_words=False)
    return f"{name} : {kind}\n{body}" if kind else f"{name}\n{body}"


def _written(default) -> str:
    return f'"{default}"' if isinstance(default, str) else repr(default)
