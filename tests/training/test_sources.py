"""RowSource: reads as an array does, in parts and by index; what is left in place, and that mapped pages are let go."""

import mmap
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skorch.dataset import Dataset as SkorchDataset
from skorch.helper import SliceDataset
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from skpt.datasets import make_windows
from skpt.exceptions import InvalidInputError
from skpt.training import sources
from skpt.training.features import FeatureScaler
from skpt.training.rows import equal_rows, hold_out
from skpt.training.sources import ArrayRows, DatasetRows, RowSource, let_go_of_pages, take_rows, unpack

X = np.random.default_rng(0).normal(size=(23, 2, 3))


class Items(Dataset):
    """Pairs of a tensor and a number; counts what is read."""

    def __init__(self, inputs, targets):
        self.inputs, self.numbers, self.n_read = inputs, targets, 0

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        self.n_read += 1
        return torch.from_numpy(np.array(self.inputs[i])), self.numbers[i]


class Batched(Items):
    """Gives several at once."""

    def __getitems__(self, rows):
        return [self[i] for i in rows]


def source_of(kind: str) -> RowSource:
    if kind == "array":
        return RowSource(ArrayRows(X))
    if kind == "taken":
        return RowSource(ArrayRows(np.repeat(X, 2, axis=0)[::-1])).take(np.arange(45, -1, -2))
    if kind == "mapped":
        return RowSource(ArrayRows(X / 2)).mapped(lambda part: part * 2)
    return RowSource(DatasetRows({"items": Items, "batched": Batched}[kind](X, range(23)), lambda item: item[0]))


KINDS = ["array", "taken", "mapped", "items", "batched"]
indices = st.one_of(
    st.integers(-23, 22),
    st.slices(23),
    st.lists(st.integers(-23, 22), min_size=1, max_size=30).map(np.array),
    st.lists(st.booleans(), min_size=23, max_size=23).filter(any).map(np.array),
)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=indices, n_rows=st.integers(1, 30), data=st.data())
def test_it_reads_what_an_array_reads(kind, rows, n_rows, data):
    source = source_of(kind)
    assert source.shape == X.shape and source.ndim == 3 and len(source) == 23 and source.dtype == X.dtype
    if len(np.atleast_1d(X[rows])):
        np.testing.assert_array_equal(source[rows], X[rows])
    index = data.draw(st.lists(st.integers(0, 22), min_size=1, max_size=30).map(np.array))
    some = source.take(index).mapped(lambda part: part + 1)
    assert some.shape == (len(index), 2, 3)
    np.testing.assert_array_equal(some[:], X[index] + 1)
    for each, whole in [(source, X), (some, X[index] + 1)]:
        parts = list(each.parts(n_rows))
        assert max(map(len, parts)) <= n_rows
        np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("row", [23, -24])
def test_a_row_that_is_not_there_is_an_error(row):
    with pytest.raises(IndexError, match=f"row {row} of 23"):
        source_of("array")[row]


def test_to_take_rows_reads_none():
    items = Items(X, range(23))
    source = RowSource(DatasetRows(items, lambda item: item[0]))
    read = items.n_read
    half = take_rows(source, np.arange(10))
    assert items.n_read == read and len(half) == 10
    assert half[2:4].shape == (2, 2, 3) and items.n_read == read + 2
    np.testing.assert_array_equal(take_rows(X, np.arange(10)), X[:10])


def test_what_is_read_is_a_copy():
    source = source_of("array")
    for part in (source[:], source[[1, 2]], next(source.parts(5))):
        part *= 0
    assert (X != 0).all() and X.base is None


def test_items_of_several_shapes_are_refused():
    items = [np.zeros((2, n)) for n in (3, 3, 4)]
    source = RowSource(DatasetRows(items, lambda item: item))
    with pytest.raises(InvalidInputError, match=re.escape("must have one shape. Got (2, 3) and (2, 4).")):
        source[:]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than the machine has cores
