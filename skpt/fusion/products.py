"""Products of large matrices by oneDNN, where the library behind `torch.bmm` leaves half of the processor unused.

Torch's builds for x86 multiply float32 by MKL, which keeps to AVX2 on AMD's processors. oneDNN, which is in the same builds,
uses AVX-512: 200 instead of 95 GFLOP/s on a core of an EPYC of the fifth generation. A call costs some 10 us more, so that
only large products gain. Which library computes a product depends on the processor and on the product's sizes
alone, never on how many models there are: a model's numbers do not depend on its company.
"""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from skpt._compat import find_onednn_linear

__all__ = ["gradient_of_weight", "is_faster", "linear"]

# Multiplications of a product from which oneDNN is faster: 25 us by MKL.
WORTH = 1 << 20


# AMD's first family of processors that computes with all 512 bits at once (Zen 5); the one before does so by halves.
FAMILY = 26


@cache
def _is_supported() -> bool:
    """Whether the processor has AVX-512 which MKL does not use, and torch was built with oneDNN."""
    if not (torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")):
        return False
    processor = _processor()
    family = re.search(r"family\s*:?\s*(\d+)", processor, re.IGNORECASE)
    is_amd = "AuthenticAMD" in processor and family is not None and int(family[1]) >= FAMILY
    return is_amd and find_onednn_linear() is not None


def _processor() -> str:
    """Describe the processor: its vendor and its family."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return platform.processor()  # Windows: "AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD"


def is_faster(n_rows: int, n_in: int, n_out: int, device: torch.device) -> bool:
    """Say whether oneDNN is to compute the products of a linear layer.

    Parameters
    ----------
    n_rows, n_in, n_out : int
        Rows of a batch, inputs and outputs of the layer.
    device : torch.device
        Where they are.

    Returns
    -------
    bool
        The same for any number of models.
    """
    is_large = n_rows * n_in * n_out >= WORTH and min(n_rows, n_in, n_out) >= 16
    return is_large and device.type == "cpu" and torch.backends.mkldnn.enabled and _is_supported()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Give ``x @ weight.T + bias`` by oneDNN.

    Parameters
    ----------
    x : Tensor of shape (n_rows, n_in)
        May be a transposed view.
    weight : Tensor of shape (n_out, n_in)
        May be a transposed view.
    bias : Tensor of shape (n_out,), default=None
        None for none.

    Returns
    -------
    Tensor of shape (n_rows, n_out)
        New.
    """
    return find_onednn_linear()(x, weight, bias, "none", [], "")


def gradient_of_weight(g: Tensor, x: Tensor) -> Tensor:
    """Give ``g @ x.T`` by oneDNN, which copies a transposed first factor: that is the smaller one here.

    Parameters
    ----------
    g : Tensor of shape (n_out, n_rows)
        Gradient with respect to the outputs, a transposed view.
    x : Tensor of shape (n_in, n_rows)
        Inputs, a transposed view.

    Returns
    -------
    Tensor of shape (n_out, n_in)
        New, perhaps a transposed view.
    """
    return linear(x, g).t() if 2 * len(x) <= len(g) else linear(g, x)
