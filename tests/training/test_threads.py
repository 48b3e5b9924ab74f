"""Torch's threads are taken down while small work runs, and always put back."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from skpt import MLPRegressor
from skpt.modules import CNNModule, MLPModule
from skpt.training.batches import Batches
from skpt.training.job import TrainingJob
from skpt.training.threads import all_threads, one_thread, threads_for


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_count_is_one_inside_and_put_back():
    with one_thread():
        assert torch.get_num_threads() == 1
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyboardInterrupt), one_thread():
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 2


def test_all_threads_are_back_for_a_while_inside():
    with all_threads():
        assert torch.get_num_threads() == 2
    with one_thread():
        with pytest.raises(KeyboardInterrupt), all_threads():
            assert torch.get_num_threads() == 2
            with one_thread():
                assert torch.get_num_threads() == 1
            assert torch.get_num_threads() == 2
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def counts_in_a_new_thread(steps: list[threading.Event]) -> tuple[threading.Thread, list[int]]:
    """Torch's count in a thread before, inside and after; it enters and leaves when told."""
    counts = []
    may_enter, is_inside, may_leave = steps

    def work():
        may_enter.wait(10)
        counts.append(torch.get_num_threads())
        with one_thread():
            counts.append(torch.get_num_threads())
            is_inside.set()
            may_leave.wait(10)
        counts.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    return thread, counts


@pytest.mark.parametrize("started_inside", [False, True])
@pytest.mark.parametrize("leaves_first", [False, True])
def test_each_thread_gets_its_count_back_whoever_leaves_first(started_inside, leaves_first):
    steps = may_enter, is_inside, may_leave = [threading.Event() for _ in range(3)]
    assert torch.get_num_threads() == 2
    if not started_inside:
        thread, counts = counts_in_a_new_thread(steps)
    with one_thread():
        if started_inside:
            thread, counts = counts_in_a_new_thread(steps)
        may_enter.set()
        assert is_inside.wait(10)
        assert torch.get_num_threads() == 1
        if leaves_first:
            may_leave.set()
            thread.join(10)
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    may_leave.set()
    thread.join(10)
    assert counts[1:] == [1, 2]
    assert torch.get_num_threads() == 2
    later = []
    another = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    another.start()
    another.join(10)
    assert later == [2], "and so does a thread that starts later"


def job(module, n_rows, shape=(10,)):
    batches = Batches(torch.zeros(n_rows, *shape), torch.zeros(n_rows), None, n_rows)
    return TrainingJob(module, batches, nn.MSELoss(), torch.optim.SGD(module.parameters()), max_epochs=1)


@pytest.mark.parametrize(
    ("module", "n_rows", "shape", "n_threads"),
    [
        (MLPModule(10, 1), 32, (10,), 1),
        (MLPModule(10, 1, (1000, 1000)), 4096, (10,), 2),
        (nn.Linear(10, 1), 32, (10,), 1),
        (CNNModule((1, 5, 5), 1, (4,)), 32, (1, 5, 5), 1),
        (CNNModule((1, 28, 28), 1), 32, (1, 28, 28), 2),
        (nn.LSTM(4, 8), 32, (12, 4), 1),
        (nn.LSTM(4, 64), 32, (96, 4), 2),
    ],
)
def test_only_small_work_runs_in_one_thread(module, n_rows, shape, n_threads):
    with threads_for(job(module, n_rows, shape)) as nothing:
        assert torch.get_num_threads() == n_threads
        assert nothing is None
    with one_thread(), threads_for(job(module, n_rows, shape)):
        assert torch.get_num_threads() == n_threads, "in a task of a fused call too"


@pytest.mark.parametrize(("hidden", "n_rows", "n_threads"), [(10, 20, 1), (1000, 300, 2)])
def test_only_small_predictions_are_made_in_one_thread(hidden, n_rows, n_threads):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, 10))
    model = MLPRegressor((hidden, hidden), max_epochs=1, random_state=0).fit(X[:20], X[:20, 0])
    counts = []
    model.module_.register_forward_hook(lambda *_: counts.append(torch.get_num_threads()))
    model.predict(X)
    assert set(counts) == {n_threads}
    assert torch.get_num_threads() == 2
