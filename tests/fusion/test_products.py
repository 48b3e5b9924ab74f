"""Products by oneDNN and by numpy against products in double precision, and who is chosen."""

import contextlib
import platform
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skpt._compat import find_onednn_linear
from skpt.fusion import products
from skpt.fusion.layers import Rows, stack_layer
from skpt.modules.layers import Linear
from tests.fusion.comparison import run_backward, run_forward

needs_onednn = pytest.mark.skipif(find_onednn_linear() is None, reason="torch is built without oneDNN")
CPU = torch.device("cpu")
EPYC = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: "


@contextlib.contextmanager
def always(library: str):
    """Products of any size by one library, on any processor."""
    with mock.patch.object(products, "choose", lambda *sizes, **settings: library):
        yield


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_is_product(result: torch.Tensor, a: torch.Tensor, b: torch.Tensor, offset=0.0) -> None:
    a, b = a.double(), b.double()
    bound = 1e-6 * (a.abs() @ b.abs() + 1.0)
    assert bool(((result.double() - (a @ b + offset)).abs() <= bound).all())


@needs_onednn
@given(n_rows=st.integers(1, 70), n_in=st.integers(1, 70), n_out=st.integers(1, 70), seed=st.integers(0, 9))
def test_products_of_any_shape(n_rows, n_in, n_out, seed):
    x, weight = numbers(n_rows, n_in, seed=seed), numbers(n_out, n_in, seed=seed + 1)
    bias, g = numbers(n_out, seed=seed + 2), numbers(n_rows, n_out, seed=seed + 3)
    assert_is_product(products.linear(x, weight), x, weight.t())
    assert_is_product(products.linear(x, weight, bias), x, weight.t(), bias.double())
    assert_is_product(products.linear(g, weight.t()), g, weight)
    assert_is_product(products.linear(g.t().contiguous().t(), weight.t()), g, weight)
    gradient = products.gradient_of_weight(g.t(), x.t())
    assert gradient.shape == weight.shape
    assert_is_product(gradient, g.t(), x)


