"""load_image_folder and ImageFolderDataset: which files, which pixels, what is bad; at once and batch by batch."""

import builtins
import os
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils import Bunch
from torch.utils.data import DataLoader

from skpt.datasets import ImageFolderDataset, load_image_folder
from skpt.exceptions import InvalidInputError, SkptWarning


def save(path: Path, pixels, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=getattr(pixels, "dtype", np.uint8))).save(path, **options)
    return path


def noise(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Seven images of 6 x 5 pixels in three classes; every one is another."""
    names = ["b/1.png", "b/10.png", "b/2.PNG", "a/x.png", "a/deep/er/y.png", "c/z.bmp", "c/Z.png"]
    for i, name in enumerate(names):
        save(tmp_path / "images" / name, noise(6, 5, 3, seed=i))
    return tmp_path / "images"


class TestFiles:
    def test_classes_and_files_are_sorted(self, folder):
        dataset = ImageFolderDataset(folder)
        names = [file.relative_to(folder).as_posix() for file in dataset.files]
        assert names == ["a/deep/er/y.png", "a/x.png", "b/1.png", "b/10.png", "b/2.PNG", "c/Z.png", "c/z.bmp"]
        assert dataset.classes == ["a", "b", "c"] and dataset.class_to_idx == {"a": 0, "b": 1, "c": 2}
        assert dataset.targets.tolist() == [0, 0, 1, 1, 1, 2, 2] and dataset.targets.dtype == np.int64
        assert len(dataset) == 7 and "7 images, 3 classes" in repr(dataset)

    def test_hidden_and_other_files_are_left_out(self, folder):
        expected = ImageFolderDataset(folder).files
        save(folder / ".cache" / "1.png", noise(6, 5, 3))
        save(folder / "a" / ".thumbnails" / "1.png", noise(6, 5, 3))
        save(folder / "a" / ".hidden.png", noise(6, 5, 3))
        save(folder / "of_no_class.png", noise(6, 5, 3))
        (folder / "a" / "README.md").write_text("words")
        assert ImageFolderDataset(folder).files == expected

    def test_links_are_followed_but_not_in_circles(self, folder, tmp_path):
        save(tmp_path / "elsewhere" / "1.png", noise(6, 5, 3))
        os.symlink(tmp_path / "elsewhere", folder / "a" / "linked")
        os.symlink(folder / "a", folder / "a" / "circle")
        names = [file.relative_to(folder).as_posix() for file in ImageFolderDataset(folder).files]
        assert names[:3] == ["a/deep/er/y.png", "a/linked/1.png", "a/x.png"] and len(names) == 8

    def test_no_folder_no_class_and_no_image_are_errors(self, tmp_path):
        with pytest.raises(InvalidInputError, match="nowhere' is no folder"):
            load_image_folder(tmp_path / "nowhere")
        with pytest.raises(InvalidInputError, match="must hold one folder for each class"):
            load_image_folder(tmp_path)
        save(tmp_path / "full" / "1.png", noise(2, 2))
        (tmp_path / "empty").mkdir()
        with pytest.raises(InvalidInputError, match=re.escape("Got none in ['empty']")):
            load_image_folder(tmp_path)

    @pytest.mark.parametrize("relative", [True, False])
    def test_skipped_files_are_left_out(self, folder, monkeypatch, relative):
        monkeypatch.chdir(folder.parent)
        path = "images" if relative else folder
        all_files = ImageFolderDataset(path).files
        assert ImageFolderDataset(path, skip=[all_files[1], "b/10.png"]).files == [all_files[i] for i in (0, 2, 4, 5, 6)]

    @pytest.mark.parametrize("relative", [True, False])
    def test_skipped_files_may_be_written_in_any_way(self, folder, monkeypatch, relative):
        monkeypatch.chdir(folder.parent)
        path = "images" if relative else folder
        os.symlink(folder, folder.parent / "link")
        first, *others = ImageFolderDataset(path).files
        for way in ("images", "./images", "images/b/..", folder, folder.parent / "link"):
            skip = Path(way, "a", "deep", "er", "y.png")
            for each in (skip, str(skip), [skip], iter([str(skip)]), {skip: "what is wrong"}):
                assert ImageFolderDataset(path, skip=each).files == others
        assert ImageFolderDataset(path, skip="a/x.png").files == [first, *others[1:]]
        assert ImageFolderDataset(folder.parent / "link", skip=first).files[0].name == others[0].name
        assert len(ImageFolderDataset(path, skip=())) == 7

    def test_of_links_to_one_file_that_which_is_named_is_skipped(self, folder):
        os.symlink(folder / "b" / "1.png", folder / "b" / "0.png")
        names = [file.name for file in ImageFolderDataset(folder, skip="b/0.png").files[2:5]]
        assert names == ["1.png", "10.png", "2.PNG"]

    @pytest.mark.parametrize("skip", ["a/X.png", "a", "b", "", "a/README.md", Path("elsewhere", "1.png")])
    def test_to_skip_what_is_no_image_there_is_an_error(self, folder, skip):
        for each in (skip, ["a/x.png", skip]):
            with pytest.raises(InvalidInputError, match=r"'skip' parameter .* must name images") as raised:
                ImageFolderDataset(folder, skip=each)
            assert f"Got {[str(Path(skip))]}" in str(raised.value)


class TestPixels:
    def test_those_of_the_file_channels_first(self, folder):
        X, y = load_image_folder(folder, return_X_y=True)
        assert X.shape == (7, 3, 6, 5) and X.dtype == np.uint8 and X.flags.c_contiguous
        np.testing.assert_array_equal(y, [0, 0, 1, 1, 1, 2, 2])
        for pixels, seed in zip(X, [4, 3, 0, 1, 2, 6, 5], strict=True):
            np.testing.assert_array_equal(pixels.transpose(1, 2, 0), noise(6, 5, 3, seed=seed))

    def test_bunch_has_the_usual_fields(self, folder):
        bunch = load_image_folder(folder)
        assert isinstance(bunch, Bunch)
        X, y = load_image_folder(folder, return_X_y=True)
        np.testing.assert_array_equal(bunch.data, X)
        np.testing.assert_array_equal(bunch.target, y)
        assert bunch.target_names == ["a", "b", "c"] and bunch.bad_files == {}
        assert bunch.filenames == [str(file) for file in ImageFolderDataset(folder).files]
        assert f"7 images of (3, 6, 5) (n_channels, height, width) in 3 classes, from {folder}" == bunch.DESCR

    def test_grey_is_the_luminance(self, folder):
        X = load_image_folder(folder, mode="L").data
        assert X.shape == (7, 1, 6, 5)
        luminance = noise(6, 5, 3, seed=4) @ np.array([299, 587, 114]) / 1000  # ITU-R 601-2
        np.testing.assert_allclose(X[0, 0], luminance, atol=1)

    def test_resizing_gives_height_by_width(self, tmp_path):
        pixels = np.zeros((8, 8), dtype=np.uint8)
        pixels[:, 4:] = 200
        save(tmp_path / "a" / "1.png", pixels)
        wide = load_image_folder(tmp_path, size=(2, 4), mode="L").data[0, 0]
        assert wide.shape == (2, 4)
        assert (np.diff(wide.astype(int), axis=1) >= 0).all() and wide[0, 0] == 0 and wide[0, -1] == 200
        assert load_image_folder(tmp_path, size=np.int64(3)).data.shape == (1, 3, 3, 3)

    def test_downsizing_averages_what_falls_together(self, tmp_path):
        pixels = noise(64, 64)
        save(tmp_path / "a" / "1.png", pixels)
        small = load_image_folder(tmp_path, size=4, mode="L").data[0, 0]
        # Noise of deviation 74: points picked out of it would vary as much, means over 16 x 16 and more by 4.
        assert np.abs(small.astype(float) - 127.5).max() < 25

    def test_large_photographs_are_decoded_small(self, tmp_path):
        """A fraction of a JPEG file is decoded; what comes of it is nearly what comes of the whole."""
        phase = np.linspace(0, 40 * np.pi, 240)  # 20 waves, each of 2 pixels of what comes of it
        pixels = np.stack([127 + 120 * np.sin(np.add.outer(phase * k, phase)) for k in (0, 0.5, 1)], axis=-1)
        file = save(tmp_path / "a" / "1.jpg", pixels.astype(np.uint8), quality=95, subsampling=0)
        with Image.open(file) as image:
            whole = np.asarray(image.resize((40, 30), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        np.testing.assert_allclose(load_image_folder(tmp_path, size=(30, 40)).data[0].astype(int), whole, atol=6)

    @pytest.mark.parametrize("size", [None, (6, 4), 5])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_images_are_turned_upright(self, tmp_path, orientation, size):
        """Stored in every orientation that EXIF knows, one picture comes out."""
        upright = np.repeat(np.repeat(np.array([[10, 60], [110, 160], [210, 250]], dtype=np.uint8), 2, 0), 2, 1)
        stored = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.T,
            6: np.rot90(upright),
            7: upright[::-1, ::-1].T,
            8: np.rot90(upright, -1),
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(tmp_path / "turned" / "1.png", np.ascontiguousarray(stored), exif=exif)
        save(tmp_path / "upright" / "1.png", upright)
        turned, expected = load_image_folder(tmp_path, size=size, mode="L").data
        np.testing.assert_array_equal(turned, expected)

    @pytest.mark.parametrize("kind", ["1", "P", "LA", "RGBA", "CMYK", "I;16"])
    def test_every_kind_of_image_becomes_rgb(self, tmp_path, kind):
        grey = np.array([[0, 255], [255, 0]], dtype=np.uint8)
        if kind == "I;16":
            image = Image.fromarray((grey.astype(np.uint16) << 8) + 17)
        elif kind == "P":
            image = Image.fromarray(grey).convert("P")
            image.info["transparency"] = bytes([0, 128] * 128)  # of each colour, of which Pillow warns
        else:
            image = Image.fromarray(np.stack([grey] * 3, axis=-1)).convert(kind)
        (tmp_path / "a").mkdir()
        image.save(tmp_path / "a" / ("1.tif" if kind == "CMYK" else "1.png"), **image.info)
        np.testing.assert_array_equal(load_image_folder(tmp_path).data[0], np.stack([grey] * 3))

    def test_pixels_of_unknown_range_are_bad(self, tmp_path):
        save(tmp_path / "a" / "1.tif", noise(3, 3).astype(np.float32))
        with pytest.raises(InvalidInputError, match=r"1\.tif: ValueError: its pixels have 32 bits"):
            load_image_folder(tmp_path)

    @pytest.mark.parametrize("size", [0, (4,), (4, 4, 4), 2.5, (4, -1), "64", (True, 4), True])
    def test_other_sizes_are_refused(self, folder, size):
        with pytest.raises(InvalidInputError, match=re.escape(f"Got {size!r} instead")):
            load_image_folder(folder, size)

    def test_other_modes_are_refused(self, folder):
        with pytest.raises(InvalidInputError, match=r"must be 'RGB' or 'L'\. Got 'rgb' instead"):
            ImageFolderDataset(folder, mode="rgb")

    def test_images_of_several_sizes_are_named(self, folder):
        save(folder / "a" / "a_first.png", noise(4, 9, 3))
        with pytest.raises(InvalidInputError) as raised:
            load_image_folder(folder)
        message = str(raised.value)
        assert "a_first.png has 4 x 9 pixels, but\n" in message and "x.png: 6 x 5\n" in message and "size=64" in message
        assert load_image_folder(folder, size=4).data.shape == (8, 3, 4, 4)


@pytest.fixture
def bad(folder):
    """The folder with a file cut short, one of text, and one that is empty."""
    whole = save(folder / "b" / "cut.png", noise(60, 50, 3)).read_bytes()
    (folder / "b" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "c" / "text.jpeg").write_text("no image")
    (folder / "a" / "empty.GIF").touch()
    return folder, ["a/empty.GIF", "b/cut.png", "c/text.jpeg"]


class TestBadFiles:
    def test_an_error_lists_all(self, bad):
        folder, names = bad
        with pytest.raises(InvalidInputError) as raised:
            load_image_folder(folder)
        message = str(raised.value)
        assert all(f"{folder / name}: " in message for name in names) and "on_bad_file='warn'" in message
        assert "1.png: " not in message

    def test_a_warning_lists_all_and_the_rest_is_read(self, bad):
        folder, names = bad
        with pytest.warns(SkptWarning) as warned:
            bunch = load_image_folder(folder, on_bad_file="warn")
        message = str(warned[0].message)
        assert len(warned) == 1 and all(f"{folder / name}: " in message for name in names)
        assert warned[0].filename == __file__
        assert list(bunch.bad_files) == [folder / name for name in names]
        for name in names:
            (folder / name).unlink()
        rest = load_image_folder(folder)
        np.testing.assert_array_equal(bunch.data, rest.data)
        np.testing.assert_array_equal(bunch.target, rest.target)
        assert bunch.filenames == rest.filenames

    def test_a_long_list_is_counted(self, tmp_path):
        for i in range(25):
            save(tmp_path / "a" / f"{i:02}.png", noise(2, 2)).write_bytes(b"")
        with pytest.raises(InvalidInputError, match=r"19\.png: [^\n]*\n    and 5 more\nMend or remove them\.$"):
            load_image_folder(tmp_path, on_bad_file="warn")  # nothing is left to read

    def test_a_dataset_names_the_file_when_it_is_read(self, bad):
        folder, names = bad
        dataset = ImageFolderDataset(folder)
        assert [file.relative_to(folder).as_posix() for file in dataset.bad_files()] == names
        number = dataset.files.index(folder / "b" / "cut.png")
        for read in (lambda: dataset[number], lambda: dataset.__getitems__([0, number, 1])):
            with pytest.raises(InvalidInputError, match=r"cut\.png: OSError"):
                read()
        good = ImageFolderDataset(folder, skip=dataset.bad_files())
        assert len(good) == len(dataset) - 3 and good.bad_files() == {}

    def test_what_to_do_is_checked(self, folder):
        with pytest.raises(InvalidInputError, match=r"must be 'raise' or 'warn'\. Got 'ignore' instead"):
            load_image_folder(folder, on_bad_file="ignore")


class TestDataset:
    def test_items_are_those_of_the_array(self, folder):
        X, y = load_image_folder(folder, size=4, return_X_y=True)
        dataset = ImageFolderDataset(folder, size=4)
        for item, pixels, label in zip(dataset, X, y, strict=True):
            assert isinstance(item[0], torch.Tensor) and item[0].dtype == torch.uint8 and type(item[1]) is int
            np.testing.assert_array_equal(item[0], pixels)
            assert item[1] == label
        batch = dataset.__getitems__(np.array([3, 0, 3]))
        np.testing.assert_array_equal(torch.stack([image for image, _ in batch]), X[[3, 0, 3]])
        np.testing.assert_array_equal(dataset[-1][0], X[-1])
        np.testing.assert_array_equal(dataset[np.int64(2)][0], X[2])

    @pytest.mark.parametrize("n_workers", [0, 2])
    def test_a_loader_reads_it(self, folder, n_workers):
        X, y = load_image_folder(folder, size=4, return_X_y=True)
        batches = list(DataLoader(ImageFolderDataset(folder, size=4), batch_size=3, num_workers=n_workers))
        np.testing.assert_array_equal(torch.cat([images for images, _ in batches]), X)
        np.testing.assert_array_equal(torch.cat([labels for _, labels in batches]), y)

    def test_nothing_is_decoded_before_it_is_read(self, folder, monkeypatch):
        opened = []
        true_open = Image.open
        monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or true_open(file))
        dataset = ImageFolderDataset(folder)
        assert opened == []
        dataset[3]
        assert opened == [dataset.files[3]]

    def test_a_batch_is_decoded_by_several_threads(self, folder, monkeypatch):
        """Each decoder waits for another one: alone, none would come through."""
        from threading import Barrier

        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
        together, true_open = Barrier(2, timeout=30), Image.open
        monkeypatch.setattr(Image, "open", lambda file: (together.wait() and None) or true_open(file))
        assert len(ImageFolderDataset(folder).__getitems__([0, 1, 2, 3])) == 4

    def test_it_survives_pickling(self, folder):
        dataset = ImageFolderDataset(folder, size=4, mode="L")
        again = pickle.loads(pickle.dumps(dataset))
        assert repr(again) == repr(dataset)
        np.testing.assert_array_equal(again[5][0], dataset[5][0])


def test_without_pillow_the_extra_is_named(folder, monkeypatch):
    true_import = builtins.__import__

    def without_pillow(name, *arguments, **keywords):
        if name.partition(".")[0] == "PIL":
            raise ImportError(f"No module named {name!r}")
        return true_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    for read in (load_image_folder, ImageFolderDataset):
        with pytest.raises(ImportError, match=re.escape('pip install "skpt[images]"')):
            read(folder)


def test_reading_is_silent(folder):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_image_folder(folder)
    assert not caught
