"""Criteria: names, row-wise losses, and the laws of the weighted mean."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from skpt.exceptions import InvalidInputError, UnknownParameterError
from skpt.training import CLASSIFICATION_CRITERIA, REGRESSION_CRITERIA
from skpt.training.criteria import build_criterion, find_criterion, mean_loss, row_losses, takes_class_index

ALL = {**REGRESSION_CRITERIA, **CLASSIFICATION_CRITERIA}
FURTHER = [nn.NLLLoss, nn.BCELoss, nn.SoftMarginLoss]


def batch(cls, n_rows=6, n_outputs=3, seed=0):
    """Outputs and targets that a criterion takes."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(n_rows, n_outputs, generator=generator)
    if takes_class_index(cls) and cls is not nn.SoftMarginLoss:
        return outputs, torch.randint(n_outputs, (n_rows,), generator=generator)
    return outputs, torch.randint(2, (n_rows, n_outputs), generator=generator).float()


@pytest.mark.parametrize("known", [REGRESSION_CRITERIA, CLASSIFICATION_CRITERIA])
def test_names_stand_for_torchs_classes(known):
    for name, cls in known.items():
        assert find_criterion(name, known) is cls
        assert cls.__module__ == "torch.nn.modules.loss"
        assert cls.__name__.removesuffix("Loss").lower().replace("withlogits", "") in name.replace("_", "")
    assert find_criterion(nn.KLDivLoss, known) is nn.KLDivLoss
    instance = nn.HuberLoss(delta=2.0)
    assert find_criterion(instance, known) is instance


@pytest.mark.parametrize(
    ("name", "known", "nearest"), [("mes", REGRESSION_CRITERIA, "mse"), ("bec", CLASSIFICATION_CRITERIA, "bce")]
)
def test_an_unknown_name_is_an_error_with_the_nearest(name, known, nearest):
    message = rf"'criterion' parameter must be one of .*Got '{name}' instead.*Did you mean '{nearest}'"
    with pytest.raises(ValueError, match=message):
        find_criterion(name, known)


def test_arguments_are_passed_on_and_checked():
    assert build_criterion(nn.HuberLoss, {"delta": 3.0}).delta == 3.0
    assert build_criterion(nn.HuberLoss, {}).reduction == "none"
    assert build_criterion(nn.HuberLoss, {"reduction": "sum"}).reduction == "sum"
    instance = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert build_criterion(instance, {}) is instance
    with pytest.raises(UnknownParameterError, match=r"criterion HuberLoss has no parameter 'detla'. Did you mean 'delta'"):
        build_criterion(nn.HuberLoss, {"detla": 3.0})


@pytest.mark.parametrize("name", ALL)
def test_the_mean_without_weights_is_torchs(name):
    cls = ALL[name]
    outputs, targets = batch(cls)
    criterion = build_criterion(cls, {})
    torch.testing.assert_close(mean_loss(criterion, outputs, targets), cls()(outputs, targets))
    assert row_losses(criterion, outputs, targets).shape == (6,)


@pytest.mark.parametrize("name", ALL)
@given(weights=st.lists(st.integers(0, 5), min_size=6, max_size=6).filter(any))
def test_weights_are_repetitions(name, weights):
    cls, weights = ALL[name], torch.tensor(weights)
    outputs, targets = batch(cls)
    criterion = build_criterion(cls, {})
    weighted = mean_loss(criterion, outputs, targets, weights / weights.float().mean())
    repeated = mean_loss(criterion, outputs.repeat_interleave(weights, 0), targets.repeat_interleave(weights, 0))
    torch.testing.assert_close(weighted, repeated)


@pytest.mark.parametrize("name", ALL)
def test_the_mean_of_batches_is_the_mean_of_all_rows(name):
    """Weights have the mean one over the training rows, not over a batch."""
    outputs, targets = batch(ALL[name], n_rows=8)
    weight = torch.tensor([1.0, 3.0, 1.5, 0.5, 0.0, 0.5, 1.0, 0.5])
    criterion = build_criterion(ALL[name], {})
    whole = mean_loss(criterion, outputs, targets, weight)
    halves = [mean_loss(criterion, outputs[rows], targets[rows], weight[rows]) for rows in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(sum(halves) / 2, whole)


def test_log_probabilities_and_probabilities_are_taken_where_a_criterion_wants_them():
    outputs, labels = batch(nn.CrossEntropyLoss)
    by_nll = mean_loss(build_criterion(nn.NLLLoss, {}), outputs, labels)
    torch.testing.assert_close(by_nll, mean_loss(build_criterion(nn.CrossEntropyLoss, {}), outputs, labels))
    outputs, indicators = batch(nn.BCEWithLogitsLoss)
    by_bce = mean_loss(build_criterion(nn.BCELoss, {}), outputs, indicators)
    torch.testing.assert_close(by_bce, mean_loss(build_criterion(nn.BCEWithLogitsLoss, {}), outputs, indicators))


class MeanOnly(nn.Module):
    """A criterion that knows no rows."""

    def forward(self, outputs, targets):
        return (outputs - targets).abs().max()


class Indicators(nn.Module):
    takes_indicators = True


def test_a_criterion_without_rows_takes_no_weights():
    outputs, targets = batch(nn.MSELoss)
    assert mean_loss(MeanOnly(), outputs, targets) == (outputs - targets).abs().max()
    with pytest.raises(InvalidInputError, match=r"reduction='none'\. MeanOnly gives one number per batch"):
        mean_loss(MeanOnly(), outputs, targets, torch.ones(6))


def test_who_takes_class_numbers():
    assert [name for name, cls in ALL.items() if takes_class_index(cls)] == ["cross_entropy", "multi_margin"]
    assert takes_class_index(nn.CrossEntropyLoss()) and not takes_class_index(nn.BCELoss())
    assert takes_class_index(MeanOnly) and not takes_class_index(Indicators) and not takes_class_index(Indicators())


@pytest.mark.parametrize("name", [name for name, cls in ALL.items() if not takes_class_index(cls)])
def test_shapes_that_would_broadcast_are_errors(name):
    criterion = build_criterion(ALL[name], {})
    for outputs, targets in [((6,), (6, 1)), ((6, 1), (6,)), ((6, 3), (6, 1)), ((1, 3), (6, 3))]:
        with pytest.raises(InvalidInputError, match="which would be broadcast"):
            mean_loss(criterion, torch.zeros(outputs), torch.zeros(targets))