@pytest.mark.parametrize("library", ["torch", "numpy", pytest.param("onednn", marks=needs_onednn)])
@pytest.mark.parametrize("inputs_first", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@given(n_models=st.integers(1, 3), n_in=st.integers(1, 40), n_out=st.integers(1, 40), seed=st.integers(0, 9))
def test_layers(bias, last, inputs_first, library, n_models, n_in, n_out, seed):
    layers = [Linear(n_in, n_out, bias, generator=torch.Generator().manual_seed(seed + m)) for m in range(n_models)]
    parameters = [list(layer.parameters()) for layer in layers]
    blocks = [torch.stack([p.detach() for p in same]) for same in zip(*parameters, strict=True)]
    grads = [torch.full_like(block, torch.nan) for block in blocks]
    if inputs_first:
        blocks[0], grads[0] = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (blocks[0], grads[0]))
    with always(library), torch.no_grad():
        layer = stack_layer(layers, list(zip(blocks, grads, strict=True)), last=last)
        for n_rows in (8, 5, 8):
            x, rows = numbers(n_models, n_rows, n_in, seed=seed), Rows(1 / n_rows, None, [n_rows] * n_models)
            bound = run_forward(layer, x, rows)
            outputs = bound.y.clone()
            g = numbers(*outputs.shape, seed=seed + 1)
            gx = run_backward(bound, g.clone())
            for m in range(n_models):
                out_m, g_m = (outputs[m].t(), g[m].t()) if last else (outputs[m], g[m])
                assert_is_product(out_m, x[m], blocks[0][m].t(), blocks[1][m].double() if bias else 0.0)
                assert_is_product(gx[m], g_m, blocks[0][m])
                assert_is_product(grads[0][m], g_m.t(), x[m])
                if bias:
                    torch.testing.assert_close(grads[1][m], g_m.sum(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("library", ["torch", "numpy", pytest.param("onednn", marks=needs_onednn)])
def test_frozen_weights_get_no_gradient(library):
    layers = [Linear(4, 3, generator=torch.Generator().manual_seed(0))]
    weight, bias = (p.detach().unsqueeze(0) for p in layers[0].parameters())
    with always(library), torch.no_grad():
        layer = stack_layer(layers, [(weight, None), (bias, None)], last=False)
        x, g = numbers(1, 5, 4), numbers(1, 5, 3)
        bound = run_forward(layer, x, Rows(0.2, None, [5]))
        assert_is_product(run_backward(bound, g)[0], g[0], weight[0])


@needs_onednn
def test_who_is_chosen():
    def chosen(*sizes, device=CPU, kernels=True, transposed=False):
        with mock.patch.object(products, "_numpy_has_kernels", lambda: kernels):
            return products.choose(*sizes, device, transposed=transposed)

    with mock.patch.object(products, "_is_supported", lambda: True):
        assert chosen(100, 100, 100) == chosen(256, 64, 64) == "onednn"
        assert chosen(100, 100, 99) == chosen(240, 64, 64) == "numpy"
        assert chosen(240, 64, 64, kernels=False) == "torch"
        assert chosen(240, 64, 64, transposed=True) == "torch"  # OpenBLAS would use threads
        assert chosen(127, 64, 64, transposed=True) == "numpy"
        assert chosen(256, 64, 1) == "torch"  # a product with a vector
        assert chosen(65536, 2, 64) == "torch"  # copies would take longer than the products
        assert chosen(240, 64, 64, device=torch.device("cuda")) == "torch"
        assert chosen(256, 64, 64, device=torch.device("cuda")) == "torch"
        with mock.patch.object(torch.backends.mkldnn.__class__, "enabled", False):  # `flags` warns of GPUs
            assert chosen(256, 64, 64) == "torch"
        with mock.patch.object(products, "find_onednn_linear", lambda: None):
            assert chosen(256, 64, 64) == "torch"
    with mock.patch.object(products, "_is_supported", lambda: False):
        assert chosen(256, 64, 64) == chosen(240, 64, 64) == "torch"


@pytest.mark.parametrize(
    ("processor", "capability", "pays"),
    [
        (f"{EPYC}26", "AVX512", True),
        ("AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD", "AVX512", True),
        (f"{EPYC}25", "AVX512", False),  # Zen 4
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6", "AVX512", False),  # MKL uses AVX-512 itself
        ("vendor_id\t: AuthenticAMD", "AVX512", False),
        (f"{EPYC}26", "AVX2", False),
    ],
)
def test_processors(processor, capability, pays):
    with (
        mock.patch.object(products, "_processor", lambda: processor),
        mock.patch.object(torch.backends.mkl, "is_available", lambda: True),
        mock.patch.object(torch.backends.cpu, "get_cpu_capability", lambda: capability),
    ):
        assert products._is_supported.__wrapped__() is pays


NUMPY = {"internal_api": "openblas", "filepath": "/numpy.libs/libscipy_openblas64_.so", "architecture": "SkylakeX"}
SCIPY = {"internal_api": "openblas", "filepath": "/scipy.libs/libscipy_openblas.so", "architecture": "Haswell"}
CONDA = {"internal_api": "openblas", "filepath": "/lib/libopenblas.so.0", "architecture": "Cooperlake"}
OPENMP = {"internal_api": "openmp", "filepath": "/torch/lib/libgomp.so"}


@pytest.mark.parametrize(
    ("libraries", "blas", "has"),
    [
        ([OPENMP, NUMPY, SCIPY], "scipy-openblas", True),
        ([CONDA], "blas", True),
        ([{**NUMPY, "architecture": "Haswell"}], "scipy-openblas", False),
        ([SCIPY], "accelerate", False),
        ([OPENMP], "mkl", False),
        ([OPENMP], "scipy-openblas", False),
    ],
)
def test_libraries_of_numpy(libraries, blas, has):
    with (
        mock.patch.object(products, "threadpool_info", lambda: libraries),
        mock.patch.object(products.np, "show_config", lambda mode: {"Build Dependencies": {"blas": {"name": blas}}}),
    ):
        assert products._numpy_has_kernels.__wrapped__() is has


@pytest.mark.skipif(not products._numpy_has_kernels(), reason="numpy has no kernels for small matrices here")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", [(100, 100, 99), (999, 10, 100), (32, 312, 100), (8, 100, 1200), (81, 80, 80)])
def test_openblas_computes_in_one_thread_what_numpy_is_chosen_for(sizes, transposed):
    """Threads that share a product out take processor time beyond that of the one that asks for it."""
    n_rows, n_in, n_out = sizes
    if products.choose(*sizes, CPU, transposed=transposed) != "numpy":
        pytest.skip("torch's or oneDNN's")
    a = np.ones((4, n_rows, n_in), np.float32)
    b = np.ones((4, n_out, n_in), np.float32).swapaxes(1, 2) if transposed else np.ones((4, n_in, n_out), np.float32)
    whole, own = time.process_time(), time.thread_time()
    for _ in range(200):
        np.matmul(a, b)
    own, whole = time.thread_time() - own, time.process_time() - whole
    assert whole < 1.2 * own + 0.005


def test_where_linux_says_nothing_the_processor_is_asked_for_by_pythons_means():
    with (
        mock.patch.object(Path, "read_text", side_effect=FileNotFoundError),
        mock.patch.object(platform, "processor", lambda: "AMD64 Family 26, AuthenticAMD"),
    ):
        assert products._processor() == "AMD64 Family 26, AuthenticAMD"


@needs_onednn
def test_torch_computes_the_same():
    """The size from which oneDNN computes must not be seen in the numbers, beyond rounding."""
    x, layer = numbers(256, 64), Linear(64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(products.linear(x, layer.weight, layer.bias), layer(x), rtol=1e-5, atol=1e-6)