@pytest.mark.parametrize("taken", [False, True])
def test_worker_processes_of_a_loader_read_the_whole(taken):
    items = Items(X, range(23))
    state = torch.get_rng_state()
    storage = DatasetRows(items, first, DataLoader(items, num_workers=2))
    index = np.array([5, 2, 2, 22]) if taken else None
    source = RowSource(storage, index)
    before = items.n_read
    np.testing.assert_array_equal(np.concatenate(list(source.parts(3))), X if index is None else X[index])
    assert items.n_read == before  # not in this process
    assert torch.equal(torch.get_rng_state(), state)
    assert (source.loader is None) == taken


def first(item):
    return item[0]


# ---------------------------------------------------------------------- laws of what reads sources


@pytest.mark.parametrize("weight", [None, np.arange(1.0, 24)])
@pytest.mark.parametrize("n_at_once", [10, 1 << 22])
def test_scales_are_those_of_the_array(weight, n_at_once, monkeypatch):
    monkeypatch.setattr("skpt.training.features._NUMBERS_AT_ONCE", n_at_once)
    flat = X.reshape(23, 6)
    for make, rows in [(FeatureScaler.from_rows, flat), (lambda a, w: FeatureScaler.from_places(a, w, axis=1), X)]:
        of_array, of_source = make(rows, weight), make(RowSource(ArrayRows(rows)), weight)
        np.testing.assert_array_equal(of_source.mean, of_array.mean)
        np.testing.assert_array_equal(of_source.scale, of_array.scale)
    of_rows = FeatureScaler.from_rows(flat, weight)
    np.testing.assert_allclose(of_rows.mean, np.average(flat, axis=0, weights=weight), rtol=1e-12)
    variance = np.average((flat - of_rows.mean) ** 2, axis=0, weights=weight)
    np.testing.assert_allclose(of_rows.scale, np.sqrt(variance), rtol=1e-12)


def test_rows_held_out_are_those_of_the_array():
    rows, y = np.repeat(X, 3, axis=0), np.repeat(np.arange(23.0), 3)
    source = RowSource(ArrayRows(rows))
    for ours, theirs in zip(equal_rows(source, y), equal_rows(rows, y), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    split = [hold_out(a, y, None, 0.3, None, torch.Generator().manual_seed(1)) for a in (source, rows)]
    np.testing.assert_array_equal(split[0][1], split[1][1])


# ---------------------------------------------------------------------- mapped files


def resident(mapping) -> int:
    """Bytes of this process's memory that are pages of a mapped file."""
    name = Path(mapping).name
    of_file = re.findall(
        rf"{re.escape(name)}\n(?:(?!^[0-9a-f]+-).*\n)*?Rss:\s+(\d+) kB", Path("/proc/self/smaps").read_text(), re.M
    )
    return 1024 * sum(map(int, of_file))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mapped_rows"
    np.arange(1 << 21, dtype=np.float64).tofile(path)  # 16 MB
    return path


needs_linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="reads /proc")


@needs_linux
@pytest.mark.parametrize("by_index", [False, True])
def test_pages_that_were_read_are_let_go(file, by_index, monkeypatch):
    monkeypatch.setattr(sources, "TOUCHED_AT_ONCE", 1 << 20)
    array = np.memmap(file, mode="r").view(np.float64).reshape(-1, 256)
    source = RowSource(ArrayRows(array[1:]))
    order = np.random.default_rng(0).permutation(len(source)) if by_index else np.arange(len(source))
    most = 0
    for start in range(0, len(source), 64):
        rows = order[start : start + 64]
        part = source[rows] if by_index else source[start : start + 64]
        np.testing.assert_array_equal(part[:, 0], (rows + 1) * 256)
        most = max(most, resident(file))
    assert most < 6 << 20
    assert array.sum() > 0 and resident(file) > 15 << 20  # else the test would not see them


