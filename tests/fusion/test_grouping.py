"""Which models share a stack, and where their weights lie in it."""

from collections import Counter
from itertools import pairwise
from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

from skpt.fusion.grouping import _MOST_BYTES, _share_out, make_groups, memory_per_model
from skpt.fusion.layout import PIECE, VECTOR, Layout
from tests.fusion.test_stack import make_job


@given(n_jobs=st.integers(1, 30), n_threads=st.integers(1, 4), hidden=st.sampled_from([8, 300, 700]))
def test_stacks_are_small_and_as_many_for_each_thread(n_jobs, n_threads, hidden):
    jobs = [make_job(0, n_samples=64, batch_size=64, n_features=64, hidden=(hidden, hidden))] * n_jobs
    groups = make_groups(jobs, n_threads, 1 << 40)
    size = memory_per_model(jobs[0])
    assert sum(map(len, groups)) == n_jobs
    assert max(map(len, groups)) <= max(1, _MOST_BYTES // size)
    if hidden == 8:
        assert len(groups) == 1, "steps that are mostly fixed cost are not shared out"
    else:
        assert len(groups) % n_threads == 0 or len(groups) == n_jobs
        assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert max(map(len, make_groups(jobs, n_threads, 3 * size * n_threads))) <= 3


@given(epochs=st.lists(st.integers(1, 5), min_size=1, max_size=40), n_groups=st.integers(1, 6))
def test_models_are_shared_out_evenly_and_neighbours_stay_together(epochs, n_groups):
    members = [SimpleNamespace(max_epochs=n, place=i) for i, n in enumerate(sorted(epochs, reverse=True))]
    groups = _share_out(members, n_groups)
    assert sorted(m.place for group in groups for m in group) == list(range(len(members)))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    for n in set(epochs):
        shares = [Counter(m.max_epochs for m in group)[n] for group in groups]
        assert max(shares) - min(shares) <= 1
    for group in groups:
        for a, b in pairwise(group):
            assert a.max_epochs > b.max_epochs or b.place == a.place + 1


@given(
    shapes=st.lists(st.lists(st.integers(1, 7), min_size=1, max_size=2), min_size=1, max_size=4),
    n_models=st.integers(1, 5),
    in_pieces=st.booleans(),
    by_model=st.booleans(),
    turns=st.booleans(),
)
def test_a_layout_has_a_place_for_every_number(shapes, n_models, in_pieces, by_model, turns):
    transposed = [i for i, shape in enumerate(shapes) if turns and len(shape) == 2]
    settings = {"in_pieces": in_pieces, "by_model": by_model, "transposed": transposed}
    layout = Layout([torch.Size(shape) for shape in shapes], n_models, torch.device("cpu"), **settings)
    flat = layout.zeros()
    assert len(flat) % VECTOR == 0
    blocks = layout.blocks(flat)
    for block in blocks:
        block += 1
    assert flat.max() == 1 and flat.sum() == sum(block.numel() for block in blocks), "no number lies in two blocks"
    values = [[10.0 * m + i for i in range(len(shapes))] for m in range(n_models)]
    for i, (block, shape) in enumerate(zip(layout.blocks(layout.spread_by_weight(values)), shapes, strict=True)):
        assert block.shape == (n_models, *shape)
        assert all((block[m] == values[m][i]).all() for m in range(n_models))
    for i, block in enumerate(blocks):
        for m in range(n_models):
            (piece,) = layout.pieces(flat, [i], m, m + 1)
            assert (i > 0 and by_model) or piece.data_ptr() == block[m].data_ptr()
            assert piece.sum() == sum(b[m].numel() for b in (blocks if by_model else [block]))
            assert not in_pieces or (piece.storage_offset() % PIECE == 0 and len(piece) % PIECE == 0)
    assert layout.spread([2.0] * n_models) == 2.0


@given(
    n_inputs=st.integers(1, 7),
    n_outputs=st.integers(1, 7),
    n_models=st.integers(1, 5),
    in_pieces=st.booleans(),
    after=st.lists(st.integers(1, 7), max_size=2),
)
def test_a_vector_may_be_one_more_column_of_the_matrix_before(n_inputs, n_outputs, n_models, in_pieces, after):
    shapes = [torch.Size(shape) for shape in [(n_outputs, n_inputs), (n_outputs,), *((n,) for n in after)]]
    settings = {"in_pieces": in_pieces, "by_model": True, "transposed": {0}, "joined": {1}}
    layout = Layout(shapes, n_models, torch.device("cpu"), **settings)
    flat = torch.arange(layout.length, dtype=torch.float32)
    matrix, vector, *others = layout.blocks(flat)
    assert torch.equal(layout.joint(flat, 0), torch.cat([matrix, vector.unsqueeze(2)], 2))
    numbers = torch.cat([block.flatten() for block in (matrix, vector, *others)])
    assert len(numbers.unique()) == len(numbers), "no number lies in two blocks"
    if in_pieces:
        for block in others:
            assert block[0].storage_offset() % PIECE == 0
