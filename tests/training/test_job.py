"""What training should undercut, by the criterion itself on zeros."""

import pytest
import torch
from torch import nn

from skpt.training.batches import Batches
from skpt.training.job import loss_of_zeros

generator = torch.Generator().manual_seed(0)
numbers, classes = torch.randn(50, 3, generator=generator), torch.randint(3, (50,), generator=generator)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("criterion", "y"),
    [
        (nn.MSELoss(reduction="none"), numbers),
        (nn.MSELoss(reduction="none"), numbers[:, :1]),
        (nn.L1Loss(reduction="none"), numbers),
        (nn.BCEWithLogitsLoss(reduction="none"), (numbers > 0).float()),
        (nn.CrossEntropyLoss(reduction="none"), classes),
        (nn.CrossEntropyLoss(reduction="none", label_smoothing=0.2), classes),
        (nn.CrossEntropyLoss(reduction="none", weight=torch.tensor([1.0, 2.0, 5.0])), classes),
        (nn.CrossEntropyLoss(reduction="none", ignore_index=1), classes),
        (nn.NLLLoss(reduction="none"), classes),
        (nn.MSELoss(reduction="sum"), numbers),
        (nn.CrossEntropyLoss(reduction="sum"), classes),
        (nn.CrossEntropyLoss(reduction="mean"), classes),
        (nn.NLLLoss(reduction="none", weight=torch.tensor([1.0, 2.0, 5.0])), classes),
    ],
    ids=str,
)
def test_loss_of_zeros(criterion, y, weighted):
    shape = y.shape[1:] or (3,)
    weight = torch.rand(50, generator=torch.Generator().manual_seed(1)) if weighted else None
    outputs = torch.zeros(50, *shape)
    losses = criterion(torch.log_softmax(outputs, 1) if isinstance(criterion, nn.NLLLoss) else outputs, y)
    if losses.ndim:
        losses = losses.reshape(50, -1).mean(1)
    expected = (losses if weight is None or not losses.ndim else losses * weight).mean()
    found = loss_of_zeros(criterion, Batches(torch.zeros(50, 2), y, weight, 10, None), tuple(shape))
    assert found == pytest.approx(expected.item(), rel=1e-6)