@needs_linux
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_what_was_written_is_never_let_go(file, mode):
    array = np.memmap(file, dtype=np.float64, mode=mode)
    view = array[5:].reshape(-1, 1)[::2]
    if mode != "r":
        array[5] = -7.0
    assert array.sum() != 0
    let_go_of_pages(view)
    assert view[0, 0] == (5 if mode == "r" else -7)
    assert (resident(file) > 15 << 20) == (mode == "c")  # the pages of a copy on write are nowhere else


@needs_linux
@pytest.mark.parametrize("access", [mmap.ACCESS_READ, mmap.ACCESS_COPY])
def test_of_a_mapping_that_numpy_did_not_make_only_one_without_changes_is_let_go(file, access):
    with file.open("rb") as opened:
        mapping = mmap.mmap(opened.fileno(), 0, access=access)
    array = np.frombuffer(mapping)
    assert array.sum() > 0
    let_go_of_pages(array)
    assert (resident(file) < 1 << 20) == (access == mmap.ACCESS_READ)


def test_nothing_happens_to_other_arrays():
    let_go_of_pages(X)
    let_go_of_pages(X[::2])


# ---------------------------------------------------------------------- unpack


def test_arrays_and_lists_stay_what_they_are():
    y = np.arange(23)
    for given_X, given_y in [(X, y), (X.tolist(), y.tolist()), (X, None), (None, None)]:
        unpacked = unpack(given_X, given_y)
        assert unpacked[0] is given_X and unpacked[1] is given_y
    tensors = unpack(torch.from_numpy(X), torch.arange(23))
    assert all(isinstance(a, np.ndarray) for a in tensors)


def test_large_mapped_files_and_overlapping_windows_are_left_in_place(file, monkeypatch):
    mapped = np.memmap(file, dtype=np.float64, mode="r").reshape(-1, 64)
    assert unpack(mapped, None)[0] is mapped  # 16 MB fit
    monkeypatch.setattr(sources, "LARGE_MAPPING", 1 << 24)
    for array in (mapped, np.asarray(mapped)[::1], np.load(save(file, np.asarray(mapped)), mmap_mode="r")):
        assert isinstance(unpack(array, None)[0], RowSource)
    in_memory = mapped[np.arange(len(mapped))]  # numpy leaves the class and no mapping
    assert unpack(in_memory, None)[0] is in_memory
    series = np.arange(100_000.0)
    windows = make_windows(series, 96)[0]
    assert isinstance(unpack(windows, None)[0], RowSource)
    for small in (
        windows[:100],
        series[:, None],
        make_windows(series, 96, stride=96)[0],
        np.broadcast_to(series, (2, 100_000)),
    ):
        assert unpack(small, None)[0] is small


def save(file, array):
    np.save(file.with_suffix(".npy"), array)
    return file.with_suffix(".npy")


@pytest.mark.parametrize("kind", ["dataset", "slice", "subset", "sequence", "skorch", "tensors", "loader"])
@pytest.mark.parametrize("lazy", [False, True])
def test_datasets_of_every_kind_give_their_rows(kind, lazy):
    y = np.arange(23) % 3
    items = Items(X, y)
    given = {
        "dataset": (items, None),
        "slice": (SliceDataset(items), SliceDataset(items, 1)),
        "subset": (Subset(items, [4, 2]), None),
        "sequence": (SliceDataset(items)[[4, 2]], y[[4, 2]]),
        "skorch": (SkorchDataset(X, y), None),
        "tensors": (TensorDataset(torch.from_numpy(X), torch.from_numpy(y)), None),
        "loader": (DataLoader(items, batch_size=5), None),
    }[kind]
    inputs, targets = unpack(*given, lazy=lazy)
    assert isinstance(inputs, RowSource) == (kind == "loader" or (lazy and kind != "tensors"))
    rows = [4, 2] if kind in ("subset", "sequence") else slice(None)
    np.testing.assert_array_equal(inputs[:], X[rows])
    np.testing.assert_array_equal(targets, y[rows])


