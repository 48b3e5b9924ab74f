"""The guards of conftest.py: what they let through and what they stop."""

import random
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests import conftest


@pytest.mark.parametrize(
    ("run_slow", "markexpr", "kept"),
    [(False, "", ["quick"]), (True, "", ["quick", "slow"]), (False, "slow", ["quick", "slow"])],
)
def test_slow_tests_wait_to_be_asked_for(run_slow, markexpr, kept):
    deselected = []
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    config = SimpleNamespace(option=SimpleNamespace(run_slow=run_slow, markexpr=markexpr), hook=hook)
    quick, slow = SimpleNamespace(name="quick", keywords={}), SimpleNamespace(name="slow", keywords={"slow": True})
    items = [quick, slow]
    conftest.pytest_collection_modifyitems(config, items)
    assert [item.name for item in items] == kept
    assert [item.name for item in (*items, *deselected)] == ["quick", "slow"]


@pytest.mark.parametrize(
    ("library", "draw"),
    [
        ("random", random.random),
        ("numpy", np.random.rand),
        ("torch", lambda: torch.rand(1)),
        ("torch", lambda: torch.nn.Linear(2, 2)),
    ],
)
def test_a_draw_from_a_global_generator_is_noticed(library, draw):
    before = conftest.global_generator_states()
    draw()
    after = conftest.global_generator_states()
    assert [name for name in before if before[name] != after[name]] == [library]


@pytest.mark.usefixtures("global_generators_untouched")
def test_draws_from_own_generators_are_let_through():
    random.Random(0).random()
    np.random.default_rng(0).random()
    torch.rand(1, generator=torch.Generator().manual_seed(0))


FIRST_DRAWS = set()


@pytest.mark.parametrize("test", ["this one", "the next"])
def test_global_generators_are_put_back_after_each_test(test):
    FIRST_DRAWS.add((random.random(), float(np.random.rand()), float(torch.rand(1))))  # noqa: NPY002
    assert len(FIRST_DRAWS) == 1


def test_connections_that_leave_the_machine_are_refused():
    address = ("192.0.2.1", 80)  # RFC 5737: an address that documents use and nobody has
    with pytest.raises(PermissionError, match="tests do not use the network"):
        socket.create_connection(address, timeout=1)
    with socket.socket() as client, pytest.raises(PermissionError, match="tests do not use the network"):
        client.connect(address)
    with pytest.raises(PermissionError, match="tests do not use the network"):
        socket.getaddrinfo("example.org", 80)


def test_connections_within_the_machine_are_let_through():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=5):
        pass
