"""Random streams: independent, copied whole, and nothing of the global generators."""

import copy
import pickle
import threading
import time

import numpy as np
import pytest
import torch

from skpt.training.randomness import RandomStreams, borrowed_global_generator, draw_seed

pytestmark = pytest.mark.usefixtures("global_generators_untouched")


def draws(streams: RandomStreams) -> dict[str, list[float]]:
    return {name: torch.rand(3, generator=getattr(streams, name)).tolist() for name in RandomStreams.NAMES}


def test_a_seed_gives_the_same_streams_and_each_its_own_numbers():
    first, same, other = draws(RandomStreams(5)), draws(RandomStreams(5)), draws(RandomStreams(6))
    assert first == same
    all_numbers = [number for each in (first, other) for numbers in each.values() for number in numbers]
    assert len(set(all_numbers)) == len(all_numbers)


def test_weights_start_where_torchs_seed_starts():
    with torch.random.fork_rng():
        torch.manual_seed(42)
        expected = torch.rand(4)
    assert torch.equal(torch.rand(4, generator=RandomStreams(42).weights), expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda streams: pickle.loads(pickle.dumps(streams))])
def test_a_copy_goes_on_as_the_original(copied):
    streams = RandomStreams(1)
    draws(streams)
    torch.randn(5, generator=streams.noise)  # normal numbers come in pairs, of which one waits
    unused = copied(RandomStreams(1))
    assert list(vars(unused)) == ["seed"]  # 5 kB a generator
    assert draws(unused) == draws(RandomStreams(1))
    twin = copied(streams)
    assert twin.seed == streams.seed
    assert draws(twin) == draws(streams)
    assert torch.equal(torch.randn(3, generator=twin.noise), torch.randn(3, generator=streams.noise))


def test_seeds_are_drawn_as_scikit_learn_means_them():
    assert draw_seed(7) == draw_seed(np.int64(7)) == 7
    state, same = np.random.RandomState(3), np.random.RandomState(3)
    first, second = draw_seed(state), draw_seed(state)
    assert first != second
    assert [first, second] == [draw_seed(same), draw_seed(same)]
    assert len({draw_seed(None) for _ in range(20)}) == 20
    with pytest.raises(ValueError, match="Seed must be between"):
        draw_seed(-1)
    with pytest.raises(ValueError, match="cannot be used to seed"):
        draw_seed("seven")


def test_the_global_generator_is_borrowed_and_given_back():
    def borrowed(seed):
        with borrowed_global_generator(torch.Generator().manual_seed(seed)):
            return torch.rand(2).tolist()

    assert borrowed(1) == borrowed(1) != borrowed(2)
    own = torch.Generator().manual_seed(1)
    numbers = []
    for _ in range(2):
        with borrowed_global_generator(own):
            numbers.append(torch.rand(1).item())
    assert numbers[0] != numbers[1], "the generator moves on"
    with pytest.raises(RuntimeError, match="inside"), borrowed_global_generator(own):
        torch.rand(1)
        raise RuntimeError("inside")


def test_one_thread_borrows_at_a_time():
    results = {}

    def work(seed):
        with borrowed_global_generator(torch.Generator().manual_seed(seed)):
            numbers = []
            for _ in range(20):
                numbers.append(torch.rand(1).item())
                time.sleep(0.0005)  # the others run
            results[seed] = numbers

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = dict(results)
    for seed in range(4):
        work(seed)
    assert results == together