def test_large_datasets_are_left_in_place(monkeypatch):
    items = Items(X, np.arange(23))
    assert isinstance(unpack(items, None)[0], np.ndarray)
    monkeypatch.setattr(sources, "LARGE_DATASET", X.nbytes - 1)
    assert isinstance(unpack(items, None)[0], RowSource)
    assert isinstance(unpack(SliceDataset(items), None)[0], RowSource)
    assert isinstance(unpack(SliceDataset(items)[:22], None)[0], np.ndarray)
    monkeypatch.setattr(sources, "LARGE_DATASET", X.nbytes)
    assert isinstance(unpack(items, None)[0], np.ndarray)


@pytest.mark.parametrize("name", ["targets", "labels", "y"])
def test_known_targets_spare_reading_all_items(name):
    items = Items(X, np.arange(23))
    setattr(items, name, torch.arange(23))
    for dataset, expected in [(items, range(23)), (Subset(items, range(20, 5, -1)), range(20, 5, -1))]:
        items.n_read = 0
        np.testing.assert_array_equal(unpack(dataset, None, lazy=True)[1], list(expected))
        assert items.n_read <= 10
    np.testing.assert_array_equal(unpack(X, SliceDataset(items, 1)[[7, 8]])[1], [7, 8])


@pytest.mark.parametrize("make", [Items, Batched])
def test_each_item_is_read_once(make):
    items = make(X, np.arange(23))

    def n_read(given, **options):
        items.n_read = 0
        inputs, targets = unpack(given, None, **options)
        if isinstance(inputs, RowSource):
            inputs = np.concatenate(list(inputs.mapped(lambda part: part + 1).parts(5))) - 1
        np.testing.assert_allclose(inputs, X)
        if options.get("targets") == "never":
            assert targets is None
        else:
            np.testing.assert_array_equal(targets() if callable(targets) else targets, range(23))
        return items.n_read

    for targets in ("now", "later", "never"):
        assert n_read(items, targets=targets) == 23
    one_to_see = 24
    for dataset in (items, DataLoader(items)):
        assert n_read(dataset, targets="never", lazy=True) == n_read(dataset, targets="later", lazy=True) == one_to_see
        assert n_read(dataset, targets="now", lazy=True) == one_to_see + 23


def test_targets_of_rows_that_were_not_read_are_read_later():
    items = Items(X, np.arange(23))
    source, targets = unpack(items, None, lazy=True, targets="later")
    source[np.array([7, 3, -1])]
    items.n_read = 0
    np.testing.assert_array_equal(targets(), range(23))
    assert items.n_read == 23 - 4  # the three, and the first for its shape


def test_inputs_alone_may_come_in_tuples():
    inputs, _ = unpack(Subset([(row,) for row in X], range(23)), None, targets="never")
    np.testing.assert_array_equal(inputs, X)


def test_targets_that_items_do_not_have_are_not_believed():
    items = Items(X, np.arange(23))
    items.targets = np.arange(23) + 100  # changed by a target_transform
    np.testing.assert_array_equal(unpack(items, None, lazy=True)[1], np.arange(23))
    items.targets = np.arange(22)
    np.testing.assert_array_equal(unpack(items, None, lazy=True)[1], np.arange(23))


def test_items_without_targets_are_inputs():
    inputs, targets = unpack(Subset(X, range(23)), None, lazy=True)
    assert targets is None
    np.testing.assert_array_equal(inputs[:], X)
    mixed = [(X[0], 1), X[1]]
    with pytest.raises(InvalidInputError, match="must be pairs of input and target where no y is given"):
        unpack(Subset(mixed, range(2)), None)


def test_items_of_unequal_shape_are_a_list_in_memory():
    items = [np.zeros((n, 2)) for n in (3, 1, 2)]
    inputs, _ = unpack(Subset(items, range(3)), None)
    assert [a.shape for a in inputs] == [(3, 2), (1, 2), (2, 2)]


