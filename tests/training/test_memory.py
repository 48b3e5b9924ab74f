"""Memory that steps free, and take again."""

import platform
import subprocess
import sys

import pytest

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
