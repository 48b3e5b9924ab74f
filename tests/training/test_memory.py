"""Memory that steps free, and take again."""

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from skpt import MLPRegressor

# What steps do: blocks are taken, written to and freed. Counted is how often the system gave a page in the last of them.
PROGRAM = """
import resource
import numpy as np
from skpt.training.memory import keep_freed_memory
{first}
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [np.ones(1 << 20) for _ in range(3)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
LSTM = """
from skpt import RNNClassifier
RNNClassifier(max_epochs=1).fit(np.zeros((4, 3, 2)), [0, 1, 0, 1])
"""


def pages(first: str) -> int:
    run = subprocess.run([sys.executable, "-c", PROGRAM.format(first=first)], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32, reason="how 64-bit glibc frees")
def test_what_was_freed_stays_with_the_process():
    assert pages("keep_freed_memory()") < 100  # without, 1,000 and more
    assert pages(LSTM) < 100


def pages_at(depth: int, function) -> int:
    """How often the system gives a page while a function runs, called by so many others."""
    import resource  # not on Windows

    if depth:
        return pages_at(depth - 1, function)
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    function()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="counts a thread's page faults")
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.Adamax])  # the second one's are not stacked
def test_steps_take_no_memory_of_the_system_at_any_depth(optimizer):
    X = np.random.default_rng(0).standard_normal((128, 3)).astype(np.float32)
    net = MLPRegressor((8,), max_epochs=2, batch_size=1, optimizer=optimizer).fit(X, X[:, 0])
    # Where Python's memory for frames ends just below the 256 steps, each of them takes some of the system.
    assert max(pages_at(depth, lambda: net.fit(X, X[:, 0])) for depth in range(0, 120, 2)) < 250