def test_images_of_unequal_shape_are_refused():
    images = [np.zeros((3, 8, n)) for n in (8, 9)]
    for items in (images, [{"photo": image} for image in images]):
        with pytest.raises(InvalidInputError, match=re.escape("must have one shape. Got (3, 8, 8) and (3, 8, 9). Resize")):
            unpack(Subset(items, range(2)), None)


def test_a_dataset_without_items_is_refused():
    for empty in (Items(X[:0], []), DataLoader(Items(X, range(23)), sampler=SubsetRandomSampler([]))):
        with pytest.raises(InvalidInputError, match=f"A {type(empty).__name__} must give at least one row. Got none"):
            unpack(empty, None)


def test_a_list_of_pairs_is_a_dataset_that_was_cut():
    items = Items(X, range(23))
    with pytest.raises(InvalidInputError, match=r"Pass skorch.helper.SliceDataset\(dataset\) as X"):
        unpack([items[i] for i in range(3)], None)
    pairs = [(row, row) for row in X]  # rows of one more dimension
    assert unpack(pairs, None)[0] is pairs


# ---------------------------------------------------------------------- samplers and collate_fn of a DataLoader

SOME = [20, 4, 11]
# What a loader is given, and the rows that it goes through; None where that is not known.
SAMPLERS = {
    "in order": ({}, range(23)),
    "shuffled": ({"shuffle": True}, range(23)),
    "subset": ({"sampler": SubsetRandomSampler(SOME)}, SOME),
    "subset of tensors": ({"sampler": SubsetRandomSampler(torch.tensor(SOME))}, SOME),
    "first": ({"sampler": SequentialSampler(range(5))}, range(5)),
    "first shuffled": ({"sampler": RandomSampler(range(5))}, range(5)),
    "list": ({"sampler": SOME}, SOME),
    "array": ({"sampler": np.array(SOME)}, SOME),
    "batches of a subset": ({"batch_sampler": BatchSampler(SubsetRandomSampler(SOME), 2, False)}, SOME),
    "replaced": ({"sampler": RandomSampler(range(23), replacement=True)}, None),
    "some": ({"sampler": RandomSampler(range(23), num_samples=5)}, None),
    "weighted": ({"sampler": WeightedRandomSampler([1.0] * 23, 23)}, None),
    "batches of the user's": ({"batch_sampler": [[1, 2], [2, 3]]}, [[1, 2], [2, 3]]),
}


@pytest.mark.parametrize("known", [False, True], ids=["targets read", "targets known"])
@pytest.mark.parametrize("kind", [kind for kind in SAMPLERS if kind != "batches of the user's"])
def test_the_rows_of_a_loader_are_those_of_its_sampler(kind, known):
    arguments, expected = SAMPLERS[kind]
    items = Items(X, np.arange(23) + 0.5)
    if known:
        items.targets = items.numbers
    loader = DataLoader(items, **arguments)
    trained = list(range(23)) if expected is None else list(expected)
    inputs, targets = unpack(loader, None, training=True)
    np.testing.assert_array_equal(inputs[:], X[trained])
    np.testing.assert_array_equal(targets, np.array(trained) + 0.5)
    assert inputs.loader is loader
    if expected is None:
        for each in ("now", "later", "never"):
            with pytest.raises(InvalidInputError, match=r"must be known, each once\. Got one with a \w+Sampler, which"):
                unpack(loader, None, targets=each)
        return
    inputs, targets = unpack(loader, None, targets="later")
    np.testing.assert_array_equal(inputs[:], X[trained])
    np.testing.assert_array_equal(targets(), np.array(trained) + 0.5)


@pytest.mark.parametrize("known", [False, True])
def test_items_that_a_sampler_leaves_out_are_not_read(known):
    class Broken(Items):
        def __getitem__(self, i):
            assert i in SOME
            return super().__getitem__(i)

    items = Broken(X, np.arange(23))
    if known:
        items.targets = items.numbers
    for training in (False, True):
        inputs, targets = unpack(DataLoader(items, sampler=SubsetRandomSampler(SOME)), None, training=training)
        np.testing.assert_array_equal(inputs[:], X[SOME])
        np.testing.assert_array_equal(targets, SOME)


