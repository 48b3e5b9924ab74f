"""What every test stands on: slow tests only when asked for, no network, no trace left in the global generators."""

import os
import random
import signal
import socket

# Before anything imports matplotlib: tests draw without a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

# A shell's background job ignores Ctrl-C, and so would the processes that tests begin and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import torch
from hypothesis import settings

# The same examples in every run; and a fit takes as long as it takes, pytest-timeout ends what hangs.
settings.register_profile("skpt", derandomize=True, deadline=None)
settings.load_profile("skpt")

LOOPBACK = {"localhost", "127.0.0.1", "::1", "", None}


def pytest_addoption(parser):
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too, as .ci/run does")


def pytest_collection_modifyitems(config, items):
    """Deselect slow tests, unless --run-slow or a marker expression of the caller's own is given."""
    if config.option.run_slow or config.option.markexpr:
        return
    slow = [item for item in items if "slow" in item.keywords]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if "slow" not in item.keywords]


def global_generator_states() -> dict:
    """State of every generator that the process shares, in comparable form."""
    # The legacy functions are the point here: they alone reach numpy's global generator.
    name, key, *rest = np.random.get_state()  # noqa: NPY002
    states = {
        "random": random.getstate(),
        "numpy": (name, key.tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = tuple(state.numpy().tobytes() for state in torch.cuda.get_rng_state_all())
    return states


@pytest.fixture(autouse=True)
def _tests_are_independent():
    """Put the global generators back after each test, so that no result depends on the order of the tests."""
    python, numpy, torch_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.set_rng_state(torch_cpu)


@pytest.fixture
def global_generators_untouched():
    """Fail the test if it moves Python's, numpy's or torch's global generator: for what must use its own."""
    before = global_generator_states()
    yield
    moved = [name for name, state in global_generator_states().items() if state != before.get(name, state)]
    assert not moved, f"the global generators of {', '.join(moved)} were moved"


@pytest.fixture(autouse=True, scope="session")
def _no_network():
    """Refuse connections and look-ups that leave this machine. Not a wall: a test that downloads should fail here."""
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def connect_here(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            raise PermissionError(f"tests do not use the network; this one connects to {address!r}")
        return connect(self, address)

    def look_up_here(host, *args, **kwargs):
        if host not in LOOPBACK:
            raise PermissionError(f"tests do not use the network; this one looks up {host!r}")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        patch.setattr(socket, "getaddrinfo", look_up_here)
        yield
