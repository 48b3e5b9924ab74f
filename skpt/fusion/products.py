"""Products of matrices by the fastest library, where the one behind `torch.bmm` leaves half of the processor unused.

Torch's builds for x86 multiply float32 by MKL, which keeps to AVX2 on AMD's processors. Two others, which are there anyway,
use AVX-512 on an EPYC of the fifth generation, 200 instead of 85 to 95 GFLOP/s on a core:

- OpenBLAS, by which numpy multiplies, has kernels for small matrices, as those of a batch mostly are. It must have found
  the processor's AVX-512, which ``OPENBLAS_CORETYPE`` can forbid;
- oneDNN, which is in the same builds of torch, for large ones: a call costs some 10 us more.

Which library computes a product depends on the machine and on the product's sizes alone, never on how many models there
are: a model's numbers do not depend on its company.
"""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_info
from torch import Tensor

from skpt._compat import find_onednn_linear

__all__ = ["choose", "gradient_of_weight", "linear"]

# Multiplications of a product from which oneDNN is faster (25 us by MKL), and from which OpenBLAS has no kernels for small
# matrices. It shares larger products out between threads that wait for each other, which is slow beside any other work.
LARGE = 1_000_000

# Multiplications of a product below which OpenBLAS never shares it out, whatever kernel it takes.
SMALL = 1 << 19

# What OpenBLAS calls the processors for which it has kernels for small matrices.
SMALL_MATRIX_CORES = {"SkylakeX", "Cooperlake", "SapphireRapids"}


# AMD's first family of processors that computes with all 512 bits at once (Zen 5); the one before does so by halves.
FAMILY = 26


@cache
def _is_supported() -> bool:
    """Whether the processor has AVX-512 which MKL does not use."""
    if not (torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")):
        return False
    processor = _processor()
    family = re.search(r"family\s*:?\s*(\d+)", processor, re.IGNORECASE)
    return "AuthenticAMD" in processor and family is not None and int(family[1]) >= FAMILY


@cache
def _numpy_has_kernels() -> bool:
    """Whether numpy multiplies by an OpenBLAS that uses AVX-512."""
    libraries = [library for library in threadpool_info() if library["internal_api"] == "openblas"]
    of_numpy = [library for library in libraries if "numpy" in library["filepath"]] or libraries  # conda has one for all
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {}).get("name", "")
    is_openblas = "openblas" in blas or blas in ("blas", "cblas")  # conda's name, whatever stands behind it
    return is_openblas and bool(of_numpy) and all(lib.get("architecture") in SMALL_MATRIX_CORES for lib in of_numpy)


def _processor() -> str:
    """Describe the processor: its vendor and its family."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return platform.processor()  # Windows: "AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD"


def choose(n_rows: int, n_in: int, n_out: int, device: torch.device, *, transposed: bool = False) -> str:
    """Choose the library for a product of a linear layer: its outputs, the gradient of its weights, or that of its inputs.

    Parameters
    ----------
    n_rows, n_in, n_out : int
        Rows of a batch, inputs and outputs of the layer.
    device : torch.device
        Where they are.
    transposed : bool, default=False
        Whether the second factor is a transposed view, for which OpenBLAS has no kernel for small matrices.

    Returns
    -------
    str
        "torch", "numpy" or "onednn". The same for any number of models.
    """
    size, narrowest = n_rows * n_in * n_out, min(n_rows, n_in, n_out)
    if device.type != "cpu" or not _is_supported():
        return "torch"
    if size >= LARGE:
        is_there = torch.backends.mkldnn.enabled and find_onednn_linear() is not None
        return "onednn" if is_there and narrowest >= 16 else "torch"
    # Products with a vector are another function of OpenBLAS, which is slow where the result is a matrix.
    is_fast = narrowest > 1 and (size < SMALL or not transposed)
    return "numpy" if is_fast and _numpy_has_kernels() else "torch"


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