def test_batches_that_the_user_lists_are_no_rows():
    loader = DataLoader(Items(X, range(23)), batch_sampler=SAMPLERS["batches of the user's"][0]["batch_sampler"])
    assert len(unpack(loader, None, training=True)[0]) == 23
    with pytest.raises(InvalidInputError, match="rows of a DataLoader must be known"):
        unpack(loader, None)


def test_single_items_are_no_batches():
    with pytest.raises(InvalidInputError, match="Got one with batch_size=None, which gives single items"):
        unpack(DataLoader(Items(X, range(23)), batch_size=None), None)


def halved(items):
    rows, targets = default_collate(items)
    return rows / 2, targets + 1


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("known", [False, True])
def test_rows_are_what_a_collate_fn_makes_of_them(known, n_workers):
    items = Items(X, np.arange(23))
    if known:
        items.targets = np.arange(23)
    loader = DataLoader(items, batch_size=4, collate_fn=halved, num_workers=n_workers)
    for when in ("now", "later"):
        source, targets = unpack(loader, None, targets=when)
        np.testing.assert_array_equal(np.concatenate(list(source.parts(5))), X / 2)
        np.testing.assert_array_equal(source[np.array([7, 3])], X[[7, 3]] / 2)
        np.testing.assert_array_equal(targets() if when == "later" else targets, np.arange(23) + 1)


def test_a_collate_fn_may_give_dicts():
    def named(items):
        rows, targets = default_collate(items)
        return {"a": rows, "b": rows[:, 0] + 1}, {"number": targets, "half": targets / 2}

    source, targets = unpack(DataLoader(Items(X, np.arange(23)), collate_fn=named), None)
    np.testing.assert_array_equal(source[:]["b"], X[:, 0] + 1)
    np.testing.assert_array_equal(targets["half"], np.arange(23) / 2)


def test_a_collate_fn_may_give_inputs_alone_where_no_targets_are_wanted():
    loader = DataLoader(Items(X, range(23)), collate_fn=lambda items: default_collate(items)[0])
    np.testing.assert_array_equal(unpack(loader, None, targets="never")[0][:], X)
    with pytest.raises(InvalidInputError, match=r"must give batches \(X, y\)\. Got a Tensor"):
        unpack(loader, None)


def test_rows_that_a_collate_fn_leaves_out_or_pads_are_refused():
    items = [(np.zeros(3 + (i == 1)), i) for i in range(4)]

    def collate_to(n_columns):
        return lambda batch: default_collate([(np.zeros(n_columns(batch)), y) for _, y in batch])

    padded = DataLoader(items, collate_fn=collate_to(lambda batch: max(len(x) for x, _ in batch)))
    source, _ = unpack(padded, None, targets="never")
    with pytest.raises(InvalidInputError, match=re.escape("one shape in all batches. Got (3,) and (4,). Pad all")):
        source[:]
    source, _ = unpack(DataLoader(items, collate_fn=collate_to(lambda batch: 5)), None, targets="never")
    assert source[:].shape == (4, 5)
    without_last = DataLoader([items[i] for i in (0, 2, 3)], collate_fn=lambda batch: default_collate(batch[:2]))
    source, _ = unpack(without_last, None, targets="never")
    with pytest.raises(InvalidInputError, match=r"must make one row of each item\. Got 2 rows of 3 items"):
        source[:]


def test_streams_are_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield from zip(X, range(23), strict=True)

    for stream in (Stream(), DataLoader(Stream())):
        with pytest.raises(InvalidInputError, match="must have a length"):
            unpack(stream, None)


def test_a_source_of_a_dataset_survives_pickling():
    source = RowSource(DatasetRows(Items(X, range(23)), first)).take(np.array([3, 1]))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[:], X[[3, 1]])
